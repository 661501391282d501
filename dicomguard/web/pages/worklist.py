"""The start page with the upload, and the worklist of all studies."""

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from dicomguard.errors import Refused
from dicomguard.store import studies
from dicomguard.store.studies import StudyRow
from dicomguard.web import words
from dicomguard.web.identity import Identity
from dicomguard.web.site import Site

ROWS_A_PAGE = 50
FEWEST_ROWS, MOST_ROWS = 5, 200
LATEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A study as the worklist shows it."""

    row: StudyRow
    identity: Identity


def start(request: Request, site: Site) -> Response:
    """Upload, and the latest studies."""
    return site.render(request, "start.html", lines=_lines(site, limit=LATEST), limits=site.uploads.limits)


def worklist(request: Request, site: Site) -> Response:
    """All studies, the latest first, by pages; the table alone when htmx refreshes it."""
    query = request.query_params
    chosen = {
        "state": _one_of(query.get("state", ""), tuple(words.STATES)),
        "category": _one_of(query.get("category", ""), words.CATEGORIES),
        "sender": query.get("sender", "")[:16],
    }
    before = query.get("before", "")
    rows = _rows_a_page(query.get("rows", ""))
    lines = _lines(site, limit=rows + 1, before=before, **chosen)
    following = ""
    here = _filled({**chosen, "rows": query.get("rows", "")})
    if len(lines) > rows:
        lines = lines[:rows]
        following = urlencode({**here, "before": lines[-1].row.cursor})
    with site.store.read() as tx:
        counts = studies.counts(tx)
    part = request.headers.get("hx-request") == "true"
    return site.render(
        request,
        "worklist_table.html" if part else "worklist.html",
        lines=lines,
        chosen=chosen,
        here=urlencode({**here, **_filled({"before": before})}),
        following=following,
        is_first=not before,
        counts=counts,
        total=sum(counts.values()),
    )


def _rows_a_page(value: str) -> int:
    if not value:
        return ROWS_A_PAGE
    if not value.isdecimal() or not FEWEST_ROWS <= int(value) <= MOST_ROWS:
        raise Refused(f'"{value[:20]}" rows cannot be shown. Ask for {FEWEST_ROWS} to {MOST_ROWS}.')
    return int(value)


def _filled(chosen: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in chosen.items() if value}


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value and value not in allowed:
        raise Refused(f'There is nothing called "{value[:40]}" to filter by. Use the lists above the table.')
    return value


def _lines(
    site: Site, *, limit: int, before: str = "", state: str = "", category: str = "", sender: str = ""
) -> list[Line]:
    with site.store.read() as tx:
        rows = studies.listing(
            tx,
            limit=limit,
            before=before or None,
            state=state or None,
            category=category or None,
            # Uploads have no AE title; the word stands for them.
            calling_ae=None if not sender else "" if sender.lower() == "upload" else sender,
        )
        first = [studies.first_instance(tx, row.study_key) for row in rows]
    return [Line(row=row, identity=site.identities.of(instance)) for row, instance in zip(rows, first, strict=True)]
