"""The machine's own log files at /logs/, where its owner turned that on.

In: a path below the folder. Out: the file as it is, or a folder's list. No path leads out of the folder, whatever is
written in it and whatever links lie in the folder: pods that mount it may make links while we look.
"""

from __future__ import annotations

import asyncio
import html
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from agent.errors import NotFound

FOLDER = Path("/var/log")
BLOCK_BYTES = 128 * 1024


class HostLogs:
    def __init__(self, enabled: bool, folder: Path = FOLDER) -> None:
        self._enabled = enabled
        self._folder = folder

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        for path in ("/logs", "/logs/{path:.*}"):
            yield web.get(path, self._answer, allow_head=False)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not self._enabled:
            return web.Response(status=405, text="logs endpoint is disabled.")
        path = request.match_info.get("path", "")
        opened = await asyncio.to_thread(open_below, self._folder, path)
        try:
            if stat.S_ISDIR(os.fstat(opened).st_mode):
                names = await asyncio.to_thread(_names, opened)
                return web.Response(text=_listing(names), content_type="text/html")
            response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
            await response.prepare(request)
            while block := await asyncio.to_thread(os.read, opened, BLOCK_BYTES):
                await response.write(block)
            await response.write_eof()
            return response
        finally:
            os.close(opened)


def open_below(folder: Path, path: str) -> int:
    """A descriptor of a file or a folder. Links are followed as long as they stay below. Raises NotFound.

    Blocks.
    """
    try:
        root = folder.resolve(strict=True)
        target = (root / path.lstrip("/")).resolve(strict=True)
        parts = target.relative_to(root).parts
        at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for number, part in enumerate(parts):
            # The path is resolved: a link that lies in it now was put there since, and is not followed.
            kind = os.O_DIRECTORY if number < len(parts) - 1 else os.O_NONBLOCK
            try:
                below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=at)
            finally:
                os.close(at)
            at = below
        if not stat.S_ISREG(mode := os.fstat(at).st_mode) and not stat.S_ISDIR(mode):
            os.close(at)
            raise NotFound("404 page not found")
    except (OSError, ValueError, RuntimeError) as error:
        raise NotFound("404 page not found") from error
    return at


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in entries)


def _listing(names: Iterable[str]) -> str:
    lines = (f'<a href="{quote(name, errors="surrogateescape")}">{html.escape(_shown(name))}</a>\n' for name in names)
    return f"<!doctype html>\n<pre>\n{''.join(lines)}</pre>\n"


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
