"""A control plane of its own whose certificates are good for seconds, into which machines are let by token."""

from collections.abc import Iterator

import pytest

from hack.control_plane import ControlPlane
from hack.joining import Joining
from hack.workspace import Workspace

LIFE_S = 30
"""Of a certificate, beside the five minutes of the past that the signer adds."""


@pytest.fixture(scope="package")
def joining(workspace: Workspace) -> Iterator[Joining]:
    plane = ControlPlane(workspace.folder / "joining-plane", signing_duration=f"{LIFE_S}s")
    try:
        plane.start()
        yield Joining(plane)
    finally:
        plane.stop()
