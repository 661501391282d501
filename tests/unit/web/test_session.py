import stat
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from dicomguard.errors import Refused
from dicomguard.web import session
from dicomguard.web.pages.signing import _inside
from tests.unit.web.conftest import PASSWORD, Page


def test_the_set_up_code_lies_in_a_file_that_only_its_user_reads(page: Page) -> None:
    path = page.store.root / "setup-code"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip().replace("-", "")) == 20


def test_the_set_up_code_makes_one_administrator_once(page: Page) -> None:
    code = (page.store.root / "setup-code").read_text().strip()
    assert "Set up the first administrator" in page.get("/sign-in").text
    answer = page.post("/sign-up", code=code.lower(), name="ada", password=PASSWORD)
    assert answer.status_code == 303
    assert not (page.store.root / "setup-code").exists()
    assert "ada" in page.get("/").text
    again = page.post("/sign-up", "/training", code=code, name="eve", password=PASSWORD)
    assert again.status_code == 403
    assert "not valid, or was used before" in again.text


@pytest.mark.parametrize(
    ("name", "password", "word"),
    [("A", PASSWORD, "cannot be a name"), ("ada", "short", "has 5 characters"), ("../x", PASSWORD, "cannot be a name")]
    # As such the node itself acts, and the set-up code invites.
    + [(name, PASSWORD, "is a name of the node") for name in ("set-up", "schedule", "promotion")],
)
def test_names_and_passwords_have_rules(name: str, password: str, word: str) -> None:
    with pytest.raises(Refused, match=word):
        session.check_account(name, password)


def test_a_session_opens_with_name_and_password_and_ends_by_time(page: Page) -> None:
    page.become_administrator()
    assert page.post("/sign-out", "/training").status_code == 303
    assert page.get("/training").headers["location"] == "/sign-in?next=/training"
    answer = page.post("/sign-in", name="ada", password=PASSWORD, next="/training")
    assert answer.headers["location"] == "/training"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert page.get("/training").status_code == 200
    page.clock.advance(timedelta(hours=9))
    assert page.get("/training").status_code == 303


def test_an_unknown_name_and_a_wrong_password_sound_alike(page: Page) -> None:
    page.become_administrator()
    page.post("/sign-out", "/training")
    unknown = page.post("/sign-in", name="eve", password=PASSWORD)
    wrong = page.post("/sign-in", name="ada", password="not my password")
    sentence = "Name and password do not belong together."
    assert unknown.status_code == wrong.status_code == 403
    assert sentence in unknown.text
    assert sentence in wrong.text


def test_signing_in_is_throttled_also_with_the_right_password(page: Page) -> None:
    page.become_administrator()
    page.post("/sign-out", "/training")
    for _ in range(session.ATTEMPTS):
        assert page.post("/sign-in", name="ada", password="guess guess guess").status_code == 403
    assert page.post("/sign-in", name="ada", password=PASSWORD).status_code == 429
    page.clock.advance(session.WINDOW + timedelta(seconds=1))
    assert page.post("/sign-in", name="ada", password=PASSWORD).status_code == 303


def test_the_set_up_code_cannot_be_guessed_at_leisure(page: Page) -> None:
    for _ in range(session.ATTEMPTS):
        page.post("/sign-up", code="AAAA", name="eve", password=PASSWORD)
    code = (page.store.root / "setup-code").read_text().strip()
    assert page.post("/sign-up", code=code, name="eve", password=PASSWORD).status_code == 429


def test_an_invitation_makes_a_second_administrator_within_a_day(page: Page) -> None:
    page.become_administrator()
    shown = page.post("/invite", "/queue").text
    code = shown.split('<p class="code">')[1].split("<")[0]
    page.post("/sign-out", "/training")
    assert page.post("/sign-up", code=code, name="ada", password=PASSWORD).status_code == 403
    assert page.post("/sign-up", code=code, name="grace", password=PASSWORD).status_code == 303
    page.clock.advance(timedelta(hours=1))
    assert "grace" in page.get("/").text


def test_an_invitation_ends(page: Page) -> None:
    page.become_administrator()
    code = page.post("/invite", "/queue").text.split('<p class="code">')[1].split("<")[0]
    page.post("/sign-out", "/training")
    page.clock.advance(timedelta(hours=25))
    assert page.post("/sign-up", code=code, name="grace", password=PASSWORD).status_code == 403


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_form_without_the_visitors_token_does_nothing(page: Page, token: str) -> None:
    page.become_administrator()
    answer = page.http.post("/invite", data={"form_token": token})
    assert answer.status_code == 400
    assert "Load the page again" in answer.text


def test_the_token_of_one_visitor_is_no_good_for_another(page: Page) -> None:
    page.become_administrator()
    mine = page.token("/queue")
    page.http.cookies.clear()
    answer = page.http.post("/sign-out", data={"form_token": mine})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/", "/studies", "/queue", "/studies/x/r/1/verdict.json", "/uploads/x"])
def test_other_machines_read_nothing_without_a_session(stranger: Page, path: str) -> None:
    assert stranger.get(path).headers["location"].startswith("/sign-in?next=")


def test_a_proxy_on_this_machine_is_another_machine(page: Page) -> None:
    assert page.get("/studies", headers={"x-forwarded-for": "192.0.2.7"}).status_code == 303


def test_a_proxy_that_says_nothing_of_itself_asks_in_http_1_0(app: Any, page: Page) -> None:
    async def older(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"http_version": "1.0"}, receive, send)

    assert page.get("/studies").status_code == 200
    proxy = TestClient(older, base_url=page.http.base_url, client=("127.0.0.1", 50000))
    assert proxy.get("/studies", follow_redirects=False).headers["location"].startswith("/sign-in?next=")


def test_other_machines_upload_nothing_without_a_session(stranger: Page) -> None:
    answer = stranger.http.post("/uploads", files={"file": ("a.png", b"x")}, data={"form_token": stranger.token()})
    assert answer.status_code == 400
    assert "Sign in first" in answer.text


STEPS = ("/studies/x/force", "/studies/x/retry", "/studies/x/hold", "/training/start", "/invite")


@pytest.mark.parametrize("path", STEPS)
def test_steps_are_for_administrators(page: Page, path: str) -> None:
    assert page.post(path).status_code == 403


def test_cases_are_added_by_administrators(page: Page) -> None:
    assert page.http.post("/training/cases", files={"images": ("a.png", b"x")}).status_code == 403


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/studies/a", "/studies/a"),
        ("//evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("studies", "/"),
        ("/a\nb", "/"),
    ],
)
def test_signing_in_leads_nowhere_else(path: str, to: str) -> None:
    assert _inside(path) == to
