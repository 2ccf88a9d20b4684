"""Files that `fileKeyRef` takes variables from: read from the pod's volumes, and parsed.

The format is a subset of a shell's: NAME='value', one after another, values in single quotes and over as many lines as
they like, `#` comments. A container wrote them, so a path is opened without leaving its volume, nothing but a plain
file is read, and no more than a mebibyte of it. `read_env_files` blocks; `parse` is pure.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.errors import Permanent
from agent.model.container import Container
from agent.pods.volumes.subpath import open_beneath

EnvFiles = Mapping[tuple[str, str], str]
"""Volume name and path to the file's text; one that can't be read is not in it."""

_LARGEST_BYTES: Final = 1 << 20
_BLANK: Final = " \t"


def read_env_files(container: Container, volumes: Mapping[str, Path]) -> EnvFiles:
    """What the container's variables name. Raises Permanent for a volume that is not there."""
    found: dict[tuple[str, str], str] = {}
    for variable in container.env:
        ref = variable.valueFrom.fileKeyRef if variable.valueFrom is not None else None
        if ref is None or (ref.volumeName, ref.path) in found:
            continue
        if ref.volumeName not in volumes:
            raise Permanent(
                "CreateContainerConfigError", f'cannot find the volume "{ref.volumeName}" referenced by FileKeyRef'
            )
        try:
            found[ref.volumeName, ref.path] = _read(volumes[ref.volumeName], ref.path)
        except (OSError, ValueError):
            continue
    return found


def parse(text: str, key: str) -> str:
    """The value of `key`, the first where it is there twice; empty where it is not there. Raises ValueError."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    number = 0
    while number < len(lines):
        line = lines[number].lstrip(_BLANK)
        number += 1
        if not line or line.startswith("#"):
            continue
        name, assigned, rest = line.partition("=")
        if not assigned:
            raise _invalid(number, "missing '='")
        if not name.rstrip(_BLANK):
            raise _invalid(number, "empty variable name")
        if name != name.rstrip(_BLANK):
            raise _invalid(number, "whitespace before '=' is not allowed")
        if rest.startswith((" ", "\t")):
            # As in a shell, where `NAME= 'value'` assigns nothing.
            if name == key:
                return ""
            continue
        if not rest.startswith("'"):
            raise _invalid(number, "value must be enclosed in single quotes")
        value, closed, after = rest[1:].partition("'")
        began = number
        while not closed:
            if number == len(lines):
                raise ValueError(f"invalid environment variable format starting at line {began}: unclosed single quote")
            more, closed, after = lines[number].partition("'")
            value += f"\n{more}"
            number += 1
        after = after.lstrip(_BLANK)
        if after and not after.startswith("#"):
            raise _invalid(number, "unexpected content after closing quote")
        if name == key:
            return value
    return ""


def _invalid(line: int, why: str) -> ValueError:
    return ValueError(f"invalid environment variable format at line {line}: {why}")


def _read(volume: Path, path: str) -> str:
    fd = open_beneath(volume, path, make=False)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{path} is not a file")
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > _LARGEST_BYTES:
        raise ValueError(f"{path} is larger than {_LARGEST_BYTES} bytes")
    return content.decode("utf-8", "surrogateescape")
