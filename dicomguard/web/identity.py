"""Whose study it is, for the person at the page: read from the header of one kept instance, never logged."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

import pydicom

from dicomguard import headers, part10
from dicomguard.core.instance import Instance
from dicomguard.errors import Refused
from dicomguard.store.db import Store

REMEMBERED = 2000
_TAGS = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "Modality",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Texts are "" when the header does not say."""

    patient_name: str = ""
    patient_id: str = ""
    # As people write it: 2026-11-24.
    study_date: str = ""
    description: str = ""
    # Names what has no patient, such as uploaded pictures.
    series: str = ""
    modality: str = ""

    @property
    def title(self) -> str:
        """The best name that there is."""
        return self.patient_name or self.patient_id or self.series or "No patient name"


class Identities:
    """Headers of kept files never change, so what was read once is remembered, up to a number."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, Identity] = OrderedDict()
        self._lock = Lock()

    def of(self, instance: Instance | None) -> Identity:
        """Identity from the header of an instance; empty when there is none or it cannot be read."""
        if instance is None:
            return Identity()
        with self._lock:
            known = self._known.get(instance.path)
        if known is None:
            known = self._read(instance)
            with self._lock:
                self._known[instance.path] = known
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        return known

    def _read(self, instance: Instance) -> Identity:
        try:
            return _identity(part10.read_dataset_head(self._store.root / instance.path, tags=_TAGS))
        except (Refused, *part10.PARSE_ERRORS):
            # Retention may have removed the file, or a value cannot be read; the study is still listed.
            return Identity()


def _identity(ds: pydicom.Dataset) -> Identity:
    # Raw while nobody has looked at it.
    element: Any = ds.get_item("PatientName") if "PatientName" in ds else None
    raw = element.value if element is not None else b""
    sets = ds.original_character_set
    encodings = [sets] if isinstance(sets, str) else list(sets)
    name = headers.decoded_name(raw, encodings) if isinstance(raw, bytes) else headers.printed(raw or "")
    date, number, description, series, modality = (
        headers.printed(ds.get(keyword) or "")
        for keyword in ("StudyDate", "PatientID", "StudyDescription", "SeriesDescription", "Modality")
    )
    return Identity(
        patient_name=_person(name),
        patient_id=number,
        study_date=f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 and date.isdecimal() else "",
        description=description,
        series=series,
        modality=modality,
    )


def _person(value: str) -> str:
    """ "Doe^Jane^^Dr" is "Doe, Jane" (PS3.5 6.2.1)."""
    parts = value.split("=")[0].split("^")
    return ", ".join(part.strip() for part in parts[:2] if part.strip())
