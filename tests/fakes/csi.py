"""A CSI driver on real sockets: the calls of the upstream hostpath driver, its volumes folders, and a plain registrar.

With `mounts` a published volume is bound to its target, which needs root; without, the target is only made. What it was
asked is kept in `calls`.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio

from agent.cri._generated import csi_pb2 as pb
from agent.cri._generated import csi_pb2_grpc, registration_pb2, registration_pb2_grpc

Rpc = pb.NodeServiceCapability.RPC
Context = grpc.aio.ServicerContext[Any, Any]
EPHEMERAL = "csi.storage.k8s.io/ephemeral"
TOPOLOGY = "topology.hostpath.csi/node"


class FakeDriver(csi_pb2_grpc.NodeServicer, csi_pb2_grpc.IdentityServicer, registration_pb2_grpc.RegistrationServicer):
    def __init__(
        self,
        folder: Path,
        name: str = "hostpath.csi.k8s.io",
        node_id: str = "csi-node-1",
        *,
        mounts: bool = False,
        max_volumes: int = 0,
        can: tuple[Rpc.Type, ...] = (Rpc.STAGE_UNSTAGE_VOLUME,),
    ) -> None:
        """Its volumes lie in `folder`."""
        self.name, self.node_id, self.max_volumes, self.can = name, node_id, max_volumes, can
        self.folder = folder
        self.type = "CSIPlugin"
        self.versions = ["1.0.0"]
        self.endpoint = ""
        self.topology = {TOPOLOGY: node_id}
        self.calls: list[Any] = []
        """Every request of the node service that does something, in the order in which they came."""
        self.told: list[registration_pb2.RegistrationStatus] = []
        self.staged: set[tuple[str, str]] = set()
        self.published: dict[str, str] = {}
        """Target path → volume."""
        self.failures: dict[str, tuple[grpc.StatusCode, str]] = {}
        """Method → how it fails until the entry is taken away."""
        self._mounts = mounts

    def volume(self, volume_id: str) -> Path:
        """The volume's folder, made when it is first asked for, as a provisioner would."""
        path = self.folder / volume_id
        path.mkdir(parents=True, exist_ok=True)
        return path

    def said(self, kind: type[Any]) -> list[Any]:
        return [call for call in self.calls if isinstance(call, kind)]

    def end(self, target_path: str) -> None:
        """Unmount and remove it."""
        target = Path(target_path)
        if _is_mounted(target):
            _run("umount", target)
        if target.exists():
            target.rmdir()
        self.published.pop(target_path, None)

    # ------------------------------------------------------------ registration and identity

    async def GetInfo(self, request: Any, context: Context) -> registration_pb2.PluginInfo:
        return registration_pb2.PluginInfo(
            type=self.type, name=self.name, endpoint=self.endpoint, supported_versions=self.versions
        )

    async def NotifyRegistrationStatus(self, request: Any, context: Context) -> Any:
        self.told.append(request)
        return registration_pb2.RegistrationStatusResponse()

    async def GetPluginInfo(self, request: Any, context: Context) -> pb.GetPluginInfoResponse:
        return pb.GetPluginInfoResponse(name=self.name, vendor_version="1")

    async def Probe(self, request: Any, context: Context) -> pb.ProbeResponse:
        return pb.ProbeResponse()

    # ------------------------------------------------------------ the node service

    async def NodeGetInfo(self, request: Any, context: Context) -> pb.NodeGetInfoResponse:
        await self._maybe_fail("NodeGetInfo", context)
        return pb.NodeGetInfoResponse(
            node_id=self.node_id,
            max_volumes_per_node=self.max_volumes,
            accessible_topology=pb.Topology(segments=self.topology),
        )

    async def NodeGetCapabilities(self, request: Any, context: Context) -> pb.NodeGetCapabilitiesResponse:
        await self._maybe_fail("NodeGetCapabilities", context)
        return pb.NodeGetCapabilitiesResponse(
            capabilities=[pb.NodeServiceCapability(rpc=Rpc(type=kind)) for kind in self.can]
        )

    async def NodeStageVolume(self, request: pb.NodeStageVolumeRequest, context: Context) -> Any:
        self.calls.append(request)
        await self._maybe_fail("NodeStageVolume", context)
        if not request.volume_id or not request.staging_target_path or not request.HasField("volume_capability"):
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "an argument is missing")
        if not Path(request.staging_target_path).is_dir():
            await _refuse(context, grpc.StatusCode.INTERNAL, f"{request.staging_target_path} is not there")
        self.volume(request.volume_id)
        self.staged.add((request.volume_id, request.staging_target_path))
        return pb.NodeStageVolumeResponse()

    async def NodeUnstageVolume(self, request: pb.NodeUnstageVolumeRequest, context: Context) -> Any:
        self.calls.append(request)
        await self._maybe_fail("NodeUnstageVolume", context)
        if request.volume_id in self.published.values():
            await _refuse(context, grpc.StatusCode.INTERNAL, f"volume {request.volume_id} is still published")
        self.staged.discard((request.volume_id, request.staging_target_path))
        return pb.NodeUnstageVolumeResponse()

    async def NodePublishVolume(self, request: pb.NodePublishVolumeRequest, context: Context) -> Any:
        self.calls.append(request)
        await self._maybe_fail("NodePublishVolume", context)
        if not request.volume_id or not request.target_path or not request.HasField("volume_capability"):
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "an argument is missing")
        ephemeral = request.volume_context.get(EPHEMERAL) == "true"
        stages = Rpc.STAGE_UNSTAGE_VOLUME in self.can and not ephemeral
        if stages and (request.volume_id, request.staging_target_path) not in self.staged:
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"volume {request.volume_id} is not staged")
        target = Path(request.target_path)
        target.mkdir(mode=0o750, exist_ok=True)  # its parent is the caller's to make
        if self._mounts and request.target_path not in self.published and not _is_mounted(target):
            _run("mount", "--bind", self.volume(request.volume_id), target)
            if request.readonly:
                _run("mount", "-o", "remount,bind,ro", target)
        self.published[request.target_path] = request.volume_id
        return pb.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(self, request: pb.NodeUnpublishVolumeRequest, context: Context) -> Any:
        self.calls.append(request)
        await self._maybe_fail("NodeUnpublishVolume", context)
        self.end(request.target_path)
        if request.volume_id.startswith("csi-"):
            shutil.rmtree(self.folder / request.volume_id, ignore_errors=True)  # an inline volume ends with its pod
        return pb.NodeUnpublishVolumeResponse()

    async def _maybe_fail(self, method: str, context: Context) -> None:
        if (failure := self.failures.get(method)) is not None:
            await _refuse(context, *failure)


def _is_mounted(path: Path) -> bool:
    """Also where it shows the file system that its parent is on."""
    return any(line.split(" ")[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=60)


async def _refuse(context: Context, code: grpc.StatusCode, details: str) -> NoReturn:
    await context.abort(code, details)
    raise AssertionError("abort raises")


@asynccontextmanager
async def driving(driver: FakeDriver, registry: Path, file: str = "") -> AsyncIterator[Path]:
    """Serve it: everything on one socket in the registration folder, whose path is given; gone at the end."""
    socket = registry / (file or f"{driver.name}-reg.sock")
    server = grpc.aio.server()
    registration_pb2_grpc.add_RegistrationServicer_to_server(driver, server)
    csi_pb2_grpc.add_IdentityServicer_to_server(driver, server)
    csi_pb2_grpc.add_NodeServicer_to_server(driver, server)
    server.add_insecure_port(f"unix://{socket}")
    await server.start()
    try:
        yield socket
    finally:
        await server.stop(None)
        socket.unlink(missing_ok=True)


@contextmanager
def driving_aside(driver: FakeDriver, registry: Path) -> Iterator[None]:
    """The same in a thread of its own, for tests without an event loop."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with driving(driver, registry):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="csi driver", daemon=True)
    thread.start()
    assert started.wait(60), "the driver did not start"
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()
