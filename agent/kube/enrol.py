"""Become a node of a cluster: with a bootstrap credential to the node's own certificate and a kubeconfig that names it.

In: an API client with any credential that may ask, and where the result lies. Out: the certificate in its place, and
for the first time the kubeconfig. Asking a second time for a node that has one is the same way: nothing is lost before
the new pair is on disk.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.durable_files import write_private
from agent.errors import ConfigError, Permanent, Retryable
from agent.kube.credentials import Access, Credentials
from agent.kube.csr import Signer, request_certificate
from agent.kube.pki import CLIENT, IssuedPair, folder_of
from agent.kube.rest import Api
from agent.kube.x509_facts import Validity, validity

ASK_AGAIN_S = 10.0


async def enrol(api: Api, settings: Settings, clock: Clock) -> Validity:
    """Ask for the client certificate and put it into its place. Raises Permanent, Retryable, ConfigError."""
    issued = await request_certificate(api, Signer.CLIENT, settings.node_name, (), clock, tell_waiting)
    pair = IssuedPair(folder_of(settings), CLIENT)
    try:
        await asyncio.to_thread(pair.put, issued, clock.wall())
        return validity(issued.certificate)
    except OSError as error:
        raise Retryable(f"the certificate cannot be kept in {pair.current.parent}: {error.strerror}") from error
    except ValueError as error:
        raise Permanent("BadCertificate", f"what the cluster signed cannot be used: {error}") from error


async def enrol_with(bootstrap: Path, settings: Settings, clock: Clock) -> tuple[Access, Validity]:
    """The same with the credential of a kubeconfig, which is closed again. Tells also which cluster it was."""
    credentials = await Credentials.load(bootstrap)
    api = Api(credentials)
    try:
        ends = await enrol(api, settings, clock)
    finally:
        await api.close()
    return credentials.access, ends


async def first_enrolment(settings: Settings, clock: Clock) -> None:
    """Where the kubeconfig is missing: ask until there is one. Raises ConfigError, Permanent."""
    bootstrap, kubeconfig = settings.bootstrap_kubeconfig, settings.kubeconfig
    assert bootstrap is not None
    assert kubeconfig is not None
    logger.info("{} is not there yet: asking for this node's certificate with {}", kubeconfig, bootstrap)
    while True:
        try:
            access, ends = await enrol_with(bootstrap, settings, clock)
        except Retryable as error:
            logger.warning("no certificate yet: {}", error)
            await clock.sleep(error.after or ASK_AGAIN_S)
            continue
        write_kubeconfig(kubeconfig, settings, access.server, access.cluster_ca, access.server_hostname)
        logger.info("joined {} as node {}", access.server, settings.node_name)
        logger.debug("the certificate ends at {}", ends.ends)
        return


def write_kubeconfig(
    file: Path, settings: Settings, server: str, ca: bytes | None, server_name: str | None = None
) -> None:
    """0600, in one step. Its user's certificate is the one in CERT_DIR. Raises ConfigError."""
    current = str(IssuedPair(folder_of(settings), CLIENT).current)
    user = {"client-certificate": current, "client-key": current}
    cluster = {"server": server, **_ca(ca), **({"tls-server-name": server_name} if server_name else {})}
    _write(file, cluster, f"system:node:{settings.node_name}", user)


def write_bootstrap_kubeconfig(file: Path, server: str, ca: bytes, token: str) -> None:
    """0600, in one step. Raises ConfigError."""
    _write(file, {"server": server, **_ca(ca)}, "bootstrap", {"token": token})


def tell_waiting(request: str) -> None:
    logger.warning("certificate request {0} waits: kubectl certificate approve {0}", request)


def _ca(ca: bytes | None) -> dict[str, str]:
    return {"certificate-authority-data": base64.b64encode(ca).decode()} if ca else {}


def _write(file: Path, cluster: dict[str, str], user_name: str, user: dict[str, str]) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": cluster}],
        "users": [{"name": user_name, "user": user}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": user_name}}],
        "current-context": "default",
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, json.dumps(content, indent=1).encode() + b"\n")  # JSON is YAML
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
