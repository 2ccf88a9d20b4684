"""Blobs and names given to containerd's own services, on the wire."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.cri._generated import content_pb2, content_pb2_grpc, images_pb2, images_pb2_grpc
from agent.cri.channel import RuntimeChannel
from agent.cri.image_import import Blob, ImageImport
from agent.errors import Permanent, Retryable

BLOB = Blob("application/json", b"{}", {"keep": "me"})
Context = grpc.aio.ServicerContext[Any, Any]


class Store(content_pb2_grpc.ContentServicer, images_pb2_grpc.ImagesServicer):
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, str] = {}
        self.images: dict[str, images_pb2.Image] = {}
        self.updates: list[list[str]] = []

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


async def _in_namespace(context: Context) -> None:
    if dict(context.invocation_metadata() or ()).get("containerd-namespace") != "k8s.io":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "namespace is required")


@pytest.fixture
async def store() -> AsyncIterator[tuple[Store, ImageImport]]:
    served = Store()
    with tempfile.TemporaryDirectory() as folder:
        server = grpc.aio.server()
        content_pb2_grpc.add_ContentServicer_to_server(served, server)
        images_pb2_grpc.add_ImagesServicer_to_server(served, server)
        endpoint = f"unix://{folder}/c.sock"
        server.add_insecure_port(endpoint)
        await server.start()
        async with RuntimeChannel(endpoint) as channel:
            yield served, ImageImport(channel)
        await server.stop(None)


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
    image = served.images["edgelet.io/host:latest"]
    assert (image.target.digest, image.target.size, image.target.media_type) == (BLOB.digest, 2, "application/json")
    assert served.updates == [["target"]]


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
            await server.stop(None)
            with pytest.raises(Retryable):
                await ImageImport(channel).name("x", BLOB, {})
