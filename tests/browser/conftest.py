"""A web process with a store of its own, and Debian's Chromium, which loads nothing but this page."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, Playwright, expect, sync_playwright

from demo.ports import free_port
from dicomguard.clock import SystemClock
from dicomguard.store.db import Limits, Store, open_store
from tests.peers import wait_for

# Of a page that other tests work beside; its own are five seconds.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Node:
    """A running page; `store` is the same that it serves."""

    address: str
    folder: Path
    store: Store


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    port = free_port()
    (folder / "node.toml").write_text(
        f'[node]\nstate = "state"\n[storage]\nlow_bytes = 1\nstop_bytes = 1\n[web]\nport = {port}\n'
        f'[retrain]\narchive = "archive"\n'
    )
    log = (folder / "web.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "dicomguard.web", "--config", str(folder / "node.toml")],
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(address), seconds=60, what="the page")
        store = open_store(folder / "state", "", SystemClock(), limits=Limits(low_bytes=1, stop_bytes=1))
        yield Node(address=address, folder=folder, store=store)
        store.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        log.close()
    events = [json.loads(line)["event"] for line in (folder / "web.log").read_text().splitlines()]
    assert "request.failed" not in events


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/sign-in", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def page(need: Callable[[str, str], str]) -> Iterator[Page]:
    """A fresh browser profile; a script error, a breach of the policy or a request elsewhere fails the test."""
    chromium = need("chromium", "chromium")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        opened = _started(playwright, chromium)
        opened.set_default_timeout(PATIENCE_MS)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on(
            "console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None
        )
        opened.on(
            "request",
            lambda request: (
                None if request.url.startswith(("http://127.0.0.1", "blob:")) else complaints.append(request.url)
            ),
        )
        yield opened
        opened.context.browser.close()
    assert not complaints


def _started(playwright: Playwright, chromium: str) -> Page:
    """An empty page of a new browser; one that dies before it has shown anything is started once more.

    That says nothing of our page: it happened once in some hundred runs, beside two other test processes.
    """
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    for last in (False, True):
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            opened = browser.new_page(viewport={"width": 1280, "height": 900})
            opened.goto("data:text/html,ready")
            return opened
        except PlaywrightError:
            with contextlib.suppress(PlaywrightError):
                browser.close()
            if last:
                raise
    raise AssertionError
