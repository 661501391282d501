"""An hour at two thousand associations an hour: memory level, descriptors and threads constant, all that was
acknowledged is there; and three minutes at ten times that rate."""

from pathlib import Path

import pytest
from sqlalchemy import select

from dicomguard.store import tables
from tests import soak
from tests.receiver import LiveReceiver, receiver

# Import of what is used first, a thread's stacks, the caches of SQLite and the log going round.
_WARM_S = 900.0


def run(folder: Path, *, minutes: float, associations: int) -> list[soak.Sample]:
    """The samples; what the callers promise is checked."""
    with receiver(folder, peers=soak.CALLERS) as live:
        load = soak.Load(live, associations)
        samples = soak.soak(load, seconds=60 * minutes)
        print(f"{sum(load.counts.values()) - load.counts['instances']} associations: {dict(load.counts)}")
        assert load.failures == []
        assert load.counts["instances"] == len(load.acknowledged)
        assert load.acknowledged <= stored(live)
        assert live.events("connection.failed") == []
        assert live.stop() == 0
    return samples


def stored(live: LiveReceiver) -> set[str]:
    """SOP Instance UIDs that have a row."""
    with live.store().read() as tx:
        return set(tx.execute(select(tables.instance.c.sop_uid)).scalars())


@pytest.mark.timeout(4200)
def test_an_hour(tmp_path: Path) -> None:
    samples = run(tmp_path, minutes=60, associations=2000)
    warm = [one for one in samples if one.seconds >= _WARM_S]
    slope = soak.slope_percent_an_hour(warm)
    descriptors, threads = (soak.quietest(warm, of) for of in (lambda s: s.descriptors, lambda s: s.threads))
    print(f"slope {slope:+.2f} % an hour over {len(warm)} samples after {_WARM_S:.0f} s", descriptors, threads)
    assert slope < 1.0
    assert len(set(descriptors)) == len(set(threads)) == 1


@pytest.mark.timeout(600)
def test_three_minutes_in_a_hurry(tmp_path: Path) -> None:
    samples = run(tmp_path, minutes=3, associations=20_000)
    assert max(one.kib for one in samples) < 100 << 10
    # Those of an association or two that are open at that moment come on top.
    assert max(one.threads for one in samples) <= min(one.threads for one in samples) + len(soak.CALLERS)
    assert max(one.descriptors for one in samples) <= min(one.descriptors for one in samples) + 3 * len(soak.CALLERS)
