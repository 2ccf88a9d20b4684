"""Every policy that a pod can have, in one table: each has a module of its own with its value and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.policies.bandwidth import EGRESS_BANDWIDTH, INGRESS_BANDWIDTH
from agent.policies.fixed_ip import FIXED_IP
from agent.policies.keep_for import KEEP_FOR
from agent.policies.log_sink import LOGS
from agent.policies.policy import Policy
from agent.policies.restart_on_disk import RESTART_ON_DISK

POLICIES: Final[tuple[Policy, ...]] = (
    KEEP_FOR,
    RESTART_ON_DISK,
    INGRESS_BANDWIDTH,
    EGRESS_BANDWIDTH,
    FIXED_IP,
    LOGS,
)

BY_ANNOTATION: Final[Mapping[str, Policy]] = {policy.annotation: policy for policy in POLICIES}
