"""The training page: cases and their second readers, runs with their curves, and the decision about a model."""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from dicomguard.analyze import client as analyze_client
from dicomguard.analyze import weights
from dicomguard.child import Child, ChildEnded, ChildSilent
from dicomguard.core.verdict import Model
from dicomguard.errors import Broken, DicomguardError, Refused
from dicomguard.flow import approval, judge
from dicomguard.retrain import record
from dicomguard.retrain.archive import contents, review, verify
from dicomguard.retrain.archive.case import Entry
from dicomguard.retrain.archive.manifest import MANIFEST
from dicomguard.store import accounts, models, runs
from dicomguard.store.db import Tx
from dicomguard.web import curves
from dicomguard.web import site as sites
from dicomguard.web.multipart import Reader, Received
from dicomguard.web.site import Site, required

CASE_MEMORY_BYTES = 3 << 30
CASE_CPU_S = 900.0
CASE_SILENT_S = 300.0
MOST_CASES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What the page shows of the archive."""

    entries: tuple[Entry, ...]
    more: int
    states: Mapping[str, int]
    # "" when the hash chain holds.
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that waits for a person."""

    row: models.ModelRow
    # Who started its run, and who had invited them.
    maker: str
    # Why it cannot be approved; "" where it can.
    outdated: str

    @classmethod
    def of(cls, tx: Tx, row: models.ModelRow, *, now: datetime) -> "Candidate":
        """With what the tables say of it at this moment."""
        account = accounts.find(tx, row.proposed_by, now=now)
        maker = account.introduced if account else row.proposed_by
        return cls(row=row, maker=maker, outdated=models.outdated(tx, row))


def overview(request: Request, site: Site) -> Response:
    """Models, runs, archive."""
    return _overview(request, site)


def _overview(
    request: Request, site: Site, *, problem: str = "", said: tuple[str, ...] = (), status: int = 200
) -> Response:
    with site.store.read() as tx:
        listed = models.listing(tx)
        all_runs = runs.listing(tx)
        candidates = [Candidate.of(tx, row, now=site.clock.now()) for row in listed if row.state == "candidate"]
        card = judge.card(site.store, tx, site.config.analysis.weights)
    return site.render(
        request,
        "training.html",
        status=status,
        problem=problem,
        said=said,
        shipped=shipped(),
        current=next((row for row in listed if row.state == "current"), None),
        candidates=candidates,
        card=card,
        others=[row for row in listed if row.state in ("retired", "rejected")][:20],
        runs=all_runs,
        archive=_archive(site.config.retrain.archive),
        two_people=site.config.retrain.two_people,
        cron=site.config.retrain.cron,
    )


def shipped() -> Model | None:
    """The model of the package; None where the weights are missing."""
    try:
        return analyze_client.model_of(weights.shipped())
    except (Refused, Broken, FileNotFoundError):
        return None


def _archive(root: Path | None) -> Archive | None:
    if root is None:
        return None
    if not (root / MANIFEST).is_file():
        return Archive(entries=(), more=0, states={}, problem="")
    try:
        entries = contents.read(root).entries
    except DicomguardError as error:
        return Archive(entries=(), more=0, states={}, problem=str(error))
    # Those that wait for a reader first, then the newest.
    newest_first = entries[::-1]
    ordered = [entry for entry in newest_first if entry.state == "to review"]
    ordered += [entry for entry in newest_first if entry.state != "to review"]
    return Archive(
        entries=tuple(ordered[:MOST_CASES]),
        more=max(0, len(ordered) - MOST_CASES),
        states=Counter(entry.state for entry in entries),
        problem="",
    )


def run(request: Request, site: Site) -> Response:
    """One run: its state and curves, and its report when there is one."""
    with site.store.read() as tx:
        row = runs.row(tx, request.path_params["key"])
    if row is None:
        raise HTTPException(404, "There is no such training run. Look at the training page.")
    folder = site.store.root / "retrain" / row.key
    lines = record.progress(folder)
    report = folder / record.REPORT
    part = request.headers.get("hx-request") == "true"
    return site.render(
        request,
        "run_state.html" if part else "run.html",
        run=row,
        last=lines[-1] if lines else {},
        chart=curves.chart(lines),
        size=(curves.WIDTH, curves.HEIGHT, curves.LEFT, curves.BOTTOM, curves.TOP),
        report=json.loads(report.read_bytes()) if report.is_file() else None,
    )


def start(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Ask for a run now."""
    if site.config.retrain.archive is None:
        raise Refused("No archive is configured, so there is nothing to train on. Set archive in [retrain].")
    key = site.client.start_retraining(request.state.visitor.name)
    return RedirectResponse(f"/training/runs/{key}", status_code=303)


def approve(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Let a candidate judge from the next study on."""
    approval.approve(
        site.store,
        required(fields, "model", "The name of the model"),
        by=request.state.visitor.name,
        two_people=site.config.retrain.two_people,
        now=site.clock.now(),
    )
    return RedirectResponse("/training", status_code=303)


def decline(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Say no to a candidate."""
    approval.decline(
        site.store,
        required(fields, "model", "The name of the model"),
        by=request.state.visitor.name,
        reason=fields.get("reason", "")[:400],
        now=site.clock.now(),
    )
    return RedirectResponse("/training", status_code=303)


def rollback(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Let the model before the current one judge again."""
    approval.rollback(site.store, by=request.state.visitor.name, now=site.clock.now())
    return RedirectResponse("/training", status_code=303)


def second_reader(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Accept or decline a case that somebody else added."""

    def counts_as(name: str) -> str:
        with site.store.read() as tx:
            return accounts.counts_as(tx, name, now=site.clock.now())

    review.review(
        _root(site),
        required(fields, "case", "The id of the case"),
        by=request.state.visitor.name,
        accepted=fields.get("accepted") == "1",
        remark=fields.get("remark", ""),
        clock=site.clock,
        disk=site.store.disk,
        counts_as=counts_as,
    )
    return RedirectResponse("/training#archive", status_code=303)


def check(request: Request, site: Site, fields: Mapping[str, str]) -> Response:
    """Verify the hash chain and every file of the archive."""
    found = verify.verify(_root(site))
    if found.faults:
        sentences = " ".join(fault.sentence for fault in found.faults[:5])
        return _overview(request, site, problem=f"{len(found.faults)} faults. {sentences}")
    return _overview(
        request,
        site,
        said=(f"{found.files} files of {found.cases} cases are as they were written; the chain of lines is whole.",),
    )


async def add_case(request: Request) -> Response:
    """Images and masks into the archive; the body is written to a folder, and a child opens it."""
    visitor = await run_in_threadpool(sites.admit, request)
    site = sites.of(request)
    if not visitor.is_administrator:
        raise HTTPException(403, "This step is for administrators. Sign in first.")
    root = _root(site)
    upload = site.uploads.begin(owner=visitor.token, size_bytes=None)
    try:
        reader = Reader(
            request.headers.get("content-type", ""),
            upload.folder,
            max_bytes=site.uploads.limits.total_bytes,
            max_files=site.uploads.limits.files,
            check_form=lambda token: site.gate.check_form(visitor, token),
        )
        received = await reader.read(request.stream(), form_token=None)
        said, refused = await run_in_threadpool(_add, upload.folder, received, root, visitor.name)
    except ClientDisconnect:
        return Response(status_code=400)
    finally:
        await run_in_threadpool(site.uploads.abandon, upload)
    return await run_in_threadpool(
        lambda: _overview(request, site, problem=" ".join(refused), said=said, status=400 if refused else 200)
    )


def _add(folder: Path, received: Received, root: Path, curator: str) -> tuple[tuple[str, ...], list[str]]:
    """Sentences of what was added, and of what was refused."""
    fields = {key: value.strip() for key, value in received.fields.items()}
    asked: dict[str, Any] = {
        "folder": str(folder),
        "archive": str(root),
        "curator": curator,
        "source": required(fields, "source", "The source"),
        "licence": required(fields, "licence", "The licence"),
        "label": fields.get("label", ""),
        "label_provenance": fields.get("label_provenance", ""),
        "patient": fields.get("patient", ""),
        "sequence": fields.get("sequence", ""),
    }
    files = [(field, file, name) for field, file, name in received.files if name]
    (folder / "index.json").write_text(json.dumps(files), "utf-8")
    said, refused = [], []
    argv = [sys.executable, "-m", "dicomguard.web.unpack.cases"]
    with Child.start(
        argv, memory_bytes=CASE_MEMORY_BYTES, cpu_s=CASE_CPU_S, nice=5, env_extra={"OPENBLAS_NUM_THREADS": "1"}
    ) as adder:
        adder.send(asked)
        while True:
            try:
                message = adder.receive(CASE_SILENT_S)
            except ChildSilent:
                refused.append(f"Adding made no progress for {CASE_SILENT_S:.0f} s and was ended. Send fewer files.")
                break
            except ChildEnded:
                refused.append(
                    f"The program that opens the files {adder.exit_reason()}. Send fewer files to find which."
                )
                break
            if message.get("done"):
                break
            if "refused" in message:
                refused.append(str(message["refused"]))
            else:
                said.append(
                    f"Case {message['case']} of {message['patient']} was added with {message['files']} files. "
                    "A second person has to read it before it is trained on."
                )
    return tuple(said), refused


def _root(site: Site) -> Path:
    if site.config.retrain.archive is None:
        raise Refused("No archive is configured. Set archive in [retrain] to a folder.")
    return site.config.retrain.archive
