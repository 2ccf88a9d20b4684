"""How fast and how small the agent is beside a kubelet on the same machine: `python -m hack.bench`."""
