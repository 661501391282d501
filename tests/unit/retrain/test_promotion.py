from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.errors import Broken
from dicomguard.retrain.promotion import Alarms, Auc, Bars, Figures, Keep, Promote, decide

BARS = Bars()


def auc(name: str, value: float, spread: float = 0.04) -> Auc:
    return Auc(name=name, auc=value, low=max(0.0, value - spread), high=min(1.0, value + spread))


INCUMBENT = Figures(
    model_id="dg-1",
    weights_sha256="a" * 64,
    golden_sha256="0" * 64,
    overall=auc("all", 0.84),
    families=(auc("splice", 0.90), auc("copy_move", 0.71), auc("inpaint", 0.80)),
    alarms=(Alarms(source="lgg", flagged=6, of=100, upper=0.12), Alarms(source="btp", flagged=1, of=20, upper=0.22)),
    alarms_overall=Alarms(source="all", flagged=7, of=120, upper=0.11),
    people=Alarms(source="all", flagged=1, of=20, upper=0.22),
)
SAME = replace(INCUMBENT, model_id="dg-2", weights_sha256="b" * 64)


def worst(value: float) -> Figures:
    return replace(SAME, families=(auc("splice", 0.90), auc("copy_move", 0.85), auc("inpaint", value)))


def lgg(flagged: int) -> Figures:
    return replace(SAME, alarms=(Alarms(source="lgg", flagged=flagged, of=100, upper=0.3), SAME.alarms[1]))


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (SAME, None),
        (replace(SAME, weights_sha256="a" * 64), "training has changed nothing"),
        (replace(SAME, golden_sha256="1" * 64), "different golden sets"),
        (replace(SAME, families=SAME.families[:2]), "not measured on the family inpaint"),
        (replace(SAME, alarms=SAME.alarms[:1]), "not measured on the source btp"),
        # 0.10 of a source is allowed; above it only up to the incumbent's bound, here 0.12.
        (lgg(10), None),
        (lgg(12), None),
        (
            lgg(13),
            "13 of 100 authentic slices of lgg (13.0 %), more than the 10.0 % allowed; the incumbent flags 6",
        ),
        # Over all sources the bound is 0.11 of 120.
        (replace(SAME, alarms_overall=replace(SAME.alarms_overall, flagged=13)), None),
        (replace(SAME, alarms_overall=replace(SAME.alarms_overall, flagged=14)), "incumbent's bound of 11.0 % (7 of"),
        # Of people the bound is 0.22 of 20: alarms on whole studies count though no slice more is flagged.
        (replace(SAME, people=replace(SAME.people, flagged=4)), None),
        (replace(SAME, people=replace(SAME.people, flagged=5)), "study of 5 of 20 people (25.0 %), above the"),
        # 0.71 - 0.04
        (worst(0.67), None),
        (worst(0.66), "worst family, inpaint, has slice AUC 0.660; the incumbent's worst, copy_move, has 0.710"),
        # 0.84 - 0.04
        (replace(SAME, overall=auc("all", 0.80)), None),
        (replace(SAME, overall=auc("all", 0.79)), "over all families is 0.790, below the incumbent's interval 0.800"),
        (replace(SAME, alarms=(*SAME.alarms, Alarms(source="new", flagged=3, of=9, upper=0.7))), "3 of 9 authentic"),
        (replace(SAME, alarms=(*SAME.alarms, Alarms(source="new", flagged=0, of=0, upper=1.0))), None),
    ],
)
def test_decision(candidate: Figures, reason: str | None) -> None:
    decision = decide(candidate, INCUMBENT, BARS)
    if reason is None:
        assert isinstance(decision, Promote), decision
        assert len(decision.reasons) == 4
    else:
        assert isinstance(decision, Keep)
        assert any(reason in sentence for sentence in decision.reasons), decision


def test_a_source_that_both_flag_alike_is_no_reason() -> None:
    """The incumbent is as bad there already; the candidate is not made to pay for it."""
    bad = replace(lgg(35), alarms=(replace(lgg(35).alarms[0], upper=0.44), SAME.alarms[1]))
    assert isinstance(decide(bad, replace(bad, weights_sha256="c" * 64), BARS), Promote)


def test_all_reasons_are_given_at_once() -> None:
    bad = replace(
        worst(0.5),
        overall=auc("all", 0.6),
        alarms_overall=replace(SAME.alarms_overall, flagged=60),
        people=replace(SAME.people, flagged=20),
    )
    decision = decide(bad, INCUMBENT, BARS)
    assert isinstance(decision, Keep) and len(decision.reasons) == 4


def test_figures_survive_json_and_refuse_the_impossible() -> None:
    assert Figures.from_json(INCUMBENT.to_json()) == INCUMBENT
    for fields in ({"families": ()}, {"alarms": ()}, {"overall": Auc(name="all", auc=0.9, low=0.95, high=1.0)}):
        with pytest.raises(Broken):
            replace(INCUMBENT, **fields)
    with pytest.raises(Broken):
        replace(INCUMBENT, overall=Auc(name="all", auc=float("nan"), low=0.1, high=1.0))


@given(better=st.floats(0, 0.05), fewer=st.integers(0, 6))
def test_what_is_better_everywhere_is_always_proposed(better: float, fewer: int) -> None:
    candidate = replace(
        SAME,
        overall=auc("all", 0.84 + better),
        families=tuple(auc(one.name, one.auc + better) for one in INCUMBENT.families),
        alarms=tuple(replace(one, flagged=max(0, one.flagged - fewer)) for one in INCUMBENT.alarms),
    )
    assert isinstance(decide(candidate, INCUMBENT, BARS), Promote)
