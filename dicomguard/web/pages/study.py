"""One study: its answer, what was and was not looked at, where the results went."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from dicomguard.core import wording
from dicomguard.core.commitment import Commitment
from dicomguard.core.delivery import Delivery, State
from dicomguard.core.result import ResultObject
from dicomguard.core.study import Manifest, StudyRevision
from dicomguard.core.verdict import Verdict
from dicomguard.core.wording import Texts
from dicomguard.errors import Broken
from dicomguard.flow import judge
from dicomguard.store import commitments, deliveries, results, studies
from dicomguard.store.db import Store, Tx
from dicomguard.store.studies import StudyRow
from dicomguard.web import live, slices, words
from dicomguard.web.site import Site

DICOM = "application/dicom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A judged revision, with its sentences."""

    number: int
    verdict: Verdict
    manifest: Manifest
    texts: Texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that the page shows of a study."""

    row: StudyRow
    # Whether the newest revision is worked on and can be cancelled, also while the study collects or is on hold.
    in_work: bool
    revisions: tuple[StudyRevision, ...]
    # Of the revision shown; None before it is judged.
    answer: Answer | None
    results: tuple[ResultObject, ...]
    deliveries: tuple[Delivery, ...]
    # By destination, of the revision shown.
    commitments: Mapping[str, Commitment]

    @property
    def number(self) -> int:
        """Revision shown, 0 for none."""
        return self.answer.number if self.answer is not None else self.row.revision

    @property
    def is_current(self) -> bool:
        """Whether the revision shown is the newest."""
        return self.number == self.row.revision


def show(request: Request, site: Site) -> Response:
    """The whole page, or with `?part=` one of its two parts that change by themselves."""
    study = find(request, site)
    answer = study.answer
    with site.store.read() as tx:
        identity = site.identities.of(studies.first_instance(tx, study.row.study_key))
        configured = site.config.analysis.weights
        card = judge.card(site.store, tx, configured, id=answer.verdict.model.id) if answer is not None else None
    part = request.query_params.get("part", "")
    template = {"status": "study_status.html", "answer": "study_answer.html"}.get(part, "study.html")
    view = None
    if answer is not None:
        series, index = slices.asked(request, answer.verdict, answer.manifest)
        view = slices.view(site.store, answer.verdict, answer.manifest, series=series, index=index)
    return site.render(
        request,
        template,
        study=study,
        identity=identity,
        view=view,
        card=card,
        is_moving=is_moving(study.row, study.deliveries),
    )


def find(request: Request, site: Site) -> Study:
    """The study of the address; revision by the address, else the newest that is judged."""
    key = request.path_params["key"]
    with site.store.read() as tx:
        row = studies.row(tx, key)
        if row is None:
            raise HTTPException(404, "There is no such study. Look in the worklist.")
        revisions = tuple(studies.revisions(tx, key))
        number = request.path_params.get("number")
        if number is not None and not 1 <= number <= row.revision:
            raise HTTPException(404, f"This study has no revision {number}. Look at the newest one.")
        numbers = [number] if number is not None else range(row.revision, 0, -1)
        answer = next((found for n in numbers if (found := _answer(site.store, tx, key, n)) is not None), None)
        shown = answer.number if answer is not None else row.revision
        return Study(
            row=row,
            in_work=studies.state(tx, key, row.revision) in words.CANCELLABLE,
            revisions=revisions,
            answer=answer,
            results=tuple(results.of_revision(tx, key, shown)),
            deliveries=tuple(deliveries.of_revision(tx, key, shown)),
            commitments={one.destination: one for one in commitments.of_study(tx, key) if one.revision == shown},
        )


def _answer(store: Store, tx: Tx, key: str, number: int) -> Answer | None:
    kept = studies.kept_verdict(tx, key, number)
    manifest = studies.manifest(tx, key, number)
    if kept is None or manifest is None:
        return None
    verdict = read_verdict(store, tx, key, number)
    earlier = None
    if verdict.study.predecessor is not None:
        earlier = read_verdict(store, tx, key, verdict.study.predecessor.revision)
    return Answer(number=number, verdict=verdict, manifest=manifest, texts=wording.compose(verdict, manifest, earlier))


def read_verdict(store: Store, tx: Tx, key: str, number: int) -> Verdict:
    """The kept verdict, its hash verified."""
    kept = studies.kept_verdict(tx, key, number)
    if kept is None:
        raise Broken(f"Revision {number} of study {key} has no verdict. Judge it again.")
    content = (store.root / kept.path).read_bytes()
    if hashlib.sha256(content).hexdigest() != kept.sha256:
        raise Broken(f"The verdict of revision {number} of study {key} was altered. Judge it again.")
    return Verdict.from_json(json.loads(content))


def is_moving(row: StudyRow, sent: tuple[Delivery, ...]) -> bool:
    """Whether the page should go on looking."""
    return row.state in words.BUSY or any(delivery.state is State.WAITING for delivery in sent)


def follow(request: Request, site: Site) -> Response:
    """Server-sent events while the study is moving."""
    key = request.path_params["key"]

    def look() -> str:
        with site.store.read() as tx:
            row = studies.row(tx, key)
            if row is None:
                return ""
            sent = tuple(deliveries.of_revision(tx, key, row.revision))
        if not is_moving(row, sent):
            return ""
        ways = ",".join(f"{one.destination}:{one.state}:{one.attempt}" for one in sent)
        return f"{row.state}|{row.revision}|{row.progress_done}|{row.instance_count}|{row.category}|{ways}"

    return live.stream(site.seats, look)


def verdict_json(request: Request, site: Site) -> Response:
    """The document as it is kept."""
    key, number = request.path_params["key"], request.path_params["number"]
    with site.store.read() as tx:
        kept = studies.kept_verdict(tx, key, number)
    if kept is None:
        raise HTTPException(404, "This revision has no verdict yet. Wait until it is analysed.")
    return FileResponse(
        site.store.root / kept.path, media_type="application/json", filename=f"verdict-{key}-r{number}.json"
    )


def result(request: Request, site: Site) -> Response:
    """One SR or SEG as it was sent."""
    key, number = request.path_params["key"], request.path_params["number"]
    with site.store.read() as tx:
        kept = results.of_revision(tx, key, number)
    chosen = next((one for one in kept if one.sop_instance_uid == request.path_params["uid"]), None)
    if chosen is None:
        raise HTTPException(404, "There is no such result. Look at the study's page.")
    name = f"{chosen.kind}-{key}-r{number}.dcm"
    return FileResponse(results.bytes_path(site.store, chosen), media_type=DICOM, filename=name)


def slice_list(request: Request, site: Site) -> Response:
    """All slices with their outlines, for the viewer."""
    answer = _judged(request, site)
    return JSONResponse(slices.listing(request, answer.verdict, answer.manifest))


def slice_png(request: Request, site: Site) -> Response:
    """One slice, windowed, from the decoding child."""
    key, number = request.path_params["key"], request.path_params["number"]
    with site.store.read() as tx:
        manifest = studies.manifest(tx, key, number)
    if manifest is None:
        raise HTTPException(404, "This revision has no slices yet. Wait until it is analysed.")
    item = slices.locate(manifest, request.path_params["series"], request.path_params["index"])
    png = site.frames.png(site.store.root / item.path, item.frame)
    # The kept file never changes; the browser may show it again while the page is open.
    return Response(png, media_type="image/png", headers={"cache-control": "private, max-age=600"})


def _judged(request: Request, site: Site) -> Answer:
    answer = find(request, site).answer
    if answer is None:
        raise HTTPException(404, "This revision is not judged yet. Wait until it is analysed.")
    return answer
