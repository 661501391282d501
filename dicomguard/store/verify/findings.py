"""The faults that `verify` knows, each with a sentence and its remedy."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Name of a fault."""

    ROW_WITHOUT_FILE = "row_without_file"
    FILE_DIFFERS = "file_differs"
    FILE_WITHOUT_ROW = "file_without_row"
    EXPIRED_WITH_FILE = "expired_with_file"
    REMOVED_WITH_FILE = "removed_with_file"
    ROWS_LOST = "rows_lost"
    LOG_DAMAGED = "log_damaged"
    SET_ASIDE = "set_aside"
    STALE_TEMPORARY = "stale_temporary"
    STALE_JOB = "stale_job"
    REVISION_MISSING = "revision_missing"
    REVISION_WITHOUT_WORKFLOW = "revision_without_workflow"
    REVISION_NOT_CLOSED = "revision_not_closed"
    MANIFEST_DIFFERS = "manifest_differs"
    REVISION_WITHOUT_VERDICT = "revision_without_verdict"
    VERDICT_WITHOUT_FILE = "verdict_without_file"
    VERDICT_DIFFERS = "verdict_differs"
    REVISION_WITHOUT_RESULTS = "revision_without_results"
    RESULTS_TWICE = "results_twice"
    RESULT_WITHOUT_FILE = "result_without_file"
    RESULT_DIFFERS = "result_differs"
    RESULTS_WITHOUT_REVISION = "results_without_revision"
    SURPLUS_RESULT_FILE = "surplus_result_file"
    DELIVERED_TWICE = "delivered_twice"
    DELIVERY_WITHOUT_RESULT = "delivery_without_result"
    DELIVERY_STUCK = "delivery_stuck"
    MODEL_WITHOUT_FILE = "model_without_file"
    MODEL_DIFFERS = "model_differs"
    AUDIT_BROKEN = "audit_broken"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a fault means."""

    sentence: str
    remedy: str


_RESTORE = "Restore it from a backup"

MEANINGS: Mapping[Kind, Meaning] = {
    Kind.ROW_WITHOUT_FILE: Meaning(
        "The row of an instance has no file.",
        f"{_RESTORE}, or have it sent again; --repair marks it missing, so that the same bytes are taken anew.",
    ),
    Kind.FILE_DIFFERS: Meaning(
        "The file of an instance is not what was received.",
        "Look at the disk, then have it sent again; --repair sets the file aside and marks the instance missing.",
    ),
    Kind.FILE_WITHOUT_ROW: Meaning(
        "A file has no row.", "It was cut off before it was acknowledged, or its row was lost; --repair files it."
    ),
    Kind.EXPIRED_WITH_FILE: Meaning(
        "Retention was cut off: an expired instance still has its file.",
        "Nothing: the next run of retention removes it.",
    ),
    Kind.REMOVED_WITH_FILE: Meaning(
        "Retention was cut off: a folder of a removed study is left.",
        "Nothing: the next run of retention removes it.",
    ),
    Kind.ROWS_LOST: Meaning(
        "The number of rows is not the number of instances that were acknowledged.",
        "Rows were taken out of the database, or written by hand: restore it from a backup, or have the instances sent "
        "again.",
    ),
    Kind.LOG_DAMAGED: Meaning(
        "The receive log cannot be read to its end.",
        "Look at the disk; start the node, which files what can be read, and have the last studies sent again.",
    ),
    Kind.SET_ASIDE: Meaning(
        "An acknowledged instance has no row, since a fault of ours kept it from being filed; its bytes are kept.",
        "Send the log to the makers; the next version files it at its start, and --repair tries it now.",
    ),
    Kind.STALE_TEMPORARY: Meaning(
        "A temporary file is older than an hour.", "It was never acknowledged; --repair removes it."
    ),
    Kind.STALE_JOB: Meaning(
        "The working folder of an analysis is left over.", "Nothing needs it; --repair removes it."
    ),
    Kind.REVISION_MISSING: Meaning(
        "The revisions of a study are not numbered from 1 to its current one.",
        "Rows were taken out of the database: restore it from a backup.",
    ),
    Kind.REVISION_WITHOUT_WORKFLOW: Meaning(
        "A revision is to be worked off, and nothing works on it.",
        "Start the node: a worker takes it up within a second. If it runs, look at the log of the worker.",
    ),
    Kind.REVISION_NOT_CLOSED: Meaning(
        "The state of a revision is not that of its deliveries.",
        "Retry the study on the page, and report this as a fault of ours.",
    ),
    Kind.MANIFEST_DIFFERS: Meaning(
        "The manifest of a revision is missing or was altered.",
        "Force the study on the page, which opens a new revision.",
    ),
    Kind.REVISION_WITHOUT_VERDICT: Meaning(
        "A revision was judged and has no verdict.", "Force the study on the page, which opens a new revision."
    ),
    Kind.VERDICT_WITHOUT_FILE: Meaning("The file of a verdict is missing.", f"{_RESTORE}, or force the study."),
    Kind.VERDICT_DIFFERS: Meaning("The file of a verdict was altered.", f"{_RESTORE}, or force the study."),
    Kind.REVISION_WITHOUT_RESULTS: Meaning(
        "A revision was built and has no results.", "Force the study on the page, which opens a new revision."
    ),
    Kind.RESULTS_TWICE: Meaning(
        "A revision has more than one set of results.",
        "Look in the archive which of them it has, and report this as a fault of ours.",
    ),
    Kind.RESULT_WITHOUT_FILE: Meaning("The file of a result is missing.", f"{_RESTORE}, or force the study."),
    Kind.RESULT_DIFFERS: Meaning("The file of a result was altered.", f"{_RESTORE}, or force the study."),
    Kind.RESULTS_WITHOUT_REVISION: Meaning(
        "A folder of results belongs to no revision.",
        "The database is older than the files: restore both from one backup, or move the folder away.",
    ),
    Kind.SURPLUS_RESULT_FILE: Meaning(
        "A file among the results of a revision has no row.",
        "A worker was taken for dead and left it; it is never sent, and can be moved away.",
    ),
    Kind.DELIVERED_TWICE: Meaning(
        "A destination was given two reports of one revision, or one object twice.",
        "Look in the archive, and report this as a fault of ours.",
    ),
    Kind.DELIVERY_WITHOUT_RESULT: Meaning(
        "A delivery names an object that is not kept.", "Restore the database from a backup, or force the study."
    ),
    Kind.DELIVERY_STUCK: Meaning(
        "The state of a delivery contradicts its next attempt.",
        "Send the study again on the page, and report this as a fault of ours.",
    ),
    Kind.MODEL_WITHOUT_FILE: Meaning(
        "The weights of a model are missing.", "Restore them from a backup, or roll back with `dicomguard models`."
    ),
    Kind.MODEL_DIFFERS: Meaning(
        "The weights of a model were altered.", "Restore them from a backup, or roll back with `dicomguard models`."
    ),
    Kind.AUDIT_BROKEN: Meaning(
        "The audit chain is broken.",
        "Lines were altered or taken out; compare with a backup and find out who could write to the database.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault at one place; places are keys and paths of ours, never a name or UID of a sender."""

    kind: Kind
    # "" where it has no meaning.
    study_key: str = ""
    # Path relative to the root, revision, destination.
    place: str
    # What was found there, a half sentence; "" when the kind says it all.
    detail: str = ""
    # Mended by the start of the node or the next run of retention: told, and no reason to worry.
    heals: bool = False

    @property
    def meaning(self) -> Meaning:
        """Sentence and remedy."""
        return MEANINGS[self.kind]

    def to_json(self) -> dict[str, object]:
        """JSON value of one line."""
        return {
            "kind": self.kind.value,
            "study": self.study_key,
            "place": self.place,
            "detail": self.detail,
            "heals": self.heals,
            "sentence": self.meaning.sentence,
            "remedy": self.meaning.remedy,
        }
