"""What trials wrote is read as they wrote it, said to be what it is, and refused when it is anything else."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomguard.analyze.scores import UNCALIBRATED
from dicomguard.errors import Refused
from dicomguard.retrain.evaluate import checks, goals, report, short_runs, short_runs_page
from dicomguard.retrain.evaluate.protocol import evaluate
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.trials import left_out, twins, unseen
from dicomguard.retrain.trials.twins import Outcome
from tests.unit.retrain.evaluate.planes import KEYS, write_archive
from tests.unit.retrain.evaluate.test_protocol import judge
from tests.unit.retrain.net import looks

MADE = {"split": "test", "seed": 1, "minutes": 10.0}


def outcomes(score: float) -> list[Outcome]:
    """Eight people whose forged slice has one of two scores and whose authentic one has 0.5."""
    return [
        Outcome(
            source="s",
            origins=frozenset({"s"}),
            patient=f"p{i}",
            family="x",
            score=score * (i % 2),
            twin_score=0.5,
            pixel_auc=0.6,
            f1=0.2,
        )
        for i in range(8)
    ]


def row(name: str, auc: float, **more: Any) -> dict[str, Any]:
    """As the trial makes it, then with the figure that is to be told."""
    nothing = left_out.Absence(name=name, families=frozenset({"x"}))
    made = left_out.compared(nothing, outcomes(1.0), outcomes(1.0))
    made["without"] |= {"slice_auc": auc, "slice_auc_low": auc - 0.05, "slice_auc_high": auc + 0.05}
    return made | {"run": f"{name}+source:btp", "beside": "everything", "as_in_the_product": None} | more


def in_series() -> dict[str, Any]:
    seen = unseen.Unseen(runs=looks.runs(), calibration=UNCALIBRATED)
    return seen.table(families={"splice"}, sources=())


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def stock(margin: list[float] | None) -> dict[str, Any]:
    rows = {"ours, dense maps": twins.figures(outcomes(1.0)), "stock Mask R-CNN": twins.figures(outcomes(0.0))}
    return MADE | {"steps": 7, "beside": "everything", "rows": rows, "margin": margin}


def shuffled(holds: bool) -> dict[str, Any]:
    return twins.figures(outcomes(1.0)) | {
        "holds": holds,
        "split": "validation",
        "seed": 1,
        "steps": 9,
        "minutes": 9.98,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of what was left out, of which one says a group again, both controls and a stock model."""
    rows = [row("group:paste", 0.7), row("family:splice", 0.9), row("source:lgg", 0.6), row("source:cheng", 0.8)]
    write(tmp_path, "a/left_out.json", MADE | {"rows": rows})
    again = [row("group:paste", 0.8), row("group:pde", 0.5, as_in_the_product=in_series())]
    write(tmp_path, "b/c/left_out-groups.json", MADE | {"minutes": 20.0, "rows": again})
    write(tmp_path, "shuffled.json", shuffled(True))
    write(tmp_path, "seed2/shuffled.json", shuffled(False))
    write(tmp_path, "stock.json", stock([0.2, 0.1, 0.3]))
    write(tmp_path, "progress.json", "of somebody else")
    return tmp_path


def test_everything_below_the_folder_is_read_worst_first(folder: Path) -> None:
    found = short_runs.read(folder)
    names = [one["left_out"] for one in found["left_out"]]
    assert names == ["group:pde", "source:lgg", "group:paste", "group:paste", "source:cheng", "family:splice"]
    assert [one["holds"] for one in found["shuffled"]] == [False, True]
    assert [one["judge"] for one in found["stock"][0]["judges"]] == ["stock Mask R-CNN", "ours, dense maps"]
    pde, lgg = found["left_out"][:2]
    product = in_series()
    assert (pde["series_slice_auc"], pde["slice_auc"]) == (product["mean"][0], 0.5)
    assert [pde["studies_flagged"], pde["studies"]] == product["authentic_stacks_flagged"][:2]
    assert [pde["forged_found"], pde["forged"]] == product["forged_stacks_found"][:2]
    assert (pde["study_auc"], pde["study_auc_low"], pde["study_auc_high"]) == tuple(product["stack_auc"])
    assert (lgg["slice_auc"], lgg["studies"], lgg["study_auc"]) == (0.6, None, None)
    assert lgg["loss_low"] <= lgg["loss"] <= lgg["loss_high"]


EMPTY: dict[str, Any] = {
    "families": [],
    "means": {"families": dict.fromkeys(("study_auc", "study_sensitivity", "pixel_f1", "pixel_iou"))},
    "processing": [],
    "alarms_by_kind": [],
    "froc": [],
    "detection_limit": [],
    "calibration": {"slice at 50%": None, "study at 50%": None},
    "four_way": {"macro_f1": 0.5},
    "controls": [],
}
EMPTY["means"]["second_hand"] = EMPTY["means"]["families"]


def told(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["metric"]: one for one in goals.goals(EMPTY | {"trials": found})}


def test_goals_are_held_against_short_runs_and_say_so(folder: Path) -> None:
    rows = told(short_runs.read(folder))
    # A group left out twice counts once, with its mean.
    assert rows["slice AUC, group left out, mean"]["value"] == pytest.approx((0.75 + 0.5) / 2, abs=1e-4)
    assert rows["slice AUC, group left out, worst"]["value"] == 0.5
    assert rows["slice AUC, group left out, worst"]["band"] == "below the least"
    assert rows["slice AUC, family left out, mean"]["value"] == 0.9
    assert rows["slice AUC, lgg and cheng left out, mean"]["value"] == 0.7
    assert rows["margin over the stock Mask R-CNN"]["band"] == "moonshot"
    how = rows["slice AUC, group left out, mean"]["how"]
    groups = len({family.group for family in ATTACKS.values()})
    assert how == (
        f"2 of {groups} groups, short runs of 10 to 20 CPU minutes of dense maps, test patients, "
        "not the shipped weights"
    )
    found, of = in_series()["forged_stacks_found"][:2]
    sensitivity = rows["study sensitivity at the alert, group left out"]
    assert sensitivity["value"] == pytest.approx(found / of, abs=1e-4)
    assert sensitivity["how"].startswith(f"{found} of {of}, 2 of {groups} groups, short runs")
    # Nothing was counted there.
    assert rows["authentic studies flagged, source left out"]["reached"] == goals.NOT_MEASURED
    assert rows["study AUC, own families"]["how"] == ""


def test_authentic_studies_of_a_source_left_out_are_counted(tmp_path: Path) -> None:
    product = in_series() | {"authentic_stacks_flagged": [3, 40, 0.2], "authentic_pictures_flagged": [0, 0, 1.0]}
    write(tmp_path, "left_out.json", MADE | {"rows": [row("source:btp", 0.6, as_in_the_product=product)]})
    rows = told(short_runs.read(tmp_path))
    flagged = rows["authentic studies flagged, source left out"]
    assert (flagged["value"], flagged["reached"], flagged["band"]) == (0.075, "7.5 %", "least")
    assert rows["authentic loose pictures flagged, source left out"]["reached"] == goals.NOT_MEASURED
    # One of the two is no mean of both.
    assert rows["slice AUC, lgg and cheng left out, mean"]["reached"] == goals.NOT_MEASURED


def test_a_margin_that_chance_may_have_given_reaches_no_band(tmp_path: Path) -> None:
    write(tmp_path, "stock.json", stock([0.2, -0.01, 0.4]))
    margin = told(short_runs.read(tmp_path))["margin over the stock Mask R-CNN"]
    assert (margin["reached"], margin["band"]) == ("0.20", "below the least")
    # The smallest of several is told.
    write(tmp_path, "other/stock.json", stock([0.1, 0.06, 0.2]))
    assert told(short_runs.read(tmp_path))["margin over the stock Mask R-CNN"]["reached"] == "0.10"


def test_without_trials_nothing_is_measured_by_them() -> None:
    rows = goals.goals(EMPTY)
    assert all(one["how"] == "" for one in rows)
    assert {one["reached"] for one in rows if one["row"] in (3, 4, 10, 22)} == {goals.NOT_MEASURED}


def test_the_section_says_what_it_is(folder: Path) -> None:
    html = short_runs_page.section(short_runs.read(folder))
    assert "not the weights evaluated above" in html
    assert html.index("Groups of families left out") < html.index("Families left out, worst")
    assert html.index('<td class="t">lgg') < html.index('<td class="t">cheng')
    assert "Margin of ours +0.200 [+0.100, +0.300]" in html
    assert html.index("does not hold") < html.index(">holds<")
    assert "group:paste+source:btp" in html


def test_an_evaluation_takes_them_in(folder: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive")
    document = evaluate(
        archive,
        tmp_path / "none",
        out=tmp_path / "out",
        keys=KEYS,
        fast=True,
        trials=folder,
        score=judge(lambda plane: 0.3, []),
    )
    assert document["trials"] == short_runs.read(folder)
    held = {one["holds"] for one in document["controls"] if one["control"] == "shuffled labels"}
    assert held == {True, False}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "short runs of 10 to 20 CPU minutes of dense maps" in page
    assert "What was never seen, by short runs" in page
    assert "short runs of 10 to 20 CPU minutes of dense maps" in report.text(document)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["trials"]["stock"]


def test_what_trials_wrote_is_read_before_anything_is_judged(tmp_path: Path) -> None:
    def score(files: object) -> Any:
        raise AssertionError("a study was judged first")

    archive = write_archive(tmp_path / "archive")
    with pytest.raises(Refused, match="holds no left_out"):
        evaluate(archive, tmp_path / "w", out=tmp_path / "out", keys=KEYS, trials=tmp_path / "absent", score=score)


def test_the_control_tells_what_was_found() -> None:
    figures = {"slice_auc": 0.5, "pixel_auc": None, "f1": 0.0, "minutes": 4.0, "holds": False}
    found = checks.shuffled([figures])
    assert found[0]["reached"].startswith("slice AUC 0.50, pixel AUC –, F1 0.00 after 4 CPU minutes")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("left_out.json", "", "Expecting value"),
        ("left_out-2.json", "[" * 100_000, "is not what a trial writes"),
        ("stock.json", '{"rows": {}}', "the file has no 'split'"),
        (
            "shuffled.json",
            json.dumps(shuffled(True) | {"slice_auc": float("nan")}),
            "slice_auc of the file is no number",
        ),
        ("shuffled.json", json.dumps(shuffled(True) | {"holds": "yes"}), "neither true nor false"),
        ("left_out.json", json.dumps(MADE | {"rows": [row("group:<b>", 0.5)]}), "left_out of item 1 of rows"),
        ("left_out.json", json.dumps(MADE | {"rows": []}), "with a row"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).write_text(text)
    with pytest.raises(Refused) as caught:
        short_runs.read(tmp_path)
    assert said in str(caught.value)
    assert name in str(caught.value) or "with a row" in said


def test_a_file_too_large_is_not_parsed(tmp_path: Path) -> None:
    with (tmp_path / "left_out.json").open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(Refused, match="more than"):
        short_runs.read(tmp_path)


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
WHOLE = {
    "left_out.json": MADE | {"rows": [row("group:paste", 0.7), row("source:lgg", 0.6, as_in_the_product=in_series())]},
    "shuffled.json": shuffled(True),
    "stock.json": stock([0.2, 0.1, 0.3]),
}


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


PLACES = [(name, place) for name, content in WHOLE.items() for place in places(content)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), GARBAGE, st.booleans())
def test_garbage_anywhere_is_refused_or_harmless(
    tmp_path: Path, at: tuple[str, tuple[Any, ...]], garbage: object, remove: bool
) -> None:
    """Whatever stands in one place: a sentence, or tables from which goals and page can be made."""
    name, place = at
    content: Any = copy.deepcopy(WHOLE[name])
    if not place:
        content = garbage
    else:
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        if remove:
            del holder[place[-1]]
        else:
            holder[place[-1]] = garbage
    path = write(tmp_path, name, content)
    try:
        found = short_runs.read(tmp_path)
    except Refused as error:
        assert str(error).endswith(".")
        return
    finally:
        path.unlink()
    told(found)
    short_runs_page.section(found)
    checks.shuffled(found["shuffled"])
