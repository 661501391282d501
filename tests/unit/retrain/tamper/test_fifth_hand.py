"""The fifth hand keeps the contract of a forgery in all six families, and never raises on odd heads."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import product

import numpy as np
import pytest

from dicomguard.retrain.tamper.fifth_hand.grain import measure
from dicomguard.retrain.tamper.fifth_hand.overall import draw_overall
from dicomguard.retrain.tamper.finish import differing, on_grid
from dicomguard.retrain.tamper.forged import Canvas, Forged

from .phantom import phantom

_KINDS = {
    "window": {"added", "removed"},
    "nlmfill": {"removed"},
    "fusion": {"added", "removed"},
    "transport": {"removed", "altered"},
    "physics": {"added"},
    "patches": {"added", "removed"},
}
_FAMILIES = sorted(_KINDS)
_SEEDS = range(24)


def _forge(family: str) -> Callable[[Canvas, Canvas | None, np.random.Generator], Forged | None]:
    return import_module(f"dicomguard.retrain.tamper.fifth_hand.{family}").forge


def _head(**changes: object) -> Canvas:
    return phantom(**{"slices": 3, "rows": 88, "cols": 96, **changes})


def _donor() -> Canvas:
    return phantom(slices=2, rows=80, cols=100, seed=7)


def _run(family: str, canvas: Canvas, donor: Canvas | None, seeds: range = _SEEDS) -> list[Forged]:
    runs = [_forge(family)(canvas, donor, np.random.default_rng(seed)) for seed in seeds]
    return [forged for forged in runs if forged is not None]


@cache
def _usual(family: str) -> tuple[Canvas, list[Forged]]:
    canvas = _head()
    return canvas, _run(family, canvas, _donor())


def _valid(forged: Forged, canvas: Canvas, family: str) -> None:
    assert forged.family == f"fifth/{family}"
    assert forged.kind in _KINDS[family]
    assert forged.variant
    assert forged.twin is canvas.pixels
    assert forged.pixels.dtype == np.float32
    assert forged.alpha.dtype == np.float32
    assert forged.alpha.min() >= 0
    assert forged.alpha.max() <= 1
    assert not forged.mask[~canvas.head].any()
    assert not forged.alpha[~canvas.head].any()
    untouched = forged.alpha == 0
    assert forged.pixels[untouched].tobytes() == canvas.pixels[untouched].tobytes()
    assert (forged.mask == (differing(forged.pixels, forged.twin) & (forged.alpha > 0))).all()
    assert (forged.pixels == on_grid(forged.pixels, canvas)).all()
    assert forged.mask.sum(axis=(1, 2)).max() >= 24


@pytest.mark.parametrize("family", _FAMILIES)
def test_every_forgery_keeps_the_contract(family: str) -> None:
    canvas, forgeries = _usual(family)
    assert len(forgeries) >= len(_SEEDS) / 3
    assert {forged.kind for forged in forgeries} == _KINDS[family]
    assert len({forged.variant for forged in forgeries}) > 1
    for forged in forgeries:
        _valid(forged, canvas, family)


@pytest.mark.parametrize("family", ["window", "nlmfill", "fusion", "transport", "patches"])
def test_removal_takes_the_lesion_towards_its_surroundings(family: str) -> None:
    canvas, forgeries = _usual(family)
    removals = [forged for forged in forgeries if forged.kind == "removed"]
    assert removals
    for forged in removals:
        gone = canvas.lesion & ~forged.lesion
        assert gone.sum() >= 24
        assert not (forged.lesion & ~canvas.lesion).any()
        # The lesion stands 65 above its surroundings; the ends of a run are edited at four fifths.
        assert forged.pixels[gone].mean() < canvas.pixels[gone].mean() - 30, forged.variant
        assert forged.pixels[gone].mean() > canvas.pixels[gone].mean() - 110, forged.variant


@pytest.mark.parametrize("family", ["window", "fusion", "physics", "patches"])
def test_addition_marks_a_lesion_where_pixels_changed(family: str) -> None:
    canvas, forgeries = _usual(family)
    additions = [forged for forged in forgeries if forged.kind == "added"]
    assert additions
    for forged in additions:
        new = forged.lesion & ~canvas.lesion
        assert new.sum() >= 24
        assert (canvas.lesion <= forged.lesion).all()
        assert np.abs(forged.pixels - canvas.pixels)[new].mean() > 5, forged.variant
        if family in ("window", "patches"):
            assert forged.pixels[new].mean() > canvas.pixels[new].mean() + 5, forged.variant


def test_altered_lesion_is_fainter_or_smaller() -> None:
    canvas, forgeries = _usual("transport")
    for forged in (forged for forged in forgeries if forged.kind == "altered"):
        changed = canvas.lesion & (forged.alpha > 0.5)
        assert forged.pixels[changed].mean() < canvas.pixels[changed].mean() - 10
        assert forged.lesion.any()
        assert (forged.lesion == canvas.lesion).all() == forged.variant.startswith("fainter")


@pytest.mark.parametrize("family", _FAMILIES)
def test_one_slice_without_donor_is_enough(family: str) -> None:
    canvas = _head(slices=1)
    forgeries = _run(family, canvas, None, range(12))
    assert len(forgeries) >= 4
    for forged in forgeries:
        _valid(forged, canvas, family)


@pytest.mark.parametrize(
    ("family", "with_donor"), list(product(["window", "fusion", "physics", "patches"], [True, False]))
)
def test_healthy_head_takes_additions_only(family: str, with_donor: bool) -> None:
    canvas = _head(slices=2, lesion=False, high=4095.0)
    forgeries = _run(family, canvas, _donor() if with_donor else None, range(9))
    # Fusion needs somebody's lesion.
    assert len(forgeries) >= (3 if with_donor or family != "fusion" else 0)
    for forged in forgeries:
        assert forged.kind == "added"
        _valid(forged, canvas, family)


def _odd_heads() -> dict[str, Canvas]:
    usual = _head()
    rows, cols = np.indices(usual.pixels.shape[1:])
    left = np.broadcast_to((np.hypot(rows - 44, cols - 6) < 14), usual.pixels.shape) & usual.head
    flat = np.full_like(usual.pixels, 50)
    speck = np.zeros_like(usual.lesion)
    speck[:, 40:44, 40:44] = True
    speck[2, 40:44, 41:44] = False
    return {
        "lesion at the edge": replace(usual, lesion=left),
        "speck": replace(usual, lesion=speck),
        "no lesion": _head(lesion=False),
        "tiny": _head(rows=20, cols=20),
        "constant": replace(usual, pixels=flat),
        "no head": replace(usual, head=np.zeros_like(usual.head)),
        "all lesion": replace(usual, lesion=usual.head.copy()),
    }


@pytest.mark.parametrize(("family", "name"), list(product(_FAMILIES, _odd_heads())))
def test_odd_heads_are_refused_or_forged_well(family: str, name: str) -> None:
    canvas = _odd_heads()[name]
    for donor in (None, _donor(), canvas):
        for forged in _run(family, canvas, donor, range(4)):
            _valid(forged, canvas, family)


def test_grain_has_the_level_and_the_correlation_of_the_slice() -> None:
    rng = np.random.default_rng(3)
    white = rng.standard_normal((120, 120), dtype=np.float32)
    rows = 100 + 4 * (white + np.roll(white, 1, axis=1)) / np.sqrt(2)
    grain = measure(rows.astype(np.float32), np.ones((120, 120), np.bool_))
    made = grain.field((120, 120), rng)
    assert 2.4 < grain.sigma < 4.4
    assert made.std() == pytest.approx(1, abs=0.1)
    along, across = (float((made * np.roll(made, 1, axis=axis)).mean()) for axis in (1, 0))
    assert along > across + 0.2


def test_overall_pass_keeps_shape_and_stays_close() -> None:
    canvas, names = _head(), set()
    for seed in _SEEDS:
        operate, name = draw_overall(canvas, np.random.default_rng(seed))
        passed = operate(canvas.pixels)
        names.add(name.split(",")[0])
        assert passed.shape == canvas.pixels.shape
        assert passed.dtype == np.float32
        assert np.isfinite(passed).all()
        assert np.abs(passed - canvas.pixels)[canvas.head].mean() < 12
        assert (operate(canvas.pixels) == passed).all()
    assert len(names) >= 3
