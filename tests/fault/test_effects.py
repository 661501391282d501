"""A sample of the effect loop; the whole of it, on both databases, is in the long tier."""

from pathlib import Path

from tests.fault.loop import loop


def test_a_study_is_reported_once_wherever_the_worker_is_stopped(tmp_path: Path) -> None:
    """Places spread over the whole list, before and after by turns."""
    with loop(tmp_path) as runs:
        names = runs.whole()
        # Files, commits and the network are all among them: a door that fell out would be missed here.
        for word in ("create", "sync", "rename to", "commit", "associate", "write the message"):
            assert any(name.startswith(word) for name in names), word
        places = range(5, len(names), len(names) // 6)
        stopped = [runs.run(place, ("before", "after")[turn % 2]).name for turn, place in enumerate(places)]
    assert all(stopped)
