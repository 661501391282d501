"""The second pair of eyes: a case counts only once somebody other than its curator has accepted it."""

from collections.abc import Callable
from pathlib import Path

from dicomguard.clock import Clock
from dicomguard.errors import Refused
from dicomguard.retrain.archive import contents, manifest
from dicomguard.retrain.archive.case import Entry


def review(
    root: Path,
    case_id: str,
    *,
    by: str,
    accepted: bool,
    remark: str = "",
    clock: Clock,
    disk: manifest.Disk,
    counts_as: Callable[[str], str] = str.strip,
) -> Entry:
    """Accept or decline a case; `case_id` may be shortened to what is unique. Durable when this returns.

    `counts_as` says whom a name counts as: where there are accounts, a new one is no second pair of eyes.
    """
    manifest.check_text("remark", remark.strip())
    with manifest.locked(root):
        before = contents.read(root)
        entry = _find(before.entries, case_id)
        if same_person(entry.case.curator, by):
            raise Refused(
                f"{by.strip()} added case {entry.case.case_id} and cannot review it too. Ask a second person."
            )
        if same_person(counts_as(entry.case.curator), counts_as(by)):
            raise Refused(
                f"{by.strip()} and {entry.case.curator} count as one person: a new account counts as the one that "
                "invited it. Ask a third person, or wait until the account is a day old."
            )
        if not accepted and before.golden and entry.case.case_id in {member for member, _ in before.golden.members}:
            raise Refused(
                f"Case {entry.case.case_id} belongs to the frozen golden set, by which all models are compared. "
                "It stays; begin a new archive if the golden set has to change."
            )
        body = {"case_id": entry.case.case_id, "accepted": accepted, "remark": remark.strip()}
        line = manifest.append(root, kind=contents.REVIEWED, by=by, body=body, clock=clock, disk=disk)
        after = contents.read(root)
        assert after.head == line.sha256
        return _find(after.entries, entry.case.case_id)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one account; case and outer spaces do not make another person."""
    return one.strip().casefold() == other.strip().casefold()


def _find(entries: tuple[Entry, ...], case_id: str) -> Entry:
    found = [entry for entry in entries if case_id and entry.case.case_id.startswith(case_id)]
    if not found:
        raise Refused(f'There is no case "{case_id}" in the archive. `dicomguard archive list` shows the ids.')
    if len(found) > 1:
        raise Refused(f'"{case_id}" fits {len(found)} cases. Write more of the id.')
    return found[0]
