"""Bytes as a kube-apiserver 1.36 sent them."""

from __future__ import annotations

import pytest

from agent.cri._generated import answers_pb2 as pb
from agent.errors import Conflict, NotFound, Retryable
from agent.kube import packed
from agent.kube.answers import MAGIC, check, error_of

LEASE = bytes.fromhex(
    "6b3873000a1f0a16636f6f7264696e6174696f6e2e6b38732e696f2f763112054c6561736512a7010a8e010a06656467652d3112001a0f6b"
    "7562652d6e6f64652d6c6561736522002a2461653439656138302d636630342d346661642d393833372d61353964393863636461326232"
    "033236383800420808f6e7b1d80610006a380a044e6f64651a06656467652d3122246230653836653631"
    "2d393437382d343861332d383966662d3765306363326631353431352a02763112140a06656467652d311028220808c4e7b1d80610001a00"
    "2200"
)
PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge-1"


def said(kind: str, content: bytes) -> bytes:
    about = pb.TypeMeta(apiVersion="v1", kind=kind)
    return MAGIC + pb.Unknown(typeMeta=about, raw=content).SerializeToString()


def refused(**status: object) -> bytes:
    return said("Status", pb.Status(**status).SerializeToString())  # type: ignore[arg-type]


def test_a_lease_says_who_holds_it_and_for_how_long() -> None:
    check("PATCH", PATH, LEASE)
    spec = packed.lease(LEASE).spec
    assert (spec.holderIdentity, spec.leaseDurationSeconds) == ("edge-1", 40)


@pytest.mark.parametrize("answer", [LEASE[:100], MAGIC, MAGIC + b"<html>", said("", b""), refused(code=404)])
def test_what_is_not_a_whole_object_is_no_answer(answer: bytes) -> None:
    with pytest.raises(Retryable, match=f"^PATCH {PATH}: not by an API server"):
        check("PATCH", PATH, answer)


@pytest.mark.parametrize("answer", [LEASE[:180], b"{}", said("Pod", b""), said("Lease", b"\xff")])
def test_what_is_no_lease_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"broken protobuf|not Kubernetes' protobuf|of kind Pod"):
        packed.lease(answer)


def test_a_refusal_becomes_the_error_that_its_json_would_have_become() -> None:
    details = pb.StatusDetails(name="edge-1", kind="leases")
    gone = error_of(404, refused(message="not there", reason="NotFound", details=details, code=404), {}, "PATCH")
    assert isinstance(gone, NotFound)
    assert (str(gone), gone.resource, gone.name) == ("not there", "leases", "edge-1")

    uid = pb.StatusDetails(causes=[pb.StatusCause(field="metadata.uid")])
    assert isinstance(error_of(422, refused(message="no", details=uid), {}, "PATCH"), Conflict)

    busy = error_of(429, refused(message="later", details=pb.StatusDetails(retryAfterSeconds=7)), {}, "PATCH")
    assert isinstance(busy, Retryable)
    assert busy.after == 7


def test_a_broken_refusal_is_not_the_api_servers_word() -> None:
    assert isinstance(error_of(404, MAGIC + b"\xff\xff", {}, "PATCH"), Retryable)
