"""The text of the /etc/hosts file that the agent keeps for a pod.

In: the pod, its name and addresses, for a pod on the host's network the node's own file. Out: text; whoever writes it
mounts it into every container that brings no /etc/hosts of its own. The header lines are wire facts: tools and the
upstream suite tell a managed file by them.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model.pod import Pod
from agent.pods.translate.hostname import PodHostname

_HEADER = "# Kubernetes-managed hosts file.\n"
_HEADER_HOST_NETWORK = "# Kubernetes-managed hosts file (host network).\n"
_ALIASES = "\n# Entries added by HostAliases.\n"
_LOOPBACK = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("fe00::0", "ip6-mcastprefix"),
    ("fe00::1", "ip6-allnodes"),
    ("fe00::2", "ip6-allrouters"),
)


def hosts_file(pod: Pod, name: PodHostname, pod_ips: Iterable[str], node_hosts: str) -> str:
    """The whole file. `node_hosts` is the node's own /etc/hosts, read only for a pod on the host's network."""
    if pod.spec.hostNetwork:
        return _HEADER_HOST_NETWORK + node_hosts + _aliases(pod)
    names = f"{name.fqdn}\t{name.hostname}" if name.domain else name.hostname
    lines = [f"{address}\t{text}\n" for address, text in _LOOPBACK]
    lines += [f"{address}\t{names}\n" for address in pod_ips]
    return _HEADER + "".join(lines) + _aliases(pod)


def _aliases(pod: Pod) -> str:
    if not pod.spec.hostAliases:
        return ""
    return _ALIASES + "".join("\t".join((alias.ip, *alias.hostnames)) + "\n" for alias in pod.spec.hostAliases)
