"""What stands in the database and on the disk about one study: the values that `compare` judges."""

from dataclasses import dataclass

# States of a revision as `flow.states` has them; a test holds the two together.
BEFORE_DELIVERY = ("opened", "analysing", "judged", "built")
JUDGED = ("judged", "built", "delivering", "done")
BUILT = ("built", "delivering", "done")
DELIVERING, DONE = "delivering", "done"
WAITING = "waiting"
ARRIVED = ("sent", "warned")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """A row of the instance table."""

    id: int
    path: str
    # Of the dataset, and its size; the file has a head before it.
    sha256: str
    size_bytes: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file below the root."""

    path: str
    size_bytes: int
    age_s: float
    # Of what was hashed when it was kept; None when this was not looked at.
    sha256: str | None = None
    # Why it could not be read, "" when it could.
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A row that names a file of ours: a verdict, a result, weights."""

    kind: str
    path: str
    sha256: str
    sop_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryItem:
    """One object on its way."""

    kind: str
    # SOP Instance UIDs of its forms, and of the one that counts.
    forms: tuple[str, ...]
    sop_uid: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """A revision on its way to one destination."""

    destination: str
    state: str
    has_next: bool
    items: tuple[DeliveryItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A revision with all that hangs on it."""

    number: int
    state: str
    age_s: float
    # Whether the manifest has its hash; None when there is no manifest.
    manifest_sound: bool | None
    verdict: Kept | None
    results: tuple[Kept, ...]
    deliveries: tuple[DeliveryRow, ...]
    # Whether a workflow of it is live.
    worked_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyListing:
    """One study, or (with `known` false) what lies under a key that no study has."""

    study_key: str
    known: bool = True
    # Retention has removed its rows and is about to remove its folders.
    removed: bool = False
    current_revision: int = 0
    instances: tuple[InstanceRow, ...] = ()
    instance_files: tuple[File, ...] = ()
    revisions: tuple[Revision, ...] = ()
    result_files: tuple[File, ...] = ()
    # Folders under jobs/.
    job_folders: tuple[str, ...] = ()
