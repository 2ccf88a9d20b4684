"""The profile of pause processes, as a file that a runtime reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.pods.sandbox_profile import FILE, keep_profile, write_profile


def rules(file: str) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for rule in json.loads(Path(file).read_text())["syscalls"]:
        for name in rule["names"]:
            found.setdefault(name, []).append(rule)
    return found


def test_what_asks_the_kernel_for_power_is_refused_and_the_rest_is_not(tmp_path: Path) -> None:
    file = write_profile(tmp_path / "root", "x86_64")
    assert file == str(tmp_path / "root" / FILE)
    profile = json.loads(Path(file).read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    refused = rules(file)
    assert {"mount", "bpf", "unshare", "setns", "keyctl", "init_module", "open_by_handle_at"} <= refused.keys()
    assert {rule["errnoRet"] for rule in refused["mount"]} == {1}
    assert [rule["errnoRet"] for rule in refused["clone3"]] == [38]
    flags = [rule["args"][0]["value"] for rule in refused["clone"]]  # type: ignore[index]
    assert sum(flags) == 0x7E020000
    assert not {"read", "pause", "execve", "exit_group", "wait4", "rt_sigaction", "kill"} & refused.keys()


def test_a_kind_of_machine_that_is_not_known_has_none(tmp_path: Path) -> None:
    assert write_profile(tmp_path, "s390x") == ""
    assert not (tmp_path / FILE).exists()


def test_a_file_of_another_version_is_replaced_and_one_that_is_right_is_left(tmp_path: Path) -> None:
    file = Path(write_profile(tmp_path, "aarch64"))
    before = file.stat()
    assert write_profile(tmp_path, "aarch64") == str(file)
    assert file.stat().st_ino == before.st_ino
    file.write_text("{}")
    write_profile(tmp_path, "aarch64")
    assert "SCMP_ARCH_AARCH64" in file.read_text()


def test_one_that_was_removed_is_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    file = Path(write_profile(tmp_path))
    file.unlink()
    keep_profile(str(file))
    assert file.exists()
    keep_profile("")


def test_a_disk_that_takes_no_file_leaves_the_runtimes_profile(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file, no folder")
    assert write_profile(tmp_path / "root", "x86_64") == ""
