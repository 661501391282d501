"""A data folder of three people with a lesion, four touching planes each."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from dicomguard.retrain.dataset import COLUMNS
from tests.unit.retrain.tamper.phantom import phantom

PEOPLE = 3
SLICES = 4
KEYS = [f"own/P{person}" for person in range(PEOPLE)]


def write_archive(root: Path) -> Path:
    root.mkdir()
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for person in range(PEOPLE):
            canvas = phantom(slices=SLICES, seed=person)
            for z in range(SLICES):
                plane, mask = f"{person}_{z}.png", f"{person}_{z}_mask.png"
                Image.fromarray(canvas.pixels[z].astype(np.uint8)).save(root / plane)
                Image.fromarray(canvas.lesion[z].astype(np.uint8) * 255).save(root / mask)
                writer.writerow(
                    {
                        "source": "own",
                        "patient": f"P{person}",
                        "group": "g",
                        "slice": z + 1,
                        "sequence": "flair",
                        "file": plane,
                        "mask": mask,
                        "tumor_px": int(canvas.lesion[z].sum()),
                        "rows": 128,
                        "cols": 120,
                        "bits": 8,
                        "sha256": f"{person}/{z}",
                    }
                )
    return root
