"""Startup, readiness and liveness probes: asking a container how it is, counting the answers, and what they mean."""
