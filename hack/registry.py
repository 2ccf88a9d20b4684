"""A registry of our own on loopback: Debian's docker-registry, plain or with a certificate, open or asking for a login.

Images get into it as they are packed here, over its API, and its access log says what was asked of it.
"""

import base64
import json
import re
import shutil
import ssl
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from hack import debian, oci
from hack.pki import Pair
from hack.processes import Daemon, free_port
from hack.token_server import ISSUER, SERVICE, TokenServer

USER, PASSWORD = "edge", "word-of-the-registry"
"""Of every registry that wants one."""
_HTPASSWD = f"{USER}:$2b$04$LSNtBhgmKJ8591GUWGfms.Hfj461TbeN/eoGoixzGoSVv6D8RFxCS\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """`start` returns when it answers; its address stays the same over restarts."""

    def __init__(
        self,
        folder: Path,
        *,
        pair: Pair | None = None,
        password: bool = False,
        client: tuple[bytes, Pair] | None = None,
        tokens: tuple[bytes, TokenServer] | None = None,
    ) -> None:
        """`pair`: it speaks HTTPS with this certificate, of 127.0.0.1. `password`: it wants `USER` and `PASSWORD`.

        `client`: it wants a certificate of this authority, and the second is such a one.
        `tokens`: it wants a token of that server, whose key this authority vouches for.
        """
        folder.mkdir(parents=True)
        self._folder = folder
        self._has_password = password
        self._tokens = tokens[1] if tokens is not None else None
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE  # its own test trusts it
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http{'s' if pair else ''}://{self.address}"
        http: dict[str, object] = {"addr": self.address, "secret": "of a test"}
        if pair is not None:
            certificate, key = self.keep(pair, "tls")
            tls: dict[str, object] = {"certificate": str(certificate), "key": str(key)}
            http["tls"] = tls
            if client is not None:
                (folder / "clients.crt").write_bytes(client[0])
                tls["clientcas"] = [str(folder / "clients.crt")]
                self._context.load_cert_chain(*self.keep(client[1], "client"))
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
            "http": http,
        }
        if password:
            (folder / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        if tokens is not None:
            (folder / "tokens.crt").write_bytes(tokens[0])
            config["auth"] = {
                "token": {
                    "realm": tokens[1].url,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(folder / "tokens.crt"),
                }
            }
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        self.daemon = Daemon("registry", [_program(), "serve", folder / "config.yml"], folder)

    def keep(self, pair: Pair, name: str) -> tuple[Path, Path]:
        """The files of a certificate and its key."""
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        for file, content in zip(files, (pair.certificate, pair.key), strict=True):
            file.write_bytes(content)
        return files

    def start(self) -> None:
        """Raises DaemonError."""
        self.daemon.start()
        self.daemon.wait_ready(self._answers, 10)

    def stop(self) -> None:
        self.daemon.stop()

    def push(self, image: oci.Image, repository: str, tag: str) -> str:
        """Put the image there; the digest of its manifest."""
        archive = self._folder / "pushed.tar"
        oci.pack(archive, [replace(image, names=("pushed",))])
        with tarfile.open(archive) as packed:
            blobs = {
                f"sha256:{entry.name.rpartition('/')[2]}": packed.extractfile(entry).read()  # type: ignore[union-attr]
                for entry in packed
                if entry.name.startswith("blobs/")
            }
            index = json.loads(packed.extractfile("index.json").read())  # type: ignore[union-attr]
        archive.unlink()
        digest = str(index["manifests"][0]["digest"])
        manifest = blobs.pop(digest)
        for name, content in blobs.items():
            self._upload(repository, name, content)
        self._call("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST})
        return digest

    def asked(self) -> list[str]:
        """What was answered well so far, as `GET /v2/NAME/manifests/TAG`, in order."""
        lines = self.daemon.log.read_text(errors="replace")
        return re.findall(r'"((?:GET|HEAD) \S+) HTTP/[0-9.]+" 200 ', lines)

    def pulled(self) -> set[str]:
        """Repositories of which a manifest was fetched."""
        found = (re.fullmatch(r"(?:GET|HEAD) /v2/(.+)/manifests/[^?]+(?:\?.*)?", one) for one in self.asked())
        return {match[1] for match in found if match}

    def _upload(self, repository: str, digest: str, content: bytes) -> None:
        location = self._call("POST", f"/v2/{repository}/blobs/uploads/", b"")["Location"]
        path = location.removeprefix(self.url)
        octets = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content, octets)

    def _answers(self) -> bool:
        try:
            self._call("GET", "/v2/")
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """The answer's headers. Raises OSError."""
        request = urllib.request.Request(f"{self.url}{path}", body, dict(headers or {}), method=method)
        if self._has_password:
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {login}")
        if self._tokens is not None and (named := re.match(r"/v2/(.+)/(?:blobs|manifests)/", path)):
            token = self._tokens.token([f"repository:{named[1]}:pull,push"])
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10, context=self._context) as answer:
            answer.read()
            return dict(answer.headers)


def _program() -> Path:
    """The installed one, else that of the distribution's package, unpacked: installing it would start a service."""
    if found := shutil.which("docker-registry"):
        return Path(found)
    root = debian.unpacked("docker-registry")
    if root is None or not (root / "usr/bin/docker-registry").exists():
        raise FileNotFoundError("no docker-registry on this machine: install the package of that name")
    return root / "usr/bin/docker-registry"
