"""A pod to its CRI sandbox: names, resolver, host ports, cgroup and the namespaces that its containers share.

In: the pod, the attempt, its cgroup and the node's facts. Out: a PodSandboxConfig and notices for the pod's owner.
The runtime handler goes beside it in the request, not here.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agent.cri._generated import api_pb2
from agent.model.container import Container
from agent.model.pod import Pod
from agent.pods.sysctls import dotted
from agent.pods.translate import identity
from agent.pods.translate.context import Notice, TranslateContext
from agent.pods.translate.dns import pod_dns
from agent.pods.translate.hostname import kernel_hostname, pod_hostname
from agent.pods.translate.resources import sandbox_overhead, sandbox_resources
from agent.pods.translate.security import sandbox_security
from agent.policies.pod import NO_POLICIES, Policies

_PROTOCOLS = {"TCP": api_pb2.TCP, "UDP": api_pb2.UDP, "SCTP": api_pb2.SCTP}


class Sandbox(msgspec.Struct, frozen=True):
    config: api_pb2.PodSandboxConfig
    notices: tuple[Notice, ...] = ()


def sandbox(
    pod: Pod,
    attempt: int,
    cgroup_parent: str,
    seen: str,
    context: TranslateContext,
    policies: Policies = NO_POLICIES,
) -> Sandbox:
    """`seen` is the RFC 3339 time at which the agent first had the pod.

    Raises Permanent where the pod's names cannot be host names. Admission (`support`) has closed the sets of words.
    """
    meta = pod.metadata
    dns = pod_dns(pod, context)
    sysctls = pod.spec.securityContext.sysctls if pod.spec.securityContext else ()
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name=meta.name, namespace=meta.namespace, uid=meta.uid, attempt=attempt),
        hostname=_hostname(pod, context),
        log_directory=identity.pod_log_directory(context.pod_logs_dir, pod),
        dns_config=dns.config,
        port_mappings=[mapping for container in _with_ports(pod) for mapping in _port_mappings(container)],
        labels=identity.sandbox_labels(pod, context.node_name),
        annotations=identity.sandbox_annotations(pod, seen, policies),
        linux=api_pb2.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent,
            security_context=sandbox_security(pod, context),
            sysctls={dotted(sysctl.name): sysctl.value for sysctl in sysctls},
            overhead=sandbox_overhead(pod),
            resources=sandbox_resources(pod),
        ),
    )
    return Sandbox(config, dns.notices)


def _hostname(pod: Pod, context: TranslateContext) -> str:
    """Empty on the host's network, the CRI's way of saying "the node's"."""
    if pod.spec.hostNetwork:
        return ""
    return kernel_hostname(pod, pod_hostname(pod, context.cluster_domain))


def _with_ports(pod: Pod) -> Iterator[Container]:
    """Ordinary init containers are gone before anyone can connect; sidecars serve like the main containers."""
    yield from pod.spec.containers
    yield from (container for container in pod.spec.initContainers if container.is_sidecar)


def _port_mappings(container: Container) -> Iterator[api_pb2.PortMapping]:
    for port in container.ports:
        yield api_pb2.PortMapping(
            protocol=_PROTOCOLS[port.protocol],
            container_port=port.containerPort,
            host_port=port.hostPort,
            host_ip=port.hostIP,
        )
