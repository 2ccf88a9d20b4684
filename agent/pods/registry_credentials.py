"""The node's own logins to registries and to their mirrors: `--registries`, `--registry-auth-file`.

In: an image as it is pulled. Out: credentials bound to the host that they are for (AuthConfig.server_address), because
a runtime shows what a pull was given to every host that asks for a password. Files are read at each pull: a password
that was changed is used at once. What can't be read then is said and left out; at the start it is a ConfigError.
Passwords are never part of a message.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from loguru import logger
from msgspec.structs import replace

from agent.config import EVERY_REGISTRY, Mirror, Registry
from agent.cri._generated import api_pb2
from agent.errors import ConfigError, Permanent
from agent.pods.credentials import Credential, fitting, of_docker_config
from agent.pods.images import DEFAULT_DOMAIN, parse_image

DOCKER_HUB = "registry-1.docker.io"
"""Who answers for docker.io."""


Entries = tuple[tuple[str, Credential], ...]
"""(registry, credential) of the auth file."""


class RegistryCredentials:
    def __init__(self, registries: Sequence[Registry], auth_file: Path | None = None) -> None:
        """Raises ConfigError for a file that can't be read, or that everybody may read."""
        self._registries = {one.host: one for one in registries}
        self._auth_file = auth_file
        for one in registries:
            if one.password_file is not None:
                _check_private(one.password_file, f"registries: {one.host}: passwordFile")
                _password(one.password_file)
        if auth_file is not None:
            _check_private(auth_file, "--registry-auth-file")
            try:
                self._entries()
            except Permanent as error:
                raise ConfigError(str(error)) from error

    async def joined(self, image: str, others: Sequence[Credential]) -> tuple[Credential, ...]:
        """All there is for a pull, in the order to try: logins to mirrors, the `others`, logins to the registry itself.

        A mirror first, for with anything else one that asks for a password would be passed over. Where the node logs in
        to a mirror, it is not shown what is another's.
        """
        return await asyncio.to_thread(self._joined, image, others)

    def _joined(self, image: str, others: Sequence[Credential]) -> tuple[Credential, ...]:
        name = parse_image(image)
        try:
            entries = self._entries()
        except (Permanent, ConfigError) as error:
            logger.warning("the node's logins are left out: {}", error)
            entries = ()
        hosts = [urlsplit(mirror.url).netloc for mirror in self._mirrors(name.domain)]
        mirrors = [one for host in hosts for one in self._of_host(host, f"{host}/{name.path}", entries)]
        if mirrors:
            others = [_bound(one, name.domain) for one in others]
        return (*mirrors, *others, *self._of_host(name.domain, name.repository, entries))

    def _mirrors(self, domain: str) -> Sequence[Mirror]:
        registry = self._registries.get(domain) or self._registries.get(EVERY_REGISTRY)
        return () if registry is None else registry.mirrors

    def _of_host(self, host: str, repository: str, entries: Entries) -> list[Credential]:
        found = list(fitting(repository, entries))
        registry = self._registries.get(host)
        if registry is not None and registry.password_file is not None:
            try:
                password = _password(registry.password_file)
                found.insert(0, Credential(api_pb2.AuthConfig(username=registry.username, password=password)))
            except ConfigError as error:
                logger.warning("no login to {}: {}", host, error)
        return [_bound(one, host) for one in found]

    def _entries(self) -> Entries:
        """Raises Permanent, ConfigError."""
        return () if self._auth_file is None else of_docker_config(_read(self._auth_file), str(self._auth_file))


def _bound(credential: Credential, host: str) -> Credential:
    """containerd compares the host of this address with the one that asks."""
    auth = api_pb2.AuthConfig()
    auth.CopyFrom(credential.auth)
    auth.server_address = f"https://{DOCKER_HUB if host == DEFAULT_DOMAIN else host}"
    return replace(credential, auth=auth)


def _check_private(file: Path, where: str) -> None:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"{where}: {file} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"{where}: {file} can be read by others (mode {mode:04o}): chmod 600 it")


def _password(file: Path) -> str:
    try:
        password = _read(file).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no text") from None
    if not password:
        raise ConfigError(f"{file} is empty")
    return password


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}") from error
