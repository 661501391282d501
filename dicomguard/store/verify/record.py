"""What the last daily inspection found; all processes of the node read it here."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dicomguard.store import ephemeral
from dicomguard.store.db import Tx
from dicomguard.store.verify.inspection import Inspection

_KIND = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Sums of one inspection."""

    at: datetime
    instances: int
    # Files whose content was read.
    hashed: int
    # By kind; without those that heal by themselves.
    findings: Mapping[str, int]


def keep(tx: Tx, found: Inspection, *, at: datetime) -> Record:
    """Take the place of the one before."""
    findings = Counter(finding.kind.value for finding in found.findings if not finding.heals)
    value = {"at": at.isoformat(), "instances": found.instances, "hashed": found.hashed, "findings": dict(findings)}
    ephemeral.put(tx, _KIND, "", value, None)
    return Record(at=at, instances=found.instances, hashed=found.hashed, findings=findings)


def last(tx: Tx, now: datetime) -> Record | None:
    """None before the first."""
    value = ephemeral.get(tx, _KIND, "", now)
    if value is None:
        return None
    return Record(**{**value, "at": datetime.fromisoformat(value["at"])})
