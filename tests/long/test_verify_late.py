"""A late image of a study whose images retention has deleted: held, then judged when a person says so."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from dicomguard.clock import FakeClock, SystemClock
from dicomguard.core.retention import Policy
from dicomguard.flow.states import DONE
from dicomguard.store import backup, retention, studies
from dicomguard.store.db import open_store
from dicomguard.store.verify.inspection import Inspector
from tests.fault import world
from tests.fault.world import run_worker
from tests.peers import storescp


def test_the_late_image_is_judged_when_a_person_lets_it_go(tmp_path: Path, need: Callable[[str, str], str]) -> None:
    state = tmp_path / "state"
    store = open_store(state, "", SystemClock())
    key = world.send_study(store, tmp_path / "in")
    with storescp(need, tmp_path / "archive", ae_title="ARCHIVE", options=("-ll", "fatal")) as archive:
        plan = {"state": str(state), "destinations": {"archive": archive.port}, "until_idle": True}
        assert run_worker(120, **plan) == 0
        first = len(archive.files())
        assert first >= 2

        later = open_store(state, "", FakeClock(store.clock.now() + timedelta(days=31)))
        done = retention.run(later, Policy(images=timedelta(days=30), images_bytes=None, results=None))
        later.close()
        assert done.images == 5
        assert Inspector(store, full=True).inspect().findings == ()
        document = backup.make(
            store, f"sqlite:///{state / 'node.sqlite'}", tmp_path / "copy", on_progress=lambda *_: None
        )
        found = backup.check(store.clock, "", tmp_path / "copy", document, full=True, on_progress=lambda *_: None)
        assert found is not None
        assert found.findings == ()

        world.send_study(store, tmp_path / "late", slices=3, first=6)
        with store.read() as tx:
            (waiting,) = studies.collecting(tx, now=store.clock.now())
        assert waiting.on_hold
        with store.begin() as tx:
            studies.force(tx, key, "ada", now=store.clock.now())
        assert run_worker(120, **plan) == 0
        with store.read() as tx:
            assert studies.state(tx, key, 2) == DONE
            assert len(studies.instances(tx, key, 2)) == 3
        assert len(archive.files()) > first
    assert Inspector(store, full=True).inspect().findings == ()
    store.close()
