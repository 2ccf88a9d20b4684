"""A certificate from the cluster: a key made here, a CertificateSigningRequest, and the wait until it is signed.

In: which signer, the node's name and its other names. Out: an `Issued` pair. Whoever approves (a controller for a
node's client certificate, a person or a policy for a serving one) may take minutes or days: the wait asks ever more
seldom and rides the API server's outages out.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec

from agent import apart
from agent.clock import Clock
from agent.errors import NotFound, Permanent, Retryable
from agent.kube.pki import Issued, KeyAndRequest
from agent.kube.rest import Api

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
FIRST_LOOK_S = 0.1
LONGEST_PAUSE_S = 30.0
TELL_AFTER_S = 10.0
"""A request that still waits then is worth a word: somebody has to approve it."""


class Signer(StrEnum):
    CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
    SERVING = "kubernetes.io/kubelet-serving"


class _Condition(msgspec.Struct):
    type: str
    status: str = "True"
    reason: str = ""
    message: str = ""


class _Status(msgspec.Struct):
    conditions: tuple[_Condition, ...] = ()
    certificate: bytes = b""


class _Meta(msgspec.Struct):
    name: str


class _Request(msgspec.Struct):
    metadata: _Meta
    status: _Status = msgspec.field(default_factory=_Status)


_decoder = msgspec.json.Decoder(_Request)


async def key_and_request(node_name: str, names: Sequence[str] = ()) -> KeyAndRequest:
    """In a process of its own, unless the library is loaded anyway."""
    if "cryptography.x509" in sys.modules:
        from agent.kube.signing_request import made

        return await asyncio.to_thread(made, node_name, names)
    process = await asyncio.create_subprocess_exec(
        *apart.command("agent.kube.signing_request", node_name, *names),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await process.communicate()
    if process.returncode != 0:
        raise Retryable(f"a key could not be made: its process ended with code {process.returncode}")
    return msgspec.json.decode(answer, type=KeyAndRequest)


async def request_certificate(
    api: Api,
    signer: Signer,
    node_name: str,
    names: Sequence[str],
    clock: Clock,
    waiting: Callable[[str], None],
    is_obsolete: Callable[[], Awaitable[bool]] | None = None,
) -> Issued:
    """Ask and wait. `waiting` is told the request's name once where nobody has approved it for a while; `is_obsolete`
    says while it waits that it would be no use any more.

    Raises Permanent (denied, failed), Forbidden, or Retryable where asking anew may help.
    """
    pair = await key_and_request(node_name, names)
    usage = "client auth" if signer is Signer.CLIENT else "server auth"
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "signerName": str(signer),
            "request": base64.b64encode(pair.request).decode(),
            "usages": ["digital signature", usage],
        },
    }
    name = _decoded(await api.post(REQUESTS, msgspec.json.encode(body))).metadata.name
    began, pause, told = clock.monotonic(), FIRST_LOOK_S, False
    while True:
        await clock.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_S)
        try:
            status = _decoded(await api.get(f"{REQUESTS}/{name}")).status
        except Retryable:
            continue
        except NotFound as error:
            # Controllers remove one that nobody approved for a day.
            raise Retryable(f"certificate request {name} was removed before it was signed") from error
        for condition in status.conditions:
            if condition.type in ("Denied", "Failed") and condition.status != "False":
                why = condition.message or condition.reason
                raise Permanent(condition.type, f"certificate request {name}: {condition.type}: {why}")
        if status.certificate:
            return Issued(status.certificate, pair.key)
        if is_obsolete is not None and await is_obsolete():
            raise Retryable(f"certificate request {name} is for what the node was before")
        if not told and clock.monotonic() - began >= TELL_AFTER_S:
            told = True
            waiting(name)


def _decoded(answer: bytes) -> _Request:
    try:
        return _decoder.decode(answer)
    except msgspec.DecodeError as error:
        raise Retryable(f"{REQUESTS}: the answer is no certificate request: {error}") from error
