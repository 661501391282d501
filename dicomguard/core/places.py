"""Names of slices and series as a reader finds them in a viewer: "slices 8 to 14 of series 3"."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from dicomguard.core import english
from dicomguard.core.study import Manifest, SeriesPlan, SliceFile
from dicomguard.core.templates import inside, listed, say
from dicomguard.core.verdict import SliceReport
from dicomguard.errors import Broken

# Frame of an instance: SOP Instance UID, and 1-based frame or None.
Ref: TypeAlias = tuple[str, int | None]
# More separate stretches than this are counted, not listed.
_MOST_STRETCHES = 6


class Places:
    """Names of slices as a viewer shows them."""

    def __init__(self, manifest: Manifest) -> None:
        self._of: dict[Ref, tuple[SeriesPlan, SliceFile, int]] = {}
        self._first: dict[str, Ref] = {}
        self._numbers: dict[str, int | None] = {}
        self._plans = manifest.series
        for plan in manifest.series:
            self._numbers.setdefault(plan.series_instance_uid, plan.series_number)
            for place, item in enumerate(plan.slices, start=1):
                ref = (item.sop_instance_uid, item.frame)
                self._of.setdefault(ref, (plan, item, place))
                self._first.setdefault(item.sop_instance_uid, ref)

    @property
    def without_slices(self) -> tuple[SeriesPlan, ...]:
        """Series of objects that are no images."""
        return tuple(plan for plan in self._plans if not plan.slices)

    def why(self, item: SliceReport) -> str:
        """Why the slice was not analysed, as it stands in parentheses; "" when it was."""
        plan = self._entry((item.sop_instance_uid, item.frame))[0]
        if item.state == "analysed":
            return ""
        reason = item.reason or english.TEXTS["unknown_reason"]
        # A series that a rule left out has its own sentence, which says more than the word of its slices.
        if not plan.analysed and reason in ("derived", "no head"):
            return inside(plan.reason)
        return english.REASONS.get(reason, reason)

    def series_names(self, series_instance_uids: Iterable[str]) -> str:
        """ "series 3, 4 and 7"."""
        numbers = [self._numbers.get(uid) for uid in series_instance_uids]
        known = sorted({number for number in numbers if number is not None})
        names = [say("series", number=listed([str(number) for number in known]))] if known else []
        if nameless := numbers.count(None):
            key = "series_unnumbered" if nameless == 1 else "series_unnumbered_many"
            names.append(say(key, count=nameless))
        return listed(names)

    def instance(self, sop_instance_uid: str) -> str:
        """Its first frame by name; what is no image has no slice."""
        first = self._first.get(sop_instance_uid)
        return english.TEXTS["no_slice"] if first is None else self.name([first])

    def series_name(self, series_instance_uid: str) -> str:
        """ "series 3"."""
        return series_name(self._numbers.get(series_instance_uid))

    def name(self, refs: Iterable[Ref]) -> str:
        """ "slices 8 to 14 of series 3 and slice 2 of series 5"."""
        groups: dict[str, list[Ref]] = {}
        for ref in refs:
            groups.setdefault(self._entry(ref)[0].series_instance_uid, []).append(ref)
        named = []
        for members in groups.values():
            series, noun, numbers = self.parts(members)
            named.append(say("of_series", slices=f"{noun} {numbers}", series=series))
        return listed(named)

    def parts(self, refs: Sequence[Ref]) -> tuple[str, str, str]:
        """("series 3", "slices", "8 to 14") for frames of one series."""
        entries = [self._entry(ref) for ref in refs]
        frames = all(item.frame is not None for _, item, _ in entries)
        numbered = frames or all(item.instance_number is not None for _, item, _ in entries)
        numbers = [
            (item.frame if frames else item.instance_number) if numbered else place for _, item, place in entries
        ]
        key = ("frame" if frames else "slice") + ("" if len(refs) == 1 else "s")
        words = _stretches([number for number in numbers if number is not None])
        suffix = "" if numbered else english.TEXTS["by_place"]
        return series_name(entries[0][0].series_number), english.TEXTS[key], words + suffix

    def _entry(self, ref: Ref) -> tuple[SeriesPlan, SliceFile, int]:
        try:
            return self._of[ref]
        except KeyError:
            raise Broken(
                f"The slice {ref[0]} (frame {ref[1]}) of the verdict is not in the manifest. Analyse the study again."
            ) from None


def series_name(number: int | None) -> str:
    """ "series 3", or that it has no number."""
    return english.TEXTS["series_unnumbered"] if number is None else say("series", number=number)


def _stretches(numbers: Sequence[int]) -> str:
    """[8, 9, 10, 12] → "8 to 10 and 12"."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    to = english.TEXTS["to"]
    words = []
    for a, b in runs[:_MOST_STRETCHES]:
        words += [f"{a} {to} {b}"] if b > a + 1 else [f"{number}" for number in range(a, b + 1)]
    rest = sum(b - a + 1 for a, b in runs[_MOST_STRETCHES:])
    return listed([*words, say("more", count=rest)] if rest else words)
