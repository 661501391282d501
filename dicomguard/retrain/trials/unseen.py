"""A network of a trial scored as in the product, on what it never saw: its alert is set without that, then counted.

Slices stand beside the others of their series, studies are linked, and the calibration is fitted as for weights that
ship, on patients, sources and families that the network knows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dicomguard.analyze.net.detector import Detector
from dicomguard.analyze.net.model import Network
from dicomguard.analyze.scores import Calibration
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Split
from dicomguard.retrain.net import calibrate, candidate, shown
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.trials import hands, points

# Forgeries of each family and source, to set the alert and to count.
_PER_FAMILY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """What a network never saw, as it sees it, and the alert of what it knows."""

    # Authentic ones, and forged ones that show a family or a source left out.
    runs: Sequence[Run]
    calibration: Calibration

    def table(self, *, families: Collection[str], sources: Collection[str]) -> dict[str, Any]:
        """AUC and counts (`hands.table`) for a part of what was left out: families in known sources, or sources."""
        if sources:
            runs = [run for run in self.runs if not run.pixels.series.origins.isdisjoint(sources)]
        else:
            runs = [run for run in self.runs if run.family in families or not run.family]
        counted = points.counted(runs, self.calibration)
        return {
            **hands.table(runs, self.calibration),
            "authentic_pictures_flagged": counted["pictures_flagged"],
            "forged_pictures_found": counted["pictures_found"],
        }


def look(
    network: Network, data: Path, *, families: Collection[str], sources: Collection[str], split: Split, seed: int
) -> Unseen:
    """Set the alert without `families` and `sources` (`Series.origins`), and look at forgeries that show them.

    Families are put into known sources, known families into the sources left out, of which the authentic series of
    training patients count as well: the network has not seen them either.
    """
    detector = Detector(network, candidate.bare_head("trial", {}), torch.device("cpu"))
    parts = dataset.by_split(dataset.read_index(data))
    known = [name for name in ATTACKS if name not in families]

    def forged(series: Sequence[dataset.Series], names: Sequence[str]) -> list[Run]:
        pixels = [dataset.read_pixels(data, one) for one in series]
        found = shown.forgeries(detector, pixels, seed=seed, per_family=_PER_FAMILY, names=names)
        return list(found)

    def of(part: Split, *, strange: bool) -> list[dataset.Series]:
        return [one for one in parts[part] if one.origins.isdisjoint(sources) != strange]

    calibration = calibrate.fit(
        forged(of("validation", strange=False), known),
        trained=shown.authentic_stacks(
            detector, (dataset.read_pixels(data, one) for one in of("train", strange=False))
        ),
    ).calibration
    runs = forged(of(split, strange=False), sorted(families)) if families else []
    if sources:
        runs += forged(of(split, strange=True), known)
        looked = (shown.authentic(detector, dataset.read_pixels(data, one)) for one in of("train", strange=True))
        runs += [base[0] for base in looked if base is not None]
    return Unseen(runs=[run for run in runs if not run.excerpt], calibration=calibration)
