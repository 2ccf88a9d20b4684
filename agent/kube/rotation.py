"""The node's client certificate through the years: renewed in time, asked for anew after an outage that outlived it.

In: the credential in use and what the API server answers. Out: a new pair in CERT_DIR, taken up by every request from
then on; requests and watches under way go on over their connections. Time is the API server's own, from its answers: a
machine's clock may be off by years, and without an API server there is nothing to renew anyway. Pods are never
touched. https://kubernetes.io/docs/tasks/tls/certificate-rotation/
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto

from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.errors import ConfigError, Permanent, Retryable
from agent.kube.credentials import Credentials
from agent.kube.enrol import enrol, enrol_with
from agent.kube.pki import CLIENT, IssuedPair, folder_of
from agent.kube.rest import Api
from agent.kube.x509_facts import Validity

LOOK_EVERY_S = 60.0
LOOK_SOON_S = 5.0
EARLIEST, LATEST = 0.7, 0.9
"""Parts of a certificate's life between which it is renewed: a fleet that was made in one minute spreads."""
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0


class Due(Enum):
    NOTHING = auto()
    RENEWAL = auto()
    ENROLMENT = auto()
    """It has ended, and the API server takes it no more."""


def renewal_at(life: Validity, chance: float) -> float:
    """Unix seconds; `chance` is between 0 and 1."""
    return life.begins + (life.ends - life.begins) * (EARLIEST + (LATEST - EARLIEST) * chance)


def due(life: Validity, renew_at: float, server_time: float | None, *, is_refused: bool) -> Due:
    """`server_time` is the API server's clock. A refusal of a certificate that is still good is no reason for another:
    a cluster that is broken, or another one, refuses any."""
    if server_time is None:
        return Due.NOTHING
    if is_refused:
        return Due.ENROLMENT if server_time >= life.ends else Due.NOTHING
    return Due.RENEWAL if server_time >= renew_at else Due.NOTHING


def retry_after(failures: int, left_s: float) -> float:
    """Sooner where little of the certificate's life is left."""
    doubled = FIRST_RETRY_S * 2.0 ** min(failures - 1, 10)
    return min(doubled, LAST_RETRY_S, max(FIRST_RETRY_S, left_s * 0.05))


class ClientCertificate:
    """`run` is its one task."""

    def __init__(
        self,
        api: Api,
        credentials: Credentials,
        settings: Settings,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._credentials = credentials
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._file = IssuedPair(folder_of(settings), CLIENT).current
        self._life: Validity | None = None
        self._renew_at = 0.0
        self._failures = 0
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(await self.look())

    async def look(self) -> float:
        """Do what is due. Seconds until the next look."""
        life = self._credentials.access.certificate
        if life is None:
            return LOOK_EVERY_S
        if life != self._life:
            self._life, self._renew_at, self._failures, self._said = life, renewal_at(life, self._chance()), 0, ""
            logger.debug("client certificate until {}, renewed from {}", _words(life.ends), _words(self._renew_at))
        now = self._api.server_time()
        match due(life, self._renew_at, now, is_refused=self._api.unauthorized):
            case Due.RENEWAL:
                return await self._renew(life)
            case Due.ENROLMENT:
                return await self._enrol_anew(life)
            case Due.NOTHING:
                wait = LOOK_SOON_S if now is None or self._api.unauthorized else self._renew_at - now
                return min(max(wait, 1.0), _until_end(life, now))

    @property
    def _is_ours(self) -> bool:
        return self._credentials.reads(self._file)

    async def _renew(self, life: Validity) -> float:
        if not self._is_ours or not self._settings.rotate_certificates:
            who = "--rotate-certificates is off" if self._is_ours else f"it is not {self._file}"
            self._tell(f"the node's certificate ends on {_words(life.ends)} and is not renewed here: {who}")
            return _until_end(life, self._api.server_time())
        try:
            fresh = await enrol(self._api, self._settings, self._clock)
        except (Retryable, Permanent) as error:
            return self._failed(life, error)
        return await self._take_up(fresh)

    async def _enrol_anew(self, life: Validity) -> float:
        settings, bootstrap = self._settings, self._settings.bootstrap_kubeconfig
        await self._credentials.renew(self._credentials.access)
        if self._credentials.access.certificate != life:
            return 0.0  # somebody put another one there
        ended = f"the node's certificate ended on {_words(life.ends)}"
        if not self._is_ours or bootstrap is None:
            do = f"edgelet join {self._api.access.server} --nodename {settings.node_name} --token … --ca-cert-hash …"
            what = f"run `{do}`" if self._is_ours else f"replace the one of user {self._api.access.user}"
            self._tell(f"{ended}, the API server refuses this node; its pods go on. {what}: it is taken up at once")
            return LOOK_SOON_S
        self._tell(f"{ended}: asking for another with {bootstrap}")
        try:
            _, fresh = await enrol_with(bootstrap, settings, self._clock)
        except (ConfigError, Retryable, Permanent) as error:
            return self._failed(life, error)
        return await self._take_up(fresh)

    async def _take_up(self, fresh: Validity) -> float:
        await self._credentials.reload()
        logger.info("the node's certificate is a new one, good until {}", _words(fresh.ends))
        # A breath before the next: a certificate of seconds, or a proxy's wrong clock, must not make a storm.
        return max(FIRST_RETRY_S, min(LOOK_EVERY_S, (fresh.ends - (self._api.server_time() or fresh.begins)) * 0.1))

    def _failed(self, life: Validity, error: Exception) -> float:
        self._failures += 1
        self._tell(f"the node's certificate is not renewed: {error}")
        left = life.ends - (self._api.server_time() or life.begins)
        after = error.after if isinstance(error, Retryable) else None
        return after or retry_after(self._failures, left)

    def _tell(self, what: str) -> None:
        """Once, until something else is to be said."""
        if what != self._said:
            self._said = what
            logger.warning("{}", what)


def _until_end(life: Validity, server_time: float | None) -> float:
    """A while, but not past its end, and from then on soon."""
    left = LOOK_EVERY_S if server_time is None else life.ends - server_time + 1.0
    return min(left if left > 0 else LOOK_SOON_S, LOOK_EVERY_S)


def _words(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
