"""Images for the upstream suite, without a registry: its own programs on Debian or busybox, under the suite's names.

The suite is asked which images it uses; those that are not made here (databases, CSI sidecars …) are needed only by
specs outside the node's conformance. Its images of a registry that needs a login, or that can't exist, stay away.
One spec wants an error in the words of busybox' own shell, and fails for everybody with the shell of `hack.images`.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from hack import binaries, images, oci
from hack.images import GROUPS, USERS, ImageError
from hack.paths import cache_dir
from hack.pki import Authority

PREFIX = "registry.k8s.io/e2e-test-images/"
PACKAGES = ("curl", "iproute2", "netcat-openbsd", "bind9-dnsutils", "iperf", "procps", "nginx-light")
FORMAT = 1
"""Raise it when what is packed changes: the archive in the cache is named by it."""

# The suite asks for a user of the image who is in a group of the image.
AGNHOST_USERS = f"{USERS}www-data:x:33:33::/var/www:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n"
AGNHOST_GROUPS = (
    f"{GROUPS}www-data:x:33:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
)


def archive() -> Path:
    """The archive of all of them, packed first where the cache lacks it. Raises ImageError, binaries.BuildError."""
    path = cache_dir() / "images" / f"conformance-{binaries.KUBERNETES}-{FORMAT}.tar"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        oci.pack(path, _made(names_by_program(_listed())))
    return path


def names_by_program(listed: Iterable[str]) -> Mapping[str, list[str]]:
    """`agnhost` to every version of that image among those that the suite lists; only of the suite's own registry."""
    found: dict[str, list[str]] = {}
    for name in listed:
        if name.startswith(PREFIX):
            found.setdefault(name.removeprefix(PREFIX).rpartition(":")[0], []).append(name)
    return found


def _listed() -> list[str]:
    command = [str(binaries.find("e2e.test")), "--list-images"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()


def _made(names: Mapping[str, list[str]]) -> list[oci.Image]:
    busybox = oci.layer(images.busybox_files())
    debian = _debian()
    tools = [name for program in ("perl", "ipc-utils", "glibc-dns-testing") for name in names.get(program, [])]
    agnhost = (debian, oci.layer(_agnhost()))
    nnp = (busybox, oci.layer(_no_new_privileges()))
    made = [
        oci.Image(names.get("busybox", ()), (busybox,), command=("sh",)),
        oci.Image(names.get("nonroot", ()), (busybox,), command=("sh",), user="1234"),
        oci.Image(names.get("nonewprivs", ()), nnp, command=("nnp",)),
        oci.Image(names.get("agnhost", ()), agnhost, entrypoint=("/agnhost",), command=("pause",)),
        oci.Image(names.get("nginx", ()), (debian,), command=("nginx", "-g", "daemon off;")),
        oci.Image(tools, (debian,), command=("sh",)),
    ]
    if missing := [image for image in made if not image.names]:
        raise ImageError(f"the suite names {len(missing)} images otherwise than before: see {__file__}")
    return made


def _agnhost() -> dict[str, oci.File]:
    # Handlers of HTTPS hooks and probes serve this pair; nobody checks it.
    pair = Authority("agnhost").server("localhost", ["localhost"])
    return {
        "agnhost": oci.File(0o755, binaries.find("agnhost").read_bytes()),
        "agnhost-2": oci.File(0o777, link="agnhost"),
        "localhost.crt": oci.File(0o644, pair.certificate),
        "localhost.key": oci.File(0o644, pair.key),
        "uploads": oci.File(0o755),
        "etc/passwd": oci.File(0o644, AGNHOST_USERS.encode()),
        "etc/group": oci.File(0o644, AGNHOST_GROUPS.encode()),
    }


def _no_new_privileges() -> dict[str, oci.File]:
    program = oci.File(0o6755, binaries.find("nonewprivs").read_bytes())
    return {"usr/local": oci.File(0o755), "usr/local/bin": oci.File(0o755), "usr/local/bin/nnp": program}


def _debian() -> bytes:
    """A layer of this machine's distribution with the tools that specs call; made by debootstrap, as root."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )  # fmt: skip
    suite = release.get("VERSION_CODENAME", "").strip('"')
    debootstrap = shutil.which("debootstrap", path="/usr/sbin:/usr/bin")
    if debootstrap is None or not suite:
        raise ImageError("packing the suite's images needs Debian or Ubuntu with the package debootstrap")
    components = "main,universe" if release.get("ID") == "ubuntu" else "main"
    with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        root = Path(scratch, "root")
        options = ["--variant=minbase", f"--include={','.join(PACKAGES)}", f"--components={components}"]
        done = subprocess.run(
            [debootstrap, *options, suite, root],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise ImageError(f"debootstrap could not make {suite}: {done.stdout.strip()[-500:]}")
        for waste in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists",
                      "var/cache/apt"):  # fmt: skip
            shutil.rmtree(root / waste, ignore_errors=True)
        return oci.layer_of(root)
