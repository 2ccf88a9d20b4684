"""The name of a pod inside itself: hostname, and its domain where a subdomain gives it one.

In: the pod and the cluster's domain. Out: `PodHostname`. Source: the Kubernetes page "DNS for Services and Pods".
"""

from __future__ import annotations

import re

import msgspec

from agent.errors import Permanent
from agent.model.pod import Pod

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_LABEL = 63
_MAX_NAME = 253
_MAX_KERNEL_NAME = 64
_REASON = "FailedCreatePodSandBox"


class PodHostname(msgspec.Struct, frozen=True):
    hostname: str
    domain: str = ""
    """SUBDOMAIN.NAMESPACE.svc.CLUSTER_DOMAIN; empty without a subdomain."""

    @property
    def fqdn(self) -> str:
        return f"{self.hostname}.{self.domain}" if self.domain else self.hostname


def pod_hostname(pod: Pod, cluster_domain: str) -> PodHostname:
    """Raises Permanent("FailedCreatePodSandBox") where the spec's names are no DNS names."""
    spec = pod.spec
    if spec.hostnameOverride is not None:
        # It stands alone: the API gives such a pod no subdomain and no cluster domain.
        # A label of it may be longer than 63: the name is cut there anyway.
        if len(spec.hostnameOverride) > _MAX_NAME or not _NAME.fullmatch(spec.hostnameOverride):
            raise Permanent(_REASON, f"spec.hostnameOverride {spec.hostnameOverride!r} is not a DNS name")
        return PodHostname(_shortened(spec.hostnameOverride))
    for path, name in (("spec.hostname", spec.hostname), ("spec.subdomain", spec.subdomain)):
        if name and not _LABEL.fullmatch(name):
            raise Permanent(_REASON, f"{path} {name!r} is not a DNS label")
    domain = f"{spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}" if spec.subdomain else ""
    return PodHostname(_shortened(spec.hostname or pod.metadata.name), domain)


def kernel_hostname(pod: Pod, name: PodHostname) -> str:
    """What `uname -n` says in the pod: the short name, or all of it with setHostnameAsFQDN.

    Raises Permanent("FailedCreatePodSandBox") where that is longer than the kernel takes.
    """
    if not (pod.spec.setHostnameAsFQDN and name.domain):
        return name.hostname
    if len(name.fqdn) > _MAX_KERNEL_NAME:
        raise Permanent(
            _REASON,
            f"spec.setHostnameAsFQDN: {name.fqdn} is {len(name.fqdn)} characters long, "
            f"a host name at most {_MAX_KERNEL_NAME}",
        )
    return name.fqdn


def _shortened(name: str) -> str:
    """Pod names may be longer than a host name; a cut must not leave a dash or dot at the end."""
    return name if len(name) <= _MAX_LABEL else name[:_MAX_LABEL].rstrip("-.")
