"""The rule that makes Settings from where they were given: the table says which there are.

In: flags, environment, the settings file and what the machine says of itself. Out: Settings. A flag wins over the
environment, that over the file, that over the default. Pure: who reads the file or the machine is the caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

from msgspec.structs import replace

from agent import option_eviction, option_garbage, option_labels
from agent import option_values as form
from agent.config import JOINED_KUBECONFIG, Settings, Taint
from agent.errors import ConfigError
from agent.option import Option
from agent.option_periods import check_reserved, check_shutdown
from agent.option_table import (
    DEFAULT_KUBECONFIG,
    DEFAULT_MANIFESTS,
    DEFAULT_TAINT_KEY,
    OPTIONS,
    TAINT_EFFECT_ENV,
    TAINT_VALUE_ENV,
)

_BY_KEY = {name: option for option in OPTIONS for name in (option.file_key, option.flag)}


def resolve(
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    file: Mapping[str, object],
    *,
    file_name: str,
    hostname: str,
    exists: Callable[[Path], bool],
) -> Settings:
    """The settings of this start. `flags` is by field name, `file` as YAML read it, an empty variable counts as unset.

    Raises ConfigError: one line that names the flag, the variable, or the file and its key.
    """
    values = _from_file(file, file_name)
    origins = dict.fromkeys(values, file_name)
    for option in OPTIONS:
        if option.field in flags:
            origin, given = f"--{option.flag}", flags[option.field]
        elif option.env and environ.get(option.env):
            origin, given = f"environment variable {option.env}", environ[option.env]
        else:
            continue
        values[option.field] = _parse(option, given, origin)
        origins[option.field] = origin
    _defaults(values, hostname, exists)
    settings = Settings(**values)  # type: ignore[arg-type]
    _check_files(settings, origins, exists)
    check_shutdown(settings)
    check_reserved(settings)
    if settings.scripts_enabled and not (settings.scripts_namespaces and settings.scripts_service_accounts):
        raise ConfigError("--scripts-enabled also needs --scripts-namespaces and --scripts-service-accounts")
    for name, group in (("system", settings.system_reserved_cgroup), ("kube", settings.kube_reserved_cgroup)):
        if not group and any(one.startswith(f"{name}-reserved") for one in settings.enforce_node_allocatable):
            raise ConfigError(f"--enforce-node-allocatable={name}-reserved also needs --{name}-reserved-cgroup")
    option_eviction.check(settings)
    option_garbage.check(settings)
    if settings.inject_local_api and (settings.local_api is None or settings.local_api[0] in ("0.0.0.0", "::")):
        raise ConfigError("--inject-local-api needs --local-api with the one address at which pods reach this node")
    if (settings.image_credential_provider_config is None) != (settings.image_credential_provider_bin_dir is None):
        raise ConfigError("--image-credential-provider-config and --image-credential-provider-bin-dir go together")
    return replace(settings, provider_taint=_provider_taint(settings, environ))


def _from_file(file: Mapping[str, object], file_name: str) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, given in file.items():
        option = _BY_KEY.get(key)
        if option is None:
            near = get_close_matches(key, _BY_KEY, 1)
            raise ConfigError(f"{file_name}: unknown key {key!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        if option.field in values:
            raise ConfigError(f"{file_name}: {option.file_key} is set twice")
        if given is None:
            continue  # a key with nothing behind it: the default
        values[option.field] = _parse(option, given, f"{file_name}: {key}")
    return values


def _parse(option: Option, given: object, origin: str) -> object:
    try:
        return option.parse(given)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _defaults(values: dict[str, object], hostname: str, exists: Callable[[Path], bool]) -> None:
    """Defaults that depend on the machine or on another setting."""
    if "node_name" not in values:
        try:
            values["node_name"] = form.node_name(hostname)
        except ValueError as error:
            raise ConfigError(f"the host name cannot name the Node, use --nodename: {error}") from error
    if (older := values.get("provider")) in form.PROVIDER_ALIASES:
        values["provider"] = form.PROVIDER_ALIASES[str(older)]
        values.setdefault("provider_events", True)
    for kubeconfig in (DEFAULT_KUBECONFIG, JOINED_KUBECONFIG):
        if "kubeconfig" not in values and exists(kubeconfig):
            values["kubeconfig"] = kubeconfig
    if "kubeconfig" not in values and values.get("bootstrap_kubeconfig") is not None:
        values["kubeconfig"] = JOINED_KUBECONFIG
    if "pod_manifest_path" not in values and values.get("kubeconfig") is None:
        values["pod_manifest_path"] = DEFAULT_MANIFESTS


def _check_files(settings: Settings, origins: Mapping[str, str], exists: Callable[[Path], bool]) -> None:
    # KUBECONFIG may list several files; like kubectl, those that are missing are passed over.
    there = any(exists(Path(part)) for part in str(settings.kubeconfig or "").split(os.pathsep) if part)
    if settings.kubeconfig and not there and settings.bootstrap_kubeconfig is None:
        raise ConfigError(f"{origins.get('kubeconfig', '--kubeconfig')}: no such file: {settings.kubeconfig}")
    may_be_missing = {"bootstrap_kubeconfig"} if there else set()  # once joined, it may be taken away
    for field in (
        "bootstrap_kubeconfig",
        "provider_config",
        "tls_cert_file",
        "tls_private_key_file",
        "client_ca_file",
        "registry_auth_file",
        "image_credential_provider_config",
        "image_credential_provider_bin_dir",
    ):
        file = getattr(settings, field)
        if file is not None and field not in may_be_missing and not exists(file):
            raise ConfigError(f"{origins[field]}: no such file: {file}")
    if (settings.tls_cert_file is None) is not (settings.tls_private_key_file is None):
        raise ConfigError("--tls-cert-file and --tls-private-key-file go together: one of them is missing")


def _provider_taint(settings: Settings, environ: Mapping[str, str]) -> Taint | None:
    """Fill in what virtual-kubelet's users leave out. A taint that was written out whole stays as it is."""
    taint = settings.provider_taint
    value, effect = environ.get(TAINT_VALUE_ENV, ""), environ.get(TAINT_EFFECT_ENV, "")
    if taint is None:
        # Pods that containerd runs are ordinary pods; what another provider makes of them, only their owner knows.
        if settings.provider == "containerd" and not (value or effect):
            return None
        taint = Taint(DEFAULT_TAINT_KEY, "", "")
    if taint.effect:
        return taint
    try:
        # Of module:Class the class: a taint's value has no colon.
        name = value or settings.provider.rpartition(":")[2]
        return option_labels.provider_taint(f"{taint.key}={name}:{option_labels.effect(effect or 'NoSchedule')}")
    except ValueError as error:
        where = f"environment variables {TAINT_VALUE_ENV} and {TAINT_EFFECT_ENV}" if value or effect else "--provider"
        raise ConfigError(f"{where}: {error}") from error
