"""Administrators' accounts: who was invited by whom and when, and whom an account counts as where two are needed.

The node sees accounts, not people: whoever invites can make a second account of their own. So a new account counts as
the one that invited it, and the record of an approval says who that was.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dicomguard.store import ephemeral
from dicomguard.store.db import Tx

# Inviter of the first account. No account may be called so, nor as the node itself acts in the audit chain.
SETUP = "set-up"
RESERVED = frozenset({SETUP, "backup", "promotion", "restore", "retention", "schedule"})
# How long an account counts as its inviter.
NEW = timedelta(days=1)
_KIND = "web.account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One administrator."""

    name: str
    # Of scrypt, hexadecimal.
    salt: str
    hash: str
    # SETUP for the first; "" and None for accounts that are older than this record of them.
    invited_by: str
    added_at: datetime | None

    @property
    def introduced(self) -> str:
        """The name, and where the account is from."""
        if self.added_at is None:
            return self.name
        day = f"{self.added_at:%Y-%m-%d}"
        if self.invited_by == SETUP:
            return f"{self.name}, who set up this node on {day}"
        return f"{self.name}, who was invited by {self.invited_by} and joined on {day}"


def put(tx: Tx, account: Account) -> None:
    """Keep an account for ever."""
    value: dict[str, Any] = {"salt": account.salt, "hash": account.hash, "invited_by": account.invited_by}
    if account.added_at is not None:
        value["added_at"] = account.added_at.isoformat()
    ephemeral.put(tx, _KIND, account.name, value, None)


def find(tx: Tx, name: str, *, now: datetime) -> Account | None:
    """The account of this name, as a person may write it."""
    value = ephemeral.get(tx, _KIND, folded(name), now)
    if value is None:
        return None
    added_at = value.get("added_at")
    return Account(
        name=folded(name),
        salt=str(value["salt"]),
        hash=str(value["hash"]),
        invited_by=str(value.get("invited_by", "")),
        added_at=None if added_at is None else datetime.fromisoformat(added_at),
    )


def counts_as(tx: Tx, name: str, *, now: datetime, since: datetime | None = None) -> str:
    """The name that an account counts as: its own, or its inviter's while it is new or where it joined after `since`.

    The inviter may be new too, and then counts as the next. A name without an account counts as itself.
    """
    established = now - NEW if since is None else min(since, now - NEW)
    account = find(tx, name, now=now)
    while account is not None and account.added_at is not None and account.added_at > established:
        inviter = find(tx, account.invited_by, now=now)
        if inviter is None:
            return account.name
        account = inviter
    return folded(name) if account is None else account.name


def folded(name: str) -> str:
    """Case and outer spaces do not make another person."""
    return name.strip().casefold()
