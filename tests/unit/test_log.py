"""The log: only allow-listed fields pass, and libraries cannot speak through it."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from dicomguard import log
from dicomguard.clock import FakeClock


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is written while the test runs."""
    stream = io.StringIO()
    root, own = logging.getLogger(), logging.getLogger("dicomguard")
    before = root.handlers[:], root.level, own.level
    log.configure(clock=FakeClock(datetime(2026, 11, 24, tzinfo=UTC)))
    root.handlers[0].setStream(stream)  # type: ignore[attr-defined]
    yield stream
    root.handlers[:], root.level, own.level = before


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    """All lines as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json(lines: io.StringIO) -> None:
    log.get("flow").event("study.frozen", study="k1", revision=1, reason="no instance\nfor a minute")
    (line,) = read(lines)
    assert line["event"] == "study.frozen"
    assert line["time"] == "2026-11-24T00:00:00.000+00:00"
    assert line["reason"] == "no instance\nfor a minute"


def test_a_field_outside_the_list_is_dropped_and_counted(lines: io.StringIO) -> None:
    log.get("scp").event("instance.stored", study="k1", patient_name="Doe^Jane")
    (line,) = read(lines)
    assert "Doe" not in lines.getvalue()
    assert line["dropped"] == 1


def test_a_library_keeps_its_text_to_itself(lines: io.StringIO) -> None:
    logging.getLogger("pynetdicom.acse").warning("identifier of %s", "Doe^Jane")
    (line,) = read(lines)
    assert "Doe" not in lines.getvalue()
    assert line["event"] == "library.reported"


def test_a_crash_names_places_and_type_but_no_value(lines: io.StringIO) -> None:
    try:
        raise ValueError("Doe^Jane")
    except ValueError:
        log.get("flow").crashed("step.failed", step="build")
    (line,) = read(lines)
    assert "Doe" not in lines.getvalue()
    assert line["cause"].startswith("ValueError at test_log.py")
