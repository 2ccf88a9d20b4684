"""The runtime's network as containerd's verbose status tells it."""

from __future__ import annotations

import json
from typing import Any

LOOPBACK = {"Config": {"Name": "cni-loopback", "Plugins": [{"Source": '{"type":"loopback"}'}]}, "IFName": "lo"}


def cniconfig(*plugins: dict[str, Any], name: str = "edgelet") -> str:
    sources = [{"Network": {"type": one["type"]}, "Source": json.dumps(one)} for one in plugins]
    network = {"Config": {"CNIVersion": "0.4.0", "Name": name, "Plugins": sources}, "IFName": "eth0"}
    return json.dumps({"PluginDirs": ["/usr/lib/cni"], "Networks": [LOOPBACK, network], "Prefix": "eth"})


def bridge(*subnets: str, ipam: str = "edgelet-ipam", **more: Any) -> dict[str, Any]:
    """One range set for each subnet."""
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    return {"type": "bridge", "bridge": "edgelet0", "ipam": {"type": ipam, "ranges": ranges, **more}}
