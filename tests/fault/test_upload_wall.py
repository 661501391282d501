"""A crafted upload ends the child that opens it and costs the page nothing."""

import io
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from dicomguard.clock import SystemClock
from dicomguard.errors import Refused
from dicomguard.flow.client import Client
from dicomguard.store import studies
from dicomguard.store.db import Limits as StoreLimits
from dicomguard.store.db import open_store
from dicomguard.web import upload as uploading
from dicomguard.web.unpack.item import Limits
from dicomguard.web.upload import Upload, Uploads
from tests import studies as drawn
from tests import web_cases

LIMITS = Limits(total_bytes=1 << 30, files=100, zip_ratio=100)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    store = open_store(tmp_path / "state", "", SystemClock(), limits=StoreLimits(low_bytes=1, stop_bytes=1))
    return Uploads(store, Client(store, SystemClock()), limits=LIMITS)


def send(uploads: Uploads, files: dict[str, bytes]) -> Upload:
    upload = uploads.begin(owner="me", size_bytes=None)
    listed = []
    for number, (name, content) in enumerate(files.items()):
        (upload.folder / f"f{number}").write_bytes(content)
        listed.append((f"f{number}", name))
    uploads.sort(upload, listed, address="127.0.0.1", by="upload")
    return upload


def test_a_study_goes_through_the_wall_and_is_closed(uploads: Uploads, tmp_path: Path) -> None:
    paths = drawn.save(tmp_path / "made", web_cases.datasets(count=3))
    upload = send(uploads, {path.name: path.read_bytes() for path in paths})
    assert (upload.instances, upload.refused, len(upload.studies)) == (3, 0, 1)
    assert not upload.folder.exists()
    with open_store(tmp_path / "state", "", SystemClock()).read() as tx:
        row = studies.row(tx, upload.studies[0])
    assert row is not None
    assert row.instance_count == 3
    again = send(uploads, {path.name: path.read_bytes() for path in paths})
    assert (again.instances, again.repeated, again.studies) == (0, 3, upload.studies)


def test_a_child_that_runs_out_of_memory_ends_alone(tmp_path: Path) -> None:
    # 36 million pixels of one colour are 40 kB as a file and 0.4 GB in the decoder and the judge.
    store = open_store(tmp_path / "state", "", SystemClock(), limits=StoreLimits(low_bytes=1, stop_bytes=1))
    uploads = Uploads(store, Client(store, SystemClock()), limits=LIMITS, child_memory_bytes=700 << 20)
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000), (9, 9, 9)).save(buffer, "PNG")
    started = time.monotonic()
    upload = send(uploads, {"big.png": buffer.getvalue()})
    assert upload.state == "done"
    assert upload.refused == 1
    assert time.monotonic() - started < 60
    # The next one is served.
    assert send(uploads, {"a.txt": b"hello"}).refused == 1


def test_a_picture_that_says_it_is_huge_is_refused_by_its_header(uploads: Uploads) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    upload = send(uploads, {"huge.png": bomb})
    ((name, sentence),) = upload.refusals
    assert name == "huge.png"
    assert "60000 × 60000 pixels; at most 36 million" in sentence


def test_a_silent_child_is_given_up(uploads: Uploads, tmp_path: Path) -> None:
    upload = uploads.begin(owner="me", size_bytes=None)
    # No index.json: the child ends with an error before it says a word.
    with pytest.raises(Refused, match="After 0 inputs the program that opens files ended with status"):
        list(uploading.items(upload, LIMITS))


def test_uploads_have_a_number_and_belong_to_their_sender(uploads: Uploads) -> None:
    waiting = [uploads.begin(owner="me", size_bytes=None) for _ in range(2 * uploading.MAX_AT_ONCE)]
    with pytest.raises(Exception, match="Other uploads are still being sorted"):
        uploads.begin(owner="me", size_bytes=None)
    assert uploads.find(waiting[0].key, owner="me") is waiting[0]
    assert uploads.find(waiting[0].key, owner="you") is None
    for one in waiting:
        uploads.abandon(one)
    with pytest.raises(Refused, match="are taken at once"):
        uploads.begin(owner="me", size_bytes=2 << 30)
