"""Stop receiver and worker at every effect there is: one report with one set of UIDs in each archive, each time.

With storage commitment: each archive is asked until it vouches for everything, nothing counts as committed for which
none has vouched, and each that asks the node gets its answer.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.commitment_loop import loop_of
from tests.fault.effects import Moment
from tests.fault.loop import Stage

MOMENTS: tuple[Moment, ...] = ("before", "after")
TRIES = 5


# The receiver has no executor: whoever is started next replays.
CASES = [
    ("receive", "sqlite", "same"),
    ("receive", "postgresql", "same"),
    ("work", "sqlite", "same"),
    ("work", "sqlite", "other"),
    ("work", "postgresql", "same"),
    ("work", "postgresql", "other"),
    ("vouch", "sqlite", "same"),
    ("vouch", "postgresql", "same"),
    ("commit", "sqlite", "same"),
    ("commit", "sqlite", "other"),
    ("commit", "postgresql", "same"),
    ("commit", "postgresql", "other"),
    ("answer", "sqlite", "same"),
    ("answer", "sqlite", "other"),
    ("answer", "postgresql", "same"),
    ("answer", "postgresql", "other"),
]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("stage", "database", "executor"), CASES)
def test_every_effect(
    stage: Stage,
    database: str,
    executor: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """n = 1, 2, 3 … until the run completes, before and after."""
    server = request.getfixturevalue("postgres_server") if database == "postgresql" else None
    with loop_of(tmp_path, stage, server, other=executor == "other") as runs:
        title = f"{stage} {database} {executor}"
        whole = runs.whole()
        reached: dict[Moment, set[str]] = {moment: set() for moment in MOMENTS}
        count = repeated = number = 0
        left = set(MOMENTS)
        while left:
            number += 1
            for moment in sorted(left):
                # A worker that was too slow for its lease ends by itself: only behind the last effect is that the end.
                for _ in range(1 if number > len(whole) else TRIES):
                    outcome = runs.run(number, moment)
                    count += 1
                    repeated += outcome.repeated
                    if outcome.name:
                        break
                if outcome.name:
                    reached[moment].add(outcome.name)
                    print(f"{title} {number:3d} {moment:6s} {outcome.name}")
                elif number > len(whole):
                    left.remove(moment)
                else:
                    print(f"{title} {number:3d} {moment:6s} not reached in {TRIES} runs")
        # The order of two deliveries side by side differs from run to run: what was missed is stopped at by its name.
        for moment in MOMENTS:
            for name in sorted(set(whole) - reached[moment]):
                # What shares a commit with what is a matter of chance, too.
                tries = next((tried for tried in range(1, TRIES + 1) if runs.run(name, moment).name), 0)
                count += tries or TRIES
                print(f"{title}     {moment:6s} {name}{'' if tries else ': did not come again'}")
        record_property("effects at which a process was stopped", number - 1)
        record_property("runs of the effect loop", count)
        print(f"{title}: {number - 1} effects, {count} runs, {repeated} objects or answers sent twice with one UID")
