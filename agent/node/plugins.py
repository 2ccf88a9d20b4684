"""Plugins on this machine: whoever opens a socket in the registration folder is asked, told of and known here.

In: the folder `plugins_registry` below the root folder, and the Node once it is registered. Out: the CSI drivers by
name for the pods' volumes, the CSINode object, device plugins handed on, and an answer to each. A plugin whose socket
goes is forgotten; one that comes again is asked again, and so is every one after a restart of the agent. Nothing of
gRPC's stubs is loaded before the first socket appears.
"""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Permanent
from agent.model.csi import CSI_PLUGIN, DriverError, PluginInfo
from agent.node.csi_node import CsiNode
from agent.node.device_plugins import DEVICE_TYPE, DevicePlugins
from agent.pods.folder_watch import FolderWatch

if TYPE_CHECKING:
    from agent.csi.client import DriverClient

FOLDER: Final = "plugins_registry"
LOOK_EVERY_S: Final = 10.0
"""Where inotify can't be had."""
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 60.0
CSI_TYPE: Final = "CSIPlugin"
_NOT_YET: Final = {
    DEVICE_TYPE: "device plugins are not supported by this node's provider",
    "DRAPlugin": "dynamic resource allocation is not supported by this node",
}
_VERSION: Final = re.compile(r"v?(\d+)(\.\d+)*")


class _Seen(msgspec.Struct):
    """One socket: another file at the same path is another plugin."""

    identity: tuple[int, int]
    task: asyncio.Task[None]
    driver: str = ""
    """The driver that it registered; empty: none (yet)."""
    resource: str = ""
    """What it gives, where it is a device plugin."""


class Plugins:
    """`run` is its one task; the other methods may be called from anywhere on the loop."""

    def __init__(self, root_dir: Path, csi_node: CsiNode, devices: DevicePlugins | None = None) -> None:
        self._folder = root_dir / FOLDER
        self._csi_node = csi_node
        self._devices = devices
        self._seen: dict[Path, _Seen] = {}
        self._drivers: dict[str, DriverClient] = {}
        self._listeners: list[Callable[[], None]] = []
        self._telling = asyncio.Lock()
        """The CSINode and the Node are changed by one at a time."""
        self._node_there = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    def find(self, driver: str) -> DriverClient | None:
        """The driver of that name; None: none is registered."""
        return self._drivers.get(driver)

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a driver came."""
        self._listeners.append(changed)

    def node_registered(self) -> None:
        """The API server has the Node, or has it anew: its CSINode went with the one before."""
        self._node_there.set()
        for seen in self._seen.values():
            if seen.driver:
                seen.task = self._tasks.create_task(self._tell_again(seen.driver), name=f"CSINode of {seen.driver}")

    async def run(self) -> None:
        """Until cancelled."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                try:
                    with FolderWatch(self._folder, LOOK_EVERY_S) as watch:
                        await self._follow(watch)
                except (FileNotFoundError, NotADirectoryError):
                    logger.warning("{} was taken away: making it again", self._folder)
                    await asyncio.sleep(FIRST_RETRY_S)
                    self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)

    async def _follow(self, watch: FolderWatch) -> None:
        while True:
            await self._look()
            # Whatever it was, the folder is read as a whole: there are a few names in it.
            await watch.changes(None)
            if not self._folder.is_dir():
                await self._look()
                raise FileNotFoundError(self._folder)

    async def _look(self) -> None:
        found = await asyncio.to_thread(_sockets, self._folder)
        for path, seen in list(self._seen.items()):
            if found.get(path) != seen.identity:
                del self._seen[path]
                seen.task.cancel()
                await self._forget(path, seen)
        for path, identity in found.items():
            if path not in self._seen:
                task = self._tasks.create_task(self._register(path), name=f"plugin {path.name}")
                self._seen[path] = _Seen(identity, task)

    async def _register(self, path: Path) -> None:
        """Until it is registered or its socket is gone."""
        wait_s, said = FIRST_RETRY_S, ""
        while True:
            try:
                await self._try(path)
            except EdgeletError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("plugin {} is not registered: {}", path.name, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LAST_RETRY_S)
            else:
                return

    async def _try(self, path: Path) -> None:
        from agent.csi import registrar
        from agent.csi.client import DriverClient

        info = await registrar.get_info(str(path))
        try:
            if info.type == DEVICE_TYPE and self._devices is not None:
                self._devices.validate(path, info)
                await self._take_devices(path, info, self._devices)
                return
            self._check(path, info)
        except Permanent as refusal:
            await registrar.notify(str(path), str(refusal))
            raise
        client = DriverClient(info.name, info.endpoint or str(path))
        try:
            node = await client.node_info()
            # Pods of the record must not wait for an API server.
            self._know(path, client)
            await self._node_there.wait()
            async with self._telling:
                await self._csi_node.install(info.name, node)
        except (DriverError, Permanent) as error:
            self._drivers.pop(info.name, None)
            self._seen[path].driver = ""
            await registrar.notify(str(path), f"RegisterPlugin error -- plugin registration failed with err: {error}")
            raise
        await registrar.notify(str(path))
        logger.info("CSI driver {} is registered, node id {}", info.name, node.node_id)

    async def _take_devices(self, path: Path, info: PluginInfo, devices: DevicePlugins) -> None:
        from agent.csi import registrar

        try:
            await devices.connect(info.name, info.endpoint or str(path))
        except DriverError as error:
            await registrar.notify(str(path), f"RegisterPlugin error -- plugin registration failed with err: {error}")
            raise
        self._seen[path].resource = info.name
        await registrar.notify(str(path))

    def _know(self, path: Path, client: DriverClient) -> None:
        new = client.name not in self._drivers
        self._seen[path].driver = client.name
        self._drivers[client.name] = client
        if new:
            for changed in self._listeners:
                changed()

    def _check(self, path: Path, info: PluginInfo) -> None:
        """Raises Permanent with what the plugin is told."""
        if info.type != CSI_TYPE:
            why = f": {_NOT_YET[info.type]}" if info.type in _NOT_YET else ""
            raise Permanent(
                "PluginType",
                f"RegisterPlugin error -- no handler registered for plugin type: {info.type} at socket {path}{why}",
            )
        problem = ""
        if not any((found := _VERSION.fullmatch(version)) and found[1] == "1" for version in info.versions):
            problem = f"None of the versions specified {list(info.versions)} are supported"
        elif not info.name or "/" in info.name or info.name in (".", ".."):
            problem = "it is no name of a driver"
        elif any(seen.driver == info.name for other, seen in self._seen.items() if other != path):
            problem = "Another driver with the same name is already registered"
        if problem:
            raise Permanent(
                "PluginValidation",
                f"RegisterPlugin error -- plugin validation failed with err: validation failed for CSI Driver "
                f"{info.name} at endpoint {info.endpoint or path}: {CSI_PLUGIN}: ValidatePlugin for CSI driver "
                f'"{info.name}" failed. {problem}',
            )

    async def _forget(self, path: Path, seen: _Seen) -> None:
        if seen.resource and self._devices is not None:
            self._devices.leave(seen.resource)
        if not seen.driver:
            return
        del self._drivers[seen.driver]
        logger.info("CSI driver {} is gone with its socket {}", seen.driver, path.name)
        try:
            async with self._telling:
                await self._csi_node.uninstall(seen.driver)
        except EdgeletError as error:
            # It comes back in nearly every case: a plugin that is replaced. The next one corrects the entry.
            logger.warning("the CSINode still names driver {}: {}", seen.driver, error)

    async def _tell_again(self, driver: str) -> None:
        wait_s = FIRST_RETRY_S
        while (client := self._drivers.get(driver)) is not None:
            try:
                node = await client.node_info()
                async with self._telling:
                    await self._csi_node.install(driver, node)
            except EdgeletError as error:
                logger.warning("the CSINode does not name driver {} yet: {}", driver, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LAST_RETRY_S)
            else:
                return


def _sockets(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every socket in the folder with what tells it from a later one of the same name."""
    found: dict[Path, tuple[int, int]] = {}
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return {}
    for path in entries:
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISSOCK(seen.st_mode) and not path.name.startswith("."):
            found[path] = (seen.st_ino, seen.st_ctime_ns)
    return found
