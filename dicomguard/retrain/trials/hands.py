"""What a choice between weights rests on: validation patients, forged by the families of each author.

The families held back from training are forgeries by a stranger to the weights: what they cost is the honest guess at
the next forger. Slices are scored as in the product, beside the others of their series, with the
weights' own calibration.

    python -m dicomguard.retrain.trials.hands --data FOLDER --out FOLDER --hand fourth
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dicomguard.analyze.scores import FEWEST_FOR_SERIES, Calibration
from dicomguard.retrain.evaluate.metrics import Drawn, draw_auc, mean_of
from dicomguard.retrain.net import calibrate
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.tamper.families import ATTACKS, HELD_BACK, hand
from dicomguard.retrain.trials import judged

# Fewer forged slices of a family in a source than this have no AUC of their own.
_FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One slice or one stack: its score, and "" as the family of what is authentic."""

    source: str
    # Within all sources: stacks of several are drawn together.
    patient: str
    family: str
    score: float


def main(arguments: list[str]) -> int:
    """Judge validation patients and their forgeries, print the table worst first, write `hands.json`."""
    known = [*ATTACKS, *HELD_BACK]
    authors = sorted({hand(name) for name in known})
    parser = judged.parser("Validation figures by author of the forgery.")
    parser.add_argument("--hand", action="append", choices=authors, help="default: all")
    given = parser.parse_args(arguments)
    seen = judged.judge(given, [name for name in known if hand(name) in (given.hand or authors)])
    found = {**seen.made, **table([run for run in seen.runs if not run.excerpt], seen.detector.calibration)}
    (given.out / "hands.json").write_text(json.dumps(found, indent=1) + "\n")
    for line in lines(found):
        sys.stdout.write(line + "\n")
    return 0


def table(runs: Sequence[Run], calibration: Calibration) -> dict[str, Any]:
    """Slice AUC of each family (mean over sources), its hand's and its sources' means, and what stacks show."""
    slices, stacks = list(_slices(runs, calibration)), list(_stacks(runs, calibration))
    by_pair = _aucs(slices)
    families = sorted({family for _, family in by_pair})
    return {
        "families": sorted(
            (
                {
                    "family": family,
                    "auc": _rounded(mean_of([one for (_, name), one in by_pair.items() if name == family])),
                    "sources": {
                        source: round(one.value, 4) for (source, name), one in by_pair.items() if name == family
                    },
                }
                for family in families
            ),
            key=lambda row: row["auc"][0],
        ),
        "hands": {
            author: _rounded(_over_sources({pair: one for pair, one in by_pair.items() if hand(pair[1]) == author}))
            for author in sorted({hand(family) for family in families})
        },
        "sources": {
            source: _rounded(mean_of([one for (name, _), one in by_pair.items() if name == source]))
            for source in sorted({source for source, _ in by_pair})
        },
        "mean": _rounded(_over_sources(by_pair)),
        "authentic_slices_flagged": _flagged(slices, 0.0, authentic=True),
        "forged_slices_found": _flagged(slices, 0.0, authentic=False),
        "stack_auc": _rounded(_stack_auc(stacks)),
        "authentic_stacks_flagged": _flagged(stacks, calibrate.ALERT, authentic=True),
        "forged_stacks_found": _flagged(stacks, calibrate.ALERT, authentic=False),
    }


def _slices(runs: Sequence[Run], calibration: Calibration) -> Iterator[Scored]:
    """All slices of authentic runs, the forged ones of the others; score 0 is the alert."""
    for run, values in zip(runs, calibrate.slice_values(runs, calibration), strict=True):
        for plane, value in zip(run.planes, values, strict=True):
            if not run.family or plane in run.forged:
                yield _scored(run, float(value))


def _stacks(runs: Sequence[Run], calibration: Calibration) -> Iterator[Scored]:
    for run in runs:
        if len(run.planes) >= FEWEST_FOR_SERIES and (run.forged or not run.family):
            yield _scored(run, calibrate.study_scores(run, calibration)[0])


def _scored(run: Run, score: float) -> Scored:
    one = run.pixels.series
    return Scored(source=one.source, patient=one.patient_key, family=run.family, score=score)


def _aucs(slices: Sequence[Scored]) -> dict[tuple[str, str], Drawn]:
    """AUC of each source and family against all authentic slices of the source, patients drawn."""
    found = {}
    for source in sorted({one.source for one in slices}):
        own = [one for one in slices if one.source == source]
        authentic = [one for one in own if not one.family]
        for family in sorted({one.family for one in own} - {""}):
            forged = [one for one in own if one.family == family]
            auc = _auc(forged, authentic) if len(forged) >= _FEWEST else None
            if auc is not None:
                found[source, family] = auc
    return found


def _auc(forged: Sequence[Scored], authentic: Sequence[Scored]) -> Drawn | None:
    return draw_auc(
        [one.score for one in forged],
        [one.patient for one in forged],
        [one.score for one in authentic],
        [one.patient for one in authentic],
    )


def _over_sources(by_pair: dict[tuple[str, str], Drawn]) -> Drawn | None:
    """Mean over families, then over sources, which are drawn each for itself."""
    sources = sorted({source for source, _ in by_pair})
    means = (mean_of([one for (name, _), one in by_pair.items() if name == source]) for source in sources)
    return mean_of([one for one in means if one is not None])


def _stack_auc(stacks: Sequence[Scored]) -> Drawn | None:
    return _auc([one for one in stacks if one.family], [one for one in stacks if not one.family])


def _flagged(scored: Sequence[Scored], point: float, *, authentic: bool) -> list[float]:
    """Count, of how many, 95 % upper bound of the share."""
    flags = [one.score >= point for one in scored if authentic == (not one.family)]
    return [sum(flags), len(flags), round(calibrate.upper_bound(sum(flags), len(flags)), 4)]


def _rounded(drawn: Drawn | None) -> list[float] | None:
    if drawn is None:
        return None
    interval = drawn.interval()
    return [round(value, 4) for value in (interval.value, interval.low, interval.high)]


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The table for a terminal."""
    for row in found["families"]:
        shares = "  ".join(f"{source} {value:.2f}" for source, value in row["sources"].items())
        yield f"{row['family']:<18} {_words(row['auc'])}  {shares}"
    for kind in ("hands", "sources"):
        for name, auc in found[kind].items():
            yield f"{name:<18} {_words(auc)}"
    yield f"{'mean of sources':<18} {_words(found['mean'])}"
    for name in [kind for kind in ("slices", "stacks", "pictures") if f"authentic_{kind}_flagged" in found]:
        flagged, of, bound = found[f"authentic_{name}_flagged"]
        hits, forged, _ = found[f"forged_{name}_found"]
        yield f"{name}: authentic flagged {flagged} of {of} (at most {bound:.1%}), forged found {hits} of {forged}"
    yield f"{'AUC of stacks':<18} {_words(found['stack_auc'])}"


def _words(auc: Sequence[float] | None) -> str:
    return "too few to say" if auc is None else "{:.3f} [{:.3f}, {:.3f}]".format(*auc)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
