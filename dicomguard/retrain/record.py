"""What a run leaves in its folder for people: the lines of its progress, and one report as JSON and as HTML.

Folder `<state>/retrain/<run key>`: `frozen.json`, `train/`, `golden/` (lists), `progress.jsonl`,
`checkpoint.safetensors`, `candidate.safetensors`, `candidate/` and `incumbent/` (evaluations), `report.json`,
`report.html`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dicomguard.core import canon
from dicomguard.retrain.promotion import Alarms, Figures

PROGRESS, REPORT, PAGE = "progress.jsonl", "report.json", "report.html"
SCHEMA = "dicomguard.retraining/1"
# A curve of more points is no better to look at.
_MOST_POINTS = 400
_WIDTH, _HEIGHT = 640, 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The run in figures and reasons."""

    key: str
    period: str
    started_by: str
    candidate: Figures
    incumbent: Figures
    promoted: bool
    reasons: tuple[str, ...]
    # `retrain.archive.frozen.Frozen` as JSON.
    frozen: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "schema": SCHEMA,
            "key": self.key,
            "period": self.period,
            "started_by": self.started_by,
            "decision": "promote" if self.promoted else "keep",
            "reasons": list(self.reasons),
            "candidate": self.candidate.to_json(),
            "incumbent": self.incumbent.to_json(),
            "frozen": dict(self.frozen),
        }


def progress(folder: Path) -> list[dict[str, Any]]:
    """The trainer's lines, thinned to what a curve can show; a half-written last line is left out."""
    path = folder / PROGRESS
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    every = max(1, len(lines) // _MOST_POINTS)
    return [*lines[::every], *([lines[-1]] if lines and (len(lines) - 1) % every else [])]


def write(folder: Path, report: Report) -> None:
    """Keep the report in both forms, each whole or not at all."""
    for name, content in (
        (REPORT, canon.encode(report.to_json())),
        (PAGE, page(report, progress(folder)).encode()),
    ):
        aside = folder / f"{name}.part"
        aside.write_bytes(content)
        aside.replace(folder / name)


def page(report: Report, lines: Sequence[Mapping[str, Any]]) -> str:
    """The report for people: decision and reasons first, then figures, worst family first, then the loss curve."""
    word = "proposed for approval" if report.promoted else "refused"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>Training run {escape(report.period)}</title></head><body>",
            f"<h1>Training run {escape(report.period)}: the candidate is {word}</h1>",
            "<ul>",
            *(f"<li>{escape(reason)}</li>" for reason in report.reasons),
            "</ul>",
            f"<p>Candidate {escape(report.candidate.model_id)}, incumbent {escape(report.incumbent.model_id)}, "
            f"started by {escape(report.started_by)}; trained on {len(report.frozen['train'])} cases, measured on "
            f"{len(report.frozen['golden'])} cases of the frozen golden set.</p>",
            "<h2>Slice AUC by tamper family (95 % interval over patients)</h2>",
            *_families(report),
            "<h2>People with an authentic study that is flagged (95 % upper bound)</h2>",
            *_alarms((report.candidate.people,), (report.incumbent.people,)),
            "<h2>Authentic slices flagged (95 % upper bound, if those of one person were independent)</h2>",
            *_alarms(
                (*report.candidate.alarms, report.candidate.alarms_overall),
                (*report.incumbent.alarms, report.incumbent.alarms_overall),
            ),
            "<h2>Loss</h2>",
            curve(lines),
            "<p>Research use only, not for diagnosis.</p>",
            "</body></html>",
            "",
        ]
    )


def _families(report: Report) -> Iterator[str]:
    before = {one.name: one for one in (*report.incumbent.families, report.incumbent.overall)}
    yield "<table><thead><tr><th>family</th><th>candidate</th><th>incumbent</th></tr></thead><tbody>"
    for one in (*sorted(report.candidate.families, key=lambda family: family.auc), report.candidate.overall):
        was = before.get(one.name)
        yield (
            f"<tr><td>{escape(one.name)}</td><td>{one.auc:.3f} ({one.low:.3f} to {one.high:.3f})</td>"
            f"<td>{f'{was.auc:.3f} ({was.low:.3f} to {was.high:.3f})' if was else '–'}</td></tr>"
        )
    yield "</tbody></table>"


def _alarms(candidate: Sequence[Alarms], incumbent: Sequence[Alarms]) -> Iterator[str]:
    before = {one.source: one for one in incumbent}
    yield "<table><thead><tr><th>source</th><th>candidate</th><th>incumbent</th></tr></thead><tbody>"
    for one in candidate:
        was = before.get(one.source)
        yield (
            f"<tr><td>{escape(one.source)}</td><td>{one.flagged} of {one.of} ({100 * one.upper:.1f} %)</td>"
            f"<td>{f'{was.flagged} of {was.of} ({100 * was.upper:.1f} %)' if was else '–'}</td></tr>"
        )
    yield "</tbody></table>"


def curve(lines: Sequence[Mapping[str, Any]]) -> str:
    """The sum of the losses over the steps, as an SVG line with its first and last value in words."""
    points = [(float(line["step"]), float(sum(line["losses"].values()))) for line in lines if line.get("losses")]
    if len(points) < 2:
        return "<p>Too few steps for a curve.</p>"
    first, last = points[0][0], points[-1][0]
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    path = " ".join(
        f"{_WIDTH * (step - first) / max(last - first, 1):.1f},"
        f"{_HEIGHT - (_HEIGHT - 10) * (loss - low) / max(high - low, 1e-9) - 5:.1f}"
        for step, loss in points
    )
    words = f"Loss {points[0][1]:.3f} at step {first:.0f}, {points[-1][1]:.3f} at step {last:.0f}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{words}">'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg><p>{words}.</p>'
    )
