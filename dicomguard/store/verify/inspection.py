"""One pass over the store, a study at a time; on a running node whatever looks wrong is looked at twice."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from dicomguard.errors import Refused
from dicomguard.store import audit, log_slots
from dicomguard.store.db import Store
from dicomguard.store.verify import compare, look
from dicomguard.store.verify.findings import Finding, Kind

# Of a large store this share of the files is read a day; another share each day.
SHARE = 0.02
# A store with fewer instances is read whole.
SMALL = 2000
# What is on its way is there by then: a receiver files, a worker enqueues within a second.
SECOND_LOOK_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was looked at, and what was found."""

    studies: int
    instances: int
    # Files whose content was read.
    hashed: int
    # Records of the receive log that are not filed yet.
    unfiled: int
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is left that a person has to see to."""
        return all(finding.heals for finding in self.findings)


class Inspector:
    """Goes through a store."""

    def __init__(
        self,
        store: Store,
        *,
        full: bool,
        on_progress: Callable[[int, int], None] | None = None,
        second_look_s: float = SECOND_LOOK_S,
        running: bool | None = None,
    ) -> None:
        """`running` None: as the signs of life in the database say."""
        self._store = store
        self._running = running
        self._second_look_s = second_look_s
        self._total = look.row_count(store)
        self._full = full or self._total <= SMALL
        self._day = store.clock.now().date().isoformat()
        self._on_progress = on_progress
        self._hashed = 0
        self._seen = 0
        self._studies = 0
        # Of what the receive log holds.
        self._filed: set[str] = set()
        self._workflows = look.Workflows(store)

    def inspect(self) -> Inspection:
        """Look at everything once, and at what looks wrong on a running node once more."""
        try:
            running = look.running(self._store) if self._running is None else self._running
            logged, damaged = self._logged()
            # Of what was set aside a batch that failed may have left a file.
            explained = {*logged, *(item.record.sha256 for item in look.set_aside_instances(self._store))}
            findings = [*damaged, *self._globals(), *self._all_studies(explained, running=running)]
            if running and findings:
                findings = [*damaged, *self._confirmed(findings, explained)]
        finally:
            self._workflows.close()
        return Inspection(
            studies=self._studies,
            instances=self._total,
            hashed=self._hashed,
            unfiled=len(logged - self._filed),
            findings=tuple(findings),
        )

    def _logged(self) -> tuple[frozenset[str], list[Finding]]:
        """Hashes of the datasets that the receive log covers; a torn tail was never acknowledged and is no finding."""
        found: set[str] = set()
        try:
            found.update(record.sha256 for record in log_slots.unfiled(self._store.root))
        except (Refused, OSError) as error:
            detail = str(error) if isinstance(error, Refused) else str(error.strerror)
            return frozenset(found), [Finding(kind=Kind.LOG_DAMAGED, place=log_slots.FOLDER, detail=detail)]
        return frozenset(found), []

    def _choose(self, sha256: str) -> bool:
        if not self._full:
            draw = hashlib.sha256(f"{self._day} {sha256}".encode()).digest()
            if int.from_bytes(draw[:4], "big") >= SHARE * (1 << 32):
                return False
        self._hashed += 1
        return True

    def _all_studies(self, logged: Collection[str], *, running: bool) -> Iterator[Finding]:
        for study_key in look.study_keys(self._store):
            self._studies += 1
            yield from self._study(study_key, logged, running=running)
            self._tell()
        rows, files = look.quarantine(self._store, choose=self._choose)
        self._seen += len(rows)
        self._filed |= {row.sha256 for row in rows if row.sha256 in logged}
        yield from compare.instances(rows, files, "", logged=logged, running=running)
        for stranger in look.strangers(self._store):
            yield from compare.examine(stranger, logged=logged, running=running)
        self._tell()

    def _study(self, study_key: str, logged: Collection[str], *, running: bool) -> Iterator[Finding]:
        study = look.listing(self._store, study_key, choose=self._choose, workflows=self._workflows)
        self._seen += len(study.instances)
        self._filed |= {row.sha256 for row in study.instances if row.sha256 in logged}
        yield from compare.examine(study, logged=logged, running=running)

    def _globals(self) -> Iterator[Finding]:
        """What belongs to no study."""
        yield from compare.temporaries(look.temporaries(self._store))
        acknowledged, removed, rows = look.balance(self._store)
        yield from compare.balance(acknowledged=acknowledged, removed=removed, rows=rows)
        for item in look.set_aside_instances(self._store):
            whole = "" if item.is_whole else "; its bytes are NOT those that were acknowledged"
            yield Finding(kind=Kind.SET_ASIDE, place=item.path, detail=f"{item.fault} in {item.version}{whole}")
        for row, file in look.models(self._store):
            yield from compare.kept_file(row, file, "", Kind.MODEL_WITHOUT_FILE, Kind.MODEL_DIFFERS)
        with self._store.read() as tx:
            line = audit.first_break(tx)
        if line is not None:
            yield Finding(kind=Kind.AUDIT_BROKEN, place=f"audit line {line}")

    def _confirmed(self, findings: list[Finding], logged: Collection[str]) -> list[Finding]:
        """Those that are still there a little later."""
        time.sleep(self._second_look_s)
        again: set[Finding] = set(self._globals())
        for study_key in {finding.study_key for finding in findings if finding.study_key}:
            again |= set(self._study(study_key, logged, running=True))
        rows, files = look.quarantine(self._store, choose=self._choose)
        again |= set(compare.instances(rows, files, "", logged=logged, running=True))
        for stranger in look.strangers(self._store):
            again |= set(compare.examine(stranger, logged=logged, running=True))
        return [finding for finding in findings if finding in again]

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._seen, self._total)
