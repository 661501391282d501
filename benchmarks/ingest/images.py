"""Synthetic MR and CT images, and the whole C-STORE request of one as bytes in which only the UID is still open."""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from tests.fuzz import wire

ROOT = "1.2.826.0.1.3680043.8.498.77"
# PDU that we propose, and the most that we send when the acceptor takes more.
MAX_PDU_BYTES = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A sort of image."""

    name: str
    modality: str
    sop_class: str
    side: int


KINDS = (
    Kind(name="MR 256", modality="MR", sop_class="1.2.840.10008.5.1.4.1.1.4", side=256),
    Kind(name="CT 512", modality="CT", sop_class="1.2.840.10008.5.1.4.1.1.2", side=512),
)


def instance_uid(run: int, sender: int, number: int) -> str:
    """Of 52 characters, so that one takes the place of another."""
    return f"{ROOT}.1{run:06d}.1{sender:03d}.1{number:07d}"


def dataset_bytes(kind: Kind, *, run: int, sender: int) -> bytes:
    """Explicit VR little endian; image number 0 of its sender's series."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = UID(kind.sop_class), UID(instance_uid(run, sender, 0))
    ds.StudyInstanceUID = f"{ROOT}.1{run:06d}.1{sender:03d}"
    ds.SeriesInstanceUID = f"{ds.StudyInstanceUID}.1"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260102", "101112", "A1", "1"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Load^Test", "LOAD-1", "19700101", "O"
    ds.Modality, ds.ImageType = kind.modality, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Manufacturer, ds.ReferringPhysicianName = "Synthetic", ""
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], 5.0
    ds.Rows = ds.Columns = kind.side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(sender).integers(0, 4096, (kind.side, kind.side), dtype=np.uint16)
    ds.add_new("PixelData", "OW", pixels.tobytes())
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, ds)
    return bytes(target.getvalue())


class Request:
    """The P-DATA-TFs of one C-STORE request; `set_number` makes it the request of another image of the series."""

    def __init__(self, kind: Kind, *, run: int, sender: int, max_pdu_bytes: int) -> None:
        first = instance_uid(run, sender, 0)
        pdus = wire.c_store_rq(
            dataset_bytes(kind, run=run, sender=sender),
            sop_class=kind.sop_class,
            sop_instance=first,
            max_pdu_bytes=min(max_pdu_bytes or MAX_PDU_BYTES, MAX_PDU_BYTES),
        )
        self.data = bytearray(b"".join(pdus))
        self._run, self._sender = run, sender
        needle = first.encode()
        command = self.data.index(needle)
        # In the command set and in the dataset.
        self._places = (command, self.data.index(needle, command + 1))

    def set_number(self, number: int) -> None:
        """Write the UID of image `number` in both places."""
        uid = instance_uid(self._run, self._sender, number).encode()
        for place in self._places:
            self.data[place : place + len(uid)] = uid
