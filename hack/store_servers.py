"""Real Redis and etcd servers for a record, plain or with TLS and a password, that can be killed and come back."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hack import binaries
from hack.pki import Authority
from hack.processes import Daemon, DaemonError, free_port

PASSWORD = "pass/word:with@marks"
USER = "edge"


class Server(ABC):
    """One server on loopback; its data outlives `kill`."""

    scheme: str

    def __init__(self, folder: Path, *, secure: bool = False) -> None:
        self.folder = folder
        self.secure = secure
        self.port = free_port()
        folder.mkdir(parents=True)
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        if secure:
            authority = Authority("stores")
            pair = authority.server("server", ["127.0.0.1", "localhost"])
            for name, content in (
                ("ca.crt", authority.pair.certificate),
                ("server.crt", pair.certificate),
                ("server.key", pair.key),
            ):
                (folder / name).write_bytes(content)
        self.daemon = Daemon(self.scheme, self.command(), folder, working_folder=folder)

    @abstractmethod
    def command(self) -> list[str | Path]: ...

    def start(self) -> None:
        self.daemon.start()
        self.daemon.wait_ready(self.ready, 20)

    def ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.daemon.kill()

    def stop(self) -> None:
        self.daemon.stop()

    @property
    def url(self) -> str:
        if not self.secure:
            return f"{self.scheme}://127.0.0.1:{self.port}"
        words = f"?ca={self.folder}/ca.crt&password-file={self.password_file}"
        return f"{self.scheme}s://{USER}@127.0.0.1:{self.port}{words}"


def redis_program(folder: Path, name: str) -> Path:
    """Redis' one program does what its name says; Debian has it without a service in redis-tools."""
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if found is None:
        raise DaemonError("no redis-server here: hack/packages.sh installs it")
    link = folder / name
    link.unlink(missing_ok=True)
    link.symlink_to(Path(found).resolve())
    return link


class RedisServer(Server):
    scheme = "redis"

    def command(self) -> list[str | Path]:
        command: list[str | Path] = [redis_program(self.folder, "redis-server"), "--dir", self.folder, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--bind", "127.0.0.1"]
        if not self.secure:
            return [*command, "--port", str(self.port)]
        command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        command += ["--tls-cert-file", self.folder / "server.crt", "--tls-key-file", self.folder / "server.key"]
        command += ["--tls-ca-cert-file", self.folder / "ca.crt"]
        rights = f"{USER} on >{PASSWORD} ~edgelet:* +@all -@admin -@dangerous"
        # Without rights of the default user, Redis 7 passes over the transactions in its own log at a start.
        return [*command, "--user", *rights.split(), "--user", *("default", "off", "+@all", "~*", "&*")]


class EtcdServer(Server):
    scheme = "etcd"

    def command(self) -> list[str | Path]:
        http = "https" if self.secure else "http"
        client, peer = f"{http}://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        command: list[str | Path] = [
            binaries.find("etcd"),
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]
        if self.secure:
            command += [f"--cert-file={self.folder}/server.crt", f"--key-file={self.folder}/server.key"]
        return command

    def start(self) -> None:
        first = not (self.folder / "data").exists()
        super().start()
        if self.secure and first:
            for path, body in (
                ("auth/user/add", {"name": "root", "password": "root"}),
                ("auth/role/add", {"name": "root"}),
                ("auth/user/grant", {"user": "root", "role": "root"}),
                ("auth/user/add", {"name": USER, "password": PASSWORD}),
                ("auth/role/add", {"name": USER}),
                ("auth/role/grant", {"name": USER, "perm": _everything_below("/edgelet")}),
                ("auth/user/grant", {"user": USER, "role": USER}),
                ("auth/enable", {}),
            ):
                self.post(path, body)

    def ready(self) -> bool:
        try:
            with self._open("health", None) as answer:
                return bool(json.load(answer)["health"] == "true")
        except OSError:
            return False

    def post(self, path: str, body: dict[str, Any]) -> None:
        self._open(f"v3/{path}", json.dumps(body).encode()).close()

    def _open(self, path: str, body: bytes | None) -> Any:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt")) if self.secure else None
        url = f"http{'s' if self.secure else ''}://127.0.0.1:{self.port}/{path}"
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        return opener.open(url, body, 5)


def _everything_below(prefix: str) -> dict[str, str]:
    def text(word: str) -> str:
        import base64

        return base64.b64encode(word.encode()).decode()

    return {"permType": "READWRITE", "key": text(prefix), "range_end": text(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


MAKERS: dict[str, Callable[[Path], Server]] = {
    "redis": RedisServer,
    "redis-secure": lambda folder: RedisServer(folder, secure=True),
    "etcd": EtcdServer,
    "etcd-secure": lambda folder: EtcdServer(folder, secure=True),
}
