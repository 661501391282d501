"""The application: its routes, and how errors become pages. Everything it needs is handed in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dicomguard import log
from dicomguard.analyze.client import Previews
from dicomguard.clock import Clock
from dicomguard.config import Config
from dicomguard.errors import Broken, DicomguardError, Refused, Unavailable
from dicomguard.flow.client import Client
from dicomguard.store.db import Store
from dicomguard.web import site as sites
from dicomguard.web.frames import Frames
from dicomguard.web.guard import Guard
from dicomguard.web.identity import Identities
from dicomguard.web.live import Seats
from dicomguard.web.pages import queue, signing, study, training, uploads, worklist
from dicomguard.web.session import Gate, TooManyAttempts
from dicomguard.web.site import HERE, Site, page, step
from dicomguard.web.unpack.item import Limits
from dicomguard.web.upload import Uploads

_logger = log.get("web")
RETRY_AFTER_S = 10


def make_app(config: Config, *, store: Store, client: Client, clock: Clock) -> Guard:
    """The page of one node, an ASGI application."""
    limits = Limits(
        total_bytes=config.web.max_upload_bytes, files=config.web.max_upload_files, zip_ratio=config.web.max_zip_ratio
    )
    site = Site(
        config=config,
        store=store,
        clock=clock,
        client=client,
        gate=Gate(store, session_s=config.web.session_s),
        uploads=Uploads(store, client, limits=limits),
        seats=Seats(),
        identities=Identities(store),
        frames=Frames(Previews()),
        templates=sites.environment(ZoneInfo(config.node.timezone)),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(site.gate.announce_setup)
        yield
        await run_in_threadpool(site.frames.close)

    app = Starlette(
        routes=_routes(),
        exception_handlers={
            DicomguardError: _told,
            HTTPException: _told_http,
            Exception: _crashed,
        },
        lifespan=lifespan,
    )
    app.state.site = site
    # Outermost, so that the answer to a crash is dressed, too.
    return Guard(app, allowed_hosts=config.web.allowed_hosts)


def _routes() -> list[Route | Mount]:
    return [
        Route("/", page(worklist.start)),
        Route("/studies", page(worklist.worklist)),
        Route("/studies/{key}", page(study.show)),
        Route("/studies/{key}/live", page(study.follow)),
        Route("/studies/{key}/force", step(queue.force), methods=["POST"]),
        Route("/studies/{key}/retry", step(queue.retry), methods=["POST"]),
        Route("/studies/{key}/hold", step(queue.hold), methods=["POST"]),
        Route("/studies/{key}/cancel", step(queue.cancel), methods=["POST"]),
        Route("/studies/{key}/r/{number:int}", page(study.show)),
        Route("/studies/{key}/r/{number:int}/verdict.json", page(study.verdict_json)),
        Route("/studies/{key}/r/{number:int}/slices.json", page(study.slice_list)),
        Route("/studies/{key}/r/{number:int}/slices/{series:int}/{index:int}.png", page(study.slice_png)),
        Route("/studies/{key}/r/{number:int}/results/{uid}.dcm", page(study.result)),
        Route("/queue", page(queue.queue)),
        Route("/training", page(training.overview, administrator=True)),
        Route("/training/cases", training.add_case, methods=["POST"]),
        Route("/training/review", step(training.second_reader), methods=["POST"]),
        Route("/training/verify", step(training.check), methods=["POST"]),
        Route("/training/start", step(training.start), methods=["POST"]),
        Route("/training/approve", step(training.approve), methods=["POST"]),
        Route("/training/decline", step(training.decline), methods=["POST"]),
        Route("/training/rollback", step(training.rollback), methods=["POST"]),
        Route("/training/runs/{key}", page(training.run, administrator=True)),
        Route("/uploads", uploads.send, methods=["POST"]),
        Route("/uploads/{key}", page(uploads.show)),
        Route("/sign-in", _open(signing.form)),
        Route("/sign-in", step(signing.sign_in, administrator=False), methods=["POST"]),
        Route("/sign-up", step(signing.sign_up, administrator=False), methods=["POST"]),
        Route("/invite", step(signing.invite), methods=["POST"]),
        Route("/sign-out", step(signing.sign_out), methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]


def _open(view: sites.View) -> sites.Endpoint:
    """A page for everybody who reaches the server."""

    def endpoint(request: Request) -> Response:
        sites.admit(request)
        return view(request, sites.of(request))

    return endpoint


def _told(request: Request, error: Exception) -> Response:
    """A family of `errors` as a page, or as JSON for our own script."""
    headers: dict[str, str] = {}
    match error:
        case TooManyAttempts():
            status = 429
        case Refused():
            status = 400
        case Unavailable():
            status, headers = 503, {"retry-after": str(RETRY_AFTER_S)}
        case Broken():
            status = 500
            _logger.error("promise.broken", message=str(error))
        case _:
            status = 500
    return _problem(request, status, str(error), headers)


def _told_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = error.detail if "." in error.detail else "There is no such page. Go back to the start page."
    return _problem(request, error.status_code, sentence, dict(error.headers or {}))


def _crashed(request: Request, error: Exception) -> Response:
    """The top of a request: a bug is logged with its place and never shown."""
    # The log reads the place from the exception that is being handled, and this one was handed over.
    try:
        raise error
    except Exception:  # noqa: BLE001 -- the top of a request
        _logger.crashed("request.failed")
    return PlainTextResponse("The page failed by a fault of the program. The log of the node says where.\n", 500)


def _problem(request: Request, status: int, sentence: str, headers: dict[str, str]) -> Response:
    if uploads.TOKEN_HEADER in request.headers:
        return JSONResponse({"problem": sentence}, status, headers=headers)
    if not hasattr(request.state, "visitor"):
        return PlainTextResponse(sentence + "\n", status, headers=headers)
    response = sites.of(request).render(request, "problem.html", status=status, sentence=sentence)
    response.headers.update(headers)
    return response
