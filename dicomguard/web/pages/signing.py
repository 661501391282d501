"""Signing in, making an account with a code, inviting, signing out."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomguard.errors import Refused
from dicomguard.web.session import SESSION_COOKIE, TooManyAttempts
from dicomguard.web.site import Site


def form(request: Request, site: Site) -> Response:
    """The page to sign in; before set-up it asks for the code first."""
    return _form(request, site, problem="")


def _form(request: Request, site: Site, *, problem: str, status: int = 200) -> Response:
    return site.render(
        request,
        "sign_in.html",
        status=status,
        problem=problem,
        is_set_up=site.gate.is_set_up(),
        following=_inside(request.query_params.get("next", "/")),
    )


def sign_in(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Name and password."""
    try:
        token = site.gate.sign_in(
            name=fields.get("name", ""), password=fields.get("password", ""), address=_address(request)
        )
    except Refused as error:
        return _form(request, site, problem=str(error), status=_status(error))
    return site.signed_in(request, token, to=_inside(fields.get("next", "/")))


def sign_up(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Code, name and a new password."""
    try:
        token = site.gate.sign_up(
            code=fields.get("code", ""),
            name=fields.get("name", ""),
            password=fields.get("password", ""),
            address=_address(request),
        )
    except Refused as error:
        return _form(request, site, problem=str(error), status=_status(error))
    return site.signed_in(request, token, to=_inside(fields.get("next", "/")))


def invite(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """A code for one more administrator, shown once."""
    return site.render(request, "invited.html", code=site.gate.invite(by=request.state.visitor.name))


def sign_out(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """End the session."""
    site.gate.sign_out(request.state.visitor)
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _status(error: Refused) -> int:
    return 429 if isinstance(error, TooManyAttempts) else 403


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _inside(path: str) -> str:
    """A path of this server; another server's address must not be reached through us."""
    parts = urlsplit(path)
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if inside and path.isprintable() and "\\" not in path else "/"
