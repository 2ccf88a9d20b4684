"""Who we are to the API server, and how to reach it: from a kubeconfig in every form the official loader takes.

In: the path of a kubeconfig (or several, joined by `:`). Out: an `Access`, what one request needs, kept fresh: files
that change on disk (a rotated certificate, a token file), a token near its end and an answer of 401 all read it anew. A
plugin or an identity provider that cannot be reached is no reason not to start: requests fail as Retryable until it
answers. Decoded keys never stay on disk.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from loguru import logger

from agent.discreet import Discreet
from agent.errors import ConfigError, Retryable
from agent.kube.kubeconfig import Fingerprint, Reading, fingerprint, read_kubeconfig
from agent.kube.x509_facts import Validity, validity

LOOK_AGAIN_S = 60.0
"""How often files are looked at for a change; a rotated certificate is valid long before the old one ends."""
RENEWAL_PAUSE_S = 10.0
RENEWAL_MARGIN_S = 290.0
"""Under five minutes: only then does the official loader refresh an OIDC token."""


class Access(Discreet, frozen=True):
    """What a request to the API server needs."""

    hidden: ClassVar = frozenset({"headers"})
    server: str
    """Base URL, without a slash at the end; may carry a path."""
    user: str
    """The user's name in the kubeconfig, for the log."""
    headers: Mapping[str, str] = {}
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    proxy: str | None = None
    cluster_ca: bytes | None = None
    """The cluster's CA certificates, PEM; None: the machine's trust store is used."""
    renew_at: float | None = None
    """Unix seconds from which a new token is asked for."""
    expires_at: float | None = None
    certificate: Validity | None = None
    """How long the client certificate is good, where there is one."""
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
        self.wall: Callable[[], float] = time.time
        """Unix seconds by which a token has ended."""

    @classmethod
    async def load(cls, kubeconfig: Path | str) -> Credentials:
        """Read the kubeconfig. Raises ConfigError: one line that names the file."""
        access, seen = await _load(str(kubeconfig), time.time())
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
                access, self._seen = await _load(self._kubeconfig, self.wall())
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

    def reads(self, file: Path) -> bool:
        """Whether the kubeconfig is that file, or names it."""
        return any(name == str(file) for name, _, _ in self._seen)

    async def reload(self) -> None:
        """Take up now what was written into the files."""
        async with self._renewing:
            self._not_before = 0.0
        await self.renew(self._access)

    def _usable(self) -> bool:
        access = self._access
        return not access.problem and (access.expires_at is None or self.wall() < access.expires_at)

    def _is_due(self) -> bool:
        access = self._access
        if time.monotonic() < self._not_before:
            return False
        if access.problem or (access.renew_at is not None and self.wall() >= access.renew_at):
            return True
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        return fingerprint([name for name, _, _ in self._seen]) != self._seen


async def _load(kubeconfig: str, now: float) -> tuple[Access, Fingerprint]:
    reading = await read_kubeconfig(kubeconfig)
    for remark in reading.remarks:
        logger.warning("{}", remark)
    try:
        return _access(reading, now), reading.seen
    except (OSError, ValueError) as error:
        raise ConfigError(f"kubeconfig {kubeconfig}: {' '.join(str(error).split())}") from error


def _access(reading: Reading, now: float) -> Access:
    tls = None
    if reading.server.startswith("https"):
        tls = ssl.create_default_context(cadata=reading.ca.decode() if reading.ca else None)
        # Python 3.13 turns this on and so refuses certificates (no authority key identifier) that Go takes.
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if reading.certificate:
            _load_cert_chain(tls, reading.certificate, reading.key or b"")
        if not reading.verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
    ends = reading.expires_at
    margin = 0.0 if ends is None else min(RENEWAL_MARGIN_S, max(0.0, (ends - now) * 0.2))
    return Access(
        server=reading.server,
        user=reading.user,
        headers={"Authorization": reading.authorization} if reading.authorization else {},
        tls=tls,
        server_hostname=reading.server_name,
        proxy=reading.proxy or _proxy_of_environment(reading.server),
        cluster_ca=reading.ca if tls else None,
        renew_at=None if ends is None else ends - margin,
        expires_at=ends,
        certificate=validity(reading.certificate) if reading.certificate and tls else None,
        problem=reading.problem,
    )


def _proxy_of_environment(server: str) -> str | None:
    """HTTPS_PROXY and NO_PROXY, as client-go reads them; read once, not at each request."""
    url = urlsplit(server)
    if not url.hostname or urllib.request.proxy_bypass(url.netloc):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _load_cert_chain(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL takes a file only: one without a name, which goes with this process however that ends."""
    with open(os.memfd_create("client"), "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        tls.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
