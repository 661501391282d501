"""`python -m dicomguard.retrain.net.card FILE CARD.json`: a model card into the head of a weights file.

Tensors and calibration stay as they are, and so does the id, which is made of them; the SHA-256 of the file changes. A
card that is there is replaced; `dicomguard models card FILE --json` prints it, to begin with.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from dicomguard.analyze import weights
from dicomguard.analyze.card import Card
from dicomguard.errors import DicomguardError, Refused
from dicomguard.retrain.net import candidate


def put(path: Path, card: Card) -> weights.WeightsHead:
    """Write the card into a weights file, whole or not at all."""
    return candidate.save(path, load_file(path), replace(weights.read_head(path), card=card))


def main(arguments: list[str]) -> int:
    """Command of this module."""
    parser = argparse.ArgumentParser(description="Put a model card into the head of a weights file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("card", type=Path)
    given = parser.parse_args(arguments)
    try:
        head = put(given.file, Card.from_json(_read(given.card)))
    except DicomguardError as error:
        parser.error(str(error))
    sys.stdout.write(f"{head.id} carries the card now; the SHA-256 of {given.file.name} is {head.sha256}.\n")
    return 0


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as JSON ({error}). Give a card.") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
