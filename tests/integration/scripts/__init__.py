"""Bash scripts as pods: what they do on the host, and who may not have them."""
