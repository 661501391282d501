"""A destination that is dead for three days, and one that stays dead, on a clock that a test moves."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

from dicomguard.core.delivery import State
from tests.fault.test_delivery_days import START, Hospital, dead_for


def test_72_hours(tmp_path: Path) -> None:
    """The others are late by less than a second, the backlog drains in order, none comes twice."""
    print(dead_for(Hospital(tmp_path), 72))


def test_it_stays_dead_for_more_than_a_week(tmp_path: Path) -> None:
    """It is given up with an alarm, and the others have had theirs."""
    hospital = Hospital(tmp_path)
    hospital.finish_study(1)
    hospital.run_until(START + timedelta(days=7, hours=1))
    assert hospital.states("pacs") == Counter({State.REFUSED: 1})
    assert hospital.states("archive") == Counter({State.SENT: 1})
