"""ClusterTrustBundles that projected volumes hold: which to read, and the anchors of those that were read.

In: a clusterTrustBundle source, by name or by signer and labels. Out: its object key; later its file's bytes, each
certificate once, in an order that stays the same. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

from agent.model.objects import ClusterTrustBundle, ClusterTrustBundleList, ObjectKey
from agent.model.pod import Pod
from agent.model.volume import ClusterTrustBundleProjection, LabelSelector

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_LINE = 64


def trust_keys(pod: Pod) -> Iterator[ObjectKey]:
    """What the pod's projected volumes name."""
    for volume in pod.spec.volumes:
        for source in volume.projected.sources if volume.projected is not None else ():
            if source.clusterTrustBundle is not None and (key := trust_key(source.clusterTrustBundle)) is not None:
                yield key


def trust_key(source: ClusterTrustBundleProjection) -> ObjectKey | None:
    """One bundle, or all of a signer with these labels; None where the source selects nothing."""
    if source.name:
        return ObjectKey("clustertrustbundles", "", source.name)
    # No label selector selects nothing, an empty one everything of the signer.
    if not source.signerName or source.labelSelector is None:
        return None
    labels = ",".join(_requirements(source.labelSelector))
    return ObjectKey("clustertrustbundles", "", "", fields=f"spec.signerName={source.signerName}", labels=labels)


def anchors(source: ClusterTrustBundleProjection, found: object) -> bytes:
    """The file of the source; `found` is what its key led to. Raises ValueError."""
    match found:
        case ClusterTrustBundle():
            return _normalized([found])
        case ClusterTrustBundleList(items=items) if items:
            return _normalized(items)
    if source.optional:
        return b""
    if source.name:
        missing = f'clustertrustbundle.certificates.k8s.io "{source.name}" not found'
        raise ValueError(f"while getting ClusterTrustBundle: {missing}")
    if not source.signerName:
        raise ValueError("ClusterTrustBundle projection requires either name or signerName to be set")
    raise ValueError("combination of signerName and labelSelector matched zero ClusterTrustBundles")


def _requirements(selector: LabelSelector) -> Iterator[str]:
    for key, value in sorted((selector.matchLabels or {}).items()):
        yield f"{key}={value}"
    for wanted in selector.matchExpressions:
        values = ",".join(wanted.values)
        match wanted.operator:
            case "In":
                yield f"{wanted.key} in ({values})"
            case "NotIn":
                yield f"{wanted.key} notin ({values})"
            case "Exists":
                yield wanted.key
            case _:
                yield f"!{wanted.key}"


def _normalized(bundles: Iterable[ClusterTrustBundle]) -> bytes:
    certificates = {
        der
        for bundle in bundles
        for _, body in _PEM.findall(bundle.spec.trustBundle)
        if (der := _decoded(body)) is not None
    }
    return "".join(_pem(der) for der in sorted(certificates)).encode()


def _decoded(body: str) -> bytes | None:
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error:
        return None


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = (text[start : start + _LINE] for start in range(0, len(text), _LINE))
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))
