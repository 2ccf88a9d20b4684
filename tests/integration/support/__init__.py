"""What the integration tests share: the agent as a process, and waiting."""
