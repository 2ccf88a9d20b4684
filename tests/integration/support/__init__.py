"""What the integration tests share: waiting for what becomes true."""
