"""The objects of a revision from what is kept of it: all of them, or the report alone when those cannot be made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from dicomguard import log
from dicomguard.core.instance import Instance
from dicomguard.core.result import ResultObject
from dicomguard.core.study import Manifest
from dicomguard.errors import Unavailable
from dicomguard.flow import kept
from dicomguard.sr import build as sr_build
from dicomguard.store.db import Store

_log = log.get("flow")

# In sending order; the plain form of the report is the last.
Files = list[tuple[ResultObject, bytes]]
# What an archive files a report by (PS3.3 C.7.1.1, C.7.2.1).
_IDENTITY = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)


def full(
    store: Store, study_key: str, manifest: Manifest, instances: Sequence[Instance], node: sr_build.NodeIdentity
) -> Files:
    """Segmentations and report."""
    verdict, folder = kept.verdict(store, study_key, manifest.revision)
    headers = kept.dataset_heads(store, manifest, instances)
    return _files(
        sr_build.build(
            verdict,
            manifest,
            headers=headers,
            masks=kept.unpacked_masks(folder, verdict, headers),
            node=node,
            predecessor=kept.earlier(store, study_key, manifest.revision),
        )
    )


def plain(
    store: Store, study_key: str, manifest: Manifest, instances: Sequence[Instance], node: sr_build.NodeIdentity
) -> Files:
    """The report on a verdict without findings, after `full` has failed.

    What the fault was is not known, so less and less of the sources is used until the report can be made: their
    headers, of one of them who the patient is, only what the rows say. The last error is raised when nothing helps.
    """
    verdict, _ = kept.verdict(store, study_key, manifest.revision)
    failed: Exception = AssertionError("there is always one way to try")
    for headers in _less_and_less(store, manifest, instances):
        try:
            return _files(sr_build.build(verdict, manifest, headers=headers(), masks={}, node=node))
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 -- any fault of ours: the next way avoids more of what may have it
            kept.refuse_shortage(error)
            _log.crashed("report.reduced", study=study_key, revision=manifest.revision)
            failed = error
    raise failed


def _less_and_less(
    store: Store, manifest: Manifest, instances: Sequence[Instance]
) -> Iterator[Callable[[], dict[str, Dataset]]]:
    yield lambda: kept.dataset_heads(store, manifest, instances)
    yield lambda: {item.sop_instance_uid: _bare(item, _identity(store, instances)) for item in instances}
    yield lambda: {item.sop_instance_uid: _bare(item, Dataset()) for item in instances}


def _identity(store: Store, instances: Sequence[Instance]) -> Dataset:
    """What says whose study it is, of the first instance that can be read."""
    for item in instances:
        head = kept.dataset_head(store, item.path, tags=_IDENTITY)
        if head is not None:
            return head
    return Dataset()


def _bare(instance: Instance, identity: Dataset) -> Dataset:
    """A header of what the row says, and whose study it is."""
    header = Dataset()
    for tag in identity.keys():  # noqa: SIM118 -- iterating the values would convert them
        header[tag] = identity.get_item(tag)
    header.SOPClassUID = instance.sop_class_uid
    header.SOPInstanceUID = instance.sop_instance_uid
    header.StudyInstanceUID = instance.study_instance_uid
    header.SeriesInstanceUID = instance.series_instance_uid
    return header


def _files(built: Sequence[sr_build.Built]) -> Files:
    other = sr_build.fallback(built[-1].dataset)
    files = [(item.result, item.data) for item in built]
    return [*files, (replace(other.result, order=len(built)), other.data)]
