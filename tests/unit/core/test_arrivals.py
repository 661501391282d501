from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core.arrivals import BURST_S, LONGEST_WAIT_S, arrive


def served(moments: list[float], per_s: float) -> list[float | None]:
    """When each that comes at one of the moments is served; None for those that are refused."""
    full_at, found = 0.0, list[float | None]()
    for now in moments:
        turn = arrive(full_at, per_s=per_s, now=now)
        found.append(None if turn is None else now + turn.wait_s)
        full_at = full_at if turn is None else turn.full_at
    return found


def test_a_study_at_once_does_not_wait() -> None:
    assert served([7.0] * 99, per_s=20) == [7.0] * 99


def test_who_goes_on_is_slowed_to_its_rate_and_not_refused() -> None:
    now, full_at, moments = 0.0, 0.0, []
    for _ in range(300):
        turn = arrive(full_at, per_s=20, now=now)
        assert turn is not None
        full_at = turn.full_at
        # The next begins when this one is done, a millisecond later.
        now += turn.wait_s + 0.001
        moments.append(now)
    assert 9.0 < moments[-1] - moments[0] < 11.0
    assert max(later - earlier for earlier, later in pairwise(moments)) < 0.06


def test_a_flood_is_refused_beyond_its_rate_and_those_that_pass_wait_no_longer_than_said() -> None:
    moments = [number / 200 for number in range(2000)]
    found = served(moments, per_s=20)
    passed = [(came, at) for came, at in zip(moments, found, strict=True) if at is not None]
    assert 300 <= len(passed) <= 100 + 20 * (10 + LONGEST_WAIT_S)
    assert max(at - came for came, at in passed) <= LONGEST_WAIT_S + 1e-6
    # A refused one has cost nothing: the long run is the rate.
    assert 18 <= sum(5 <= at < 6 for _, at in passed) <= 21


def test_an_address_that_was_quiet_has_all_its_tokens_again() -> None:
    flood = [number / 200 for number in range(400)]
    later = 2 + LONGEST_WAIT_S + BURST_S
    assert served([*flood, *[later] * 99], per_s=20)[-99:] == [later] * 99


def test_a_rate_below_one_in_five_seconds_still_lets_one_in() -> None:
    assert served([0.0, 1.0, 20.0], per_s=0.1) == [0.0, None, 20.0]


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=200).map(sorted),
    st.floats(0.05, 200),
)
def test_no_second_has_more_than_the_burst_and_the_rate(moments: list[float], per_s: float) -> None:
    passed = [at for at in served(moments, per_s) if at is not None]
    for begin in passed:
        inside = sum(begin <= at < begin + 1 for at in passed)
        assert inside <= max(BURST_S * per_s, 1) + per_s + 1
