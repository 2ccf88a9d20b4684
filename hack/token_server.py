"""The server beside a registry that gives its tokens, as distribution describes it: a login in, a signed token out.

Source: the specification "Token Authentication" of the registry that Debian packages, which judges the tokens itself.
"""

import base64
import json
import secrets
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hack.pki import Pair

SERVICE, ISSUER = "registry of a test", "token server of a test"
LIFETIME_S = 300


class TokenServer:
    """Gives whoever has the login what is asked for, and nobody else anything."""

    def __init__(self, pair: Pair, login: str) -> None:
        """`pair` signs; `login`: USER:PASSWORD."""
        self._pair = pair
        self._login = login
        self.given: list[str] = []
        """Scopes, in the order in which they were asked for over the wire."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, scopes: Sequence[str]) -> str:
        """Good for `scopes`, each as `repository:NAME:ACTION,…`."""
        certificate = x509.load_pem_x509_certificate(self._pair.certificate)
        x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        asked = [scope.split(":") for scope in scopes]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": self._login.partition(":")[0],
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 60,
            "exp": now + LIFETIME_S,
            "jti": secrets.token_hex(8),
            "access": [{"type": kind, "name": name, "actions": what.split(",")} for kind, name, what in asked],
        }
        signed = f"{_part({'typ': 'JWT', 'alg': 'ES256', 'x5c': [x5c]})}.{_part(claims)}"
        key = serialization.load_pem_private_key(self._pair.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self
        expected = f"Basic {base64.b64encode(self._login.encode()).decode()}"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers["Authorization"] != expected:
                    self.send_error(401)
                    return
                scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
                server.given += scopes
                answer = json.dumps({"token": server.token(scopes), "expires_in": LIFETIME_S}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_POST(self) -> None:
                self.send_error(405)  # the way by OAuth, which a client need not find

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        return Handler


def _part(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
