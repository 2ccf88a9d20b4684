"""Whose the rows of a node on a server are: of two agents of one name the second is refused while the first lives.

In: the server's word of life for that node. Out: ours in its place, where nobody else's stands, renewed until the end;
the server takes rows only while it stands. An agent that starts again on its own file takes its predecessor's word
over, for the file has one agent at a time; nobody else does before that word's life is over.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable

import msgspec

from agent import __version__
from agent.clock import Clock
from agent.errors import Retryable
from agent.store.remote import Remote

LIFE_S = 30
"""The word ends so long after the agent died."""


class Word(msgspec.Struct, frozen=True):
    version: str = ""
    since: int = 0
    """Unix seconds."""
    host: str = ""
    incarnation: str = ""
    """Of the local file."""
    session: str = ""
    """Of the agent's life."""


class Claim:
    def __init__(self, remote: Remote, incarnation: Callable[[], Awaitable[str]], clock: Clock) -> None:
        self._remote = remote
        self._incarnation = incarnation
        self._clock = clock
        self._session = secrets.token_hex(8)
        self._word: bytes | None = None
        self._taken_at = float("-inf")
        self.was_held = False
        """The rows were ours at some time of this agent's life."""

    def doubt(self) -> None:
        """The server was away or refused something: ask whether the word still stands."""
        self._taken_at = float("-inf")

    async def hold(self) -> Word | None:
        """None: the rows are ours. Else the word of who has them. Raises Retryable."""
        now = self._clock.monotonic()
        if now - self._taken_at < LIFE_S / 3:
            return None
        if self._word is None or not await self._remote.take(self._word, LIFE_S, over=self._word):
            self._word = None
            found = await self._remote.alive()
            mine = await self._incarnation()
            if found is not None and self._is_others(other := _read(found), mine):
                return other
            word = Word(__version__, int(self._clock.wall()), socket.gethostname(), mine, self._session)
            encoded = msgspec.json.encode(word)
            if not await self._remote.take(encoded, LIFE_S, over=found):
                raise Retryable("another agent's word of life came to the server just now")
            self._word = encoded
        self._taken_at, self.was_held = now, True
        return None

    def _is_others(self, word: Word, mine: str) -> bool:
        if word.session == self._session:
            return False
        # Nobody can have started on our own file since we hold it: that one has a copy.
        return word.incarnation != mine or self.was_held


def _read(found: bytes) -> Word:
    try:
        return msgspec.json.decode(found, type=Word)
    except msgspec.DecodeError:
        return Word()
