"""Charts as inline SVG: no script, no font, colours of the page (light, dark, print). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log2
from typing import TypeAlias

_WIDTH, _HEIGHT = 340, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 42
# The page defines so many colours, --c0 and on; further lines take them again, dashed.
COLOURS = 6

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A named curve in data units."""

    title: str
    points: Sequence[Point]
    # Dots at the points, none for a curve of many.
    dots: bool = False
    steps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """0…1, or ticks on a logarithmic scale."""

    title: str
    ticks: Sequence[float]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Place on the axis, 0…1, clipped."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.logarithmic:
            low, high, value = log2(low), log2(high), log2(max(value, 1e-9))
        return min(max((value - low) / (high - low), 0.0), 1.0)


UNIT_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def chart(name: str, x: Axis, y: Axis, lines: Sequence[Line], *, diagonal: bool = False) -> str:
    """A figure with its legend; `name` is its caption and its name for those who hear it."""

    def at(point: Point) -> Point:
        across = _LEFT + x.share(point[0]) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - y.share(point[1]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_grid(x, y, at((x.ticks[0], y.ticks[0])), at((x.ticks[-1], y.ticks[-1])))]
    if diagonal:
        (x0, y0), (x1, y1) = at((x.ticks[0], y.ticks[0])), at((x.ticks[-1], y.ticks[-1]))
        parts.append(f'<path class="chance" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    keys = []
    for index, line in enumerate(lines):
        colour = f"var(--c{index % COLOURS})"
        dash = ' stroke-dasharray="5 3"' if index >= COLOURS else ""
        path = _path([at(point) for point in line.points], steps=line.steps)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if line.dots:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.2" fill="{colour}"/>' for a, b in map(at, line.points)]
        swatch = f'<svg class="key" viewBox="0 0 18 6" aria-hidden="true"><path d="M0 3H18" stroke="{colour}" '
        keys.append(f'<li>{swatch}stroke-width="3"{dash}/></svg> {escape(line.title)}</li>')
    said = escape(f"{name}: {'; '.join(line.title for line in lines)}")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">{"".join(parts)}</svg>'
        f'<figcaption>{escape(name)}<ul class="keys">{"".join(keys)}</ul></figcaption></figure>'
    )


def _path(points: Sequence[Point], *, steps: bool) -> str:
    if not points:
        return ""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for a, b in points[1:]:
        parts.append(f"H{a:.1f}V{b:.1f}" if steps else f"L{a:.1f} {b:.1f}")
    return "".join(parts)


def _grid(x: Axis, y: Axis, low: Point, high: Point) -> str:
    parts = []
    for tick in x.ticks:
        at = low[0] + x.share(tick) * (high[0] - low[0])
        parts.append(f'<path class="grid" d="M{at:.1f} {low[1]:.1f}V{high[1]:.1f}"/>')
        parts.append(f'<text x="{at:.1f}" y="{low[1] + 14:.1f}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y.ticks:
        at = low[1] + y.share(tick) * (high[1] - low[1])
        parts.append(f'<path class="grid" d="M{low[0]:.1f} {at:.1f}H{high[0]:.1f}"/>')
        parts.append(f'<text x="{low[0] - 5:.1f}" y="{at + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    middle, centre = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text transform="translate(11 {centre:.1f}) rotate(-90)" text-anchor="middle">{escape(y.title)}</text>'
    )
    return "".join(parts)


def _number(value: float) -> str:
    named = {0.125: "⅛", 0.25: "¼", 0.5: "½"}
    if value in named and value != 0.5:
        return named[value]
    return f"{value:g}"
