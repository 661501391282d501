"""verify and backup beside a receiver that receives, and after it was killed."""

import threading
from pathlib import Path

import numpy as np

from dicomguard.clock import SystemClock
from dicomguard.store import backup, log_slots
from dicomguard.store.db import open_store
from dicomguard.store.files import SystemDisk
from dicomguard.store.restore import restore
from dicomguard.store.verify.inspection import Inspector
from tests.killing import Tally, dataset_sha256, keep_sending
from tests.receiver import receiver


def silent(done: int, total: int) -> None:
    assert done <= total


def kept(state: Path) -> dict[str, str]:
    """SHA-256 of every dataset that a state folder holds, in a file or in its log."""
    files = {dataset_sha256(path): str(path) for path in (state / "store").rglob("*.dcm")}
    return files | {record.sha256: str(record.segment) for record in log_slots.unfiled(state)}


def test_verify_and_backup_while_instances_come(tmp_path: Path) -> None:
    tally = Tally()
    with receiver(tmp_path) as live:
        senders = [
            threading.Thread(
                target=keep_sending, args=(live.port, tally),
                kwargs={"sender": number, "first": 0, "rng": np.random.default_rng(number)},
            )
            for number in range(2)
        ]  # fmt: skip
        store = live.store()
        for sender in senders:
            sender.start()
        while len(tally.acknowledged) < 20:
            threading.Event().wait(0.05)
        # Beside the receiver: nothing on its way is called lost.
        assert Inspector(store, full=True, second_look_s=1.0).inspect().findings == ()
        with tally.lock:
            before = set(tally.acknowledged.values())
        url = f"sqlite:///{live.state / 'node.sqlite'}"
        document = backup.make(store, url, tmp_path / "copy", on_progress=silent)
        found = backup.check(store.clock, url, tmp_path / "copy", document, full=True, on_progress=silent)
        backup.finish(store, tmp_path / "copy", document)
        with tally.lock:
            meanwhile = len(tally.acknowledged) - len(before)
        live.kill()
        for sender in senders:
            sender.join(60)
    assert found is not None
    assert found.findings == ()
    assert meanwhile > 0
    # After the kill: what is not filed lies in the log, and all of it is explained.
    after = Inspector(store, full=True, running=False).inspect()
    assert after.findings == ()
    assert set(tally.acknowledged.values()) <= set(kept(live.state))

    again = tmp_path / "again"
    again.mkdir()
    address = f"sqlite:///{again / 'node.sqlite'}"
    restore(tmp_path / "copy", again, address, disk=SystemDisk(), on_progress=silent)
    back = open_store(again, address, SystemClock())
    assert Inspector(back, full=True, running=False).inspect().findings == ()
    back.close()
    # Everything that was acknowledged before the backup began.
    assert before <= set(kept(again))

    # A backup of the node as the kill left it takes the log along, and the next receiver files it.
    second = tmp_path / "second/state"
    second.mkdir(parents=True)
    killed = open_store(live.state, url, SystemClock())
    document = backup.make(killed, url, tmp_path / "copy2", on_progress=silent, patience_s=0.2)
    assert backup.check(killed.clock, url, tmp_path / "copy2", document, full=True, on_progress=silent) is not None
    backup.finish(killed, tmp_path / "copy2", document)
    killed.close()
    restore(tmp_path / "copy2", second, f"sqlite:///{second / 'node.sqlite'}", disk=SystemDisk(), on_progress=silent)
    assert set(tally.acknowledged.values()) <= set(kept(second))
    with receiver(tmp_path / "second") as successor:
        found = Inspector(successor.store(), full=True, second_look_s=1.0).inspect()
        assert (found.findings, found.unfiled) == ((), 0)
        assert found.instances >= len(tally.acknowledged)
    print(f"{len(before)} before the backup, {meanwhile} during it")
