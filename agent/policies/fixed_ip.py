"""`edgelet.io/fixed-ip`: the pod's name keeps its address. "true": whichever it got first; else the address itself."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from agent.policies.policy import Policy


class FixedIp(msgspec.Struct, frozen=True):
    address: str = ""
    """Empty: the one that was given to this name first, or any."""


def parse(value: str) -> FixedIp | None:
    """None for "false", with which a pod declines a default. Raises ValueError."""
    match value.strip().lower():  # YAML writes a bare true as True
        case "true":
            return FixedIp()
        case "false":
            return None
        case written:
            try:
                return FixedIp(str(ip_address(written)))
            except ValueError:
                raise ValueError('must be "true", "false" or an IP address') from None


FIXED_IP = Policy("edgelet.io/fixed-ip", "fixed_ip", parse)
