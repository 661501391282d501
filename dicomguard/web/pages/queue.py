"""What is under way or waits for a person, and the steps an administrator can take."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomguard.store import refusals, studies
from dicomguard.web.site import Site

MAX_ROWS = 500


def queue(request: Request, site: Site) -> Response:
    """Work and deliveries, oldest first, and who was turned away."""
    rows = site.client.queue()
    with site.store.read() as tx:
        counts = studies.counts(tx)
        turned_away = refusals.recent(tx)
    part = request.headers.get("hx-request") == "true"
    return site.render(
        request,
        "queue_table.html" if part else "queue.html",
        rows=rows[:MAX_ROWS],
        more=max(0, len(rows) - MAX_ROWS),
        counts=counts,
        turned_away=turned_away[:50],
        space=site.store.space,
    )


def force(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Close the study now; a judged one is judged again."""
    key = request.path_params["key"]
    site.client.force(key, request.state.visitor.name)
    return _back(key)


def retry(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Start what failed again."""
    key = request.path_params["key"]
    site.client.retry(key, request.state.visitor.name)
    return _back(key)


def hold(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Keep the study from being closed, or let it go."""
    key = request.path_params["key"]
    site.client.hold(key, fields.get("on") == "1", request.state.visitor.name)
    return _back(key)


def cancel(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Stop the work on the study before anything of it is sent."""
    key = request.path_params["key"]
    site.client.cancel(key, request.state.visitor.name)
    return _back(key)


def _back(key: str) -> Response:
    return RedirectResponse(f"/studies/{key}", status_code=303)
