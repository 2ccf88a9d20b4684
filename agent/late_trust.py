"""aiohttp, loaded without reading the machine's trust store: that is hundreds of certificates, twice, at each start.

aiohttp makes its default TLS contexts while it is imported: one that verifies, and one that does not and reads the
store all the same. The first is here one that reads it when a connection is first made with it.
"""

from __future__ import annotations

import ssl
import sys
from contextlib import ExitStack
from typing import Any


class LateTrust(ssl.SSLContext):
    """`ssl.create_default_context()`, but for when the certificates are read."""

    _loaded = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        if not self._loaded:
            self.load_default_certs()
            self._loaded = True
        return super().wrap_bio(*args, **kwargs)


def load_aiohttp() -> None:
    """Whoever imports aiohttp before this has its own default, which is as good."""
    with ExitStack() as stack:
        stack.callback(setattr, ssl, "create_default_context", ssl.create_default_context)
        stack.callback(delattr, ssl.SSLContext, "set_default_verify_paths")  # the class it inherits from has it
        ssl.create_default_context = _late_trust  # type: ignore[assignment]
        ssl.SSLContext.set_default_verify_paths = _read_nothing  # type: ignore[assignment]
        import aiohttp  # noqa: F401


def _late_trust() -> LateTrust:
    context = LateTrust(ssl.PROTOCOL_TLS_CLIENT)
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


def _read_nothing(context: ssl.SSLContext) -> None:
    pass
