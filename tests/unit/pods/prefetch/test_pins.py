"""Which images stay though nothing uses them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.cri.containerd import PINNED
from agent.errors import Permanent
from agent.pods.image_rewrites import Rewrites
from agent.pods.prefetch.pins import KEY, Bundle, Pins
from tests.fakes.store import MemoryStore

BUNDLE = Bundle(1, 2, ("docker.io/library/bundled:1",))


class Labels:
    """Images of a runtime, with their labels."""

    def __init__(self, *here: str) -> None:
        self.here: dict[str, dict[str, str]] = {name: {} for name in here}
        self.unserved = False

    async def label(self, name: str, labels: Mapping[str, str]) -> bool:
        if self.unserved:
            raise Permanent("Unimplemented", "no such service")
        if name not in self.here:
            return False
        self.here[name].update(labels)
        return True

    @property
    def pinned(self) -> set[str]:
        (label,) = PINNED
        return {name for name, labels in self.here.items() if labels.get(label)}


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


async def test_settings_node_and_bundles_keep_images_by_every_name(store: MemoryStore) -> None:
    pins = Pins(store, ["busybox"], Rewrites((("docker.io", "mirror.example"),)))
    await pins.load()
    pins.node_names(("r.example/app:1", "busybox"))
    await pins.put_bundle("x.tar", BUNDLE)
    assert pins.wanted == ("busybox", "r.example/app:1")
    assert pins.names >= {
        "busybox",
        "docker.io/library/busybox:latest",
        "mirror.example/library/busybox:latest",
        "r.example/app:1",
        "docker.io/library/bundled:1",
    }


async def test_bundles_are_kept_by_the_next_agent_until_their_file_goes(store: MemoryStore) -> None:
    await Pins(store, []).put_bundle("x.tar", BUNDLE)
    pins = Pins(store, [])
    await pins.load()
    assert pins.bundles == {"x.tar": BUNDLE}
    assert "docker.io/library/bundled:1" in pins.names
    await pins.drop_bundle("x.tar")
    assert not pins.names
    again = Pins(store, [])
    await again.load()
    assert not again.bundles


async def test_what_leaves_the_list_loses_its_mark_also_by_the_next_agent(store: MemoryStore) -> None:
    labels = Labels("docker.io/library/a:1", "docker.io/library/b:1")
    pins = Pins(store, ["a:1", "b:1", "missing:1"])
    await pins.load()
    await pins.mark(labels)
    assert labels.pinned == set(labels.here)
    later = Pins(store, ["b:1"])
    await later.load()
    await later.mark(labels)
    assert labels.pinned == {"docker.io/library/b:1"}


async def test_a_mark_that_a_new_pull_took_off_is_made_again(store: MemoryStore) -> None:
    labels = Labels("docker.io/library/a:1")
    pins = Pins(store, ["a:1"])
    await pins.load()
    await pins.mark(labels)
    labels.here["docker.io/library/a:1"].clear()
    await pins.mark(labels)
    assert labels.pinned
    assert [change.key for change in store.writes] == [KEY]


async def test_a_runtime_without_labels_is_left_alone(store: MemoryStore) -> None:
    labels = Labels("docker.io/library/a:1")
    labels.unserved = True
    pins = Pins(store, ["a:1"])
    await pins.load()
    await pins.mark(labels)
    assert "a:1" in pins.names


async def test_a_row_that_cannot_be_read_is_passed_over(store: MemoryStore) -> None:
    await store.put(KEY, b"{")
    await store.put("prefetch/bundles/x.tar", b"[]")
    pins = Pins(store, ["a:1"])
    await pins.load()
    assert pins.wanted == ("a:1",)
    assert not pins.bundles
