"""A client's cache, kept by the client library's own informer through the local API, ends as the API server has it.

For as long as wanted: EDGELET_CUTS cuts (10), each as long as EDGELET_CUT_SECONDS (1) at most, drawn by EDGELET_SEED.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.informer import SharedInformer

from tests.integration.agent.edge import pod
from tests.integration.autonomy.local import Local, service_account_token
from tests.integration.autonomy.relay import Cut
from tests.integration.support.waiting import wait_until

CUTS = int(os.environ.get("EDGELET_CUTS", "10"))
CUT_S = float(os.environ.get("EDGELET_CUT_SECONDS", "1"))
SEED = int(os.environ.get("EDGELET_SEED", "6"))
STOPPED = "stopped"
"""Beside the manners of the link: the API server ends, and comes back without the history of its watches."""
HERE, ELSEWHERE = 3, 8
"""Names of pods that run on this node, and of pods that no node takes."""


class CountedInformer(SharedInformer):  # type: ignore[misc]
    lists = 0

    def _initial_list(self) -> None:
        self.lists += 1
        super()._initial_list()

    def versions(self) -> dict[str, tuple[str, str]]:
        return {one.metadata.name: (one.metadata.uid, one.metadata.resource_version) for one in self.cache.list()}

    def labels(self) -> dict[str, tuple[str, Any]]:
        return {one.metadata.name: (one.metadata.uid, one.metadata.labels) for one in self.cache.list()}


def informer(local: Local, token: str) -> CountedInformer:
    settings = client.Configuration(host=f"https://127.0.0.1:{local.port}")
    settings.ssl_ca_cert = str(local.ca)
    settings.api_key = {"authorization": f"Bearer {token}"}
    api = client.CoreV1Api(client.ApiClient(settings))
    made = CountedInformer(api.list_namespaced_pod, namespace=local.edge.namespace)
    made.start()
    return made


class Disorder:
    """Pods are made, changed and deleted, as chance has it, past the node."""

    def __init__(self, local: Local, chance: random.Random) -> None:
        admin = config.new_client_from_config(str(local.edge.plane.admin_kubeconfig))
        self._api = client.CoreV1Api(admin)
        self._edge = local.edge
        self._chance = chance
        self._count = 0

    def add(self, changes: int) -> None:
        for _ in range(changes):
            self._count += 1
            here = self._chance.random() < 0.3
            name = f"here-{self._chance.randrange(HERE)}" if here else f"else-{self._chance.randrange(ELSEWHERE)}"
            try:
                self._change(name, here)
            except client.ApiException as refusal:
                if refusal.status not in (404, 409):  # there already, gone already, or on its way to it
                    raise

    def _change(self, name: str, here: bool) -> None:
        space = self._edge.namespace
        match self._chance.choice(["create", "create", "label", "label", "delete", "replace"]):
            case "create":
                self._create(name, here)
            case "label":
                labels = {"metadata": {"labels": {"change": str(self._count)}}}
                self._api.patch_namespaced_pod(name, space, labels)
            case "delete":
                self._api.delete_namespaced_pod(name, space)
            case "replace":
                self._api.delete_namespaced_pod(name, space, grace_period_seconds=0)
                self._create(name, here)

    def _create(self, name: str, here: bool) -> None:
        made = pod(name, metadata={"labels": {"change": str(self._count)}})
        made["spec"] |= {"nodeName": self._edge.node} if here else {"nodeSelector": {"no": "node"}}
        self._api.create_namespaced_pod(self._edge.namespace, made)


def manners(chance: random.Random) -> list[str]:
    """Every manner comes, in any order."""
    kinds: list[str] = [*Cut, STOPPED]
    drawn = [*kinds, *(chance.choice(list(Cut)) for _ in range(CUTS - len(kinds)))]
    chance.shuffle(drawn)
    return drawn


@pytest.mark.timeout(180 + CUTS * (CUT_S + 15))
def test_an_informer_over_ten_cuts_ends_equal_to_the_api_server(local: Local) -> None:
    edge = local.edge
    token = service_account_token(local)
    path = f"/api/v1/namespaces/{edge.namespace}/pods"
    wait_until(lambda: local.request(path, token)[0] == 200, what="its role is known")
    of_cluster = informer(local, token)
    of_node = informer(local, (edge.agent.root_dir / "local-api.token").read_text().strip())
    chance = random.Random(SEED)
    disorder = Disorder(local, chance)
    for manner in manners(chance):
        disorder.add(4)
        time.sleep(chance.uniform(0, 0.3))
        if manner == STOPPED:
            edge.plane.cut_off()
            time.sleep(chance.uniform(0, CUT_S))
            edge.plane.reconnect()
            continue
        local.relay.cut(Cut(manner))
        disorder.add(6)
        time.sleep(chance.uniform(0, CUT_S))
        local.relay.heal()
    disorder.add(4)

    def same() -> bool:
        there = [one["metadata"] for one in edge.pods()]
        known = {one["name"]: (one["uid"], one["resourceVersion"]) for one in there}
        return known == of_cluster.versions()

    def same_here() -> bool:
        there = [one["metadata"] for one in edge.pods() if one["spec"].get("nodeName")]
        return {one["name"]: (one["uid"], one.get("labels")) for one in there} == of_node.labels()

    wait_until(same, 60, what="the cache is what the API server has")
    wait_until(same_here, 60, what="what the node knows by itself is what the API server has of it")
    # The watches went on over the cuts, and a client had to begin anew only where the history was gone.
    assert of_cluster.lists <= 1 + manners(random.Random(SEED)).count(STOPPED)
    assert of_node.lists == 1
    # Informers notice their end only with the next event.
    of_cluster._stop_event.set()
    of_node._stop_event.set()
