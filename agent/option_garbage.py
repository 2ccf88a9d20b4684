"""How the settings of garbage collection and log rotation are written, and which of them go together.

In: what a flag or the settings file says. Out: seconds and bytes. ValueError is one line.
"""

from __future__ import annotations

from agent.config import Settings
from agent.errors import ConfigError
from agent.model import quantity
from agent.option_values import duration


def age(value: object) -> float:
    """A duration, or 0. Seconds."""
    return 0.0 if str(value) in ("0", "0s", "0m", "0h") else duration(value)


def size(value: object) -> int:
    """A quantity of bytes (10Mi); less than 0 means none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a quantity of bytes: {value!r}")
    return quantity.ceil_units(value)


def room(value: object) -> int:
    """A quantity of bytes, 0 or more."""
    if (found := size(value)) < 0:
        raise ValueError(f"must not be negative: {value!r}")
    return found


def check(settings: Settings) -> None:
    """Raises ConfigError."""
    if settings.image_gc_low_threshold >= settings.image_gc_high_threshold:
        raise ConfigError("--image-gc-low-threshold must be less than --image-gc-high-threshold")
    if 0 < settings.image_maximum_gc_age <= settings.minimum_image_ttl_duration:
        raise ConfigError("--image-maximum-gc-age must be longer than --minimum-image-ttl-duration, or 0")
