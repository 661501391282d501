"""An hour at two thousand associations an hour: memory level, descriptors and threads constant, all that was
acknowledged is there; and three minutes at ten times that rate."""

from pathlib import Path

import pytest
from sqlalchemy import select

from dicomguard.store import tables
from tests import soak
from tests.receiver import LiveReceiver, receiver

# Two thousand associations at ten times the rate of the hour fill what is filled once: SQLite's pages, the studies that
# are kept in mind, the log that goes round. At the rate of the hour itself that takes half of it.
_WARM_MINUTES = 6.0


def run(folder: Path, *, minutes: float, associations: int, warm_minutes: float = 0.0) -> list[soak.Sample]:
    """The samples after warming up; what the callers promise is checked."""
    with receiver(folder, peers=soak.CALLERS) as live:
        loads = [soak.Load(live, associations, seed=1)]
        if warm_minutes:
            warming = soak.Load(live, 10 * associations, seed=2)
            soak.soak(warming, seconds=60 * warm_minutes)
            loads.append(warming)
        samples = soak.soak(loads[0], seconds=60 * minutes)
        there = stored(live)
        for load in loads:
            print(f"{sum(load.counts.values()) - load.counts['instances']} associations: {dict(load.counts)}")
            assert load.failures == []
            assert load.counts["instances"] == len(load.acknowledged)
            assert load.acknowledged <= there
        assert live.events("connection.failed") == []
        assert live.stop() == 0
    return samples


def level(samples: list[soak.Sample]) -> None:
    """Memory rises by less than 1 % an hour; descriptors and threads are those of each other quiet moment."""
    slope = soak.slope_percent_an_hour(samples)
    descriptors, threads = (soak.quietest(samples, of) for of in (lambda s: s.descriptors, lambda s: s.threads))
    print(f"slope {slope:+.2f} % an hour over {len(samples)} samples; descriptors {descriptors}, threads {threads}")
    assert slope < 1.0
    assert len(set(descriptors)) == len(set(threads)) == 1


def stored(live: LiveReceiver) -> set[str]:
    """SOP Instance UIDs that have a row."""
    with live.store().read() as tx:
        return set(tx.execute(select(tables.instance.c.sop_uid)).scalars())


@pytest.mark.timeout(5000)
def test_an_hour(tmp_path: Path) -> None:
    level(run(tmp_path, minutes=60, associations=2000, warm_minutes=_WARM_MINUTES))


@pytest.mark.timeout(600)
def test_three_minutes_in_a_hurry(tmp_path: Path) -> None:
    samples = run(tmp_path, minutes=3, associations=20_000)
    assert max(one.kib for one in samples) < 100 << 10
    # Those of an association or two that are open at that moment come on top.
    assert max(one.threads for one in samples) <= min(one.threads for one in samples) + len(soak.CALLERS)
    assert max(one.descriptors for one in samples) <= min(one.descriptors for one in samples) + 3 * len(soak.CALLERS)
