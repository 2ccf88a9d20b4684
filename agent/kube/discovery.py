"""Find a cluster and make sure that it is the one that is meant, before it is told any secret.

In: an address and a bootstrap token with the CA's hash (as kubeadm does it), or a CA file, or a discovery file. Out: a
`Cluster`. By token: the ConfigMap kube-public/cluster-info is read over a connection that nothing vouches for, its
signature is checked with the token, its CA against the hash, then it is read again over a connection that this CA
vouches for. Blocks; called in a thread.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from agent.errors import ConfigError, Permanent, Retryable
from agent.kube import x509_facts
from agent.kube.bootstrap_token import BootstrapToken

CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
CALL_TIMEOUT_S = 10.0
LIMIT_BYTES = 1 << 20
UNTRUSTED = "Untrusted"
_OTHER_WAYS = "use --ca-file with the cluster's CA, or --discovery-file"


class Cluster(msgspec.Struct, frozen=True):
    server: str
    """Base URL."""
    ca: bytes
    """PEM."""


def server_url(address: str) -> str:
    """https://A:6443 of that, or of A:6443. Raises ValueError."""
    text = address if "//" in address else f"https://{address}"
    url = urlsplit(text)
    if url.scheme != "https" or not url.hostname or url.query or url.fragment:
        raise ValueError(f"{address!r} is not the address of an API server, like https://10.0.0.1:6443")
    return text.rstrip("/")


def by_token(server: str, token: BootstrapToken, hashes: Sequence[str]) -> Cluster:
    """`hashes` may be empty where the owner trusts the signature alone.

    Raises Permanent where the cluster isn't the one that is meant, Retryable where it doesn't answer.
    """
    unsafe = ssl.create_default_context()
    unsafe.check_hostname = False
    unsafe.verify_mode = ssl.CERT_NONE  # the answer is a claim: the token's signature and the hash judge it
    kubeconfig = _signed_kubeconfig(_ask(server, unsafe), token)
    ca = _cluster(kubeconfig, "cluster-info").ca
    if hashes:
        _check_hashes(ca, hashes)
    if _signed_kubeconfig(_ask(server, trusting(ca)), token) != kubeconfig:
        raise Permanent(UNTRUSTED, "cluster-info was another one over the verified connection")
    return Cluster(server, ca)


def by_ca_file(server: str, file: Path) -> Cluster:
    """Raises ConfigError."""
    try:
        ca = file.read_bytes()
        trusting(ca)
    except OSError as error:
        raise ConfigError(f"--ca-file {file}: {error.strerror}") from error
    except Permanent as error:
        raise ConfigError(f"--ca-file {file}: {error}") from error
    return Cluster(server, ca)


def by_file(file: Path, server: str = "") -> Cluster:
    """A kubeconfig with at least a cluster in it; `server` wins over its address. Raises ConfigError."""
    try:
        found = _cluster(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError, Permanent) as error:
        raise ConfigError(f"--discovery-file: {error}") from error
    return Cluster(server or found.server, found.ca)


def trusting(ca: bytes) -> ssl.SSLContext:
    """Raises Permanent where the CA is none."""
    try:
        context = ssl.create_default_context(cadata=ca.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise Permanent(UNTRUSTED, "not a CA certificate (PEM)") from error
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as for every other connection to the API server
    return context


def _ask(server: str, context: ssl.SSLContext) -> dict[str, Any]:
    """The ConfigMap's data, asked for without any credential."""
    try:
        with urllib.request.urlopen(server + CLUSTER_INFO, context=context, timeout=CALL_TIMEOUT_S) as answer:  # noqa: S310 - https only
            found = json.loads(answer.read(LIMIT_BYTES))
        data = found["data"]
        return dict(data)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            what = "has none" if error.code == 404 else "doesn't show it to who has no credential"
            raise Permanent(UNTRUSTED, f"cluster-info: {server} {what}: {_OTHER_WAYS}") from error
        raise Retryable(f"cluster-info: {server} answers {error.code}") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            why = reason.verify_message
            raise Permanent(UNTRUSTED, f"{server}: its certificate is not of this cluster's CA: {why}") from error
        raise Retryable(f"{server} does not answer: {reason}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise Permanent(UNTRUSTED, f"{server}: what it shows is no cluster-info") from error


def _signed_kubeconfig(data: dict[str, Any], token: BootstrapToken) -> str:
    kubeconfig, signature = data.get("kubeconfig"), data.get(f"jws-kubeconfig-{token.id}")
    if not isinstance(kubeconfig, str):
        raise Permanent(UNTRUSTED, f"cluster-info has no kubeconfig in it: {_OTHER_WAYS}")
    if not isinstance(signature, str):
        raise Permanent(UNTRUSTED, f"the cluster does not know token {token.id}: has it expired? (kubeadm token list)")
    if not token.has_signed(kubeconfig, signature):
        raise Permanent(UNTRUSTED, f"cluster-info is not signed by token {token.id}: wrong token, or another cluster")
    return kubeconfig


def _cluster(kubeconfig: str, name: str) -> Cluster:
    try:
        content = yaml.safe_load(kubeconfig)
        contexts = {entry["name"]: entry["context"]["cluster"] for entry in content.get("contexts") or ()}
        clusters = {entry["name"]: entry["cluster"] for entry in content["clusters"]}
        chosen = clusters[contexts.get(content.get("current-context"), next(iter(clusters)))]
        ca = base64.b64decode(chosen["certificate-authority-data"], validate=True)
        server = server_url(chosen["server"])
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError, StopIteration) as error:
        what = "no kubeconfig with a cluster, its server and certificate-authority-data"
        raise Permanent(UNTRUSTED, f"{name}: {what}") from error
    trusting(ca)
    return Cluster(server, ca)


def _check_hashes(ca: bytes, hashes: Sequence[str]) -> None:
    try:
        found = [x509_facts.public_key_hash(der) for der in x509_facts.certificates(ca)]
    except ValueError as error:
        raise Permanent(UNTRUSTED, f"the cluster's CA: {error}") from error
    if not set(found) & {wanted.lower() for wanted in hashes}:
        raise Permanent(UNTRUSTED, f"the cluster's CA has the hash {', '.join(found)}, not --ca-cert-hash")
