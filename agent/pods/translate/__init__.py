"""Turns a pod into the CRI's sandbox and container configurations; pure, so that every rule is a plain unit test."""
