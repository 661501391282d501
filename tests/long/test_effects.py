"""Stop the worker at every effect there is: one report with one set of UIDs in each archive, each time."""

from pathlib import Path
from typing import Literal

import pytest

from tests.fault.effects import Moment
from tests.fault.loop import loop

MOMENTS: tuple[Moment, ...] = ("before", "after")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("executor", ["same", "other"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_effect(
    database: str,
    executor: Literal["same", "other"],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """n = 1, 2, 3 … until the run completes, before and after."""
    server = request.getfixturevalue("postgres_server") if database == "postgresql" else None
    with loop(tmp_path, server, other=executor == "other") as runs, capsys.disabled():
        whole = runs.whole()
        reached: set[str] = set()
        count = repeated = number = 0
        left = set(MOMENTS)
        while left:
            number += 1
            for moment in sorted(left):
                outcome = runs.run(number, moment)
                count += 1
                repeated += outcome.repeated
                if not outcome.name:
                    left.remove(moment)
                    continue
                reached.add(outcome.name)
                print(f"{database} {executor} {number:3d} {moment:6s} {outcome.name}")
        print(f"{database} {executor}: {number - 1} effects, {count} runs, {repeated} objects sent twice with one UID")
    assert not set(whole) - reached, "these were never stopped at"
