"""The conformance statement is what the program does: page and program, objects and list of codes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicomguard.cli.conformance import document
from dicomguard.dimse import contexts
from dicomguard.sr.build import fallback
from tests.sr_cases import Spot, case, frames, identical_pixels, single_frame

PAGE = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"
CASES = {
    "added": lambda: case("added", [frames(single_frame())], [Spot(category="added", places=[2, 3])], conflict=True),
    "removed": lambda: case("removed", [frames(single_frame())], [Spot(category="removed", places=[2])], outside=True),
    "real": lambda: case("real", [frames(single_frame())], [Spot(category="real", places=[2], p_forged=0.1)]),
    "absent": lambda: case(
        "absent",
        [frames(single_frame())],
        evidence=[identical_pixels(single_frame()[2:4])],
        skipped={(0, 0): "no head"},
    ),
    "not_analysable": lambda: case("not_analysable", [frames(single_frame())]),
}


def test_the_page_is_the_one_that_the_program_prints() -> None:
    assert PAGE.read_text() == document(), "run: make docs"


def test_it_names_all_that_is_negotiated() -> None:
    for named in (*contexts.STORAGE_CLASSES, *contexts.TRANSFER_SYNTAXES, contexts.VERIFICATION):
        assert f"`{named}`" in document()


def coded(ds: Dataset) -> Iterator[tuple[str, str]]:
    """Value and scheme of every code item, at any depth."""
    if "CodeValue" in ds:
        yield str(ds.CodeValue), str(ds.CodingSchemeDesignator)
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from coded(item)


@pytest.mark.parametrize("name", CASES)
def test_every_object_is_as_the_statement_says(name: str) -> None:
    page = document()
    built = CASES[name]().build()
    for one in (*built, fallback(built[-1].dataset)):
        ds = one.dataset
        assert f"`{ds.SOPClassUID}`" in page
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert ds.ContentQualification == "RESEARCH"
        assert not any(element.tag.is_private for element in ds)
        unlisted = {item for item in coded(ds) if f"| `{item[0]}` | {item[1]} |" not in page}
        assert not unlisted, unlisted
