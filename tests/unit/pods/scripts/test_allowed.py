"""Who may have host programs."""

import pytest

from agent.pods.scripts.allowed import ScriptRules
from tests.unit.pods.pods import make_pod

RULES = ScriptRules(True, ("shop", "site"), ("runner", "site/keeper"))


def refusal(namespace: str, account: str, rules: ScriptRules = RULES) -> str | None:
    return rules.refusal(make_pod({"namespace": namespace}, serviceAccountName=account))


def test_nobody_unless_it_is_enabled() -> None:
    assert "--scripts-enabled" in (refusal("shop", "runner", ScriptRules(False, ("shop",), ("runner",))) or "")


@pytest.mark.parametrize(("namespace", "account"), [("shop", "runner"), ("site", "runner"), ("site", "keeper")])
def test_listed_accounts_in_listed_namespaces(namespace: str, account: str) -> None:
    assert refusal(namespace, account) is None


@pytest.mark.parametrize("namespace", ["other", "", "sho", "shopp"])
def test_other_namespaces_are_refused_by_name(namespace: str) -> None:
    assert refusal(namespace, "runner") == (
        f'this node runs no host programs of namespace "{namespace}" (--scripts-namespaces)'
    )


@pytest.mark.parametrize(("namespace", "account"), [("shop", "keeper"), ("shop", "default"), ("shop", "")])
def test_other_accounts_are_refused_by_name(namespace: str, account: str) -> None:
    assert f'service account "{account or "default"}"' in (refusal(namespace, account) or "")


def test_a_pod_that_names_no_account_has_the_default_one() -> None:
    assert refusal("shop", "", ScriptRules(True, ("shop",), ("default",))) is None


def test_what_a_pod_claims_of_itself_does_not_count() -> None:
    claims = {"namespace": "other", "annotations": {"edgelet.io/host": "true", "kubernetes.io/config.source": "file"}}
    assert RULES.refusal(make_pod(claims, serviceAccountName="runner", hostPID=True)) is not None
