"""Have systemd wait until the pods have ended: an inhibitor lock of logind's, and its word of a shutdown.

In: the system bus. Out: `begin` when the machine is about to go down, the lock given back when that is done, `call_off`
when it is not to go down after all. Without a bus or logind it looks for them again and again; nothing else waits.
Source: the systemd page "Inhibitor Locks", org.freedesktop.login1(5); the kubelet's use of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageType, Properties, message_bus, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from loguru import logger

from agent.clock import Clock
from agent.errors import Permanent, Retryable
from agent.node.shutdown import Period, Shutdown, log_progress

RECONNECT_S = 5.0
CALL_S = 5.0
APPLIED_WITHIN_S = 3.0
"""logind reads its settings again by itself; this long it may take."""
CONFIG = Path("/etc/systemd/logind.conf.d/99-edgelet.conf")

_PATH, _INTERFACE = "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
_LOGIND = DBusAddress(_PATH, "org.freedesktop.login1", _INTERFACE)
_SYSTEMD = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_SIGHUP = 1


class Logind:
    """One connection. Every call blocks: they are made in threads, one at a time."""

    def __init__(self, bus: str = "SYSTEM") -> None:
        """`bus`: SYSTEM, or a D-Bus address. Raises Retryable."""
        try:
            self._connection: DBusConnection = open_dbus_connection(bus, enable_fds=True)
        except (OSError, TimeoutError, KeyError, ValueError, RuntimeError) as error:
            raise Retryable(f"no system bus: {error}") from error
        rule = MatchRule(type="signal", interface=_INTERFACE, member="PrepareForShutdown", path=_PATH)
        self._signals: deque[Message] = deque()
        self._connection.filter(rule, queue=self._signals)
        self._call(message_bus.AddMatch(rule))

    def fileno(self) -> int:
        """Readable when there may be word."""
        return int(self._connection.sock.fileno())

    def delay_s(self) -> float:
        """How long logind lets itself be held up at most."""
        ((_, microseconds),) = self._call(Properties(_LOGIND).get("InhibitDelayMaxUSec"))
        return float(microseconds) / 1e6

    def reload(self) -> None:
        """Have logind read its settings anew."""
        self._call(new_method_call(_SYSTEMD, "KillUnit", "ssi", ("systemd-logind.service", "all", _SIGHUP)))

    def inhibit(self) -> int:
        """The lock: a file descriptor, which the caller closes."""
        what = ("shutdown", "edgelet", "Pods are ended before the machine goes down", "delay")
        (lock,) = self._call(new_method_call(_LOGIND, "Inhibit", "ssss", what))
        return int(lock.to_raw_fd())

    def news(self) -> tuple[bool, ...]:
        """What was said since the last call: True, the machine goes down; False, it does not after all."""
        with suppress(TimeoutError):
            while True:
                self._receive(0)
        return tuple(bool(self._signals.popleft().body[0]) for _ in range(len(self._signals)))

    def close(self) -> None:
        self._connection.close()

    def _receive(self, timeout_s: float) -> None:
        try:
            self._connection.recv_messages(timeout=timeout_s)
        except (OSError, RuntimeError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise Retryable(f"the system bus is gone: {error}") from error

    def _call(self, message: Message) -> tuple[Any, ...]:
        what = message.header.fields.get(HeaderFields.member, "")
        try:
            reply = self._connection.send_and_get_reply(message, timeout=CALL_S)
        except (OSError, RuntimeError) as error:
            raise Retryable(f"the system bus does not answer {what}: {error or 'in time'}") from error
        if reply.header.message_type is MessageType.error:
            why = reply.body[0] if reply.body else reply.header.fields.get(HeaderFields.error_name, "")
            raise Permanent(str(reply.header.fields.get(HeaderFields.error_name, "")), f"{what}: {why}")
        body: tuple[Any, ...] = reply.body
        return body


async def follow_logind(
    shutdown: Shutdown, by: Sequence[Period], clock: Clock, *, bus: str = "SYSTEM", config: Path = CONFIG
) -> None:
    """Hold shutdowns up for as long as the agent lives."""
    said = ""
    # What has begun goes on when the bus goes first.
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                async with _connected(bus) as logind:
                    await _prepare(logind, sum(period.grace_s for period in by), clock, config)
                    await _Hold(logind, shutdown, by, tasks).keep()
            except (Retryable, Permanent) as error:
                if str(error) != said:
                    logger.warning("shutdowns of this machine do not wait for its pods (edgelet drain does): {}", error)
                said = str(error)
            await clock.sleep(RECONNECT_S)


@asynccontextmanager
async def _connected(bus: str) -> AsyncIterator[Logind]:
    logind = await asyncio.to_thread(Logind, bus)
    try:
        yield logind
    finally:
        logind.close()


async def _prepare(logind: Logind, needed_s: float, clock: Clock, config: Path) -> None:
    """Where logind waits for less than the pods have, its settings are changed."""
    if await asyncio.to_thread(logind.delay_s) >= needed_s:
        return
    try:
        await asyncio.to_thread(_write, config, needed_s)
    except OSError as error:
        raise Permanent("", f"{config}: {error.strerror}") from error
    await asyncio.to_thread(logind.reload)
    due = clock.monotonic() + APPLIED_WITHIN_S
    while (now_s := await asyncio.to_thread(logind.delay_s)) < needed_s:
        if clock.monotonic() >= due:
            raise Permanent("", f"logind waits {now_s:g} s at most, and pods have {needed_s:g} s (InhibitDelayMaxSec)")
        await clock.sleep(0.1)


def _write(config: Path, needed_s: float) -> None:
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"# Written by edgelet: its --shutdown-grace-period.\n[Login]\nInhibitDelayMaxSec={needed_s:.0f}\n"
    )


class _Hold:
    """The lock, and what becomes of it."""

    def __init__(self, logind: Logind, shutdown: Shutdown, by: Sequence[Period], tasks: asyncio.TaskGroup) -> None:
        self._logind = logind
        self._shutdown = shutdown
        self._by = by
        self._tasks = tasks
        self._lock: int | None = None
        self._ending: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Until the connection breaks. Raises Retryable, Permanent."""
        self._lock = await asyncio.to_thread(self._logind.inhibit)
        logger.info("shutdowns of this machine wait for its pods")
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._logind.fileno(), readable.set)
        try:
            while True:
                for goes_down in await asyncio.to_thread(self._logind.news):
                    await self._take(goes_down)
                readable.clear()
                await readable.wait()
        finally:
            loop.remove_reader(self._logind.fileno())
            if not self._is_ending:
                self._release()

    @property
    def _is_ending(self) -> bool:
        return self._ending is not None and not self._ending.done()

    async def _take(self, goes_down: bool) -> None:
        logger.info("logind says: the machine {}", "goes down" if goes_down else "stays up")
        if not goes_down:
            self._shutdown.call_off()
            if self._lock is None:
                self._lock = await asyncio.to_thread(self._logind.inhibit)
        elif not self._is_ending:
            self._ending = self._tasks.create_task(self._end(), name="end pods")

    async def _end(self) -> None:
        try:
            await self._shutdown.begin(self._by, log_progress)
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
