"""Curves of a training run as points of SVG lines: pure, from the lines that the trainer wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 720, 220
LEFT, BOTTOM, TOP = 46, 26, 10
# The losses that are drawn by themselves, biggest first; each needs a stroke of its own in the style sheet.
MOST_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One loss over the steps."""

    name: str
    points: str
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """All lines with the ends of the axes."""

    lines: tuple[Line, ...]
    first_step: int
    last_step: int
    top: float


def chart(progress: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The sum of all losses and the largest single ones; None with fewer than two points."""
    lines = [line for line in progress if line.get("losses")]
    if len(lines) < 2:
        return None
    steps = [int(line["step"]) for line in lines]
    series = {"all losses": [float(sum(line["losses"].values())) for line in lines]}
    names = sorted({name for line in lines for name in line["losses"]})
    single = {name: [float(line["losses"].get(name, 0.0)) for line in lines] for name in names}
    for name in sorted(single, key=lambda name: -max(single[name]))[: MOST_LINES - 1]:
        series[name.replace("_", " ")] = single[name]
    top = max(max(values) for values in series.values()) or 1.0
    return Chart(
        lines=tuple(
            Line(name=name, points=_points(steps, values, top), last=values[-1]) for name, values in series.items()
        ),
        first_step=steps[0],
        last_step=steps[-1],
        top=top,
    )


def _points(steps: Sequence[int], values: Sequence[float], top: float) -> str:
    across = max(steps[-1] - steps[0], 1)
    wide, high = WIDTH - LEFT - 10, HEIGHT - BOTTOM - TOP
    return " ".join(
        f"{LEFT + wide * (step - steps[0]) / across:.1f},{TOP + high * (1 - value / top):.1f}"
        for step, value in zip(steps, values, strict=True)
    )
