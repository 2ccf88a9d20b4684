"""aiohttp's default TLS as the agent has it: in a process of its own, for this one has loaded aiohttp already."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.server.self_signed import self_signed

_ASK = """
import asyncio, ssl, sys
from agent.late_trust import load_aiohttp
load_aiohttp()
import aiohttp
from aiohttp import web

async def main(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    runner = web.ServerRunner(web.Server(lambda request: asyncio.sleep(0, web.Response(text="hello"))))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            try:
                async with session.get(f"https://127.0.0.1:{runner.addresses[0][1]}/") as answer:
                    print(await answer.text())
            except aiohttp.ClientConnectorCertificateError:
                print("refused")
    await runner.cleanup()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("trusted", "answer"), [(True, "hello"), (False, "refused")])
def test_a_server_is_believed_only_where_the_machines_trust_store_has_its_issuer(
    tmp_path: Path, trusted: bool, answer: str
) -> None:
    certificate, store = tmp_path / "server.pem", tmp_path / "store.pem"
    certificate.write_bytes(self_signed("edge", ["127.0.0.1"], time.time()))
    store.write_bytes(certificate.read_bytes() if trusted else b"")
    told = {**os.environ, "SSL_CERT_FILE": str(store), "SSL_CERT_DIR": str(tmp_path / "none")}
    root = Path(__file__).parents[2]
    asked = subprocess.run(
        [sys.executable, "-c", _ASK, str(certificate)], cwd=root, env=told, capture_output=True, text=True, check=False
    )
    assert asked.stdout.split() == [answer, answer], asked.stderr


def test_loading_aiohttp_reads_no_trust_store_and_leaves_ssl_as_it_was() -> None:
    script = """
import ssl
usual = ssl.create_default_context
from agent.late_trust import load_aiohttp
load_aiohttp()
from aiohttp.connector import _SSL_CONTEXT_UNVERIFIED, _SSL_CONTEXT_VERIFIED
fresh = ssl.create_default_context()
print(_SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"], _SSL_CONTEXT_UNVERIFIED.cert_store_stats()["x509"])
print(ssl.create_default_context is usual, fresh.verify_flags == _SSL_CONTEXT_VERIFIED.verify_flags,
      fresh.verify_mode == _SSL_CONTEXT_VERIFIED.verify_mode, _SSL_CONTEXT_VERIFIED.check_hostname,
      fresh.options == _SSL_CONTEXT_VERIFIED.options, fresh.cert_store_stats()["x509"] > 0)
"""
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "0", *["True"] * 6]
