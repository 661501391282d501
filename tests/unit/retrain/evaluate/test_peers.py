"""Each peer against the trace that it was made for, and against a slice without any."""

import cv2
import numpy as np
import pytest

from dicomguard.retrain.evaluate import peers, places
from dicomguard.retrain.tamper.filters import jpeg
from dicomguard.retrain.tamper.forged import Mask, Pixels

PATCH = np.s_[50:90, 88:126]


def head_without_symmetry() -> tuple[Pixels, Mask]:
    """Tissue that is no image of itself, with noise of one level."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[-80:80, -76:76]
    head = np.hypot(rows / 74, columns / 70) < 1
    tissue = 110 + 90 * cv2.GaussianBlur(rng.standard_normal((160, 152)).astype(np.float32), (0, 0), 4)
    plane = np.where(head, tissue + 4 * rng.standard_normal((160, 152)), 0)
    return np.clip(np.rint(plane), 0, 255).astype(np.float32), np.asarray(head, np.bool_)


def planted(kind: str) -> tuple[Pixels, Mask, Mask]:
    """Plane with a trace in PATCH, head, patch."""
    plane, head = head_without_symmetry()
    patch = np.zeros(plane.shape, np.bool_)
    patch[PATCH] = True
    if kind == "noise inconsistency":
        plane[PATCH] = cv2.GaussianBlur(plane, (0, 0), 1.5)[PATCH]
    elif kind == "ELA":
        plane[PATCH] = cv2.GaussianBlur(jpeg(plane, 40, low=0, high=255), (0, 0), 1)[PATCH]
    else:
        plane[PATCH] = plane[:, ::-1][PATCH]
    return np.rint(plane).astype(np.float32), head, patch


@pytest.mark.parametrize("kind", list(peers.PEERS))
def test_the_trace_it_was_made_for(kind: str) -> None:
    plane, head, patch = planted(kind)
    placed = places.place(head, patch, {"said": peers.PEERS[kind](plane, head)})
    # The mirrored patch and what it was copied from are each other's image.
    image = np.ascontiguousarray(patch[:, ::-1]) if kind == "mirror correlation" else np.zeros_like(patch)
    known = places.place(head & ~image, patch, placed.said)
    value = places.pixel_auc(
        places.Placed(head=placed.head & (known.head | placed.forged), forged=placed.forged, said=placed.said),
        placed.said["said"],
    )
    assert value is not None
    assert value > 0.85


def test_a_slice_scores_higher_with_the_trace() -> None:
    untouched, _ = head_without_symmetry()
    plane, head, _ = planted("noise inconsistency")
    said = peers.noise_inconsistency
    assert peers.score(said(plane, head), head) > peers.score(said(untouched, head), head) + 0.3


def test_no_head_is_no_suspicion() -> None:
    plane = np.zeros((64, 64), np.float32)
    assert all(not said.any() for said in peers.maps(plane, np.zeros((64, 64), np.bool_)).values())


def grid(rows: slice) -> places.Placed:
    forged = np.zeros((places.GRID, places.GRID), np.bool_)
    forged[rows] = True
    head = np.ones_like(forged)
    return places.Placed(head=head, forged=forged, said={"oracle": forged.astype(np.float32)})


def test_pixel_auc_of_an_oracle_and_of_a_constant() -> None:
    one = grid(slice(0, 10))
    assert places.pixel_auc(one, one.said["oracle"]) == 1.0
    assert places.pixel_auc(one, np.ones_like(one.said["oracle"])) == 0.5
    assert places.pixel_auc(grid(slice(0, 0)), one.said["oracle"]) is None


def test_the_prior_knows_the_others_only() -> None:
    same = [("a", grid(slice(0, 10))), ("b", grid(slice(0, 10))), ("c", grid(slice(50, 60)))]
    prior = places.prior(same)
    # Where a is forged b is too; where c is forged nobody else is.
    assert places.pixel_auc(same[0][1], prior["a"]) == pytest.approx(0.92, abs=0.08)
    value = places.pixel_auc(same[2][1], prior["c"])
    assert value is not None
    assert value < 0.5
    assert places.prior([]) == {}


def test_a_slice_is_laid_over_the_box_of_its_head() -> None:
    head, forged = np.zeros((100, 80), np.bool_), np.zeros((100, 80), np.bool_)
    head[20:84, 8:72] = True
    forged[20:52, 8:72] = True
    placed = places.place(head, forged, {})
    assert placed.head.all()
    assert placed.forged[:32].all()
    assert not placed.forged[33:].any()
