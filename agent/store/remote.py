"""A record on a server: what Redis and etcd have beside the Store, and which of them an address names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from agent.errors import ConfigError
from agent.store.address import PASSWORD_ENV, Kind, StoreAddress
from agent.store.base import Store


class Remote(Store, Protocol):
    async def take(self, word: bytes, life_s: int, over: bytes | None) -> bool:
        """Say that the node lives, for so many seconds: after them the word is gone.

        False: the word that stands there is not `over` (None: no word stands there). From the first success on `batch`
        is performed only while that word stands, and else raises Retryable. `close` takes it back.
        """

    async def alive(self) -> bytes | None:
        """The node's last word, None where its life is over."""


async def connect(address: StoreAddress, node: str, environ: Mapping[str, str] = os.environ) -> Remote:
    """A client of the node's record there. It connects with its first call. Raises ConfigError."""
    for file in (address.ca, address.cert, address.key):
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigError(f"--store: cannot read {file}")
    password = await asyncio.to_thread(_password, address, environ)
    if address.kind is Kind.ETCD:
        from agent.store.etcd import EtcdStore

        if password and not address.user:
            raise ConfigError(f"--store: etcd wants a user with the password: {address.kind}://USER@HOST")
        return await EtcdStore.open(address, node, password)
    from agent.store.redis import RedisStore

    return await RedisStore.open(address, node, password)


def _password(address: StoreAddress, environ: Mapping[str, str]) -> str:
    """The URL's own, else the file's, else the environment's."""
    if address.password or address.password_file is None:
        return address.password or environ.get(PASSWORD_ENV, "")
    path: Path = address.password_file
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"--store: password-file {path}: {why}") from error
