"""`kubernetes.io/ingress-bandwidth`, `kubernetes.io/egress-bandwidth`: what a pod may receive and send."""

from __future__ import annotations

from agent.model import quantity
from agent.policies.policy import Policy

LEAST = 1_000
MOST = 10**15


def parse(value: str) -> int:
    """Bits a second of a quantity ("10M"), within the bounds that a kubelet sets. Raises ValueError."""
    exact = quantity.parse(value)
    if not LEAST <= exact <= MOST:
        raise ValueError("must be from 1k to 1P bits a second")
    return int(exact)


INGRESS_BANDWIDTH = Policy("kubernetes.io/ingress-bandwidth", "ingress_bandwidth", parse)
EGRESS_BANDWIDTH = Policy("kubernetes.io/egress-bandwidth", "egress_bandwidth", parse)
