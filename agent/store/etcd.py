"""The record in etcd v3, by its gRPC API: one node's rows below `/PREFIX/NODE/`, batches as transactions.

In: one or several endpoints; a call that finds one away goes to the next. Revisions are etcd's own, so they grow with
other nodes' writes too. A lease carries the word that the node lives. A password's token is asked for again when it
ends.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio

from agent.cri._generated import etcd_pb2 as pb
from agent.cri._generated import etcd_pb2_grpc as rpc
from agent.errors import ConfigError, EdgeletError, Gone, Permanent, Retryable
from agent.store.address import StoreAddress
from agent.store.base import Change, Delete, Put, Row, last_of_each

CALL_TIMEOUT_S = 5.0
MESSAGE_BYTES = 64 * 1024 * 1024
"""A list of a whole record is one message; gRPC's own limit is 4 MiB."""
PAGE = 500
_TOO_LARGE = ("too many operations", "request is too large", "message larger than max")
_UNAUTHENTICATED = "invalid auth token"

T = TypeVar("T")


class EtcdStore:
    """Fits `Store` and `agent.store.remote.Remote`. Open it with `EtcdStore.open`."""

    def __init__(self, address: StoreAddress, node: str, password: str, credentials: grpc.ChannelCredentials | None):
        self._address = address
        self._password = password
        self._credentials = credentials
        self._base = f"/{address.prefix}/{node}/"
        self._alive = f"/{address.prefix}-alive/{node}".encode()
        self._turn = 0
        self._channel: grpc.aio.Channel | None = None
        self._token = ""
        self._authenticating = asyncio.Lock()
        self._lease = 0
        self._word = b""
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, address: StoreAddress, node: str, password: str) -> EtcdStore:
        """Makes no connection yet: the first call does. Raises ConfigError."""
        credentials = await asyncio.to_thread(_credentials, address) if address.tls else None
        return cls(address, node, password, credentials)

    async def get(self, key: str) -> Row | None:
        request = pb.RangeRequest(key=self._key(key))
        answer = await self._call(lambda channel: rpc.KVStub(channel).Range, request)
        return self._row(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> tuple[Row, ...]:
        start, end = self._range(prefix)
        found: builtins.list[Row] = []
        at = 0
        while True:
            # Pages of one revision are one moment.
            request = pb.RangeRequest(key=start, range_end=end, limit=PAGE, revision=at)
            answer = await self._call(lambda channel: rpc.KVStub(channel).Range, request)
            found += [self._row(one) for one in answer.kvs]
            if not answer.more:
                return tuple(found)
            at = at or answer.header.revision
            start = answer.kvs[-1].key + b"\0"

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        """etcd takes at most 128 keys at once (`--max-txn-ops`): more is Permanent."""
        operations = [
            pb.RequestOp(request_put=pb.PutRequest(key=self._key(change.key), value=change.value))
            if isinstance(change, Put)
            else pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=self._key(change.key)))
            for change in last_of_each(changes).values()
        ]
        request = pb.TxnRequest(compare=[self._stands(self._word)] if self._word else [], success=operations)
        answer = await self._call(lambda channel: rpc.KVStub(channel).Txn, request)
        if not answer.succeeded:
            raise Retryable(f"{self._address} no longer has this agent's word of life")
        return int(answer.header.revision)

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[AsyncIterator[Change]]:
        start, end = self._range(prefix)
        create = pb.WatchCreateRequest(key=start, range_end=end)
        channel = await self._ready()
        try:
            watch: Any = rpc.WatchStub(channel).Watch
            stream = watch(metadata=self._metadata())
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await stream.write(pb.WatchRequest(create_request=create))
                answer = await stream.read()
        except TimeoutError as error:
            raise Retryable(f"{self._address} does not answer: no answer in time") from error
        except grpc.RpcError as error:
            raise self._error(error) from error
        if not isinstance(answer, pb.WatchResponse) or answer.canceled:
            reason = answer.cancel_reason if isinstance(answer, pb.WatchResponse) else "closed"
            self._token = ""
            raise Retryable(f"{self._address} refused a watch: {reason or 'not allowed'}")
        changes = self._follow(stream)
        try:
            yield changes
        finally:
            stream.cancel()
            await changes.aclose()

    async def take(self, word: bytes, life_s: int, over: bytes | None) -> bool:
        if self._lease and over == word and await self._renewed():
            return await self._compared(word, ())
        granted = await self._call(lambda channel: rpc.LeaseStub(channel).LeaseGrant, pb.LeaseGrantRequest(TTL=life_s))
        put = pb.RequestOp(request_put=pb.PutRequest(key=self._alive, value=word, lease=granted.ID))
        if not await self._compared(over, (put,)):
            return False
        self._lease, self._word = granted.ID, word
        return True

    async def _renewed(self) -> bool:
        """Whether the lease that the word hangs on lives on."""
        channel = await self._ready()
        try:
            keep_alive: Any = rpc.LeaseStub(channel).LeaseKeepAlive
            stream = keep_alive(metadata=self._metadata())
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await stream.write(pb.LeaseKeepAliveRequest(ID=self._lease))
                answer = await stream.read()
            stream.cancel()
        except TimeoutError as error:
            raise Retryable(f"{self._address} does not answer: no answer in time") from error
        except grpc.RpcError as error:
            raise self._error(error) from error
        return isinstance(answer, pb.LeaseKeepAliveResponse) and answer.TTL > 0

    async def _compared(self, word: bytes | None, operations: Sequence[pb.RequestOp]) -> bool:
        """Perform them if that is the word which stands there."""
        request = pb.TxnRequest(compare=[self._stands(word)], success=operations)
        answer = await self._call(lambda channel: rpc.KVStub(channel).Txn, request)
        return bool(answer.succeeded)

    def _stands(self, word: bytes | None) -> pb.Compare:
        if word is None:
            return pb.Compare(target=pb.Compare.VERSION, key=self._alive, version=0)
        return pb.Compare(target=pb.Compare.VALUE, key=self._alive, value=word)

    async def alive(self) -> bytes | None:
        answer = await self._call(lambda channel: rpc.KVStub(channel).Range, pb.RangeRequest(key=self._alive))
        return bytes(answer.kvs[0].value) if answer.kvs else None

    async def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        if self._lease:
            with contextlib.suppress(EdgeletError):
                revoke = pb.LeaseRevokeRequest(ID=self._lease)
                await self._call(lambda channel: rpc.LeaseStub(channel).LeaseRevoke, revoke)
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    # ------------------------------------------------------------ keys

    def _key(self, key: str) -> bytes:
        return (self._base + key).encode()

    def _range(self, prefix: str) -> tuple[bytes, bytes]:
        """No key in UTF-8 has a byte 0xff."""
        start = self._key(prefix)
        return start, start + b"\xff"

    def _row(self, found: pb.KeyValue) -> Row:
        return Row(found.key.decode().removeprefix(self._base), found.value, found.mod_revision)

    # ------------------------------------------------------------ calls

    async def _follow(self, stream: Any) -> AsyncGenerator[Change, None]:
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            while True:
                reading = asyncio.ensure_future(stream.read())
                await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
                if closing.done():
                    reading.cancel()
                    return
                answer = reading.result()
                if not isinstance(answer, pb.WatchResponse):
                    raise Retryable(f"{self._address} ended a watch")
                if answer.compact_revision:
                    raise Gone(f"{self._address} no longer has every change")
                if answer.canceled:
                    raise Retryable(f"{self._address} ended a watch: {answer.cancel_reason}")
                for event in answer.events:
                    deleted = event.type == pb.Event.DELETE
                    key = event.kv.key.decode().removeprefix(self._base)
                    yield Change(key, None if deleted else event.kv.value, event.kv.mod_revision)
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            closing.cancel()

    async def _call(self, method: Callable[[grpc.aio.Channel], Any], request: Any) -> Any:
        """Try each endpoint once, and once more with a new token where the old one has ended."""
        for left in range(len(self._address.hosts), -1, -1):
            channel = await self._ready()
            try:
                return await method(channel)(request, metadata=self._metadata(), timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                found = self._error(error)
                if not left or not self._again(error):
                    raise found from error
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    await self._next_endpoint()
        raise AssertionError("unreachable")

    def _again(self, error: grpc.RpcError) -> bool:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAUTHENTICATED or _UNAUTHENTICATED in details:
            again, self._token = bool(self._token), ""
            return again
        return code is grpc.StatusCode.UNAVAILABLE and len(self._address.hosts) > 1

    async def _ready(self) -> grpc.aio.Channel:
        if self._closing.is_set() and self._channel is None:
            raise Retryable("the record is closed")
        if self._channel is None:
            host, port = self._address.hosts[self._turn % len(self._address.hosts)]
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            options = [
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.enable_http_proxy", 0),
            ]
            self._channel = (
                grpc.aio.secure_channel(target, self._credentials, options)
                if self._credentials is not None
                else grpc.aio.insecure_channel(target, options)
            )
        if self._address.user and not self._token:
            await self._authenticate(self._channel)
        return self._channel

    async def _authenticate(self, channel: grpc.aio.Channel) -> None:
        async with self._authenticating:  # it takes the server a while, on purpose: once for all who wait
            if self._token:
                return
            asked = pb.AuthenticateRequest(name=self._address.user, password=self._password)
            try:
                answer = await rpc.AuthStub(channel).Authenticate(asked, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                raise self._error(error) from error
            self._token = answer.token

    async def _next_endpoint(self) -> None:
        if self._channel is not None and len(self._address.hosts) > 1:
            channel, self._channel = self._channel, None
            self._turn += 1
            self._token = ""
            await channel.close(None)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    def _error(self, error: grpc.RpcError) -> EdgeletError:
        code, details = error.code(), error.details() or ""
        if any(words in details for words in _TOO_LARGE):
            return Permanent("TooLarge", f"{self._address} refused: {details}")
        if code is grpc.StatusCode.UNAVAILABLE:
            return Retryable(f"{self._address} does not answer: {details}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Retryable(f"{self._address} does not answer: no answer in time")
        return Retryable(f"{self._address} refused: {details or code.name}")


def _credentials(address: StoreAddress) -> grpc.ChannelCredentials:
    try:
        ca, key, cert = (file.read_bytes() if file else None for file in (address.ca, address.key, address.cert))
    except OSError as error:
        raise ConfigError(f"--store: cannot read {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(ca, key, cert)
