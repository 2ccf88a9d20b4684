"""Blobs and names given to containerd's own services, on the wire."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from agent.cri._generated import content_pb2, content_pb2_grpc, images_pb2, images_pb2_grpc
from agent.cri.arrivals import Arrivals
from agent.cri.channel import RuntimeChannel
from agent.cri.image_import import Blob, ImageImport
from agent.errors import Permanent, Retryable

BLOB = Blob("application/json", b"{}", {"keep": "me"})
GONE = "800"
Context = grpc.aio.ServicerContext[Any, Any]


class Store(content_pb2_grpc.ContentServicer):
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, str] = {}
        self.names = Names()
        self.arrived: dict[str, list[int]] = {}
        """When blobs came, in Unix seconds, by the filter that finds them."""
        self.lists_little = False
        """As containerd 1.6, whose lists lack times."""

    async def Write(
        self, request_iterator: AsyncIterator[content_pb2.WriteContentRequest], context: Context
    ) -> AsyncIterator[content_pb2.WriteContentResponse]:
        await _in_namespace(context)
        async for request in request_iterator:
            assert request.action == content_pb2.COMMIT
            assert request.ref
            if request.expected in self.blobs:
                await context.abort(grpc.StatusCode.ALREADY_EXISTS, "content exists")
            self.blobs[request.expected] = request.data
            self.labels.update(request.labels)
            yield content_pb2.WriteContentResponse(action=content_pb2.COMMIT, digest=request.expected)

    async def List(
        self, request: content_pb2.ListContentRequest, context: Context
    ) -> AsyncIterator[content_pb2.ListContentResponse]:
        await _in_namespace(context)
        for name in request.filters:
            found = [_info(at) for at in self.arrived.get(name, ())]
            yield content_pb2.ListContentResponse(
                info=[content_pb2.Info(digest=info.digest) if self.lists_little else info for info in found]
            )

    async def Info(self, request: content_pb2.InfoRequest, context: Context) -> content_pb2.InfoResponse:
        await _in_namespace(context)
        if request.digest == GONE:
            await context.abort(grpc.StatusCode.NOT_FOUND, "content digest: not found")
        return content_pb2.InfoResponse(info=_info(int(request.digest)))


class Names(images_pb2_grpc.ImagesServicer):
    def __init__(self) -> None:
        self.images: dict[str, images_pb2.Image] = {}
        self.updates: list[list[str]] = []

    async def Get(self, request: images_pb2.GetImageRequest, context: Context) -> images_pb2.GetImageResponse:
        await _in_namespace(context)
        if request.name not in self.images:
            await context.abort(grpc.StatusCode.NOT_FOUND, "image: not found")
        return images_pb2.GetImageResponse(image=self.images[request.name])

    async def Create(self, request: images_pb2.CreateImageRequest, context: Context) -> images_pb2.CreateImageResponse:
        await _in_namespace(context)
        if request.image.name in self.images:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "image exists")
        self.images[request.image.name] = request.image
        return images_pb2.CreateImageResponse(image=request.image)

    async def Update(self, request: images_pb2.UpdateImageRequest, context: Context) -> images_pb2.UpdateImageResponse:
        await _in_namespace(context)
        self.images[request.image.name] = request.image
        self.updates.append(list(request.update_mask.paths))
        return images_pb2.UpdateImageResponse(image=request.image)


def _info(at: int) -> content_pb2.Info:
    return content_pb2.Info(digest=str(at), created_at=Timestamp(seconds=1), updated_at=Timestamp(seconds=at))


async def _in_namespace(context: Context) -> None:
    if dict(context.invocation_metadata() or ()).get("containerd-namespace") != "k8s.io":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "namespace is required")


@pytest.fixture
async def served() -> AsyncIterator[tuple[Store, RuntimeChannel]]:
    served = Store()
    with tempfile.TemporaryDirectory() as folder:
        server = grpc.aio.server()
        content_pb2_grpc.add_ContentServicer_to_server(served, server)
        images_pb2_grpc.add_ImagesServicer_to_server(served.names, server)
        endpoint = f"unix://{folder}/c.sock"
        server.add_insecure_port(endpoint)
        await server.start()
        async with RuntimeChannel(endpoint) as channel:
            yield served, channel
        await server.stop(None)


@pytest.fixture
def store(served: tuple[Store, RuntimeChannel]) -> tuple[Store, ImageImport]:
    return served[0], ImageImport(served[1])


async def test_a_blob_arrives_whole_under_its_digest_and_twice_is_fine(store: tuple[Store, ImageImport]) -> None:
    served, importer = store
    await importer.write(BLOB)
    await importer.write(BLOB)
    assert served.blobs == {BLOB.digest: b"{}"}
    assert served.labels == {"keep": "me"}
    assert BLOB.digest == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


async def test_a_name_that_is_taken_is_told_anew(store: tuple[Store, ImageImport]) -> None:
    served, importer = store
    for _ in range(2):
        await importer.name("edgelet.io/host:latest", BLOB, {"pinned": "yes"})
    image = served.names.images["edgelet.io/host:latest"]
    assert (image.target.digest, image.target.size, image.target.media_type) == (BLOB.digest, 2, "application/json")
    assert served.names.updates == [["target"]]


async def test_an_image_gets_and_loses_a_label_and_is_written_only_where_it_must_be(
    store: tuple[Store, ImageImport],
) -> None:
    served, importer = store
    assert not await importer.label("r.example/app:1", {"kept": "yes"})
    await importer.name("r.example/app:1", BLOB, {"other": "stays"})
    assert await importer.label("r.example/app:1", {"kept": "yes"})
    assert served.names.updates == [["labels.kept"]]
    assert served.names.images["r.example/app:1"].target.digest == BLOB.digest
    assert await importer.label("r.example/app:1", {"kept": "yes"})
    assert await importer.label("r.example/app:1", {"never": ""})
    assert served.names.updates == [["labels.kept"]]


@pytest.mark.parametrize("lists_little", [False, True])
async def test_what_came_from_a_registry_lately_is_seen(
    served: tuple[Store, RuntimeChannel], lists_little: bool
) -> None:
    store, channel = served
    store.lists_little = lists_little
    for host in ("r.example", "::1"):
        store.arrived[f'labels."containerd.io/distribution.source.{host}"'] = [800, 900, 990]
    arrivals = Arrivals(channel, lambda: 1000.0)
    for registry in ("r.example", "r.example:5000", "[::1]", "[::1]:5000"):
        assert await arrivals.within(15, registry)
        assert not await arrivals.within(5, registry)
    assert not await arrivals.within(15, "other.example")


async def test_a_runtime_without_these_services_is_told_by_name() -> None:
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"unix://{folder}/c.sock"
        server = grpc.aio.server()
        server.add_insecure_port(endpoint)
        await server.start()
        async with RuntimeChannel(endpoint) as channel:
            with pytest.raises(Permanent, match=r"Content\.Write") as refused:
                await ImageImport(channel).write(BLOB)
            assert refused.value.reason == "Unimplemented"
            with pytest.raises(Permanent, match=r"Content\.List"):
                await Arrivals(channel).within(15, "r.example")
            await server.stop(None)
            with pytest.raises(Retryable):
                await ImageImport(channel).name("x", BLOB, {})
