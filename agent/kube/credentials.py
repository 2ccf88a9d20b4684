"""Who we are to the API server, and how to reach it: from a kubeconfig in every form the official loader takes.

In: the path of a kubeconfig (or several, joined by `:`). Out: an `Access`, what one request needs, kept fresh: files
that change on disk (a rotated certificate, a token file), a token near its end and an answer of 401 all read it anew. A
plugin or an identity provider that cannot be reached is no reason not to start: requests fail as Retryable until it
answers. Decoded keys never stay on disk.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from loguru import logger

from agent.errors import ConfigError, Retryable
from agent.kube import oidc

LOOK_AGAIN_S = 60.0
"""How often files are looked at for a change; a rotated certificate is valid long before the old one ends."""
LOAD_TIMEOUT_S = 30.0
RENEWAL_PAUSE_S = 10.0
RENEWAL_MARGIN_S = 290.0
"""Under five minutes: only then does the official loader refresh an OIDC token."""

_MALFORMED = (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError)
"""What the official loader lets out, besides its own error, when a file has not the shape it expects."""

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Access:
    """What a request to the API server needs."""

    server: str
    """Base URL, without a slash at the end; may carry a path."""
    user: str
    """The user's name in the kubeconfig, for the log."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    proxy: str | None = None
    cluster_ca: bytes | None = None
    """The cluster's CA certificates, PEM; None: the machine's trust store is used."""
    renew_at: float | None = None
    """Unix seconds from which a new token is asked for."""
    expires_at: float | None = None
    problem: str = ""
    """Why there is no credential now (a plugin failed); requests would only be refused."""


class Credentials:
    """The newest Access. Made by `load`."""

    def __init__(self, kubeconfig: str, access: Access, seen: Fingerprint) -> None:
        self._kubeconfig = kubeconfig
        self._access = access
        self._seen = seen
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        self._not_before = 0.0
        self._renewing = asyncio.Lock()

    @classmethod
    async def load(cls, kubeconfig: Path | str) -> Credentials:
        """Read the kubeconfig. Raises ConfigError: one line that names the file."""
        access, seen = await _load(str(kubeconfig))
        if access.problem:
            logger.warning("kubeconfig {}: no credential yet: {}", kubeconfig, access.problem)
        return cls(str(kubeconfig), access, seen)

    @property
    def access(self) -> Access:
        """As last loaded; `current` renews it when it is due."""
        return self._access

    async def current(self) -> Access:
        """The Access to use now. Raises Retryable where there is no credential."""
        if self._is_due():
            if not self._renewing.locked():
                await self.renew(self._access)
            elif not self._usable():
                async with self._renewing:
                    pass
        if not self._usable():
            raise Retryable(f"no credential for the API server: {self._access.problem or 'the token has expired'}")
        return self._access

    async def renew(self, stale: Access) -> Access:
        """A newer Access than `stale` (the server answered 401 to it), or `stale` where nothing newer can be had."""
        async with self._renewing:
            if self._access is not stale or time.monotonic() < self._not_before:
                return self._access
            self._not_before = time.monotonic() + RENEWAL_PAUSE_S
            try:
                access, self._seen = await _load(self._kubeconfig)
            except ConfigError as error:
                # Half-written or broken since the start: what is loaded may still be good.
                logger.warning("credential is not renewed: {}", error)
                return stale
            self._look_at = time.monotonic() + LOOK_AGAIN_S
            if access.problem:
                logger.warning("credential is not renewed: {}", access.problem)
                if self._usable():
                    return stale
            self._access = access
            return access

    def _usable(self) -> bool:
        access = self._access
        return not access.problem and (access.expires_at is None or time.time() < access.expires_at)

    def _is_due(self) -> bool:
        access = self._access
        if time.monotonic() < self._not_before:
            return False
        if access.problem or (access.renew_at is not None and time.time() >= access.renew_at):
            return True
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        return _fingerprint([name for name, _, _ in self._seen]) != self._seen


async def _load(kubeconfig: str) -> tuple[Access, Fingerprint]:
    # Imported here: it costs 20 MiB, which a standalone node need not pay.
    kube_config = await asyncio.to_thread(_import_loader)
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            return await _load_with(kube_config, kubeconfig)
    except TimeoutError as error:
        raise ConfigError(f"kubeconfig {kubeconfig}: its plugin did not answer in {LOAD_TIMEOUT_S:.0f} s") from error
    except (kube_config.ConfigException, *_MALFORMED) as error:
        raise ConfigError(f"kubeconfig {kubeconfig}: {_one_line(error)}") from error


def _import_loader() -> Any:
    from kubernetes.aio.config import kube_config

    return kube_config


async def _load_with(kube_config: Any, kubeconfig: str) -> tuple[Access, Fingerprint]:
    paths = _checked_paths(kubeconfig)
    merger = kube_config.KubeConfigMerger(kubeconfig)
    context, user = _current(merger.config)
    seen = _fingerprint([*paths, *_named_files(merger.config_files)])
    with _decoded_keys(kube_config) as folder:

        async def read() -> tuple[Any, Any]:
            loader = kube_config.KubeConfigLoader(
                config_dict=merger.config,
                config_base_path=None,
                temp_file_path=folder,
            )

            async def refresh(provider: Any) -> None:
                await oidc.refresh(provider["config"].value)
                _persist(merger.config_files)

            loader._refresh_oidc = refresh
            # A plain Configuration() would copy a default that other code may have set.
            configuration = type.__call__(kube_config.Configuration)
            await loader.load_and_set(configuration)
            return loader, configuration

        problem = ""
        if "exec" in user or "auth-provider" in user:
            loader, configuration, problem = await _read_dynamic(kube_config, user, read)
        else:
            loader, configuration = await read()
        if not getattr(loader, "host", ""):
            raise ConfigError(f"kubeconfig {kubeconfig}: the cluster of context {context!r} has no server")
        return _access(loader, configuration, context_user(merger.config), problem), seen


async def _read_dynamic(kube_config: Any, user: dict[str, Any], read: Any) -> tuple[Any, Any, str]:
    """Load a user whose credential comes from a program or a provider, which may be away now."""
    command = (user.get("exec") or {}).get("command")
    if command is not None and shutil.which(command) is None:
        raise FileNotFoundError(f"its exec plugin {command!r} is not in the PATH")
    said: list[str] = []
    try:
        with _overheard(kube_config.logger, said):
            loader, configuration = await read()
        # The official loader logs a plugin's failure and goes on without a credential.
        if configuration.api_key or getattr(loader, "cert_file", None):
            return loader, configuration, ""
        problem = said[-1] if said else "the exec plugin gave no credential"
    except (Retryable, kube_config.ConfigException, *_MALFORMED) as error:
        problem = _one_line(error)
    without: dict[str, Any] = {key: user.pop(key) for key in ("exec", "auth-provider") if key in user}
    loader, configuration = await read()
    user.update(without)
    return loader, configuration, problem


def _access(loader: Any, configuration: Any, user: str, problem: str) -> Access:
    server: str = configuration.host
    authorization: str = configuration.api_key.get("BearerToken", "")
    tls = None
    if server.startswith("https"):
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        # Python 3.13 turns this on and so refuses certificates (no authority key identifier) that Go takes.
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
        if not configuration.verify_ssl:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
    expires_at = _expiry(loader, authorization)
    now = time.time()
    margin = 0.0 if expires_at is None else min(RENEWAL_MARGIN_S, (expires_at - now) * 0.2)
    return Access(
        server=server,
        user=user,
        headers={"Authorization": authorization.strip()} if authorization else {},
        tls=tls,
        server_hostname=configuration.tls_server_name or None,
        proxy=configuration.proxy or _proxy_of_environment(server),
        cluster_ca=Path(configuration.ssl_ca_cert).read_bytes() if tls and configuration.ssl_ca_cert else None,
        renew_at=None if expires_at is None else expires_at - margin,
        expires_at=expires_at,
        problem=problem,
    )


def _expiry(loader: Any, authorization: str) -> float | None:
    """When the token ends, in Unix seconds, where a renewal could give a newer one."""
    stated = getattr(loader, "exec_plugin_expiry", None)
    if stated is not None:
        return float(stated.timestamp())
    if loader.provider != "oidc" or authorization.count(".") != 2:
        return None
    claims = authorization.split(".")[1]
    try:
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (ValueError, KeyError, TypeError):
        return None


def _proxy_of_environment(server: str) -> str | None:
    """HTTPS_PROXY and NO_PROXY, as client-go reads them; read once, not at each request."""
    url = urlsplit(server)
    if not url.hostname or urllib.request.proxy_bypass(url.netloc):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _checked_paths(kubeconfig: str) -> list[str]:
    """The official loader's own words for a file that is absent or no kubeconfig would not help anybody."""
    paths = [os.path.expanduser(path) for path in kubeconfig.split(":") if path]
    present = [path for path in paths if os.path.exists(path)]
    if not present:
        raise ConfigError(f"kubeconfig {kubeconfig}: no such file")
    for path in present:
        with open(path) as file:
            content = yaml.safe_load(file)
        if not isinstance(content, dict):
            raise ConfigError(f"kubeconfig {path}: not a kubeconfig (a mapping with clusters, users and contexts)")
    return paths


def _current(config: Any) -> tuple[str, dict[str, Any]]:
    """The current context's name and its user's entry. Raises the official loader's error, or ValueError."""
    name: str = config["current-context"]
    context = config["contexts"].get_with_name(name)["context"]
    user_name = context.safe_get("user")
    user = config["users"].get_with_name(user_name, safe=True) if user_name else None
    if user is None:
        raise ValueError(f"context {name!r} names no user that the file has")
    entry = user["user"].value
    if not isinstance(entry, dict):
        raise ValueError(f"user {user_name!r} is empty")
    return name, entry


def context_user(config: Any) -> str:
    """The user's name in the current context of a merged kubeconfig."""
    return str(config["contexts"].get_with_name(config["current-context"])["context"]["user"])


def _named_files(configs: Mapping[str, Any]) -> Iterator[str]:
    """Files that kubeconfigs refer to, resolved as the loader does: relative to the kubeconfig that names them."""
    for path, config in configs.items():
        entries = [*(config.get("clusters") or ()), *(config.get("users") or ())]
        for entry in entries:
            section = entry.get("cluster") or entry.get("user") or {}
            for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
                if section.get(key):
                    yield os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), section[key]))


def _fingerprint(paths: list[str]) -> Fingerprint:
    def look(path: str) -> tuple[str, int, int]:
        try:
            status = os.stat(path)
        except OSError:
            return path, 0, 0
        return path, status.st_mtime_ns, status.st_ino

    return tuple(look(path) for path in paths)


def _persist(configs: Mapping[str, Any]) -> None:
    """Keep a rotated OIDC refresh token: the old one may be void, and power may go while we write."""
    for path, config in configs.items():
        target = os.path.realpath(path)
        part = f"{target}.new"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                yaml.safe_dump(config, file, default_flow_style=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except OSError as error:
            # It serves until the agent ends; the administrator must know that it does not survive that.
            logger.warning("kubeconfig {}: the refreshed token is not kept: {}", path, error)


@contextmanager
def _decoded_keys(kube_config: Any) -> Iterator[str]:
    """A folder for the loader's decoded `-data` fields: in memory where there is a tmpfs, gone at the end."""
    memory = "/dev/shm"  # noqa: S108 - the folder made in it is ours alone
    with tempfile.TemporaryDirectory(prefix="edgelet-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        try:
            yield folder
        finally:
            # It remembers the files by their content and would hand out a removed one next time.
            kube_config._cleanup_temp_files()


@contextmanager
def _overheard(log: Any, said: list[str]) -> Iterator[None]:
    """Collect what the official loader says through `logging` instead of raising it."""
    import logging

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(_one_line(record.getMessage()))

    ear = Ear(logging.WARNING)
    propagate, log.propagate = log.propagate, False
    log.addHandler(ear)
    try:
        yield
    finally:
        log.removeHandler(ear)
        log.propagate = propagate


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
