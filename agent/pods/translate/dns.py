"""The pod's resolver: servers, search list and options from dnsPolicy, dnsConfig and the node's resolv.conf.

In: the pod and the node's facts. Out: the CRI's DNSConfig, and notices for what had to be left out or stood in for.
Source: the Kubernetes page "DNS for Services and Pods"; the limits are those of the API's validation.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.cri._generated import api_pb2
from agent.model.pod import Pod, PodDNSConfig
from agent.pods.translate.context import Notice, ResolvConf, TranslateContext

_MAX_NAMESERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARS = 2048
_MAX_DOMAIN_CHARS = 253
_CLUSTER_OPTIONS = ("ndots:5",)


class PodDns(msgspec.Struct, frozen=True):
    config: api_pb2.DNSConfig
    notices: tuple[Notice, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """The node's file. The last `search` line holds; options add up, the last of a name wins; the rest is skipped."""
    nameservers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search", *domains]:
                searches = [domain.removesuffix(".") for domain in domains if domain != "."]
            case ["options", *words]:
                options.update((word.partition(":")[0], word) for word in words)
    return ResolvConf(tuple(nameservers), tuple(searches), tuple(options.values()))


def read_resolv_conf(file: Path | None) -> ResolvConf | None:
    """None where there is no such file. Blocks: run it in a thread."""
    if file is None:
        return None
    try:
        return parse_resolv_conf(file.read_text(errors="replace"))
    except FileNotFoundError:
        return None


def pod_dns(pod: Pod, context: TranslateContext) -> PodDns:
    notices: list[Notice] = []
    match pod.spec.dnsPolicy:
        case "None":
            base = ResolvConf()
        case "Default":
            base = _of_node(context)
        case "ClusterFirst" if pod.spec.hostNetwork:
            base = _of_node(context)
        case _ if context.cluster_dns:
            base = _of_cluster(pod, context)
        case _ if context.standalone:
            base = _of_node(context)
        case policy:
            notices.append(
                Notice(
                    "MissingClusterDNS",
                    f'this node has no cluster DNS address (--cluster-dns): dnsPolicy "{policy}" acts as "Default"',
                )
            )
            base = _of_node(context)
    if pod.spec.dnsConfig is not None:
        base = _merged(base, pod.spec.dnsConfig)
    servers = base.nameservers[:_MAX_NAMESERVERS]
    if servers != base.nameservers:
        notices.append(_dropped("nameservers", "nameserver", servers))
    searches = _fitting(base.searches)
    if searches != base.searches:
        notices.append(_dropped("search paths", "search", searches))
    return PodDns(
        api_pb2.DNSConfig(servers=servers, searches=searches, options=base.options),
        tuple(notices),
    )


def _of_node(context: TranslateContext) -> ResolvConf:
    if context.resolv_conf is not None:
        return context.resolv_conf
    # Without a resolv.conf libc asks this very machine; said aloud, or the runtime would put the image's file there.
    loopbacks = tuple("::1" if ":" in address else "127.0.0.1" for address in context.node_ips)
    return ResolvConf(loopbacks or ("127.0.0.1",), (".",))


def _of_cluster(pod: Pod, context: TranslateContext) -> ResolvConf:
    searches = context.resolv_conf.searches if context.resolv_conf is not None else ()
    domain = context.cluster_domain
    if domain:
        searches = _unique((f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain, *searches))
    return ResolvConf(context.cluster_dns, searches, _CLUSTER_OPTIONS)


def _merged(base: ResolvConf, asked: PodDNSConfig) -> ResolvConf:
    """The pod's entries after the policy's; an option of the pod replaces the one of the same name."""
    options = {word.partition(":")[0]: word for word in base.options}
    options.update((o.name, f"{o.name}:{o.value}" if o.value else o.name) for o in asked.options)
    return ResolvConf(
        _unique((*base.nameservers, *asked.nameservers)),
        _unique((*base.searches, *asked.searches)),
        tuple(options.values()),
    )


def _fitting(searches: tuple[str, ...]) -> tuple[str, ...]:
    """The leading domains that the limits on count, length of each and length of the line leave."""
    kept = [domain for domain in searches[:_MAX_SEARCHES] if len(domain) <= _MAX_DOMAIN_CHARS]
    while len(" ".join(kept)) > _MAX_SEARCH_CHARS:
        kept.pop()
    return tuple(kept)


def _dropped(what: str, line: str, kept: Iterable[str]) -> Notice:
    return Notice("DNSConfigForming", f"too many {what}: some were left out, the {line} line is: {' '.join(kept)}")


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
