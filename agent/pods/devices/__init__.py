"""Devices of device plugins: who has which, and what a container gets with its own."""
