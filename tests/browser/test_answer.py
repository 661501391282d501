"""What a radiologist does: upload, read the answer, scroll to the region, find the study again."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dicomguard.core.verdict import Category
from dicomguard.store import studies
from tests import studies as drawn
from tests import web_cases
from tests.browser.conftest import Node


def upload(page: Page, node: Node, files: list[Path]) -> str:
    """Send files and wait for the study's page; returns its key."""
    page.goto(node.address)
    page.set_input_files("#files", files)
    page.get_by_role("button", name="Analyse").click()
    page.wait_for_url("**/studies/*")
    return page.url.rsplit("/", 1)[1]


@pytest.mark.parametrize(
    ("study", "category", "words"),
    [("forged", "added", "Tumor Added (Deepfake)"), ("authentic", "absent", "No Tumor Detected")],
)
def test_an_upload_gets_its_answer_without_a_reload(
    page: Page, node: Node, tmp_path: Path, study: str, category: Category, words: str
) -> None:
    made = web_cases.datasets(study=study, name=f"UPLOAD^{study}")
    key = upload(page, node, drawn.save(tmp_path, made))
    expect(page.locator("h1")).to_contain_text("Collecting")
    with node.store.read() as tx:
        (waiting,) = [one for one in studies.collecting(tx, now=node.store.clock.now()) if one.study_key == key]
    # An upload is complete when it is sent.
    assert waiting.forced_by == "upload"
    web_cases.judge(node.store, key, category)
    expect(page.locator("#answer-words")).to_have_text(f"{'▲' if category == 'added' else '○'}{words}")
    expect(page.locator("#status")).to_contain_text("Reported")
    expect(page.locator("#downloads a")).to_have_count(3 if category == "added" else 2)
    assert words in page.title()
    page.get_by_role("link", name="Worklist", exact=True).first.click()
    row = page.locator("tr", has_text=f"UPLOAD, {study}")
    expect(row).to_contain_text(words)
    expect(row).to_contain_text("Upload")


def test_slices_are_scrolled_by_wheel_keys_and_slider_and_show_their_outline(
    page: Page, node: Node, tmp_path: Path
) -> None:
    key = web_cases.receive(node.store, tmp_path, web_cases.datasets(study="scroll"))
    web_cases.judge(node.store, key, "added")
    page.goto(f"{node.address}/studies/{key}")
    expect(page.locator("#viewer[data-ready]")).to_be_visible()
    outline = page.locator("#outlines polygon.line")
    position = page.locator("#position-text")
    # It begins at the key slice of the finding.
    expect(position).to_have_text("6 of 9")
    expect(outline).to_have_count(1)
    screen = page.locator(".screen")
    screen.hover()
    for _ in range(3):
        page.mouse.wheel(0, 100)
    expect(position).to_have_text("9 of 9")
    expect(outline).to_have_count(0)
    screen.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(position).to_have_text("7 of 9")
    expect(outline).to_have_count(1)
    page.locator("#position").fill("1")
    expect(position).to_have_text("1 of 9")
    page.locator(".jump").click()
    expect(position).to_have_text("6 of 9")
    box, frame = outline.bounding_box(), page.locator(".frame").bounding_box()
    assert box is not None
    assert frame is not None
    # The outline lies where the disc was drawn, to a few pixels of the screen.
    row, column, radius = web_cases.DISC
    scale = frame["width"] / 128
    assert box["x"] - frame["x"] == pytest.approx(scale * (column + 0.5 - radius), abs=4)
    assert box["y"] - frame["y"] == pytest.approx(scale * (row + 0.5 - radius), abs=4)
    assert page.locator("#slice").evaluate("image => image.naturalWidth") == 128
    screen.focus()
    page.keyboard.press("o")
    expect(page.locator("#outlines")).to_be_hidden()


@pytest.mark.parametrize("script", [True, False])
def test_pixels_are_shown_as_they_lie_in_the_patient(page: Page, node: Node, tmp_path: Path, script: bool) -> None:
    """Rows 1.5 mm apart, columns 1 mm: the picture is half as high again as it is wide, and the outline with it."""
    made = web_cases.datasets(study=f"tall-{script}")
    for ds in made:
        ds.PixelSpacing = [1.5, 1.0]
    key = web_cases.receive(node.store, tmp_path, made)
    web_cases.judge(node.store, key, "added")
    browser = page.context.browser
    assert browser is not None
    shown = browser.new_context(java_script_enabled=script).new_page()
    shown.goto(f"{node.address}/studies/{key}")
    if script:
        expect(shown.locator("#viewer[data-ready]")).to_be_visible()
    frame, image = shown.locator(".frame").bounding_box(), shown.locator("#slice").bounding_box()
    outline = shown.locator("#outlines polygon.line").bounding_box()
    assert frame is not None
    assert image is not None
    assert outline is not None
    assert frame["height"] == pytest.approx(1.5 * frame["width"], rel=0.01)
    assert (image["width"], image["height"]) == pytest.approx((frame["width"], frame["height"]), rel=0.01)
    assert outline["height"] == pytest.approx(1.5 * outline["width"], rel=0.1)


def test_without_scripts_everything_can_be_read(page: Page, node: Node, tmp_path: Path) -> None:
    key = web_cases.receive(node.store, tmp_path, web_cases.datasets(study="plain"))
    web_cases.judge(node.store, key, "removed")
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(f"{node.address}/studies/{key}")
    expect(plain.locator("h1")).to_contain_text("Tumor Removed (Deepfake)")
    expect(plain.locator("#outlines polygon.line")).to_have_count(1)
    plain.get_by_role("button", name="Show slice").click()
    expect(plain.locator("#position-text")).to_have_text("6 of 9")
    plain.goto(node.address)
    plain.set_input_files("#files", drawn.save(tmp_path / "up", web_cases.datasets(study="plainly")))
    plain.get_by_role("button", name="Analyse").click()
    plain.wait_for_url("**/uploads/*")
    plain.wait_for_url("**/studies/*")


def test_on_a_narrow_screen_nothing_runs_over_the_edge(page: Page, node: Node, tmp_path: Path) -> None:
    key = web_cases.receive(node.store, tmp_path, web_cases.datasets(study="narrow"))
    web_cases.judge(node.store, key, "real")
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("/", "/studies", f"/studies/{key}", "/queue"):
        page.goto(f"{node.address}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
