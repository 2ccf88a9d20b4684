"""TLS of the node's API: its certificate and the authority of its clients, taken up anew when their files change.

In: settings, the CA of the cluster and addresses of the node. Out: the context for the next connection.
Open connections keep theirs. What is unusable at the start is a ConfigError; later the present one stays, with a word.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from loguru import logger

from agent.clock import Clock, sleep_unless
from agent.config import Settings
from agent.errors import ConfigError
from agent.server.certificate import CertificateFiles, server_certificate

CHECK_S = 60.0


class ServingTls:
    """`client_ca` is the cluster's CA in PEM; the settings' own file wins over it. Without either nobody is known."""

    def __init__(
        self, settings: Settings, client_ca: bytes | None, read_addresses: Callable[[], Sequence[str]], clock: Clock
    ) -> None:
        """`read_addresses` blocks and tells the node's addresses as they are now."""
        self._settings = settings
        self._client_ca = client_ca
        self._read_addresses = read_addresses
        self._clock = clock
        self._news = asyncio.Event()
        self._context: ssl.SSLContext
        self._made_of: tuple[object, ...] = ()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._context

    def changed(self) -> None:
        """Another certificate lies on the disk: take it up now."""
        self._news.set()

    async def load(self) -> bool:
        """Read what there is; tells whether it is another than before. Raises ConfigError."""
        files = await self._certificate()
        authorities = await asyncio.to_thread(self._authorities)
        try:
            made_of = (files, await asyncio.to_thread(files.version), authorities)
        except OSError as error:
            raise ConfigError(f"{files.certificate}: {error.strerror}") from error
        if made_of == self._made_of:
            return False
        # A context forgets no authority, so another one is made.
        self._context = await asyncio.to_thread(self._made, files, authorities)
        self._made_of = made_of
        return True

    async def run(self) -> None:
        """For as long as the server runs: renew our own certificate, take up files that were replaced."""
        while True:
            await sleep_unless(self._news, self._clock.sleep(CHECK_S))
            self._news.clear()
            try:
                if await self.load():
                    logger.info("kubelet API: new certificate, or new authority of its clients")
            except ConfigError as error:
                logger.warning("kubelet API: the present certificate stays: {}", error)

    async def _certificate(self) -> CertificateFiles:
        try:
            return await asyncio.to_thread(self._chosen)
        except OSError as error:
            raise ConfigError(f"--root-dir: the server's certificate cannot be kept: {error}") from error

    def _chosen(self) -> CertificateFiles:
        return server_certificate(self._settings, self._read_addresses(), self._clock.wall())

    def _made(self, files: CertificateFiles, authorities: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(files.certificate, files.key)
        except (OSError, ssl.SSLError) as error:  # replaced between two looks: the next one has it
            raise ConfigError(f"{files.certificate}: {error}") from error
        if authorities is not None:
            # Asked for, not demanded: a client without one is told 401, which a failed handshake cannot say.
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(cadata=authorities)
            except ssl.SSLError as error:
                source = self._settings.client_ca_file or "the kubeconfig's certificate-authority"
                raise ConfigError(f"--client-ca-file: {source} is not a PEM certificate") from error
        return context

    def _authorities(self) -> str | None:
        file = self._settings.client_ca_file
        try:
            content = self._client_ca if file is None else file.read_bytes()
            return None if content is None else content.decode("ascii")
        except OSError as error:
            raise ConfigError(f"--client-ca-file {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--client-ca-file: {file or 'the CA'} is not a PEM certificate") from error
