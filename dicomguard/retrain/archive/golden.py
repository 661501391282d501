"""The golden set: the accepted cases of the test split, named once with their hashes, and never changed after.

Candidates and incumbents are measured on it, so it must not drift; a case that arrives later is not part of it.
"""

from pathlib import Path

from dicomguard.clock import Clock
from dicomguard.errors import Broken, Refused
from dicomguard.retrain.archive import contents, manifest
from dicomguard.retrain.archive.case import Case
from dicomguard.retrain.archive.contents import Golden

# Fewer people than this bound nothing: with two, one false alarm is half of all.
LEAST_PATIENTS = 2


def ensure(root: Path, *, by: str, clock: Clock, disk: manifest.Disk) -> Golden:
    """The frozen set; frozen now when there is none yet. Durable when this returns."""
    with manifest.locked(root):
        now = contents.read(root)
        if now.golden:
            return now.golden
        cases = [entry.case for entry in now.accepted() if entry.case.split == "test"]
        first = contents.first_sources(now.entries)
        people = {contents.person_key(case.source, case.patient, first) for case in cases}
        if len(people) < LEAST_PATIENTS:
            raise Refused(
                f"The archive has accepted test cases of {len(people)} people; a golden set needs {LEAST_PATIENTS}. "
                "Add and review more cases; `dicomguard archive list` shows which are test."
            )
        members = sorted([case.case_id, contents.sha256_of(case)] for case in cases)
        manifest.append(root, kind=contents.GOLDEN, by=by, body={"members": members}, clock=clock, disk=disk)
        golden = contents.read(root).golden
        assert golden is not None
        return golden


def cases(now: contents.Contents) -> tuple[Case, ...]:
    """The cases of the golden set; raise `Broken` when one is not what it was when it was frozen."""
    if now.golden is None:
        return ()
    by_id = {entry.case.case_id: entry.case for entry in now.entries}
    found = []
    for case_id, sha256 in now.golden.members:
        case = by_id.get(case_id)
        if case is None or contents.sha256_of(case) != sha256:
            raise Broken(
                f"Case {case_id} of the golden set is not as it was frozen. Restore the archive from a backup."
            )
        found.append(case)
    return tuple(found)
