import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.errors import Refused
from dicomguard.web.multipart import MAX_FIELD_BYTES, Reader, Received

BOUNDARY = "limit"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def check(token: str) -> None:
    if token != "good":
        raise Refused("Bad token.")


def read(
    chunks: Sequence[bytes],
    folder: Path,
    *,
    token: str | None = None,
    max_bytes: int = 1 << 20,
    max_files: int = 3,
    check_form: Callable[[str], None] = check,
    content_type: str = TYPE,
) -> Received:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    reader = Reader(content_type, folder, max_bytes=max_bytes, max_files=max_files, check_form=check_form)
    return asyncio.run(reader.read(stream(), form_token=token))


def test_fields_and_files(tmp_path: Path) -> None:
    got = read([body(part("form_token", b"good"), part("file", b"\r\n--x", "../a b.dcm"))], tmp_path)
    assert got.fields == {"form_token": "good"}
    assert got.files == [("file", "f0", "../a b.dcm")]
    assert (tmp_path / "f0").read_bytes() == b"\r\n--x"


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_however_the_body_is_cut_the_file_is_the_same(content: bytes, cuts: list[int]) -> None:
    if f"--{BOUNDARY}".encode() in content:
        return
    whole, chunks, at = body(part("form_token", b"good"), part("file", content, "a")), [], 0
    for cut in cuts:
        chunks.append(whole[at : at + cut])
        at += cut
    chunks.append(whole[at:])
    with TemporaryDirectory() as folder:
        read([chunk for chunk in chunks if chunk], Path(folder))
        assert (Path(folder) / "f0").read_bytes() == content


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_is_read_or_refused(junk: bytes) -> None:
    with TemporaryDirectory() as folder, contextlib.suppress(Refused):
        read([junk], Path(folder), token="good")


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ((part("file", b"x", "a"),), "Bad token"),
        ((part("file", b"x", "a"), part("form_token", b"good")), "Bad token"),
        ((part("form_token", b"bad"), part("file", b"x", "a")), "Bad token"),
        ((part("form_token", b"bad"),), "Bad token"),
    ],
)
def test_no_file_is_opened_before_the_token(tmp_path: Path, parts: tuple[bytes, ...], word: str) -> None:
    with pytest.raises(Refused, match=word):
        read([body(*parts)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_limits(tmp_path: Path) -> None:
    many = [part("file", b"x", f"{n}") for n in range(4)]
    with pytest.raises(Refused, match="more than 3 files"):
        read([body(*many)], tmp_path, token="good")
    with pytest.raises(Refused, match="larger than"):
        read([body(part("file", b"x" * 500, "b"))], tmp_path / ".", token="good", max_bytes=100)
    with pytest.raises(Refused, match="longer than"):
        read([body(part("note", b"x" * (MAX_FIELD_BYTES + 1)))], tmp_path, token="good")
    with pytest.raises(Refused, match="more than 40 fields"):
        read([body(*[part(f"n{n}", b"") for n in range(41)])], tmp_path, token="good")


def test_a_cut_off_body_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Send it again"):
        read([part("file", b"x" * 50, "a")], tmp_path, token="good")


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"])
def test_another_kind_of_body_is_refused(tmp_path: Path, content_type: str) -> None:
    with pytest.raises(Refused, match="no form with files"):
        read([b""], tmp_path, content_type=content_type)
