"""One setting as people give it: its names as a flag, a variable and a key of the file, its form, help and default.

The settings themselves are in `agent.option_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import option_values as form
from agent.config import Settings

_DEFAULTS = dict(zip(reversed(Settings.__struct_fields__), reversed(Settings.__struct_defaults__), strict=False))
"""By field; the first ones have none."""


class Option(msgspec.Struct, frozen=True):
    """One setting. `flag` has no dashes in front; `key` is its name in the settings file, beside the flag's own."""

    field: str
    flag: str
    parse: Callable[[object], object]
    metavar: str
    help: str
    key: str = ""
    env: str = ""
    flag_alias: str = ""
    many: bool = False
    """A list: the flag may be given again and adds to it."""
    default: str = ""
    """The default in words, where Settings' own says too little."""

    @property
    def file_key(self) -> str:
        head, *rest = self.flag.split("-")
        return self.key or head + "".join(word.capitalize() for word in rest)

    @property
    def switch(self) -> bool:
        """The flag may stand without a value."""
        return self.parse is form.switch

    def default_in_words(self) -> str:
        """What holds where nothing is given; empty: nothing does."""
        if self.default:
            return self.default
        found = _DEFAULTS.get(self.field)
        if isinstance(found, bool):
            return str(found).lower()
        return str(found) if isinstance(found, str | int | float | Path) else ""
