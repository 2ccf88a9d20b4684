"""Which name an image is pulled and found under, where the node's owner has it come from somewhere else. Pure.

In: `--image-rewrites`, prefixes of image names in full, and an image as a pod names it. Out: the name for the runtime,
and the way back. Nothing but the runtime hears of it: hash, events and status keep the name that the user wrote.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.errors import Permanent
from agent.pods.images import parse_image, with_default_tag


class Rewrites(msgspec.Struct, frozen=True):
    """(from, to): a registry, or the first parts of a repository after it. Of several that fit, the longest counts."""

    pairs: tuple[tuple[str, str], ...] = ()

    def name(self, image: str) -> str:
        """The image's name for the runtime, with its default tag. Raises Permanent("InvalidImageName")."""
        written = with_default_tag(image)
        full = str(parse_image(image))
        fitting = [pair for pair in self.pairs if _begins(full, pair[0])]
        if not fitting:
            return written
        old, new = max(fitting, key=lambda pair: len(pair[0]))
        # What comes of it must be a name too: a long path may become too long.
        return str(parse_image(new + full[len(old) :]))

    def originals(self, names: Sequence[str]) -> tuple[str, ...]:
        """What else pods call an image that the runtime has under these names."""
        candidates = [old + name[len(new) :] for name in names for old, new in self.pairs if _begins(name, new)]
        return tuple(one for one in dict.fromkeys(candidates) if one not in names and self._leads_to(one, names))

    def _leads_to(self, image: str, names: Sequence[str]) -> bool:
        try:
            return self.name(image) in names
        except Permanent:
            return False


NO_REWRITES = Rewrites()


def _begins(name: str, prefix: str) -> bool:
    """Whole parts: `a.example/b` begins `a.example/b/c:1` and `a.example/b:1`, and not `a.example/bc:1`."""
    rest = name.removeprefix(prefix)
    return rest != name and rest[:1] in ("/", ":", "@")
