"""`python -m benchmarks.ingest`: interleaved rounds, medians of ratios inside a round, one table, result.json."""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.ingest import durability, receivers, sender
from benchmarks.ingest.images import KINDS

ASSOCIATIONS = (1, 4, 10)
Cell = tuple[str, int]
Figures = dict[str, float]


def round_of(number: int, folder: Path, *, images: dict[str, int], names: list[str]) -> dict[Cell, dict[str, Figures]]:
    """One round: fresh receivers, each cell by each of them in turn, in another order each round."""
    found: dict[Cell, dict[str, Figures]] = {}
    order = names[number % len(names) :] + names[: number % len(names)]
    run = 1000 * number
    for kind in KINDS:
        for associations in ASSOCIATIONS:
            cell = found.setdefault((kind.name, associations), {})
            for name in order:
                run += 1
                with receivers.ALL[name](folder / f"{number}-{run}") as running:
                    # One association before it counts: imports, first tables, first segment.
                    warm = sender.send(
                        running.port, running.ae_title, kind, run=500_000 + run, associations=1, images=5
                    )
                    receivers.wait_until_settled(running, warm.images)
                    os.sync()
                    before_s = receivers.processor_s(running)
                    sent = sender.send(
                        running.port,
                        running.ae_title,
                        kind,
                        run=run,
                        associations=associations,
                        images=images[kind.name] // associations * associations,
                    )
                    behind = receivers.wait_until_settled(running, warm.images + sent.images)
                    cell[name] = {
                        "rate": sent.rate,
                        "latency_ms": sent.latency_ms,
                        "processor_ms": 1e3 * (receivers.processor_s(running) - before_s) / sent.images,
                        "settled_rate": sent.images / (sent.seconds + behind),
                    }
    return found


def table(rounds: list[dict[Cell, dict[str, Figures]]], names: list[str]) -> list[dict[str, object]]:
    """One row a cell: medians of rates, and of ratios to Orthanc in the same round with their range."""
    rows = []
    for kind, associations in rounds[0]:
        of_cell = [one[kind, associations] for one in rounds]
        row: dict[str, object] = {"images": kind, "associations": associations}
        for name in names:
            ratios = [one[name]["rate"] / one["Orthanc"]["rate"] for one in of_cell]
            row[name] = {
                "images_per_second": round(statistics.median(one[name]["rate"] for one in of_cell), 1),
                "filed_per_second": round(statistics.median(one[name]["settled_rate"] for one in of_cell), 1),
                "latency_ms": round(statistics.median(one[name]["latency_ms"] for one in of_cell), 2),
                "processor_ms": round(statistics.median(one[name]["processor_ms"] for one in of_cell), 2),
                "ratio": round(statistics.median(ratios), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
            }
        rows.append(row)
    return rows


def show(rows: list[dict[str, object]], names: list[str]) -> None:
    """Print the table: images a second (filed), ms and processor ms an image, ratio to Orthanc with its range."""
    heads = [
        f"{name} im/s (filed)" + f"{'ms':>7}{'CPU':>6}" + ("" if name == "Orthanc" else f"{'x Orthanc':>20}")
        for name in names
    ]
    print(
        f"{'images':8}{'assoc.':>6}"
        + "".join(f"{head:>{_width(name)}}" for head, name in zip(heads, names, strict=True))
    )
    for row in rows:
        text = f"{row['images']!s:8}{row['associations']!s:>6}"
        for name in names:
            one = row[name]
            assert isinstance(one, dict)
            cell = f"{one['images_per_second']:.0f} ({one['filed_per_second']:.0f})"
            cell += f"{one['latency_ms']:>7.1f}{one['processor_ms']:>6.2f}"
            if name != "Orthanc":
                ratio = f"{one['ratio']:.2f} ({one['ratio_low']:.2f}-{one['ratio_high']:.2f})"
                cell += f"{ratio:>20}"
            text += f"{cell:>{_width(name)}}"
        print(text)


def _width(name: str) -> int:
    return 35 if name == "Orthanc" else 57


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mr", type=int, default=240, help="MR images a cell")
    parser.add_argument("--ct", type=int, default=120, help="CT images a cell")
    parser.add_argument("--folder", type=Path, help="where the receivers keep their files; a disk, not a tmpfs")
    parser.add_argument("--output", type=Path, help="folder for result.json")
    given = parser.parse_args()
    images = {"MR 256": given.mr, "CT 512": given.ct}
    names = list(receivers.ALL)
    versions = receivers.versions()
    for name, value in versions.items():
        print(f"{name:12} {value}")
    with tempfile.TemporaryDirectory(prefix="dicomguard-ingest-", dir=given.folder) as scratch:
        folder = Path(scratch)
        print("\nflushes an image, one association (strace):")
        flushed = {}
        for name in names:
            with receivers.ALL[name](folder / f"traced-{name}") as running:
                flushed[name] = durability.flushes(running, KINDS[0], run=900_000, scratch=folder)
            said = "; ".join(f"{count:.2f} {what}" for what, count in flushed[name].items()) or "none"
            print(f"{name:12} {said}")
        rounds = []
        for number in range(given.rounds):
            rounds.append(round_of(number, folder, images=images, names=names))
            rows = table(rounds, names)
            print(f"\nmedians of {number + 1} round(s):")
            show(rows, names)
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        result = {"versions": versions, "flushes": flushed, "rounds": given.rounds, "rows": rows}
        (given.output / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
