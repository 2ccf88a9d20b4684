import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kube.rotation import Due, due, renewal_at, retry_after
from agent.kube.x509_facts import Validity

LIFE = Validity(1000.0, 2000.0)


@given(st.floats(0, 1))
def test_a_certificate_is_renewed_between_70_and_90_percent_of_its_life(chance: float) -> None:
    assert 1700 <= renewal_at(LIFE, chance) <= 1900
    assert renewal_at(LIFE, 0) == 1700
    assert renewal_at(LIFE, 1) == pytest.approx(1900)


@pytest.mark.parametrize(
    ("server_time", "is_refused", "expected"),
    [
        (None, False, Due.NOTHING),
        (None, True, Due.NOTHING),
        (1000.0, False, Due.NOTHING),
        (1799.0, False, Due.NOTHING),
        (1800.0, False, Due.RENEWAL),
        (2500.0, False, Due.RENEWAL),  # it was taken all the same
        (1999.0, True, Due.NOTHING),  # somebody refuses a certificate that is good
        (2000.0, True, Due.ENROLMENT),
        (0.0, True, Due.NOTHING),
    ],
)
def test_what_is_due(server_time: float | None, is_refused: bool, expected: Due) -> None:
    assert due(LIFE, 1800.0, server_time, is_refused=is_refused) is expected


def test_failures_are_tried_again_ever_more_seldom_and_sooner_where_time_is_short() -> None:
    year = 365 * 86400.0
    assert [retry_after(count, year) for count in (1, 2, 3, 7, 40)] == [5, 10, 20, 300, 300]
    assert retry_after(7, 600.0) == 30
    assert retry_after(7, -1.0) == 5
