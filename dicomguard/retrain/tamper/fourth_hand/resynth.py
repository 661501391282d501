"""fourth/resynth: texture resynthesis.

A real attacker runs GIMP's Resynthesizer ("heal selection") or a plug-in like it: each pixel of the hole looks for a
place in healthy tissue whose small neighbourhood is like its own, by trying its neighbours' places one step on
(coherence) and places at random; coarse first, then fine. Brightness is taken out beforehand and put back afterwards.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import depth_inside, float32, resize
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import texture
from dicomguard.retrain.tamper.fourth_hand.cover import cover
from dicomguard.retrain.tamper.fourth_hand.site import Site
from dicomguard.retrain.tamper.fourth_hand.surface import blurred_rim, spread

VARIANTS = ("coherent walk", "voted patches", "nearest few", "coherent walk, brightness by rim")
_MANY_PX = 3000
# Room for the widest window on the coarsest level.
_FRAME = 16
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))

Places = NDArray[np.intp]


@dataclass(slots=True)
class _Walk:
    """The state of one level: pixels of the hole, and the place that each copies from.

    No pixel of the hole lies closer to the frame than a window's half.
    """

    plane: Pixels
    hole: Places
    number: NDArray[np.intp]
    sources: Places
    allowed: Mask
    offsets: Places
    trust: Pixels
    chosen: Places
    cost: Pixels

    def price(self, place: Places) -> Pixels:
        """How unlike the neighbourhoods of hole and place are; places outside healthy tissue cost infinitely much."""
        rows, cols = self.plane.shape
        good = (place >= 0).all(axis=1) & (place[:, 0] < rows) & (place[:, 1] < cols)
        safe = np.where(good[:, None], place, self.sources[:1])
        good &= self.allowed[safe[:, 0], safe[:, 1]]
        safe = np.where(good[:, None], safe, self.sources[:1])
        steps = self.offsets[:, 0] * cols + self.offsets[:, 1]
        flat, ours = self.plane.ravel(), (self.hole[:, 0] * cols + self.hole[:, 1])[:, None] + steps
        apart = flat.take(ours) - flat.take((safe[:, 0] * cols + safe[:, 1])[:, None] + steps)
        total = np.einsum("nk,nk,nk->n", self.trust, apart, apart)
        return np.where(good, total, np.inf).astype(np.float32)

    def offer(self, place: Places) -> None:
        """Take the place where it is better."""
        price = self.price(place)
        better = price < self.cost
        self.chosen[better], self.cost[better] = place[better], price[better]

    def copy(self) -> None:
        """Write what the places hold into the hole, and count the costs anew."""
        self.plane[self.hole[:, 0], self.hole[:, 1]] = self.plane[self.chosen[:, 0], self.chosen[:, 1]]
        self.cost = self.price(self.chosen)

    def vote(self) -> None:
        """Write the mean of what all overlapping neighbourhoods propose."""
        total, count = np.zeros(len(self.hole), np.float32), np.zeros(len(self.hole), np.float32)
        for offset in self.offsets:
            at = self.hole + offset
            owner = self.number[at[:, 0], at[:, 1]]
            said = owner >= 0
            place = self.chosen[owner[said]] - offset
            total[said] += self.plane[place[:, 0], place[:, 1]]
            count[said] += 1
        self.plane[self.hole[:, 0], self.hole[:, 1]] = total / np.maximum(count, 1)
        self.cost = self.price(self.chosen)

    def walk(self, rounds: int, rng: np.random.Generator, *, vote: bool) -> None:
        for _ in range(rounds):
            for step in _STEPS:
                at = self.hole + step
                owner = self.number[at[:, 0], at[:, 1]]
                place = np.where((owner >= 0)[:, None], self.chosen[owner] - step, self.chosen)
                self.offer(place)
            reach = max(self.plane.shape) / 3
            while reach >= 2:
                self.offer(self.chosen + np.round(rng.uniform(-reach, reach, self.chosen.shape)).astype(np.intp))
                reach /= 3
            self.offer(self.sources[rng.integers(len(self.sources), size=len(self.hole))])
            if vote:
                self.vote()
            else:
                self.copy()

    def few(self, rng: np.random.Generator, *, tries: int, best: int) -> None:
        """The mean of the best few among many places, the likelier the more."""
        places_, prices = [self.chosen.copy()], [self.price(self.chosen)]
        for _ in range(tries):
            near = self.chosen + np.round(rng.normal(0, 6, self.chosen.shape)).astype(np.intp)
            places_.append(near)
            prices.append(self.price(near))
        price = np.stack(prices)
        order = np.argsort(price, axis=0)[:best]
        weight = 1 / (np.take_along_axis(price, order, axis=0) + float(np.median(self.cost)) + 1e-3)
        column = np.arange(len(self.hole))
        total = np.zeros(len(self.hole), np.float32)
        for k in range(best):
            place = np.stack(places_)[order[k], column]
            usable = np.isfinite(price[order[k], column])
            place = np.where(usable[:, None], place, self.chosen)
            total += weight[k] * self.plane[place[:, 0], place[:, 1]]
        self.plane[self.hole[:, 0], self.hole[:, 1]] = total / np.maximum(weight.sum(axis=0), 1e-6)


def _level(plane: Pixels, hole: Mask, healthy: Mask, half: int, rng: np.random.Generator) -> _Walk | None:
    side = np.arange(-half, half + 1)
    offsets = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.intp)
    allowed = healthy & (depth_inside(healthy) > half * 0.75)
    allowed[:half], allowed[-half:], allowed[:, :half], allowed[:, -half:] = False, False, False, False
    sources, at = np.argwhere(allowed).astype(np.intp), np.argwhere(hole).astype(np.intp)
    if len(sources) < 12 or len(at) == 0:
        return None
    number = np.full(hole.shape, -1, np.intp)
    number[at[:, 0], at[:, 1]] = np.arange(len(at))
    near = at[:, None] + offsets[None]
    trust = np.where(hole[near[..., 0], near[..., 1]], 0.35, 1).astype(np.float32)
    trust /= trust.sum(axis=1, keepdims=True)
    walk = _Walk(
        plane=plane,
        hole=at,
        number=number,
        sources=sources,
        allowed=allowed,
        offsets=offsets,
        trust=trust,
        chosen=sources[rng.integers(len(sources), size=len(at))],
        cost=np.full(len(at), np.inf, np.float32),
    )
    walk.cost = walk.price(walk.chosen)
    return walk


def resynthesised(
    flat: Pixels, hole: Mask, healthy: Mask, half: int, variant: str, rng: np.random.Generator
) -> Pixels | None:
    """The flattened plane (brightness taken out, hole at 0) with texture in the hole; coarse first, then fine."""
    flat = np.pad(flat, _FRAME, mode="edge")
    hole, healthy = np.pad(hole, _FRAME), np.pad(healthy, _FRAME)
    many = int(hole.sum()) > _MANY_PX
    factor = 4 if many else 2
    size = (max(2, flat.shape[0] // factor), max(2, flat.shape[1] // factor))
    small_hole = resize(hole.astype(np.float32), size, cv2.INTER_AREA) > 0
    small_well = resize(healthy.astype(np.float32), size, cv2.INTER_AREA) > 0.99
    small = np.where(small_hole, 0, resize(flat, size, cv2.INTER_AREA)).astype(np.float32)
    coarse = _level(small, small_hole, small_well, half, rng)
    plane = flat.copy()
    if coarse is not None:
        coarse.walk(4, rng, vote=True)
        plane = np.where(hole, resize(coarse.plane, (flat.shape[0], flat.shape[1])), flat).astype(np.float32)
    fine = _level(plane, hole, healthy, half, rng)
    if fine is None:
        return None
    if coarse is not None:
        # Places of the coarse level, at the same offset from the pixel.
        ratio = np.array(hole.shape) / np.array(size)
        shift = np.zeros((*size, 2), np.float64)
        shift[coarse.hole[:, 0], coarse.hole[:, 1]] = coarse.chosen - coarse.hole
        at = np.minimum((fine.hole / ratio).astype(np.intp), np.array(size) - 1)
        fine.offer(fine.hole + np.round(shift[at[:, 0], at[:, 1]] * ratio).astype(np.intp))
    fine.walk(1 if many else 2, rng, vote=variant == "voted patches")
    if variant == "nearest few":
        fine.few(rng, tries=3 if many else 8, best=3)
    return fine.plane[_FRAME:-_FRAME, _FRAME:-_FRAME]


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Grow healthy texture over a lesion, or over a normal spot where there is none."""
    variant = VARIANTS[int(rng.integers(len(VARIANTS)))]
    half = int(rng.integers(2, 4))
    sigma = float(rng.uniform(3.0, 9.0))

    def fill(site: Site, z: int, wide: Mask) -> Pixels | None:
        plane, healthy = site.pixels[z], site.healthy[z] & ~wide
        if int(healthy.sum()) < 40:
            return None
        shade = spread(plane, healthy, sigma)
        made = resynthesised(float32(np.where(wide, 0, plane - shade)), wide, healthy, half, variant, rng)
        if made is None:
            return None
        if variant.endswith("rim"):
            shade = blurred_rim(plane, wide, healthy, sigma / 2)
        filled = np.where(wide, made + shade, plane).astype(np.float32)
        # Windows that match best are the smooth ones: what they lack in grain is added.
        return texture.topped_up(plane, filled, healthy, site.hole[z], rng)

    return cover(
        canvas,
        rng,
        fill,
        reach=1.3,
        family="fourth/resynth",
        variant=variant,
        parameters={"window": float(2 * half + 1), "shade": sigma},
    )
