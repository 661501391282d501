from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from dicomguard.core.daily import due

BERLIN = ZoneInfo("Europe/Berlin")


def on(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [
        (on(10, 12), None, True),
        # Done this night; before and after the next one's time.
        (on(10, 12), on(10, 3, 31), False),
        (on(11, 3, 29), on(10, 3, 31), False),
        (on(11, 3, 30), on(10, 3, 31), True),
        # The node was down at the time: at once when it is up again, and then at its time again.
        (on(11, 9), on(10, 3, 31), True),
        (on(12, 3, 30), on(11, 9), True),
        # Two zones, one moment: 3:31 in Berlin is 2:31 in UTC.
        (on(10, 12), datetime(2026, 3, 10, 2, 31, tzinfo=UTC), False),
        (on(10, 12), datetime(2026, 3, 10, 2, 29, tzinfo=UTC), True),
        # The hour between two and three does not exist on the 29th.
        (on(29, 12), on(28, 12), True),
    ],
)
def test_table(now: datetime, last: datetime | None, expected: bool) -> None:
    assert due(now, last, at=time(3, 30)) is expected
