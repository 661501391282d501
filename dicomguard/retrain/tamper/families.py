"""The families of forgery that training draws from.

Each entry is one method of attack with several implementations inside it: a detector that learns one program's habits
fails on the next program (leaving out a family of the same hand costs nothing, another hand's costs much). So they
have five authors: those named `third/…` to `sixth/…` are each by somebody who has not read the others. A further
author's are held back for selection; those kept for test live in `second_hand` and are never named here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from dicomguard.retrain.tamper import (
    cleanup,
    copy_move,
    exemplar,
    gradient,
    learned,
    liquify,
    mirror,
    neighbour,
    painted,
    pde,
    pyramid,
    self_blend,
    splice,
)
from dicomguard.retrain.tamper.fifth_hand import fusion, nlmfill, patches, physics, transport, window
from dicomguard.retrain.tamper.fifth_hand.overall import draw_overall as draw_fifth_overall
from dicomguard.retrain.tamper.finish import with_overall_pass
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Pixels
from dicomguard.retrain.tamper.fourth_hand import (
    atlas,
    curve,
    frequency,
    heal,
    lasso,
    lowrank,
    overall,
    resynth,
    tissue,
)
from dicomguard.retrain.tamper.seventh_hand import cleanedit, dctfill, gainfield, kriging, shiftmap, volume
from dicomguard.retrain.tamper.seventh_hand.overall import draw_overall as draw_seventh_overall
from dicomguard.retrain.tamper.sixth_hand import lowres, masseffect, regress, seamcut, sparse, style
from dicomguard.retrain.tamper.sixth_hand.overall import draw_overall as draw_sixth_overall
from dicomguard.retrain.tamper.third_hand import (
    attenuate,
    between,
    care,
    diffuse,
    flow_mirror,
    grown,
    moved,
    quilt,
    retouch,
    transplant,
)

_ATTEMPTS = 5
# Share of forgeries that get a pass over the whole slice; the twin gets the same pass.
_OVERALL_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    # Families of one group are left out together when the detector is judged on what it has not seen.
    group: str
    kinds: tuple[Kind, ...]
    # None when the canvas does not allow it.
    forge: Callable[[Canvas, Canvas | None, np.random.Generator], Forged | None]
    # Draws the hand's pass over whole slices, and names it.
    overall: Callable[[Canvas, np.random.Generator], tuple[Callable[[Pixels], Pixels], str]] = cleanup.draw_overall


def _table(*families: Family) -> Mapping[str, Family]:
    return MappingProxyType({family.name: family for family in families})


# The third hand does not share the first one's passes over the slice.
_third = partial(Family, overall=care.draw_overall)
# Nor do the others.
_fourth = partial(Family, overall=overall.draw_overall)
_fifth = partial(Family, overall=draw_fifth_overall)
_sixth = partial(Family, overall=draw_sixth_overall)
_seventh = partial(Family, overall=draw_seventh_overall)

FAMILIES = _table(
    Family(name="pde", group="pde", kinds=("removed",), forge=pde.forge),
    Family(name="exemplar", group="exemplar", kinds=("removed",), forge=exemplar.forge),
    Family(name="mirror", group="exemplar", kinds=("added", "removed"), forge=mirror.forge),
    Family(name="neighbour", group="exemplar", kinds=("added", "removed", "altered"), forge=neighbour.forge),
    Family(name="gradient", group="gradient", kinds=("added", "removed"), forge=gradient.forge),
    Family(name="pyramid", group="paste", kinds=("added", "removed"), forge=pyramid.forge),
    Family(name="splice", group="paste", kinds=("added", "removed"), forge=splice.forge),
    Family(name="copy-move", group="paste", kinds=("added", "removed"), forge=copy_move.forge),
    Family(name="painted", group="parametric", kinds=("added", "altered"), forge=painted.forge),
    Family(name="liquify", group="parametric", kinds=("altered",), forge=liquify.forge),
    Family(name="learned", group="learned", kinds=("added", "removed"), forge=learned.forge),
    Family(name="self-blend", group="self-blend", kinds=("blend",), forge=self_blend.forge),
    _third(name="third/diffuse", group="pde", kinds=("removed",), forge=diffuse.forge),
    _third(name="third/flow-mirror", group="exemplar", kinds=("added", "removed"), forge=flow_mirror.forge),
    _third(name="third/between", group="exemplar", kinds=("added", "removed", "altered"), forge=between.forge),
    _third(name="third/quilt", group="exemplar", kinds=("removed",), forge=quilt.forge),
    _third(name="third/attenuate", group="parametric", kinds=("removed",), forge=attenuate.forge),
    _third(name="third/grown", group="parametric", kinds=("added",), forge=grown.forge),
    _third(name="third/transplant", group="paste", kinds=("added", "removed"), forge=transplant.forge),
    _third(name="third/moved", group="paste", kinds=("added", "removed"), forge=moved.forge),
    _third(name="third/retouch", group="exemplar", kinds=("added", "removed"), forge=retouch.forge),
    _fourth(name="fourth/heal", group="exemplar", kinds=("removed", "altered"), forge=heal.forge),
    _fourth(name="fourth/lowrank", group="pde", kinds=("removed", "altered"), forge=lowrank.forge),
    _fourth(name="fourth/atlas", group="exemplar", kinds=("added", "removed"), forge=atlas.forge),
    _fourth(name="fourth/tissue", group="parametric", kinds=("added",), forge=tissue.forge),
    _fourth(name="fourth/curve", group="parametric", kinds=("removed", "altered"), forge=curve.forge),
    _fourth(name="fourth/frequency", group="gradient", kinds=("added", "removed"), forge=frequency.forge),
    _fourth(name="fourth/lasso", group="paste", kinds=("added",), forge=lasso.forge),
    _fourth(name="fourth/resynth", group="exemplar", kinds=("removed", "altered"), forge=resynth.forge),
    _fifth(name="fifth/window", group="exemplar", kinds=("added", "removed"), forge=window.forge),
    _fifth(name="fifth/nlmfill", group="pde", kinds=("removed",), forge=nlmfill.forge),
    _fifth(name="fifth/fusion", group="paste", kinds=("added", "removed"), forge=fusion.forge),
    _fifth(name="fifth/transport", group="parametric", kinds=("removed", "altered"), forge=transport.forge),
    _fifth(name="fifth/physics", group="parametric", kinds=("added",), forge=physics.forge),
    _fifth(name="fifth/patches", group="exemplar", kinds=("added", "removed"), forge=patches.forge),
    _sixth(name="sixth/sparse", group="pde", kinds=("removed",), forge=sparse.forge),
    _sixth(name="sixth/seamcut", group="paste", kinds=("added", "removed"), forge=seamcut.forge),
    _sixth(name="sixth/regress", group="pde", kinds=("removed",), forge=regress.forge),
    _sixth(name="sixth/masseffect", group="parametric", kinds=("added",), forge=masseffect.forge),
    _sixth(name="sixth/style", group="parametric", kinds=("removed", "altered"), forge=style.forge),
    _sixth(name="sixth/lowres", group="learned", kinds=("added", "removed"), forge=lowres.forge),
)

# Self-blends are no attack; they train only.
ATTACKS = _table(*(family for family in FAMILIES.values() if family.name != "self-blend"))

# No training has drawn these yet: they are forgeries by a stranger to the shipped weights, and weights are chosen on
# them (`trials.hands`). The training that takes them up needs other ones to be chosen on.
HELD_BACK = _table(
    _seventh(name="seventh/kriging", group="pde", kinds=("removed",), forge=kriging.forge),
    _seventh(name="seventh/shiftmap", group="exemplar", kinds=("removed",), forge=shiftmap.forge),
    _seventh(
        name="seventh/cleanedit", group="parametric", kinds=("added", "removed", "altered"), forge=cleanedit.forge
    ),
    _seventh(name="seventh/volume", group="paste", kinds=("added",), forge=volume.forge),
    _seventh(name="seventh/dctfill", group="pde", kinds=("removed",), forge=dctfill.forge),
    _seventh(
        name="seventh/gainfield", group="parametric", kinds=("added", "removed", "altered"), forge=gainfield.forge
    ),
)

_ALL = MappingProxyType({**FAMILIES, **HELD_BACK})


def one_of_each_group(table: Iterable[Family]) -> tuple[Family, ...]:
    """The first family of each group: enough for a drill, in a fraction of the time."""
    chosen: dict[str, Family] = {}
    for family in table:
        chosen.setdefault(family.group, family)
    return tuple(chosen.values())


def hand(name: str) -> str:
    """Author of a family: "first" for those without a prefix."""
    author, slash, _ = name.partition("/")
    return author if slash else "first"


def draw(
    canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, *, names: Sequence[str] | None = None
) -> Forged | None:
    """Forge with a family drawn at random among `names` (default all); None when five draws found no way."""
    choices = tuple(FAMILIES) if names is None else tuple(names)
    for _ in range(_ATTEMPTS):
        family = _ALL[choices[int(rng.integers(len(choices)))]]
        forged = family.forge(canvas, donor, rng)
        if forged is not None:
            if rng.random() >= _OVERALL_SHARE:
                return forged
            operate, title = family.overall(canvas, rng)
            return with_overall_pass(forged, canvas, operate, title)
    return None
