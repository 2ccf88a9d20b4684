"""What a bench or the upstream suite stands on: one containerd and one control plane, in a workspace of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace


@contextmanager
def ground(
    generation: Generation, advertise: str = "127.0.0.1", masquerade: bool = False
) -> Iterator[tuple[Workspace, Containerd, ControlPlane]]:
    workspace = Workspace()
    runtime = Containerd(workspace, generation, masquerade=masquerade)
    try:
        runtime.start()
        plane = ControlPlane(workspace.folder / "control-plane", advertise)
        plane.start()
        yield workspace, runtime, plane
    finally:
        runtime.remove_all_pods()
        workspace.release()
