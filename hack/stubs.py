"""Generate agent/cri/_generated from proto/: messages, their types, and the gRPC services.

Run by `make proto` (as a script) and by every build of the wheel (as hatchling's build hook), so the generated code is
shipped but never committed. The version checks that the generators write are dropped: they would tie a wheel to
whatever generator was newest on the day of its build, while what is generated works with every grpcio and protobuf
that pyproject.toml allows. The services get a type stub of our own, for protoc writes none.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto
from grpc_tools import protoc  # type: ignore[import-untyped]
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("agent/cri/_generated")
SOURCES = (
    Path("proto/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto"),
    Path("proto/k8s.io/apimachinery/answers.proto"),
    Path("proto/containerd/event_service.proto"),
    Path("proto/containerd/event_types.proto"),
    Path("proto/containerd/content.proto"),
    Path("proto/containerd/images.proto"),
    Path("proto/containerd/leases.proto"),
    Path("proto/etcd/etcd.proto"),
    Path("proto/csi/csi.proto"),
    Path("proto/k8s.io/kubelet/pkg/apis/pluginregistration/v1/registration.proto"),
    Path("proto/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/deviceplugin.proto"),
    Path("proto/k8s.io/kubelet/pkg/apis/podresources/v1/podresources.proto"),
)
DOCSTRING = '"""Generated from proto/ by hack/stubs.py."""\n'

# protobuf's check is one call with its import, grpc's a block at the top level that ends before the first class.
PROTOBUF_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version as _runtime_version\n"
    r"|^_runtime_version\.ValidateProtobufRuntimeVersion\(\n(?: .*\n)*\)\n",
    re.MULTILINE,
)
GRPC_CHECK = re.compile(r"^GRPC_GENERATED_VERSION = (?:.*\n)*?(?=\n\nclass )", re.MULTILINE)
# A second, static way to make each call, which nobody uses: half a megabyte of memory.
GRPC_STATIC_CALLS = re.compile(
    r"^ # This class is part of an EXPERIMENTAL API\.\n(?:.*\n)*?(?=\n\nclass |\Z)", re.MULTILINE
)


class StubsError(Exception):
    """protoc refused the sources, or wrote what this script does not know."""


def generate(root: Path) -> None:
    """Write the package below `root`, the project's folder. Files that come out the same are left untouched."""
    package = root / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        _run_protoc(root, out)
        made = out / PACKAGE
        descriptors = FileDescriptorSet.FromString((out / "descriptors").read_bytes())
        for file in descriptors.file:
            stem = Path(file.name).stem
            _rewrite(made / f"{stem}_pb2.py", PROTOBUF_CHECK)
            services = made / f"{stem}_pb2_grpc.py"
            if file.service:
                _rewrite(services, GRPC_CHECK)
                services.write_text(GRPC_STATIC_CALLS.sub("", services.read_text()))
                services.with_suffix(".pyi").write_text(_services_stub(stem, file.package, list(file.service)))
            else:
                services.unlink()
        (made / "__init__.py").write_text(DOCSTRING)
        _install(made, package)


def _run_protoc(root: Path, out: Path) -> None:
    """The virtual path `agent/cri/_generated` makes protoc write imports that work inside the agent's package."""
    arguments = ["protoc", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += sorted({f"-I{PACKAGE}={root / source.parent}" for source in SOURCES})
    arguments += [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    arguments += [f"--descriptor_set_out={out / 'descriptors'}"]
    arguments += [str(PACKAGE / source.name) for source in SOURCES]
    if protoc.main(arguments) != 0:
        raise StubsError("protoc refused the files in proto/ (its message is above)")


def _rewrite(path: Path, check: re.Pattern[str]) -> None:
    text, dropped = check.subn("", path.read_text())
    if not dropped or "GENERATED_VERSION" in text or "_runtime_version" in text:
        raise StubsError(f"{path.name}: this generator writes its version check in another form; adapt hack/stubs.py")
    path.write_text(text.replace("import warnings\n", ""))


def _services_stub(stem: str, package: str, services: list[ServiceDescriptorProto]) -> str:
    lines = [DOCSTRING, "import grpc.aio", "from collections.abc import AsyncIterator"]
    lines += [f"from agent.cri._generated import {stem}_pb2 as _pb", ""]

    def message(name: str) -> str:
        return name.replace(f".{package}.", "_pb.")

    def call(method: MethodDescriptorProto) -> str:
        sent, answered = (("Unary", "Stream")[s] for s in (method.client_streaming, method.server_streaming))
        return f"grpc.aio.{sent}{answered}MultiCallable[{message(method.input_type)}, {message(method.output_type)}]"

    def handler(method: MethodDescriptorProto) -> str:
        request, response = message(method.input_type), message(method.output_type)
        asked = f"request_iterator: AsyncIterator[{request}]" if method.client_streaming else f"request: {request}"
        signature = f"(self, {asked}, context: grpc.aio.ServicerContext[{request}, {response}])"
        if method.server_streaming:
            return f"def {method.name}{signature} -> AsyncIterator[{response}]: ..."
        return f"async def {method.name}{signature} -> {response}: ..."

    for service in services:
        lines += [f"class {service.name}Stub:", "    def __init__(self, channel: grpc.aio.Channel) -> None: ..."]
        lines += [f"    {method.name}: {call(method)}" for method in service.method]
        lines += ["", f"class {service.name}Servicer:"]
        lines += [f"    {handler(method)}" for method in service.method]
        add = f"def add_{service.name}Servicer_to_server"
        lines += ["", f"{add}(servicer: {service.name}Servicer, server: grpc.aio.Server) -> None: ...", ""]
    return "\n".join(lines)


def _install(made: Path, package: Path) -> None:
    package.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in made.iterdir()}
    for path in package.iterdir():
        if path.name not in wanted and path.is_file():
            path.unlink()
    for name, path in wanted.items():
        target = package / name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            partial = package / f".{name}.new"
            shutil.copyfile(path, partial)
            partial.replace(target)


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling calls this before it collects the wheel's files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if self.target_name == "wheel":
            generate(Path(self.root))


if __name__ == "__main__":
    try:
        generate(Path(__file__).resolve().parent.parent)
    except StubsError as error:
        sys.exit(f"hack/stubs.py: {error}")
