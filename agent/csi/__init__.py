"""CSI drivers on this machine: their registration and the calls of their node service, over unix sockets."""
