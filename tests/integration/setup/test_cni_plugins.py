"""The CNI plugins in scripts/cni as a runtime calls them, over plugins that tell what they were called with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.paths import REPOSITORY

PLUGINS = REPOSITORY / "scripts/cni"
HANDED_OVER = Path("/run/edgelet/fixed-ip")
RESULT = {"cniVersion": "0.4.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.88.0.2/16"}]}
ARGS = "IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=c0;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;K8S_POD_UID="


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """`cat` in place of what ours call, after a line with its name and arguments."""
    for plugin in PLUGINS.iterdir():
        shutil.copy(plugin, tmp_path)
    for name in ("bandwidth", "host-local", "static"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho "{name} $CNI_ARGS" >"{tmp_path}/called"\ncat\n')
        stub.chmod(0o755)
    return tmp_path


def call(plugin: Path, config: dict[str, Any], command: str = "ADD", args: str = "") -> Any:
    """The plugin's answer. What it is called with is written as containerd writes it."""
    done = subprocess.run(
        [plugin],
        input=json.dumps(config, sort_keys=True, separators=(",", ":")),
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_ARGS": args, "config": "of the caller"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def limited(**rates: int) -> dict[str, Any]:
    found = {"type": "edgelet-bandwidth", "capabilities": {"bandwidth": True}, "cniVersion": "0.4.0", "name": "edgelet"}
    return {**found, "prevResult": RESULT, **({"runtimeConfig": {"bandwidth": rates}} if rates else {})}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_burst_is_a_tenth_of_a_second_and_the_rest_stays(plugins: Path, command: str) -> None:
    asked = limited(IngressRate=10_000_000, IngressBurst=2**32 - 1, EgressRate=1000, EgressBurst=2**32 - 1)
    wanted = limited(IngressRate=10_000_000, IngressBurst=1_000_000, EgressRate=1000, EgressBurst=262_144)
    assert call(plugins / "edgelet-bandwidth", asked, command) == wanted


def test_a_burst_never_grows_beyond_what_the_plugin_takes(plugins: Path) -> None:
    asked = limited(ingressRate=10**15, ingressBurst=2**32 - 1)
    assert call(plugins / "edgelet-bandwidth", asked) == limited(ingressRate=10**15, ingressBurst=2**32 - 1)


def test_a_way_without_a_limit_stays_without_one(plugins: Path) -> None:
    asked = limited(IngressRate=0, IngressBurst=0, EgressRate=20_000_000, EgressBurst=2**32 - 1)
    wanted = limited(IngressRate=0, IngressBurst=0, EgressRate=20_000_000, EgressBurst=2_000_000)
    assert call(plugins / "edgelet-bandwidth", asked) == wanted


def test_a_pod_without_limits_makes_no_other_plugin_run(plugins: Path) -> None:
    assert call(plugins / "edgelet-bandwidth", limited()) == RESULT
    assert not (plugins / "called").exists()


def test_what_a_pod_without_limits_may_have_had_is_taken_back(plugins: Path) -> None:
    assert call(plugins / "edgelet-bandwidth", limited(), "DEL") == limited()
    assert (plugins / "called").read_text().startswith("bandwidth")


@pytest.fixture
def kept() -> Iterator[str]:
    """The UID of a pod that an address is handed over for."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    uid = "00000000-0000-4000-8000-00000cafe000"
    HANDED_OVER.mkdir(mode=0o700, parents=True, exist_ok=True)
    (HANDED_OVER / uid).write_text("IP=10.88.255.254/16;GATEWAY=10.88.0.1\n")
    yield uid
    (HANDED_OVER / uid).unlink()


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_a_pod_with_an_address_of_its_own_gets_it_by_static(plugins: Path, kept: str, command: str) -> None:
    call(plugins / "edgelet-ipam", limited(), command, ARGS + kept)
    told = (plugins / "called").read_text()
    assert told == f"static {ARGS}{kept};IP=10.88.255.254/16;GATEWAY=10.88.0.1\n"


@pytest.mark.parametrize(
    ("command", "args"), [("ADD", ""), ("ADD", f"{ARGS}other"), ("ADD", f"{ARGS}../fixed-ip/x"), ("VERSION", "")]
)
def test_every_other_pod_gets_one_by_host_local(plugins: Path, command: str, args: str) -> None:
    assert call(plugins / "edgelet-ipam", limited(), command, args) == limited()
    assert (plugins / "called").read_text() == f"host-local {args}\n"


def test_host_local_hears_of_every_end(plugins: Path, kept: str) -> None:
    call(plugins / "edgelet-ipam", limited(), "DEL", ARGS + kept)
    assert (plugins / "called").read_text().startswith("host-local")
