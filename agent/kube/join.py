"""`edgelet join`: make this machine a node of a cluster, with nothing but a bootstrap token.

In: the settings and what was asked for. Out: the certificate in CERT_DIR, the kubeconfig, one line on stdout. Every way
of finding the cluster ends in a CA that is vouched for; only then is the token sent. Running it again is how a node
whose certificate ended comes back: an agent that runs takes the new one up.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.clock import SystemClock
from agent.config import JOINED_KUBECONFIG, Settings
from agent.errors import ConfigError, Forbidden, Permanent
from agent.kube import discovery
from agent.kube.bootstrap_token import BootstrapToken
from agent.kube.discovery import Cluster
from agent.kube.enrol import enrol_with, write_bootstrap_kubeconfig, write_kubeconfig
from agent.kube.pki import CLIENT, IssuedPair, folder_of

_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}")


def run(settings: Settings, asked: Mapping[str, Any]) -> int:
    """The exit code. Raises ConfigError, Permanent, Retryable."""
    token = _token(asked["token"])
    kubeconfig = settings.kubeconfig or JOINED_KUBECONFIG
    _refuse_to_replace(kubeconfig, settings)
    cluster = _find(asked, token)
    asyncio.run(_join(settings, kubeconfig, cluster, token))
    print(f"joined {cluster.server} as node {settings.node_name}: edgelet run --kubeconfig {kubeconfig}")
    return 0


async def _join(settings: Settings, kubeconfig: Path, cluster: Cluster, token: BootstrapToken) -> None:
    with tempfile.TemporaryDirectory(prefix="edgelet-join-") as folder:
        bootstrap = Path(folder) / "kubeconfig"
        write_bootstrap_kubeconfig(bootstrap, cluster.server, cluster.ca, str(token))
        try:
            await enrol_with(bootstrap, settings, SystemClock())
        except Forbidden as error:
            where = "config/cluster/join.yaml gives a token's group the rights"
            raise Permanent(
                error.reason, f"token {token.id} may not ask for a certificate: {error} ({where})"
            ) from error
    write_kubeconfig(kubeconfig, settings, cluster.server, cluster.ca)
    kept = settings.bootstrap_kubeconfig
    if kept is not None and not kept.exists():
        write_bootstrap_kubeconfig(kept, cluster.server, cluster.ca, str(token))


def _find(asked: Mapping[str, Any], token: BootstrapToken) -> Cluster:
    hashes, ca_file, file = asked["ca_cert_hash"] or [], asked["ca_file"], asked["discovery_file"]
    unpinned = asked["skip_ca_verification"]
    if sum((bool(hashes), ca_file is not None, file is not None, unpinned)) != 1:
        raise ConfigError("say once how to know the cluster: --ca-cert-hash, --ca-file or --discovery-file")
    for given in hashes:
        if _HASH.fullmatch(given) is None:
            raise ConfigError(f"--ca-cert-hash: not sha256: and 64 hexadecimal digits: {given}")
    try:
        server = discovery.server_url(asked["server"]) if asked["server"] else ""
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if file is not None:
        return discovery.by_file(Path(file), server)
    if not server:
        raise ConfigError("no API server given; see edgelet join --help")
    if ca_file is not None:
        return discovery.by_ca_file(server, Path(ca_file))
    return discovery.by_token(server, token, hashes)


def _token(given: str | None) -> BootstrapToken:
    """Also from a file: arguments can be read by everybody on the machine."""
    if not given:
        raise ConfigError("--token is missing: ID.SECRET, or a file that has it")
    try:
        text = Path(given).read_text(encoding="utf-8") if "/" in given else given
        return BootstrapToken.parse(text)
    except OSError as error:
        raise ConfigError(f"--token {given}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--token: {error}") from error


def _refuse_to_replace(kubeconfig: Path, settings: Settings) -> None:
    """Another credential than a node's own, an administrator's say, is not overwritten."""
    try:
        content = kubeconfig.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--kubeconfig {kubeconfig}: {error}") from error
    if str(IssuedPair(folder_of(settings), CLIENT).current) not in content:
        raise ConfigError(
            f"{kubeconfig} is there already, and not from edgelet join: move it away, or --kubeconfig FILE"
        )
