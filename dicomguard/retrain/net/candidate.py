"""Averaged tensors → a weights file: half precision, calibrated, the record in its head.

Calibrated on validation patients; the alert of studies on authentic stacks of training patients too.
"""

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dicomguard.analyze import weights
from dicomguard.analyze.card import Card, FalseAlarms
from dicomguard.analyze.channels import NAMES
from dicomguard.analyze.net.detector import Detector
from dicomguard.analyze.net.model import Network
from dicomguard.analyze.scores import FEWEST_FOR_SERIES, UNCALIBRATED
from dicomguard.core import canon
from dicomguard.retrain import dataset
from dicomguard.retrain.net import calibrate, shown
from dicomguard.retrain.tamper import families

SCOPE = weights.Scope(modalities=("MR",), body_parts=("BRAIN", "HEAD"), sequences=("FLAIR", "T1", "T1C", "T2"))
# What the shipped weights were trained on; a file trained elsewhere names its own sources only.
LICENCES: Mapping[str, str] = {
    "lgg": "TCGA lower-grade glioma with FLAIR masks by Buda et al., CC BY-NC-SA 4.0",
    "cheng": "J. Cheng, figshare brain tumor set, CC BY 4.0",
    "btp": "TCIA Brain-Tumor-Progression, CC BY 3.0",
    "openms": "Lesjak et al., longitudinal MS set, CC BY",
}
# Forged validation items of each family and source that the calibration sees.
_FORGED = 6
# Stacks of training patients at most that have part in the alert of studies; more would take long in a large archive.
_TRAINED_STACKS = 100
# What the card of every candidate says; the figures that it rests on are those of docs/model-card.md.
_INTENDED_USE = (
    "Research on MR of the brain; not a medical device, not for diagnosis. It shows where a scan looks edited, and "
    "what looks like a tumor, to somebody who then looks for themselves: consistent with, never proof of."
)
_NOT_VALIDATED = (
    "CT and every modality other than MR; body parts other than the brain; sequences other than FLAIR, T1 with and "
    "without contrast, and T2. Anything outside is judged, with that said."
)
_NEVER_SEEN = (
    "Sources other than those named under data, here and in the weights that training began with. Forgeries other than "
    f"the {len(families.ATTACKS)} families of training and self-blends: edits in k-space before the slice is "
    "reconstructed and images of diffusion networks are among them."
)
_KNOWN_FAILURES = (
    "Measured on the shipped weights, not anew on these. Who forges before reconstruction is not found. JPEG, zero "
    "filling or denoising after the forgery hides part of it. Edits below 64 pixels are likely to be missed, and so is "
    "half of the slices of a series forged throughout. Studies are found less often than slices. Whether a tumor was "
    "added or removed is often told wrongly."
)
_POINT = weights.OperatingPoint(name="none", forgery=1.0, tumor=1.0, n_authentic=0, flagged=0, false_alarm_upper=1.0)


def bare_head(version: str, training: Mapping[str, Any]) -> weights.WeightsHead:
    """The head of weights that nothing was fitted to yet: they flag nothing."""
    return weights.WeightsHead(
        id="",
        version=version,
        architecture=weights.ARCHITECTURE,
        channels=NAMES,
        scope=SCOPE,
        operating_point=_POINT,
        calibration=UNCALIBRATED.to_record(),
        authentic_scores=(),
        training=training,
        sha256="",
    )


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    archive: Path,
    seed: int,
    steps: int,
    version: str,
    parent: str,
    small: bool,
) -> weights.WeightsHead:
    """Calibrate averaged tensors on forged validation items, in a `small` run on few of them, and write them.

    `parent`: id of the weights that training began with, empty for chance.
    """
    stored = {name: value.detach().cpu().half().contiguous().clone() for name, value in tensors.items()}
    series = dataset.read_index(archive)
    parts = dataset.by_split(series)
    sources = sorted({one.source for one in series})
    head = bare_head(
        version,
        {
            "seed": seed,
            "steps": steps,
            "patients": {split: len({one.patient_key for one in members}) for split, members in sorted(parts.items())},
            "data": {source: LICENCES.get(source, "own archive") for source in sources},
        },
    )
    network = Network()
    network.load_state_dict({name: value.float() for name, value in stored.items()})
    network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    detector = Detector(network, head, torch.device("cpu"))
    found = _calibrated(detector, archive, parts, seed=seed, small=small)
    # The name follows what judges, tensors and calibration, so that equal judges have equal names.
    digest = hashlib.sha256(b"".join(stored[name].numpy().tobytes() for name in sorted(stored)))
    digest.update(canon.encode(found.calibration.to_record()))
    head = replace(
        head,
        id=f"dicomguard-{digest.hexdigest()[:12]}",
        operating_point=found.point,
        calibration=found.calibration.to_record(),
        authentic_scores=found.authentic_scores,
        card=_card(found, parent=parent),
    )
    return save(path, stored, head)


def save(path: Path, stored: Mapping[str, Tensor], head: weights.WeightsHead) -> weights.WeightsHead:
    """Write a weights file, whole or not at all; the head as it is read back."""
    aside = path.with_name(f".{path.name}.part")
    save_file(dict(stored), str(aside), metadata=weights.to_metadata(head))
    if path.exists():
        # `save_file` makes files for their owner alone; one that is replaced stays as readable as it was.
        shutil.copymode(path, aside)
    aside.replace(path)
    return weights.read_head(path)


def _card(found: calibrate.Calibrated, *, parent: str) -> Card:
    """What can be said of weights that nothing but their own calibration has measured."""
    point, studies = found.point, found.authentic_scores
    flagged = sum(score >= point.forgery for score in studies)
    return Card(
        false_alarms=(
            FalseAlarms(
                flagged=flagged,
                of=len(studies),
                upper=round(calibrate.upper_bound(flagged, len(studies)), 4),
                studies="whole stacks and pictures of validation patients and whole stacks of training patients. "
                "In-sample: the alert was set on them; on other studies it can be higher.",
            ),
        ),
        intended_use=_INTENDED_USE,
        not_validated=_NOT_VALIDATED,
        never_seen=_NEVER_SEEN,
        figures=f"Of the {point.n_authentic} authentic slices that the alert was set on {point.flagged} are flagged "
        f"(95 % upper bound {100 * point.false_alarm_upper:.1f} %). Nothing was measured on patients without a part in "
        "training or calibration; `dicomguard evaluate` does.",
        known_failures=_KNOWN_FAILURES,
        parent=parent,
    )


def spread(series: Sequence[dataset.Series], *, most: int) -> Sequence[dataset.Series]:
    """At most so many, evenly over all."""
    return series[:: max(1, math.ceil(len(series) / most))]


def _calibrated(
    detector: Detector,
    archive: Path,
    parts: Mapping[dataset.Split, Sequence[dataset.Series]],
    *,
    seed: int,
    small: bool,
) -> calibrate.Calibrated:
    pixels = [dataset.read_pixels(archive, one) for one in parts["validation"]]
    names = [family.name for family in families.one_of_each_group(families.ATTACKS.values())] if small else None
    per_family = 1 if small else _FORGED
    stacks = [one for one in parts["train"] if len(one.planes) >= FEWEST_FOR_SERIES]
    chosen = spread(stacks, most=1 if small else _TRAINED_STACKS)
    trained = (dataset.read_pixels(archive, one) for one in chosen)
    return calibrate.fit(
        list(shown.forgeries(detector, pixels, seed=seed, per_family=per_family, names=names)),
        trained=shown.authentic_stacks(detector, trained),
    )
