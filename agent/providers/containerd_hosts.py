"""What containerd is told of a registry: the text of its `hosts.toml`. Pure.

In: the node's registries, and where the certificates that are written out in them lie. Out: the file by folder name.
Source: containerd's docs/hosts.md. Two traps: 1.6 takes no file without a `host` table, and whatever the file says, the
`server` is asked last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from agent.config import EVERY_REGISTRY, Mirror, Registry
from agent.pods.images import DEFAULT_DOMAIN
from agent.pods.registry_credentials import DOCKER_HUB

MARK = "# Written by edgelet"
HEADER = f"{MARK} from its setting `registries`, at each start: what is changed here is lost.\n"

CaFile = Callable[[Registry], str]
"""The path of a registry's CA, which has one."""


def hosts_files(registries: Sequence[Registry], ca_file: CaFile) -> dict[str, str]:
    """By folder below containerd's `config_path`; none for a registry that only needs a password."""
    by_host = {one.host: one for one in registries}
    return {
        "_default" if one.host == EVERY_REGISTRY else one.host: _text(one, by_host, ca_file)
        for one in registries
        if one.mirrors or one.plain_http or _has_tls(one)
    }


def _text(registry: Registry, by_host: Mapping[str, Registry], ca_file: CaFile) -> str:
    lines = [HEADER, *_server(registry, by_host, ca_file), ""]
    if not registry.mirrors:
        lines.append("[host]")
    for mirror in registry.mirrors:
        lines += [f"[host.{_quoted(mirror.url)}]", 'capabilities = ["pull", "resolve"]']
        lines += [*_mirror(mirror, by_host, ca_file), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _server(registry: Registry, by_host: Mapping[str, Registry], ca_file: CaFile) -> Iterator[str]:
    if not registry.fallback:
        # There is no way to say that nobody else is asked: the last mirror is, once more.
        last = registry.mirrors[-1]
        yield f"server = {_quoted(last.url)}"
        yield from _mirror(last, by_host, ca_file)
        return
    if registry.host != EVERY_REGISTRY:
        asked = DOCKER_HUB if registry.host == DEFAULT_DOMAIN else registry.host
        scheme = "http" if registry.plain_http else "https"
        yield f"server = {_quoted(f'{scheme}://{asked}')}"
    yield from _tls(registry, ca_file)


def _mirror(mirror: Mirror, by_host: Mapping[str, Registry], ca_file: CaFile) -> Iterator[str]:
    if mirror.override_path:
        yield "override_path = true"
    if own := by_host.get(urlsplit(mirror.url).netloc):
        yield from _tls(own, ca_file)


def _tls(registry: Registry, ca_file: CaFile) -> Iterator[str]:
    if registry.ca:
        yield f"ca = {_quoted(ca_file(registry))}"
    if registry.client_cert is not None:
        pair = [str(registry.client_cert), str(registry.client_key or "")]
        yield f"client = [[{', '.join(map(_quoted, pair))}]]"
    if registry.skip_verify:
        yield "skip_verify = true"


def _has_tls(registry: Registry) -> bool:
    return bool(registry.ca or registry.skip_verify or registry.client_cert is not None)


def _quoted(word: str) -> str:
    """TOML's basic string, which is JSON's."""
    return json.dumps(word, ensure_ascii=False)
