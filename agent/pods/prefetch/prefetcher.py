"""Pull images before a pod needs them: one after the other, slowly where that is wanted, and behind pods' own pulls.

In: the images that are wanted, the rate and the times of day. Out: images in the runtime, and where each of them is. A
pull is paused by ending it: what came of it stays under a lease of containerd's, and the next try asks the registry for
the rest only. So a pause, a registry that went, and a restart cost nothing that has come.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import msgspec
from loguru import logger
from msgspec.structs import replace

from agent.clock import NodeClock, sleep_unless
from agent.cri._generated import api_pb2
from agent.errors import EdgeletError, NotFound, Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.pods.credentials import Credential
from agent.pods.go_duration import go_duration
from agent.pods.image_pull import node_credentials
from agent.pods.images import with_default_tag
from agent.pods.machine import Machine
from agent.pods.prefetch.meter import Content, Held, Meter, Progress
from agent.pods.prefetch.pins import Labels, Pins
from agent.pods.prefetch.schedule import Budget, Window, is_open, written
from agent.pods.prefetch.told import ImageStatus, State, shortened
from agent.pods.pull_faults import is_away, summary

LEASE_LABEL = "io.edgelet/prefetch"
LOOK_S = 300.0
"""How often the images are looked at where nothing happens: one may have been removed by hand."""
CLOSED_LOOK_S = 15.0
TICK_S = 0.05
"""How often a pull whose rate is limited is looked at."""
METER_S = 1.0
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
"""What came stays, so that a try costs the registry one question."""
LAST_REFUSED_RETRY_S = 300.0
"""Where the registry answered: it hardly changes its mind."""
SILENT_S = 120.0
"""A pull of which nothing came for so long, though something is missing, is ended and tried again."""
UNPACK_S = 900.0
"""The same where nothing is missing: it is being unpacked."""


class Leases(Held, Protocol):
    async def create(self, lease: str, labels: Mapping[str, str]) -> None: ...
    async def delete(self, lease: str) -> None: ...
    async def labelled(self, label: str) -> frozenset[str]: ...


class Puller(Protocol):
    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None: ...
    async def pull_image(
        self, image: api_pb2.ImageSpec, auth: api_pb2.AuthConfig | None = None, *, lease: str = ""
    ) -> str: ...


class Rules(msgspec.Struct, frozen=True):
    rate: int = 0
    """Bytes a second; 0: no limit."""
    windows: tuple[Window, ...] = ()


class _Retry(msgspec.Struct):
    at: float
    delay_s: float
    message: str


class Prefetcher:
    def __init__(
        self,
        machine: Machine,
        images: Puller,
        content: Content,
        leases: Leases,
        labels: Labels,
        pins: Pins,
        rules: Rules,
        clock: NodeClock,
        about: ObjectReference,
        is_short: Callable[[], bool],
        changed: Callable[[], None],
        local: Callable[[float], datetime] = datetime.fromtimestamp,
    ) -> None:
        """`is_short`: the machine is short of disk. `changed` is called when `statuses` are others. `local` makes the
        machine's own time of Unix seconds.
        """
        self._machine = machine
        self._images = images
        self._content = content
        self._leases = leases
        self._labels = labels
        self._pins = pins
        self._rules = rules
        self._clock = clock
        self._about = about
        self._is_short = is_short
        self._changed = changed
        self._local = local
        self._budget = Budget(rules.rate, clock.monotonic())
        self._statuses: dict[str, ImageStatus] = {}
        self._retries: dict[str, _Retry] = {}
        self._announced: set[str] = set()
        self._credential: Credential | None = None
        """What the last pull was tried with."""
        self._news = asyncio.Event()

    @property
    def statuses(self) -> Sequence[ImageStatus]:
        """In the order in which they are wanted."""
        return [self._statuses[image] for image in self._pins.wanted if image in self._statuses]

    def wake(self) -> None:
        """Other images are wanted."""
        self._news.set()

    def retry(self) -> None:
        """What failed may do better now."""
        for last in self._retries.values():
            last.at, last.delay_s = -math.inf, FIRST_RETRY_S / 2
        self._news.set()

    async def run(self) -> None:
        """For as long as the agent lives."""
        while True:
            self._news.clear()
            wait_s = FIRST_RETRY_S
            try:
                wait_s = await self._round()
            except EdgeletError as error:
                logger.debug("images are not pulled ahead now: {}", error)
            if wait_s > 0:
                await self._sleep(wait_s)

    async def _round(self) -> float:
        """Pull one image; how long to wait for the next look. Raises Retryable, Permanent."""
        wanted, leased = self._pins.wanted, await self._leases.labelled(LEASE_LABEL)
        # What still has its lease came, but nobody noted for whom: it is pulled to its end.
        missing = [image for image in wanted if lease_of(image) in leased or not await self._is_present(image)]
        for image in self._statuses.keys() - set(wanted):
            del self._statuses[image]
        self._announced &= set(missing)
        self._retries = {image: retry for image, retry in self._retries.items() if image in missing}
        await self._pins.mark(self._labels)
        for image in missing:
            if image not in self._statuses or self._statuses[image].state is State.PRESENT:
                self._show(image, State.PENDING)
        # What came of images that nobody wants any more.
        for lease in leased - {lease_of(image) for image in missing}:
            await self._leases.delete(lease)
        self._changed()
        now = self._clock.monotonic()
        ready = [image for image in missing if image not in self._retries or self._retries[image].at <= now]
        if not ready:
            return min([LOOK_S, *(self._retries[image].at - now for image in missing)])
        # What failed does not hold up what was not tried.
        image = min(ready, key=lambda one: one in self._retries)
        await self._prefetch(image)
        return 0.0

    async def _is_present(self, image: str) -> bool:
        found = await self._images.image_status(self._spec(image))
        if found is None and self._machine.rewrites.pairs:
            # It may have come in a bundle, under the name that pods have for it.
            found = await self._images.image_status(api_pb2.ImageSpec(image=with_default_tag(image)))
        if found is None:
            return False
        if (last := self._statuses.get(image)) is None or last.state is not State.PRESENT:
            size = last.total if last is not None else 0
            self._statuses[image] = ImageStatus(image, State.PRESENT, size or found.size, size or found.size)
        return True

    # ------------------------------------------------------------ one image

    async def _prefetch(self, image: str) -> None:
        spec, lease = self._spec(image), lease_of(image)
        await self._leases.create(lease, {LEASE_LABEL: "image"})
        meter = Meter(self._content, self._leases, lease)
        await meter.look()
        began = self._clock.monotonic()
        if image not in self._announced:
            self._announced.add(image)
            self._say("Normal", "Pulling", f'Pulling image "{image}" ahead')
        try:
            async with self._machine.access.pulling(spec.image):
                while image in self._pins.wanted and not self._news.is_set():
                    if not await self._may_pull(image):
                        continue
                    # It may have been whole already when it was ended.
                    if await self._try(image, spec, lease, meter) or await self._images.image_status(spec):
                        await self._pulled(image, spec, began)
                        return
        except (NotFound, Permanent, Retryable) as error:
            self._failed(image, error)

    async def _may_pull(self, image: str) -> bool:
        """True: now. False after a while in which it was not so."""
        if why := self._hindrance():
            self._show(image, State.PAUSED, message=why)
            await self._sleep(
                CLOSED_LOOK_S, self._news if self._machine.pulls.idle.is_set() else self._machine.pulls.idle
            )
            return False
        if (wait_s := self._budget.wait_s(self._clock.monotonic())) > 0:
            await self._sleep(min(wait_s, CLOSED_LOOK_S))
            return False
        return True

    def _hindrance(self) -> str:
        """Why nothing may be pulled now; empty: it may."""
        if not is_open(self._rules.windows, self._local(self._clock.wall())):
            return f"waits for {written(self._rules.windows)}"
        if not self._machine.pulls.idle.is_set():
            return "a pod's image comes first"
        if self._is_short():
            return "the machine is short of disk"
        return ""

    async def _try(self, image: str, spec: api_pb2.ImageSpec, lease: str, meter: Meter) -> bool:
        """Pull until it is whole, or until there is a reason to pause: False. Raises what the pull raises."""
        self._show(image, State.PULLING)
        task = asyncio.ensure_future(self._with_any_credential(spec, lease))
        looked_at = last_came_at = self._clock.monotonic()
        tick_s = TICK_S if self._budget.is_limited else METER_S / 4
        try:
            while not (await asyncio.wait({task}, timeout=tick_s))[0]:
                if self._hindrance() or image not in self._pins.wanted:
                    return False
                now = self._clock.monotonic()
                if not self._budget.is_limited and now - looked_at < METER_S:
                    continue
                looked_at = now
                progress = await meter.look()
                self._show_progress(image, progress)
                if progress.came:
                    last_came_at = now
                if not self._budget.spend(progress.came, now):
                    return False
                silent_s = UNPACK_S if 0 < progress.total <= progress.here else SILENT_S
                if now - last_came_at >= silent_s:
                    raise Retryable(f"RegistryUnavailable: nothing came for {silent_s:.0f}s")
            await task
            return True
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(EdgeletError):
                progress = await meter.look()
                self._show_progress(image, progress)
                self._budget.spend(progress.came, self._clock.monotonic())

    async def _with_any_credential(self, spec: api_pb2.ImageSpec, lease: str) -> None:
        """The node's own credentials, the most specific first; without any where there are none."""
        said: list[str] = []
        for credential in await node_credentials(self._machine, spec.image) or (None,):
            self._credential = credential
            try:
                await self._images.pull_image(spec, credential.auth if credential else None, lease=lease)
                return
            except (NotFound, Permanent) as error:
                said.append(str(error))
        raise Permanent("", summary(said))

    async def _pulled(self, image: str, spec: api_pb2.ImageSpec, began: float) -> None:
        found = await self._images.image_status(spec)
        if found is None:
            raise Permanent("", f'image "{image}" was pulled and is not there')
        await self._machine.access.pulled(spec.image, found.id, self._credential)
        await self._leases.delete(lease_of(image))
        self._retries.pop(image, None)
        took = go_duration(self._clock.monotonic() - began)
        self._say("Normal", "Pulled", f'Pulled image "{image}" ahead in {took}. Image size: {found.size} bytes.')
        self._show(image, State.PRESENT)

    def _failed(self, image: str, error: EdgeletError) -> None:
        last = self._retries.get(image)
        away = isinstance(error, Retryable) or is_away(str(error)) or "EOF" in str(error)
        delay = FIRST_RETRY_S if last is None else last.delay_s * 2
        delay = min(delay, LAST_RETRY_S if away else LAST_REFUSED_RETRY_S)
        self._retries[image] = _Retry(self._clock.monotonic() + delay, delay, str(error))
        if last is None or last.message != str(error):
            self._say("Warning", "Failed", f'Failed to pull image "{image}" ahead: {error}')
        self._show(image, State.FAILED, message=str(error))

    def _spec(self, image: str) -> api_pb2.ImageSpec:
        return api_pb2.ImageSpec(image=self._machine.rewrites.name(image))

    # ------------------------------------------------------------ what is told

    def _show_progress(self, image: str, progress: Progress) -> None:
        last = self._statuses.get(image)
        if last is not None and progress.total and (last.bytes, last.total) != (progress.here, progress.total):
            self._statuses[image] = replace(last, bytes=progress.here, total=progress.total)
            self._changed()

    def _show(self, image: str, state: State, message: str = "") -> None:
        last = self._statuses.get(image, ImageStatus(image, state))
        status = replace(last, state=state, message=shortened(message))
        if state is State.PRESENT:
            status = replace(status, bytes=status.total)
        if self._statuses.get(image) != status:
            self._statuses[image] = status
            self._changed()

    def _say(self, kind: str, reason: str, message: str) -> None:
        self._machine.events.record(self._about, kind, reason, message)

    async def _sleep(self, seconds: float, event: asyncio.Event | None = None) -> None:
        """At most so long, and until there is news (or until that event)."""
        await sleep_unless(event or self._news, self._clock.sleep(seconds))


def lease_of(image: str) -> str:
    return f"edgelet-prefetch-{hashlib.sha256(with_default_tag(image).encode()).hexdigest()[:32]}"
