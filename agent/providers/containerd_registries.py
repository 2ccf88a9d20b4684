"""Tell containerd how to ask registries: `hosts.toml` files in its `config_path`, which it reads at each pull.

In: the setting `registries`, and the running containerd. Out: files with our mark in their first line, written whole,
gone when the setting is; a restart of containerd is not needed. Files of others are left alone: where one is in the
way, or containerd has no such folder, the Node has an event that says so and the log a line, and it is tried again.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from loguru import logger

from agent.config import Registry, Settings
from agent.cri.daemon_config import effective_config
from agent.cri.runtime import RuntimeClient
from agent.durable_files import fresh_name, replace_file
from agent.errors import ConfigError, EdgeletError, Permanent
from agent.model.objects import ObjectReference
from agent.pods.on_disk import on_disk
from agent.pods.ports import Events
from agent.providers.containerd_hosts import MARK, hosts_files
from agent.providers.containerd_machine import REGISTRY_FOLDERS
from agent.registry_entries import is_pem
from agent.store.base import Store

AGAIN_S = 60.0
NOT_APPLIED = "RegistriesNotApplied"

_DEFAULT_SINCE = (2, 3)
"""From this release on containerd has a folder where its settings name none."""
_DEFAULT = "/etc/containerd/certs.d:/etc/docker/certs.d"
_NAME = "hosts.toml"
_CERTIFICATES = (".crt", ".cert", ".key")


class ContainerdRegistries:
    def __init__(self, settings: Settings, store: Store, runtime: RuntimeClient, events: Events) -> None:
        self._registries = settings.registries
        self._authorities = settings.root_dir / "registries"
        self._endpoint = settings.container_runtime_endpoint
        self._store = store
        self._runtime = runtime
        self._events = events
        self._node = ObjectReference(kind="Node", name=settings.node_name, uid=settings.node_name)
        self._applied = False
        self._said = ""

    async def first(self) -> None:
        """Before the first pull."""
        await self._try()

    async def run(self) -> None:
        """Until it is done."""
        while not self._applied:
            await asyncio.sleep(AGAIN_S)
            await self._try()

    async def _try(self) -> None:
        try:
            await self._apply()
            self._applied = True
        except EdgeletError as error:
            if str(error) != self._said:
                logger.warning("registries are not applied: {}", error)
                self._events.record(self._node, "Warning", NOT_APPLIED, str(error))
            self._said = str(error)

    async def _apply(self) -> None:
        """Raises Retryable, Permanent."""
        files = hosts_files(self._registries, self._ca_file)
        roots = await self._roots() if files else []
        row = await self._store.get(REGISTRY_FOLDERS)
        known = [] if row is None else _decode(row.value)
        if roots and str(roots[0]) not in known:
            known.append(str(roots[0]))
            # First, so that whatever is written is found again.
            await self._store.put(REGISTRY_FOLDERS, msgspec.json.encode(known))
        with on_disk("registries can't be written"):
            await asyncio.to_thread(self._write, files, roots, [Path(folder) for folder in known])
        if not files and row is not None:
            await self._store.delete(REGISTRY_FOLDERS)

    async def _roots(self) -> list[Path]:
        found = await config_path(self._runtime, self._endpoint)
        if not found:
            raise Permanent(
                "",
                "containerd has no folder for them: set config_path in its settings (table registry of the CRI plugin)",
            )
        return found

    def _write(self, files: dict[str, str], roots: Sequence[Path], known: Sequence[Path]) -> None:
        """Raises OSError, Permanent."""
        wanted = {roots[0] / name / _NAME: text for name, text in files.items()}
        in_the_way = [fault for path in wanted if (fault := _in_the_way(path, roots))]
        for folder in known:
            for path in folder.glob(f"*/{_NAME}"):
                if path not in wanted and _is_ours(path):
                    path.unlink()
                    fresh_name(path).unlink(missing_ok=True)
                    _remove_empty(path.parent)
        self._write_authorities()
        for path, text in wanted.items():
            if not _in_the_way(path, roots):
                _replace(path, text)
        if in_the_way:
            raise Permanent("", "; ".join(in_the_way))

    def _ca_file(self, registry: Registry) -> str:
        """containerd takes paths alone: what is written out in the settings is in a file of our own."""
        if not is_pem(registry.ca):
            return registry.ca
        return str(self._authorities / f"{re.sub('[^A-Za-z0-9.-]', '_', registry.host)}.crt")

    def _write_authorities(self) -> None:
        wanted = {Path(self._ca_file(one)): one.ca for one in self._registries if is_pem(one.ca)}
        for path in self._authorities.glob("*") if self._authorities.is_dir() else ():
            if path not in wanted:
                path.unlink()
        for path, pem in wanted.items():
            _replace(path, pem)


def check_files(registries: Sequence[Registry]) -> None:
    """Certificates that the settings name. Raises ConfigError: a pull would only fail later."""
    for one in registries:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if is_pem(one.ca):
                context.load_verify_locations(cadata=one.ca)
            elif one.ca:
                context.load_verify_locations(cafile=one.ca)
        except (OSError, ValueError) as error:
            where = "the certificate in it" if is_pem(one.ca) else one.ca
            raise ConfigError(f"registries: {one.host}: ca: {where} can't be used: {_reason(error)}") from error
        try:
            if one.client_cert is not None:
                context.load_cert_chain(one.client_cert, one.client_key)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"registries: {one.host}: clientCert: {one.client_cert} can't be used: {_reason(error)}"
            ) from error


async def config_path(runtime: RuntimeClient, endpoint: str) -> list[Path]:
    """The folders that containerd looks for a registry's settings in, the first that has it counts; empty: it has none.

    Until 1.7 the CRI tells; later only the program itself does. Raises Retryable, Permanent.
    """
    version = await runtime.version()
    if version.runtime_name != "containerd":
        raise Permanent("", f"{version.runtime_name} is not containerd: it has settings of its own for registries")
    said = (await runtime.status(verbose=True)).info.get("config", "{}")
    try:
        registry = msgspec.json.decode(said, type=dict[str, Any]).get("registry")
    except msgspec.DecodeError as error:
        raise Permanent("", f"what the runtime says of its settings can't be read: {error}") from error
    if isinstance(registry, dict):
        return _split(str(registry.get("configPath") or ""))
    config = await asyncio.to_thread(effective_config, endpoint)
    registry = config.get("plugins", {}).get("io.containerd.cri.v1.images", {}).get("registry", {})
    found = registry.get("config_path", "")
    if not found and not registry.get("mirrors") and _numbers(version.runtime_version) >= _DEFAULT_SINCE:
        found = _DEFAULT
    return _split(found)


def _decode(row: bytes) -> list[str]:
    try:
        return msgspec.json.decode(row, type=list[str])
    except msgspec.DecodeError as error:
        logger.warning("record row {} can't be read: {}", REGISTRY_FOLDERS, error)
        return []


def _split(paths: str) -> list[Path]:
    return [Path(one) for one in paths.split(os.pathsep) if one]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _in_the_way(path: Path, roots: Sequence[Path]) -> str:
    """Whose it is, where it is not ours: a file, certificates beside it, or a folder that containerd takes for it."""
    if path.exists() and not _is_ours(path):
        return f"{path} is somebody else's"
    name = path.parent.name
    host, colon, port = name.rpartition(":")
    names = (name, f"{host}_{port}_") if colon else (name,)
    for folder in (root / one for root in roots for one in names):
        if folder == path.parent:
            if any(other.suffix in _CERTIFICATES for other in (folder.iterdir() if folder.is_dir() else ())):
                return f"{folder} has somebody else's certificates, which {_NAME} would hide"
        elif folder.exists():
            return f"{folder} is somebody else's, for the same registry"
    return ""


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _replace(path: Path, text: str) -> None:
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _reason(error: OSError | ValueError) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
