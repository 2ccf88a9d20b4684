import asyncio
import base64

import msgspec
import pytest

from agent.errors import Forbidden, NotFound, Permanent, Retryable
from agent.model.meta import ObjectMeta
from agent.model.objects import Service
from agent.model.pod import Pod, pod_from_dict
from agent.pods.ports import ObjectKey, Token
from agent.pods.references import MISSING, fetch, references


def pod(**spec: object) -> Pod:
    return pod_from_dict({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})


EVERYTHING = pod(
    imagePullSecrets=[{"name": "pull"}, {}],
    initContainers=[{"name": "i", "envFrom": [{"configMapRef": {"name": "cm-init"}}]}],
    containers=[
        {
            "name": "c",
            "envFrom": [{"secretRef": {"name": "s-from"}}],
            "env": [
                {"name": "A", "value": "literal"},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm-env", "key": "k"}}},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s-env", "key": "k"}}},
                {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "cm-env", "key": "again"}}},
            ],
        }
    ],
    volumes=[
        {"name": "v1", "configMap": {"name": "cm-vol"}},
        {"name": "v2", "secret": {"secretName": "s-vol"}},
        {
            "name": "v3",
            "projected": {
                "sources": [
                    {"configMap": {"name": "cm-proj"}},
                    {"secret": {"name": "s-proj"}},
                    {"serviceAccountToken": {"path": "token", "audience": "vault"}},
                ]
            },
        },
    ],
)


class Api:
    """Objects and Tokens by shape: answers from a dict, raises what the dict holds."""

    def __init__(self, answers: dict[str, bytes | Exception], token: Token | Exception | None = None) -> None:
        self.answers = answers
        self.issued = token or Token("t0ken", 10.0)
        self.asked: list[tuple[str, int]] = []

    async def forget(self, pod_uid: str) -> None:
        raise AssertionError("fetching forgets nothing")

    async def get(self, key: ObjectKey) -> bytes:
        answer = self.answers.get(key.name, NotFound(key.name))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def services(self, namespace: str) -> tuple[Service, ...]:
        return (Service(metadata=ObjectMeta(name="kubernetes")),)

    async def token(self, pod: Pod, audience: str, expiration_s: int) -> Token:
        self.asked.append((audience, expiration_s))
        if isinstance(self.issued, Exception):
            raise self.issued
        return self.issued

    def retain(self, pod_uid: str, keys: object) -> None: ...

    def release(self, pod_uid: str) -> None: ...


def test_every_place_that_names_an_object_is_found_once_and_in_order() -> None:
    assert [(key.kind, key.name) for key in references(EVERYTHING)] == [
        ("configmaps", "cm-init"),
        ("secrets", "s-from"),
        ("configmaps", "cm-env"),
        ("secrets", "s-env"),
        ("configmaps", "cm-vol"),
        ("secrets", "s-vol"),
        ("configmaps", "cm-proj"),
        ("secrets", "s-proj"),
        ("secrets", "pull"),
    ]
    assert {key.namespace for key in references(EVERYTHING)} == {"ns"}


async def test_a_fetch_brings_contents_tokens_and_services_and_says_what_is_missing() -> None:
    secret = {"metadata": {"name": "s-env"}, "data": {"k": base64.b64encode(b"\xffraw").decode()}}
    api = Api({"cm-env": b'{"metadata":{"name":"cm-env"},"data":{"k":"v"}}', "s-env": msgspec.json.encode(secret)})
    got = await fetch(EVERYTHING, api, api)
    config_map = got.config_map("ns", "cm-env")
    assert config_map is not None
    assert config_map.contents() == {"k": b"v"}
    found = got.secret("ns", "s-env")
    assert found is not None
    assert found.contents() == {"k": b"\xffraw"}
    assert got.secret("ns", "s-vol") is None
    assert got.objects[ObjectKey("secrets", "ns", "s-vol")] is MISSING
    assert got.tokens == {("v3", "token"): Token("t0ken", 10.0)}
    assert api.asked == [("vault", 3600)]
    assert [service.metadata.name for service in got.services] == ["kubernetes"]


async def test_a_silent_api_server_is_one_plain_retryable() -> None:
    api = Api({"cm-env": Retryable("away", after=2.0)})
    with pytest.raises(Retryable) as caught:
        await fetch(EVERYTHING, api, api)
    assert caught.value.after == 2.0
    # Whoever goes on after it is not cancelled: on Python 3.11.2 its next timeout would end it.
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_pull_secret_that_cannot_be_had_does_not_hold_the_pod_up() -> None:
    only_pull = pod(imagePullSecrets=[{"name": "a"}, {"name": "b"}], containers=[{"name": "c"}])
    api = Api({"a": Forbidden("Forbidden", "no"), "b": Retryable("away")})
    got = await fetch(only_pull, api, api)
    assert set(got.objects.values()) == {MISSING}


async def test_a_pull_secret_that_is_mounted_as_well_must_be_had() -> None:
    both = pod(
        imagePullSecrets=[{"name": "a"}],
        containers=[{"name": "c"}],
        volumes=[{"name": "v", "secret": {"secretName": "a"}}],
    )
    api = Api({"a": Forbidden("Forbidden", "no")})
    with pytest.raises(Forbidden):
        await fetch(both, api, api)


async def test_an_absent_service_account_is_a_missing_token() -> None:
    api = Api({}, token=NotFound("no such account"))
    assert (await fetch(EVERYTHING, api, api)).tokens == {("v3", "token"): MISSING}


async def test_an_object_that_is_no_object_is_refused_by_name() -> None:
    api = Api({"cm-env": b'{"metadata":{},"data":{"k":1}}'})
    with pytest.raises(Permanent, match="configmaps ns/cm-env can't be read"):
        await fetch(EVERYTHING, api, api)


async def test_a_bug_in_a_client_is_not_dressed_up_as_an_outage() -> None:
    api = Api({"cm-env": KeyError("bug")})
    with pytest.raises(ExceptionGroup):
        await fetch(EVERYTHING, api, api)
