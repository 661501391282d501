"""Two thousand SIGKILLs in parts of a hundred: nothing that was acknowledged is missing or torn.

Each part has its seed and its own state folder, so `-k "4 or 5"` repeats two of them; the total so far is printed.
"""

from pathlib import Path

import pytest

from tests.killing import Tally, kill_while_receiving
from tests.peers import Postgres

KILLS = 100
TOTAL = Tally()


def part(folder: Path, *, seed: int, url: str = "", segments: int = 3) -> Tally:
    """Its figures, printed with those of all parts of this run."""
    tally = kill_while_receiving(folder, kills=KILLS, senders=4, seed=seed, url=url, segments=segments)
    TOTAL.add(tally)
    print(f"{tally}\nin all {TOTAL}", flush=True)
    assert len(tally.acknowledged) >= 3 * KILLS
    return tally


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3000, 3016))
def test_a_hundred_kills_on_sqlite(tmp_path: Path, seed: int) -> None:
    tally = part(tmp_path, seed=seed)
    assert tally.wiped > 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3016, 3019))
def test_a_hundred_kills_on_postgresql(tmp_path: Path, postgres_server: Postgres, seed: int) -> None:
    part(tmp_path, seed=seed, url=postgres_server.create(f"kills-{seed}"))


@pytest.mark.timeout(1800)
def test_a_hundred_kills_without_a_log(tmp_path: Path) -> None:
    assert part(tmp_path, seed=3019, segments=0).logged == 0
