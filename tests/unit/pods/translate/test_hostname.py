from typing import Any

import pytest

from agent.errors import Permanent
from agent.pods.translate.hostname import PodHostname, kernel_hostname, pod_hostname
from tests.unit.pods.pods import make_pod

LONG = "a" * 62


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("web", {}, PodHostname("web")),
        ("web", {"hostname": "h"}, PodHostname("h")),
        ("web", {"subdomain": "sub"}, PodHostname("web", "sub.shop.svc.cluster.local")),
        ("web", {"hostname": "h", "subdomain": "sub"}, PodHostname("h", "sub.shop.svc.cluster.local")),
        (f"{LONG}-bcd", {}, PodHostname(LONG)),
        (f"{LONG}bcd", {}, PodHostname(f"{LONG}b")),
        ("web", {"hostnameOverride": "other.example.com", "subdomain": "sub"}, PodHostname("other.example.com")),
        ("web", {"hostnameOverride": f"{LONG}bcd"}, PodHostname(f"{LONG}b")),
        ("web", {"hostnameOverride": f"{LONG}.example.com"}, PodHostname(LONG)),
    ],
)
def test_the_name_comes_from_the_spec_or_the_pods_name_cut_to_a_label(
    name: str, spec: dict[str, Any], expected: PodHostname
) -> None:
    assert pod_hostname(make_pod({"name": name}, **spec), "cluster.local") == expected


@pytest.mark.parametrize(
    "spec",
    [
        {"hostname": "No"},
        {"hostname": "a.b"},
        {"hostname": "a" * 64},
        {"subdomain": "-x"},
        {"hostnameOverride": ""},
        {"hostnameOverride": "a..b"},
        {"hostnameOverride": "a." * 126 + "aa"},
    ],
)
def test_a_name_that_is_no_dns_name_is_refused_by_its_field(spec: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match=f"spec.{next(iter(spec))}") as caught:
        pod_hostname(make_pod(**spec), "cluster.local")
    assert caught.value.reason == "FailedCreatePodSandBox"


def test_the_kernel_is_told_the_full_name_only_when_asked_and_when_it_fits() -> None:
    name = PodHostname("web", "sub.shop.svc.cluster.local")
    assert kernel_hostname(make_pod(), name) == "web"
    assert kernel_hostname(make_pod(setHostnameAsFQDN=True), name) == "web.sub.shop.svc.cluster.local"
    assert kernel_hostname(make_pod(setHostnameAsFQDN=True), PodHostname("web")) == "web"
    with pytest.raises(Permanent, match="setHostnameAsFQDN"):
        kernel_hostname(make_pod(setHostnameAsFQDN=True), PodHostname(LONG, "sub"))
