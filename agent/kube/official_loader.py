"""Read a kubeconfig with the official loader.

In: the kubeconfig's path and a folder for decoded keys. Out: a `Reading`. A plugin or an identity provider that does
not answer is no error: the Reading tells the problem.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml
from kubernetes.aio.config import kube_config

from agent.errors import ConfigError, Retryable
from agent.kube.kubeconfig import Reading, fingerprint

_MALFORMED = (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError)
"""What the official loader lets out, besides its own error, when a file has not the shape it expects."""


class _Told(msgspec.Struct):
    """What the official loader sets in a client's configuration."""

    host: str = ""
    ssl_ca_cert: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_ssl: bool = True
    tls_server_name: str | None = None
    proxy: str | None = None
    api_key: dict[str, str] = {}


async def read(kubeconfig: str, folder: str) -> Reading:
    """Raises ConfigError: one line that names the file."""
    try:
        return await _read(kubeconfig, folder)
    except (kube_config.ConfigException, *_MALFORMED) as error:
        raise ConfigError(f"kubeconfig {kubeconfig}: {_one_line(error)}") from error


async def _read(kubeconfig: str, folder: str) -> Reading:
    paths = _checked_paths(kubeconfig)
    merger = kube_config.KubeConfigMerger(kubeconfig)
    context, user = _current(merger.config)
    seen = fingerprint([*paths, *_named_files(merger.config_files)])
    remarks: list[str] = []

    async def load() -> tuple[Any, _Told]:
        loader = kube_config.KubeConfigLoader(config_dict=merger.config, config_base_path=None, temp_file_path=folder)

        async def refresh(provider: Any) -> None:
            from agent.kube import oidc  # who has no such provider needs no HTTP client

            await oidc.refresh(provider["config"].value)
            remarks.extend(_persist(merger.config_files))

        loader._refresh_oidc = refresh
        configuration = _Told()
        await loader.load_and_set(configuration)
        return loader, configuration

    problem = ""
    try:
        if "exec" in user or "auth-provider" in user:
            loader, configuration, problem = await _read_dynamic(user, load)
        else:
            loader, configuration = await load()
    finally:
        # It remembers the files by their content and would hand out a removed one next time.
        kube_config._temp_files.clear()
    if not getattr(loader, "host", ""):
        raise ConfigError(f"kubeconfig {kubeconfig}: the cluster of context {context!r} has no server")
    authorization: str = configuration.api_key.get("BearerToken", "")
    return Reading(
        server=configuration.host,
        user=_context_user(merger.config),
        seen=seen,
        authorization=authorization.strip(),
        ca=_content(configuration.ssl_ca_cert),
        certificate=_content(configuration.cert_file),
        key=_content(configuration.key_file),
        verify=configuration.verify_ssl,
        server_name=configuration.tls_server_name or None,
        proxy=configuration.proxy,
        expires_at=_expiry(loader, authorization),
        problem=problem,
        remarks=tuple(remarks),
    )


def _content(file: str | None) -> bytes | None:
    return Path(file).read_bytes() if file else None


async def _read_dynamic(user: dict[str, Any], load: Any) -> tuple[Any, _Told, str]:
    """Load a user whose credential comes from a program or a provider, which may be away now."""
    command = (user.get("exec") or {}).get("command")
    if command is not None and shutil.which(command) is None:
        raise FileNotFoundError(f"its exec plugin {command!r} is not in the PATH")
    said: list[str] = []
    try:
        with _overheard(kube_config.logger, said):
            loader, configuration = await load()
        # The official loader logs a plugin's failure and goes on without a credential.
        if configuration.api_key or getattr(loader, "cert_file", None):
            return loader, configuration, ""
        problem = said[-1] if said else "the exec plugin gave no credential"
    except (Retryable, kube_config.ConfigException, *_MALFORMED) as error:
        problem = _one_line(error)
    without: dict[str, Any] = {key: user.pop(key) for key in ("exec", "auth-provider") if key in user}
    loader, configuration = await load()
    user.update(without)
    return loader, configuration, problem


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


def _context_user(config: Any) -> str:
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


def _persist(configs: Mapping[str, Any]) -> Iterator[str]:
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
            yield f"kubeconfig {path}: the refreshed token is not kept: {error}"


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
