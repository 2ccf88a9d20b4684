"""A machine joins by token, renews its certificates, and comes back after an outage that outlived them."""

import json
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.agent import Agent
from hack.joining import TOKEN_ID, Joining
from hack.runtime import Containerd
from hack.workspace import Workspace
from tests.integration.identity.conftest import LIFE_S
from tests.integration.support.waiting import wait_until

Start = Callable[..., Agent]


@pytest.fixture
def machine(workspace: Workspace) -> Path:
    return Path(tempfile.mkdtemp(prefix="machine-", dir=workspace.folder)) / "machine"


@pytest.fixture
def start(joining: Joining, one_containerd: Containerd, machine: Path) -> Iterator[Start]:
    """Starts the agent of the machine that joined; ended with its pods after the test."""
    made: list[Agent] = []

    def run(node: str, *flags: str, folder: Path = machine) -> Agent:
        own = (f"--kubeconfig={folder / 'kubeconfig'}", f"--root-dir={folder / 'root'}", *flags)
        agent = Agent(folder / "agent", node, one_containerd, joining.plane, own)
        made.append(agent)
        agent.start()
        agent.wait_ready()
        return agent

    yield run
    for agent in made:
        agent.stop()
        agent.delete_node()
    one_containerd.remove_all_pods()


def issued(machine: Path, kind: str = "client") -> str:
    """The name of the file that is the current one; empty where there is none."""
    link = machine / "root" / "pki" / f"kubelet-{kind}-current.pem"
    return link.readlink().name if link.is_symlink() else ""


def said(agent: Agent, words: str) -> bool:
    return words in agent.log.read_text()


def test_a_token_makes_a_node_and_no_more_than_root_can_read_it(joining: Joining, machine: Path) -> None:
    done = joining.join(machine, "joined-1")
    assert done.stdout.startswith(f"joined {joining.plane.url} as node joined-1"), done.stderr
    kubeconfig = machine / "kubeconfig"
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    pki = machine / "root" / "pki"
    assert pki.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in pki.iterdir())
    assert joining.token not in kubeconfig.read_text()
    who = joining.plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig)
    assert json.loads(who)["status"]["userInfo"]["username"] == "system:node:joined-1"
    # A second time replaces what the first made, and nothing else.
    first = issued(machine)
    joining.join(machine, "joined-1")
    assert issued(machine) != first


def test_another_cluster_or_a_wrong_token_is_told_nothing(joining: Joining, machine: Path) -> None:
    wrong_hash = joining.join(machine, "joined-2", f"--ca-cert-hash=sha256:{'0' * 64}", check=False)
    assert wrong_hash.returncode == 1
    assert "not --ca-cert-hash" in wrong_hash.stderr
    unknown = joining.join(machine, "joined-2", "--token=zzzzzz.0123456789abcdef", check=False)
    assert "does not know token zzzzzz" in unknown.stderr
    forged = joining.join(machine, "joined-2", f"--token={TOKEN_ID}.fedcba9876543210", check=False)
    assert "not signed by token" in forged.stderr
    assert all(done.stderr.count("\n") == 1 for done in (wrong_hash, unknown, forged))
    assert "fedcba9876543210" not in forged.stderr
    assert not machine.exists()


def test_somebody_elses_kubeconfig_is_not_overwritten(joining: Joining, machine: Path) -> None:
    machine.mkdir()
    (machine / "kubeconfig").write_text(joining.plane.admin_kubeconfig.read_text())
    done = joining.join(machine, "joined-3", check=False)
    assert done.returncode == 2
    assert "not from edgelet join" in done.stderr


def test_the_client_certificate_is_renewed_while_the_agent_works(joining: Joining, machine: Path, start: Start) -> None:
    joining.join(machine, "renews", f"--ca-file={joining.plane.client_ca}")
    first = issued(machine)
    agent = start("renews")
    pid = agent.pid
    wait_until(lambda: issued(machine) != first, 30)
    second = issued(machine)
    wait_until(lambda: issued(machine) != second, 60)
    wait_until(lambda: agent.log.read_text().count("the node's certificate is a new one") >= 2)
    # The first has ended by now or will; requests go on with the newest, none was refused.
    stamp = time.time()
    wait_until(lambda: _heartbeat(agent) > stamp)
    assert agent.running
    assert agent.pid == pid
    assert not said(agent, "Unauthorized")
    # Old keys don't pile up.
    assert len(list((machine / "root" / "pki").glob("kubelet-client-2*.pem"))) == 2


def test_an_approved_serving_certificate_is_taken_up_without_a_restart(
    joining: Joining, machine: Path, start: Start
) -> None:
    joining.join(machine, "serves")
    agent = start("serves", "--rotate-server-certificates")

    def verified() -> bool:
        """Whether the server shows a certificate of the cluster's CA for its address."""
        context = ssl.create_default_context(cafile=str(joining.plane.client_ca))
        with socket.create_connection(("127.0.0.1", agent.port), timeout=3) as link:
            try:
                context.wrap_socket(link, server_hostname="127.0.0.1").close()
            except ssl.SSLCertVerificationError:
                return False
            return True

    wait_until(lambda: not verified(), what="our own certificate meanwhile")
    asked = wait_until(lambda: joining.waiting_requests("serves"))
    joining.plane.kubectl("certificate", "approve", *asked)
    wait_until(verified, 20)
    assert issued(machine, "server")


def test_an_outage_that_outlived_the_certificate_ends_by_itself_or_as_the_log_says(
    joining: Joining, machine: Path, start: Start
) -> None:
    # Two machines in one test, for both have to wait until their certificates end.
    kept, other = machine / "bootstrap-kubeconfig", machine.with_name("other")
    joining.join(machine, "returns", f"--bootstrap-kubeconfig={kept}")
    assert kept.stat().st_mode & 0o777 == 0o600
    returns = start("returns", f"--bootstrap-kubeconfig={kept}", "--rotate-certificates=false")
    joining.join(other, "waits")
    waits = start("waits", "--rotate-certificates=false", folder=other)
    first = issued(machine)
    joining.plane.cut_off()
    joining.plane.controller_manager.kill()  # else it would look for the API server more and more seldom
    time.sleep(LIFE_S)
    joining.plane.reconnect()
    stamp = time.time()
    wait_until(lambda: issued(machine) != first, 60)
    wait_until(lambda: _heartbeat(returns) > stamp)
    # Nothing was left on the other one: it says what to do, and needs nothing more than that.
    wait_until(lambda: said(waits, f"edgelet join {joining.plane.url} --nodename waits"))
    joining.join(other, "waits")
    wait_until(lambda: _heartbeat(waits) > stamp, 40)
    assert returns.running
    assert waits.running


def test_run_joins_by_itself_with_a_bootstrap_kubeconfig(joining: Joining, machine: Path, start: Start) -> None:
    kept = machine / "bootstrap-kubeconfig"
    joining.join(machine, "first", f"--bootstrap-kubeconfig={kept}")
    (machine / "kubeconfig").unlink()
    start("first", f"--bootstrap-kubeconfig={kept}")
    assert (machine / "kubeconfig").stat().st_mode & 0o777 == 0o600


def _heartbeat(agent: Agent) -> float:
    """When the node's lease was last renewed, Unix seconds."""
    plane = agent._control_plane
    assert plane is not None
    lease = plane.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{agent.node}")
    return time.mktime(time.strptime(lease["spec"]["renewTime"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
