"""Images are on the machine before a pod needs them: pulled slowly and over a cut, or brought in files; they stay."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from hack import images, oci
from hack.control_plane import ControlPlane
from hack.registry import Registry
from hack.runtime import Containerd, Generation
from tests.integration.agent.edge import Edge, Object, container, pod
from tests.integration.conftest import AgentFactory
from tests.integration.support.counted import Counted
from tests.integration.support.waiting import wait_until

STATUS = "edgelet.io/prefetch-status"
RATE = 2_000_000
LINE = 12_000_000
"""Bytes a second of the way to the registry: one that gives a whole image at once has no middle to be cut in."""
COUNT, LAYER_BYTES = 5, 6_000_000
UNUSED = "docker.io/ahead/unused:1"


def image(*names: str, size: int = 0) -> oci.Image:
    """busybox with something beside it that no packing makes smaller."""
    own = oci.layer({"own": oci.File(0o644, os.urandom(size or 1000))})
    return oci.Image(names, (oci.layer(images.busybox_files()), own), command=("sh",))


def names(runtime: Containerd) -> dict[str, bool]:
    """The tags of all images, and whether the runtime shows them as pinned."""
    listed = json.loads(runtime.crictl("images", "--output=json"))["images"]
    return {tag: bool(one.get("pinned")) for one in listed for tag in one["repoTags"]}


def told(edge: Edge) -> Object:
    """What the Node says of images ahead."""
    node = edge.get(f"/api/v1/nodes/{edge.node}")
    found: Object = json.loads(node["metadata"].get("annotations", {}).get(STATUS, "{}"))
    return found


def states(edge: Edge) -> list[str]:
    return [one["state"] for one in told(edge).get("images", [])]


@pytest.fixture
def runtime(containerd: Containerd) -> Iterator[Containerd]:
    """With its own images again afterwards, and none of the test's."""
    before = set(names(containerd))
    yield containerd
    containerd.remove_all_pods()
    for name in names(containerd).keys() - before:
        containerd.crictl("rmi", name)
    for archive in images.archives():
        containerd.ctr("images", "import", str(archive))
    wait_until(lambda: {images.BUSYBOX, images.PAUSE} <= names(containerd).keys())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path / "registry")
    made.start()
    yield made
    made.stop()


def test_images_come_slowly_and_over_a_cut_and_stay_though_all_else_must_go(
    runtime: Containerd, registry: Registry, agent: AgentFactory, control_plane: ControlPlane, namespace: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    for number in range(COUNT):
        registry.push(image(size=LAYER_BYTES), f"ahead/{number}", "1")
    oci.pack(tmp_path / "unused.tar", [image(UNUSED)])
    runtime.ctr("images", "import", str(tmp_path / "unused.tar"))
    settings = tmp_path / "settings.yaml"
    with Counted(registry.address, LINE) as line:
        wanted = [f"{line.address}/ahead/{number}:1" for number in range(COUNT)]
        settings.write_text(json.dumps({"prefetch": wanted[:3], "prefetchRate": "2MB"}))
        edge = Edge(agent(flags=[f"--config={settings}"]), runtime, control_plane, namespace)
        began = time.monotonic()
        edge.kubectl("annotate", "node", edge.node, "edgelet.io/prefetch=" + ",".join(wanted[3:]))

        # In the middle of an image, and of its layer.
        seen = wait_until(
            lambda: [one for one in told(edge)["images"] if 0 < one.get("bytes", 0) < one.get("total", 0)], 60
        )
        assert seen[0]["state"] == "Pulling"
        wait_until(lambda: line.sent > 1.3 * LAYER_BYTES, 60, interval=0.01)
        registry.daemon.kill()
        wait_until(lambda: "Failed" in states(edge))
        assert any(reason == "Failed" and "ahead" in message for reason, message in edge.node_events())
        registry.start()

        # And the agent is killed in the middle of another one.
        wait_until(lambda: line.sent > 2.4 * LAYER_BYTES, 60, interval=0.01)
        edge.agent.kill9()
        edge.agent.start()
        wait_until(lambda: states(edge) == ["Present"] * COUNT, 90)
        took, sent = time.monotonic() - began, line.sent
        print(f"{runtime.generation}: {sent} bytes for {COUNT * LAYER_BYTES} of layers, {took:.1f} s")
        # Nothing that had come was sent again, but for what was on its way at the cut and at each pause.
        assert sent < COUNT * (LAYER_BYTES + 2_500_000) * 1.1
        assert took > COUNT * LAYER_BYTES / RATE * 0.8
    assert set(wanted) <= names(runtime).keys()
    pulled = [message for reason, message in edge.node_events() if reason == "Pulled"]
    assert len([one for one in wanted if any(one in message for message in pulled)]) == COUNT

    # As if the disk were full: from 1 % on, down to nothing. The Node's word is in the record only until it is seen.
    edge.agent.terminate()
    limits = {"imageGCHighThresholdPercent": 1, "imageGCLowThresholdPercent": 0, "imageMinimumGCAge": "0s"}
    settings.write_text(json.dumps({"prefetch": wanted[:3], **limits}))
    edge.agent.start()
    wait_until(lambda: UNUSED not in names(runtime))
    wait_until(lambda: any(reason == "FreeDiskSpaceFailed" for reason, _ in edge.node_events()))
    left = names(runtime)
    assert set(wanted) <= left.keys()
    if runtime.generation is Generation.BUILT:  # 1.6 knows no pins
        assert all(left[name] for name in wanted)
    wait_until(lambda: states(edge) == ["Present"] * COUNT)

    # What is wanted no more may go.
    settings.write_text(json.dumps(limits))
    edge.agent.terminate()
    edge.agent.start()
    wait_until(lambda: not any(names(runtime).get(name) for name in wanted[:3]))
    edge.agent.terminate()
    edge.agent.start()
    wait_until(lambda: not set(wanted[:3]) & names(runtime).keys())
    assert set(wanted[3:]) <= names(runtime).keys()


def test_outside_of_its_time_nothing_is_asked_of_the_registry(
    one_containerd: Containerd, registry: Registry, agent: AgentFactory, control_plane: ControlPlane, namespace: str
) -> None:
    registry.push(image(), "ahead/later", "1")
    hour = time.localtime().tm_hour
    window = f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00"
    flags = [f"--prefetch={registry.address}/ahead/later:1", f"--prefetch-window={window}"]
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
    wait_until(lambda: states(edge) == ["Paused"])
    assert told(edge)["images"][0]["message"] == f"waits for {window}"
    assert registry.pulled() == set()


def test_bundles_are_imported_while_the_node_runs_and_one_that_is_no_good_holds_up_no_other(
    runtime: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    folder, made = tmp_path / "bundles", tmp_path / "made"
    folder.mkdir()
    made.mkdir()
    plain, packed, half = (f"docker.io/bundled/{name}:1" for name in ("plain", "packed", "half"))
    for name in (plain, packed, half):
        oci.pack(made / f"{name.split('/')[2][:-2]}.tar", [image(name, size=3_000_000)])
    whole = (made / "half.tar").read_bytes()
    edge = Edge(agent(flags=[f"--image-bundles={folder}"]), runtime, control_plane, namespace)

    def bundles() -> dict[str, str]:
        return {one["file"]: one["state"] for one in told(edge).get("bundles", [])}

    began = time.monotonic()
    (folder / "broken.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "packed.tar.zst").write_bytes(zstandard.ZstdCompressor().compress((made / "packed.tar").read_bytes()))
    (folder / "plain.tar.gz").write_bytes(gzip.compress((made / "plain.tar").read_bytes(), 1))
    with (folder / "half.tar").open("wb") as slow:
        slow.write(whole[:1_000_000])
        slow.flush()
        wait_until(lambda: {plain, packed} <= names(runtime).keys())
        print(f"{runtime.generation}: there after {time.monotonic() - began:.1f} s")
        edge.run(
            *(
                pod(name, {**container(), "image": one, "imagePullPolicy": "Never"})
                for name, one in (("plain", plain), ("packed", packed))
            )
        )
        edge.wait_ready("plain", "packed")
        wait_until(lambda: bundles().get("broken.tar") == "Refused" and bundles().get("packed.tar.zst") == "Imported")
        refused = [message for reason, message in edge.node_events() if reason == "ImageBundleRefused"]
        assert len(refused) == 1
        assert "broken.tar" in refused[0]
        assert half not in names(runtime)
        slow.write(whole[1_000_000:])
    wait_until(lambda: half in names(runtime))

    # Nothing is imported twice, also not by the next agent; what is no good is not read again until it changes.
    wait_until(lambda: sorted(bundles().values()) == ["Imported", "Imported", "Imported", "Refused"])
    edge.agent.terminate()
    edge.agent.start()
    mark = len(edge.agent_log())
    wait_until(lambda: sorted(bundles().values()) == ["Imported", "Imported", "Imported", "Refused"])
    (folder / "broken.tar").write_bytes(whole)
    wait_until(lambda: bundles().get("broken.tar") == "Imported")
    imported = [line for line in edge.agent_log()[mark:].splitlines() if "the images of" in line]
    assert len(imported) == 1, imported
    assert "broken.tar" in imported[0]
    edge.wait_ready("plain", "packed")
