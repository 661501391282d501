"""A multipart/form-data body (RFC 7578) that is written to a folder while it arrives.

Short fields stay in memory, files go to the folder under numbers of ours; what a browser calls them is only shown. A
body of gigabytes is never held, and the form's token is checked before the first file is opened.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dicomguard.errors import Refused

MAX_FIELD_BYTES = 8 << 10
MAX_FIELDS = 40


@dataclass(slots=True)
class Received:
    """What has come so far."""

    fields: dict[str, str] = field(default_factory=dict)
    # Name of the form field, file below the folder, name that the browser gave.
    files: list[tuple[str, str, str]] = field(default_factory=list)
    bytes: int = 0


class Reader:
    """Reads one body into a folder."""

    def __init__(
        self, content_type: str, folder: Path, *, max_bytes: int, max_files: int, check_form: Callable[[str], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise Refused("The upload is no form with files. Use the upload page.")
        self.received = Received()
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._check_form = check_form
        self._checked = False
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._value = bytearray()
        self._file: BinaryIO | None = None
        self._complete = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._part_begin,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    async def read(self, chunks: AsyncIterator[bytes], *, form_token: str | None) -> Received:
        """Read to the end; `form_token` is the token of a header, None when a field brings it."""
        if form_token is not None:
            self._check(form_token)
        try:
            async for chunk in chunks:
                self.received.bytes += len(chunk)
                if self.received.bytes > self._max_bytes:
                    raise Refused(f"The upload is larger than {self._max_bytes / 1e9:.1f} GB. Send it in parts.")
                self._parser.write(chunk)
            self._parser.finalize()
        except FormParserError:
            raise Refused("The upload was damaged on its way. Send it again.") from None
        finally:
            if self._file is not None:
                self._file.close()
        if not self._complete:
            raise Refused("The upload was cut off on its way. Send it again.")
        if not self._checked:
            self._check("")
        return self.received

    def _check(self, token: str) -> None:
        self._check_form(token)
        self._checked = True

    def _part_begin(self) -> None:
        self._headers = {}
        self._value = bytearray()

    def _header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        name = options.get(b"filename")
        if name is None:
            if len(self.received.fields) >= MAX_FIELDS:
                raise Refused(f"The form has more than {MAX_FIELDS} fields. Use the upload page.")
            return
        if not self._checked:
            self._check(self.received.fields.get("form_token", ""))
        if len(self.received.files) >= self._max_files:
            raise Refused(f"The upload has more than {self._max_files} files. Send it in parts.")
        file = f"f{len(self.received.files)}"
        self.received.files.append((self._name, file, name.decode("utf-8", "replace")))
        self._file = (self._folder / file).open("xb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise Refused(f"A field of the form is longer than {MAX_FIELD_BYTES} bytes. Shorten it.")

    def _part_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        self.received.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._complete = True
