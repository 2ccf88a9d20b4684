"""What proto/ says, held against the definitions that runtimes are built from: every name, number and type.

The upstream definitions come from their Go modules through the go command; protoc reads both sides.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc  # type: ignore[import-untyped]

from hack import binaries
from hack.paths import REPOSITORY

CRI_MODULE = "k8s.io/cri-api@v0.36.3"
CRI_PROTO = "pkg/apis/runtime/v1"
CONTAINERD_MODULE = "github.com/containerd/containerd/api@v1.10.0"
CONTAINERD_IMPORT = "github.com/containerd/containerd/api"

Fact = tuple[object, ...]


def download(module: str, folder: Path) -> Path:
    """The folder of a Go module, checked by the go command against its checksum database."""
    answer = subprocess.run(
        [binaries._go(), "mod", "download", "-json", module],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return Path(json.loads(answer.stdout)["Dir"])


def compiled(out: Path, paths: list[str], sources: list[str]) -> list[FileDescriptorProto]:
    """The descriptors of `sources`; `paths` are protoc's import paths."""
    arguments = ["protoc", *(f"-I{path}" for path in (*paths, files("grpc_tools") / "_proto"))]
    assert protoc.main([*arguments, f"--descriptor_set_out={out}", *sources]) == 0
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def facts(file: FileDescriptorProto) -> dict[str, Fact]:
    """Everything that shows on the wire or in a name, one entry a fact."""
    found: dict[str, Fact] = {"package": (file.package, file.syntax)}
    for enum in file.enum_type:
        found.update(_enum_facts(enum, ""))
    for message in file.message_type:
        found.update(_message_facts(message, ""))
    for service in file.service:
        for method in service.method:
            types = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
            found[f"rpc {service.name}.{method.name}"] = types
    return found


def _enum_facts(enum: EnumDescriptorProto, scope: str) -> Iterator[tuple[str, Fact]]:
    for value in enum.value:
        yield f"{scope}{enum.name}.{value.name}", (value.number,)
    yield f"reserved in {scope}{enum.name}", _reserved(enum)


def _message_facts(message: DescriptorProto, scope: str) -> Iterator[tuple[str, Fact]]:
    name = f"{scope}{message.name}"
    yield name, (message.options.map_entry,)
    yield f"reserved in {name}", _reserved(message)
    for field in message.field:
        yield f"{name}.{field.name}", _field(message, field)
    for enum in message.enum_type:
        yield from _enum_facts(enum, f"{name}.")
    for nested in message.nested_type:
        yield from _message_facts(nested, f"{name}.")


def _field(message: DescriptorProto, field: FieldDescriptorProto) -> Fact:
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
    packed = field.options.packed if field.options.HasField("packed") else None
    options = (field.options.deprecated, field.options.debug_redact, packed)
    return (
        field.number,
        field.type,
        field.label,
        field.type_name,
        field.proto3_optional,
        oneof,
        options,
    )


def _reserved(what: DescriptorProto | EnumDescriptorProto) -> Fact:
    return (tuple(what.reserved_name), tuple((one.start, one.end) for one in what.reserved_range))


@pytest.fixture(scope="module")
def ours() -> FileDescriptorProto:
    from agent.cri._generated import api_pb2

    return FileDescriptorProto.FromString(api_pb2.DESCRIPTOR.serialized_pb)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorProto:
    folder = tmp_path_factory.mktemp("cri-api")
    module = download(CRI_MODULE, folder)
    return compiled(folder / "set", [str(module / CRI_PROTO)], ["api.proto"])[0]


def test_every_name_number_and_type_of_cri_is_upstream_s(
    ours: FileDescriptorProto, upstream: FileDescriptorProto
) -> None:
    mine, theirs = facts(ours), facts(upstream)
    assert len(theirs) > 700  # a comparison of nothing would pass as well
    differences = {
        name: (mine.get(name), theirs.get(name)) for name in mine | theirs if mine.get(name) != theirs.get(name)
    }
    assert differences == {}


@pytest.mark.parametrize("change", ["number", "type", "label", "enum", "missing"])
def test_the_comparison_sees_a_changed_fact(upstream: FileDescriptorProto, change: str) -> None:
    other = FileDescriptorProto()
    other.CopyFrom(upstream)
    message = next(m for m in other.message_type if m.name == "ContainerStatus")
    match change:
        case "number":
            message.field[0].number = 99
        case "type":
            message.field[0].type = FieldDescriptorProto.TYPE_BYTES
        case "label":
            message.field[0].label = FieldDescriptorProto.LABEL_REPEATED
        case "enum":
            other.enum_type[0].value[0].number = 9
        case "missing":
            del message.field[0]
    assert facts(other) != facts(upstream)


def test_the_generated_code_is_of_the_definition_in_proto(ours: FileDescriptorProto, tmp_path: Path) -> None:
    folder = REPOSITORY / "proto/k8s.io/cri-api" / CRI_PROTO
    [written] = compiled(tmp_path / "set", [str(folder)], ["api.proto"])
    assert facts(written) == facts(ours)


def test_what_is_read_of_containerd_s_events_is_upstream_s(tmp_path: Path) -> None:
    mine: dict[str, Fact] = {}
    for file in compiled(
        tmp_path / "ours", [str(REPOSITORY / "proto/containerd")], ["event_service.proto", "event_types.proto"]
    ):
        mine.update(_full_names(file))
    module = download(CONTAINERD_MODULE, tmp_path)
    sources = ["services/events/v1/events.proto", "types/event.proto", "events/task.proto", "events/container.proto"]
    theirs: dict[str, Fact] = {}
    for file in compiled(
        tmp_path / "theirs", [f"{CONTAINERD_IMPORT}={module}"], [f"{CONTAINERD_IMPORT}/{source}" for source in sources]
    ):
        # The envelope moved to a package of its own; names of messages don't show on the wire.
        theirs.update(_full_names(file, {"containerd.types": "containerd.services.events.v1"}))
    assert {"containerd.events TaskExit.id", "containerd.services.events.v1 Envelope.event"} <= mine.keys()
    assert mine == {name: theirs.get(name) for name in mine}


def _full_names(file: FileDescriptorProto, moved: dict[str, str] | None = None) -> dict[str, Fact]:
    package = (moved or {}).get(file.package, file.package)
    renamed: dict[str, Fact] = {}
    for name, fact in facts(file).items():
        if name != "package":
            parts = [part.replace(file.package, package) if isinstance(part, str) else part for part in fact]
            for old, new in (moved or {}).items():
                parts = [part.replace(old, new) if isinstance(part, str) else part for part in parts]
            renamed[f"{package} {name}"] = tuple(parts)
    return renamed
