import json
from pathlib import Path

import pytest

from agent.config import Settings
from agent.errors import Permanent
from agent.model.record import PodRecord
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated
from agent.node.ports import NodeImage, RuntimeHealth
from tests.unit.server.authority import Authority
from tests.unit.server.serving import POD, Silent, served


class Telling(Silent):
    def __init__(self, down: str = "") -> None:
        self.down = down

    async def health(self) -> RuntimeHealth:
        return RuntimeHealth(down=self.down)

    async def images(self) -> tuple[NodeImage, ...]:
        return ()

    def with_status(self) -> list[tuple[PodRecord, PodStatus | None]]:
        up = ContainerStatus(name="main", state=State(running=Running()))
        over = ContainerStatus(name="first", state=State(terminated=Terminated()))
        record = PodRecord.decode(POD)
        running = PodStatus(phase=Phase.RUNNING, initContainerStatuses=(over,), containerStatuses=(up,))
        return [(record, running), (record, None), (record, PodStatus(phase=Phase.PENDING))]


async def test_health_has_its_checks_and_tells_no_reason_in_the_sum(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with served(settings, Telling(), authority.pem, admin) as api:
        for path in ("/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"):
            assert await api.get(path) == (200, "ok")
        verbose = "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n"
        assert await api.get("/healthz?verbose") == (200, verbose)
        assert (await api.get("/healthz/none"))[0] == 404
    async with served(settings, Telling("containerd has not answered"), authority.pem, admin) as api:
        told = "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n"
        assert await api.get("/healthz") == (500, told)
        assert await api.get("/healthz?exclude=syncloop") == (200, "ok")
        assert await api.get("/healthz/ping") == (200, "ok")
        failed = (500, "internal server error: containerd has not answered")
        assert await api.get("/healthz/syncloop") == failed


async def test_another_cluster_fails_a_check_of_its_own(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Telling(), authority.pem, admin) as api:
        assert await api.get("/healthz/cluster") == (200, "ok")
    async with served(settings, Telling(), authority.pem, admin, foreign="it is another") as api:
        status, text = await api.get("/healthz/cluster")
        assert (status, "it is another" in text) == (500, True)
        # An agent that is started anew for it would be no better.
        assert await api.get("/healthz") == (200, "ok")


@pytest.mark.parametrize("path", ["/runningpods/", "/runningpods"])
async def test_running_pods_are_those_with_a_container_that_runs(
    settings: Settings, authority: Authority, admin: Path, path: str
) -> None:
    async with served(settings, Telling(), authority.pem, admin) as api:
        status, text = await api.get(path)
    assert status == 200
    assert json.loads(text)["items"] == [
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
            "spec": {"containers": [{"name": "main", "image": "i"}]},
            "status": {},
        }
    ]


async def test_the_settings_are_shown_without_what_may_hold_a_password(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        status, text = await api.get("/configz")
    told = json.loads(text)["kubeletconfig"]
    assert (status, told["maxPods"], told["authorizationMode"], told["resolvConf"]) == (
        200, 110, "Webhook", "/etc/resolv.conf",
    )  # fmt: skip
    assert "store" not in told


class Checkpointing(Silent):
    def __init__(self, refusal: Permanent | None) -> None:
        self.refusal = refusal

    async def checkpoint_container(self, namespace: str, pod: str, container: str, timeout_s: int) -> str:
        if self.refusal is not None:
            raise self.refusal
        return f"/{namespace}/{pod}/{container}/{timeout_s}"


CHECKPOINT = "/checkpoint/shop/web/main"


async def test_a_checkpoint_is_the_path_of_its_archive(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Checkpointing(None), authority.pem, admin) as api:
        assert await api.get(CHECKPOINT + "?timeout=7", "POST") == (200, '{"items": ["/shop/web/main/7"]}')
        assert await api.get(CHECKPOINT + "?timeout=x", "POST") == (400, "cannot parse value of timeout parameter")
        assert await api.get("/checkpoint/shop/none/main", "POST") == (404, "pod does not exist")
        assert await api.get("/checkpoint/shop/web/none", "POST") == (404, "container none does not exist")
        assert (await api.get(CHECKPOINT))[0] == 405


async def test_where_no_checkpoint_can_be_made_that_is_said(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert (await api.get(CHECKPOINT, "POST"))[0] == 501
    unserved = Permanent("Unimplemented", "the runtime does not serve it")
    async with served(settings, Checkpointing(unserved), authority.pem, admin) as api:
        failed = "checkpointing of shop/web/main failed (the runtime does not serve it)"
        assert await api.get(CHECKPOINT, "POST") == (501, failed)
    async with served(settings, Checkpointing(Permanent("", "no criu")), authority.pem, admin) as api:
        assert await api.get(CHECKPOINT, "POST") == (400, "checkpointing of shop/web/main failed (no criu)")
