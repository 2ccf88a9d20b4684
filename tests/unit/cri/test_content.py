"""Blobs, writes and leases of containerd's own services, on the wire."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from agent.cri._generated import content_pb2, content_pb2_grpc, leases_pb2, leases_pb2_grpc
from agent.cri.channel import RuntimeChannel
from agent.cri.content import ContentStore, Ingest
from agent.cri.leases import Leased, Leases
from agent.errors import NotFound, Permanent

Context = grpc.aio.ServicerContext[Any, Any]
PIECES = (b"ab", b"c")
DIGEST = f"sha256:{hashlib.sha256(b'abc').hexdigest()}"


class Content(content_pb2_grpc.ContentServicer):
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        self.leased: list[str] = []

    async def Info(self, request: content_pb2.InfoRequest, context: Context) -> content_pb2.InfoResponse:
        await _in_namespace(context)
        if request.digest not in self.blobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "content: not found")
        size = len(self.blobs[request.digest])
        info = content_pb2.Info(
            digest=request.digest, size=size, created_at=Timestamp(seconds=7, nanos=500_000_000), labels=self.labels
        )
        return content_pb2.InfoResponse(info=info)

    async def Read(
        self, request: content_pb2.ReadContentRequest, context: Context
    ) -> AsyncIterator[content_pb2.ReadContentResponse]:
        await _in_namespace(context)
        for byte in self.blobs[request.digest]:
            yield content_pb2.ReadContentResponse(data=bytes([byte]))

    async def Update(self, request: content_pb2.UpdateRequest, context: Context) -> content_pb2.UpdateResponse:
        await _in_namespace(context)
        for path in request.update_mask.paths:
            name = path.removeprefix("labels.")
            self.labels[name] = request.info.labels[name]
        return content_pb2.UpdateResponse()

    async def ListStatuses(
        self, request: content_pb2.ListStatusesRequest, context: Context
    ) -> content_pb2.ListStatusesResponse:
        await _in_namespace(context)
        found = [content_pb2.Status(ref=ref, offset=offset, total=9) for ref, offset in self.offsets.items()]
        return content_pb2.ListStatusesResponse(statuses=found)

    async def Write(
        self, request_iterator: AsyncIterator[content_pb2.WriteContentRequest], context: Context
    ) -> AsyncIterator[content_pb2.WriteContentResponse]:
        await _in_namespace(context)
        self.leased.append(dict(context.invocation_metadata() or ())["containerd-lease"])
        written = b""
        async for request in request_iterator:
            if request.expected in self.blobs:
                await context.abort(grpc.StatusCode.ALREADY_EXISTS, "content exists")
            assert request.offset == len(written)
            written += request.data
            digest = f"sha256:{hashlib.sha256(written).hexdigest()}"
            if request.action == content_pb2.COMMIT:
                assert request.total == len(written)
                if request.expected not in ("", digest):
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "unexpected commit digest")
                self.blobs[digest] = written
                yield content_pb2.WriteContentResponse(action=request.action, digest=digest)
            else:
                yield content_pb2.WriteContentResponse(action=request.action, offset=len(written))


@dataclass
class Held(leases_pb2_grpc.LeasesServicer):
    leases: dict[str, dict[str, str]] = field(default_factory=dict)
    resources: Sequence[leases_pb2.Resource] = ()

    async def Create(self, request: leases_pb2.CreateRequest, context: Context) -> leases_pb2.CreateResponse:
        await _in_namespace(context)
        if request.id in self.leases:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "lease exists")
        self.leases[request.id] = dict(request.labels)
        return leases_pb2.CreateResponse()

    async def Delete(self, request: leases_pb2.DeleteRequest, context: Context) -> leases_pb2.Empty:
        await _in_namespace(context)
        if self.leases.pop(request.id, None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "lease: not found")
        return leases_pb2.Empty()

    async def List(self, request: leases_pb2.ListRequest, context: Context) -> leases_pb2.ListResponse:
        await _in_namespace(context)
        (wanted,) = request.filters
        found = [id for id, labels in self.leases.items() if any(f'labels."{name}"' == wanted for name in labels)]
        return leases_pb2.ListResponse(leases=[leases_pb2.Lease(id=id) for id in found])

    async def ListResources(
        self, request: leases_pb2.ListResourcesRequest, context: Context
    ) -> leases_pb2.ListResourcesResponse:
        await _in_namespace(context)
        if request.id not in self.leases:
            await context.abort(grpc.StatusCode.NOT_FOUND, "lease: not found")
        return leases_pb2.ListResourcesResponse(resources=self.resources)


async def _in_namespace(context: Context) -> None:
    if dict(context.invocation_metadata() or ()).get("containerd-namespace") != "k8s.io":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "namespace is required")


@dataclass
class Runtime:
    content: Content
    held: Held
    store: ContentStore
    leases: Leases


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    content, held = Content(), Held()
    with tempfile.TemporaryDirectory() as folder:
        server = grpc.aio.server()
        content_pb2_grpc.add_ContentServicer_to_server(content, server)
        leases_pb2_grpc.add_LeasesServicer_to_server(held, server)
        endpoint = f"unix://{folder}/c.sock"
        server.add_insecure_port(endpoint)
        await server.start()
        async with RuntimeChannel(endpoint) as channel:
            yield Runtime(content, held, ContentStore(channel), Leases(channel))
        await server.stop(None)


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_blob_is_written_in_pieces_under_a_lease_and_read_back(runtime: Runtime) -> None:
    for expected in (DIGEST, DIGEST, ""):
        assert await runtime.store.write("ref", _pieces(*PIECES), 3, expected, "ours") == DIGEST
    assert runtime.content.leased == ["ours"] * 3
    assert await runtime.store.read(DIGEST, 3) == b"abc"
    info = await runtime.store.info(DIGEST)
    assert info is not None
    assert (info.size, info.created_at) == (3, 7.5)


async def test_a_blob_that_is_not_what_was_expected_is_refused(runtime: Runtime) -> None:
    with pytest.raises(Permanent, match="unexpected commit digest"):
        await runtime.store.write("ref", _pieces(b"abd"), 3, DIGEST, "ours")
    assert not runtime.content.blobs


async def test_an_empty_blob_is_one_too(runtime: Runtime) -> None:
    assert await runtime.store.write("ref", _pieces(), 0, "", "ours") == f"sha256:{hashlib.sha256().hexdigest()}"


async def test_what_is_not_there_or_too_large_is_not_read(runtime: Runtime) -> None:
    assert await runtime.store.info(DIGEST) is None
    with pytest.raises(NotFound):
        await runtime.store.read(DIGEST, 3)
    runtime.content.blobs[DIGEST] = b"abc"
    with pytest.raises(Permanent, match="3 bytes, more than 2"):
        await runtime.store.read(DIGEST, 2)


async def test_labels_are_added_and_writes_are_seen(runtime: Runtime) -> None:
    await runtime.store.label(DIGEST, {"containerd.io/gc.ref.content.l.0": "sha256:1"})
    assert runtime.content.labels == {"containerd.io/gc.ref.content.l.0": "sha256:1"}
    runtime.content.offsets = {"layer-sha256:1": 4}
    assert await runtime.store.ingests() == {"layer-sha256:1": Ingest(4, 9)}


async def test_a_lease_is_made_found_and_deleted_and_twice_is_fine(runtime: Runtime) -> None:
    for _ in range(2):
        await runtime.leases.create("ours", {"mine": "yes"})
    await runtime.leases.create("other", {})
    assert await runtime.leases.labelled("mine") == {"ours"}
    kinds = (("content", DIGEST), ("ingests", "layer-sha256:1"), ("snapshots/overlayfs", "key"))
    runtime.held.resources = [leases_pb2.Resource(type=kind, id=id) for kind, id in kinds]
    assert await runtime.leases.held("ours") == Leased((DIGEST,), ("layer-sha256:1",))
    for _ in range(2):
        await runtime.leases.delete("ours")
    with pytest.raises(NotFound):
        await runtime.leases.held("ours")
