"""`dicomguard explain`: why a file would be analysed, or why not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dicomguard import config
from dicomguard.analyze import client, folder, weights
from dicomguard.core import freeze
from dicomguard.core.study import Manifest, SeriesPlan, SliceFile
from dicomguard.errors import Refused

Paths = Annotated[list[Path], typer.Argument(help="DICOM files and folders. Give whole series: they are judged whole.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a file on standard output.")]
Settings = Annotated[Path | None, typer.Option("--config", help="File whose [[rules]] and [analysis] apply.")]
Calling = Annotated[str, typer.Option("--calling-ae", help="AE title that would have sent the files, for rules.")]

_SLICE = {
    "too small": "It has fewer than 96 rows or columns.",
    "conflict copy": "Another file with the same SOP Instance UID and other pixels came first.",
    "undecodable": "Its header cannot be read, or says nothing of rows and columns.",
    "memory limit": "The study has more slices than one analysis takes.",
}


def command(paths: Paths, as_json: AsJson = False, settings: Settings = None, calling_ae: Calling = "") -> None:
    """Say for a file why it would be analysed or not.

    Nothing is decoded. The answer is that of the node with the same configuration: the rule that decided, whether the
    series lies inside the scope that the model was validated for, and how its slices lie.
    """
    chosen = config.load(settings) if settings is not None else config.Config()
    model = client.model_of(chosen.analysis.weights or weights.shipped())
    found = folder.gather(paths)
    lines: list[dict[str, Any]] = [
        {"file": str(item.path), "analysed": False, "reason": item.reason} for item in found.skipped
    ]
    for study, copies in found.studies.items():
        manifest = freeze.freeze(
            copies,
            study_instance_uid=study,
            revision=1,
            opened_because="first",
            calling_ae=calling_ae,
            rules=chosen.rules,
            scope=model.scope,
        )
        named = {instance.path for _, instance in copies}
        lines += _lines(manifest)
        listed = {item.path for plan in manifest.series for item in plan.slices}
        # Objects without slices, such as reports, are in the plan of their series only.
        reasons = {plan.series_instance_uid: plan for plan in manifest.series if not plan.slices}
        for header, instance in copies:
            if instance.path in named - listed and header.series_instance_uid in reasons:
                lines.append(_line("/" + instance.path, reasons[header.series_instance_uid], None, 1))
    if not lines:
        raise Refused("There is no file to explain. Give files or folders.")
    for line in sorted(lines, key=lambda item: str(item["file"])):
        print(json.dumps(line, ensure_ascii=False) if as_json else _text(line))
    sys.stdout.flush()


def _lines(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for plan in manifest.series:
        frames: dict[str, list[SliceFile]] = {}
        for item in plan.slices:
            frames.setdefault(item.path, []).append(item)
        for path, items in frames.items():
            yield _line("/" + path, plan, items[0], len(items))


def _line(path: str, plan: SeriesPlan, item: SliceFile | None, frames: int) -> dict[str, Any]:
    skipped = item.skipped if item is not None else "no image"
    return {
        "file": path,
        "analysed": not skipped,
        "reason": _SLICE.get(skipped, plan.reason),
        "modality": plan.modality,
        "scope": plan.scope,
        "scope_reasons": list(plan.scope_reasons),
        "sequence": plan.sequence,
        "frames": frames,
        "position_mm": item.position_mm if item is not None else None,
        "geometry": plan.kind,
    }


def _text(line: dict[str, Any]) -> str:
    word = "analysed" if line["analysed"] else "left out"
    text = f"{line['file']}: {word}. {line['reason']}"
    if line.get("modality") == "CT" and not line["analysed"]:
        text += " A rule of the configuration can include it."
    if line.get("scope") == "outside" and line["analysed"]:
        text += f" Outside the validated scope: {', '.join(line['scope_reasons'])}."
    return text
