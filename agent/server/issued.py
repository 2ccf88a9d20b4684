"""A serving certificate that the cluster signs: asked for, renewed in time, asked for anew when the addresses change.

In: the node's addresses, the API server. Out: a pair in CERT_DIR that the server takes up without a restart. Until
somebody approves the request (no controller of Kubernetes does that for serving certificates) the server goes on with
what it has. https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#certificate-rotation
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.errors import Permanent, Retryable
from agent.kube.csr import Signer, request_certificate
from agent.kube.enrol import tell_waiting
from agent.kube.pki import SERVING, IssuedPair, folder_of
from agent.kube.rest import Api
from agent.kube.rotation import FIRST_RETRY_S, LOOK_EVERY_S, LOOK_SOON_S, renewal_at, retry_after
from agent.kube.x509_facts import Validity, validity


class Held(msgspec.Struct, frozen=True):
    """The certificate on disk."""

    names: tuple[str, ...]
    life: Validity


def wants_issued(settings: Settings) -> bool:
    """A certificate that was given is the owner's business."""
    return settings.rotate_server_certificates and settings.tls_cert_file is None and settings.port != 0


def is_due(held: Held | None, names: tuple[str, ...], renew_at: float, server_time: float) -> bool:
    return held is None or held.names != names or server_time >= renew_at


def read_held(file: Path) -> Held | None:
    """None where there is none that can be used. The first line tells the names that it was asked for."""
    try:
        content = file.read_bytes()
        head = json.loads(content.split(b"\n", 1)[0].removeprefix(b"# "))
        return Held(tuple(head["names"]), validity(content))
    except (OSError, ValueError, LookupError, TypeError):
        return None


class ServingCertificate:
    """`run` is its one task."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        read_addresses: Callable[[], Sequence[str]],
        clock: Clock,
        changed: Callable[[], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`read_addresses` blocks."""
        self._api = api
        self._settings = settings
        self._read_addresses = read_addresses
        self._clock = clock
        self._changed = changed
        self._chance = chance
        self._pair = IssuedPair(folder_of(settings), SERVING)
        self._life: Validity | None = None
        self._renew_at = 0.0
        self._failures = 0
        self._said = ""

    async def run(self) -> None:
        """Until cancelled. The first look waits: pods come first."""
        wait = LOOK_SOON_S
        while True:
            await self._clock.sleep(wait)
            wait = await self.look()

    async def look(self) -> float:
        """Do what is due. Seconds until the next look."""
        now = self._api.server_time()
        if now is None:
            return LOOK_SOON_S
        names = await self._names()
        held = await asyncio.to_thread(read_held, self._pair.current)
        if held is not None and held.life != self._life:
            self._life, self._renew_at = held.life, renewal_at(held.life, self._chance())
        if not is_due(held, names, self._renew_at, now):
            return LOOK_EVERY_S if held is None else min(LOOK_EVERY_S, max(1.0, self._renew_at - now))
        try:
            await self._renew(names)
        except (Retryable, Permanent) as error:
            return self._failed(error, held.life.ends - now if held is not None else 0.0)
        self._failures, self._said = 0, ""
        return FIRST_RETRY_S

    async def _renew(self, names: tuple[str, ...]) -> None:
        async def is_obsolete() -> bool:
            return await self._names() != names

        issued = await request_certificate(
            self._api, Signer.SERVING, self._settings.node_name, names, self._clock, tell_waiting, is_obsolete
        )
        try:
            await asyncio.to_thread(self._pair.put, issued, self._clock.wall(), json.dumps({"names": names}))
        except OSError as error:
            raise Retryable(f"{self._pair.current.parent}: {error.strerror}") from error
        except ValueError as error:
            raise Permanent("BadCertificate", str(error)) from error
        logger.info("the cluster signed a serving certificate for {}", ", ".join(names))
        self._changed()

    async def _names(self) -> tuple[str, ...]:
        addresses = await asyncio.to_thread(self._read_addresses)
        return tuple(sorted({self._settings.node_name.lower(), *(address for address in addresses if address)}))

    def _failed(self, error: Retryable | Permanent, left_s: float) -> float:
        self._failures += 1
        if str(error) != self._said:
            self._said = str(error)
            logger.warning("no serving certificate of the cluster: {}", error)
        after = error.after if isinstance(error, Retryable) else None
        return after or retry_after(self._failures, left_s if left_s > 0 else float("inf"))
