"""The keeper of the client certificate beside an API server that signs, refuses, or is away."""

import asyncio
import base64
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from loguru import logger

from agent.config import Settings
from agent.errors import EdgeletError
from agent.kube.credentials import Access, Credentials
from agent.kube.pki import CLIENT, IssuedPair
from agent.kube.rest import Api
from agent.kube.rotation import ClientCertificate
from agent.kube.x509_facts import Validity, validity
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.clock import FakeClock
from tests.unit.server.authority import Authority

PREFIX, RESOURCE = "/apis/certificates.k8s.io/v1", "certificatesigningrequests"
AUTHORITY = Authority()
YOUNG, LATE, ENDED = (-1000.0, 1000.0), (-1000.0, 50.0), (-1000.0, -10.0)
"""Seconds from now in which a certificate begins and ends."""


class House:
    """`look` is one look of the keeper, while the API server signs whatever is asked."""

    def __init__(self, server: FakeApiServer, folder: Path, life: tuple[float, float], settings: Settings) -> None:
        self.server = server
        self.clock = FakeClock()
        self.pair = IssuedPair(folder / "pki", CLIENT)
        now = time.time()
        access = Access(server=server.url, user="edge", certificate=Validity(now + life[0], now + life[1]))
        kubeconfig = server.kubeconfig(folder)
        seen = ((str(kubeconfig), 0, 0), (str(self.pair.current), 0, 0))
        self.api = Api(credentials := Credentials(str(kubeconfig), access, seen))
        self.keeper = ClientCertificate(self.api, credentials, settings, self.clock, chance=lambda: 0.5)

    async def hear(self) -> None:
        """An answer of the API server, whatever it is."""
        with contextlib.suppress(EdgeletError):
            await self.api.get("/api/v1/nodes/edge")

    async def look(self) -> float:
        looked = asyncio.ensure_future(self.keeper.look())
        while not looked.done():
            await asyncio.wait((looked,), timeout=0.005)
            for request in self.server.all(RESOURCE):
                pem = _signed(base64.b64decode(request["spec"]["request"]))
                status = {"certificate": base64.b64encode(pem).decode()}
                self.server.put(RESOURCE, request["metadata"]["name"], namespace="", prefix=PREFIX, status=status)
            await self.clock.advance(1.0)
        return await looked

    @property
    def asked(self) -> int:
        return len(self.server.seen("POST", RESOURCE))


def _signed(request: bytes) -> bytes:
    asked = x509.load_pem_x509_csr(request)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(AUTHORITY.certificate.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(AUTHORITY._key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
async def houses(server: FakeApiServer, tmp_path: Path) -> AsyncIterator["Houses"]:
    made = Houses(server, tmp_path)
    yield made
    for house in made.made:
        await house.api.close()


class Houses:
    def __init__(self, server: FakeApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.made: list[House] = []

    def __call__(self, life: tuple[float, float], *, rotate: bool = True, bootstrap: bool = False) -> House:
        bootstrap_kubeconfig = self._folder / "kubeconfig" if bootstrap else None
        settings = Settings(
            node_name="edge",
            root_dir=self._folder,
            rotate_certificates=rotate,
            bootstrap_kubeconfig=bootstrap_kubeconfig,
        )
        self.made.append(House(self._server, self._folder, life, settings))
        return self.made[-1]


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    ear = logger.add(lambda message: lines.append(str(message.record["message"])), level="INFO")
    yield lines
    logger.remove(ear)


async def test_late_in_its_life_it_is_renewed(houses: Houses) -> None:
    house = houses(LATE)
    await house.hear()
    await house.look()
    assert house.asked == 1
    assert validity(house.pair.current.read_bytes()).ends > time.time() + 3000


async def test_early_in_its_life_it_is_not(houses: Houses) -> None:
    house = houses(YOUNG)
    await house.hear()
    assert 0 < await house.look() <= 60
    assert house.asked == 0


async def test_before_the_api_server_has_answered_the_machines_clock_decides_nothing(houses: Houses) -> None:
    for life in (LATE, ENDED):
        house = houses(life)
        await house.look()
        assert house.asked == 0


async def test_a_refused_one_that_is_still_good_is_left_alone(houses: Houses) -> None:
    house = houses(LATE, bootstrap=True)
    house.server.fail(401, times=100)
    await house.hear()
    await house.look()
    assert house.asked == 0


async def test_one_that_ended_is_asked_for_anew_with_what_was_left_on_the_machine(
    houses: Houses, said: list[str]
) -> None:
    house = houses(ENDED, bootstrap=True)
    house.server.fail(401, times=1)
    house.api._credentials._not_before = float("inf")  # the kubeconfig has nothing newer
    await house.hear()
    await house.look()
    assert house.asked == 1
    assert house.server.seen("POST", RESOURCE)[0].authorization == "Bearer secret-token"
    assert house.pair.current.exists()
    assert any("asking for another with" in line for line in said)


async def test_without_that_the_log_says_once_what_to_do(houses: Houses, said: list[str]) -> None:
    house = houses(ENDED)
    house.server.fail(401, times=1)
    house.api._credentials._not_before = float("inf")
    await house.hear()
    waits = [await house.look() for _ in range(3)]
    assert house.asked == 0
    (line,) = [line for line in said if "edgelet join" in line]
    assert f"edgelet join {house.server.url} --nodename edge" in line
    assert max(waits) <= 5


async def test_where_renewal_is_off_the_end_is_announced_once(houses: Houses, said: list[str]) -> None:
    house = houses(LATE, rotate=False)
    await house.hear()
    for _ in range(3):
        await house.look()
    assert house.asked == 0
    assert len([line for line in said if "--rotate-certificates is off" in line]) == 1
