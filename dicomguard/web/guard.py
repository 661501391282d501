"""What every request and every answer has to have, before a page is asked: host, origin, size, headers.

The host list stops DNS rebinding: a foreign page that resolves its name to 127.0.0.1 still sends its own name. Origin
and Sec-Fetch-Site stop forged posts together with the token of `session`. The policy lets scripts, styles and pictures
come from this server only, and allows none inside a page.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = ("GET", "HEAD")
# Forms are short; uploads have limits of their own.
MAX_FORM_BYTES = 64 << 10
UPLOAD_PATHS = ("/uploads", "/training/cases")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not "no-referrer": browsers then send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-frame-options": "DENY",
}


def host_name(host: str) -> str:
    """The name of a Host header without its port: "[::1]:8042" is "[::1]"."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in (*LOOPBACK_NAMES, *allowed_hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and dress the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        static = scope["path"].startswith("/static/")

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                # Pages and pictures of patients stay out of the browser's disk cache.
                headers.setdefault("cache-control", "no-cache" if static else "no-store")
            await send(message)

        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, dressed)
            return
        status, sentence = problem
        await PlainTextResponse(sentence + "\n", status_code=status)(scope, receive, dressed)

    def _problem(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or host_name(host) not in self._allowed:
            return 421, f'This server is not known as "{host[:100]}". Use a name of [web] allowed_hosts, or 127.0.0.1.'
        if scope["method"] in SAFE_METHODS:
            return None
        if scope["method"] != "POST":
            return 405, f"The method {scope['method']} is not served. Use GET or POST."
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "The request was sent by another page. Open this page itself and try again."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "The request was sent by another page. Open this page itself and try again."
        if scope["path"] in UPLOAD_PATHS:
            return None
        length = headers.get("content-length")
        if length is None or not length.isdecimal():
            return 411, "The form says no length. Send it with a browser."
        if int(length) > MAX_FORM_BYTES:
            return 413, f"The form has {length} bytes; at most {MAX_FORM_BYTES} are taken. Shorten it."
        return None
