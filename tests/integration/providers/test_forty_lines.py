"""The provider of docs/providers.md, exactly as it stands there, installed with edgelet into a fresh environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.workspace import Workspace
from tests.integration.support.waiting import wait_until

PAGE = REPOSITORY / "docs" / "providers.md"
NODE = "processes-1"
NOT_SOURCES = (".git", ".venv", "dist", "build", ".*_cache", "__pycache__", "_generated", ".hypothesis")
MODULE = "edgelet_processes.py"


def block(language: str, number: int = 0) -> str:
    """The page's code blocks of a language, in order."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found[number])


@dataclass(frozen=True)
class Installed:
    """A package and the environment that it was installed into."""

    package: Path
    environment: Path

    def run(self, program: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self.environment / "bin" / program, *args]
        return subprocess.run(command, cwd=self.package, capture_output=True, text=True, check=False, timeout=600)

    def install(self) -> None:
        done = self.run("pip", "install", "--quiet", "--no-deps", "--force-reinstall", self.package)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("providers")
    # A copy: a build in the tree would write into it.
    shutil.copytree(REPOSITORY, folder / "edgelet", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    package = folder / "processes"
    package.mkdir()
    (package / "pyproject.toml").write_text(block("toml"))
    (package / MODULE).write_text(block("python"))
    venv.create(folder / "venv", with_pip=True)
    made = Installed(package, folder / "venv")
    done = made.run("pip", "install", "--quiet", folder / "edgelet", package, "mypy")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "edgelet")
    yield made
    shutil.rmtree(folder / "venv")


@pytest.fixture
def node(installed: Installed, workspace: Workspace, control_plane: ControlPlane) -> Iterator[Agent]:
    number = sum(1 for _ in workspace.folder.glob("agent-*"))
    program = installed.environment / "bin" / "edgelet"
    flags = ["--provider=processes"]
    agent = Agent(workspace.folder / f"agent-{number}", NODE, None, control_plane, flags, program=program)
    agent.start()
    agent.wait_ready()
    yield agent
    agent.stop()
    agent.delete_node()


def test_it_has_forty_lines() -> None:
    lines = [
        line for line in block("python").splitlines() if line.strip() and not line.startswith(("import ", "from "))
    ]
    assert len(lines) <= 40


def test_its_types_are_right(installed: Installed) -> None:
    done = installed.run("mypy", "--strict", MODULE)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_it_is_listed_with_what_it_can_do(installed: Installed) -> None:
    (row,) = [
        line for line in installed.run("edgelet", "providers").stdout.splitlines() if line.startswith("processes")
    ]
    assert row.split(None, 2) == ["processes", "edgelet_processes:Processes", "get_container_logs, run_in_container"]


def test_a_pod_on_it_runs_and_answers_logs_and_exec(node: Agent, control_plane: ControlPlane, namespace: str) -> None:
    def kubectl(*args: str, stdin: str | None = None) -> str:
        return control_plane.kubectl("--namespace", namespace, *args, stdin=stdin)

    manifest = yaml.safe_load(block("yaml"))
    assert manifest["spec"]["nodeSelector"]["kubernetes.io/hostname"] == node.node
    kubectl("apply", "--filename=-", stdin=block("yaml"))
    kubectl("wait", "pod/hello", "--for=condition=Ready", "--timeout=30s")
    assert kubectl("get", "pod", "hello", "--output=jsonpath={.status.phase}") == "Running"
    wait_until(lambda: kubectl("logs", "hello") == "hello from hello\n")
    assert kubectl("exec", "hello", "--", "uname") == "Linux\n"
    events = kubectl("get", "events", "--output=jsonpath={.items[*].reason}")
    assert "ProviderCreateSuccess" in events
    kubectl("delete", "pod", "hello", "--wait=false")
    wait_until(lambda: not kubectl("get", "pods", "--output=name"), 15)


@pytest.mark.parametrize("method", ["create_pod", "update_pod", "delete_pod", "get_pod", "get_pods", "get_pod_status"])
def test_a_method_that_is_missing_is_named_at_the_start_and_by_mypy(installed: Installed, method: str) -> None:
    whole = (installed.package / MODULE).read_text()
    without = re.sub(rf"    async def {method}\(.*?(?=\n\n)", "", whole, flags=re.DOTALL)
    assert without != whole
    try:
        (installed.package / MODULE).write_text(without)
        installed.install()
        done = installed.run("edgelet", "run", "--provider=processes", "--kubeconfig=", "--root-dir=state")
        typed = installed.run("mypy", "--strict", MODULE)
    finally:
        (installed.package / MODULE).write_text(whole)
        installed.install()
    missing = f"'edgelet_processes:Processes' has no method {method}, which every provider must have"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"edgelet: --provider: {missing}\n")
    assert typed.returncode == 1
    assert f'"Processes" is missing following "Provider" protocol member:\n{MODULE}' in typed.stdout
    assert re.search(rf"note:     {method}$", typed.stdout, re.MULTILINE)
