"""Limits for a process that shares a small machine, where the defaults are made for servers.

`spare` is called once, before anything is loaded; `give_back` from time to time, once the agent has nothing to do.
docs/performance.md has the figures.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path

from loguru import logger

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
"""glibc's malloc.h."""
_MADV_DONTNEED = 4
"""Linux' mman.h."""
_ARENAS = 2
_OWN_MAPPING_BYTES = 128 * 1024
_TLS_BUFFER_BYTES = 64 * 1024
_SMAPS = Path("/proc/self/smaps")
FIRST_S, EVERY_S = 20.0, 300.0


def spare() -> None:
    """Set the limits that hold for what is allocated from now on."""
    # Python's own is 256 KiB for each connection, and a burst of pods leaves many open; a TLS record has 16 KiB.
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
    # glibc grows eight heaps for each core, and its threshold with each burst: then little is ever given back.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


async def keep_small() -> None:
    """For as long as the agent lives: give back after the start, and again and again after what came later."""
    pause = FIRST_S
    while True:
        await asyncio.sleep(pause)
        pause = EVERY_S
        await asyncio.to_thread(give_back)


def give_back() -> None:
    """Let go of libraries' code that only a start or a burst ran, and of free memory that malloc holds.

    The code stays in the kernel's page cache, where it is the first to go when memory is short, and is mapped again
    page by page when it is run again: a microsecond each.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if trim := getattr(libc, "malloc_trim", None):
        trim(ctypes.c_size_t(0))
    try:
        lines = _SMAPS.read_text().splitlines()
    except OSError as error:
        logger.debug("memory is not given back: {}", error)
        return
    madvise = libc.madvise
    madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    for begin, end in files_unchanged(lines):
        madvise(begin, end - begin, _MADV_DONTNEED)


def files_unchanged(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Addresses of mapped files that can't be written and of which no page is the process' own.

    A page that was written before it was protected, as the loader does with relocations, exists nowhere else.
    """
    begin = end = 0
    for line in smaps:
        words = line.split()
        if not words[0].endswith(":"):
            first, _, last = words[0].partition("-")
            mapped = len(words) > 5 and words[5].startswith("/") and "w" not in words[1]
            begin, end = (int(first, 16), int(last, 16)) if mapped else (0, 0)
        elif words[0] == "Anonymous:" and end and words[1] == "0":
            yield begin, end
