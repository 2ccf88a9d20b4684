"""Have CSI drivers bring volumes to pods and take them away: attach, stage, publish, and all of it back.

In: steps of a mount plan, and the UID of a pod that has ended. Out: a volume mounted where the step says, or an error
in the kubelet's words. What must be undone is read from `vol_data.json` beside each mount, the kubelet's own file, so
an agent that was started anew, or one that takes over from a kubelet, finds it. Nothing is published without that file.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Forbidden, NotFound, Retryable
from agent.model.csi import CSI_PLUGIN, Capability, DriverError, MountCapability, PublishVolume, StageVolume
from agent.model.objects import ObjectKey
from agent.model.pod import Pod
from agent.model.status import timestamp
from agent.model.storage import VolumeAttachment
from agent.pods.ports import Attachments, Driver, Drivers, Objects, Tokens
from agent.pods.volumes import csi_disk
from agent.pods.volumes.csi_disk import Published, Staged
from agent.pods.volumes.csi_plan import attachment_name, unique_name
from agent.pods.volumes.mounts import Mounts
from agent.pods.volumes.ownership import own
from agent.pods.volumes.steps import PublishCsi

ATTACH_TIMEOUT_S: Final = 120.0
DEFAULT_TOKEN_S: Final = 3600
REPUBLISH_S: Final = 60.0
"""How often a driver that asks for it is told of a mounted volume again."""


class CsiVolumes:
    """The CSI volumes of this node's pods. Calls for one pod must not overlap; pods are independent."""

    def __init__(
        self,
        root: Path,
        node_name: str,
        drivers: Drivers,
        attached: Attachments,
        objects: Objects,
        tokens: Tokens,
        mounts: Mounts,
    ) -> None:
        """`root` is free of links."""
        self._root = root
        self._node = node_name
        self._drivers = drivers
        self._attached = attached
        self._objects = objects
        self._tokens = tokens
        self._mounts = mounts
        self.used = False
        """There was or is such a volume on this machine since the start; else no pod has anything to take away."""
        self._claimed: dict[str, set[tuple[str, str]]] = defaultdict(set)
        """By pod the volumes that outlive it: its end waits until they are off this machine, or only others' matter."""
        self._locks: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        """By driver and volume: it is staged and unstaged by one at a time."""

    async def recall(self) -> None:
        """Say what an earlier agent left in use."""
        try:
            published, staged = await asyncio.to_thread(self._on_disk)
        except Retryable as error:
            # Nothing is said of volumes in use then: what the Node says of them holds on.
            logger.error("{}", error)
            self.used = True
            return
        self.used = self.used or bool(published or staged)
        found = {(one.driver, one.handle) for one in published if one.persistent}
        found |= {(one.driver, one.handle) for one in staged}
        for driver, handle in found:
            self._keep_attachment(driver, handle)
        self._attached.found(unique_name(*one) for one in found)

    async def set_up(self, pod: Pod, step: PublishCsi) -> None:
        """Raises Retryable. A volume that is mounted already stays as it is."""
        self.used = True
        if step.persistent:
            self._claimed[pod.uid].add((step.driver, step.handle))
        if await asyncio.to_thread(self._is_published, step):
            return
        if step.persistent:
            async with self._locks[step.driver, step.handle]:
                await self._publish(pod, step, *await self._stage(step))
        else:
            await self._publish(pod, step, *await self._stage(step))

    async def republish(self, pod: Pod, step: PublishCsi) -> None:
        """Tell the driver of a volume that is mounted once more, with fresh tokens. Raises Retryable."""
        driver = self._driver(step.driver, _set_up_failed(step, "mounter.SetUpAt failed to get CSI client"))
        context = await self._publish_context(step) if step.attach else {}
        capabilities = await _capabilities(driver, step)
        try:
            await driver.publish(await self._request(pod, step, capabilities, context), capabilities)
        except DriverError as error:
            raise Retryable(_set_up_failed(step, str(error), plain=True)) from error

    async def tear_down(self, uid: str) -> None:
        """Take away whatever drivers brought for this pod, and what no other pod needs. Raises Retryable."""
        for volume in await asyncio.to_thread(lambda: list(csi_disk.published(self._root, uid))):
            if volume.persistent:
                self._claimed[uid].add((volume.driver, volume.handle))
            await self._unpublish(volume)
        claimed = self._claimed.get(uid, set())
        unstaged = await self._unstage_unused(claimed)
        self._claimed.pop(uid, None)
        if gone := claimed | unstaged:
            published, staged = await asyncio.to_thread(self._on_disk)
            here = {(one.driver, one.handle) for one in published} | {(one.driver, one.handle) for one in staged}
            for key in gone - here:
                if not any(key in others for others in self._claimed.values()):
                    self._let_go(*key)

    # ------------------------------------------------------------ there

    async def _stage(self, step: PublishCsi) -> tuple[Driver, frozenset[Capability], Mapping[str, str]]:
        """Attached and, where the driver does that, staged. The driver, what it can, and what its attacher said."""
        if step.staging is None:
            driver = self._driver(step.driver, _set_up_failed(step, "mounter.SetUpAt failed to get CSI client"))
            return driver, await _capabilities(driver, step), {}
        context: Mapping[str, str] = {}
        if step.attach:
            context = await self._attach(step)
        driver = self._driver(
            step.driver, _mount_device_failed(step, "attacher.MountDevice failed to create newCsiDriverClient")
        )
        capabilities = await _capabilities(driver, step)
        staged = Staged(step.driver, step.handle, step.staging)
        new = False
        try:
            new = await asyncio.to_thread(csi_disk.write_staged, staged)
            if Capability.STAGE_UNSTAGE_VOLUME not in capabilities:
                return driver, capabilities, context
            await driver.stage(
                StageVolume(
                    volume_id=step.handle,
                    staging_path=str(step.staging),
                    capability=_capability(step, capabilities),
                    publish_context=context,
                    volume_context=step.attributes,
                    secrets=step.stage_secrets,
                ),
                capabilities,
            )
        except DriverError as error:
            if error.final and new:
                await asyncio.to_thread(csi_disk.remove_mount, staged.path, self._mounts)
            raise Retryable(_mount_device_failed(step, str(error), plain=True)) from error
        except OSError as error:
            raise Retryable(_mount_device_failed(step, str(error))) from error
        return driver, capabilities, context

    async def _attach(self, step: PublishCsi) -> Mapping[str, str]:
        unique = unique_name(step.driver, step.handle)
        self._attached.use(unique)
        try:
            await self._attached.attached(unique, ATTACH_TIMEOUT_S)
        except Retryable as error:
            raise Retryable(f'{error} for volume "{step.spec_name}" (UniqueName: "{unique}")') from error
        return await self._publish_context(step)

    async def _publish_context(self, step: PublishCsi) -> Mapping[str, str]:
        """What the attacher wrote; the VolumeAttachment is kept in the record as long as the volume is here."""
        key = self._keep_attachment(step.driver, step.handle)
        name = key.name
        where = f"volume {step.handle}"
        try:
            found = msgspec.json.decode(await self._objects.get(key), type=VolumeAttachment)
        except (NotFound, Forbidden, msgspec.DecodeError) as error:
            said = f"{where} has GET error for volume attachment {name}: {error}"
            raise Retryable(f'MountVolume.WaitForAttach failed for volume "{step.spec_name}" : {said}') from error
        if not found.status.attached:
            said = f"{where} is not attached for volume attachment {name}"
            if found.status.attachError is not None:
                said = found.status.attachError.message
            raise Retryable(f'MountVolume.WaitForAttach failed for volume "{step.spec_name}" : {said}')
        return found.status.attachmentMetadata

    async def _publish(
        self,
        pod: Pod,
        step: PublishCsi,
        driver: Driver,
        capabilities: frozenset[Capability],
        context: Mapping[str, str],
    ) -> None:
        volume = Published(step.spec_name, step.driver, step.handle, step.persistent, step.path)
        request = await self._request(pod, step, capabilities, context)
        new = False
        try:
            new = await asyncio.to_thread(
                csi_disk.write_published, volume, self._node, attachment_name(step.handle, step.driver, self._node)
            )
            await driver.publish(request, capabilities)
            if step.ownership is not None and Capability.VOLUME_MOUNT_GROUP not in capabilities:
                await asyncio.to_thread(own, step.path, step.ownership)
        except DriverError as error:
            if error.final and new:
                await asyncio.to_thread(csi_disk.remove_mount, volume.path, self._mounts)
            raise Retryable(_set_up_failed(step, str(error), plain=True)) from error
        except OSError as error:
            raise Retryable(
                _set_up_failed(step, f"applyFSGroup failed for vol {step.handle}: {error}", plain=True)
            ) from error

    async def _request(
        self, pod: Pod, step: PublishCsi, capabilities: frozenset[Capability], context: Mapping[str, str]
    ) -> PublishVolume:
        tokens = await self._pod_tokens(pod, step)
        stages = step.staging is not None and Capability.STAGE_UNSTAGE_VOLUME in capabilities
        return PublishVolume(
            volume_id=step.handle,
            target_path=str(step.path),
            capability=_capability(step, capabilities),
            read_only=step.read_only,
            staging_path=str(step.staging) if stages else "",
            publish_context=context,
            volume_context={**step.attributes, **step.pod_info, **({} if step.tokens_in_secrets else tokens)},
            secrets={**step.publish_secrets, **(tokens if step.tokens_in_secrets else {})},
        )

    async def _pod_tokens(self, pod: Pod, step: PublishCsi) -> Mapping[str, str]:
        if not step.tokens:
            return {}
        found: dict[str, dict[str, str]] = {}
        try:
            for wanted in step.tokens:
                token = await self._tokens.token(pod, wanted.audience, wanted.expirationSeconds or DEFAULT_TOKEN_S)
                found[wanted.audience] = {"token": token.token, "expirationTimestamp": timestamp(token.expires_at)}
        except EdgeletError as error:
            said = f"mounter.SetUpAt failed to get service account token attributes: {error}"
            raise Retryable(_set_up_failed(step, said)) from error
        return {"csi.storage.k8s.io/serviceAccount.tokens": msgspec.json.encode(found).decode()}

    # ------------------------------------------------------------ and back

    async def _unpublish(self, volume: Published) -> None:
        failed = (
            f'UnmountVolume.TearDown failed for volume "{volume.spec_name}" : {CSI_PLUGIN}: Unmounter.TearDownAt failed'
        )
        driver = self._driver(volume.driver, f"{failed} to get CSI client")
        try:
            await driver.unpublish(volume.handle, str(volume.path))
            await asyncio.to_thread(csi_disk.remove_mount, volume.path, self._mounts)
        except DriverError as error:
            raise Retryable(f"{failed}: {error}") from error
        except OSError as error:
            raise Retryable(f"{failed} to clean mount dir [{volume.path}]: {error}") from error

    async def _unstage_unused(self, own: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Also what an agent left that ended in the midst of this. Raises Retryable for one of the pod's `own`."""
        done: set[tuple[str, str]] = set()
        for staged in await asyncio.to_thread(lambda: list(csi_disk.staged(self._root))):
            key = (staged.driver, staged.handle)
            if self._locks[key].locked():
                continue  # another pod's volume just now; when that pod ends it comes by here itself
            try:
                async with self._locks[key]:
                    if not await asyncio.to_thread(self._is_used, staged):
                        await self._unstage(staged)
                        done.add(key)
            except Retryable as error:
                if key in own:
                    raise
                logger.warning("{}", error)
        return done

    async def _unstage(self, staged: Staged) -> None:
        failed = f'UnmountDevice failed for volume "{staged.handle}" : {CSI_PLUGIN}: attacher.UnmountDevice failed'
        driver = self._driver(staged.driver, f"{failed} to create newCsiDriverClient")
        try:
            if Capability.STAGE_UNSTAGE_VOLUME in await driver.capabilities():
                await driver.unstage(staged.handle, str(staged.path))
            await asyncio.to_thread(csi_disk.remove_mount, staged.path, self._mounts)
        except (DriverError, OSError) as error:
            raise Retryable(f"{failed}: {error}") from error

    def _keep_attachment(self, driver: str, handle: str) -> ObjectKey:
        """In the record, for as long as the volume is here."""
        key = ObjectKey("volumeattachments", "", attachment_name(handle, driver, self._node))
        self._objects.retain(_holder(driver, handle), [key])
        return key

    def _let_go(self, driver: str, handle: str) -> None:
        """Nothing of it is left here, and nobody waits for it."""
        self._attached.release(unique_name(driver, handle))
        self._objects.release(_holder(driver, handle))

    # ------------------------------------------------------------ the disk, in a thread

    def _on_disk(self) -> tuple[list[Published], list[Staged]]:
        return list(csi_disk.all_published(self._root)), list(csi_disk.staged(self._root))

    def _is_published(self, step: PublishCsi) -> bool:
        return csi_disk.has_data(step.path.parent) and step.path in self._mounts.at_or_below(step.path)

    def _is_used(self, staged: Staged) -> bool:
        used = csi_disk.all_published(self._root)
        return any((one.driver, one.handle) == (staged.driver, staged.handle) for one in used)

    def _driver(self, name: str, failed: str) -> Driver:
        if (driver := self._drivers.find(name)) is None:
            raise Retryable(f"{failed}: driver name {name} not found in the list of registered CSI drivers")
        return driver


async def _capabilities(driver: Driver, step: PublishCsi) -> frozenset[Capability]:
    try:
        return await driver.capabilities()
    except DriverError as error:
        said = f"mounter.SetUpAt failed to check for STAGE_UNSTAGE_VOLUME capability: {error}"
        raise Retryable(_set_up_failed(step, said)) from error


def _capability(step: PublishCsi, capabilities: frozenset[Capability]) -> MountCapability:
    group = step.group if Capability.VOLUME_MOUNT_GROUP in capabilities else None
    return MountCapability(step.access_mode, step.fs_type, step.mount_flags, group)


def _set_up_failed(step: PublishCsi, why: str, *, plain: bool = False) -> str:
    return f'MountVolume.SetUp failed for volume "{step.spec_name}" : {why if plain else f"{CSI_PLUGIN}: {why}"}'


def _mount_device_failed(step: PublishCsi, why: str, *, plain: bool = False) -> str:
    return f'MountVolume.MountDevice failed for volume "{step.spec_name}" : {why if plain else f"{CSI_PLUGIN}: {why}"}'


def _holder(driver: str, handle: str) -> str:
    """Who keeps a VolumeAttachment in the record, in a pod UID's place: it outlives each of its pods."""
    return f"csi {driver} {handle}"
