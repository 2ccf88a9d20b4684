from __future__ import annotations

import pytest

from agent.policies import pod as pod_module
from agent.policies.defaults import NO_DEFAULTS, Defaults, read_rules
from agent.policies.pod import NO_POLICIES, Policies, policies_of
from agent.policies.policy import Fault, Policy
from agent.policies.table import POLICIES
from tests.unit.pods.pods import make_pod

KEEP = "edgelet.io/keep-for"
RESTART = "edgelet.io/restart-on-disk"


def defaults(data: str = "", **settings: str) -> Defaults:
    rules, faults = read_rules({"10": data})
    assert faults == ()
    return Defaults(rules, {f"edgelet.io/{name.replace('_', '-')}": value for name, value in settings.items()})


def test_every_policy_has_a_field_of_its_own() -> None:
    assert sorted(policy.field for policy in POLICIES) == sorted(Policies.__struct_fields__)
    assert len({policy.annotation for policy in POLICIES}) == len(POLICIES)


def test_nobody_asks_for_anything() -> None:
    assert policies_of(make_pod()) == (NO_POLICIES, ())


def test_the_pods_own_word_is_before_the_clusters_that_before_the_nodes() -> None:
    known = defaults(f"[{{annotations: {{{KEEP}: 10m}}}}]", keep_for="5m", restart_on_disk="90")
    own = make_pod({"annotations": {KEEP: "30m"}})
    assert policies_of(own, known) == (Policies(keep_for=1800, restart_on_disk=90), ())
    assert policies_of(make_pod(), known)[0].keep_for == 600
    assert policies_of(make_pod(), defaults(keep_for="5m"))[0].keep_for == 300


def test_the_first_rule_that_matches_and_names_the_policy_holds() -> None:
    known = defaults(
        f"""
        - {{namespaces: [bank], annotations: {{{KEEP}: 1h}}}}
        - {{podSelector: {{matchLabels: {{app: web}}}}, annotations: {{{RESTART}: 70}}}}
        - {{podSelector: {{matchExpressions: [{{key: app, operator: NotIn, values: [db]}}]}},
            annotations: {{{KEEP}: 20m, {RESTART}: 60}}}}
        - annotations: {{{KEEP}: 10m}}
        """
    )
    web = make_pod({"labels": {"app": "web"}})
    assert policies_of(web, known)[0] == Policies(keep_for=1200, restart_on_disk=70)
    assert policies_of(make_pod({"labels": {"app": "db"}}), known)[0] == Policies(keep_for=600)
    assert policies_of(make_pod({"namespace": "bank"}), known)[0].keep_for == 3600


def test_zero_turns_a_default_off() -> None:
    known = defaults(keep_for="5m", restart_on_disk="80")
    assert policies_of(make_pod({"annotations": {KEEP: "0", RESTART: "0"}}), known) == (NO_POLICIES, ())


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        (KEEP, "soon", "'soon' is no duration: write 90s or 1m30s"),
        (KEEP, "-5m", "'-5m' is no duration: write 90s or 1m30s"),
        (KEEP, "", "'' is no duration: write 90s or 1m30s"),
        (RESTART, "lots", "not a whole number: 'lots'"),
        (RESTART, "101", "101 is not between 0 and 100"),
    ],
)
def test_a_wrong_value_is_named_and_the_default_holds(annotation: str, value: str, why: str) -> None:
    found, faults = policies_of(
        make_pod({"annotations": {annotation: value}}), defaults(keep_for="5m", restart_on_disk="80")
    )
    assert found == Policies(keep_for=300, restart_on_disk=80)
    assert faults == (Fault(annotation, value, why),)
    assert str(faults[0]) == f"annotation {annotation}={value!r} does not count: {why}"


@pytest.fixture
def powerful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if keeping a pod for more than an hour gave power over the host."""
    policy = Policy(KEEP, "keep_for", POLICIES[0].parse, lambda value: isinstance(value, float) and value > 3600)
    monkeypatch.setattr(pod_module, "POLICIES", (policy,))


@pytest.mark.usefixtures("powerful")
def test_power_over_the_host_is_for_namespaces_that_the_node_names() -> None:
    asks = make_pod({"annotations": {KEEP: "2h"}})
    found, faults = policies_of(asks, defaults(keep_for="5m"))
    assert found.keep_for == 300
    assert [fault.why for fault in faults] == [
        "the node does not allow it to namespace shop (--policy-host-namespaces)"
    ]
    assert policies_of(asks, NO_DEFAULTS, ("shop",)) == (Policies(keep_for=7200), ())
    assert policies_of(asks, NO_DEFAULTS, ("*",)) == (Policies(keep_for=7200), ())
    assert policies_of(make_pod({"annotations": {KEEP: "1h"}})) == (Policies(keep_for=3600), ())


@pytest.mark.usefixtures("powerful")
def test_the_cluster_gives_no_power_over_a_host_but_the_hosts_owner_does() -> None:
    ruled = defaults(f"[{{annotations: {{{KEEP}: 2h}}}}]")
    found, faults = policies_of(make_pod(), ruled)
    assert (found, len(faults)) == (NO_POLICIES, 1)
    assert policies_of(make_pod(), defaults(keep_for="2h")) == (Policies(keep_for=7200), ())
