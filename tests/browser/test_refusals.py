"""What is no study gets a sentence that names it, and does not cost the rest."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from tests import studies as drawn
from tests import web_cases
from tests.browser.conftest import Node
from tests.unit.web.unpack.test_scan import photograph


def test_a_corrupt_file_a_bomb_and_a_picture_of_something_else(page: Page, node: Node, tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.dcm"
    corrupt.write_bytes(b"\0" * 128 + b"DICM" + bytes(np.random.default_rng(1).integers(0, 256, 3000, np.uint8)))
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("study.dcm", b"\0" * (50 << 20))
    holiday = tmp_path / "holiday.jpg"
    Image.fromarray(photograph().astype(np.uint8)).save(holiday)
    cut = drawn.save(tmp_path / "cut", web_cases.datasets(study="cut", count=1))[0]
    cut.write_bytes(cut.read_bytes()[:-9000])
    good = drawn.save(tmp_path / "good", web_cases.datasets(study="good", count=2))
    page.goto(node.address)
    page.set_input_files("#files", [corrupt, bomb, holiday, cut, *good])
    page.get_by_role("button", name="Analyse").click()
    page.wait_for_url("**/uploads/*")
    expect(page.locator("h2")).to_have_text("4 not taken")
    sentences = page.locator(".refusals li").all_inner_texts()
    for name, word in (
        ("corrupt.dcm", "no readable DICOM"),
        ("bomb.zip › study.dcm", "ZIP bombs"),
        ("holiday.jpg", "does not look like a slice of a head scan"),
        ("0001.dcm", "cut off"),
    ):
        (sentence,) = [one for one in sentences if one.startswith(name)]
        assert word in sentence
    expect(page.locator(".done")).to_have_text("2 images taken.")


def test_an_upload_of_nothing_is_told_at_once(page: Page, node: Node) -> None:
    page.goto(node.address)
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#problem")).to_contain_text("No file was chosen.")


def test_pictures_are_taken_as_loose_slices_and_said_to_be_outside(page: Page, node: Node, tmp_path: Path) -> None:
    for number in (1, 2):
        grey = (drawn.head(160, 160, seed=number) / 1200 * 255).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    page.goto(node.address)
    page.set_input_files("#files", sorted(tmp_path.iterdir()))
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator(".done")).to_have_text("2 images taken.")
    expect(page.locator(".notice.mild")).to_contain_text("outside the range for which the program was validated")


def test_a_folder_is_sent_with_all_below_it(page: Page, node: Node, tmp_path: Path) -> None:
    drawn.save(tmp_path / "disc" / "series", web_cases.datasets(study="folder", count=3))
    page.goto(node.address)
    page.set_input_files("#folder", tmp_path / "disc")
    expect(page.locator("#chosen")).to_contain_text("3 files")
    page.get_by_role("button", name="Analyse").click()
    page.wait_for_url("**/studies/*")
    expect(page.locator("#status")).to_contain_text("3 images")
