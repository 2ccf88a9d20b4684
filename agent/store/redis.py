"""The record in a Redis server: one node's rows in a hash, their keys in order beside it, its changes in a stream.

A batch is one Lua script, so it is all or nothing and has one revision. The stream is short: a watcher that was away
for longer is told so (Gone). All keys of a node are in one hash slot, `PREFIX:{NODE}:…`. How durable a write is, the
server's configuration says: docs/operations.md has the advice. redis-py is loaded only by who uses it.
"""

from __future__ import annotations

import asyncio
import builtins
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError, Gone, Retryable
from agent.store.address import Kind, StoreAddress
from agent.store.base import Change, Delete, Put, Row, last_of_each

if TYPE_CHECKING:
    from redis.asyncio import Redis

CALL_TIMEOUT_S = 5.0
BLOCK_MS = 1000
"""A watcher looks up this often, so that a closed store ends it."""
CONNECTIONS = 4
"""Calls at the same time, each with a connection of its own; watchers have one more each."""
REMEMBERED = 2000
"""Changes that the stream keeps."""

_REVISION = struct.Struct(">Q")

_BATCH = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[1] then
  return -1
end
local revision = redis.call('INCR', KEYS[1])
local packed = struct.pack('>I8', revision)
for i = 2, #ARGV, 3 do
  local what, key, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if what == 'put' then
    redis.call('HSET', KEYS[2], key, packed .. value)
    redis.call('ZADD', KEYS[3], 0, key)
  else
    redis.call('HDEL', KEYS[2], key)
    redis.call('ZREM', KEYS[3], key)
  end
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', REMEMBERED, string.format('%d-%d', revision, (i + 1) / 3),
             'what', what, 'key', key, 'value', value, 'of', (#ARGV - 1) / 3)
end
return revision
""".replace("REMEMBERED", str(REMEMBERED))

_LIST = """
local found = {}
local keys = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. ARGV[1], '[' .. ARGV[1] .. '\\255')
for start = 1, #keys, 1000 do
  local values = redis.call('HMGET', KEYS[1], unpack(keys, start, math.min(start + 999, #keys)))
  for i, value in ipairs(values) do
    if value then
      found[#found + 1] = keys[start + i - 1]
      found[#found + 1] = value
    end
  end
end
return found
"""


_TAKE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
"""


class RedisStore:
    """Fits `Store` and `agent.store.remote.Remote`. Open it with `RedisStore.open`."""

    def __init__(self, client: Redis, address: StoreAddress, node: str) -> None:
        self._client = client
        self._where = str(address)
        base = f"{address.prefix}:{{{node}}}"
        self._revision_key = f"{base}:revision"
        self._rows = f"{base}:rows"
        self._index = f"{base}:index"
        self._changes = f"{base}:changes"
        self._alive = f"{base}:alive"
        self._batch = client.register_script(_BATCH)
        self._list = client.register_script(_LIST)
        self._take = client.register_script(_TAKE)
        self._release = client.register_script(_RELEASE)
        self._word = b""
        self._closing = asyncio.Event()
        self._turns = asyncio.Semaphore(CONNECTIONS)

    @classmethod
    async def open(cls, address: StoreAddress, node: str, password: str) -> RedisStore:
        """Makes no connection yet: the first call does. Raises ConfigError."""
        return cls(await asyncio.to_thread(_client, address, password), address, node)

    async def get(self, key: str) -> Row | None:
        packed = await self._call(self._client.hget(self._rows, key))
        return None if packed is None else _row(key.encode(), packed)

    async def list(self, prefix: str) -> tuple[Row, ...]:
        found = await self._call(self._list(keys=[self._rows, self._index], args=[prefix]))
        return tuple(_row(key, packed) for key, packed in zip(found[::2], found[1::2], strict=True))

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        if not changes:
            return await self._revision()
        arguments: builtins.list[str | bytes] = [self._word]
        for change in last_of_each(changes).values():
            arguments += ["put", change.key, change.value] if isinstance(change, Put) else ["delete", change.key, b""]
        keys = [self._revision_key, self._rows, self._index, self._changes, self._alive]
        revision = int(await self._call(self._batch(keys=keys, args=arguments)))
        if revision < 0:
            raise Retryable(f"{self._where} no longer has this agent's word of life")
        return revision

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[AsyncIterator[Change]]:
        since = await self._revision()
        changes = self._follow(prefix, since)
        try:
            yield changes
        finally:
            await changes.aclose()

    async def take(self, word: bytes, life_s: int, over: bytes | None) -> bool:
        taken = await self._call(self._take(keys=[self._alive], args=[over or b"", word, life_s]))
        if taken:
            self._word = word
        return bool(taken)

    async def alive(self) -> bytes | None:
        """The node's last word, None where its life is over."""
        found: bytes | None = await self._call(self._client.get(self._alive))
        return found

    async def close(self) -> None:
        self._closing.set()
        with suppress(Retryable):
            if self._word:
                await self._call(self._release(keys=[self._alive], args=[self._word]))
        with suppress(Retryable):
            await self._call(self._client.aclose())

    async def _revision(self) -> int:
        return int(await self._call(self._client.get(self._revision_key)) or 0)

    async def _follow(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        last, expected = f"{since}-{0xFFFFFFFF}", (since + 1, 1)
        while not self._closing.is_set():
            answer = await self._call(
                self._client.xread({self._changes: last}, count=100, block=BLOCK_MS), CALL_TIMEOUT_S + BLOCK_MS / 1000
            )
            if not answer:
                if await self._revision() < expected[0] - 1:
                    raise Gone(f"{self._where} has lost changes")
                continue
            for identity, fields in answer[0][1]:
                last = identity.decode()
                revision, place = (int(part) for part in last.split("-"))
                if (revision, place) != expected:
                    raise Gone(f"{self._where} no longer has the changes after revision {expected[0] - 1}")
                expected = (revision, place + 1) if place < int(fields[b"of"]) else (revision + 1, 1)
                key = fields[b"key"].decode()
                if key.startswith(prefix):
                    yield Change(key, fields[b"value"] if fields[b"what"] == b"put" else None, revision)

    async def _call(self, call: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        from redis import exceptions

        try:
            async with self._turns if timeout_s == CALL_TIMEOUT_S else nullcontext(), asyncio.timeout(timeout_s):
                return await call
        except (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError, OSError) as error:
            raise Retryable(f"{self._where} does not answer: {str(error) or 'no answer in time'}") from error
        except exceptions.RedisError as error:
            # READONLY, LOADING, OOM, MISCONF, NOAUTH: the server's state, which somebody mends there.
            raise Retryable(f"{self._where} refused: {error}") from error


def _row(key: bytes, packed: bytes) -> Row:
    return Row(key.decode(), packed[_REVISION.size :], _REVISION.unpack_from(packed)[0])


def _client(address: StoreAddress, password: str) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.sentinel import Sentinel
    except ImportError as error:
        raise ConfigError("--store redis:// needs the Python package redis: pip install 'edgelet[redis]'") from error
    options: dict[str, Any] = {
        "db": address.database,
        "username": address.user or None,
        "password": password or None,
        "socket_timeout": CALL_TIMEOUT_S,
        "socket_connect_timeout": CALL_TIMEOUT_S,
        "health_check_interval": 30,
        "protocol": 2,
    }
    tls: dict[str, Any] = {}
    if address.tls:
        tls = {
            "ssl": True,
            "ssl_ca_certs": address.ca and str(address.ca),
            "ssl_certfile": address.cert and str(address.cert),
            "ssl_keyfile": address.key and str(address.key),
        }
    if address.kind is Kind.SENTINEL:
        timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
        sentinel: Any = Sentinel(list(address.hosts), sentinel_kwargs=tls | timeouts, **options, **tls)  # type: ignore[no-untyped-call]
        found: Redis = sentinel.master_for(address.master)
        return found
    host, port = address.hosts[0]
    return Redis(host=host, port=port, **options, **tls)
