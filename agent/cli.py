"""The command line: `edgelet run`, `join`, `drain`, `store`, `providers`, `version`.

In: arguments, the environment and the settings file. Out: the exit code. A mistake of the user's ends with one line on
stderr and code 2, a known failure with one line and code 1; only a bug shows a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agent import __version__, former_flags
from agent.config import JOINED_KUBECONFIG, Settings
from agent.errors import ConfigError, EdgeletError
from agent.option import Option
from agent.option_table import DEFAULT_KUBECONFIG, OPTIONS
from agent.options import resolve

if TYPE_CHECKING:
    from agent.kube.credentials import Credentials

USAGE_ERROR = 2
_ABOUT = "A Kubernetes node agent: joins a cluster as a Node and runs its Pods through containerd."
_RUN = """\
Run the agent in the foreground until it is told to stop (Ctrl-C, SIGTERM). Pods keep running then,
and the next start takes them over.

A flag wins over its environment variable, that over the settings file, that over the default.
The settings file has the same names, as written here or in camelCase (max-pods or maxPods)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. `argv` is without the program's name; None takes this process's."""
    try:
        arguments = _parser().parse_args(argv)
        match arguments.command:
            case "version":
                print(_version())
            case "providers":
                _print_providers()
            case "run":
                return _run(_settings(vars(arguments)))
            case "join":
                return _join(vars(arguments))
            case "drain":
                return _drain(vars(arguments))
            case "store":
                return _store(vars(arguments))
            case _:
                raise ConfigError("no command given; see edgelet --help")
    except ConfigError as error:
        return _fail(error, USAGE_ERROR)
    except SystemExit as asked:  # argparse's way out of --help and --version
        return int(asked.code or 0)
    return 0


def _print_providers() -> None:
    from agent.providers.registry import installed

    rows = [("NAME", "CLASS", "OPTIONAL PARTS")]
    rows += [(one.name, one.source, one.fault or ", ".join(one.parts) or "none") for one in installed()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, source, parts in rows:
        print(f"{name:{widths[0]}}  {source:{widths[1]}}  {parts}")


def _store(arguments: Mapping[str, object]) -> int:
    from agent import log
    from agent.store import command

    log.configure("warning")
    # What only the agent needs may be missing on this machine.
    settings = _settings({**{option.field: None for option in OPTIONS}, **arguments}, exists=lambda _: True)
    try:
        return command.run(settings, arguments)
    except ConfigError:
        raise
    except EdgeletError as error:
        return _fail(error, 1)
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        return 1


def _drain(arguments: Mapping[str, object]) -> int:
    from agent import drain

    settings = _settings({**{option.field: None for option in OPTIONS}, **arguments}, exists=lambda _: True)
    try:
        return drain.run(settings, arguments)
    except ConfigError:
        raise
    except EdgeletError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("the agent goes on with it; edgelet drain --undo takes it back", file=sys.stderr)
        return 130


def _join(arguments: Mapping[str, object]) -> int:
    from agent import log
    from agent.kube import join

    log.configure("warning")
    own = (DEFAULT_KUBECONFIG, JOINED_KUBECONFIG)
    given = {**{option.field: None for option in OPTIONS}, **arguments}
    # What only the agent needs may be missing, and whatever kubeconfig lies about is not meant.
    settings = _settings(given, exists=lambda path: path not in own)
    try:
        return join.run(settings, arguments)
    except ConfigError:
        raise
    except EdgeletError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return 130


def _run(settings: Settings) -> int:
    from agent import log, memory

    gc.disable()  # nothing of what is imported is garbage
    memory.spare()
    log.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(_start(settings))
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:  # told to stop while it was starting
        return 0
    except (EdgeletError, BaseExceptionGroup) as error:
        leaves = tuple(_leaves(error))
        known = [leaf for leaf in leaves if isinstance(leaf, EdgeletError)]
        if len(known) < len(leaves):
            raise  # a bug: its traceback is wanted
        wrong = [leaf for leaf in known if isinstance(leaf, ConfigError)]
        return _fail((wrong or known)[0], USAGE_ERROR if wrong else 1)
    return 0


async def _start(settings: Settings) -> None:
    """Have the kubeconfig read, which is a process of its own, and meanwhile import the heavy half of the program."""
    from agent import late_trust

    starting = asyncio.current_task()
    assert starting is not None
    # Until `run` takes the signal over: decoded keys must not be left behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, starting.cancel)
    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(_credentials(settings), name="kubeconfig")
        await asyncio.sleep(0)  # it starts its process
        late_trust.load_aiohttp()
        from agent.run import run
    gc.enable()
    await run(settings, loading.result())


async def _credentials(settings: Settings) -> Credentials | None:
    kubeconfig = settings.kubeconfig
    if kubeconfig is None:
        return None
    from agent.kube.credentials import Credentials

    if settings.bootstrap_kubeconfig is not None and not kubeconfig.exists():
        from agent.clock import SystemClock
        from agent.kube.enrol import first_enrolment

        await first_enrolment(settings, SystemClock())
    return await Credentials.load(kubeconfig)


def _settings(arguments: Mapping[str, object], exists: Callable[[Path], bool] = Path.exists) -> Settings:
    former_flags.refuse(arguments)
    flags = {
        option.field: ",".join(given) if isinstance(given, list) else str(given)
        for option in OPTIONS
        if (given := arguments[option.field]) is not None
    }
    config = arguments["config"]
    return resolve(
        flags,
        os.environ,
        _read_file(Path(str(config))) if config is not None else {},
        file_name=str(config),
        hostname=socket.gethostname(),
        exists=exists,
    )


def _read_file(path: Path) -> Mapping[str, object]:
    import yaml  # only who has a settings file pays for it

    class Loader(yaml.SafeLoader):
        """YAML takes a key's second value without a word; whoever set it twice wants to know."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            for place, (key, _) in enumerate(node.value):
                if key.value in keys[:place]:
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value!r} is there twice", problem_mark=key.start_mark
                    )
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506  a SafeLoader
    except OSError as error:
        raise ConfigError(f"--config: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{path}: {where}not YAML: {what}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: not a mapping of settings")
    return content


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edgelet", description=_ABOUT, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="run the agent",
        description=_RUN,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--config", metavar="FILE", help="settings file (YAML)")
    for option in OPTIONS:
        _add(run, option)
    for former in former_flags.FORMER_FLAGS:
        values: dict[str, Any] = {"nargs": "?", "const": "true"} if former.switch else {}
        run.add_argument(f"--{former.flag}", dest=former.field, help=argparse.SUPPRESS, **values)
    _add_join(commands)
    _add_drain(commands)
    _add_store(commands)
    commands.add_parser("providers", help="list the installed providers and what each can do", allow_abbrev=False)
    commands.add_parser("version", help="print the version", allow_abbrev=False)
    return parser


def _add_join(commands: Any) -> None:
    about = "make this machine a node of a cluster, with a bootstrap token"
    join = commands.add_parser("join", help=about, description=about, allow_abbrev=False)
    join.add_argument("server", metavar="SERVER", nargs="?", default="", help="the API server, https://ADDRESS:6443")
    join.add_argument("--token", metavar="ID.SECRET", help="a bootstrap token, or the path of a file that has it")
    # kubeadm's own names too: what `kubeadm token create --print-join-command` prints is good here.
    pin, unpinned = "--discovery-token-ca-cert-hash", "--discovery-token-unsafe-skip-ca-verification"
    join.add_argument(
        "--ca-cert-hash", pin, action="append", metavar="sha256:HEX", help="hash of the cluster CA's public key"
    )
    join.add_argument(
        unpinned, dest="skip_ca_verification", action="store_true", help="trust the token's signature alone"
    )
    join.add_argument("--ca-file", metavar="FILE", help="the cluster's CA, instead of its hash")
    join.add_argument("--discovery-file", metavar="FILE", help="a kubeconfig with the cluster in it, instead of both")
    join.add_argument("--config", metavar="FILE", help="settings file (YAML)")
    for option in OPTIONS:
        if option.field in ("node_name", "kubeconfig", "bootstrap_kubeconfig", "cert_dir", "root_dir"):
            _add(join, option)


def _add_drain(commands: Any) -> None:
    about = "have the agent of this machine end its pods as a shutdown does, until --undo or its next start"
    drain = commands.add_parser("drain", help=about, description=about, allow_abbrev=False)
    drain.add_argument(
        "--grace-period",
        metavar="DURATION",
        help="for ordinary pods (default: the agent's --shutdown-grace-period, else 20s)",
    )
    drain.add_argument(
        "--critical-grace-period", metavar="DURATION", help="for critical pods, after the others (default: 10s)"
    )
    drain.add_argument("--undo", action="store_true", help="take pods again")
    drain.add_argument("--config", metavar="FILE", help="settings file (YAML)")
    for option in OPTIONS:
        if option.field == "root_dir":
            _add(drain, option)


def _add_store(commands: Any) -> None:
    about = "look at the record, copy it, or move it to another place"
    store = commands.add_parser("store", help=about, description=about, allow_abbrev=False)
    parts = store.add_subparsers(dest="store_command", metavar="COMMAND", parser_class=_Parser, required=True)
    export = parts.add_parser("export", help="print the record as JSON lines, without Secrets and tokens")
    export.add_argument("--with-secrets", action="store_true", help="with Secrets and tokens, sealed")
    export.add_argument("--unsealed", action="store_true", help="Secrets and tokens as they are; goes with the above")
    taken = parts.add_parser("import", help="take an export in; rows of the same key are replaced")
    taken.add_argument("file", metavar="FILE", help="- is standard input")
    check = parts.add_parser("check", help="read everything and say what is wrong")
    migrate = parts.add_parser("migrate", help="copy the record to another place")
    migrate.add_argument("--to", metavar="URL", required=True, help="as for --store")
    forget = parts.add_parser("forget-cluster", help="belong to whichever cluster answers next")
    for part in (export, taken, check, migrate, forget):
        part.add_argument("--config", metavar="FILE", help="settings file (YAML)")
        for option in OPTIONS:
            if option.field in ("node_name", "root_dir", "store", "store_key_file"):
                _add(part, option)


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    names = [f"--{name}" for name in (option.flag, option.flag_alias) if name]
    notes = [f"default: {default}"] if (default := option.default_in_words()) else []
    notes += [f"environment: {option.env}"] if option.env else []
    text = f"{option.help} ({'; '.join(notes)})" if notes else option.help
    text = text.replace("%", "%%")
    if option.switch:
        # Go's flags take a switch with and without a value.
        parser.add_argument(*names, dest=option.field, metavar=option.metavar, help=text, nargs="?", const="true")
    else:
        action = "append" if option.many else "store"
        parser.add_argument(*names, dest=option.field, metavar=option.metavar, help=text, action=action)


def _leaves(group: BaseException) -> Iterator[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        for inner in group.exceptions:
            yield from _leaves(inner)
    else:
        yield group


def _fail(error: BaseException, code: int) -> int:
    print(f"edgelet: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _version() -> str:
    system, machine = platform.system().lower(), platform.machine()
    return f"edgelet {__version__} (Python {platform.python_version()}, {system}/{machine})"
