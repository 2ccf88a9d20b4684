"""The kubelet's CredentialProviderConfig: which program gives credentials for which images.

In: `--image-credential-provider-config`, a file or a folder of them. Out: the providers in order. Whatever is wrong
with it is a ConfigError at the start, for an agent that can't log in to registries would only fail later, on each pod.
Source: the Kubernetes page "Configure a kubelet image credential provider"; API kubelet.config.k8s.io/v1.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import yaml

from agent.errors import ConfigError
from agent.option_values import duration

CONFIG_VERSIONS = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
PLUGIN_VERSIONS = tuple(f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_SUFFIXES = (".json", ".yaml", ".yml")


class CredentialProvider(msgspec.Struct, frozen=True):
    name: str
    program: Path
    match_images: tuple[str, ...]
    default_cache_s: float
    api_version: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


class _Env(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    value: str


class _Provider(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    matchImages: tuple[str, ...]
    defaultCacheDuration: str
    apiVersion: str
    args: tuple[str, ...] = ()
    env: tuple[_Env, ...] = ()
    tokenAttributes: dict[str, Any] | None = None


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    apiVersion: str
    kind: str
    providers: tuple[_Provider, ...] = ()


def read_providers(path: Path, programs: Path) -> tuple[CredentialProvider, ...]:
    """`programs`: the folder where a provider's program has the provider's name. Raises ConfigError."""
    found = [(file, provider) for file in _files(path) for provider in _decode(file).providers]
    if not found:
        raise ConfigError(f"{path}: providers: at least one is needed")
    made: dict[str, CredentialProvider] = {}
    for file, provider in found:
        where = f"{file}: provider {provider.name!r}"
        if provider.name in made:
            raise ConfigError(f"{where} is there twice")
        made[provider.name] = _checked(provider, programs, where)
    return tuple(made.values())


def go_seconds(text: str) -> float:
    """A duration as Go writes it, none and 0 included. Raises ValueError."""
    return 0.0 if text in ("0", "0s") else duration(text)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        raise ConfigError(f"{path} holds no file whose name ends in {', '.join(_SUFFIXES)}")
    return files


def _decode(file: Path) -> _Config:
    try:
        config = msgspec.convert(yaml.safe_load(file.read_text()), _Config)
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from error
    if config.kind != "CredentialProviderConfig" or config.apiVersion not in CONFIG_VERSIONS:
        raise ConfigError(f"{file} is no CredentialProviderConfig of {CONFIG_VERSIONS[0]}")
    return config


def _checked(provider: _Provider, programs: Path, where: str) -> CredentialProvider:
    if provider.name in ("", ".", "..") or "/" in provider.name or " " in provider.name:
        raise ConfigError(f"{where}: a name is that of a program, without spaces and slashes")
    if provider.tokenAttributes is not None:
        raise ConfigError(f"{where}: tokenAttributes is not supported by this node")
    if provider.apiVersion not in PLUGIN_VERSIONS:
        raise ConfigError(f"{where}: apiVersion {provider.apiVersion!r} is not one of {', '.join(PLUGIN_VERSIONS)}")
    if not provider.matchImages:
        raise ConfigError(f"{where}: matchImages: at least one is needed")
    try:
        cached_s = go_seconds(provider.defaultCacheDuration)
    except ValueError as error:
        raise ConfigError(f"{where}: defaultCacheDuration: {error}") from error
    program = programs / provider.name
    if not (program.is_file() and os.access(program, os.X_OK)):
        raise ConfigError(f"{where}: {program} is no program")
    return CredentialProvider(
        name=provider.name,
        program=program,
        match_images=provider.matchImages,
        default_cache_s=cached_s,
        api_version=provider.apiVersion,
        args=provider.args,
        env=tuple((variable.name, variable.value) for variable in provider.env),
    )
