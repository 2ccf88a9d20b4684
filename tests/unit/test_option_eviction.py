import re

import pytest

from agent.config import EVICTION_HARD
from agent.errors import ConfigError
from tests.unit.test_config import settle


def test_without_a_word_the_kubelets_thresholds_hold() -> None:
    settings = settle({})
    assert settings.eviction_hard == EVICTION_HARD == {
        "memory.available": "100Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
        "imagefs.available": "15%",
        "imagefs.inodesFree": "5%",
    }  # fmt: skip
    assert (settings.eviction_soft, settings.eviction_max_pod_grace_period) == ({}, 0)
    assert settings.eviction_pressure_transition_period == 300


def test_what_is_given_replaces_all_of_them() -> None:
    assert settle({"eviction_hard": "memory.available<1Gi"}).eviction_hard == {"memory.available": "1Gi"}
    assert settle({"eviction_hard": ""}).eviction_hard == {}
    assert settle({}, {}, {"evictionHard": {}}).eviction_hard == {}


def test_flags_and_file_say_the_same() -> None:
    flags = {
        "eviction_hard": "memory.available<500Mi, pid.available<2.5%,imagefs.available<0%,nodefs.available<100%",
        "eviction_soft": "nodefs.available<15%",
        "eviction_soft_grace_period": "nodefs.available=1m30s",
        "eviction_minimum_reclaim": "nodefs.available=500Mi,imagefs.available=2%,memory.available=0",
    }
    file = {
        "evictionHard": {
            "memory.available": "500Mi",
            "pid.available": "2.5%",
            "imagefs.available": "0%",
            "nodefs.available": "100%",
        },
        "evictionSoft": {"nodefs.available": "15%"},
        "evictionSoftGracePeriod": {"nodefs.available": "1m30s"},
        "evictionMinimumReclaim": {"nodefs.available": "500Mi", "imagefs.available": "2%", "memory.available": 0},
    }
    for settings in (settle(flags), settle({}, {}, file)):
        assert settings.eviction_hard == {"memory.available": "500Mi", "pid.available": "2.5%"}
        assert settings.eviction_soft == {"nodefs.available": "15%"}
        assert settings.eviction_soft_grace_period == {"nodefs.available": 90.0}
        assert settings.eviction_minimum_reclaim["imagefs.available"] == "2%"


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("eviction_hard", "memory<1Gi", "--eviction-hard: 'memory' is no eviction signal: memory.available, "),
        ("eviction_hard", "memory.available=1Gi", "--eviction-hard: 'memory.available=1Gi' is not written SIGNAL<AMOU"),
        ("eviction_hard", "memory.available<lots", "--eviction-hard: not a resource quantity: 'lots'"),
        ("eviction_hard", "memory.available<0", "--eviction-hard: memory.available<0: not more than zero"),
        ("eviction_hard", "memory.available<-1Gi", "--eviction-hard: memory.available<-1Gi: not more than zero"),
        ("eviction_hard", "nodefs.available<101%", "--eviction-hard: nodefs.available: '101%' is no share between"),
        ("eviction_hard", "nodefs.available<-1%", "--eviction-hard: nodefs.available: '-1%' is no share between"),
        ("eviction_hard", "nodefs.available<x%", "--eviction-hard: nodefs.available: 'x%' is no share between"),
        ("eviction_hard", "pid.available<1,pid.available<2", "--eviction-hard: pid.available is there twice"),
        ("eviction_hard", "containerfs.available<1Gi", "--eviction-hard: containerfs.available follows nodefs or"),
        ("eviction_soft", "pid.available<1", "--eviction-soft: pid.available also needs --eviction-soft-grace-period="),
        ("eviction_soft_grace_period", "pid.available=soon", "--eviction-soft-grace-period: 'soon' is no duration"),
        ("eviction_minimum_reclaim", "pid.available=-1", "--eviction-minimum-reclaim: pid.available=-1: less than"),
        ("eviction_minimum_reclaim", "pid.available=0%", "--eviction-minimum-reclaim: pid.available=0%: less than"),
        ("eviction_max_pod_grace_period", "-2", "--eviction-max-pod-grace-period: -2 is not between"),
        ("eviction_pressure_transition_period", "0", "--eviction-pressure-transition-period: '0' is not more than"),
    ],
)
def test_a_wrong_value_gets_one_line_that_names_it(field: str, given: str, message: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(message)) as caught:
        settle({field: given})
    assert "\n" not in str(caught.value)
