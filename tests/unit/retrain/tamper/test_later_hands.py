"""The sixth and the seventh hand hide their grain and do what their kinds say, also on odd heads."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType, ModuleType

import numpy as np
import pytest

from dicomguard.retrain.tamper.families import FAMILIES, HELD_BACK
from dicomguard.retrain.tamper.filters import dilate, erode, gaussian, noise_sigma
from dicomguard.retrain.tamper.finish import with_overall_pass
from dicomguard.retrain.tamper.forged import Canvas, Forged
from dicomguard.retrain.tamper.seventh_hand import cleanedit, dctfill, gainfield, kriging, shiftmap, volume
from dicomguard.retrain.tamper.seventh_hand import overall as seventh_overall
from dicomguard.retrain.tamper.sixth_hand import lowres, masseffect, regress, seamcut, sparse, style
from dicomguard.retrain.tamper.sixth_hand import overall as sixth_overall

from .phantom import phantom

VARIANTS: Mapping[str, set[str]] = MappingProxyType(
    {
        "sixth/sparse": set(sparse.VARIANTS),
        "sixth/seamcut": set(seamcut.VARIANTS),
        "sixth/regress": set(regress.VARIANTS),
        "sixth/masseffect": set(masseffect.VARIANTS),
        "sixth/style": {f"{variant}-{manner}" for variant in style.VARIANTS for manner in style.MANNERS},
        "sixth/lowres": {
            f"{enlarger}-{grain}-{kind}"
            for enlarger in lowres.ENLARGERS
            for grain in lowres.GRAINS
            for kind in ("added", "removed")
        },
        "seventh/kriging": set(kriging.VARIANTS),
        "seventh/shiftmap": set(shiftmap.VARIANTS),
        "seventh/cleanedit": {f"{variant}-{kind}" for variant in cleanedit.VARIANTS for kind in cleanedit.KINDS},
        "seventh/volume": set(volume.VARIANTS),
        "seventh/dctfill": set(dctfill.VARIANTS),
        "seventh/gainfield": set(gainfield.VARIANTS),
    }
)
FAMILY = MappingProxyType({name: family for name, family in {**FAMILIES, **HELD_BACK}.items() if name in VARIANTS})
SEEDS = range(12)


def of_kind(kind: str) -> list[str]:
    return [name for name, family in FAMILY.items() if kind in family.kinds]


def test_every_family_of_these_hands_is_here() -> None:
    assert set(FAMILY) == {n for n in {**FAMILIES, **HELD_BACK} if n.startswith(("sixth/", "seventh/"))}
    assert set(VARIANTS) == set(FAMILY)


@cache
def head(high: float = 255.0) -> Canvas:
    canvas = phantom(rows=160, cols=150, high=high)
    # A lesion of the phantom's size would leave little of its own side.
    small = canvas.lesion & (np.add.outer(np.arange(160), np.zeros(150)) < 108)
    return replace(canvas, lesion=small)


@cache
def donor() -> Canvas:
    return phantom(rows=140, cols=132, seed=5)


@cache
def drawn(name: str) -> tuple[Forged, ...]:
    made = [FAMILY[name].forge(head(), donor(), np.random.default_rng(seed)) for seed in SEEDS]
    found = tuple(one for one in made if one is not None)
    assert len(found) >= len(SEEDS) // 2
    return found


@pytest.mark.parametrize("name", FAMILY)
def test_every_variant_is_drawn(name: str) -> None:
    canvas = phantom(slices=1, rows=80, cols=76)
    seen = set()
    for seed in range(160):
        forged = FAMILY[name].forge(canvas, donor(), np.random.default_rng(seed))
        if forged is not None:
            seen.add(forged.variant)
        if seen == VARIANTS[name]:
            break
    assert seen == VARIANTS[name]


def odd_heads() -> Iterator[tuple[str, Canvas]]:
    plain = phantom(slices=2, rows=64, cols=72)
    everywhere, nowhere = np.ones(plain.pixels.shape, np.bool_), np.zeros(plain.pixels.shape, np.bool_)
    corner, dot, rim = nowhere.copy(), nowhere.copy(), nowhere.copy()
    corner[:, :14, :14] = True
    dot[0, 30, 30] = True
    rim[:, 2:10, 26:44] = True
    yield "tiny", phantom(slices=1, rows=12, cols=9)
    yield "one pixel", phantom(slices=1, rows=1, cols=1)
    yield "narrow", phantom(slices=2, rows=33, cols=90)
    yield "no lesion", replace(plain, lesion=nowhere)
    yield "one slice", phantom(slices=1, rows=64, cols=72)
    yield "constant", replace(plain, pixels=np.full_like(plain.pixels, 100))
    yield "empty", replace(plain, pixels=np.zeros_like(plain.pixels))
    yield "two levels", replace(plain, pixels=np.where(plain.pixels > 90, 200, 0).astype(np.float32))
    yield "lesion in the corner", replace(plain, lesion=corner, head=everywhere)
    yield "lesion on the skull", replace(plain, lesion=rim)
    yield "lesion of one pixel", replace(plain, lesion=dot)
    yield "all lesion", replace(plain, lesion=everywhere)
    yield "no head", replace(plain, head=nowhere)
    yield "head everywhere", replace(plain, head=everywhere)
    yield "sixteen bits", phantom(slices=2, rows=64, cols=72, high=65535.0)
    yield "signed", replace(plain, pixels=plain.pixels - 128, low=-128.0, high=127.0)


@pytest.mark.parametrize("name", FAMILY)
def test_odd_heads_never_raise(name: str) -> None:
    odd = list(odd_heads())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, (_, canvas) in enumerate(odd):
            for seed, other in enumerate((None, odd[i - 1][1], donor(), None)):
                forged = FAMILY[name].forge(canvas, other, np.random.default_rng(seed))
                if forged is not None:
                    assert np.array_equal(forged.pixels, np.rint(forged.pixels))
                    assert canvas.low <= forged.pixels.min() and forged.pixels.max() <= canvas.high


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("high", [255.0, 4095.0])
def test_noise_is_that_of_the_surroundings(name: str, high: float) -> None:
    canvas = head(high)
    ratios = []
    for seed in range(1, 6):
        forged = FAMILY[name].forge(canvas, donor(), np.random.default_rng(seed))
        # A forger who multiplies noise with all else, or resamples the donor's, makes no promise.
        if forged is None or forged.variant.endswith("multiplied") or forged.parameters.get("grain") == "donor":
            continue
        z = int(forged.mask.sum(axis=(1, 2)).argmax())
        hole = forged.alpha[z] > 0
        around = dilate(hole, 12) & ~hole & canvas.head[z]
        ratios.append(noise_sigma(forged.pixels[z], forged.alpha[z] > 0.5) / noise_sigma(forged.twin[z], around))
    assert ratios
    assert all(0.7 < ratio < 1.4 for ratio in ratios), ratios


@pytest.mark.parametrize("name", of_kind("removed"))
def test_removal_brings_the_lesion_to_its_surroundings(name: str) -> None:
    canvas, checked = head(), 0
    for forged in drawn(name):
        if forged.kind != "removed":
            continue
        gone = canvas.lesion & ~forged.lesion
        assert gone.any()
        tissue = float(np.median(canvas.pixels[canvas.head & (forged.alpha == 0) & ~canvas.lesion]))
        before, after = (abs(float(stack[gone].mean()) - tissue) for stack in (forged.twin, forged.pixels))
        assert after < 0.35 * before
        checked += 1
    assert checked


@pytest.mark.parametrize("name", of_kind("altered"))
def test_an_altered_lesion_stays_one(name: str) -> None:
    canvas = head()
    altered = [forged for forged in drawn(name) if forged.kind == "altered"]
    assert altered
    for forged in altered:
        assert forged.lesion.any() and not (forged.lesion & ~canvas.lesion).any()
        smaller = forged.variant.endswith("smaller")
        assert np.array_equal(forged.lesion, canvas.lesion) != smaller
        tissue = float(np.median(canvas.pixels[canvas.head & ~canvas.lesion]))
        assert np.abs(forged.pixels[forged.lesion] - tissue).mean() > 10


@pytest.mark.parametrize("name", of_kind("added"))
def test_an_addition_is_a_new_lesion(name: str) -> None:
    canvas, checked = head(), 0
    for forged in drawn(name):
        if forged.kind != "added":
            continue
        new = forged.lesion & ~canvas.lesion
        assert new.sum(axis=(1, 2)).max() >= 20
        assert not (canvas.lesion & ~forged.lesion).any()
        assert np.quantile(np.abs(forged.pixels - forged.twin)[new], 0.75) > 6
        checked += 1
    assert checked


@pytest.mark.parametrize("name", ["seventh/cleanedit", "seventh/gainfield"])
def test_the_own_noise_stays(name: str) -> None:
    for forged in drawn(name):
        z = int(forged.mask.sum(axis=(1, 2)).argmax())
        before, after = (stack[z] - gaussian(stack[z], 1.0) for stack in (forged.twin, forged.pixels))
        old = head().lesion[z]
        # The outline of a lesion that goes is no noise.
        within = erode(forged.mask[z], 3) & ~(dilate(old, 3) & ~erode(old, 3))
        assert np.corrcoef(before[within], after[within])[0, 1] > 0.6


def test_a_volume_needs_a_donor_with_a_lesion() -> None:
    healthy = replace(donor(), lesion=np.zeros_like(donor().lesion))
    assert all(volume.forge(head(), other, np.random.default_rng(0)) is None for other in (None, healthy))


def test_an_addition_tapers_over_the_slices() -> None:
    canvas = phantom(slices=5, rows=160, cols=150, lesion=False)
    uneven = 0
    for seed in range(6):
        forged = cleanedit.forge(canvas, None, np.random.default_rng(seed))
        assert forged is not None
        areas = forged.lesion.sum(axis=(1, 2))
        top = int(areas.argmax())
        assert (np.diff(areas[: top + 1]) >= -20).all() and (np.diff(areas[top:]) <= 20).all()
        uneven += areas.min() < 0.8 * areas.max()
    assert uneven >= 3


@pytest.mark.parametrize(
    ("name", "overall"), [("sixth/masseffect", sixth_overall), ("seventh/gainfield", seventh_overall)]
)
@pytest.mark.parametrize("high", [255.0, 4095.0])
def test_overall_passes_keep_the_grid(name: str, overall: ModuleType, high: float) -> None:
    canvas, seen = head(high), set()
    forged = FAMILY[name].forge(canvas, None, np.random.default_rng(0))
    assert forged is not None
    for seed in range(40):
        operate, title = overall.draw_overall(canvas, np.random.default_rng(seed))
        if title in seen:
            continue
        seen.add(title)
        once = operate(forged.twin)
        assert once.dtype == np.float32 and once.shape == canvas.pixels.shape
        assert once.tobytes() == operate(forged.twin).tobytes()
        assert np.array_equal(once, np.rint(once))
        assert canvas.low <= once.min() and once.max() <= canvas.high
        assert 0 < np.abs(once - forged.twin)[canvas.head].mean() < 0.05 * high
        passed = with_overall_pass(forged, canvas, operate, title)
        assert passed.parameters["whole slice"] == title
    assert seen == set(overall.NAMES)
