"""What training loses without a group of families, a family, a source or a hospital: an honest guess at the unseen.

Short runs from chance, for weights that have seen a family cannot unsee it. What a run was trained without it judges,
and so does another run that knew it. Families of a group share a method, so leaving out one of them alone flatters. A
run may go without several things at once, joined by "+": two runs that each go without half of the groups judge every
family for the price of two, and each is the other's measure. Where no run of the command knew something, one with
everything is trained. The alert is set without what was left out, too, and what it flags is counted (`unseen`).
Finished runs are kept in their folders, so that an interrupted command goes on.

    python -m dicomguard.retrain.trials.left_out --data FOLDER --out FOLDER --minutes 10 --without group:paste
"""

import argparse
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dicomguard.analyze.net.model import Network
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.net.train import TrainJob
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.trials import dense, hands, twins, unseen
from dicomguard.retrain.trials.effort import ProcessorClock
from dicomguard.retrain.trials.twins import Outcome

_EVERYTHING = "everything"
_AND = "+"
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """What a run is trained without."""

    # "group:paste", "family:splice", "source:lgg", "hospital:lgg/DU", or several of them joined by "+".
    name: str
    families: frozenset[str] = frozenset()
    # Names of sources and of groups of a source (`Series.origins`).
    sources: frozenset[str] = frozenset()

    def concerns(self, origins: frozenset[str], family: str) -> bool:
        """Whether a forged slice shows what was left out."""
        return family in self.families or bool(origins & self.sources)

    def meets(self, other: "Absence") -> bool:
        """Whether something is missing in both; a hospital is missing where its source is."""
        return bool(self.families & other.families) or any(
            f"{one}/".startswith(f"{two}/") or f"{two}/".startswith(f"{one}/")
            for one in self.sources
            for two in other.sources
        )


def absences(series: Sequence[dataset.Series]) -> dict[str, Absence]:
    """All that can be left out by itself: groups of families, sources and their hospitals, single families."""
    sources = sorted({one.source for one in series})
    hospitals = sorted({f"{one.source}/{one.group}" for one in series if one.source in dataset.HOSPITALS_IN})
    groups = sorted({family.group for family in ATTACKS.values()})
    found = [
        Absence(name=f"group:{group}", families=frozenset(f.name for f in ATTACKS.values() if f.group == group))
        for group in groups
    ]
    found += [Absence(name=f"source:{source}", sources=frozenset({source})) for source in sources]
    found += [Absence(name=f"hospital:{name}", sources=frozenset({name})) for name in hospitals]
    found += [Absence(name=f"family:{name}", families=frozenset({name})) for name in ATTACKS]
    return {one.name: one for one in found}


def together(parts: Sequence[Absence]) -> Absence:
    """Several that a run goes without at once."""
    return Absence(
        name=_AND.join(part.name for part in parts),
        families=frozenset[str]().union(*(part.families for part in parts)),
        sources=frozenset[str]().union(*(part.sources for part in parts)),
    )


def compared(absence: Absence, whole: Sequence[Outcome], without: Sequence[Outcome]) -> dict[str, Any]:
    """What was left out, judged by both runs, and the loss with its interval over patients (paired)."""
    ours = [one for one in whole if absence.concerns(one.origins, one.family)]
    theirs = [one for one in without if absence.concerns(one.origins, one.family)]
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
    parser.add_argument(
        "--without",
        action="append",
        help="group:…, source:…, hospital:… or family:…, several for one run with + between; default groups, sources",
    )
    given = parser.parse_args(arguments)
    known = absences(dataset.read_index(given.data))
    runs = [
        [_named(name, known) for name in text.split(_AND)]
        for text in given.without or [name for name in known if name.startswith(("group:", "source:"))]
    ]
    chosen = twins.items(given.data, split=given.split, per_family=given.per_family, seed=given.seed)

    @cache
    def found(absence: Absence, only: Absence) -> list[Outcome]:
        concerned = [item for item in chosen if only.concerns(item.origins, item.family)]
        return twins.outcomes(concerned, dense.dense_judge(_network(given, absence)))

    @cache
    def in_series(run: Absence) -> unseen.Unseen:
        return unseen.look(
            _network(given, run),
            given.data,
            families=run.families,
            sources=run.sources,
            split=given.split,
            seed=given.seed,
        )

    rows: list[dict[str, Any]] = []
    for parts in runs:
        run = together(parts)
        for part in parts:
            other = next((one for one in map(together, runs) if not one.meets(part)), Absence(name=_EVERYTHING))
            row = compared(part, found(other, part), found(run, part))
            product = in_series(run).table(families=part.families, sources=part.sources)
            row |= {"run": run.name, "beside": other.name, **dense.effort(_job(given, run))}
            rows.append({**row, "as_in_the_product": product})
            rows.sort(key=lambda row: (row["without"]["slice_auc"] is None, row["without"]["slice_auc"] or 0.0))
            table = {"split": given.split, "seed": given.seed, "minutes": given.minutes, "rows": rows}
            (given.out / "left_out.json").write_text(json.dumps(table, indent=1) + "\n")
    for row in rows:
        for line in lines(row):
            _tell(line)
    return 0


def lines(row: dict[str, Any]) -> Iterator[str]:
    """What was left out, for a terminal."""
    yield twins.line(f"{row['left_out']} with", row["with"])
    yield twins.line(f"{row['left_out']} without", row["without"])
    if row["loss"] is not None:
        yield "{:<28} {:+.3f} [{:+.3f}, {:+.3f}]".format("  loss", *row["loss"])
    for line in hands.lines(row["as_in_the_product"]):
        yield f"    {line}"


def _named(name: str, known: dict[str, Absence]) -> Absence:
    if name not in known:
        raise Refused(f"Nothing is called {name!r}. Choose among {', '.join(known)}.")
    return known[name]


def _network(given: argparse.Namespace, absence: Absence) -> Network:
    job = _job(given, absence)
    job.out.mkdir(parents=True, exist_ok=True)
    return dense.short_run(job, clock=ProcessorClock(), told=_tell)


def _job(given: argparse.Namespace, absence: Absence) -> TrainJob:
    return replace(
        dense.trial(
            given.data, given.out / _folder(absence.name), minutes=given.minutes, seed=given.seed, fused=given.fused
        ),
        left_out_families=absence.families,
        left_out_sources=absence.sources,
    )


def _folder(name: str) -> str:
    """A name that a file system takes, also of twenty families."""
    plain = name.replace(":", "-").replace("/", "-")
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[:_LONGEST_NAME]}-{zlib.crc32(plain.encode()):08x}"


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
