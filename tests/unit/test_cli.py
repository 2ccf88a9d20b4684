from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest

from agent import __version__
from agent.cli import main
from agent.config import Settings, Taint
from agent.errors import ConfigError, Retryable
from agent.option_table import OPTIONS

Run = Callable[[Settings, object], Awaitable[None]]
VARIABLES = [option.env for option in OPTIONS if option.env] + ["VKUBELET_TAINT_VALUE", "VKUBELET_TAINT_EFFECT"]
KUBECONFIG = """\
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a config/, and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of every start; what starts does nothing."""
    seen: list[Settings] = []

    async def run(settings: Settings, credentials: object) -> None:
        seen.append(settings)

    _replace_run(monkeypatch, run)
    return seen


def _replace_run(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    module = ModuleType("agent.run")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "agent.run", module)


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.rstrip()


def test_run_starts_the_agent_with_what_was_given(started: list[Settings]) -> None:
    code = main(
        [
            "run",
            "--nodename=Edge-1",
            "--node-labels=a=b",
            "--node-labels",
            "c=d",
            "--taint",
            "edge",
            "--disable-taint",
            "--max-pods",
            "50",
            "--root-dir=/srv/edge",
        ]
    )
    assert code == 0
    (settings,) = started
    assert settings.node_name == "edge-1"
    assert settings.node_labels == {"a": "b", "c": "d"}
    assert settings.provider_taint == Taint("edge", "containerd", "NoSchedule")
    assert settings.disable_taint is True
    assert settings.max_pods == 50
    assert settings.root_dir == Path("/srv/edge")


def test_lists_add_up_and_of_other_flags_the_last_one_counts(started: list[Settings]) -> None:
    given = ["--cluster-dns=10.0.0.1", "--cluster-dns=10.0.0.2", "--node-ip=10.0.0.3", "--node-ip=10.0.0.4"]
    assert main(["run", "--nodename", "a", *given]) == 0
    assert started[0].cluster_dns == ("10.0.0.1", "10.0.0.2")
    assert started[0].node_ip == "10.0.0.4"


def test_a_switch_may_be_given_a_value(started: list[Settings]) -> None:
    assert main(["run", "--disable-taint=false", "--nodename", "a"]) == 0
    assert started[0].disable_taint is False


def test_the_node_name_has_the_kubelets_flag_too(started: list[Settings]) -> None:
    assert main(["run", "--hostname-override", "b"]) == 0
    assert started[0].node_name == "b"


def test_settings_come_from_a_file(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text("nodeName: from-file\nmaxPods: 20\nclusterDNS: [10.96.0.10]\n")
    assert main(["run", "--config", "edge.yaml", "--max-pods", "30"]) == 0
    (settings,) = started
    assert (settings.node_name, settings.max_pods, settings.cluster_dns) == ("from-file", 30, ("10.96.0.10",))


def test_an_empty_settings_file_is_fine(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text("# nothing yet\n")
    assert main(["run", "--config", "edge.yaml", "--nodename", "a"]) == 0


def test_the_kubeconfig_in_the_config_folder_is_taken(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(KUBECONFIG)
    assert main(["run", "--nodename", "a"]) == 0
    assert started[0].kubeconfig == Path("config/config.yaml")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--nodname", "a"], "edgelet: unrecognized arguments: --nodname a; see edgelet --help"),
        (["run", "--node", "a"], "edgelet: unrecognized arguments: --node a; see edgelet --help"),
        (
            ["run", "--nodename"],
            "edgelet: argument --nodename/--hostname-override: expected one argument; see edgelet run --help",
        ),
        (["run", "--kubeconfig", "nope.yaml"], "edgelet: --kubeconfig: no such file: nope.yaml"),
        (["run", "--max-pods", "x"], "edgelet: --max-pods: not a whole number: 'x'"),
        (["run", "--config", "nope.yaml"], "edgelet: --config: nope.yaml: No such file or directory"),
        ([], "edgelet: no command given; see edgelet --help"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str], started: list[Settings]
) -> None:
    assert main(arguments) == 2
    assert _one_line(capsys) == line
    assert started == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("maxPod: 3\n", "edgelet: edge.yaml: unknown key 'maxPod'; did you mean 'maxPods'?"),
        ("maxPods: lots\n", "edgelet: edge.yaml: maxPods: not a whole number: 'lots'"),
        ("- maxPods\n", "edgelet: edge.yaml: not a mapping of settings"),
        ("a: [1\nb: 2\n", "edgelet: edge.yaml: line 2: not YAML: expected ',' or ']', but got ':'"),
        ("maxPods: 3\nmaxPods: 4\n", "edgelet: edge.yaml: line 2: not YAML: 'maxPods' is there twice"),
        ("\0", "edgelet: edge.yaml: not YAML: special characters are not allowed"),
    ],
)
def test_a_mistake_in_the_settings_file_is_one_line_and_code_2(
    content: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], started: list[Settings]
) -> None:
    (tmp_path / "edge.yaml").write_text(content)
    assert main(["run", "--config", "edge.yaml"]) == 2
    assert _one_line(capsys) == line
    assert started == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("--provider: no provider 'x'"), 2),
        (Retryable("the disk is full"), 1),
        (ExceptionGroup("tasks", [Retryable("later"), ExceptionGroup("inner", [ConfigError("bad key")])]), 2),
    ],
)
def test_a_known_failure_of_the_agent_is_one_line(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(_: Settings, credentials: object) -> None:
        raise error

    _replace_run(monkeypatch, run)
    assert main(["run", "--nodename", "a"]) == code
    assert _one_line(capsys).startswith("edgelet: ")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: Settings, credentials: object) -> None:
        raise ExceptionGroup("tasks", [Retryable("later"), KeyError("bug")])

    _replace_run(monkeypatch, run)
    with pytest.raises(ExceptionGroup):
        main(["run", "--nodename", "a"])


@pytest.mark.parametrize(("ends_with", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_an_end_while_a_plugin_is_asked_leaves_no_keys_and_no_plugin_behind(
    ends_with: signal.Signals, code: int, tmp_path: Path
) -> None:
    waits = f"{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {tmp_path}/plugin}}}}"
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.replace("{token: t}", waits))
    (tmp_path / "plugin").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/called\nread answer < {tmp_path}/answer\n")
    (tmp_path / "plugin").chmod(0o755)
    for name in ("called", "answer"):
        os.mkfifo(tmp_path / name)
    command = [sys.executable, "-m", "agent", "run", "--nodename", "a", "--kubeconfig", f"{tmp_path}/kubeconfig"]
    command += ["--root-dir", str(tmp_path / "root")]
    agent = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    plugin = Path("/proc", (tmp_path / "called").read_text().strip())
    assert list(Path("/dev/shm").glob(f"edgelet-{agent.pid}-*"))
    agent.send_signal(ends_with)
    assert agent.wait(60) == code
    if ends_with is signal.SIGKILL:
        (tmp_path / "answer").open("w").close()  # nobody ends the plugin: it comes to its own end
    assert agent.stderr is not None
    agent.stderr.read()  # to the end: its processes have ended too
    agent.stderr.close()
    assert not list(Path("/dev/shm").glob(f"edgelet-{agent.pid}-*"))
    for _ in range(6000):
        if not plugin.exists():
            return
        time.sleep(0.01)
    raise AssertionError("the plugin still runs")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--pod-sync-workers=10", "edgelet: --pod-sync-workers: every pod has a worker of its own"),
        ("--startup-timeout=1m", "edgelet: --startup-timeout: the agent waits as long as it takes"),
        ("--metrics-addr=:10255", "edgelet: --metrics-addr: metrics and stats are on the node's API, use --address"),
        ("--enable-node-lease=false", "edgelet: --enable-node-lease: the Node's lease is always renewed"),
        ("--os=windows", "edgelet: --os: a Node of edgelet's is Linux"),
        ("--trace-exporter=jaeger", "edgelet: --trace-exporter: there are no traces, use --log-format json"),
    ],
)
def test_a_flag_of_virtual_kubelets_that_sets_nothing_here_says_what_to_use_instead(
    flag: str, says: str, capsys: pytest.CaptureFixture[str], started: list[Settings]
) -> None:
    assert main(["run", "--nodename", "a", flag]) == 2
    assert _one_line(capsys).startswith(says)
    assert started == []


def test_a_flag_of_virtual_kubelets_that_asks_for_what_is_done_anyway_is_taken(started: list[Settings]) -> None:
    assert main(["run", "--nodename=a", "--enable-node-lease", "--os=Linux", "--full-resync-period=30s"]) == 0
    assert started[0].full_resync_period == 30


def test_the_providers_are_listed_with_what_they_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert next(iter(lines)) == "NAME"
    assert "agent.providers.containerd:ContainerdProvider" in lines["containerd"]
    assert "exec_url" in lines["containerd"]
    assert "agent.providers.mock:MockProvider" in lines["mock"]
    assert "run_in_container" in lines["mock"]
    assert "exec_url" not in lines["mock"]


def test_help_and_version_are_free_of_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{option.flag}" in shown for option in OPTIONS)
    assert main(["version"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(f"edgelet {__version__} (") == 2


def test_the_command_line_alone_imports_none_of_the_heavy_libraries() -> None:
    heavy = "{'grpc', 'kubernetes', 'aiohttp', 'yaml', 'loguru', 'psutil'}"
    script = f"import sys, agent.cli; print(sorted({heavy} & sys.modules.keys()))"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
