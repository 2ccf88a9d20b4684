"""What a bench stands on: one containerd and one control plane, in a workspace of the run's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace


@contextmanager
def ground(generation: Generation) -> Iterator[tuple[Workspace, Containerd, ControlPlane]]:
    workspace = Workspace()
    runtime = Containerd(workspace, generation)
    try:
        runtime.start()
        plane = ControlPlane(workspace.folder / "control-plane")
        plane.start()
        yield workspace, runtime, plane
    finally:
        runtime.remove_all_pods()
        workspace.release()
