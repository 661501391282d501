"""The slices worth a look: worst misses, worst false alarms, typical hits, as pictures inside a page.

A picture shows the slice beside itself with the truth outlined in one colour and the model's mask in another. People
are named by their keys, which are pseudonyms.
"""

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Kind: TypeAlias = Literal["miss", "false alarm", "hit"]
TITLES: dict[Kind, str] = {"miss": "Worst misses", "false alarm": "Worst false alarms", "hit": "Hits, as they come"}
_EACH = 8
# Pixels of a picture's shorter side on the page; smaller slices are enlarged by whole factors.
_SIDE = 256
_TRUTH, _MODEL = (94, 201, 98), (255, 128, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A slice that may come into the gallery."""

    kind: Kind
    patient: str
    # The family, or "authentic".
    family: str
    score: float
    f1: float | None
    plane: NDArray[np.float32]
    truth: NDArray[np.bool_]
    model: NDArray[np.bool_]

    def worth(self) -> float:
        """Higher is shown first: misses by how low they score, alarms by how high, hits by lot."""
        if self.kind == "hit":
            return zlib.crc32(f"{self.patient}/{self.family}/{self.score}".encode())
        return self.score if self.kind == "false alarm" else -self.score


class Keeper:
    """Keeps the shots most worth a look, one of each person and family (of each person for alarms)."""

    def __init__(self) -> None:
        self._kept: dict[Kind, dict[str, Shot]] = {kind: {} for kind in TITLES}

    def offer(self, shot: Shot) -> None:
        """Keep it while it is among the first of its kind."""
        kept = self._kept[shot.kind]
        # Hits show one of each family, misses and alarms one of each person.
        name = shot.family if shot.kind == "hit" else shot.patient
        if name not in kept or shot.worth() > kept[name].worth():
            kept[name] = shot
        if len(kept) > _EACH:
            del kept[min(kept, key=lambda one: kept[one].worth())]

    def shots(self, kind: Kind) -> list[Shot]:
        """The kept ones, first the one most worth a look."""
        return sorted(self._kept[kind].values(), key=lambda shot: -shot.worth())


def png(shot: Shot) -> str:
    """The slice, and beside it the slice with outlines, as a data URI."""
    inside = shot.plane[shot.plane > shot.plane.min()] if np.ptp(shot.plane) else shot.plane
    low, high = (float(v) for v in np.percentile(inside, (1, 99.7)))
    grey = np.clip((shot.plane - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    factor = max(1, -(-_SIDE // min(grey.shape)))
    large = np.repeat(np.repeat(grey, factor, axis=0), factor, axis=1)
    if min(large.shape) > 1.5 * _SIDE:
        large = np.asarray(cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    plain = np.repeat(large[:, :, None], 3, axis=2)
    drawn = plain.copy()
    for mask, colour in ((shot.truth, _TRUTH), (shot.model, _MODEL)):
        size = (large.shape[1], large.shape[0])
        solid = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)
        edge = solid - np.asarray(cv2.erode(solid, np.ones((3, 3), np.uint8)), np.uint8)
        drawn[edge > 0] = colour
    gap = np.full((large.shape[0], 4, 3), 128, np.uint8)
    image = Image.fromarray(np.concatenate((plain, gap, drawn), axis=1))
    data = io.BytesIO()
    # A palette halves the page. It is ours, for one made of the picture has no place for the outline of a small region.
    image.quantize(palette=_palette(), dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _palette() -> Image.Image:
    """Every second grey and both colours."""
    made = Image.new("P", (1, 1))
    made.putpalette([*(grey for grey in range(0, 252, 2) for _ in range(3)), *_TRUTH, *_MODEL])
    return made


def pictures(keeper: Keeper) -> dict[str, Sequence[dict[str, object]]]:
    """By kind: caption and data URI of each shot."""
    return {
        kind: [
            {
                "patient": shot.patient,
                "family": shot.family,
                "score": round(shot.score, 4),
                "f1": None if shot.f1 is None else round(shot.f1, 3),
                "truth_px": int(shot.truth.sum()),
                "model_px": int(shot.model.sum()),
                "png": png(shot),
            }
            for shot in keeper.shots(kind)
        ]
        for kind in TITLES
    }
