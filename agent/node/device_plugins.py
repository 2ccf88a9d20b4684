"""Device plugins on this machine: the socket where they register, and the stream on which each tells of its devices.

In: calls of plugins on `kubelet.sock`, sockets in the registration folder (`agent.node.plugins`), and what plugins
stream. Out: plugins and their devices, told to `agent.pods.devices`. Sockets that an agent before this one left are
removed at the start: plugins see the new socket and register again. Nothing of the API is loaded before the first does.
"""

from __future__ import annotations

import asyncio
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from loguru import logger

from agent.config import Settings
from agent.errors import EdgeletError, Permanent
from agent.model.csi import DriverError, PluginInfo
from agent.pods.devices.devices import Devices

if TYPE_CHECKING:
    from agent.devices.client import PluginClient

FOLDER: Final = "device-plugins"
SOCKET: Final = "kubelet.sock"
DEVICE_TYPE: Final = "DevicePlugin"
VERSION: Final = "v1beta1"
RETRY_S: Final = 30.0
_SERVICE: Final = "v1beta1.Registration"
_SUN_PATH_BYTES: Final = 107
_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class DevicePlugins:
    """`run` is its one task; `connect` and `leave` are for plugins that register otherwise."""

    def __init__(self, settings: Settings, devices: Devices) -> None:
        folder = settings.device_plugin_dir or settings.root_dir / FOLDER
        self._folder = folder.absolute()
        self._devices = devices
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._devices.run(), name="record devices")
            await self._serve()

    async def _serve(self) -> None:
        said = ""
        while True:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(_SERVICE, {"Register": _raw(self._register)}),)
            )
            try:
                await asyncio.to_thread(prepare, self._folder)
                listen(server, self._folder / SOCKET)
                await server.start()
                await asyncio.Event().wait()
            except (OSError, RuntimeError) as error:
                # Pods without devices go on all the same.
                if str(error) != said:
                    logger.warning("device plugins can't register: {}", error)
                said = str(error)
            finally:
                await server.stop(None)
            await asyncio.sleep(RETRY_S)

    async def _register(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        from agent.cri._generated import deviceplugin_pb2 as pb

        asked = pb.RegisterRequest.FromString(request)
        try:
            if asked.version != VERSION:
                raise Permanent(
                    "",
                    f'requested API version "{asked.version}" is not supported by kubelet. Supported version is '
                    f'["{VERSION}"]',
                )
            if not is_extended_resource(asked.resource_name):
                raise Permanent("", f'the ResourceName "{asked.resource_name}" is invalid')
            await self.connect(asked.resource_name, str(self._folder / asked.endpoint.lstrip("/")))
        except EdgeletError as error:
            logger.warning("device plugin of {} is not registered: {}", asked.resource_name, error)
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return b""

    def validate(self, path: Path, info: PluginInfo) -> None:
        """Of a plugin that opened a socket in the registration folder. Raises Permanent with what it is told."""
        problem = ""
        if VERSION not in info.versions:
            problem = f"manager version, {VERSION}, is not among plugin supported versions [{' '.join(info.versions)}]"
        elif not is_extended_resource(info.name):
            problem = f'invalid name of device plugin socket: the ResourceName "{info.name}" is invalid'
        if problem:
            raise Permanent(
                "PluginValidation", f"RegisterPlugin error -- plugin validation failed with err: {problem} ({path})"
            )

    async def connect(self, resource: str, socket_path: str) -> None:
        """Ask the plugin who it is, and follow it from now on instead of one before it. Raises DriverError."""
        from agent.devices.client import PluginClient

        plugin = PluginClient(socket_path)
        try:
            options = await plugin.options()
        except DriverError as error:
            raise DriverError(f"failed to get device plugin options: {error}", final=error.final) from error
        if (before := self._streams.pop(resource, None)) is not None:
            before.cancel()
        self._devices.connected(resource, plugin, options)
        self._streams[resource] = self._tasks.create_task(self._follow(resource, plugin), name=f"devices {resource}")
        logger.info("device plugin of {} is registered", resource)

    def leave(self, resource: str) -> None:
        """The socket that it registered with is gone."""
        if (task := self._streams.get(resource)) is not None:
            task.cancel()

    async def _follow(self, resource: str, plugin: PluginClient) -> None:
        try:
            async for devices in plugin.watch():
                self._devices.told(resource, plugin, devices)
            logger.info("device plugin of {} has ended its list of devices", resource)
        except DriverError as error:
            logger.warning("device plugin of {} is gone: {}", resource, error)
        finally:
            self._devices.disconnected(resource, plugin)
            if self._streams.get(resource) is asyncio.current_task():
                del self._streams[resource]


def is_extended_resource(name: str) -> bool:
    """Whether a plugin may give a resource of that name: a domain that is not Kubernetes' own, and a name in it."""
    prefix, slash, short = name.partition("/")
    if not slash or "kubernetes.io/" in name or name.startswith("requests."):
        return False
    is_prefix = len("requests." + prefix) <= 253 and _PREFIX.fullmatch(prefix)  # quotas name it so
    return bool(is_prefix and len(short) <= 63 and _NAME.fullmatch(short))


def listen(server: grpc.aio.Server, socket: Path) -> None:
    """Raises OSError, or gRPC's RuntimeError."""
    if len(bytes(socket)) > _SUN_PATH_BYTES:
        raise OSError(f"{socket} is longer than a socket's path may be ({_SUN_PATH_BYTES} bytes)")
    server.add_insecure_port(f"unix:{socket}")


def prepare(folder: Path) -> None:
    """The folder, without sockets of before; nothing else in it is touched. Blocks. Raises OSError."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for path in folder.iterdir():
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        except FileNotFoundError:
            continue


def _raw(method: Any) -> Any:
    """A handler of bytes: the messages' classes are loaded by the first call."""
    return grpc.unary_unary_rpc_method_handler(method)
