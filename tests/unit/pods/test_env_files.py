import os
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent
from agent.pods import env_files
from agent.pods.downward import NodeContext
from agent.pods.env import build_env
from agent.pods.env_files import parse, read_env_files
from agent.pods.references import Referenced
from tests.fakes.skipped_time import with_skipped_time
from tests.unit.pods.pods import container_pod
from tests.unit.pods.scene import record, scene

FILE = """# written by an init container
  PLAIN='value'
EMPTY=''
BLANK= 'nothing'
QUOTED='it has = and # and "'   # a comment
LINES='one
 two
three'\r
PLAIN='again'
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PLAIN", "value"),
        ("EMPTY", ""),
        ("BLANK", ""),
        ("QUOTED", 'it has = and # and "'),
        ("LINES", "one\n two\nthree"),
        ("MISSING", ""),
    ],
)
def test_a_key_has_its_first_value(key: str, value: str) -> None:
    assert parse(FILE, key) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NAME", "at line 1: missing '='"),
        ("\n='v'", "at line 2: empty variable name"),
        ("NAME ='v'", "at line 1: whitespace before '=' is not allowed"),
        ("export NAME=v", "at line 1: value must be enclosed in single quotes"),
        ("NAME=", "at line 1: value must be enclosed in single quotes"),
        ("NAME='v' w", "at line 1: unexpected content after closing quote"),
        ("A='1'\nNAME='v\n\n", "starting at line 2: unclosed single quote"),
    ],
)
def test_what_is_no_assignment_is_told_by_its_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"invalid environment variable format {why}"):
        parse(text, "KEY")


def test_what_comes_after_the_key_is_not_looked_at() -> None:
    assert parse("KEY='v'\nbroken", "KEY") == "v"


def variable(name: str = "V", **ref: Any) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fileKeyRef": {"volumeName": "shared", "path": "env", "key": "KEY", **ref}}}


def env_of(volume: Path | None, **ref: Any) -> dict[str, str]:
    pod = container_pod(env=[variable(**ref), {"name": "NEXT", "value": "$(V)"}])
    files = read_env_files(pod.spec.containers[0], {"shared": volume} if volume else {})
    return dict(build_env(pod, pod.spec.containers[0], Referenced(), NodeContext("n"), files).env)


def test_a_variable_from_a_file_is_seen_by_later_ones(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/env").write_text("KEY='v'")
    assert env_of(tmp_path, path="sub/env") == {"V": "v", "NEXT": "v"}


@pytest.mark.parametrize(("name", "text"), [("other", "KEY='v'"), ("env", "OTHER='v'")])
def test_an_optional_key_or_file_may_be_absent(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert env_of(tmp_path, optional=True) == {"NEXT": "$(V)"}
    assert not (tmp_path / "env").is_dir()
    with pytest.raises(Permanent, match=r"env file|not found in file") as caught:
        env_of(tmp_path)
    assert caught.value.reason == "CreateContainerConfigError"


def test_a_volume_that_is_not_there_is_told() -> None:
    with pytest.raises(Permanent, match='cannot find the volume "shared" referenced by FileKeyRef'):
        env_of(None)


def test_a_file_outside_the_volume_a_pipe_and_a_giant_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env_files, "_LARGEST_BYTES", 10)
    volume = tmp_path / "volume"
    volume.mkdir()
    (tmp_path / "secret").write_text("KEY='v'")
    (volume / "up").symlink_to("../secret")
    (volume / "away").symlink_to(tmp_path / "secret")
    os.mkfifo(volume / "pipe")
    (volume / "giant").write_text("KEY='vvvvvvv'")
    for name in ("up", "away", "pipe", "giant", "../secret"):
        with pytest.raises(Permanent, match="couldn't parse env file"):
            env_of(volume, path=name)


@with_skipped_time
async def test_what_an_init_container_writes_is_in_the_main_containers_environment(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        wanted = record(
            initContainers=[{"name": "setup", "image": "busybox"}],
            containers=[{"name": "main", "image": "busybox", "env": [variable()]}],
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
        s.start(wanted)
        await s.until(lambda: s.is_running("setup"))
        (s.volume("empty-dir", "shared") / "env").write_text("KEY='v'")
        s.exit("setup")
        await s.until(lambda: s.is_running("main"))
        env = {pair.key: pair.value for pair in s.cri.container("main").config.envs}
        assert env["V"] in ("v", b"v")
