"""The forms that a setting's value can have: text from a flag or the environment, or what YAML made of a file.

In: a string, or a YAML scalar, list or mapping. Out: the value as Settings has it. A wrong one raises ValueError with
the rest of a line that starts with the setting's name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path

from agent.model.quantity import parse as parse_quantity
from agent.store.address import parse as parse_address

_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")

_SYSCTL_PART = r"[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?"
_SYSCTL = re.compile(rf"(?=.{{1,253}}$)(?:{_SYSCTL_PART}[./])*(?:{_SYSCTL_PART}\*?|\*)")
# The kernel parameters whose namespace is the network's or IPC's, which a pod has of its own.
_NAMESPACED = re.compile(
    r"(?:net|fs\.mqueue)\.|kernel\.(?:sem\*?|shm\*|shmall|shmmax|shmmni|shm_rmid_forced|msg\*|msgmax|msgmnb|msgmni)$"
)

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|h|m|s))+")
_IMAGE = re.compile(r"[A-Za-z0-9][\w.:-]*(/[a-z0-9][\w.-]*)*", re.ASCII)
PROVIDER_ALIASES = {"mynode": "containerd", "example-provider": "containerd"}

ENFORCED = (
    "pods", "system-reserved", "kube-reserved", "system-reserved-compressible", "kube-reserved-compressible",
)  # fmt: skip

_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})


def text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"not a text: {value!r} (put it in quotes)")


def store(value: object) -> str:
    """Checked, and kept as text: who opens it reads it again."""
    parse_address(text(value))
    return text(value)


def path(value: object) -> Path:
    if not text(value):
        raise ValueError("no path given")
    return Path(text(value))


def optional_path(value: object) -> Path | None:
    """Empty means none."""
    return Path(text(value)) if text(value) else None


def listening(value: object) -> tuple[str, int] | None:
    """ADDRESS:PORT, an IPv6 address in brackets; empty means nowhere."""
    if not text(value):
        return None
    host, _, port = text(value).rpartition(":")
    try:
        address = ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        raise ValueError(f"not ADDRESS:PORT: {value!r}") from None
    if (address.version == 6) is not host.startswith("["):
        raise ValueError(f"an IPv6 address needs brackets: {value!r}")
    return str(address), whole(1, 65535)(port)


def switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"neither true nor false: {value!r}")


def whole(minimum: int, maximum: int) -> Callable[[object], int]:
    """A whole number between the two, both included."""

    def parse(value: object) -> int:
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value):
            number = int(value)
        if number is None:
            raise ValueError(f"not a whole number: {value!r}")
        if not minimum <= number <= maximum:
            raise ValueError(f"{number} is not between {minimum} and {maximum}")
        return number

    return parse


def rate(value: object) -> float:
    """A number of times a second, 0 included."""
    try:
        number = float(str(value)) if not isinstance(value, bool) else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is no number from 0 on")
    return number


def duration(value: object) -> float:
    """Go's form (1m30s), or bare seconds; more than zero."""
    word = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else text(value)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", word):
        seconds = float(word)
    elif word and re.fullmatch(_DURATION, word):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", word))
    else:
        raise ValueError(f"{value!r} is no duration: write 90s or 1m30s")
    if seconds <= 0:
        raise ValueError(f"{value!r} is not more than zero")
    return seconds


def provider(value: object) -> str:
    """A name or module:Class; the names that mean the containerd provider are replaced by its own."""
    name = text(value).strip()
    if not name:
        raise ValueError("no provider named; see edgelet providers")
    return name


def choice(*words: str, aliases: Mapping[str, str] | None = None) -> Callable[[object], str]:
    """One of the words, in any case; an alias stands for another word."""

    meant = {**{word.lower(): word for word in words}, **(aliases or {})}

    def parse(value: object) -> str:
        word = text(value).lower()
        if word not in meant:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return meant[word]

    return parse


def node_name(value: object) -> str:
    """Lower-cased, as the kubelet does it; then a DNS subdomain name, which the API server asks for."""
    name = text(value).strip().lower()
    if not is_subdomain(name):
        raise ValueError(f"{value!r} is no node name: letters, digits, '-' and '.', at most 253, each part 63")
    return name


def is_subdomain(name: str) -> bool:
    """RFC 1123, as Kubernetes reads it."""
    return len(name) <= 253 and bool(_SUBDOMAIN.fullmatch(name)) and all(len(part) <= 63 for part in name.split("."))


def domain(value: object) -> str:
    """A DNS domain, without the dot at its end."""
    name = text(value).strip().lower().rstrip(".")
    if not is_subdomain(name):
        raise ValueError(f"{value!r} is no DNS domain")
    return name


def address(value: object) -> str:
    """One address to listen on, empty for all of them."""
    return _address(text(value)) if text(value) else ""


def addresses(value: object) -> tuple[str, ...]:
    return tuple(_address(text(item)) for item in items(value))


def node_ips(value: object) -> str:
    """One address, or one IPv4 and one IPv6, the primary one first."""
    found = addresses(value)
    for one in found:
        parsed = ip_address(one)
        if parsed.is_unspecified or parsed.is_multicast:
            raise ValueError(f"{one} is no address of a node")
    if len(found) > 2 or len({ip_address(one).version for one in found}) != len(found):
        raise ValueError(f"{value!r} is neither one address nor one of each family")
    return ",".join(found)


def sysctls(value: object) -> tuple[str, ...]:
    """Names of kernel parameters that belong to a pod's own namespaces; a `*` at the end stands for any rest."""
    found = tuple(text(item) for item in items(value))
    for one in found:
        if not _SYSCTL.fullmatch(one):
            raise ValueError(f"{one!r} is no name of a kernel parameter")
        if not _NAMESPACED.match(one.replace("/", ".")):
            raise ValueError(f"{one!r} is not known to belong to a pod alone: only net.*, kernel.shm*, kernel.msg*,"
                             " kernel.sem and fs.mqueue.* are")  # fmt: skip
    return found


def images(value: object) -> tuple[str, ...]:
    """Names of images without tag and digest; a `/*` at the end stands for any rest."""
    found = tuple(text(item) for item in items(value))
    for one in found:
        name = one.removesuffix("/*")
        tagged = name == one and ":" in name.rpartition("/")[2]
        if tagged or not _IMAGE.fullmatch(name):
            raise ValueError(f"{one!r} is no image without a tag, and no prefix of images that ends in /*")
    return found


def endpoint(value: object) -> str:
    """A unix socket, as URL or as absolute path."""
    url = text(value)
    socket = url.removeprefix("unix://")
    if not socket.startswith("/"):
        raise ValueError(f"{value!r} is no unix socket: write unix:///path/of/the.sock")
    return f"unix://{socket}"


def cgroup(value: object) -> str:
    root = text(value) or "/"
    if not root.startswith("/") or ".." in root.split("/"):
        raise ValueError(f"{value!r} is no absolute cgroup path")
    return root


def optional_cgroup(value: object) -> str:
    """Empty means none."""
    return cgroup(value) if text(value) else ""


def reserved(value: object) -> dict[str, str]:
    """`cpu=100m,memory=1Gi`, or a mapping."""
    if isinstance(value, Mapping):
        pairs = [(text(key), str(amount)) for key, amount in value.items()]
    else:
        pairs = [pair(text(item)) for item in items(value)]
    for name, amount in pairs:
        if name not in ("cpu", "memory", "ephemeral-storage", "pid"):
            raise ValueError(f"{name!r} cannot be reserved: cpu, memory, ephemeral-storage and pid can")
        if parse_quantity(amount) < 0:
            raise ValueError(f"{name}={amount} is less than nothing")
    return dict(pairs)


def enforced(value: object) -> tuple[str, ...]:
    """Names of what is enforced by cgroups; `none` alone, or nothing, is nothing."""
    found = tuple(text(item) for item in items(value))
    if found == ("none",):
        return ()
    for one in found:
        if one not in ENFORCED:
            raise ValueError(f"{one!r} is none of {', '.join(ENFORCED)}, none")
    return found


def namespaces(value: object) -> tuple[str, ...]:
    return tuple(_dns_label(text(item)) for item in items(value))


def service_accounts(value: object) -> tuple[str, ...]:
    """NAME or NAMESPACE/NAME."""
    found = tuple(text(item) for item in items(value))
    for one in found:
        namespace, slash, name = one.rpartition("/")
        if slash:
            _dns_label(namespace)
        if not is_subdomain(name):
            raise ValueError(f"{one!r} is no service account: write NAME or NAMESPACE/NAME")
    return found


def _dns_label(name: str) -> str:
    if not is_subdomain(name) or "." in name:
        raise ValueError(f"{name!r} is no namespace")
    return name


def items(value: object) -> list[object]:
    """A YAML list, or words with commas between."""
    if isinstance(value, list):
        return value
    return [word for item in text(value).split(",") if (word := item.strip())]


def pair(item: str) -> tuple[str, str]:
    key, equals, word = item.partition("=")
    if not equals:
        raise ValueError(f"{item!r} is not written key=value")
    return key.strip(), word.strip()


def _address(word: str) -> str:
    try:
        return str(ip_address(word.strip()))
    except ValueError:
        raise ValueError(f"{word!r} is no IP address") from None
