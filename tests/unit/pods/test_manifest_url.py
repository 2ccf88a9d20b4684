"""Static pods from a URL, asked over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from loguru import logger

from agent.errors import Permanent, Retryable
from agent.model.record import Origin, PodRecord
from agent.pods.manifest_url import ManifestUrl, fetch_manifest, watch_manifest_url
from agent.pods.static_pods import LONGEST_BYTES
from tests.fakes.waiting import eventually

WEB = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: nginx}]}}"
LIST = f'{{"apiVersion": "v1", "kind": "PodList", "items": [{WEB}]}}'


@dataclass
class Page:
    content: bytes = WEB.encode()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.headers = dict(request.headers)
        return web.Response(body=self.content, status=self.status)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    page = Page()
    app = web.Application()
    app.router.add_get("/pods", page.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    page.url = f"http://127.0.0.1:{runner.addresses[0][1]}/pods"
    yield page
    await runner.cleanup()


@pytest.fixture
def told() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.strip()), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
async def sets(page: Page) -> AsyncIterator[list[list[str]]]:
    found: list[list[str]] = []
    watching = asyncio.ensure_future(_collect(page, found))
    yield found
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def _collect(page: Page, found: list[list[str]], known: Iterable[PodRecord] = ()) -> None:
    async with aclosing(watch_manifest_url(ManifestUrl(page.url, {}, 0.01), "n1", known)) as sets:
        async for pods in sets:
            found.append([pod.pod.metadata.name for pod in pods])


async def test_a_pod_or_a_list_is_told_when_it_changes(page: Page, sets: list[list[str]]) -> None:
    await eventually(lambda: sets == [["web-n1"]])
    before = page.asked
    await eventually(lambda: page.asked > before + 2)
    page.content = LIST.replace("web", "other").encode()
    await eventually(lambda: sets == [["web-n1"], ["other-n1"]])
    page.content = b'{"apiVersion": "v1", "kind": "PodList", "items": []}'
    await eventually(lambda: sets[-1] == [])


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"", 200, "the manifest is empty"),
        (b"<html>", 200, "a document is not an object"),
        (b"gone", 500, "HTTP 500 Internal Server Error"),
    ],
)
async def test_a_bad_answer_is_told_once_and_takes_no_pod_away(
    page: Page, sets: list[list[str]], told: list[str], content: bytes, status: int, why: str
) -> None:
    await eventually(lambda: sets)
    good, page.content, page.status = page.content, content, status
    before = page.asked
    await eventually(lambda: page.asked > before + 2)
    shown = page.url
    assert told == [f"manifest {shown}: {why}; its last good pods stay"]
    page.content, page.status = good, 200
    await eventually(lambda: told[1:] == [f"manifest {shown}: is good again"])
    assert sets == [["web-n1"]]


async def test_pods_of_a_url_are_static_pods_with_their_own_source_and_no_toleration_of_taints(page: Page) -> None:
    async with aclosing(watch_manifest_url(ManifestUrl(page.url, {}, 1), "n1")) as sets:
        (record,) = await anext(sets)
    assert record.origin is Origin.HTTP
    assert record.pod.is_static
    assert record.pod.spec.tolerations == ()
    annotations = record.pod.metadata.annotations or {}
    assert annotations["kubernetes.io/config.source"] == "http"
    assert annotations["kubernetes.io/config.hash"] == record.uid
    assert "io.edgelet.manifest" not in annotations
    # After a restart it is the same pod, since the same moment.
    async with aclosing(watch_manifest_url(ManifestUrl(page.url, {}, 1), "n1", [record])) as sets:
        assert (await anext(sets))[0] is record


async def test_headers_are_sent_and_an_answer_may_not_be_endless(page: Page) -> None:
    await fetch_manifest(page.url, {"Authorization": "Bearer x", "X-Site": "a"})
    assert (page.headers["Authorization"], page.headers["X-Site"]) == ("Bearer x", "a")
    page.content = b"#" * (LONGEST_BYTES + 1)
    with pytest.raises(Permanent, match="longer than"):
        await fetch_manifest(page.url, {})
    with pytest.raises(Retryable):
        await fetch_manifest(page.url.replace("/pods", "/none"), {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a:b@host:1/x?token=y", "https://host:1/x"),
        ("http://host", "http://host"),
    ],
)
def test_what_a_url_hides_is_not_shown(url: str, shown: str) -> None:
    assert ManifestUrl(url, {}, 1).shown == shown
