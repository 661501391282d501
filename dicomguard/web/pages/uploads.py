"""Sending an upload, and what became of it."""

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from dicomguard.errors import DicomguardError, Refused
from dicomguard.store import studies
from dicomguard.web import site as sites
from dicomguard.web.identity import Identity
from dicomguard.web.multipart import Reader
from dicomguard.web.session import Visitor
from dicomguard.web.site import Site
from dicomguard.web.upload import Upload

TOKEN_HEADER = "x-form-token"


async def send(request: Request) -> Response:
    """Write the body to the upload's folder, answer, and sort it afterwards."""
    visitor = await run_in_threadpool(sites.admit, request)
    site = sites.of(request)
    if not visitor.may_read:
        raise Refused("Uploads need a session here. Sign in first.")
    upload = site.uploads.begin(owner=visitor.token, size_bytes=_length(request))
    try:
        reader = Reader(
            request.headers.get("content-type", ""),
            upload.folder,
            max_bytes=site.uploads.limits.total_bytes,
            max_files=site.uploads.limits.files,
            check_form=lambda token: site.gate.check_form(visitor, token),
        )
        received = await reader.read(request.stream(), form_token=request.headers.get(TOKEN_HEADER))
        # Browsers send an empty part for a file input that was left empty.
        files = [(file, name) for _, file, name in received.files if name]
        if not files:
            raise Refused("No file was chosen. Choose DICOM files, a folder, a ZIP or pictures.")
    except (DicomguardError, ClientDisconnect):
        await run_in_threadpool(site.uploads.abandon, upload)
        raise
    sorting = BackgroundTask(
        site.uploads.sort,
        upload,
        files,
        address=request.client.host if request.client else "",
        by=visitor.name or "upload",
    )
    there = f"/uploads/{upload.key}"
    if TOKEN_HEADER in request.headers:
        return JSONResponse({"next": there}, background=sorting)
    return RedirectResponse(there, status_code=303, background=sorting)


def show(request: Request, site: Site) -> Response:
    """The state of an upload; straight on to the study when there is nothing else to say."""
    visitor: Visitor = request.state.visitor
    upload = site.uploads.find(request.path_params["key"], owner=visitor.token)
    part = request.headers.get("hx-request") == "true"
    if upload is None:
        return site.render(request, "upload_gone.html", status=404)
    if upload.state == "done" and len(upload.studies) == 1 and not upload.refused and not upload.notes:
        there = f"/studies/{upload.studies[0]}"
        return Response(headers={"hx-redirect": there}) if part else RedirectResponse(there, status_code=303)
    return site.render(
        request, "upload_state.html" if part else "upload.html", upload=upload, found=_found(site, upload)
    )


def _found(site: Site, upload: Upload) -> list[tuple[str, Identity]]:
    if upload.state != "done":
        return []
    with site.store.read() as tx:
        instances = [(key, studies.first_instance(tx, key)) for key in upload.studies]
    return [(key, site.identities.of(instance)) for key, instance in instances]


def _length(request: Request) -> int | None:
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() else None
