"""A tiny archive of drawn heads: a few people, a lesion in each, for tests that need something to train on."""

import csv
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from dicomguard.retrain.dataset import COLUMNS


def write(root: Path, *, people: int = 12, planes: int = 6, size: int = 144) -> Path:
    """`people` with one series each; 8-bit planes with a bright lesion in the middle ones."""
    rows = []
    y, x = np.mgrid[0:size, 0:size]
    for person in range(people):
        rng = np.random.default_rng(person)
        centre = (size / 2 + rng.uniform(-18, 18), size / 2 + rng.uniform(-18, 18))
        # Folds of one's own: heads that differ in their grain alone are near copies.
        way, phase = rng.uniform(0, np.pi, size=(2, 2))
        folds = sum(
            np.sin((x * np.cos(a) + y * np.sin(a)) / (8 + person % 4) + b) for a, b in zip(way, phase, strict=True)
        )
        for number in range(1, planes + 1):
            inside = np.hypot(y - size / 2, x - size / 2) < 0.42 * size
            lesion = (np.hypot(y - centre[0], x - centre[1]) < 9) & (2 <= number < planes)
            tissue = 90 + 14 * folds + 15 * np.cos(y / 11 + number) + 70 * lesion
            plane = np.clip(np.where(inside, tissue + rng.normal(0, 4, (size, size)), 0), 0, 255).astype(np.uint8)
            name = f"{person}_{number}"
            Image.fromarray(plane).save(root / f"{name}.png")
            mask = ""
            if lesion.any():
                mask = f"{name}_mask.png"
                Image.fromarray(lesion.astype(np.uint8) * 255).save(root / mask)
            sha = hashlib.sha256(plane.tobytes()).hexdigest()
            values = (
                "own",
                f"p{person}",
                "g",
                number,
                "flair",
                f"{name}.png",
                mask,
                int(lesion.sum()),
                size,
                size,
                8,
                sha,
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return root
