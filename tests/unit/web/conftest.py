"""A node with its page, without a network: requests go straight into the application."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from dicomguard.clock import FakeClock
from dicomguard.config import Config, Node, Retrain, Web
from dicomguard.flow.client import Client
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.web.app import make_app

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
PASSWORD = "four words of mine"


@dataclass
class Page:
    """A browser without scripts: keeps cookies, and takes the token of the last form."""

    http: TestClient
    store: Store
    clock: FakeClock

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        answer: httpx.Response = self.http.get(path, follow_redirects=False, **kwargs)
        return answer

    def token(self, path: str = "/sign-in") -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.get(path).text)
        assert found is not None
        return found.group(1)

    def post(self, path: str, form_page: str = "/sign-in", **fields: str) -> httpx.Response:
        answer: httpx.Response = self.http.post(
            path, data={"form_token": self.token(form_page), **fields}, follow_redirects=False
        )
        return answer

    def become_administrator(self, name: str = "ada") -> None:
        code = (self.store.root / "setup-code").read_text().strip()
        assert self.post("/sign-up", code=code, name=name, password=PASSWORD).status_code == 303


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", clock, limits=Limits(low_bytes=1, stop_bytes=1))
    yield opened
    opened.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        node=Node(state=tmp_path / "state"),
        web=Web(allowed_hosts=("guard.example",), max_upload_bytes=1 << 20, max_upload_files=20),
        retrain=replace(Retrain(), archive=tmp_path / "archive"),
    )


@pytest.fixture
def app(config: Config, store: Store, clock: FakeClock) -> Any:
    return make_app(config, store=store, client=Client(store, clock), clock=clock)


@pytest.fixture
def page(app: Any, store: Store, clock: FakeClock) -> Iterator[Page]:
    """Somebody on this machine."""
    with TestClient(app, base_url="http://127.0.0.1:8042", client=("127.0.0.1", 50000)) as http:
        yield Page(http=http, store=store, clock=clock)


@pytest.fixture
def stranger(app: Any, page: Page, store: Store, clock: FakeClock) -> Page:
    """Somebody on another machine, who asks by a name that is allowed."""
    return Page(
        http=TestClient(app, base_url="http://guard.example", client=("192.0.2.9", 50000)), store=store, clock=clock
    )
