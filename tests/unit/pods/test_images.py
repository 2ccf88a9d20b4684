import base64
import json
from typing import Any

import pytest

from agent.errors import Permanent
from agent.model.meta import ObjectMeta
from agent.model.objects import Secret
from agent.pods.credentials import of_secrets
from agent.pods.images import parse_image, with_default_tag

HEX64 = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("image", "full", "tagged"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("org/app", "docker.io/org/app:latest", "org/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "docker.io/busybox:latest"),
        ("index.docker.io/org/app", "docker.io/org/app:latest", "index.docker.io/org/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("[fd00::1]:5000/app:v1", "[fd00::1]:5000/app:v1", "[fd00::1]:5000/app:v1"),
        ("quay.io/a/b__c/d-e.f:V_1.0", "quay.io/a/b__c/d-e.f:V_1.0", "quay.io/a/b__c/d-e.f:V_1.0"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        (f"app@sha256:{HEX64}", f"docker.io/library/app@sha256:{HEX64}", f"app@sha256:{HEX64}"),
        (f"q.io/app:1@sha256:{HEX64}", f"q.io/app:1@sha256:{HEX64}", f"q.io/app:1@sha256:{HEX64}"),
        (f"{HEX64[:-1]}", f"docker.io/library/{HEX64[:-1]}:latest", f"{HEX64[:-1]}:latest"),
    ],
)
def test_a_name_is_completed_for_matching_and_tagged_for_the_runtime(image: str, full: str, tagged: str) -> None:
    assert str(parse_image(image)) == full
    assert with_default_tag(image) == tagged


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("busybox:", "invalid reference format"),
        ("busybox:-1", "invalid reference format"),
        ("busybox@", "invalid reference format"),
        ("busybox@sha256:12", "invalid reference format"),
        (f"busybox@sha256:{HEX64}0", "invalid checksum digest length"),
        (f"busybox@md5:{HEX64}", "unsupported digest algorithm"),
        (f"busybox@sha256:{HEX64.upper()}", "invalid checksum digest format"),
        ("a//b", "invalid reference format"),
        ("-host.io/a", "invalid reference format"),
        ("http://host/a", "invalid reference format"),
        (HEX64, f"invalid repository name ({HEX64}), cannot specify 64-byte hexadecimal strings"),
        ("q.io/" + "a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_a_bad_name_is_refused_in_the_words_users_know(image: str, why: str) -> None:
    with pytest.raises(Permanent) as caught:
        with_default_tag(image)
    assert caught.value.reason == "InvalidImageName"
    assert (
        str(caught.value) == f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {why}'
    )


def secret(entries: dict[str, Any], *, kind: str = "dockerconfigjson", raw: bytes | None = None) -> Secret:
    config = {"auths": entries} if kind == "dockerconfigjson" else entries
    content = base64.b64encode(json.dumps(config).encode() if raw is None else raw).decode()
    return Secret(
        metadata=ObjectMeta(name="pull", namespace="shop"), type=f"kubernetes.io/{kind}", data={f".{kind}": content}
    )


def user(name: str) -> dict[str, str]:
    return {"username": name, "password": "p"}


def users(image: str, *secrets: Secret) -> list[str]:
    return [found.auth.username for found in of_secrets(image, secrets)]


@pytest.mark.parametrize(
    ("registry", "image", "fits"),
    [
        ("quay.io", "quay.io/a/b:1", True),
        ("quay.io", "quay.io:443/a/b", False),
        ("https://quay.io", "quay.io/a", True),
        ("http://quay.io:5000/v2/", "quay.io:5000/a", True),
        ("quay.io/a", "quay.io/a/b", True),
        ("quay.io/a", "quay.io/b/a", False),
        ("https://quay.io/v1/a", "quay.io/a/b", True),
        ("*.io", "quay.io/a", True),
        ("*.example.com", "r1.example.com/a", True),
        ("r*.example.com", "r1.example.com/a", True),
        ("*.example.com", "a.b.example.com/a", False),
        ("*.example.com", "example.com/a", False),
        ("https://index.docker.io/v1/", "busybox", True),
        ("docker.io", "busybox", True),
        ("docker.io", "index.docker.io/org/app", True),
        ("index.docker.io", "quay.io/a", False),
        ("other.io", "quay.io/a", False),
    ],
)
def test_an_entry_fits_by_host_glob_port_and_path_prefix(registry: str, image: str, fits: bool) -> None:
    assert users(image, secret({registry: user("me")})) == (["me"] if fits else [])


def test_the_most_specific_entry_is_tried_first_and_every_secret_counts() -> None:
    first = secret({"quay.io": user("host"), "quay.io/a": user("path")})
    second = secret({"quay.io": user("second")}, kind="dockercfg")
    assert users("quay.io/a/b", first, second) == ["path", "host", "second"]


def test_auth_holds_user_and_password_and_wins() -> None:
    auth = base64.b64encode(b"me:pa:ss").decode()
    (found,) = of_secrets("quay.io/a", [secret({"quay.io": {"auth": auth, "username": "other"}})])
    assert (found.auth.username, found.auth.password) == ("me", "pa:ss")


def test_a_secret_of_another_type_or_without_its_key_holds_nothing() -> None:
    empty = Secret(metadata=ObjectMeta(name="x"), type="kubernetes.io/dockercfg")
    assert users("quay.io/a", secret({"quay.io": user("me")}, kind="other"), empty) == []


@pytest.mark.parametrize(
    "broken",
    [
        secret({}, raw=b"{hunter2"),
        secret({}, raw=b'["hunter2"]'),
        secret({"quay.io": "hunter2"}),
        secret({"quay.io": {"auth": "hunter2!"}}),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_and_not_quoted(broken: Secret) -> None:
    with pytest.raises(Permanent, match="imagePullSecret") as caught:
        of_secrets("quay.io/a", [broken])
    assert caught.value.reason == "ErrImagePull"
    assert "hunter2" not in str(caught.value)
