"""Refresh an OIDC token with its refresh token, the identity provider's certificate verified.

The official loader's own way switches verification off where the kubeconfig names no CA, and would hand the client's
secret to anybody in between.
"""

from __future__ import annotations

import base64
import ssl
from typing import Any

import aiohttp
import msgspec

from agent.errors import Retryable

TIMEOUT_S = 10.0


class _Discovery(msgspec.Struct):
    token_endpoint: str


class _Tokens(msgspec.Struct):
    id_token: str
    refresh_token: str | None = None


async def refresh(config: dict[str, Any]) -> None:
    """Put a new `id-token` (and `refresh-token`, where the provider rotates it) into an auth-provider's config.

    Raises Retryable; ValueError, KeyError or OSError where the config itself is wrong.
    """
    issuer = str(config["idp-issuer-url"]).rstrip("/")
    form = {"grant_type": "refresh_token", "refresh_token": str(config["refresh-token"])}
    headers = {}
    if secret := config.get("client-secret"):
        pair = f"{config['client-id']}:{secret}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    else:
        form["client_id"] = str(config["client-id"])
    connector = aiohttp.TCPConnector(ssl=_trust(config))
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True) as session:
            async with session.get(f"{issuer}/.well-known/openid-configuration", raise_for_status=True) as answer:
                endpoint = msgspec.json.decode(await answer.read(), type=_Discovery).token_endpoint
            async with session.post(endpoint, data=form, headers=headers, raise_for_status=True) as answer:
                tokens = msgspec.json.decode(await answer.read(), type=_Tokens)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        raise Retryable(f"oidc: no token of {issuer}: {error or type(error).__name__}") from error
    config["id-token"] = tokens.id_token
    if tokens.refresh_token:
        config["refresh-token"] = tokens.refresh_token


def _trust(config: dict[str, Any]) -> ssl.SSLContext:
    data = config.get("idp-certificate-authority-data")
    return ssl.create_default_context(
        cafile=config.get("idp-certificate-authority"), cadata=base64.b64decode(data).decode() if data else None
    )
