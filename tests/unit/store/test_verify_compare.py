"""The judgement of verify as a property: a sound listing has no finding, and what is planted is found, no more."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dicomguard.store.verify import compare
from dicomguard.store.verify.findings import Kind
from dicomguard.store.verify.listings import (
    BEFORE_DELIVERY,
    DeliveryItem,
    DeliveryRow,
    File,
    InstanceRow,
    Kept,
    Revision,
    StudyListing,
)

KEY = "00aa11bb22cc33dd"
HASHES = st.integers(min_value=1, max_value=(1 << 256) - 1).map(lambda number: f"{number:064x}")
STATES = ("stored", "own", "expired", "missing")


@st.composite
def sound(draw: st.DrawFn) -> StudyListing:
    """A study without a fault."""
    hashes = draw(st.lists(HASHES, max_size=6, unique=True))
    rows = tuple(
        InstanceRow(
            id=number,
            path=f"store/2026/11/24/{KEY}/{sha256[:2]}/{sha256}.dcm",
            sha256=sha256,
            size_bytes=draw(st.integers(0, 1 << 30)),
            state=draw(st.sampled_from(STATES)),
        )
        for number, sha256 in enumerate(hashes)
    )
    files = tuple(
        File(
            path=row.path,
            size_bytes=row.size_bytes + 350,
            age_s=draw(st.floats(0, 1e6)),
            sha256=draw(st.sampled_from([None, row.sha256])),
        )
        for row in rows
        if row.state in ("stored", "own")
    )
    revisions = [_revision(draw, number) for number in range(1, draw(st.integers(0, 3)) + 1)]
    return StudyListing(
        study_key=KEY,
        current_revision=len(revisions),
        instances=rows,
        instance_files=files,
        revisions=tuple(revision for revision, _ in revisions),
        result_files=tuple(file for _, found in revisions for file in found),
        job_folders=tuple(f"jobs/{KEY}/r{item.number}" for item, _ in revisions if item.state in BEFORE_DELIVERY),
    )


def _revision(draw: st.DrawFn, number: int) -> tuple[Revision, list[File]]:
    state = draw(st.sampled_from(["opened", "judged", "delivering", "done", "failed", "superseded"]))
    judged = state in ("judged", "delivering", "done")
    folder = f"results/{KEY}/r{number}"
    verdict = Kept(kind="verdict", path=f"{folder}/ab/verdict.json", sha256="a" * 64) if judged else None
    kept = tuple(
        Kept(
            kind=kind, path=f"{folder}/{place:02d}-{kind}.dcm", sha256=f"{place}" * 64, sop_uid=f"1.2.{number}.{place}"
        )
        for place, kind in enumerate(["SEG"] * draw(st.integers(0, 2)) + ["SR", "SR-2D"])
        if state in ("delivering", "done")
    )
    deliveries = tuple(
        _delivery(draw, destination, kept, waits=state == "delivering" and place == 0)
        for place, destination in enumerate(["archive", "viewer"])
        if kept
    )
    files = [File(path=row.path, size_bytes=9, age_s=1e5, sha256=row.sha256) for row in kept]
    if verdict is not None:
        files.append(File(path=verdict.path, size_bytes=9, age_s=1e5, sha256=verdict.sha256))
        files.append(File(path=f"{folder}/ab/masks.npz", size_bytes=9, age_s=1e5, sha256="c" * 64))
    revision = Revision(
        number=number,
        state=state,
        age_s=draw(st.floats(0, 1e6)),
        manifest_sound=True if judged else None,
        verdict=verdict,
        results=kept,
        deliveries=deliveries,
        worked_on=state in BEFORE_DELIVERY,
    )
    return revision, files


def _delivery(draw: st.DrawFn, destination: str, kept: tuple[Kept, ...], *, waits: bool) -> DeliveryRow:
    plain = tuple(row.sop_uid for row in kept if row.kind == "SR-2D")
    items = []
    for row in kept:
        if row.kind == "SR-2D":
            continue
        forms = (row.sop_uid, *(plain if row.kind == "SR" else ()))
        state = "waiting" if waits else draw(st.sampled_from(["sent", "warned", "refused", "skipped"]))
        taken = draw(st.sampled_from(forms)) if state == "sent" else forms[0]
        items.append(DeliveryItem(kind=row.kind, forms=forms, sop_uid=taken, state=state))
    return DeliveryRow(
        destination=destination, state="waiting" if waits else "sent", has_next=waits, items=tuple(items)
    )


def found(listing: StudyListing, **options: object) -> Counter[Kind]:
    settings: dict[str, object] = {"running": False, **options}
    return Counter(finding.kind for finding in compare.examine(listing, **settings))  # type: ignore[arg-type]


@given(sound(), st.booleans())
def test_a_sound_study_has_no_finding(listing: StudyListing, running: bool) -> None:
    assert not found(listing, running=running)


@given(sound(), st.data())
def test_the_order_of_the_listings_does_not_matter(listing: StudyListing, data: st.DataObject) -> None:
    damaged = replace(listing, instance_files=listing.instance_files[:1], current_revision=listing.current_revision + 1)
    shuffled = replace(
        damaged,
        instances=tuple(data.draw(st.permutations(damaged.instances))),
        revisions=tuple(data.draw(st.permutations(damaged.revisions))),
        result_files=tuple(data.draw(st.permutations(damaged.result_files))),
    )
    assert found(shuffled) == found(damaged)


def _lose_files(listing: StudyListing, data: st.DataObject) -> tuple[StudyListing, Counter[Kind]]:
    kept = tuple(file for file in listing.instance_files if data.draw(st.booleans()))
    lost = len(listing.instance_files) - len(kept)
    return replace(listing, instance_files=kept), Counter({Kind.ROW_WITHOUT_FILE: lost})


def _lose_rows(listing: StudyListing, data: st.DataObject) -> tuple[StudyListing, Counter[Kind]]:
    kept = tuple(row for row in listing.instances if data.draw(st.booleans()))
    lost = {row.path for row in listing.instances} - {row.path for row in kept}
    surplus = sum(file.path in lost for file in listing.instance_files)
    return replace(listing, instances=kept), Counter({Kind.FILE_WITHOUT_ROW: surplus})


def _tear(listing: StudyListing, data: st.DataObject) -> tuple[StudyListing, Counter[Kind]]:
    sizes = {row.path: row.size_bytes for row in listing.instances}
    torn = tuple(
        replace(file, size_bytes=sizes[file.path] - 1) if data.draw(st.booleans()) else file
        for file in listing.instance_files
    )
    count = sum(one != other for one, other in zip(torn, listing.instance_files, strict=True))
    return replace(listing, instance_files=torn), Counter({Kind.FILE_DIFFERS: count})


def _flip(listing: StudyListing, data: st.DataObject) -> tuple[StudyListing, Counter[Kind]]:
    # No row has it: the hashes that are drawn are hexadecimal, and "f" alone is one of them.
    other = "x" * 64
    flipped = tuple(
        replace(file, sha256=other) if data.draw(st.booleans()) else file for file in listing.instance_files
    )
    count = sum(file.sha256 == other for file in flipped)
    return replace(listing, instance_files=flipped), Counter({Kind.FILE_DIFFERS: count})


def _lose_results(listing: StudyListing, data: st.DataObject) -> tuple[StudyListing, Counter[Kind]]:
    kept = tuple(file for file in listing.result_files if data.draw(st.booleans()))
    lost = {file.path for file in listing.result_files} - {file.path for file in kept}
    return replace(listing, result_files=kept), Counter(
        {
            Kind.VERDICT_WITHOUT_FILE: sum(path.endswith("verdict.json") for path in lost),
            Kind.RESULT_WITHOUT_FILE: sum(path.endswith(".dcm") for path in lost),
        }
    )


def _lose_work(listing: StudyListing, data: st.DataObject) -> tuple[StudyListing, Counter[Kind]]:
    idle = tuple(replace(item, worked_on=False) for item in listing.revisions)
    count = sum(item.state in BEFORE_DELIVERY for item in listing.revisions)
    return replace(listing, revisions=idle), Counter({Kind.REVISION_WITHOUT_WORKFLOW: count})


PLANTS: tuple[Callable[[StudyListing, st.DataObject], tuple[StudyListing, Counter[Kind]]], ...] = (
    _lose_files,
    _lose_rows,
    _tear,
    _flip,
    _lose_results,
    _lose_work,
)


@given(sound(), st.sampled_from(PLANTS), st.data())
def test_what_is_planted_is_found_and_nothing_else(listing: StudyListing, plant: object, data: st.DataObject) -> None:
    damaged, expected = plant(listing, data)  # type: ignore[operator]
    assert found(damaged) == +expected


@given(sound(), st.data())
def test_what_the_receive_log_holds_is_not_lost(listing: StudyListing, data: st.DataObject) -> None:
    """Any mix of row and file is explained while the record is in the log."""
    rows = [row for row in listing.instances if row.state in ("stored", "own")]
    logged = {row.sha256 for row in rows if data.draw(st.booleans())}
    mixed = replace(
        listing,
        instances=tuple(row for row in listing.instances if row.sha256 not in logged or data.draw(st.booleans())),
        instance_files=tuple(
            file
            for file in listing.instance_files
            if not any(sha256 in file.path for sha256 in logged) or data.draw(st.booleans())
        ),
    )
    assert not found(mixed, logged=logged)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_the_sum_of_rows_is_the_sum_of_acknowledgements(acknowledged: int, removed: int, rows: int) -> None:
    findings = list(compare.balance(acknowledged=acknowledged, removed=removed, rows=rows))
    assert bool(findings) == (acknowledged != removed + rows)
