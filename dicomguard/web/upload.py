"""An upload: a folder of files that arrived, the child that opens them, and what became of each.

Every image enters through `store.intake`, as if a modality had sent it. Until then nothing is promised, so uploads live
in memory and in a folder that is emptied at start. Each input that is not taken leaves a sentence that names it.
"""

import json
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from dicomguard import child, headers, log, part10
from dicomguard.core.instance import Header
from dicomguard.errors import Broken, DicomguardError, Refused, Unavailable
from dicomguard.flow.client import Client
from dicomguard.store import intake
from dicomguard.store.db import Store
from dicomguard.web.unpack.item import Item, Limits

State = Literal["arriving", "sorting", "done"]

# Address space of the unpacking child: libraries, and a picture of the largest size in a few forms.
CHILD_MEMORY_BYTES = 3 << 30
CHILD_CPU_S = 900.0
# Silence of the child after which it is given up; one picture or one ZIP entry takes far less.
CHILD_SILENT_S = 300.0
MAX_KEPT = 50
# More refusals than these are counted, not listed.
MAX_REFUSALS = 200
MAX_AT_ONCE = 2
COPY_BYTES = 1 << 20
PEER = "upload"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_logger = log.get("web")


@dataclass(slots=True, kw_only=True)
class Upload:
    """One upload; `Uploads` alone changes it."""

    key: str
    folder: Path
    began_at: datetime
    # Visitor cookie or session of the sender: only the sender sees file names.
    owner: str
    state: State = "arriving"
    # Inputs that were sorted so far, and how many files arrived.
    sorted: int = 0
    files: int = 0
    instances: int = 0
    repeated: int = 0
    pictures: int = 0
    refusals: list[tuple[str, str]] = field(default_factory=list)
    refused: int = 0
    notes: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)

    def refuse(self, name: str, sentence: str) -> None:
        """Note why an input was not taken."""
        self.refused += 1
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append((name, sentence))

    def note(self, sentence: str) -> None:
        """Note something that the sender should know, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


class Uploads:
    """All uploads of this process."""

    def __init__(
        self, store: Store, client: Client, *, limits: Limits, child_memory_bytes: int = CHILD_MEMORY_BYTES
    ) -> None:
        self.limits = limits
        self._child_memory_bytes = child_memory_bytes
        self._store = store
        self._client = client
        self._root = store.root / "uploads"
        # Left-overs of a process that ended: nothing of them was acknowledged.
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(mode=0o700)
        self._kept: dict[str, Upload] = {}
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(MAX_AT_ONCE)

    def begin(self, *, owner: str, size_bytes: int | None) -> Upload:
        """A new upload with an empty folder; raises `Refused` or `Unavailable` before a byte is read."""
        if size_bytes is not None and size_bytes > self.limits.total_bytes:
            raise Refused(
                f"The upload has {size_bytes / 1e9:.1f} GB; at most {self.limits.total_bytes / 1e9:.1f} GB are taken "
                "at once. Send it in parts."
            )
        free = shutil.disk_usage(self._root).free
        # The bytes lie twice until they are sorted: here and in the store.
        if free - 2 * (size_bytes or 0) < self._store.limits.stop_bytes:
            raise Unavailable(
                f"The disk has {free / 1e9:.1f} GB left, too little for this upload. Tell the administrator."
            )
        key = secrets.token_urlsafe(12)
        upload = Upload(key=key, folder=self._root / key, began_at=self._store.clock.now(), owner=owner)
        with self._lock:
            if sum(one.state != "done" for one in self._kept.values()) >= 2 * MAX_AT_ONCE:
                raise Unavailable("Other uploads are still being sorted. Try again in a minute.")
            over = [one.key for one in self._kept.values() if one.state == "done"]
            for old in over[: max(0, len(self._kept) + 1 - MAX_KEPT)]:
                del self._kept[old]
            self._kept[key] = upload
        upload.folder.mkdir(mode=0o700)
        return upload

    def abandon(self, upload: Upload) -> None:
        """Forget an upload that did not arrive whole."""
        with self._lock:
            self._kept.pop(upload.key, None)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def find(self, key: str, *, owner: str) -> Upload | None:
        """The upload, for the one who sent it."""
        with self._lock:
            upload = self._kept.get(key)
        return upload if upload is not None and upload.owner == owner else None

    def sort(self, upload: Upload, files: list[tuple[str, str]], *, address: str, by: str) -> None:
        """Open, judge and take everything; runs in a thread after the answer was sent. `files`: (file, shown name)."""
        upload.state, upload.files = "sorting", len(files)
        sender = intake.Sender(peer=PEER, calling_ae="", called_ae="", address=address)
        try:
            with self._turns:
                (upload.folder / "index.json").write_text(json.dumps(files), "utf-8")
                for item in items(upload, self.limits, memory_bytes=self._child_memory_bytes):
                    upload.sorted += 1
                    self._take(upload, item, sender)
                for study_key in upload.studies:
                    self._client.force(study_key, by)
        except DicomguardError as error:
            upload.refuse("", str(error))
        except Exception:  # noqa: BLE001 -- the top of this piece of work; who waits must not wait for ever
            _logger.crashed("upload.failed")
            upload.refuse("", "Sorting the upload failed by a fault of the program. The log of the node says where.")
        finally:
            upload.state = "done"
            shutil.rmtree(upload.folder, ignore_errors=True)
            _logger.event(
                "upload.sorted", count=upload.refused, instances=upload.instances, total=upload.files, actor=by
            )

    def _take(self, upload: Upload, item: Item, sender: intake.Sender) -> None:
        if item.kind == "refused":
            upload.refuse(item.name, item.sentence)
            return
        path = upload.folder / item.path
        try:
            outcome = self._receive(path, item, sender)
        except Refused as error:
            upload.refuse(item.name, f"{item.name} was not taken. {error}")
            return
        finally:
            path.unlink(missing_ok=True)
        if isinstance(outcome, intake.Quarantined):
            upload.refuse(item.name, f"{item.name} was not taken: {outcome.reason}")
            return
        if isinstance(outcome, intake.Duplicate):
            upload.repeated += 1
        else:
            upload.instances += 1
            upload.pictures += item.kind == "picture"
        if isinstance(outcome, intake.Conflict):
            upload.note(
                f"{item.name} has the identifier of another image with different pixels; both are kept, and the report "
                "says so."
            )
        if outcome.instance.state == "own":
            upload.note(f"{item.name} is a result that dicomguard made; it is kept and not analysed.")
        elif outcome.study_key and outcome.study_key not in upload.studies:
            upload.studies.append(outcome.study_key)

    def _receive(self, path: Path, item: Item, sender: intake.Sender) -> intake.Outcome:
        if item.kind == "picture":
            classes = (item.sop_class_uid, item.sop_instance_uid, "1.2.840.10008.1.2.1")
            offset = 0
        else:
            header = headers.read_header(path)
            offset = part10.dataset_offset(path)
            check_whole(header, path.stat().st_size - offset)
            classes = (header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid)
        return intake.receive(
            self._store,
            sender,
            sop_class_uid=classes[0],
            sop_instance_uid=classes[1],
            transfer_syntax_uid=classes[2],
            chunks=_chunks(path, offset),
            association_id=None,
            channel="upload",
        )


def check_whole(header: Header, dataset_bytes: int) -> None:
    """Raise `Refused` when uncompressed pixels are announced that the file is too short to hold."""
    if header.transfer_syntax_uid not in UNCOMPRESSED or not header.has_pixels:
        return
    frames = max(1, len(header.frames))
    pixels = header.rows * header.columns * header.samples_per_pixel * frames * ((header.bits_stored + 7) // 8)
    # Luminance and chrominance may be subsampled by two in YBR_FULL_422.
    least = pixels // 2 if header.photometric.startswith("YBR") else pixels
    if dataset_bytes < least:
        raise Refused(
            f"The file is cut off: it holds {dataset_bytes} bytes, its pixels alone need {least}. "
            "Copy or export it again."
        )


def items(upload: Upload, limits: Limits, *, memory_bytes: int = CHILD_MEMORY_BYTES) -> Iterator[Item]:
    """What the child says of each input; raises `Refused` when it ends or falls silent."""
    argv = [sys.executable, "-m", "dicomguard.web.unpack"]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with child.Child.start(
        argv, memory_bytes=memory_bytes, cpu_s=CHILD_CPU_S, nice=5, oom_score_adj=500, env_extra=one_thread
    ) as unpacker:
        unpacker.send({"folder": str(upload.folder), "limits": limits.to_json()})
        while True:
            try:
                message = unpacker.receive(CHILD_SILENT_S)
            except child.ChildSilent:
                raise Refused(
                    f"Opening the files made no progress for {CHILD_SILENT_S:.0f} s. Send them in smaller parts."
                ) from None
            except child.ChildEnded:
                raise Refused(
                    f"After {upload.sorted} inputs the program that opens files {unpacker.exit_reason()}; one of the "
                    "files is damaged or made to harm. Send them in smaller parts to find it."
                ) from None
            if message.get("done"):
                return
            item = Item.from_json(message)
            # The child met the bytes of strangers: a path that leaves the folder would be a captured child's.
            if "/" in item.path or item.path.startswith("."):
                raise Broken("The unpacking child named a file outside its folder. Keep the upload and report this.")
            yield item


def _chunks(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(COPY_BYTES):
            yield chunk
