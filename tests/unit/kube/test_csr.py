import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from agent.errors import Forbidden, Permanent, Retryable
from agent.kube.csr import Signer, request_certificate
from agent.kube.pki import Issued
from agent.kube.rest import Api
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.clock import FakeClock

PREFIX = "/apis/certificates.k8s.io/v1"
RESOURCE = "certificatesigningrequests"


class Asking:
    """A request under way, and a clock that runs fast beside it."""

    def __init__(self, api: Api, server: FakeApiServer) -> None:
        self.server = server
        self.clock = FakeClock()
        self.waiting: list[str] = []
        self._api = api

    async def result(
        self,
        answer: Callable[[dict[str, Any]], None],
        signer: Signer = Signer.CLIENT,
        names: tuple[str, ...] = (),
        is_obsolete: Callable[[], Awaitable[bool]] | None = None,
    ) -> Issued:
        """`answer` is called again and again with the request as the API server has it."""
        asked = asyncio.ensure_future(
            request_certificate(self._api, signer, "edge-1", names, self.clock, self.waiting.append, is_obsolete)
        )
        while not asked.done():
            await asyncio.wait((asked,), timeout=0.005)
            for found in self.server.all(RESOURCE):
                answer(found)
            await self.clock.advance(1.0)
        return await asked

    def status(self, request: dict[str, Any], **status: Any) -> None:
        self.server.put(RESOURCE, request["metadata"]["name"], namespace="", prefix=PREFIX, status=status)


@pytest.fixture
def asking(api: Api, server: FakeApiServer) -> Asking:
    return Asking(api, server)


async def test_a_node_asks_as_a_node_and_takes_what_was_signed(asking: Asking) -> None:
    certificate = base64.b64encode(b"PEM").decode()
    issued = await asking.result(lambda request: asking.status(request, certificate=certificate))
    assert issued.certificate == b"PEM"
    assert issued.key.startswith(b"-----BEGIN PRIVATE KEY-----")
    (made,) = asking.server.seen("POST")
    spec = made.body["spec"]
    assert spec["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert spec["usages"] == ["digital signature", "client auth"]
    request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    subject = {attribute.oid: attribute.value for attribute in request.subject}
    assert subject == {NameOID.ORGANIZATION_NAME: "system:nodes", NameOID.COMMON_NAME: "system:node:edge-1"}
    assert len(request.extensions) == 0
    assert b"PRIVATE" not in base64.b64decode(spec["request"])


async def test_a_serving_certificate_is_asked_for_with_names_and_addresses(asking: Asking) -> None:
    certificate = base64.b64encode(b"PEM").decode()
    names = ("10.0.0.7", "edge-1", "fd00::7")
    await asking.result(lambda request: asking.status(request, certificate=certificate), Signer.SERVING, names)
    spec = asking.server.seen("POST")[0].body["spec"]
    assert spec["usages"] == ["digital signature", "server auth"]
    request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["edge-1"]
    assert {str(address) for address in found.get_values_for_type(x509.IPAddress)} == {"10.0.0.7", "fd00::7"}


async def test_a_denied_request_says_why(asking: Asking) -> None:
    denied = {"type": "Denied", "status": "True", "message": "not this one"}
    with pytest.raises(Permanent, match="not this one"):
        await asking.result(lambda request: asking.status(request, conditions=[denied]))


async def test_one_that_waits_for_a_person_is_told_once(asking: Asking) -> None:
    rounds = 0

    def answer(request: dict[str, Any]) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 60:
            asking.server.fail(503)  # an outage in between is ridden out
        if rounds == 90:
            asking.status(request, certificate=base64.b64encode(b"PEM").decode())

    await asking.result(answer)
    assert len(asking.waiting) == 1
    # Asked ever more seldom.
    assert len(asking.server.seen("GET")) < 25


async def test_one_that_was_removed_is_made_again_by_the_caller(asking: Asking) -> None:
    with pytest.raises(Retryable, match="removed before it was signed"):
        await asking.result(
            lambda request: asking.server.remove(RESOURCE, request["metadata"]["name"], namespace="", prefix=PREFIX)
        )


async def test_one_for_former_addresses_is_given_up(asking: Asking) -> None:
    async def is_obsolete() -> bool:
        return True

    with pytest.raises(Retryable, match="what the node was before"):
        await asking.result(lambda _: None, is_obsolete=is_obsolete)


async def test_who_may_not_ask_is_told(asking: Asking) -> None:
    asking.server.fail(401, times=2)
    with pytest.raises(Forbidden):
        await asking.result(lambda _: None)
