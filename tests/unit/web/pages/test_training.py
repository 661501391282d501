import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomguard.retrain import record
from dicomguard.retrain.archive import contents
from dicomguard.retrain.archive.importers.slices import FROM_MASKS
from dicomguard.store import models, runs
from dicomguard.web import curves
from dicomguard.web.unpack import cases
from tests import studies as drawn
from tests.unit.web.conftest import PASSWORD, Page
from tests.unit.web.unpack.test_sort import picture

ASKED = {
    "curator": "ada",
    "source": "clinic",
    "licence": "own",
    "label": "no_tumor",
    "label_provenance": "",
    "patient": "p1",
    "sequence": "flair",
}


def add(tmp_path: Path, files: list[tuple[str, str, bytes]], **changes: str) -> list[dict[str, object]]:
    folder = tmp_path / f"up{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    for number, (_, _, content) in enumerate(files):
        (folder / f"f{number}").write_bytes(content)
    index = [[field, f"f{number}", name] for number, (field, name, _) in enumerate(files)]
    (folder / "index.json").write_text(json.dumps(index))
    said: list[dict[str, object]] = []
    asked = {"folder": str(folder), "archive": str(tmp_path / "archive"), **ASKED, **changes}
    cases.add(asked, say=said.append)
    return said


def mask() -> bytes:
    return picture(seed=9)


def slices(count: int = 3) -> list[tuple[str, str, bytes]]:
    return [("images", f"s{number}.png", picture(seed=number)) for number in range(1, count + 1)]


def propose(page: Page, *, by: str = "grace", decision: dict[str, Any] | None = None) -> models.ModelRow:
    now = page.store.clock.now()
    decision = decision or {"reasons": ["It flags no more authentic slices than the incumbent."], "people": [by]}
    with page.store.begin() as tx:
        return models.propose(
            tx,
            id="dg-2",
            sha256="b" * 64,
            path="models/b.safetensors",
            decision=decision,
            rejected=False,
            by=by,
            now=now,
        )


def invite(page: Page, name: str) -> None:
    """The administrator who is signed in invites somebody, who signs up at the same browser."""
    shown = page.post("/invite", "/queue").text
    page.post("/sign-out", "/training")
    code = shown.split('<p class="code">')[1].split("<")[0]
    assert page.post("/sign-up", code=code, name=name, password=PASSWORD).status_code == 303


def a_day_later(page: Page, name: str) -> None:
    page.clock.advance(timedelta(days=1, seconds=1))
    assert page.post("/sign-in", name=name, password=PASSWORD).status_code == 303


def test_the_page_is_for_administrators(page: Page) -> None:
    assert page.get("/training").status_code == 303
    assert page.get("/training/runs/x").status_code == 303


def test_the_card_of_the_weights_in_use_is_shown(page: Page) -> None:
    page.become_administrator()
    assert "Known failures" in page.get("/training").text


def test_a_case_waits_for_another_persons_eyes(page: Page, tmp_path: Path) -> None:
    (said,) = add(tmp_path, slices())
    assert said["files"] == 3
    page.become_administrator("ada")
    text = page.get("/training").text
    assert "clinic/p1" in text
    assert "another person has to read it" in text
    answer = page.post("/training/review", "/training", case=str(said["case"]), accepted="1")
    assert answer.status_code == 400
    assert "Ask a second person" in answer.text
    invite(page, "grace")
    answer = page.post("/training/review", "/training", case=str(said["case"]), accepted="1")
    assert answer.status_code == 400
    assert "grace and ada count as one person" in answer.text
    a_day_later(page, "grace")
    answer = page.post("/training/review", "/training", case=str(said["case"]), accepted="1", remark="looks right")
    assert answer.status_code == 303
    text = page.get("/training").text
    assert "accepted by grace" in text
    assert "1 accepted, 0 waiting" in text


def test_masks_go_with_the_image_of_the_same_name(tmp_path: Path) -> None:
    (said,) = add(tmp_path, [*slices(2), ("masks", "m/s2.png", mask())], label="tumor")
    assert said["files"] == 3


@pytest.mark.parametrize(
    ("files", "changes", "word"),
    [
        ([], {}, "has no images"),
        (slices(1), {"patient": ""}, "Give a patient key"),
        (slices(1), {"label": "maybe"}, 'label "maybe" is unknown'),
        ([*slices(1), ("masks", "other.png", mask())], {}, "mask other has no image"),
        ([("images", "a.png", picture()), ("images", "b/a.png", picture(seed=2))], {}, "Two images have one name"),
        ([("images", "a.png", b"no picture at all")], {}, "cannot be read as a picture"),
        (slices(1), {"label": "tumor"}, "nothing is marked"),
        (slices(1), {"label_provenance": "drawn\x1b[2J"}, "label provenance has the character U+001B"),
        ([*slices(1), ("masks", "s1.png", picture(size=100))], {"label": "tumor"}, "mask of the plane's size"),
    ],
)
def test_what_is_no_case_gets_a_sentence(
    tmp_path: Path, files: list[tuple[str, str, bytes]], changes: dict[str, str], word: str
) -> None:
    (said,) = add(tmp_path, files, **changes)
    assert word in str(said["refused"])


def test_the_second_person_sees_what_the_label_rests_on(page: Page, tmp_path: Path) -> None:
    dicom = drawn.save(tmp_path / "made", drawn.series(1))[0].read_bytes()
    add(tmp_path, slices(2), label_provenance="read by <two> radiologists")
    add(tmp_path, slices(4)[2:])
    add(tmp_path, [("images", "d.dcm", dicom)])
    assert [entry.case.label_provenance for entry in contents.read(tmp_path / "archive").entries] == [
        "read by <two> radiologists",
        FROM_MASKS,
        "",
    ]
    page.become_administrator("ada")
    text = page.get("/training").text
    assert "read by &lt;two&gt; radiologists" in text
    assert FROM_MASKS in text
    assert '<span class="sub">not stated</span>' in text
    assert 'name="label_provenance" maxlength="400"' in text


def test_dicom_and_pictures_are_not_mixed(tmp_path: Path) -> None:
    dicom = drawn.save(tmp_path / "made", drawn.series(1))[0].read_bytes()
    (said,) = add(tmp_path, [*slices(1), ("images", "d.dcm", dicom)])
    assert "mixes DICOM files and pictures" in str(said["refused"])


def test_the_directory_of_a_disc_is_no_image_of_the_case(tmp_path: Path) -> None:
    directory = bytes(128) + b"DICM" + bytes(64)
    (said,) = add(tmp_path, [("images", "disc/DICOMDIR", directory), *slices(2)])
    assert said["files"] == 2


def test_a_picture_that_is_there_already_is_refused(tmp_path: Path) -> None:
    add(tmp_path, slices(1))
    (said,) = add(tmp_path, slices(1), patient="p2")
    assert "already in the archive" in str(said["refused"])


def test_a_run_is_asked_for_and_followed(page: Page) -> None:
    page.become_administrator()
    answer = page.post("/training/start", "/training")
    assert answer.status_code == 303
    key = answer.headers["location"].rsplit("/", 1)[1]
    assert "Queued" in page.get(f"/training/runs/{key}").text
    folder = page.store.root / "retrain" / key
    folder.mkdir(parents=True)
    losses = [{"map": 0.9 - step / 1000, "mask": 0.4} for step in range(20, 220, 20)]
    lines = [{"step": 20 * n, "steps": 400, "stage": "dense", "losses": loss} for n, loss in enumerate(losses, start=1)]
    (folder / record.PROGRESS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with page.store.begin() as tx:
        runs.advance(tx, key, "training", now=page.store.clock.now(), progress=lines[-1])
    text = page.get(f"/training/runs/{key}", headers={"hx-request": "true"}).text
    assert "step 200 of 400" in text
    assert text.count("<polyline") == 6
    assert 'hx-trigger="every 2s"' in text
    with page.store.begin() as tx:
        runs.advance(tx, key, "refused", now=page.store.clock.now(), message="The worst family fell to 0.61.")
    text = page.get(f"/training/runs/{key}").text
    assert "The worst family fell to 0.61." in text
    assert "hx-trigger" not in text
    assert page.get("/training/runs/nothing").status_code == 404


def test_a_candidate_is_approved_by_another_person_and_rolled_back(page: Page) -> None:
    propose(page, by="ada")
    page.become_administrator("ada")
    assert "It flags no more authentic slices" in page.get("/training").text
    answer = page.post("/training/approve", "/training", model="dg-2")
    assert answer.status_code == 400
    assert "Ask a second person" in answer.text
    invite(page, "grace")
    a_day_later(page, "grace")
    assert page.post("/training/approve", "/training", model="dg-2").status_code == 303
    text = page.get("/training").text
    assert "approved by grace" in text
    assert "Approved by grace, who was invited by ada and joined on 2026-11-24." in text
    assert "Roll back to the shipped model" in text
    assert page.post("/training/rollback", "/training").status_code == 303
    assert "approved by grace" not in page.get("/training").text


def test_one_administrator_alone_cannot_approve_with_a_second_account(page: Page) -> None:
    """1. ada starts a run, invites herself as grace and approves. 2. Waiting does not help either."""
    page.become_administrator("ada")
    key = page.post("/training/start", "/training").headers["location"].rsplit("/", 1)[1]
    row = propose(page, by="ada")
    with page.store.begin() as tx:
        runs.advance(tx, key, "waiting", now=page.clock.now(), candidate_sha256=row.sha256)
    page.clock.advance(timedelta(minutes=5))
    invite(page, "grace")
    for _ in range(2):
        answer = page.post("/training/approve", "/training", model="dg-2")
        assert answer.status_code == 400
        assert "grace and ada count as one person" in answer.text
        a_day_later(page, "grace")


def test_a_candidate_that_was_measured_against_another_model_cannot_be_approved(page: Page) -> None:
    propose(page, by="mary", decision={"reasons": [], "people": ["mary"], "run": "r1", "incumbent": ""})
    page.become_administrator("ada")
    text = page.get("/training").text
    assert "does not say what it was measured against" in text
    assert "/training/approve" not in text
    assert page.post("/training/approve", "/training", model="dg-2").status_code == 400


def test_a_candidate_is_declined_with_a_reason(page: Page) -> None:
    propose(page)
    page.become_administrator()
    assert page.post("/training/decline", "/training", model="dg-2", reason="too few cases").status_code == 303
    with page.store.read() as tx:
        (row,) = models.listing(tx)
    assert row.state == "rejected"


def test_the_archive_is_verified_from_the_page(page: Page, tmp_path: Path) -> None:
    add(tmp_path, slices(2))
    page.become_administrator()
    assert "2 files of 1 cases are as they were written" in page.post("/training/verify", "/training").text
    (victim,) = list((tmp_path / "archive").rglob("0000_*.png"))
    victim.write_bytes(b"changed")
    assert "1 faults." in page.post("/training/verify", "/training").text


def test_curves_need_two_points_and_stay_inside_the_chart() -> None:
    assert curves.chart([{"step": 1, "losses": {"a": 1.0}}]) is None
    lines = [{"step": n, "losses": {"a": 1.0 / n, "b": 0.1, "c": 0.2, "d": 0.01}} for n in range(1, 30)]
    chart = curves.chart([*lines, {"step": 30}])
    assert chart is not None
    assert [line.name for line in chart.lines] == ["all losses", "a", "c"]
    for line in chart.lines:
        points = [tuple(map(float, point.split(","))) for point in line.points.split()]
        assert all(curves.LEFT <= x <= curves.WIDTH and curves.TOP <= y <= curves.HEIGHT for x, y in points)
        assert points == sorted(points)
