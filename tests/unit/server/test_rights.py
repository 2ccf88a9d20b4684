import pytest

from agent.server.rights import Right, needed


@pytest.mark.parametrize(
    ("method", "route", "right"),
    [
        ("GET", "/pods", Right("get", ("pods", "proxy"))),
        ("GET", "/pods/", Right("get", ("pods", "proxy"))),
        ("GET", "/runningpods/", Right("get", ("pods", "proxy"))),
        ("GET", "/healthz", Right("get", ("healthz", "proxy"))),
        ("GET", "/healthz/{check}", Right("get", ("healthz", "proxy"))),
        ("GET", "/configz", Right("get", ("configz", "proxy"))),
        ("GET", "/stats/summary", Right("get", ("stats",))),
        ("GET", "/metrics/cadvisor", Right("get", ("metrics",))),
        ("GET", "/metrics", Right("get", ("metrics",))),
        ("GET", "/logs/{path}", Right("get", ("log",))),
        ("POST", "/checkpoint/{namespace}/{pod}/{container}", Right("create", ("checkpoint",))),
        ("GET", "/containerLogs/{namespace}/{pod}/{container}", Right("get", ("proxy",))),
        ("POST", "/exec/{namespace}/{pod}/{container}", Right("create", ("proxy",))),
        ("POST", "/run/{namespace}/{pod}/{container}", Right("create", ("proxy",))),
        ("PUT", "/nowhere", Right("update", ("proxy",))),
        ("PATCH", "/podsmore", Right("patch", ("proxy",))),
        ("DELETE", "/", Right("delete", ("proxy",))),
        ("HEAD", "/healthz", Right("", ("healthz", "proxy"))),
        ("OPTIONS", "", Right("", ("proxy",))),
    ],
)
def test_a_route_and_a_method_are_a_right_as_the_kubelet_maps_them(method: str, route: str, right: Right) -> None:
    assert needed(method, route) == right
