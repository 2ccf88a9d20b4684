"""Which addresses a pod has: at most one of each family, that of the node's first address first.

In: addresses as the runtime lists them, in any order and number, and the node's own. Out: what the status, the downward
API and the probes use. Pure; the same rule everywhere, or a pod would be probed at another address than it tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.model.pod import Pod


def pod_addresses(
    pod: Pod, of_sandbox: Sequence[str], of_node: Sequence[str], before: Sequence[str] = ()
) -> tuple[str, ...]:
    """Primary first. On the host's network a pod keeps the address that it was first told with (`before`), and is

    given a second one where the node gets one of the other family.
    """
    if not pod.spec.hostNetwork:
        return in_order(of_sandbox, of_node)
    if not before:
        return tuple(of_node[:2])
    families = {_parsed(address).version for address in before}
    return (*before, *(second for second in of_node[1:2] if _parsed(second).version not in families))


def in_order(addresses: Sequence[str], of_node: Sequence[str]) -> tuple[str, ...]:
    """The first of the family that the node's own first address has, then the first of the other."""
    primary = _parsed(of_node[0]).version if of_node else 4
    parsed = [_parsed(address) for address in addresses]
    firsts = (next((ip for ip in parsed if ip.version == family), None) for family in (primary, 10 - primary))
    return tuple(str(ip) for ip in firsts if ip is not None)


@lru_cache(512)
def _parsed(address: str) -> IPv4Address | IPv6Address:
    """Asked again and again for the same few: the node's with each look at a pod."""
    return ip_address(address)
