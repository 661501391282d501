"""Controls that forge and judge: what happens at part of a forgery's strength, at none, and outside the head.

At strength 0 the whole path of a forgery is taken and nothing changes (identity forgery): pixels and score must be
those of the authentic study.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dicomguard.retrain.evaluate.bench import Bench, Judged, by_source, most, spread
from dicomguard.retrain.evaluate.cases import SMALLEST_MASK_PX, Case, forge
from dicomguard.retrain.evaluate.records import IDENTITY, DoseRecord, OutsideRecord
from dicomguard.retrain.tamper.families import Family
from dicomguard.retrain.tamper.forged import Mask, Pixels

STRENGTHS = (IDENTITY, 0.25, 0.5, 0.75, 1.0)
_PATCH = 24


def judge_doses(bench: Bench, cases: Sequence[Case], per_dose: Mapping[str, int]) -> list[DoseRecord]:
    """Some forgeries of each source laid on at rising strength; families take turns over the cases."""
    chosen = {source: spread(own, most(per_dose, source)) for source, own in by_source(cases).items()}
    bench.expect(sum(len(own) for own in chosen.values()))
    records: list[DoseRecord] = []
    for source, donors in by_source(cases).items():

        def judge(placed: tuple[int, Case], source: str = source, donors: Sequence[Case] = donors) -> list[DoseRecord]:
            place, case = placed
            return _doses(bench, case, bench.families[(2 * place + 5 * len(source)) % len(bench.families)], donors)

        for found in bench.each(judge, list(enumerate(chosen[source]))):
            records += found
    return records


def _doses(bench: Bench, case: Case, family: Family, donors: Sequence[Case]) -> list[DoseRecord]:
    forgery = forge(case, family, donors, seed=bench.seed)
    if forgery is None:
        return []
    authentic = bench.planes(case, case.pixels, "dose/authentic")
    counted = [z for z in authentic.scores if int(forgery.mask(z)[0].sum()) >= SMALLEST_MASK_PX]
    records = []
    for strength in STRENGTHS:
        pixels = forgery.at(strength)
        judged = bench.planes(case, pixels, f"dose/{family.name}/{strength}")
        seen = [z for z in counted if z in judged.scores]
        records.append(
            DoseRecord(
                source=case.source,
                patient=case.patient,
                family=family.name,
                strength=strength,
                scores=tuple(judged.scores[z] for z in seen),
                twins=tuple(authentic.scores[z] for z in seen),
                flagged=judged.flagged,
                equal_pixels=bool(np.array_equal(pixels, case.pixels)),
            )
        )
    return records


def judge_outside(bench: Bench, cases: Sequence[Case], per_source: Mapping[str, int]) -> list[OutsideRecord]:
    """Tissue pasted into the air of authentic studies: no finding may arise inside the head."""
    chosen = [case for source, own in by_source(cases).items() for case in spread(own, most(per_source, source))]
    bench.expect(len(chosen))
    found = bench.each(lambda case: _outside(bench, case), chosen)
    return [record for record in found if record is not None]


def _outside(bench: Bench, case: Case) -> OutsideRecord | None:
    edited = _with_tissue_in_air(case)
    if edited is None:
        return None
    return OutsideRecord(
        source=case.source,
        patient=case.patient,
        before=_inside(bench.planes(case, case.pixels, "outside/before"), case.head),
        after=_inside(bench.planes(case, edited, "outside/after"), case.head),
    )


def _with_tissue_in_air(case: Case) -> Pixels | None:
    """The middle plane with a square from the head's middle in a corner of air; None where no corner is air."""
    z = len(case.pixels) // 2
    head = case.head[z]
    rows, columns = np.nonzero(head)
    if not len(rows):
        return None
    top, left = int(np.median(rows)) - _PATCH // 2, int(np.median(columns)) - _PATCH // 2
    tissue = np.s_[z, top : top + _PATCH, left : left + _PATCH]
    height, width = head.shape
    for row in (4, height - _PATCH - 4):
        for column in (4, width - _PATCH - 4):
            if not head[row - 4 : row + _PATCH + 4, column - 4 : column + _PATCH + 4].any():
                stack = case.pixels.copy()
                stack[z, row : row + _PATCH, column : column + _PATCH] = stack[tissue]
                return stack
    return None


def _inside(judged: Judged, head: Mask) -> int:
    """Findings of forgery that touch the head."""
    place = {sop: z for z, sop in enumerate(judged.sops)}
    return sum(
        any((mask & head[place[sop]]).any() for sop, mask in region.masks.items())
        for region in judged.scored.regions
        if region.category in ("added", "removed")
    )
