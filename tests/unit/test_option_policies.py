import pytest

from agent.errors import ConfigError
from tests.unit.test_config import settle


def test_defaults_of_policies_are_given_one_by_one_or_as_a_mapping() -> None:
    wanted = {"edgelet.io/keep-for": "30m", "edgelet.io/restart-on-disk": "85"}
    assert settle({"policy_default": "edgelet.io/keep-for=30m,edgelet.io/restart-on-disk=85"}).policy_default == wanted
    assert settle({}, {}, {"policyDefault": {**wanted, "edgelet.io/restart-on-disk": 85}}).policy_default == wanted


def test_a_wrong_default_ends_the_start() -> None:
    with pytest.raises(ConfigError, match=r"--policy-default: edgelet.io/keep-for=soon: 'soon' is no duration"):
        settle({"policy_default": "edgelet.io/keep-for=soon"})
    with pytest.raises(ConfigError, match=r"--policy-default: edgelet.io/keep=5m: there is no such policy, only "):
        settle({"policy_default": "edgelet.io/keep=5m"})


def test_power_over_the_host_is_for_some_namespaces_or_for_all() -> None:
    assert settle({"policy_host_namespaces": "site,default"}).policy_host_namespaces == ("site", "default")
    assert settle({"policy_host_namespaces": "*"}).policy_host_namespaces == ("*",)
    with pytest.raises(ConfigError, match=r"'\*' is no namespace"):
        settle({"policy_host_namespaces": "site,*"})
