import re
from pathlib import Path

import pytest

from dicomguard.web import guard
from dicomguard.web.site import HERE
from tests.unit.web.conftest import Page

PAGES = ("/", "/studies", "/queue", "/sign-in", "/nothing", "/studies/unknown", "/uploads/unknown", "/static/page.css")


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost:8042", "localhost"), ("[::1]:8042", "[::1]"), ("GUARD.example", "guard.example"), ("", "")],
)
def test_name_of_a_host_header(host: str, name: str) -> None:
    assert guard.host_name(host) == name


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.", "192.0.2.1"])
def test_a_host_that_is_not_listed_is_turned_away(page: Page, host: str) -> None:
    answer = page.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "allowed_hosts" in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8042", "[::1]:1", "guard.example"])
def test_loopback_and_configured_names_are_served(page: Page, host: str) -> None:
    assert page.get("/sign-in", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_is_dressed(page: Page, path: str) -> None:
    headers = page.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert headers["x-frame-options"] == "DENY"


def test_a_refused_host_is_dressed_too(page: Page) -> None:
    assert "content-security-policy" in page.get("/", headers={"host": "evil.example"}).headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_forms_of_other_pages_are_refused(page: Page, headers: dict[str, str]) -> None:
    answer = page.http.post("/sign-in", data={"form_token": page.token()}, headers=headers)
    assert answer.status_code == 403
    assert "another page" in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_not_served(page: Page, method: str) -> None:
    assert page.http.request(method, "/").status_code == 405


def test_a_form_has_a_length_and_a_limit(page: Page) -> None:
    assert page.http.post("/sign-in", content=iter([b"name=a"])).status_code == 411
    assert page.http.post("/sign-in", content=b"a" * (guard.MAX_FORM_BYTES + 1)).status_code == 413


def test_templates_hold_no_script_or_style_of_their_own_and_no_other_server() -> None:
    inline = re.compile(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|https?://", re.I)
    for path in sorted(Path(HERE / "templates").rglob("*.html")):
        assert not inline.search(path.read_text("utf-8")), path.name


def test_vendored_code_comes_with_its_licence() -> None:
    folder = HERE / "static" / "vendor" / "htmx"
    assert "Zero-Clause BSD" in (folder / "LICENSE").read_text()
    assert (folder / "htmx.min.js").stat().st_size > 10_000
