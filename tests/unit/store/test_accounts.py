from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.store import accounts, ephemeral
from dicomguard.store.accounts import SETUP, Account
from dicomguard.store.db import Store, open_store

NOW = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", FakeClock(NOW))
    yield opened
    opened.close()


def test_an_account_is_kept_with_its_inviter(store: Store) -> None:
    grace = Account(name="grace", salt="aa", hash="bb", invited_by="ada", added_at=NOW)
    with store.begin() as tx:
        accounts.put(tx, grace)
        assert accounts.find(tx, " Grace ", now=NOW + timedelta(days=999)) == grace
        assert accounts.find(tx, "mary", now=NOW) is None


@pytest.mark.parametrize(
    ("name", "hours", "since", "expected"),
    [
        # Everybody counts as the first administrator on the first day, and as themselves afterwards.
        ("mary", 2, None, "ada"),
        ("mary", 24, None, "mary"),
        ("ada", 0, None, "ada"),
        # Who joined after a run was started never counts as a person of their own for it.
        ("mary", 999, timedelta(0), "ada"),
        ("mary", 999, timedelta(hours=1), "mary"),
        ("Nobody ", 0, None, "nobody"),
    ],
)
def test_a_new_account_counts_as_its_inviter(
    store: Store, name: str, hours: int, since: timedelta | None, expected: str
) -> None:
    with store.begin() as tx:
        for one, inviter, minutes in (("ada", SETUP, 0), ("grace", "ada", 10), ("mary", "grace", 20)):
            joined = NOW + timedelta(minutes=minutes)
            accounts.put(tx, Account(name=one, salt="", hash="", invited_by=inviter, added_at=joined))
        now = NOW + timedelta(hours=hours, minutes=20)
        assert accounts.counts_as(tx, name, now=now, since=None if since is None else NOW + since) == expected


def test_an_account_of_before_inviters_were_kept_counts_as_itself(store: Store) -> None:
    with store.begin() as tx:
        ephemeral.put(tx, "web.account", "ada", {"salt": "aa", "hash": "bb"}, None)
        found = accounts.find(tx, "ada", now=NOW)
        assert found == Account(name="ada", salt="aa", hash="bb", invited_by="", added_at=None)
        assert found.introduced == accounts.counts_as(tx, "ada", now=NOW) == "ada"
