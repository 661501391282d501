"""Who is asking: visitors on this machine, and administrators with a name, a password and a session of limited time.

Sessions, accounts and attempts lie in the database, so that they outlive the process. Of tokens and codes only the
SHA-256 is kept, of passwords only scrypt (RFC 7914).
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from dicomguard import log
from dicomguard.errors import Refused
from dicomguard.store import accounts, audit, ephemeral
from dicomguard.store.db import Store, Tx
from dicomguard.web.guard import LOOPBACK_NAMES, host_name

SESSION_COOKIE = "dicomguard_session"
VISITOR_COOKIE = "dicomguard_visitor"
TOKEN_BYTES = 32
# 100 bits; five groups of four letters and digits can be typed.
CODE_BYTES = 13
INVITATION = timedelta(days=1)
LEAST_PASSWORD = 12
MOST_PASSWORD = 200
# Attempts from one address, and from all, within the window.
ATTEMPTS = 5
ATTEMPTS_IN_ALL = 50
WINDOW = timedelta(minutes=15)
# About 60 ms and 16 MiB a try.
SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}
_NAME = re.compile(r"[a-z][a-z0-9._-]{1,31}")
_ALL = "*"
_logger = log.get("web")


class TooManyAttempts(Refused):
    """Signing in is stopped for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """The person behind a request."""

    # Name of the administrator who is signed in; "" for others.
    name: str
    # Value of the session or visitor cookie, to which the form token is bound.
    token: str
    # Whether the token is new and has to be set.
    fresh: bool
    # Whether pages may be read and studies uploaded: on this machine, or signed in.
    may_read: bool

    @property
    def is_administrator(self) -> bool:
        """Whether a session is open."""
        return bool(self.name)


class Gate:
    """Sessions and accounts of one node."""

    def __init__(self, store: Store, *, session_s: float) -> None:
        self._store = store
        self._session = timedelta(seconds=session_s)
        with store.begin() as tx:
            self._key = _form_key(tx, store)

    # ---- reading a request ----------------------------------------------------------------------------------------

    def visitor(self, request: Request) -> Visitor:
        """Who asks; costs one read when there is a session cookie."""
        token = request.cookies.get(SESSION_COOKIE, "")
        name = self._session_name(token) if token else ""
        if name:
            return Visitor(name=name, token=token, fresh=False, may_read=True)
        token = request.cookies.get(VISITOR_COOKIE, "")
        fresh = not re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
        if fresh:
            token = secrets.token_urlsafe(TOKEN_BYTES)
        return Visitor(name="", token=token, fresh=fresh, may_read=_is_local(request))

    def _session_name(self, token: str) -> str:
        with self._store.read() as tx:
            value = ephemeral.get(tx, "web.session", _sha256(token), self._store.clock.now())
        return "" if value is None else str(value["name"])

    def form_token(self, visitor: Visitor) -> str:
        """The value that each form of this visitor carries."""
        return hmac.new(self._key, visitor.token.encode(), "sha256").hexdigest()

    def check_form(self, visitor: Visitor, value: str) -> None:
        """Raise `Refused` when the form was not made for this visitor."""
        if visitor.fresh or not hmac.compare_digest(self.form_token(visitor).encode(), value.encode()):
            raise Refused("This form was made before your session changed. Load the page again and repeat the step.")

    # ---- signing in and out ---------------------------------------------------------------------------------------

    def sign_in(self, *, name: str, password: str, address: str) -> str:
        """A session token, or `Refused`; the same sentence for an unknown name and a wrong password."""
        self._count_attempt(address)
        with self._store.read() as tx:
            account = accounts.find(tx, name[:64], now=self._store.clock.now())
        # An unknown name costs as much time as a known one.
        digest = _scrypt(password, bytes.fromhex(account.salt if account else "00" * 16))
        if account is None or not hmac.compare_digest(digest, bytes.fromhex(account.hash)):
            _logger.warning("sign_in.refused", address=address)
            raise Refused("Name and password do not belong together. Check both and try again.")
        return self._open_session(account.name, address)

    def sign_up(self, *, code: str, name: str, password: str, address: str) -> str:
        """Make an account with a set-up code or an invitation and open its session."""
        self._count_attempt(address)
        check_account(name, password)
        salt = secrets.token_bytes(16)
        digest = _scrypt(password, salt)
        now = self._store.clock.now()
        with self._store.begin() as tx:
            key = _sha256(_bare(code))
            value = ephemeral.get(tx, "web.code", key, now)
            if value is None:
                _logger.warning("sign_up.refused", address=address)
                raise Refused("This code is not valid, or was used before. The newest set-up code stands in the log.")
            if accounts.find(tx, name, now=now) is not None:
                raise Refused(f'There is an administrator "{name}" already. Choose another name.')
            ephemeral.drop(tx, "web.code", key)
            account = accounts.Account(
                name=name, salt=salt.hex(), hash=digest.hex(), invited_by=str(value["by"]), added_at=now
            )
            accounts.put(tx, account)
            ephemeral.put(tx, "web.setup", "done", {"by": name}, None)
            audit.append(tx, name, "administrator.added", name, {"by": value["by"]}, now=now)
        _setup_file(self._store).unlink(missing_ok=True)
        return self._open_session(name, address)

    def invite(self, *, by: str) -> str:
        """A code with which one more person becomes administrator within a day."""
        code = _code()
        now = self._store.clock.now()
        with self._store.begin() as tx:
            ephemeral.put(tx, "web.code", _sha256(_bare(code)), {"by": by}, now + INVITATION)
            audit.append(tx, by, "administrator.invited", "", {}, now=now)
        return code

    def sign_out(self, visitor: Visitor) -> None:
        """End the session."""
        with self._store.begin() as tx:
            ephemeral.drop(tx, "web.session", _sha256(visitor.token))

    def announce_setup(self) -> None:
        """While there is no administrator: a new code in the log and in a file that only this user can read."""
        code = _code()
        now = self._store.clock.now()
        with self._store.begin() as tx:
            ephemeral.sweep(tx, now)
            if ephemeral.get(tx, "web.setup", "done", now) is not None:
                return
            last = ephemeral.get(tx, "web.setup", "code", now)
            if last is not None:
                ephemeral.drop(tx, "web.code", str(last["sha256"]))
            ephemeral.put(tx, "web.setup", "code", {"sha256": _sha256(_bare(code))}, None)
            ephemeral.put(tx, "web.code", _sha256(_bare(code)), {"by": accounts.SETUP}, None)
        path = _setup_file(self._store)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(code + "\n")
        _logger.event("setup.code_made", setup_code=code, path=str(path))

    def is_set_up(self) -> bool:
        """Whether there is an administrator."""
        with self._store.read() as tx:
            return ephemeral.get(tx, "web.setup", "done", self._store.clock.now()) is not None

    def _open_session(self, name: str, address: str) -> str:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        now = self._store.clock.now()
        with self._store.begin() as tx:
            ephemeral.put(tx, "web.session", _sha256(token), {"name": name}, now + self._session)
            ephemeral.drop(tx, "web.attempts", address)
        _logger.event("session.opened", actor=name, address=address)
        return token

    def _count_attempt(self, address: str) -> None:
        now = self._store.clock.now()
        with self._store.begin() as tx:
            for key, most in ((address, ATTEMPTS), (_ALL, ATTEMPTS_IN_ALL)):
                value = ephemeral.get(tx, "web.attempts", key, now)
                count = 0 if value is None else int(value["count"])
                if count >= most:
                    minutes = WINDOW.seconds // 60
                    raise TooManyAttempts(f"{count} attempts were made lately. Wait {minutes} minutes and try again.")
                # The window begins anew with each attempt: who keeps trying keeps waiting.
                ephemeral.put(tx, "web.attempts", key, {"count": count + 1}, now + WINDOW)

    def set_cookie(self, response: Response, request: Request, *, name: str, value: str) -> None:
        """A cookie that no script reads and no other site sends."""
        response.set_cookie(
            name,
            value,
            max_age=round(self._session.total_seconds()),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def check_account(name: str, password: str) -> None:
    """Raise `Refused` for a name or password that no account can have."""
    if not _NAME.fullmatch(name):
        raise Refused(
            f'"{name[:40]}" cannot be a name here. Use 2 to 32 small letters, digits, dots and dashes, a letter first.'
        )
    if name in accounts.RESERVED:
        raise Refused(f'"{name}" is a name of the node itself. Choose another name.')
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise Refused(
            f"The password has {len(password)} characters. Use {LEAST_PASSWORD} to {MOST_PASSWORD}, for example "
            "four words."
        )


def _is_local(request: Request) -> bool:
    """Asked on this machine itself: from loopback, by a loopback name, and not through a proxy.

    nginx as it is set by default says nothing of itself, but asks in HTTP/1.0, as no browser does.
    """
    address = request.client.host if request.client else ""
    named = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    proxied = named or request.scope["http_version"] == "1.0"
    return address in ("127.0.0.1", "::1") and host_name(request.headers["host"]) in LOOPBACK_NAMES and not proxied


def _setup_file(store: Store) -> Path:
    return store.root / "setup-code"


def _form_key(tx: Tx, store: Store) -> bytes:
    kept = ephemeral.get(tx, "web.key", "form", store.clock.now())
    if kept is None:
        kept = {"hex": secrets.token_hex(TOKEN_BYTES)}
        ephemeral.put(tx, "web.key", "form", kept, None)
    return bytes.fromhex(kept["hex"])


def _code() -> str:
    text = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode().rstrip("=")[:20]
    return "-".join(text[at : at + 4] for at in range(0, 20, 4))


def _bare(code: str) -> str:
    return re.sub(r"[^A-Z2-7]", "", code.upper())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password[:MOST_PASSWORD].encode(), salt=salt, **SCRYPT)
