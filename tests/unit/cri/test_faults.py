"""gRPC's errors as ours, over the wire: what containerd says, and what a caller makes of it."""

from __future__ import annotations

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.errors import Conflict, EdgeletError, NotFound, Permanent, Retryable
from tests.unit.cri.conftest import Rig


@pytest.mark.parametrize(
    ("code", "details", "ours"),
    [
        (grpc.StatusCode.UNAVAILABLE, "transport is closing", Retryable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded", Retryable),
        (grpc.StatusCode.CANCELLED, "context canceled", Retryable),
        (grpc.StatusCode.ABORTED, "try again", Retryable),
        (grpc.StatusCode.UNKNOWN, "server is not initialized yet", Retryable),
        (grpc.StatusCode.NOT_FOUND, 'container "c1": not found', NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, "already exists", Conflict),
        (
            grpc.StatusCode.UNKNOWN,
            'failed to reserve container name "a_b_c_d_0": name "a_b_c_d_0" is reserved for "0123"',
            Conflict,
        ),
        (grpc.StatusCode.FAILED_PRECONDITION, 'name "a_b_c_0" is reserved for "0123"', Conflict),  # containerd 2
        (grpc.StatusCode.UNKNOWN, "failed to create containerd task: no such device", Permanent),
        (grpc.StatusCode.INVALID_ARGUMENT, "bad mount", Permanent),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max", Permanent),
        (grpc.StatusCode.FAILED_PRECONDITION, "container is running", Permanent),
    ],
)
async def test_each_of_the_runtime_s_answers_is_one_of_our_errors(
    rig: Rig, code: grpc.StatusCode, details: str, ours: type[EdgeletError]
) -> None:
    rig.fake.fail("StartContainer", code, details)
    with pytest.raises(EdgeletError) as raised:
        await rig.runtime.start_container("c1")
    assert type(raised.value) is ours


async def test_a_failed_pull_keeps_the_runtime_s_words(rig: Rig) -> None:
    words = 'failed to pull and unpack image "docker.io/library/x:1": failed to do request: dial tcp: i/o timeout'
    rig.fake.fail("PullImage", grpc.StatusCode.UNKNOWN, words)
    with pytest.raises(Permanent) as raised:
        await rig.images.pull_image(pb.ImageSpec(image="x:1"))
    assert str(raised.value) == words
    assert raised.value.reason == ""


async def test_a_message_over_several_lines_becomes_one(rig: Rig) -> None:
    rig.fake.fail("StartContainer", grpc.StatusCode.UNKNOWN, "runc create failed:\n  unable to start\n")
    with pytest.raises(Permanent) as raised:
        await rig.runtime.start_container("c1")
    assert str(raised.value) == "runc create failed: unable to start"


async def test_a_failure_without_words_still_says_which_call_failed(rig: Rig) -> None:
    rig.fake.fail("StartContainer", grpc.StatusCode.INTERNAL, "")
    with pytest.raises(Permanent, match="StartContainer failed without a message"):
        await rig.runtime.start_container("c1")


async def test_a_call_that_the_runtime_does_not_serve_is_permanent_and_says_so(rig: Rig) -> None:
    with pytest.raises(Permanent) as raised:
        await rig.runtime.list_metric_descriptors()
    assert raised.value.reason == "Unimplemented"
    assert "ListMetricDescriptors" in str(raised.value)
