"""docs/compatibility.md says what the code does: every field is on it, and every refusal has the words it promises."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.model.pod import PodSpec
from agent.pods.support import HARMLESS, NOT_YET, unsupported
from agent.pods.support import _fields as fields_of

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", PAGE)
REFUSED = [row.split("`")[1] for row in PAGE.splitlines() if row.startswith("| ") and "| `spec." in row]
WORDS = {word for code in CODE for word in re.findall(r"\w+", code)}
FIELDS = (Path(__file__).parent / "pod_fields_1_36.txt").read_text().split()
"""What a v1.PodSpec of Kubernetes 1.36 has, one kind of container for all, without what is inside the scheduler's."""
_VALUE = re.compile(r"(.+) is not supported")


def struct_fields(kind: msgspec.inspect.Type, seen: set[type]) -> Iterator[str]:
    match kind:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            if cls not in seen:
                seen.add(cls)
                for field in fields:
                    yield field.encode_name
                    yield from struct_fields(field.type, seen)
        case msgspec.inspect.UnionType(types=types):
            for inner in types:
                yield from struct_fields(inner, seen)
        case msgspec.inspect.VarTupleType(item_type=item):
            yield from struct_fields(item, seen)


def pod_with(path: str, value: Any) -> dict[str, Any]:
    """The smallest object in which `spec.volumes[0].nfs` and the like is `value`."""
    for part in reversed(path.split(".")):
        value = {part[:-3]: [value]} if part.endswith("[0]") else {part: value}
    assert isinstance(value, dict)
    return value


def test_every_field_that_the_agent_knows_is_on_the_page() -> None:
    known = set(struct_fields(msgspec.inspect.type_info(PodSpec), set()))
    assert known - WORDS == set()


def refused(path: str) -> str | None:
    """The first part of the path that is refused, None where all of it is known."""
    struct: type[msgspec.Struct] | None = PodSpec
    walked, *rest = path.split(".")
    for part in rest:
        walked += f".{part}"
        if walked in NOT_YET or walked in HARMLESS or struct is None:
            return walked
        known = fields_of(struct)
        if part not in known:
            return walked
        struct = known[part]
    return None


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_of_the_api_is_on_the_page_or_within_one_that_is_refused_there(path: str) -> None:
    assert (refused(path) or path).rpartition(".")[2] in WORDS


def test_the_page_has_refusals() -> None:
    assert len(REFUSED) > 5


@pytest.mark.parametrize("promised", REFUSED)
def test_a_refusal_on_the_page_is_what_the_user_sees(promised: str) -> None:
    path, _, why = promised.partition(": ")
    found = _VALUE.fullmatch(why)
    value = ast.literal_eval(found[1]) if found and found[1] != "is" else [{"any": "thing"}]
    assert [str(refusal) for refusal in unsupported(pod_with(path, value))] == [promised]


@pytest.mark.parametrize("why", NOT_YET.values())
def test_every_field_that_is_known_and_not_performed_is_on_the_page(why: str) -> None:
    assert any(promised.endswith(why) for promised in REFUSED)
