"""The image client."""

from __future__ import annotations

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.errors import NotFound
from tests.unit.cri.conftest import Rig, sandbox_config

BUSYBOX = pb.ImageSpec(image="busybox")


async def test_an_image_that_the_node_lacks_is_none_not_an_error(rig: Rig) -> None:
    assert await rig.images.image_status(BUSYBOX) is None


async def test_a_pulled_image_is_there_by_its_id_and_its_name(rig: Rig) -> None:
    image_id = await rig.images.pull_image(BUSYBOX)
    by_name, by_id = await rig.images.image_status(BUSYBOX), await rig.images.image_status(pb.ImageSpec(image=image_id))
    assert by_name is not None
    assert by_name == by_id
    assert [image.id for image in await rig.images.list_images()] == [image_id]


async def test_credentials_and_the_sandbox_reach_the_puller(rig: Rig) -> None:
    auth = pb.AuthConfig(username="me", password="secret")
    await rig.images.pull_image(BUSYBOX, auth, sandbox_config())
    [request] = rig.fake.called("PullImage")
    assert request.auth == auth
    assert request.sandbox_config == sandbox_config()


async def test_an_image_that_nobody_has_is_not_found(rig: Rig) -> None:
    rig.fake.registry = {"alpine"}
    with pytest.raises(NotFound, match="busybox"):
        await rig.images.pull_image(BUSYBOX)


async def test_a_removed_image_is_gone_and_may_be_removed_again(rig: Rig) -> None:
    await rig.images.pull_image(BUSYBOX)
    await rig.images.remove_image(BUSYBOX)
    await rig.images.remove_image(BUSYBOX)
    assert not await rig.images.list_images()


async def test_the_image_filesystem_tells_its_use(rig: Rig) -> None:
    rig.fake.add_image("busybox")
    assert (await rig.images.image_fs_info()).image_filesystems[0].used_bytes.value == 1


async def test_every_call_of_the_service_has_a_method(rig: Rig) -> None:
    names = {method.name for method in pb.DESCRIPTOR.services_by_name["ImageService"].methods}
    assert {c._method for c in vars(rig.images).values() if hasattr(c, "_method")} == names
