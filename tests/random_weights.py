"""`python -m tests.random_weights FILE`: weights of an untrained network, for tests of everything around it.

Runs in a process of its own, so that a test process never loads torch. Its thresholds are given: an untrained network
says about the same of every slice, and a test chooses on which side of the alarm that lies.
"""

import argparse
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from dicomguard.analyze import weights
from dicomguard.analyze.channels import NAMES
from dicomguard.analyze.net.model import Network
from dicomguard.analyze.scores import UNCALIBRATED


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--forgery", type=float, default=0.999)
    parser.add_argument("--tumor", type=float, default=0.999)
    given = parser.parse_args()
    torch.manual_seed(0)
    point = weights.OperatingPoint(
        name="alert", forgery=given.forgery, tumor=given.tumor, n_authentic=100, flagged=2, false_alarm_upper=0.062
    )
    head = weights.WeightsHead(
        id="untrained",
        version="0",
        architecture=weights.ARCHITECTURE,
        channels=NAMES,
        scope=weights.Scope(modalities=("MR",), body_parts=("HEAD", "BRAIN"), sequences=("flair", "t1c")),
        operating_point=point,
        calibration=asdict(UNCALIBRATED),
        authentic_scores=(0.1, 0.2),
        training={},
        sha256="",
    )
    tensors = {name: tensor.contiguous() for name, tensor in Network().state_dict().items()}
    save_file(tensors, given.file, metadata=weights.to_metadata(head))


if __name__ == "__main__":
    main()
