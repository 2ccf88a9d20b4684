"""Read a bundle: a tar archive of images, packed or not, from its beginning to its end and in small pieces.

In: a file. Out: its members, each followed by what is in it. Nothing is ever unpacked to the disk by this, and no more
of the archive is in memory than a piece, and zstd's window (8 MiB as `zstd -19` writes it). Blocks.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, cast

import msgspec

PIECE_BYTES = 1 << 20


class BadArchive(Exception):
    """It cannot be read to its end; the message is one line."""


class Member(msgspec.Struct, frozen=True):
    name: str
    """A path without `.` and `..`."""
    size: int
    link: str = ""
    """Not empty: a symbolic link to this member, and nothing follows."""


def members(path: Path) -> Generator[Member | bytes, None, None]:
    """Each regular file and link, and after a file its content in pieces. Raises BadArchive, OSError.

    The name says how it is packed.
    """
    unpacked = next((how for suffix, how in _UNPACKED.items() if path.name.endswith(suffix)), None)
    if unpacked is None:
        raise BadArchive(f"its name ends with none of {', '.join(_UNPACKED)}")
    with ExitStack() as stack:
        stream = stack.enter_context(unpacked(stack.enter_context(path.open("rb"))))
        try:
            archive = stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))
            yield from _members(archive)
        except (tarfile.TarError, EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            raise BadArchive(f"it is no whole tar archive: {error}") from error
        except OSError:
            raise
        except Exception as error:
            # zstandard's own error, which has no name before its module is loaded.
            if type(error).__name__ != "ZstdError":
                raise
            raise BadArchive(f"it cannot be unpacked: {error}") from error


def _members(archive: tarfile.TarFile) -> Iterator[Member | bytes]:
    for entry in archive:
        archive.members = []  # type: ignore[attr-defined]  # what was read is not kept
        name = _clean(entry.name)
        if entry.issym():
            yield Member(name, 0, _clean(str(PurePosixPath(name).parent / entry.linkname)))
        elif entry.islnk():
            yield Member(name, 0, _clean(entry.linkname))
        elif entry.isreg():
            yield Member(name, entry.size)
            left = entry.size
            content = archive.extractfile(entry)
            while content is not None and left > 0:
                if not (piece := content.read(min(PIECE_BYTES, left))):
                    raise BadArchive(f"it ends within {name}")
                left -= len(piece)
                yield piece


def _gunzipped(stream: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))


def _unzstd(stream: IO[bytes]) -> IO[bytes]:
    import zstandard  # only who has such bundles has it in memory

    reader: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return reader


_UNPACKED: Mapping[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".tar": lambda stream: stream,
    ".tar.zst": _unzstd,
    ".tar.gz": _gunzipped,
    ".tgz": _gunzipped,
}


def _clean(name: str) -> str:
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        if part == "..":
            parts[-1:] = []
        elif part not in ("/", "."):
            parts.append(part)
    return "/".join(parts)
