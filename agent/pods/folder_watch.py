"""Hear of changes in one folder, through inotify.

In: a folder. Out: what happened in it since the last question, by file name. A machine that is out of inotify instances
(128 a user by default) is looked at in intervals instead, with the same answers, so no caller has two ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path
from types import TracebackType

from inotify_simple import INotify, flags  # type: ignore[import-untyped]
from loguru import logger


class Happened(IntFlag):
    """inotify's bits that callers tell apart."""

    WRITTEN = int(flags.MODIFY)
    CLOSED = int(flags.CLOSE_WRITE)
    MADE = int(flags.CREATE)
    """Perhaps to be written now; a link comes without ever being closed."""
    MOVED_IN = int(flags.MOVED_TO)
    DELETED = int(flags.DELETE)
    WENT = int(flags.DELETE | flags.MOVED_FROM)
    FOLDER_WENT = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT)
    UNKNOWN = int(flags.Q_OVERFLOW)
    """Something happened, nobody knows what: look at everything."""


_ASKED = int(
    flags.MODIFY
    | flags.CLOSE_WRITE
    | flags.CREATE
    | flags.MOVED_TO
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)


class FolderWatch:
    """One folder, watched from construction to the end of the `with` block.

    Raises FileNotFoundError or NotADirectoryError. `interval_s` is how often the folder counts as changed where
    inotify can't be had.
    """

    def __init__(self, folder: Path, interval_s: float) -> None:
        self._folder = folder
        self._interval_s = interval_s
        self._inotify: INotify | None = None
        try:
            self._inotify = INotify(nonblocking=True)
            self._inotify.add_watch(folder, _ASKED)
        except (FileNotFoundError, NotADirectoryError):
            self.close()
            raise
        except OSError as error:
            self.close()
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder} is not a folder") from error
            logger.warning("no inotify for {} ({}): looking every {} s", folder, error.strerror, interval_s)

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    async def changes(self, timeout: float | None) -> Mapping[str, Happened]:
        """What happened since the last call, by file name ("" is the folder itself); waits for the first change.

        Empty after `timeout` seconds without any.
        """
        if self._inotify is None:
            await asyncio.sleep(self._interval_s if timeout is None else min(timeout, self._interval_s))
            return {"": Happened.UNKNOWN if self._folder.is_dir() else Happened.FOLDER_WENT}
        # The reader is there only while somebody waits: meanwhile the kernel folds repeated events into one.
        if not (found := self._read(self._inotify)):
            loop = asyncio.get_running_loop()
            readable = asyncio.Event()
            loop.add_reader(self._inotify.fileno(), readable.set)
            try:
                async with asyncio.timeout(timeout):
                    await readable.wait()
            except TimeoutError:
                return {}
            finally:
                loop.remove_reader(self._inotify.fileno())
            found = self._read(self._inotify)
        return found

    @staticmethod
    def _read(inotify: INotify) -> dict[str, Happened]:
        found: dict[str, Happened] = {}
        for event in inotify.read(timeout=0):
            found[event.name] = found.get(event.name, Happened(0)) | Happened(event.mask)
        return found
