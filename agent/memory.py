"""Limits for a process that shares a small machine, where the defaults are made for servers.

`spare` is called once, before anything is loaded. docs/performance.md has the figures.
"""

from __future__ import annotations

import asyncio.sslproto
import ctypes

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
"""glibc's malloc.h."""
_ARENAS = 2
_OWN_MAPPING_BYTES = 128 * 1024
_TLS_BUFFER_BYTES = 64 * 1024


def spare() -> None:
    """Set the limits that hold for what is allocated from now on."""
    # Python's own is 256 KiB for each connection, and a burst of pods leaves many open; a TLS record has 16 KiB.
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
    # glibc grows eight heaps for each core, and its threshold with each burst: then little is ever given back.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
