"""The process that reads a kubeconfig with the official loader: the package would cost the agent 20 MiB for good.

In: the kubeconfig's path and a folder for decoded keys. Out: a `Reading`, written to stdout as JSON, or one line on
stdout and exit code 2 where the kubeconfig is wrong.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType

import msgspec

from agent.errors import ConfigError
from agent.kube.kubeconfig import WRONG

_PACKAGES = ("kubernetes", "kubernetes.aio", "kubernetes.aio.config")
_UNUSED = {
    "kubernetes.aio.client": ("ApiClient", "Configuration"),
    "kubernetes.aio.config.openid": ("OpenIDRequestor",),
}
"""What the loader's module imports and needs for nothing that we ask of it."""


def main(kubeconfig: str, folder: str) -> None:
    """Print the Reading. The process ends here."""
    _leave_out()
    from agent.kube import official_loader

    try:
        answer, code = msgspec.json.encode(asyncio.run(official_loader.read(kubeconfig, folder))), 0
    except ConfigError as error:
        answer, code = str(error).encode(), WRONG
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()
    sys.exit(code)


def _leave_out() -> None:
    """Of the package only the loader: all else, with the HTTP client and pydantic, is four fifths of the time."""
    for name in _PACKAGES:
        found = find_spec(name)
        assert found is not None, name
        sys.modules[name] = module_from_spec(found)
    for name, parts in _UNUSED.items():
        sys.modules[name] = unused = ModuleType(name)
        vars(unused).update(dict.fromkeys(parts))
