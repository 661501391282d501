"""Counts evidence by study and kind: `python -m dicomguard.analyze.counting FOLDER …`, each folder authentic as found.

Every study is decoded as a received one is; the table behind `alarms.FALSE_ALARMS` is what this prints.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomguard.analyze import client, evidence, folder, weights
from dicomguard.analyze.evidence.alarms import COMPARED, FALSE_ALARMS
from dicomguard.analyze.pixels import Plane, Reader, Slice
from dicomguard.analyze.study import Source, facts_of
from dicomguard.core.finding import Evidence
from dicomguard.core.study import Manifest

# A study with a stack of so many positions can show the kinds that compare slices.
_POSITIONS = 5


def of_study(manifest: Manifest, source: Source) -> tuple[tuple[Evidence, ...], int]:
    """The evidence of one study, and at how many positions its longest stack lies (1 for slices without any)."""
    stacks: list[list[evidence.Facts]] = []
    seen: list[evidence.Found] = []
    longest = 0
    for plan in (plan for plan in manifest.series if plan.analysed):
        facts: list[evidence.Facts] = []
        planes: list[Plane] = []
        for item in plan.slices:
            decoded = source.read(folder.ROOT / item.path, item.frame)
            if isinstance(decoded, Slice) and (not planes or decoded.pixels.shape == planes[0].shape):
                facts.append(facts_of(plan, item, decoded))
                planes.append(decoded.pixels)
        stacks.append(facts)
        seen += evidence.inspect(facts, planes) if planes else ()
        longest = max(longest, len({item.position_mm for item in facts}))
    return evidence.gather([stack for stack in stacks if stack], seen), longest


def studies(path: Path) -> Iterator[Manifest]:
    """The studies below a folder, as a node would freeze them."""
    scope = client.scope_of(weights.read_head(weights.shipped()))
    for uid, copies in sorted(folder.gather([path]).studies.items()):
        yield folder.manifest_of(uid, copies, rules=(), scope=scope)


def main(arguments: Sequence[str]) -> int:
    """Print a line a study that has slices, then k of n by kind."""
    showing: Counter[str] = Counter()
    scans = slices = 0
    with Reader() as reader:
        for path in map(Path, arguments):
            for number, manifest in enumerate(studies(path), start=1):
                found, longest = of_study(manifest, reader)
                if not longest:
                    continue
                scan = longest >= _POSITIONS
                scans, slices = scans + scan, slices + 1
                showing.update({item.kind for item in found if scan or item.kind not in COMPARED})
                told = ", ".join(f"{kind} {times}" for kind, times in sorted(Counter(i.kind for i in found).items()))
                sys.stdout.write(f"{path.name} {number}: {longest} positions: {told or 'nothing'}\n")
    for kind in sorted(FALSE_ALARMS):
        sys.stdout.write(f"{kind}: {showing[kind]} of {scans if kind in COMPARED else slices} studies\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
