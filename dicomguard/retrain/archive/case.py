"""`Case`: one study of one person, as it lies in the archive, and what two people said about it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dicomguard.errors import Broken, Refused

Label = Literal["tumor", "no_tumor"]
Role = Literal["plane", "dicom", "mask"]
Split = Literal["train", "validation", "test"]
State = Literal["to review", "accepted", "declined"]
LABELS: tuple[Label, ...] = get_args(Label)
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """One file of a case. The fields after `pixel_sha256` are of planes; a DICOM file tells them itself."""

    # Below the folder of the case.
    path: str
    role: Role
    # Of the bytes, and how many they are; verified by `archive verify` and before training.
    sha256: str
    size_bytes: int
    # Planes: of shape, type and values. DICOM: of the Pixel Data as it came. Masks: "".
    pixel_sha256: str = ""
    # flair, t1, t1c, t2, ct or "".
    sequence: str = ""
    # Place in the series: neighbours differ by one.
    number: int = 0
    rows: int = 0
    columns: int = 0
    bits: int = 0
    # Path of the mask, "" where nothing is marked.
    mask: str = ""
    marked_px: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study of one person. Of the person, only a key is known."""

    # Prefix of the hash over the files.
    case_id: str
    source: str
    # Within the source; for DICOM a keyed hash of the Patient ID.
    patient: str
    # Hospital, tumor kind or study, as the source divides itself; "" when it does not.
    group: str
    label: Label
    licence: str
    split: Split
    curator: str
    added_at: str
    files: tuple[CaseFile, ...]
    # What was taken out of the DICOM headers; "" for slices, which have none.
    deidentified: str = ""
    # Who drew or confirmed the masks and the label, and how; "" where nobody said, as in lines older than the question.
    label_provenance: str = ""

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise Refused(f'The label "{self.label}" is unknown. Use {" or ".join(LABELS)}.')
        if self.split not in SPLITS:
            raise Refused(f'The split "{self.split}" is unknown. Use {", ".join(SPLITS)}.')
        for name in ("source", "patient", "licence", "curator"):
            if not str(getattr(self, name)).strip():
                raise Refused(f"The case has no {name}. Name one: every case says whose it is and who answers for it.")
        marked = any(file.role == "mask" for file in self.files)
        if marked and self.label == "no_tumor":
            raise Refused('The case is labelled "no_tumor" and has masks. Take the masks out, or correct the label.')
        if not marked and self.label == "tumor":
            raise Refused('The case is labelled "tumor" and nothing is marked. Give the masks of its lesions.')

    @property
    def patient_key(self) -> str:
        """The person as this case names them; `contents.person_key` knows whom another source calls otherwise."""
        return f"{self.source}/{self.patient}"

    @property
    def label_rests_on(self) -> str:
        """The label's provenance as people read it."""
        return self.label_provenance or "not stated"

    @property
    def pixel_hashes(self) -> frozenset[str]:
        """What tells that a picture is already there."""
        return frozenset(file.pixel_sha256 for file in self.files if file.pixel_sha256)

    def to_json(self) -> dict[str, Any]:
        """The body of an "added" line."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Case":
        """Inverse of `to_json`; `Broken` when a field is missing or unknown, or when there can be no such case."""
        try:
            return cls(**{**value, "files": tuple(CaseFile(**file) for file in value["files"])})
        except (TypeError, KeyError) as error:
            raise Broken(f"A case of the manifest cannot be read: {error}. Use the version that wrote it.") from error
        except Refused as error:
            raise Broken(f"The manifest has a case that cannot be: {error} Restore it from a backup.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A case with its review; only an accepted one is trained on."""

    case: Case
    state: State = "to review"
    # The second reader; "" before there was one.
    reviewer: str = ""
    reviewed_at: str = ""
    remark: str = ""
