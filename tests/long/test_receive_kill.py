"""Two thousand SIGKILLs in parts of a hundred: nothing that was acknowledged is missing or torn.

Each part has its seed and its own state folder, so `-k "3004 or 3005"` repeats two; the end of the run says the sums.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.killing import Tally, kill_while_receiving
from tests.peers import Postgres

KILLS = 100
Record = Callable[[str, object], None]


def part(folder: Path, record: Record, *, seed: int, url: str = "", segments: int = 3, processes: int = 1) -> Tally:
    """Its figures, printed and recorded."""
    tally = kill_while_receiving(
        folder, kills=KILLS, senders=4, seed=seed, url=url, segments=segments, processes=processes
    )
    print(tally)
    for name in ("kills", "killed_starts", "missing", "torn", "logged", "wiped"):
        record(f"SIGKILL of receivers: {name}", getattr(tally, name))
    record("SIGKILL of receivers: acknowledged", len(tally.acknowledged))
    assert len(tally.acknowledged) >= 3 * KILLS
    return tally


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3000, 3008))
def test_a_hundred_kills_on_sqlite(tmp_path: Path, record_property: Record, seed: int) -> None:
    part(tmp_path, record_property, seed=seed)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3008, 3016))
def test_a_hundred_kills_of_two_processes(tmp_path: Path, record_property: Record, seed: int) -> None:
    part(tmp_path, record_property, seed=seed, processes=2)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seed", "processes"), [(3016, 1), (3017, 1), (3018, 2)])
def test_a_hundred_kills_on_postgresql(
    tmp_path: Path, record_property: Record, postgres_server: Postgres, seed: int, processes: int
) -> None:
    part(tmp_path, record_property, seed=seed, url=postgres_server.create(f"kills-{seed}"), processes=processes)


@pytest.mark.timeout(1800)
def test_a_hundred_kills_without_a_log(tmp_path: Path, record_property: Record) -> None:
    assert part(tmp_path, record_property, seed=3019, segments=0).logged == 0
