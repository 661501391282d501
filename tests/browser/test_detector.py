"""A whole node with its shipped weights, and the scans of the demonstration: upload, answer, overlay, worklist."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Page, expect

from demo.ports import free_port, listens
from dicomguard.core import wording
from tests.conftest import ROOT
from tests.peers import end, wait_for

SCANS = ROOT / "demo" / "scans"
# Loading torch and judging some twenty slices, on a machine that has other things to do.
PATIENCE_MS = 180_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`dicomguard serve`: receiver, worker and page, nobody configured to send or to get results."""
    folder = tmp_path_factory.mktemp("served")
    page = free_port()
    (folder / "node.toml").write_text(
        f'[node]\nport = {free_port()}\nstate = "var"\n[storage]\nlow_bytes = 0\nstop_bytes = 0\n'
        f"[web]\nport = {page}\nhealth_port = {free_port()}\n"
    )
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicomguard", "serve", "--config", str(folder / "node.toml")],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )
    try:
        wait_for(lambda: listens(page) or process.poll() is not None, seconds=90, what="the node")
        assert process.poll() is None, (folder / "node.log").read_text()[-2000:]
        yield f"http://127.0.0.1:{page}"
    finally:
        end(process, seconds=30)


@pytest.mark.timeout(420)
def test_a_forged_and_an_authentic_scan_get_their_words(page: Page, address: str) -> None:
    expected = json.loads((SCANS / "expected.json").read_text())
    words, patients = {}, {}
    for name in ("3-tumor-added", "1-tumor"):
        files = sorted((SCANS / name).glob("*.dcm"))
        words[name] = wording.answer(expected[name]["category"])
        patients[name] = str(pydicom.dcmread(files[0], stop_before_pixels=True).PatientID)
        page.goto(address)
        page.set_input_files("#files", files)
        page.get_by_role("button", name="Analyse").click()
        page.wait_for_url("**/studies/*")
        # The page follows by itself from "Collecting" to the answer.
        expect(page.locator("#answer-words")).to_contain_text(words[name], timeout=PATIENCE_MS)
        expect(page.locator("#viewer[data-ready]")).to_be_visible()
        outline = page.locator(f"#outlines polygon.line.{expected[name]['category']}").first
        # It begins at the key slice; the region is somewhere in the picture, not over its edge.
        expect(outline).to_be_visible()
        scroll_over_the_region(page, files)
        drawn, frame = outline.bounding_box(), page.locator(".frame").bounding_box()
        assert drawn is not None
        assert frame is not None
        assert frame["x"] < drawn["x"] < drawn["x"] + drawn["width"] < frame["x"] + frame["width"]
        assert frame["y"] < drawn["y"] < drawn["y"] + drawn["height"] < frame["y"] + frame["height"]
    assert words["3-tumor-added"] == "Tumor Added (Deepfake)"
    page.get_by_role("link", name="Worklist", exact=True).first.click()
    for name, patient in patients.items():
        expect(page.locator("tbody tr", has_text=patient)).to_contain_text(words[name])


def scroll_over_the_region(page: Page, files: list[Path]) -> None:
    """From the first slice, which shows nothing, by wheel to the first one with an outline."""
    page.locator("#position").fill("1")
    expect(page.locator("#position-text")).to_have_text(f"1 of {len(files)}")
    expect(page.locator("#outlines polygon.line")).to_have_count(0)
    page.locator(".screen").hover()
    for position in range(2, len(files) + 1):
        page.mouse.wheel(0, 100)
        expect(page.locator("#position-text")).to_have_text(f"{position} of {len(files)}")
        if page.locator("#outlines polygon.line").count():
            return
    raise AssertionError("no slice shows an outline")
