"""Answers of the API server in its protobuf, half of JSON's size: for what is asked for again and again.

In: the bytes of an answer. Out: its kind, and what is in a refusal or a lease. Loaded with the first such answer.
Source: the Kubernetes page "API concepts" (protobuf encoding); its wire facts are in `proto/k8s.io/apimachinery`.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError

from agent.cri._generated import answers_pb2 as pb
from agent.kube.answers import MAGIC

_Content = TypeVar("_Content", pb.Status, pb.Lease)


def kind_of(answer: bytes) -> str:
    """Raises ValueError where it is not the whole of an API object."""
    return _opened(answer).typeMeta.kind


def refusal(answer: bytes) -> pb.Status:
    """Raises ValueError where it is no Status."""
    return _within(answer, pb.Status())


def lease(answer: bytes) -> pb.Lease:
    """Raises ValueError where it is none."""
    return _within(answer, pb.Lease())


def _opened(answer: bytes) -> pb.Unknown:
    if not answer.startswith(MAGIC):
        raise ValueError("it is not Kubernetes' protobuf")
    try:
        found = pb.Unknown.FromString(answer[len(MAGIC) :])
    except DecodeError as error:
        raise ValueError(f"broken protobuf: {error}") from error
    if not found.typeMeta.kind or not found.typeMeta.apiVersion:
        raise ValueError("it does not say of what kind it is")
    return found


def _within(answer: bytes, content: _Content) -> _Content:
    found = _opened(answer)
    if found.typeMeta.kind != type(content).__name__:
        raise ValueError(f"it is of kind {found.typeMeta.kind}")
    try:
        content.ParseFromString(found.raw)
    except DecodeError as error:
        raise ValueError(f"broken protobuf: {error}") from error
    return content
