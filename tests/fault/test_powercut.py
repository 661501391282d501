"""Power cuts of a receiver that receives: nothing acknowledged is missing, nothing torn is visible. Thousands in long.

Three syncs that are taken out of the record (of a file, of a folder, of the log) are each found: a prover that finds
nothing there would prove nothing above.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.powercut import plants, prover, runs
from tests.powercut.trace import Trace

Need = Callable[[str, str], str]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A run of the receiver: what was sent, what it did."""

    trace: Trace
    sent: prover.Sent


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Recorded:
    folder = tmp_path_factory.mktemp("powercut")
    recording, sent = runs.Recording(folder, runs.tracer(need)), runs.Sent()
    files = runs.studies(folder / "in", senders=2, instances=8, sizes=runs.SIZES, seed=1)
    recording.install()
    with recording.receiver(more=runs.RECEIVERS["log"]) as live:
        runs.send_all(live, files, sent)
        assert live.stop() == 0
    trace = recording.trace()
    assert len(trace.marks("acknowledged")) == sum(map(len, files))
    return Recorded(trace=trace, sent=sent.datasets)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder for states, in memory where there is some: the disk of this machine is not on trial."""
    with contextlib.ExitStack() as stack:
        yield runs.memory_folder(tmp_path, stack)


def test_nothing_acknowledged_is_lost(recorded: Recorded, memory: Path) -> None:
    verdict = prover.prove(recorded.trace, recorded.sent, memory, count=50, rng=np.random.default_rng(10))
    print(verdict.say())
    assert not verdict.findings, verdict.say()
    assert verdict.states >= 35


@pytest.mark.parametrize("name", ["file", "folder", "log"])
def test_a_missing_sync_is_found(name: str, recorded: Recorded, memory: Path) -> None:
    trace = recorded.trace.without(plants.RECEIVER[name])
    assert len(trace.events) < len(recorded.trace.events)
    verdict = prover.prove(trace, recorded.sent, memory, count=150, rng=np.random.default_rng(11), until_found=True)
    print(verdict.say())
    assert verdict.findings, f"the missing sync of the {name} was not found"
