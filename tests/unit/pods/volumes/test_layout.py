from pathlib import Path

import pytest

from agent.pods.volumes import layout

ROOT = Path("/var/lib/edgelet")


def test_paths_are_the_kubelets() -> None:
    assert layout.pod_dir(ROOT, "u") == ROOT / "pods/u"
    assert layout.etc_hosts(ROOT, "u") == ROOT / "pods/u/etc-hosts"
    assert layout.termination_log(ROOT, "u", "c", "0a1b2c3d") == ROOT / "pods/u/containers/c/0a1b2c3d"
    assert layout.subpath_target(ROOT, "u", "v", "c", 2) == ROOT / "pods/u/volume-subpaths/v/c/2"
    secret = layout.volume_dir(ROOT, "u", layout.VolumePlugin.SECRET, "v")
    assert secret == ROOT / "pods/u/volumes/kubernetes.io~secret/v"


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_no_part_leads_outside(text: str) -> None:
    with pytest.raises(ValueError, match="is not a plain file name"):
        layout.pod_dir(ROOT, text)
    with pytest.raises(ValueError, match="is not a plain file name"):
        layout.container_dir(ROOT, "u", text)
