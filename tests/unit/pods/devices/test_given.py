"""What the runtime can't give is refused."""

from __future__ import annotations

import pytest

from agent.pods.devices.given import knows_cdi


@pytest.mark.parametrize(
    ("name", "version", "knows"),
    [
        ("containerd", "1.6.20~ds1", False),
        ("containerd", "v1.6.33", False),
        ("containerd", "1.7.0", True),
        ("containerd", "v2.4.2", True),
        ("containerd", "unknown", True),
        ("cri-o", "1.30.0", True),
    ],
)
def test_which_runtimes_know_the_container_device_interface(name: str, version: str, knows: bool) -> None:
    assert knows_cdi(name, version) is knows
