"""What training loses without a group of families, a family or a source: the honest guess at the forger unseen.

One short run with everything, one without each; what was left out is judged by both. Families of a group share a
method, so leaving out one of them alone flatters. Runs start from chance: weights that have seen a family cannot
unsee it. A source that is left out has no part in the alert either: the others set it, and its authentic slices are
counted. Finished runs are kept in their folders, so that an interrupted command goes on.

    python -m dicomguard.retrain.trials.left_out --data FOLDER --out FOLDER --minutes 10 --without group:paste
"""

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dicomguard.analyze.net.detector import Detector
from dicomguard.analyze.net.model import Network
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Split
from dicomguard.retrain.net import calibrate, candidate, shown
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.trials import dense, points, twins
from dicomguard.retrain.trials.effort import ProcessorClock
from dicomguard.retrain.trials.twins import Outcome

_EVERYTHING = "everything"
# Forgeries of each family and source beside which an alert is set and counted.
_PER_FAMILY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """What a run is trained without."""

    # "group:paste", "family:splice", "source:lgg".
    name: str
    families: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()

    def concerns(self, source: str, family: str) -> bool:
        """Whether a forged slice shows what was left out."""
        return family in self.families or source in self.sources


def absences(sources: Sequence[str]) -> dict[str, Absence]:
    """Everything that can be left out: groups first, then sources, then single families."""
    groups = sorted({family.group for family in ATTACKS.values()})
    found = [
        Absence(name=f"group:{group}", families=frozenset(f.name for f in ATTACKS.values() if f.group == group))
        for group in groups
    ]
    found += [Absence(name=f"source:{source}", sources=frozenset({source})) for source in sources]
    found += [Absence(name=f"family:{name}", families=frozenset({name})) for name in ATTACKS]
    return {one.name: one for one in found}


def compared(absence: Absence, whole: Sequence[Outcome], without: Sequence[Outcome]) -> dict[str, Any]:
    """What was left out, judged by both runs, and the loss with its interval over patients (paired)."""
    ours = [one for one in whole if absence.concerns(one.source, one.family)]
    theirs = [one for one in without if absence.concerns(one.source, one.family)]
    row: dict[str, Any] = {
        "left_out": absence.name,
        "with": twins.figures(ours),
        "without": twins.figures(theirs),
        "loss": None,
    }
    before, after = twins.slice_auc(ours), twins.slice_auc(theirs)
    if before is not None and after is not None:
        interval = replace(before, value=before.value - after.value, draws=before.draws - after.draws).interval()
        row["loss"] = [round(value, 4) for value in (interval.value, interval.low, interval.high)]
    return row


def main(arguments: list[str]) -> int:
    """Train the runs that are missing, judge, print the table worst first, write `left_out.json`."""
    parser = argparse.ArgumentParser(description="Short trainings without a group, a family or a source.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="CPU minutes of each run")
    parser.add_argument("--fused", action="store_true", help="fuse the maps' kernels; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-family", type=int, default=6, help="forged slices of each family and source")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--without", action="append", help="group:…, source:… or family:…; default all groups, sources")
    given = parser.parse_args(arguments)
    sources = sorted({one.source for one in dataset.read_index(given.data)})
    known = absences(sources)
    wanted = given.without or [name for name in known if not name.startswith("family:")]
    for name in wanted:
        if name not in known:
            raise Refused(f"Nothing is called {name!r}. Choose among {', '.join(known)}.")
    chosen = twins.items(given.data, split=given.split, per_family=given.per_family, seed=given.seed)
    whole = twins.outcomes(chosen, dense.dense_judge(_network(given, Absence(name=_EVERYTHING))))
    rows = []
    for name in wanted:
        absence = known[name]
        concerned = [item for item in chosen if absence.concerns(item.source, item.family)]
        network = _network(given, absence)
        row = compared(absence, whole, twins.outcomes(concerned, dense.dense_judge(network)))
        rows.append({**row, **_strangers(given, network, absence)})
        rows.sort(key=lambda row: (row["without"]["slice_auc"] is None, row["without"]["slice_auc"] or 0.0))
        table = {
            "split": given.split,
            "seed": given.seed,
            "minutes": given.minutes,
            "everything": twins.figures(whole),
            "rows": rows,
        }
        (given.out / "left_out.json").write_text(json.dumps(table, indent=1) + "\n")
    _tell(twins.line("everything, all families", twins.figures(whole)))
    for row in rows:
        _tell(twins.line(f"{row['left_out']} with", row["with"]))
        _tell(twins.line(f"{row['left_out']} without", row["without"]))
        if row["loss"] is not None:
            _tell("{:<28} {:+.3f} [{:+.3f}, {:+.3f}]".format("  loss", *row["loss"]))
        if "slices_flagged" in row:
            flagged, of, bound = row["slices_flagged"]
            hits, forged, _ = row["slices_found"]
            _tell(
                f"{'  alert set by the others':<28} authentic slices flagged {flagged} of {of} (at most {bound:.1%}), "
                f"forged found {hits} of {forged}"
            )
    return 0


def stranger(
    network: Network, data: Path, sources: Collection[str], *, split: Split, seed: int
) -> dict[str, list[float]]:
    """Slices of the `sources` at an alert that validation patients of the others set, in their series as in use.

    Authentic ones flagged and forged ones found, each as [count, of, upper bound].
    """
    detector = Detector(network, candidate.bare_head("trial", {}), torch.device("cpu"))
    parts = dataset.by_split(dataset.read_index(data))
    others = [one for one in parts["validation"] if one.source not in sources]
    own = [one for one in parts[split] if one.source in sources]

    def runs(series: Sequence[dataset.Series]) -> list[Run]:
        pixels = [dataset.read_pixels(data, one) for one in series]
        return list(shown.forgeries(detector, pixels, seed=seed, per_family=_PER_FAMILY))

    return points.slices_counted(runs(own), calibrate.alert(runs(others)))


def _strangers(given: argparse.Namespace, network: Network, absence: Absence) -> dict[str, list[float]]:
    if not absence.sources:
        return {}
    return stranger(network, given.data, absence.sources, split=given.split, seed=given.seed)


def _network(given: argparse.Namespace, absence: Absence) -> Network:
    folder = given.out / absence.name.replace(":", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    job = replace(
        dense.trial(given.data, folder, minutes=given.minutes, seed=given.seed, fused=given.fused),
        left_out_families=absence.families,
        left_out_sources=absence.sources,
    )
    return dense.short_run(job, clock=ProcessorClock(), told=_tell)


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
