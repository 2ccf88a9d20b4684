import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import Retryable
from agent.model.container import ExecAction, GRPCAction, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction
from agent.pods.probes.attempt import Attempts
from agent.pods.probes.grpc_health import check
from agent.pods.probes.http import HttpGetter, NoAnswer
from agent.pods.probes.tally import Outcome, Result
from tests.unit.pods.probes.servers import Ended, FakeExec, http_server, reply, target


@pytest.fixture
async def http() -> AsyncIterator[HttpGetter]:
    async with HttpGetter() as getter:
        yield getter


@pytest.fixture
def runtime() -> FakeExec:
    return FakeExec()


@pytest.fixture
def attempts(runtime: FakeExec, http: HttpGetter) -> Attempts:
    return Attempts(runtime, http)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Nobody listens at it, and nobody can take it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def get(port: int | str, path: str = "/", **more: object) -> Probe:
    return Probe(httpGet=HTTPGetAction(port=port, path=path, **more))  # type: ignore[arg-type]


# ---------------------------------------------------------------- exec


async def test_a_command_runs_with_literal_variables_and_its_exit_code_decides(
    attempts: Attempts, runtime: FakeExec
) -> None:
    of = target(env=[{"name": "FILE", "value": "/ok"}, {"name": "NODE"}])
    probe = Probe(exec=ExecAction(command=("cat", "$(FILE)", "$(NODE)", "$(OTHER)")), timeoutSeconds=2)
    runtime.answer = Ended(0, b"fine")
    assert await attempts.attempt(of, probe) == Outcome(Result.SUCCESS, "fine")
    assert runtime.ran == [("id", ("cat", "/ok", "", "$(OTHER)"), 2)]
    runtime.answer = Ended(1, b"out", b"err")
    assert await attempts.attempt(of, probe) == Outcome(Result.FAILURE, "outerr")


async def test_a_command_that_takes_too_long_is_a_failure_however_the_runtime_says_it(
    attempts: Attempts, runtime: FakeExec
) -> None:
    probe = Probe(exec=ExecAction(command=("sleep", "9")), timeoutSeconds=1)
    runtime.answer = TimeoutError()
    expected = Outcome(Result.FAILURE, 'command timed out: "sleep 9" timed out after 1s')
    assert await attempts.attempt(target(), probe) == expected
    minutes = Probe(exec=ExecAction(command=("sleep", "9")), timeoutSeconds=90)
    assert (await attempts.attempt(target(), minutes)).output == 'command timed out: "sleep 9" timed out after 1m30s'
    runtime.answer, runtime.takes_s = Retryable("deadline exceeded"), 0.01
    no_time = Probe(exec=ExecAction(command=("sleep", "9")), timeoutSeconds=0)
    assert (await attempts.attempt(target(), no_time)).result is Result.FAILURE


async def test_a_runtime_that_is_away_says_nothing_of_the_container(attempts: Attempts, runtime: FakeExec) -> None:
    runtime.answer = Retryable("connection refused")
    outcome = await attempts.attempt(target(), Probe(exec=ExecAction(command=("true",))))
    assert outcome == Outcome(Result.ERROR, "connection refused")


# ---------------------------------------------------------------- HTTP


async def test_a_get_carries_the_kubelets_headers_and_the_users(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(200, "body")) as (port, seen):
        headers = (HTTPHeader(name="X-A", value="1"), HTTPHeader(name="Host", value="example.org"))
        outcome = await attempts.attempt(target(port), get("web", "/health?deep=1", httpHeaders=headers))
    assert outcome == Outcome(Result.SUCCESS, "body")
    lines = seen[0].split("\r\n")
    assert lines[0] == "GET /health?deep=1 HTTP/1.1"
    assert {"User-Agent: kube-probe/1.36", "Accept: */*", "X-A: 1", "Host: example.org"} <= set(lines)
    assert "Accept-Encoding" not in seen[0]


async def test_the_users_own_agent_and_an_empty_accept_win(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(204)) as (port, seen):
        headers = (HTTPHeader(name="user-agent", value="me"), HTTPHeader(name="Accept", value=""))
        await attempts.attempt(target(port), get(port, "no-slash", httpHeaders=headers))
    assert seen[0].startswith("GET /no-slash ")
    assert "user-agent: me" in seen[0]
    assert "kube-probe" not in seen[0]
    assert "Accept" not in seen[0]


@pytest.mark.parametrize("status", [200, 299, 304])
async def test_statuses_below_400_are_good(attempts: Attempts, status: int) -> None:
    async with http_server(lambda _: reply(status)) as (port, _):
        assert (await attempts.attempt(target(port), get(port))).result in (Result.SUCCESS, Result.WARNING)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_statuses_from_400_on_are_failures_without_the_body(attempts: Attempts, status: int) -> None:
    async with http_server(lambda _: reply(status, "secret")) as (port, _):
        outcome = await attempts.attempt(target(port), get(port))
    assert outcome == Outcome(Result.FAILURE, f"HTTP probe failed with statuscode: {status}")


async def test_a_redirect_on_the_same_host_is_followed(attempts: Attempts) -> None:
    def answer(head: str) -> bytes:
        return reply(302, Location="/new") if head.startswith("GET /old ") else reply(500)

    async with http_server(answer) as (port, seen):
        outcome = await attempts.attempt(target(port), get(port, "/old"))
    assert outcome.output == "HTTP probe failed with statuscode: 500"
    assert [head.split(" ", 2)[1] for head in seen] == ["/old", "/new"]


async def test_a_redirect_to_another_host_is_a_warning(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(301, "gone", Location="http://example.org/")) as (port, seen):
        outcome = await attempts.attempt(target(port), get(port))
    assert outcome == Outcome(Result.WARNING, "Probe terminated redirects, Response body: gone")
    assert len(seen) == 1


@pytest.mark.parametrize(("absolute", "host"), [(False, "example.org"), (True, "127.0.0.1")])
async def test_the_users_host_is_kept_on_a_redirect_that_names_none(
    attempts: Attempts, absolute: bool, host: str
) -> None:
    def answer(head: str) -> bytes:
        to = f"http://127.0.0.1:{port}/new" if absolute else "/new"
        return reply(302, Location=to) if head.startswith("GET /old ") else reply(200)

    async with http_server(answer) as (port, seen):
        probe = get(port, "/old", httpHeaders=(HTTPHeader(name="Host", value="example.org"),))
        assert (await attempts.attempt(target(port), probe)).result is Result.SUCCESS
    assert f"Host: {host}" in seen[1]


async def test_a_redirect_without_a_location_is_a_warning(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(302, "lost")) as (port, _):
        outcome = await attempts.attempt(target(port), get(port))
    assert outcome == Outcome(Result.WARNING, "Probe terminated redirects, Response body: lost")


async def test_a_body_that_breaks_off_says_nothing_of_the_container(attempts: Attempts) -> None:
    async with http_server(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as (port, _):
        outcome = await attempts.attempt(target(port), get(port))
    assert outcome == Outcome(Result.ERROR, "unexpected EOF", "failure")


async def test_a_server_that_hangs_up_is_a_failure(attempts: Attempts) -> None:
    async with http_server(lambda _: b"") as (port, _):
        outcome = await attempts.attempt(target(port), get(port))
    assert outcome == Outcome(Result.FAILURE, f'Get "http://127.0.0.1:{port}/": EOF')


async def test_a_server_without_tls_fails_an_https_probe_in_plain_words(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(200)) as (port, _):
        outcome = await attempts.attempt(target(port), get(port, scheme="HTTPS"))
    why = "http: server gave HTTP response to HTTPS client"
    assert outcome == Outcome(Result.FAILURE, f'Get "https://127.0.0.1:{port}/": {why}')


async def test_a_circle_of_redirects_ends(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(307, Location="/")) as (port, seen):
        outcome = await attempts.attempt(target(port), get(port))
    assert outcome.result is Result.FAILURE
    assert "stopped after 10 redirects" in outcome.output
    assert len(seen) == 10


async def test_no_more_of_a_body_is_kept_than_an_event_can_use(attempts: Attempts) -> None:
    async with http_server(lambda _: reply(200, "x" * 50_000)) as (port, _):
        assert len((await attempts.attempt(target(port), get(port))).output) == 10240


async def test_a_refused_connection_is_a_failure_in_plain_words(attempts: Attempts, unused_port: int) -> None:
    port = unused_port
    outcome = await attempts.attempt(target(port), get(port, "/healthz"))
    assert outcome == Outcome(
        Result.FAILURE,
        f'Get "http://127.0.0.1:{port}/healthz": dial tcp 127.0.0.1:{port}: connect: connection refused',
    )


async def test_a_server_that_never_answers_runs_into_the_timeout(http: HttpGetter) -> None:
    async with http_server(lambda _: None) as (port, _):
        with pytest.raises(NoAnswer, match="context deadline exceeded"):
            await http.get(target(port), HTTPGetAction(port=port), timeout_s=0.05, purpose="probe")


async def test_https_takes_any_certificate(attempts: Attempts, self_signed: ssl.SSLContext) -> None:
    async with http_server(lambda _: reply(200, "tls"), tls=self_signed) as (port, _):
        assert await attempts.attempt(target(port), get(port, scheme="HTTPS")) == Outcome(Result.SUCCESS, "tls")


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "expired.example")])
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(past).not_valid_after(past + datetime.timedelta(days=1))
    pem = tmp_path / "pem"
    pem.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.mark.parametrize(
    ("port", "problem"), [("ghost", "port ghost not found in container c"), ("70000", "invalid port number: 70000")]
)
async def test_a_port_that_is_none_is_an_error_of_the_spec(attempts: Attempts, port: str, problem: str) -> None:
    assert await attempts.attempt(target(), get(port)) == Outcome(Result.ERROR, problem)


async def test_a_probe_without_a_handler_is_an_error(attempts: Attempts) -> None:
    assert (await attempts.attempt(target(), Probe())).result is Result.ERROR


# ---------------------------------------------------------------- TCP


async def test_tcp_asks_for_a_connection_only(attempts: Attempts) -> None:
    async with http_server(lambda _: None) as (port, seen):
        outcome = await attempts.attempt(target(port), Probe(tcpSocket=TCPSocketAction(port="web")))
    assert outcome == Outcome(Result.SUCCESS)
    assert seen == []


async def test_tcp_tells_a_refused_connection(attempts: Attempts, unused_port: int) -> None:
    port = unused_port
    outcome = await attempts.attempt(target(port), Probe(tcpSocket=TCPSocketAction(port=port)))
    assert outcome == Outcome(Result.FAILURE, f"dial tcp 127.0.0.1:{port}: connect: connection refused")


# ---------------------------------------------------------------- gRPC


@pytest.fixture
async def grpc_port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """A gRPC server whose health check answers with the test's parameter: bytes, or a status to abort with."""

    async def answer(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if isinstance(request.param, grpc.StatusCode):
            await context.abort(request.param, "told so")
        assert payload in (b"", b"\x0a\x03svc")
        assert isinstance(request.param, bytes)
        return request.param

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@pytest.mark.parametrize(
    ("grpc_port", "expected"),
    [
        (b"\x08\x01", Outcome(Result.SUCCESS, "service healthy")),
        (b"\x08\x02", Outcome(Result.FAILURE, 'service unhealthy (responded with "NOT_SERVING")')),
        (b"", Outcome(Result.FAILURE, 'service unhealthy (responded with "UNKNOWN")')),
        (
            grpc.StatusCode.NOT_FOUND,
            Outcome(Result.FAILURE, "error: health rpc probe failed: rpc error: code = NotFound desc = told so"),
        ),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            Outcome(
                Result.FAILURE,
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): told so",
            ),
        ),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            Outcome(Result.FAILURE, "timeout: health rpc did not complete within 5s"),
        ),
    ],
    indirect=["grpc_port"],
)
async def test_grpc_health_decides(attempts: Attempts, grpc_port: int, expected: Outcome) -> None:
    probe = Probe(grpc=GRPCAction(port=grpc_port, service="svc"), timeoutSeconds=5)
    assert await attempts.attempt(target(), probe) == expected


@pytest.mark.parametrize("grpc_port", [b"\x08\x01"], indirect=True)
async def test_grpc_without_a_service_asks_for_the_whole_server(attempts: Attempts, grpc_port: int) -> None:
    probe = Probe(grpc=GRPCAction(port=grpc_port), timeoutSeconds=5)
    assert (await attempts.attempt(target(), probe)).result is Result.SUCCESS


async def test_grpc_tells_a_server_that_is_not_there(unused_port: int) -> None:
    outcome = await check(f"127.0.0.1:{unused_port}", "", 0.05)
    assert outcome.result is Result.FAILURE
    assert outcome.output.startswith('timeout: failed to connect service "127.0.0.1:')
    assert outcome.output.endswith('" within 0.05s: context deadline exceeded')
