"""CRI's RuntimeService: one method per call, named as the call is, with plain arguments and no logic of its own.

Answers are the generated messages, or the one value in them. Each method raises Retryable, NotFound, Conflict or
Permanent as `agent.cri.faults` tells them apart; a call that the runtime does not serve is Permanent "Unimplemented".
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from grpc import StatusCode
from grpc.aio import AioRpcError

from agent.cri._generated import api_pb2 as pb
from agent.cri._generated.api_pb2_grpc import RuntimeServiceStub
from agent.cri.channel import RuntimeChannel, check_socket
from agent.cri.faults import UNIMPLEMENTED
from agent.errors import ConfigError, Permanent, Retryable

CALL_DEADLINE_S: Final = 120.0
"""The kubelet's --runtime-request-timeout."""
SANDBOX_DEADLINE_S: Final = 2 * CALL_DEADLINE_S
"""Setting up a pod's network may be slow; the kubelet doubles the time here, too."""
HANDSHAKE_DEADLINE_S: Final = 10.0


class RuntimeClient:
    """Pod sandboxes and containers."""

    def __init__(self, channel: RuntimeChannel) -> None:
        stub = RuntimeServiceStub(channel.grpc)
        self._endpoint = channel.endpoint
        unary, streaming = channel.unary, channel.streaming
        self._version = unary("Version", stub.Version, HANDSHAKE_DEADLINE_S)
        self._status = unary("Status", stub.Status, CALL_DEADLINE_S)
        self._runtime_config = unary("RuntimeConfig", stub.RuntimeConfig, CALL_DEADLINE_S)
        self._update_runtime_config = unary("UpdateRuntimeConfig", stub.UpdateRuntimeConfig, CALL_DEADLINE_S)
        self._run_pod_sandbox = unary("RunPodSandbox", stub.RunPodSandbox, SANDBOX_DEADLINE_S)
        self._stop_pod_sandbox = unary("StopPodSandbox", stub.StopPodSandbox, CALL_DEADLINE_S)
        self._remove_pod_sandbox = unary("RemovePodSandbox", stub.RemovePodSandbox, CALL_DEADLINE_S)
        self._pod_sandbox_status = unary("PodSandboxStatus", stub.PodSandboxStatus, CALL_DEADLINE_S)
        self._list_pod_sandbox = unary("ListPodSandbox", stub.ListPodSandbox, CALL_DEADLINE_S)
        self._update_pod_sandbox = unary("UpdatePodSandboxResources", stub.UpdatePodSandboxResources, CALL_DEADLINE_S)
        self._create_container = unary("CreateContainer", stub.CreateContainer, CALL_DEADLINE_S)
        self._start_container = unary("StartContainer", stub.StartContainer, CALL_DEADLINE_S)
        self._stop_container = unary("StopContainer", stub.StopContainer, CALL_DEADLINE_S)
        self._remove_container = unary("RemoveContainer", stub.RemoveContainer, CALL_DEADLINE_S)
        self._list_containers = unary("ListContainers", stub.ListContainers, CALL_DEADLINE_S)
        self._container_status = unary("ContainerStatus", stub.ContainerStatus, CALL_DEADLINE_S)
        self._update_container = unary("UpdateContainerResources", stub.UpdateContainerResources, CALL_DEADLINE_S)
        self._reopen_container_log = unary("ReopenContainerLog", stub.ReopenContainerLog, CALL_DEADLINE_S)
        self._checkpoint_container = unary("CheckpointContainer", stub.CheckpointContainer, CALL_DEADLINE_S)
        self._exec_sync = unary("ExecSync", stub.ExecSync, CALL_DEADLINE_S)
        self._exec = unary("Exec", stub.Exec, CALL_DEADLINE_S)
        self._attach = unary("Attach", stub.Attach, CALL_DEADLINE_S)
        self._port_forward = unary("PortForward", stub.PortForward, CALL_DEADLINE_S)
        self._container_stats = unary("ContainerStats", stub.ContainerStats, CALL_DEADLINE_S)
        self._list_container_stats = unary("ListContainerStats", stub.ListContainerStats, CALL_DEADLINE_S)
        self._pod_sandbox_stats = unary("PodSandboxStats", stub.PodSandboxStats, CALL_DEADLINE_S)
        self._list_pod_sandbox_stats = unary("ListPodSandboxStats", stub.ListPodSandboxStats, CALL_DEADLINE_S)
        self._metric_descriptors = unary("ListMetricDescriptors", stub.ListMetricDescriptors, CALL_DEADLINE_S)
        self._pod_sandbox_metrics = unary("ListPodSandboxMetrics", stub.ListPodSandboxMetrics, CALL_DEADLINE_S)
        self._events = streaming("GetContainerEvents", stub.GetContainerEvents)
        self._stream_pod_sandboxes = streaming("StreamPodSandboxes", stub.StreamPodSandboxes)
        self._stream_containers = streaming("StreamContainers", stub.StreamContainers)
        self._stream_container_stats = streaming("StreamContainerStats", stub.StreamContainerStats)
        self._stream_pod_sandbox_stats = streaming("StreamPodSandboxStats", stub.StreamPodSandboxStats)
        self._stream_pod_sandbox_metrics = streaming("StreamPodSandboxMetrics", stub.StreamPodSandboxMetrics)

    # The runtime itself

    async def version(self) -> pb.VersionResponse:
        """The handshake. Raises ConfigError where waiting cannot help: no access to the socket, no CRI v1 behind it."""
        try:
            return await self.ping()
        except Retryable:
            check_socket(self._endpoint)
            raise
        except Permanent as refusal:
            if refusal.reason != UNIMPLEMENTED:
                raise
            hint = "it needs containerd 1.6 or later with its cri plugin not in disabled_plugins"
            raise ConfigError(f"the container runtime at {self._endpoint} does not serve CRI v1: {hint}") from refusal

    async def ping(self) -> pb.VersionResponse:
        """The shortest round trip there is."""
        return await self._version(pb.VersionRequest(version="v1"))

    async def status(self, *, verbose: bool = False) -> pb.StatusResponse:
        return await self._status(pb.StatusRequest(verbose=verbose))

    async def runtime_config(self) -> pb.RuntimeConfigResponse:
        return await self._runtime_config(pb.RuntimeConfigRequest())

    async def update_runtime_config(self, pod_cidr: str) -> None:
        network = pb.NetworkConfig(pod_cidr=pod_cidr)
        await self._update_runtime_config(
            pb.UpdateRuntimeConfigRequest(runtime_config=pb.RuntimeConfig(network_config=network))
        )

    # Pod sandboxes

    async def run_pod_sandbox(self, config: pb.PodSandboxConfig, runtime_handler: str = "") -> str:
        """The new sandbox's id. Raises Conflict where the name (metadata with its attempt) is still reserved."""
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=runtime_handler)
        return (await self._run_pod_sandbox(request)).pod_sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        await self._stop_pod_sandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        await self._remove_pod_sandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def pod_sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> pb.PodSandboxStatusResponse:
        return await self._pod_sandbox_status(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=verbose))

    async def list_pod_sandbox(self, filter_by: pb.PodSandboxFilter | None = None) -> Sequence[pb.PodSandbox]:
        return (await self._list_pod_sandbox(pb.ListPodSandboxRequest(filter=filter_by))).items

    async def update_pod_sandbox_resources(
        self, sandbox_id: str, *, overhead: pb.LinuxContainerResources, resources: pb.LinuxContainerResources
    ) -> None:
        await self._update_pod_sandbox(
            pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=sandbox_id, overhead=overhead, resources=resources)
        )

    # Containers

    async def create_container(
        self, sandbox_id: str, config: pb.ContainerConfig, sandbox_config: pb.PodSandboxConfig
    ) -> str:
        """The new container's id. Raises Conflict where the name (metadata with its attempt) is still reserved."""
        request = pb.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        return (await self._create_container(request)).container_id

    async def start_container(self, container_id: str) -> None:
        await self._start_container(pb.StartContainerRequest(container_id=container_id))

    async def stop_container(self, container_id: str, grace_s: int) -> None:
        """Returns when it has ended: by itself after the stop signal, or killed after `grace_s` seconds."""
        request = pb.StopContainerRequest(container_id=container_id, timeout=grace_s)
        await self._stop_container.within(grace_s + CALL_DEADLINE_S, request)

    async def remove_container(self, container_id: str) -> None:
        await self._remove_container(pb.RemoveContainerRequest(container_id=container_id))

    async def list_containers(self, filter_by: pb.ContainerFilter | None = None) -> Sequence[pb.Container]:
        return (await self._list_containers(pb.ListContainersRequest(filter=filter_by))).containers

    async def container_status(self, container_id: str, *, verbose: bool = False) -> pb.ContainerStatusResponse:
        return await self._container_status(pb.ContainerStatusRequest(container_id=container_id, verbose=verbose))

    async def update_container_resources(
        self, container_id: str, linux: pb.LinuxContainerResources, annotations: Mapping[str, str] | None = None
    ) -> None:
        await self._update_container(
            pb.UpdateContainerResourcesRequest(container_id=container_id, linux=linux, annotations=annotations)
        )

    async def reopen_container_log(self, container_id: str) -> None:
        await self._reopen_container_log(pb.ReopenContainerLogRequest(container_id=container_id))

    async def checkpoint_container(self, container_id: str, location: str, timeout_s: int = 0) -> None:
        """Write a checkpoint archive to the path `location`. `timeout_s` 0: as long as the runtime allows."""
        request = pb.CheckpointContainerRequest(container_id=container_id, location=location, timeout=timeout_s)
        await self._checkpoint_container.within(timeout_s + CALL_DEADLINE_S, request)

    # Commands in containers

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout_s: float | None = None
    ) -> pb.ExecSyncResponse:
        """Run a command to its end; None: as long as it takes. CRI counts whole seconds: a part of one is rounded up.

        Raises TimeoutError when it took longer (the runtime has killed it); the others where it could not be run.
        """
        timeout = math.ceil(timeout_s) if timeout_s else 0
        request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
        try:
            return await self._exec_sync.within(timeout + CALL_DEADLINE_S if timeout else None, request)
        except Retryable as error:
            late = isinstance(error.__cause__, AioRpcError) and error.__cause__.code() is StatusCode.DEADLINE_EXCEEDED
            if timeout and late:
                raise TimeoutError(f"the command took longer than {timeout} s") from error
            raise

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """The streaming server's URL for this session; it is good for one connection and a minute."""
        request = pb.ExecRequest(
            container_id=container_id, cmd=command, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )
        return (await self._exec(request)).url

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> str:
        """The streaming server's URL for this session."""
        request = pb.AttachRequest(container_id=container_id, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
        return (await self._attach(request)).url

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """The streaming server's URL for this session."""
        return (await self._port_forward(pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports))).url

    # Figures

    async def container_stats(self, container_id: str) -> pb.ContainerStats:
        return (await self._container_stats(pb.ContainerStatsRequest(container_id=container_id))).stats

    async def list_container_stats(
        self, filter_by: pb.ContainerStatsFilter | None = None
    ) -> Sequence[pb.ContainerStats]:
        return (await self._list_container_stats(pb.ListContainerStatsRequest(filter=filter_by))).stats

    async def pod_sandbox_stats(self, sandbox_id: str) -> pb.PodSandboxStats:
        return (await self._pod_sandbox_stats(pb.PodSandboxStatsRequest(pod_sandbox_id=sandbox_id))).stats

    async def list_pod_sandbox_stats(
        self, filter_by: pb.PodSandboxStatsFilter | None = None
    ) -> Sequence[pb.PodSandboxStats]:
        return (await self._list_pod_sandbox_stats(pb.ListPodSandboxStatsRequest(filter=filter_by))).stats

    async def list_metric_descriptors(self) -> Sequence[pb.MetricDescriptor]:
        return (await self._metric_descriptors(pb.ListMetricDescriptorsRequest())).descriptors

    async def list_pod_sandbox_metrics(self) -> Sequence[pb.PodSandboxMetrics]:
        return (await self._pod_sandbox_metrics(pb.ListPodSandboxMetricsRequest())).pod_metrics

    # Streams: the events, and lists too long for one message (cri-api 0.36)

    def container_events(self) -> AsyncGenerator[pb.ContainerEventResponse, None]:
        """Events from now on, until the runtime goes away (Retryable). A reader that stops reading holds it up."""
        return self._events(pb.GetEventsRequest())

    def stream_pod_sandboxes(
        self, filter_by: pb.PodSandboxFilter | None = None
    ) -> AsyncGenerator[pb.StreamPodSandboxesResponse, None]:
        return self._stream_pod_sandboxes(pb.StreamPodSandboxesRequest(filter=filter_by), CALL_DEADLINE_S)

    def stream_containers(
        self, filter_by: pb.ContainerFilter | None = None
    ) -> AsyncGenerator[pb.StreamContainersResponse, None]:
        return self._stream_containers(pb.StreamContainersRequest(filter=filter_by), CALL_DEADLINE_S)

    def stream_container_stats(
        self, filter_by: pb.ContainerStatsFilter | None = None
    ) -> AsyncGenerator[pb.StreamContainerStatsResponse, None]:
        return self._stream_container_stats(pb.StreamContainerStatsRequest(filter=filter_by), CALL_DEADLINE_S)

    def stream_pod_sandbox_stats(
        self, filter_by: pb.PodSandboxStatsFilter | None = None
    ) -> AsyncGenerator[pb.StreamPodSandboxStatsResponse, None]:
        return self._stream_pod_sandbox_stats(pb.StreamPodSandboxStatsRequest(filter=filter_by), CALL_DEADLINE_S)

    def stream_pod_sandbox_metrics(self) -> AsyncGenerator[pb.StreamPodSandboxMetricsResponse, None]:
        return self._stream_pod_sandbox_metrics(pb.StreamPodSandboxMetricsRequest(), CALL_DEADLINE_S)
