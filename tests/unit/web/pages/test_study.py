import hashlib
import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest

from dicomguard.analyze import weights
from dicomguard.core.commitment import Commitment, State
from dicomguard.core.delivery import Delivery, Item
from dicomguard.core.verdict import Category
from dicomguard.store import audit, commitments, deliveries, expiry, studies
from dicomguard.web import live
from tests import web_cases
from tests.unit.web.conftest import Page

WORDS: dict[Category, str] = {
    "real": "Brain Tumor Detected (Real)",
    "absent": "No Tumor Detected",
    "added": "Tumor Added (Deepfake)",
    "removed": "Tumor Removed (Deepfake)",
}


def judged(page: Page, tmp_path: Path, category: Category, *, name: str = "DOE^JANE") -> str:
    made = web_cases.datasets(study=category, name=name)
    key = web_cases.receive(page.store, tmp_path / category, made)
    web_cases.judge(page.store, key, category)
    return key


@pytest.mark.parametrize(("category", "words"), WORDS.items())
def test_the_answer_in_large_plain_words(page: Page, tmp_path: Path, category: Category, words: str) -> None:
    key = judged(page, tmp_path, category)
    text = page.get(f"/studies/{key}").text
    heading = text.split('<h1 id="answer-words">')[1].split("</h1>")[0]
    assert heading.endswith(words)
    others = set(WORDS.values()) - {words}
    assert not any(other in text for other in others)
    assert "Research use only. Not for diagnosis." in text
    assert "DOE, JANE" in text
    assert "of 100 authentic studies scored as high" in text
    assert "at most 6.2 %" in text
    assert "What was not looked at" in text


def test_the_model_card_is_shown_where_the_weights_that_judged_are_in_use(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = judged(page, tmp_path, "added")
    assert "Known failures" not in page.get(f"/studies/{key}").text
    head = weights.read_head(weights.shipped())
    assert head.card is not None
    monkeypatch.setattr(web_cases, "MODEL", replace(web_cases.MODEL, id=head.id))
    key = judged(page, tmp_path, "removed")
    text = page.get(f"/studies/{key}").text
    assert "3 of 75 authentic studies flagged" in text
    assert head.card.intended_use in text
    assert head.card.known_failures in text


def test_without_scripts_the_page_shows_the_key_slice_with_its_outline(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "added")
    text = page.get(f"/studies/{key}").text
    assert f'src="/studies/{key}/r/1/slices/0/5.png"' in text
    assert text.count('class="line added"') == 1
    assert 'viewBox="0 0 128 128"' in text
    other = page.get(f"/studies/{key}?series=0&slice=1").text
    assert f'src="/studies/{key}/r/1/slices/0/0.png"' in other
    assert 'class="line added"' not in other
    assert page.get(f"/studies/{key}?series=9&slice=99999").status_code == 200


def test_the_viewer_gets_slices_in_order_with_outlines_and_scores(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "removed")
    data = page.get(f"/studies/{key}/r/1/slices.json").json()
    (series,) = data["series"]
    assert data["start"] == [0, 5]
    assert len(series["slices"]) == 9
    assert [len(item["outlines"]) for item in series["slices"]] == [0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert [item["score"] > data["threshold"] for item in series["slices"]].count(True) == 3
    outline = series["slices"][5]["outlines"][0]
    assert outline["label"] == "F1 removed, signs of forgery"
    points = [tuple(map(float, point.split(","))) for point in outline["points"].split()]
    row, column, radius = web_cases.DISC
    assert min(x for x, _ in points) == pytest.approx(column + 0.5 - radius, abs=0.2)
    assert max(y for _, y in points) == pytest.approx(row + 0.5 + radius, abs=0.2)


def test_results_are_downloaded_as_they_are_kept(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "added")
    with page.store.read() as tx:
        kept = studies.kept_verdict(tx, key, 1)
    assert kept is not None
    answer = page.get(f"/studies/{key}/r/1/verdict.json")
    assert hashlib.sha256(answer.content).hexdigest() == kept.sha256
    assert json.loads(answer.content)["category"] == "added"
    text = page.get(f"/studies/{key}").text
    links = [part.split('"')[0] for part in text.split('href="') if "/results/" in part.split('"')[0]]
    assert len(links) == 2
    kinds = [str(pydicom.dcmread(io.BytesIO(page.get(link).content)).Modality) for link in links]
    assert sorted(kinds) == ["SEG", "SR"]
    assert page.get(f"/studies/{key}/r/1/results/1.2.3.dcm").status_code == 404


def test_an_altered_verdict_is_not_shown(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "absent")
    path = page.store.root / "results" / key / "r1" / "verdict.json"
    path.write_bytes(path.read_bytes().replace(b"absent", b"real"))
    answer = page.get(f"/studies/{key}")
    assert answer.status_code == 500
    assert "was altered" in answer.text
    assert "No Tumor" not in answer.text


def test_a_study_that_is_on_its_way_says_how_far(page: Page, tmp_path: Path) -> None:
    key = web_cases.receive(page.store, tmp_path / "s", web_cases.datasets())
    assert "Collecting" in page.get(f"/studies/{key}").text
    now = page.store.clock.now()
    with page.store.begin() as tx:
        studies.open_revision(tx, key, closed_because="x", now=now)
        studies.advance(tx, key, 1, "analysing", from_=("opened",))
        studies.set_progress(tx, key, 1, 3, 9)
    text = page.get(f"/studies/{key}").text
    assert "Analysing 3 of 9" in text
    assert f'data-live="/studies/{key}/live"' in text
    assert page.get(f"/studies/{key}?part=answer").text.lstrip().startswith('<div id="answer"')
    with page.store.begin() as tx:
        studies.advance(tx, key, 1, "failed", from_=("analysing",), reason="The weights are missing. Install them.")
    text = page.get(f"/studies/{key}").text
    assert "The analysis failed" in text
    assert "The weights are missing. Install them." in text


def test_deliveries_show_each_destination_and_object(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "added")
    now = page.store.clock.now()
    way = Delivery(
        study_key=key,
        revision=1,
        destination="pacs",
        items=(Item(kind="SEG", forms=("1.2",)), Item(kind="SR", forms=("1.3", "1.4"))),
        planned_at=now,
        next_at=now + timedelta(minutes=5),
        comment="SR waiting: connection refused",
    )
    commitment = Commitment(
        study_key=key, revision=1, destination="pacs", parts=(), state=State.FAILED, planned_at=now, next_at=None,
        comment="not committed: 1 × class and instance do not fit",
    )  # fmt: skip
    with page.store.begin() as tx:
        deliveries.plan(tx, [way])
        commitments.save(tx, commitment)
    queue = page.get("/queue").text
    assert "Storage commitment of pacs" in queue
    assert "Not committed" in queue
    text = page.get(f"/studies/{key}").text
    assert "pacs" in text
    assert "SR waiting: connection refused" in text
    assert "not committed: 1 × class and instance do not fit" in text
    assert "24 Nov 2026 10:05" in text
    assert f'data-live="/studies/{key}/live"' in text


def test_a_late_instance_makes_a_second_report_and_both_can_be_read(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "absent")
    more = web_cases.datasets(study="absent", count=10)[9:]
    assert web_cases.receive(page.store, tmp_path / "late", more) == key
    web_cases.judge(page.store, key, "added")
    assert "Tumor Added (Deepfake)" in page.get(f"/studies/{key}").text
    first = page.get(f"/studies/{key}/r/1").text
    assert "No Tumor Detected" in first
    assert "This is report 1; report 2 is" in first
    assert "because more slices arrived" in first
    assert page.get(f"/studies/{key}/r/3").status_code == 404


def test_administrators_force_hold_and_retry(page: Page, tmp_path: Path) -> None:
    key = web_cases.receive(page.store, tmp_path / "s", web_cases.datasets())
    assert "Analyse now" not in page.get(f"/studies/{key}").text
    page.become_administrator()
    assert page.post(f"/studies/{key}/hold", f"/studies/{key}", on="1").status_code == 303
    held = page.get(f"/studies/{key}").text
    assert "On hold" in held and "ada keeps this study on hold." in held
    assert page.post(f"/studies/{key}/hold", f"/studies/{key}", on="0").status_code == 303
    assert page.post(f"/studies/{key}/force", f"/studies/{key}").status_code == 303
    with page.store.read() as tx:
        (waiting,) = studies.collecting(tx, now=page.store.clock.now())
    assert waiting.forced_by == "ada"
    answer = page.post(f"/studies/{key}/retry", f"/studies/{key}")
    assert answer.status_code == 400
    assert "Nothing of study" in answer.text


def test_a_hold_says_that_the_report_under_way_goes_on_and_lets_it_be_cancelled(page: Page, tmp_path: Path) -> None:
    key = web_cases.receive(page.store, tmp_path / "s", web_cases.datasets())
    page.become_administrator()
    assert page.post(f"/studies/{key}/hold", f"/studies/{key}", on="1").status_code == 303
    collecting = page.get(f"/studies/{key}").text
    assert "under way" not in collecting and "/cancel" not in collecting
    with page.store.begin() as tx:
        studies.open_revision(tx, key, closed_because="forced", now=page.store.clock.now())
        studies.advance(tx, key, 1, "analysing", from_=("opened",))
    held = page.get(f"/studies/{key}").text
    assert "The report under way goes on; cancel it to stop it." in held
    assert page.post(f"/studies/{key}/cancel", f"/studies/{key}").status_code == 303
    stopped = page.get(f"/studies/{key}").text
    assert "under way" not in stopped and "/cancel" not in stopped


def test_what_retention_holds_is_said_beside_the_earlier_answer(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "absent")
    with page.store.begin() as tx:
        expiry.hold(tx, key)
    said = page.get(f"/studies/{key}").text
    assert "No Tumor Detected" in said and "Have the whole study sent again" in said


def test_an_administrator_cancels_what_is_not_sent_yet(page: Page, tmp_path: Path) -> None:
    key = web_cases.receive(page.store, tmp_path / "s", web_cases.datasets())
    with page.store.begin() as tx:
        studies.open_revision(tx, key, closed_because="test", now=page.store.clock.now())
    here = f"/studies/{key}"
    assert page.post(f"{here}/cancel").status_code == 403
    page.become_administrator()
    assert page.http.post(f"{here}/cancel", data={"form_token": "0" * 64}).status_code == 400
    assert f'action="{here}/cancel"' in page.get(here).text
    assert page.post(f"{here}/cancel", here).status_code == 303
    with page.store.read() as tx:
        assert studies.state(tx, key, 1) == "cancelled"
        (line,) = [line for line in audit.recent(tx) if line.action == "study.cancelled"]
    assert (line.actor, line.object) == ("ada", key)
    text = page.get(here).text
    assert "Report 1 was cancelled by ada: nothing of it was sent" in text
    assert "<progress" not in text
    assert f'action="{here}/cancel"' not in text
    assert "Cancelled" in page.get("/studies?state=cancelled").text
    again = page.post(f"{here}/cancel", here)
    assert again.status_code == 400
    assert "is under way" in again.text
    assert page.post(f"{here}/retry", here).status_code == 303
    assert "Queued" in page.get(here).text


def test_what_senders_write_is_shown_and_never_run(page: Page, tmp_path: Path) -> None:
    key = judged(page, tmp_path, "real", name="<script>alert(1)</script>^&")
    for path in ("/", "/studies", f"/studies/{key}"):
        text = page.get(path).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_live_events_say_that_something_moved_and_end(page: Page) -> None:
    looks = iter(["collecting", "collecting", "analysing", ""])
    text = _events(live.stream(live.Seats(), lambda: next(looks), every_s=0.001))
    assert text.count("event: moved") == 2
    assert text.endswith("event: finished\ndata: 1\n\n")


def test_live_seats_are_given_back_and_never_more_than_there_are() -> None:
    seats = live.Seats(1)
    assert seats.take()
    assert "event" not in _events(live.stream(seats, lambda: ""))
    seats.give_back()
    assert "finished" in _events(live.stream(seats, lambda: ""))
    assert "finished" in _events(live.stream(seats, lambda: ""))


def _events(response: object) -> str:
    import asyncio

    async def collect() -> str:
        return "".join([part async for part in response.body_iterator])  # type: ignore[attr-defined]

    return asyncio.run(collect())
