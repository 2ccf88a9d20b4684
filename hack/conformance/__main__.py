"""`python -m hack.conformance`: the upstream end-to-end suite on a cluster of our own, against a kubelet's run.

Ends with 1 where a spec fails that passes for a kubelet. With `--agent kubelet` it is the kubelet that runs, and its
result becomes what later runs are compared with.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hack import binaries, images
from hack.agent import Agent
from hack.conformance import images as suite_images
from hack.conformance import results
from hack.control_plane import ControlPlane
from hack.ground import ground
from hack.kubelet import kubelet, own_address
from hack.paths import REPOSITORY
from hack.processes import Daemon, DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

KUBELET, EDGELET = "kubelet", "edgelet"
FOCUS = r"\[NodeConformance\]"
SKIP = r"\[Serial\]|\[Disruptive\]|\[Flaky\]|\[Slow\]"
SEED = 1795549894
"""The order of the recorded kubelet's run: which long spec begins last decides how long the whole takes."""
EXPECTATIONS = Path(__file__).parent / "kubelet.json"
CLUSTER_DNS = "10.96.0.10"
"""Nobody serves there; the suite only looks for it in pods' resolv.conf."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        run = _run(options, output)
    except (DaemonError, binaries.BuildError, images.ImageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    known = results.read_expectations(EXPECTATIONS.read_bytes()) if EXPECTATIONS.exists() else results.Run(0.0, {})
    if options.agent == KUBELET:
        whole = (options.focus, options.skip) == (FOCUS, SKIP)
        recorded = results.updated(known, run, whole=whole)
        EXPECTATIONS.write_text(results.write_expectations(recorded, binaries.KUBERNETES))
        _say(f"{len(run.specs)} results of the kubelet are in {EXPECTATIONS}")
        return 0
    expected = results.selected(known, options.focus, options.skip)
    differences = results.compare(expected, run)
    print(results.table(expected, run, differences, every=options.all))
    (output / "results.json").write_text(results.as_json(expected, run, differences))
    regressions = sum(found.is_regression for found in differences)
    print(f"{regressions} regressions; reports and logs: {output}")
    return 1 if regressions or not run.specs else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.conformance", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--agent", choices=[EDGELET, KUBELET], default=EDGELET, help="kubelet: record what the agent is compared with")
    add("--focus", default=FOCUS, metavar="REGEXP", help="specs to run (default: %(default)s)")
    add("--skip", default=SKIP, metavar="REGEXP", help="and of those not (default: %(default)s)")
    add("--procs", type=int, default=12, metavar="N", help="specs at once (default: %(default)s)")
    add("--seed", type=int, default=SEED, metavar="N", help="decides the order of the specs (default: %(default)s)")
    add("--output", type=Path, default=REPOSITORY / "build" / "conformance", metavar="DIR", help="reports and logs")
    add("--runtime", default=Generation.DISTRIBUTION.value, choices=[g.value for g in Generation], help="containerd")
    add("--all", action="store_true", help="show every spec, not only those that end differently")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, output: Path) -> results.Run:
    """Raises DaemonError where anything of the cluster ends, or the suite ends without a report."""
    programs = {name: binaries.find(name) for name in (*binaries.FOR_CONFORMANCE, "kubectl")}
    archive = suite_images.archive()
    _say("starting containerd, the control plane and the node")
    with ground(Generation(options.runtime), advertise=own_address(), masquerade=True) as (workspace, runtime, plane):
        runtime.ctr("images", "import", str(archive))
        with _node(options.agent, workspace, runtime, plane) as node:
            suite = _suite(options, output, programs, plane)
            report = output / "report.json"
            report.unlink(missing_ok=True)
            suite.start()
            _say(f"the suite runs; its log: {suite.log}")
            try:
                _wait(suite, [node, runtime.daemon, plane.api_server, plane.etcd])
            finally:
                suite.stop()
                (output / f"{node.name}.log").write_bytes(node.log.read_bytes())
            if not report.exists():
                raise DaemonError(f"the suite ended with {suite.exit_code} and no report\n{suite.log_tail()}")
            return results.read_report(report.read_bytes())


@contextmanager
def _node(name: str, workspace: Workspace, runtime: Containerd, plane: ControlPlane) -> Iterator[Daemon]:
    """The only node: what runs there is who is tried."""
    if name == KUBELET:
        daemon = kubelet(workspace, KUBELET, runtime, plane, cluster_dns=CLUSTER_DNS)
    else:
        flags = [f"--node-ip={own_address()}", f"--cluster-dns={CLUSTER_DNS}", "--max-pods=250", "--log-level=info"]
        daemon = Agent(workspace.folder / "agent", EDGELET, runtime, plane, flags).daemon
    daemon.start()
    try:
        ready = ("wait", f"node/{name}", "--for=condition=Ready", "--timeout=60s")
        daemon.wait_ready(lambda: bool(plane.kubectl(*ready, check=False)), 60)
        yield daemon
    finally:
        daemon.stop()


def _suite(options: argparse.Namespace, output: Path, programs: dict[str, Path], plane: ControlPlane) -> Daemon:
    command: list[str | Path] = [
        programs["ginkgo"],
        f"--procs={options.procs}",
        "--no-color",
        f"--seed={options.seed}",
        "--timeout=3h",
        f"--focus={options.focus}",
        *([f"--skip={options.skip}"] if options.skip else []),
        "--json-report=report.json",
        "--junit-report=junit.xml",
        f"--output-dir={output}",
        programs["e2e.test"],
        "--",
        f"--kubeconfig={plane.admin_kubeconfig}",
        f"--kubectl-path={programs['kubectl']}",
        "--provider=local",
        "--num-nodes=1",
        "--allowed-not-ready-nodes=0",
        "--minStartupPods=0",
        "--disable-log-dump=true",
        "--dump-logs-on-failure=false",
    ]
    (output / "suite.log").unlink(missing_ok=True)
    return Daemon("suite", command, output, working_folder=output)


def _wait(suite: Daemon, needed: Sequence[Daemon]) -> None:
    """Until the suite ends. Raises when the cluster does not live: each spec would only wait for its time-out."""
    while suite.running:
        for daemon in needed:
            if not daemon.running:
                raise DaemonError(f"{daemon.name} ended with {daemon.exit_code}\n{daemon.log_tail()}")
        time.sleep(0.5)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
