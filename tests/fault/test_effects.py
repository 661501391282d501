"""A sample of the effect loop; the whole of it, on both databases, is in the long tier."""

from pathlib import Path

import pytest

from tests.fault.commitment_loop import loop_of
from tests.fault.loop import Stage

# A door that fell out of the count would be missed here.
DOORS = {
    "receive": ("create", "sync", "commit", "PDU A-ASSOCIATE-AC", "PDU P-DATA-TF"),
    "work": ("create", "sync", "rename to", "commit", "associate", "PDU P-DATA-TF"),
    "commit": ("commit: insert commitment", "ask and hear the answer", "send and hear the answer"),
    "answer": ("commit: update commitment_request", "report and hear the answer"),
    "vouch": ("commit: insert commitment_request", "commit: insert commitment", "PDU P-DATA-TF"),
}


@pytest.mark.parametrize(
    ("stage", "database", "executor"),
    [
        ("receive", "sqlite", "same"),
        ("work", "sqlite", "same"),
        ("work", "postgresql", "other"),
        ("commit", "postgresql", "other"),
        ("answer", "sqlite", "same"),
        ("vouch", "sqlite", "same"),
    ],
)
def test_a_study_is_reported_once_wherever_a_process_is_stopped(
    stage: Stage, database: str, executor: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Places spread over the whole list, before and after by turns."""
    server = request.getfixturevalue("postgres_server") if database == "postgresql" else None
    with loop_of(tmp_path, stage, server, other=executor == "other") as runs:
        names = runs.whole()
        for door in DOORS[stage]:
            assert any(name.startswith(door) for name in names), door
        # Two associations side by side end with a few effects more or less in another run.
        places = range(5, len(names) * 9 // 10, len(names) // 3)
        stopped = [runs.run(place, ("before", "after")[turn % 2]).name for turn, place in enumerate(places)]
    assert all(stopped)
