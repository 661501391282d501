"""Averaged tensors → a weights file: half precision, calibrated on validation patients, the record in its head."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dicomguard.analyze import weights
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
# Stacks of training patients, about, that have part in the alert of studies; more would take long in a large archive.
_TRAINED_STACKS = 100
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
    path: Path, tensors: Mapping[str, Tensor], *, archive: Path, seed: int, steps: int, version: str, small: bool
) -> weights.WeightsHead:
    """Calibrate averaged tensors on forged validation items, in a `small` run on few of them, and write them."""
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
    )
    aside = path.with_name(f".{path.name}.part")
    save_file(stored, str(aside), metadata=weights.to_metadata(head))
    aside.replace(path)
    return weights.read_head(path)


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
    most = 1 if small else _TRAINED_STACKS
    trained = (dataset.read_pixels(archive, one) for one in stacks[:: max(1, len(stacks) // most)])
    return calibrate.fit(
        list(shown.forgeries(detector, pixels, seed=seed, per_family=per_family, names=names)),
        trained=shown.authentic_stacks(detector, trained),
    )
