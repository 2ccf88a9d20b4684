"""The mock provider's settings: YAML or JSON, every key optional, unknown ones refused.

In: the file. Out: one frozen value. Times are seconds, a number or [least, most]; failures are shares of calls, from
0 to 1.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
import yaml

from agent.errors import ConfigError

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Span = Seconds | Annotated[list[Seconds], msgspec.Meta(min_length=2, max_length=2)]
"""A list and not a pair: msgspec reads the length of a pair within a union from the wrong place."""


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    create: Span = 0.0
    update: Span = 0.0
    delete: Span = 0.0
    read: Span = 0.0
    """How long the calls take."""
    start: Span = 0.0
    """From the creation to Running."""
    stop: Span = 0.0
    """From the order to end to the end; never longer than the grace period."""


class Failures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    create: Share = 0.0
    update: Share = 0.0
    delete: Share = 0.0
    read: Share = 0.0
    ping: Share = 0.0


class Containers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    run_seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """None: until they are told to stop."""
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    log_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Between two lines of a container's log."""


class MockConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: int = 0
    latency: Latency = Latency()
    failures: Failures = Failures()
    containers: Containers = Containers()
    capacity: dict[str, str | int] = {}
    """Of the Node, by resource; what is not named is the machine's."""


def read_config(path: Path | None) -> MockConfig:
    """Raises ConfigError."""
    if path is None:
        return MockConfig()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return msgspec.convert({} if content is None else content, MockConfig)
    except OSError as error:
        raise ConfigError(f"--provider-config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--provider-config {path}: not YAML: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"--provider-config {path}: {error}") from error


def drawn(span: Span, chance: Random) -> float:
    """One value of the span."""
    return chance.uniform(span[0], span[1]) if isinstance(span, list) else span
