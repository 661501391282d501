"""What all pages share: the node's doors, the templates, and the two ways into a page (read it, or take a step).

Views are plain functions that run in a thread, since the database and the decoding child may make them wait.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dicomguard import __version__
from dicomguard.clock import Clock
from dicomguard.config import Config
from dicomguard.core import english, wording
from dicomguard.core.study import OpenedBecause
from dicomguard.errors import Refused
from dicomguard.flow.client import Client
from dicomguard.store.db import Store
from dicomguard.web import slices, words
from dicomguard.web.frames import Frames
from dicomguard.web.identity import Identities
from dicomguard.web.live import Seats
from dicomguard.web.session import SESSION_COOKIE, VISITOR_COOKIE, Gate, Visitor
from dicomguard.web.upload import Uploads

HERE = Path(__file__).parent
View = Callable[[Request, "Site"], Response]
Endpoint = Callable[[Request], Response]
# A form of ours has no more fields than this.
MAX_FORM_FIELDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The doors of one node."""

    config: Config
    store: Store
    clock: Clock
    client: Client
    gate: Gate
    uploads: Uploads
    seats: Seats
    identities: Identities
    frames: Frames
    templates: jinja2.Environment

    def render(self, request: Request, name: str, *, status: int = 200, **context: Any) -> Response:
        """A page or a part of one, for the visitor of this request."""
        visitor: Visitor = request.state.visitor
        html = self.templates.get_template(name).render(
            visitor=visitor, form_token=self.gate.form_token(visitor), path=request.url.path, **context
        )
        response = HTMLResponse(html, status_code=status)
        if visitor.fresh:
            self.gate.set_cookie(response, request, name=VISITOR_COOKIE, value=visitor.token)
        return response

    def signed_in(self, request: Request, token: str, *, to: str) -> Response:
        """Go on with a new session."""
        response = RedirectResponse(to, status_code=303)
        self.gate.set_cookie(response, request, name=SESSION_COOKIE, value=token)
        return response


def of(request: Request) -> Site:
    """The site of this application."""
    site: Site = request.app.state.site
    return site


def admit(request: Request) -> Visitor:
    """Find out who asks, and keep it with the request."""
    visitor = of(request).gate.visitor(request)
    request.state.visitor = visitor
    return visitor


def page(view: View, *, administrator: bool = False) -> Endpoint:
    """An endpoint for reading; who may not is sent to sign in."""

    def endpoint(request: Request) -> Response:
        visitor = admit(request)
        if not visitor.may_read or (administrator and not visitor.is_administrator):
            return RedirectResponse(f"/sign-in?next={request.url.path}", status_code=303)
        return view(request, of(request))

    return endpoint


def step(view: Callable[[Request, Site, Mapping[str, str]], Response], *, administrator: bool = True) -> Any:
    """An endpoint for a form: token checked, then the view; nothing is changed by reading."""

    async def endpoint(request: Request) -> Response:
        visitor = await run_in_threadpool(admit, request)
        async with request.form(max_files=0, max_fields=MAX_FORM_FIELDS) as form:
            fields = texts(form)
        site = of(request)
        site.gate.check_form(visitor, fields.get("form_token", ""))
        if administrator and not visitor.is_administrator:
            raise HTTPException(403, "This step is for administrators. Sign in first.")
        return await run_in_threadpool(view, request, site, fields)

    return endpoint


def texts(form: FormData) -> dict[str, str]:
    """Text fields of a form, stripped; the last of a name counts."""
    return {key: value.strip() for key, value in form.multi_items() if isinstance(value, str)}


def required(fields: Mapping[str, str], name: str, what: str) -> str:
    """A field that has to be filled in."""
    value = fields.get(name, "")
    if not value:
        raise Refused(f"{what} is empty. Fill it in.")
    return value


def environment(zone: ZoneInfo) -> jinja2.Environment:
    """Templates that escape everything and refuse an unknown name."""

    def local(moment: datetime | None) -> str:
        return "" if moment is None else moment.astimezone(zone).strftime("%d %b %Y %H:%M")

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["local"] = local
    env.filters["score"] = words.score
    env.globals.update(
        answer=wording.answer,
        segment_label=wording.segment_label,
        region_size=wording.size,
        because={key: english.TEXTS[f"because_{key}"] for key in get_args(OpenedBecause)},
        series_name=slices.series_name,
        place_of=slices.place_of,
        words=words,
        version=__version__,
    )
    return env
