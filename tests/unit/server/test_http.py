import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from loguru import logger
from msgspec.structs import replace

from agent.config import Settings
from agent.errors import ConfigError, NotFound, Permanent, Retryable
from agent.model.logs import LogOptions
from agent.pods.logs import read_log
from agent.server.http import KubeletServer
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.authority import Authority, client_context
from tests.unit.server.serving import Silent, served


class Provider(Silent):
    """Its log is the list, one block each; an exception in it is raised, an event in it is waited for."""

    def __init__(self, *blocks: bytes | BaseException | asyncio.Event) -> None:
        self.blocks = blocks
        self.asked: list[tuple[str, str, str, LogOptions]] = []
        self.closed = asyncio.Event()

    async def get_container_logs(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        self.asked.append((namespace, pod, container, options))
        try:
            for block in self.blocks:
                match block:
                    case bytes():
                        yield block
                    case asyncio.Event():
                        await block.wait()
                    case _:
                        raise block
        finally:
            self.closed.set()


LOG = "/containerLogs/shop/web/main"


async def test_health_pods_and_logs_are_served_to_an_administrator(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    provider = Provider(b"", b"one\n", b"two\n")
    async with served(settings, provider, authority.pem, admin) as api:
        assert await api.get("/healthz") == (200, "ok")
        assert await api.get(LOG + "?tailLines=5&timestamps=true") == (200, "one\ntwo\n")
        assert await api.get("/containerLogs/shop/web/first") == (200, "one\ntwo\n")
    assert provider.asked[0] == ("shop", "web", "main", LogOptions(tail_lines=5, timestamps=True))


async def test_pods_are_the_raw_objects_with_our_status(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        status, body = await api.get("/pods")
    pods = json.loads(body)
    assert (status, pods["kind"], pods["apiVersion"]) == (200, "PodList", "v1")
    first, second = pods["items"]
    assert first["metadata"]["managedFields"] == [{"manager": "kubectl"}]
    assert first["status"] == {"phase": "Running", "podIP": "10.1.0.2"}
    assert second["status"] == {"phase": "Pending"}


@pytest.mark.parametrize("path", ["/healthz", "/pods", LOG, "/nowhere"])
async def test_nobody_is_served_without_a_certificate(settings: Settings, authority: Authority, path: str) -> None:
    provider = Provider(b"secret")
    async with served(settings, provider, authority.pem, None) as api:
        assert await api.get(path) == (401, "Unauthorized")
    assert provider.asked == []


async def test_a_certificate_of_another_authority_is_refused_in_the_handshake(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority().issue(tmp_path / "foreign.pem", "admin", "system:masters")
    async with served(settings, Silent(), authority.pem, foreign) as api:
        with pytest.raises(aiohttp.ClientError):
            await api.get("/healthz")


async def test_an_expired_certificate_is_refused_in_the_handshake(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    old = authority.issue(tmp_path / "old.pem", "admin", "system:masters", days=-1)
    async with served(settings, Silent(), authority.pem, old) as api:
        with pytest.raises(aiohttp.ClientError):
            await api.get("/healthz")


async def test_another_node_is_forbidden_by_name(settings: Settings, authority: Authority, tmp_path: Path) -> None:
    node = authority.issue(tmp_path / "node.pem", "system:node:n2", "system:nodes")
    async with served(settings, Silent(), authority.pem, node) as api:
        status, text = await api.get("/pods")
    assert status == 403
    assert text.startswith("Forbidden (user=system:node:n2, verb=get, resource=nodes, subresource(s)=[pods proxy])")


async def test_without_any_authority_nobody_is_let_in(settings: Settings, admin: Path) -> None:
    async with served(settings, Silent(), None, admin) as api:
        assert (await api.get("/healthz"))[0] == 401


async def test_the_settings_own_authority_wins(
    settings: Settings, authority: Authority, admin: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.pem)
    async with served(replace(settings, client_ca_file=file), Silent(), Authority().pem, admin) as api:
        assert await api.get("/healthz") == (200, "ok")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_tls_is_not_spoken(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        context = client_context(admin)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(aiohttp.ClientConnectorError):
            await api.session.get(api.url + "/healthz", ssl=context)
        context = client_context(admin)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with api.session.get(api.url + "/healthz", ssl=context) as response:
            assert response.status == 200


async def test_a_command_as_long_as_linux_lets_one_be_fits_into_a_request(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with served(settings, Provider(), authority.pem, admin) as api:
        assert (await api.get(f"/healthz?command={'a' * 128 * 1024}"))[0] == 200


async def test_unknown_paths_and_methods_are_refused(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert (await api.get("/execute/shop/web/main"))[0] == 404
        assert (await api.get("/healthz", "POST"))[0] == 405


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/containerLogs/shop/db/main", (404, 'pod "db" does not exist')),
        ("/containerLogs/shop/web/side", (404, 'container "side" not found in pod "web"')),
        (LOG + "?tailLines=x", (400, "Unable to decode query: tailLines: 'x' is not a whole number")),
        (LOG + "?limitBytes=0", (422, "limitBytes: Invalid value: 0: must be greater than 0")),
    ],
)
async def test_a_request_for_what_is_not_there_is_refused_in_one_line(
    settings: Settings, authority: Authority, admin: Path, path: str, expected: tuple[int, str]
) -> None:
    provider = Provider(b"never")
    async with served(settings, provider, authority.pem, admin) as api:
        assert await api.get(path) == expected
    assert provider.asked == []


WAITING = 'container "main" in pod "web" is waiting to start: ContainerCreating'


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Permanent("BadRequest", WAITING), (400, WAITING)),
        (NotFound("log file is gone"), (404, "log file is gone")),
        (Retryable("the runtime is away"), (503, "the runtime is away")),
        (ZeroDivisionError("secret detail"), (500, "internal error, see the node's log")),
    ],
)
async def test_our_errors_are_statuses_and_others_a_bare_500(
    settings: Settings, authority: Authority, admin: Path, error: Exception, expected: tuple[int, str]
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="ERROR", format="{message}")
    try:
        async with served(settings, Provider(error), authority.pem, admin) as api:
            assert await api.get(LOG) == expected
            assert await api.get("/healthz") == (200, "ok")
    finally:
        logger.remove(sink)
    told = [f"GET {LOG}: ZeroDivisionError: secret detail\n"] if expected[0] == 500 else []
    assert [str(line) for line in lines] == told


async def test_a_provider_without_logs_says_so(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert await api.get(LOG) == (501, "container logs are not implemented by this node's provider")


async def test_each_block_is_sent_at_once_and_the_headers_before_the_first(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    more, last = asyncio.Event(), asyncio.Event()
    async with (
        served(settings, Provider(b"", more, b"one\n", last, b"two\n"), authority.pem, admin) as api,
        api.session.get(api.url + LOG + "?follow=true") as response,
    ):
        assert (response.status, response.headers["Transfer-Encoding"]) == (200, "chunked")
        more.set()
        assert await response.content.readline() == b"one\n"
        last.set()
        assert await response.content.read() == b"two\n"


async def test_a_reader_that_goes_away_ends_its_log_while_nothing_is_written(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    provider = Provider(b"", b"one\n", asyncio.Event())
    async with served(settings, provider, authority.pem, admin) as api:
        response = await api.session.get(api.url + LOG)
        assert await response.content.readline() == b"one\n"
        assert not provider.closed.is_set()
        response.close()
        async with asyncio.timeout(PATIENCE_S):
            await provider.closed.wait()


async def test_an_error_in_the_middle_breaks_the_connection(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    provider = Provider(b"one\n", OSError("disk on fire"))
    async with served(settings, provider, authority.pem, admin) as api:
        async with api.session.get(api.url + LOG) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
        assert await api.get("/healthz") == (200, "ok")


async def test_followers_do_not_hold_up_the_stop(settings: Settings, authority: Authority, admin: Path) -> None:
    provider = Provider(b"", b"one\n", asyncio.Event())
    async with served(settings, provider, authority.pem, admin) as api:
        response = await api.session.get(api.url + LOG)
        assert await response.content.readline() == b"one\n"
        api.server.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await provider.closed.wait()
            await asyncio.wait([api.server])


async def test_a_long_log_arrives_whole(settings: Settings, authority: Authority, admin: Path, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(b"".join(b"2026-01-02T03:04:05.%09dZ stdout F line %d\n" % (i, i) for i in range(50_000)))

    class Files(Silent):
        def get_container_logs(
            self, namespace: str, pod: str, container: str, options: LogOptions
        ) -> AsyncIterator[bytes]:
            return read_log(log, options, lambda: False)

    async with served(settings, Files(), authority.pem, admin) as api:
        status, text = await api.get(LOG)
        assert (status, text) == (200, "".join(f"line {i}\n" for i in range(50_000)))
        assert await api.get(LOG + "?tailLines=1&follow=true") == (200, "line 49999\n")
        log.unlink()
        assert (await api.get(LOG))[0] == 404


async def refusal(settings: Settings, ca: bytes | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        async with asyncio.timeout(PATIENCE_S):
            await KubeletServer(settings, Silent(), Silent(), ca, []).run()
    return str(refused.value)


async def test_a_port_in_use_is_refused_in_one_line(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert await refusal(replace(settings, address="127.0.0.1", port=port)) == (
            f"--port {port}: cannot listen on 127.0.0.1:{port}: Address already in use; "
            "does a kubelet run on this machine?"
        )
        assert "Address already in use" in await refusal(replace(settings, port=port))


async def test_an_unusable_authority_or_folder_is_refused_in_one_line(settings: Settings, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\xff")
    assert "is not a PEM certificate" in await refusal(settings, b"junk")
    assert f"{junk} is not a PEM" in await refusal(replace(settings, client_ca_file=junk))
    assert "No such file" in await refusal(replace(settings, client_ca_file=tmp_path / "none"))
    assert (await refusal(replace(settings, root_dir=junk))).startswith("--root-dir: ")


async def test_without_an_address_both_families_are_listened_to(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    task: asyncio.Future[None] | None = None
    async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as session:
        while True:
            if task is None or task.done():  # another process may have been quicker to take the port
                with socket.create_server(("127.0.0.1", 0)) as probe:
                    port = probe.getsockname()[1]
                server = KubeletServer(replace(settings, port=port), Silent(), Silent(), authority.pem, [])
                task = asyncio.ensure_future(server.run())
            try:
                async with session.get(f"https://127.0.0.1:{port}/healthz", ssl=client_context(admin)) as response:
                    assert response.status == 200
                    break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


class FakeClock:
    """Each sleep ends when the test says so."""

    def __init__(self, wall: float) -> None:
        self.now = wall
        self.sleeping = asyncio.Event()
        self.wake = asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeping.set()
        await self.wake.wait()
        self.wake.clear()

    async def minute_later(self) -> None:
        """All that was due is done."""
        self.sleeping.clear()
        self.wake.set()
        await self.sleeping.wait()


async def test_port_zero_listens_nowhere_until_it_is_stopped(settings: Settings) -> None:
    task = asyncio.ensure_future(KubeletServer(replace(settings, port=0), Silent(), Silent(), None, []).run())
    await asyncio.sleep(0.02)
    assert not task.done()
    assert not settings.root_dir.exists()
    task.cancel()
    await asyncio.wait([task])


async def test_a_replaced_certificate_is_taken_up_and_a_broken_one_is_not(
    settings: Settings, authority: Authority, admin: Path, tmp_path: Path
) -> None:
    given = authority.issue(tmp_path / "given.pem", "first")
    settings = replace(settings, tls_cert_file=given, tls_private_key_file=given)
    clock = FakeClock(1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    task = asyncio.ensure_future(KubeletServer(settings, Silent(), Silent(), authority.pem, [], clock).run(listener))

    async def shown() -> bytes:
        await clock.sleeping.wait()
        _, writer = await asyncio.open_connection(*address, ssl=client_context(admin))
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(der)

    try:
        async with asyncio.timeout(PATIENCE_S):
            first = await shown()
            authority.issue(given, "second")
            await clock.minute_later()
            second = await shown()
            assert second != first
            given.write_bytes(b"half a certif")
            await clock.minute_later()
            assert await shown() == second
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_replaced_client_authority_is_the_only_one_trusted_from_then_on(
    settings: Settings, authority: Authority, admin: Path, tmp_path: Path
) -> None:
    file, following = tmp_path / "ca.pem", Authority()
    file.write_bytes(authority.pem)
    newcomer = following.issue(tmp_path / "newcomer.pem", "admin", "system:masters")
    clock = FakeClock(1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = KubeletServer(replace(settings, client_ca_file=file), Silent(), Silent(), None, [], clock)
    task = asyncio.ensure_future(server.run(listener))

    async def is_let_in(certificate: Path) -> bool:
        await clock.sleeping.wait()
        try:
            async with aiohttp.ClientSession() as session:
                context = client_context(certificate)
                async with session.get(f"https://127.0.0.1:{port}/healthz", ssl=context) as response:
                    return response.status == 200
        except aiohttp.ClientError:
            return False

    try:
        async with asyncio.timeout(PATIENCE_S):
            assert (await is_let_in(admin), await is_let_in(newcomer)) == (True, False)
            file.write_bytes(following.pem)
            await clock.minute_later()
            assert (await is_let_in(admin), await is_let_in(newcomer)) == (False, True)
            file.unlink()
            await clock.minute_later()
            assert (await is_let_in(admin), await is_let_in(newcomer)) == (False, True)
    finally:
        task.cancel()
        await asyncio.wait([task])
