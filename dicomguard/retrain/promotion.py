"""May a candidate take the incumbent's place: figures of both on the frozen golden set in, a decision with reasons out.

Pure. The candidate has to be no worse where it counts, in this order: people with an authentic study that is flagged (a
node that cries wolf is switched off), authentic slices flagged, the worst tamper family, all families together. "No
worse" allows for chance: the end of the incumbent's interval is the bar, so that a small golden set refuses nobody for
one slice. A decision is a proposal; a person approves it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dicomguard.errors import Broken

# Raised with the shape of `Figures`: what an earlier version kept is then measured again.
FIGURES_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """An area under the curve with its 95 % interval over patients, 0…1."""

    name: str
    auc: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """Authentic slices, or people, that were flagged, of how many, and the 95 % upper bound of the share."""

    # Where they are from.
    source: str
    flagged: int
    of: int
    upper: float

    @property
    def share(self) -> float:
        """0…1; 0 when nothing was looked at."""
        return self.flagged / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one model reached on the golden set."""

    model_id: str
    weights_sha256: str
    # Names the frozen list; figures of two lists cannot be compared.
    golden_sha256: str
    # All families together.
    overall: Auc
    families: tuple[Auc, ...]
    alarms: tuple[Alarms, ...]
    # All sources together.
    alarms_overall: Alarms
    # People of all sources with an authentic study that is flagged; slices of one person are no separate witnesses.
    people: Alarms

    def __post_init__(self) -> None:
        if not self.families or not self.alarms:
            raise Broken(
                f"The figures of {self.model_id} name no {'source' if self.families else 'family'}. Evaluate it again."
            )
        for one in (self.overall, *self.families):
            if not 0.0 <= one.low <= one.auc <= one.high <= 1.0:
                raise Broken(
                    f"The figure {one.name} of {self.model_id} is {one.auc} in {one.low}…{one.high}. Evaluate again."
                )

    @property
    def worst(self) -> Auc:
        """The family with the lowest area."""
        return min(self.families, key=lambda family: (family.auc, family.name))

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Figures":
        """Inverse of `to_json`."""
        built = {
            "overall": Auc(**value["overall"]),
            "families": tuple(Auc(**item) for item in value["families"]),
            "alarms": tuple(Alarms(**item) for item in value["alarms"]),
            "alarms_overall": Alarms(**value["alarms_overall"]),
            "people": Alarms(**value["people"]),
        }
        return cls(**{**value, **built})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """What no candidate may pass."""

    # Share of authentic slices of one source that may be flagged whatever the incumbent does.
    alarm_share: float = 0.10


@dataclass(frozen=True, slots=True)
class Promote:
    """Propose the candidate to the person who approves."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """The incumbent stays."""

    reasons: tuple[str, ...]


def decide(candidate: Figures, incumbent: Figures, bars: Bars) -> Promote | Keep:
    """Compare on the golden set; every reason is a sentence with its figures."""
    cannot = tuple(_not_comparable(candidate, incumbent))
    if cannot:
        return Keep(cannot)
    against = (
        *_people(candidate, incumbent),
        *_alarms(candidate, incumbent, bars),
        *_worst_family(candidate, incumbent),
        *_overall(candidate, incumbent),
    )
    if against:
        return Keep(against)
    return Promote(tuple(_in_favour(candidate, incumbent)))


def _not_comparable(candidate: Figures, incumbent: Figures) -> Iterator[str]:
    if candidate.weights_sha256 == incumbent.weights_sha256:
        yield "The candidate's weights are those of the incumbent; training has changed nothing."
    if candidate.golden_sha256 != incumbent.golden_sha256:
        yield "Candidate and incumbent were measured on different golden sets; their figures cannot be compared."
    for what, ours, theirs in (
        ("family", {one.name for one in candidate.families}, {one.name for one in incumbent.families}),
        ("source", {one.source for one in candidate.alarms}, {one.source for one in incumbent.alarms}),
    ):
        missing = sorted(theirs - ours)
        if missing:
            yield f"The candidate was not measured on the {what} {', '.join(missing)}, on which the incumbent was."


def _people(candidate: Figures, incumbent: Figures) -> Iterator[str]:
    ours, theirs = candidate.people, incumbent.people
    if ours.share > theirs.upper:
        yield (
            f"It flags an authentic study of {ours.flagged} of {ours.of} people ({_percent(ours.share)}), above the "
            f"incumbent's bound of {_percent(theirs.upper)} ({theirs.flagged} of {theirs.of})."
        )


def _alarms(candidate: Figures, incumbent: Figures, bars: Bars) -> Iterator[str]:
    before = {one.source: one for one in incumbent.alarms}
    for one in sorted(candidate.alarms, key=lambda alarms: -alarms.share):
        was = before.get(one.source)
        if one.share > bars.alarm_share and (was is None or one.share > was.upper):
            than = f"; the incumbent flags {was.flagged} of {was.of}, at most {_percent(was.upper)}" if was else ""
            yield (
                f"It flags {one.flagged} of {one.of} authentic slices of {one.source} ({_percent(one.share)}), "
                f"more than the {_percent(bars.alarm_share)} allowed{than}."
            )
    ours, theirs = candidate.alarms_overall, incumbent.alarms_overall
    if ours.share > theirs.upper:
        yield (
            f"It flags {ours.flagged} of {ours.of} authentic slices of all sources ({_percent(ours.share)}), above the "
            f"incumbent's bound of {_percent(theirs.upper)} ({theirs.flagged} of {theirs.of})."
        )


def _worst_family(candidate: Figures, incumbent: Figures) -> Iterator[str]:
    ours, theirs = candidate.worst, incumbent.worst
    # The worst of many is low by chance too: the bar is the lowest end of all the incumbent's intervals.
    bar = min(family.low for family in incumbent.families)
    if ours.auc < bar:
        yield (
            f"Its worst family, {ours.name}, has slice AUC {ours.auc:.3f}; the incumbent's worst, {theirs.name}, has "
            f"{theirs.auc:.3f}, and none of its intervals reaches below {bar:.3f}."
        )


def _overall(candidate: Figures, incumbent: Figures) -> Iterator[str]:
    if candidate.overall.auc < incumbent.overall.low:
        yield (
            f"Its slice AUC over all families is {candidate.overall.auc:.3f}, below the incumbent's interval "
            f"{incumbent.overall.low:.3f} to {incumbent.overall.high:.3f}."
        )


def _in_favour(candidate: Figures, incumbent: Figures) -> Iterator[str]:
    ours, theirs = candidate.overall, incumbent.overall
    yield f"Slice AUC over all families is {ours.auc:.3f}, the incumbent's {theirs.auc:.3f}."
    yield (
        f"The worst family, {candidate.worst.name}, has {candidate.worst.auc:.3f}; "
        f"the incumbent's worst, {incumbent.worst.name}, {incumbent.worst.auc:.3f}."
    )
    now, before = candidate.people, incumbent.people
    yield (
        f"It flags an authentic study of {now.flagged} of {now.of} people (bound {_percent(now.upper)}), "
        f"the incumbent of {before.flagged} of {before.of} (bound {_percent(before.upper)})."
    )
    now, before = candidate.alarms_overall, incumbent.alarms_overall
    yield (
        f"It flags {now.flagged} of {now.of} authentic slices (bound {_percent(now.upper)}), "
        f"the incumbent {before.flagged} of {before.of} (bound {_percent(before.upper)})."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
