"""A private system bus (a real dbus-daemon) and on it what stands for logind and for systemd's reload of it.

The bus and the messages are real; only the service is ours, because systemd does not run where tests do. What
`systemctl poweroff` makes logind say is `shutting_down(True)`.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    message_bus,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import DBusConnection, open_dbus_connection

HAS_DBUS = shutil.which("dbus-daemon") is not None
_EMITTER = DBusAddress("/org/freedesktop/login1", interface="org.freedesktop.login1.Manager")
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>
"""


class FakeLogind:
    """Answers in a thread of its own."""

    def __init__(self, address: str, config: Path) -> None:
        """`config` is the file of settings that a reload reads."""
        self.address = address
        self.delay_s = 5.0
        self.inhibits: list[tuple[str, ...]] = []
        self.reloads = 0
        self._config = config
        self._locks: list[int] = []
        self._sent: list[int] = []
        self._stopping = threading.Event()
        self._sending = threading.Lock()
        self._connection: DBusConnection = open_dbus_connection(address, enable_fds=True)
        for name in ("org.freedesktop.login1", "org.freedesktop.systemd1"):
            self._connection.send_and_get_reply(message_bus.RequestName(name), timeout=5)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def locks_held(self) -> int:
        """Inhibitors whose other end is still open."""
        poll = select.poll()
        for lock in self._locks:
            poll.register(lock, select.POLLHUP)
        closed = {fd for fd, event in poll.poll(0) if event & select.POLLHUP}
        return len(self._locks) - len(closed)

    def shutting_down(self, going_down: bool) -> None:
        with self._sending:
            self._connection.send(new_signal(_EMITTER, "PrepareForShutdown", "b", (going_down,)))

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)
        self._connection.close()
        for lock in self._locks:
            os.close(lock)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                call = self._connection.receive(timeout=0.05)
                if call.header.message_type is MessageType.method_call:
                    answer = self._answer(call, call.header.fields.get(HeaderFields.member), call.body)
                    with self._sending:
                        self._connection.send(answer)
                    for sent in self._sent:
                        os.close(sent)  # the caller has a lock of its own now
                    self._sent.clear()

    def _answer(self, call: Message, member: str | None, body: tuple[Any, ...]) -> Message:
        match member:
            case "Get":
                return new_method_return(call, "v", (("t", int(self.delay_s * 1e6)),))
            case "Inhibit":
                self.inhibits.append(body)
                reading, writing = os.pipe()
                self._locks.append(reading)
                self._sent.append(writing)
                return new_method_return(call, "h", (writing,))
            case "KillUnit":
                self.reloads += 1
                found = re.search(r"InhibitDelayMaxSec=(\d+)", self._config.read_text())
                self.delay_s = float(found[1]) if found else self.delay_s
                return new_method_return(call)
            case _:
                return new_error(call, "org.freedesktop.DBus.Error.UnknownMethod", "s", (f"no {member}",))


@contextmanager
def system_bus(folder: Path) -> Iterator[tuple[str, FakeLogind]]:
    """The bus's address and its logind. The socket's path must be short: `folder` is one below /tmp."""
    (folder / "bus.conf").write_text(_CONFIG.format(socket=folder / "bus"))
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={folder / 'bus.conf'}", "--nofork", "--nopidfile", "--print-address=1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    daemon.stdout.readline()
    address = f"unix:path={folder / 'bus'}"
    logind = FakeLogind(address, folder / "logind.conf.d" / "99-edgelet.conf")
    try:
        yield address, logind
    finally:
        logind.close()
        daemon.terminate()
        daemon.wait(10)
        daemon.stdout.close()
