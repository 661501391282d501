from datetime import timedelta
from pathlib import Path

import pytest

from dicomguard.store import refusals
from tests import web_cases
from tests.unit.web.conftest import Page


def test_an_empty_worklist_says_what_to_do(page: Page) -> None:
    assert "No study yet. Send one by C-STORE" in page.get("/studies").text


def test_a_line_says_result_score_sender_and_state(page: Page, tmp_path: Path) -> None:
    key = web_cases.receive(page.store, tmp_path / "a", web_cases.datasets(study="a"), calling_ae="MR07")
    web_cases.judge(page.store, key, "added")
    text = page.get("/studies").text
    for word in (
        "Tumor Added (Deepfake)",
        "0.93",
        "DOE, JANE",
        "ID-a",
        "2026-11-03",
        "MR07",
        "Reported",
        f"/studies/{key}",
    ):
        assert word in text


def test_filters(page: Page, tmp_path: Path) -> None:
    for name, category in (("a", "added"), ("b", "absent")):
        made = web_cases.datasets(study=name, name=f"P^{name}", count=9)
        web_cases.judge(page.store, web_cases.receive(page.store, tmp_path / name, made), category)  # type: ignore[arg-type]
    web_cases.receive(page.store, tmp_path / "c", web_cases.datasets(study="c", name="P^c", count=1), calling_ae="CT09")
    assert _patients(page, "category=added") == ["P, a"]
    assert _patients(page, "state=collecting") == ["P, c"]
    assert _patients(page, "sender=CT09") == ["P, c"]
    assert _patients(page, "sender=upload") == []
    assert _patients(page, "category=absent&state=done") == ["P, b"]


@pytest.mark.parametrize("query", ["state=nonsense", "category=x", "before=yesterday", "rows=x"])
def test_impossible_filters_are_refused(page: Page, query: str) -> None:
    answer = page.get(f"/studies?{query}")
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert "No study" in answer.text


def test_pages_follow_each_other_without_a_gap(page: Page, tmp_path: Path) -> None:
    for number in range(12):
        made = web_cases.datasets(study=f"s{number}", name=f"P^{number}", count=1)
        web_cases.receive(page.store, tmp_path / f"{number}", made)
        page.clock.advance(timedelta(seconds=1))
    seen, path = [], "/studies?rows=5"
    for _ in range(3):
        text = page.get(path).text
        seen += [part.split("<")[0] for part in text.split("<td>P, ")[1:]]
        following = text.split('<nav class="pager"')[1]
        links = [part.split('"')[0].replace("&amp;", "&") for part in following.split('href="')[1:]]
        path = links[-1]
    assert seen == [str(number) for number in range(11, -1, -1)]
    assert "Older studies" not in text


def test_the_table_alone_is_refreshed(page: Page) -> None:
    text = page.get("/studies", headers={"hx-request": "true"}).text
    assert "<html" not in text


def test_the_queue_shows_what_is_free_at_the_first_look_and_later(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, shown in ((5_000_000_000, "5.0 GB"), (3_000_000_000, "3.0 GB"), (0, "0 bytes")):
        monkeypatch.setattr(page.store.disk, "free_bytes", lambda _folder, free=free: free)
        text = page.get("/queue").text
        assert f"<dd>{shown}" in text and ("nothing is received" in text) == (free == 0)
        page.clock.advance(timedelta(seconds=2))


def test_the_queue_shows_who_was_turned_away(page: Page) -> None:
    with page.store.begin() as tx:
        refusals.record(tx, page.store.clock.now(), "192.0.2.66", "STRANGER", "DICOMGUARD", "calling AE is not known")
    text = page.get("/queue").text
    assert "STRANGER" in text
    assert "calling AE is not known" in text
    assert "Nothing waits." in text


def _patients(page: Page, query: str) -> list[str]:
    return [
        part.split("<")[0] for part in page.get(f"/studies?{query}").text.split("<td>")[1:] if part.startswith("P, ")
    ]
