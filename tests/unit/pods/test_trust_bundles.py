import base64
from typing import Any

import msgspec
import pytest

from agent.model.objects import ClusterTrustBundle, ClusterTrustBundleList
from agent.model.pod import pod_from_dict
from agent.model.volume import ClusterTrustBundleProjection
from agent.pods.downward import NodeContext
from agent.pods.ports import ObjectKey
from agent.pods.references import MISSING, Held, Missing, Referenced, references
from agent.pods.trust_bundles import anchors, trust_key
from agent.pods.volumes.payload import PayloadFile, payload

NAMED = ObjectKey("clustertrustbundles", "", "corp")


def pem(der: bytes, kind: str = "CERTIFICATE") -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"


def bundle(text: str) -> ClusterTrustBundle:
    return msgspec.convert({"metadata": {"name": "corp"}, "spec": {"trustBundle": text}}, ClusterTrustBundle)


def source(**fields: Any) -> ClusterTrustBundleProjection:
    return msgspec.convert({"path": "ca.pem", **fields}, ClusterTrustBundleProjection)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"name": "corp"}, NAMED),
        ({"signerName": "x.io/s"}, None),
        (
            {"signerName": "x.io/s", "labelSelector": {}},
            ObjectKey("clustertrustbundles", "", "", "spec.signerName=x.io/s"),
        ),
        (
            {
                "signerName": "x.io/s",
                "labelSelector": {
                    "matchLabels": {"b": "2", "a": "1"},
                    "matchExpressions": [
                        {"key": "c", "operator": "In", "values": ["x", "y"]},
                        {"key": "d", "operator": "NotIn", "values": ["z"]},
                        {"key": "e", "operator": "Exists"},
                        {"key": "f", "operator": "DoesNotExist"},
                    ],
                },
            },
            ObjectKey("clustertrustbundles", "", "", "spec.signerName=x.io/s", "a=1,b=2,c in (x,y),d notin (z),e,!f"),
        ),
        ({}, None),
    ],
)
def test_a_source_names_one_bundle_or_selects_its_signers(fields: dict[str, Any], key: ObjectKey | None) -> None:
    assert trust_key(source(**fields)) == key


def test_each_anchor_is_there_once_in_an_order_that_stays() -> None:
    long = bytes(range(100))
    first, second = pem(b"b") + "words\n" + pem(b"a"), pem(b"a") + pem(long)
    found = anchors(source(signerName="s"), ClusterTrustBundleList(items=(bundle(first), bundle(second)))).decode()
    assert found == "".join(
        (pem(long).replace(base64.encodebytes(long).decode(), _wrapped(long)), pem(b"a"), pem(b"b"))
    )


def _wrapped(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return "".join(text[start : start + 64] + "\n" for start in range(0, len(text), 64))


@pytest.mark.parametrize("found", [None, MISSING, ClusterTrustBundleList()])
def test_an_optional_bundle_that_is_not_there_is_an_empty_file(found: object) -> None:
    assert anchors(source(name="corp", optional=True), found) == b""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "corp"}, 'while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io "corp" not found'),
        ({"signerName": "s"}, "combination of signerName and labelSelector matched zero ClusterTrustBundles"),
        ({}, "ClusterTrustBundle projection requires either name or signerName to be set"),
    ],
)
def test_a_bundle_that_is_not_there_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        anchors(source(**fields), MISSING)


@pytest.mark.parametrize(("security", "mode", "owner"), [({}, 0o644, None), ({"runAsUser": 7}, 0o600, 7)])
def test_a_projected_volume_holds_the_bundle_it_names(security: dict[str, Any], mode: int, owner: int | None) -> None:
    volume = {"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "ca.pem", "name": "corp"}}]}}
    spec = {"volumes": [volume], "containers": [{"name": "c"}], "securityContext": security}
    pod = pod_from_dict({"metadata": {"namespace": "ns"}, "spec": spec})
    assert references(pod) == (NAMED,)
    objects: dict[ObjectKey, Held | Missing] = {NAMED: bundle(pem(b"a"))}
    found = payload(pod, pod.spec.volumes[0], Referenced(objects=objects), NodeContext("n"))
    assert found == {"ca.pem": PayloadFile(pem(b"a").encode(), mode, owner)}
