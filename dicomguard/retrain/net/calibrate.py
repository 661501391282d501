"""From what the network shows of validation patients to the numbers in the head of the weights.

Shares of the scales, the alert of slices (the authentic percentile of the worst source, so that the rule holds where it
is hardest) and all probabilities but one are chosen on validation patients. The one is the score of studies for
forgery: the cost of a lone slice, the slope and the zero rest on validation stacks, whole and in parts, and on stacks
of training patients. The test patients are never seen. A threshold of 0.5 is the alert by construction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import beta, rankdata

from dicomguard.analyze import link, scores
from dicomguard.analyze.scores import UNCALIBRATED, Calibration
from dicomguard.analyze.weights import OperatingPoint
from dicomguard.errors import Refused
from dicomguard.retrain.net.shown import Run

Values = NDArray[np.float64]

# Authentic percentiles: of the value, and of the strongest region that is no lesion.
_SLICE_POINT = 0.95
_LESION_POINT = 0.90
# Share of authentic studies not seen, stacks or pictures, that may be flagged.
_STUDY_ALARMS = 0.05
# Study AUCs that lie as close cannot be told apart on a few dozen people: the dearest lone slice is the most careful.
_AUC_TOLERANCE = 0.01
# The alert. Probabilities are shifted so that it lies here.
ALERT = 0.5
# Shares of the native scale that are tried: for noise as reconstructed, where the half scale keeps a tenth or more, and
# for white noise (scans enlarged before they were stored, of which validation has few), where it keeps three or more.
# The shipped weights have 0.9 and 0.7, each at the upper edge of its grid.
_NATIVE_SHARES = tuple(i / 10 for i in range(5, 10))
_WHITE_SHARES = tuple(i / 10 for i in range(8))
_SPREADS = (2.0, 3.0, 4.0)
# Logits from the highest middle of authentic validation stacks to the most that a middle counts as: so much further go
# stacks of more people, of scanners never seen, and after benign processing (docs/decisions/0017).
_MIDDLE_MARGIN = 1.25
_LONE_COSTS = (0.0, 0.5, 1.0)
_LESION_OVERLAP = 0.3
# Fewer found forgeries of a kind than this leave the decision between added and removed as it stands.
_FEWEST_OF_KIND = 8
# Holds its slopes where the kinds part cleanly.
_KIND_PRIOR = 0.01
_FEWEST_STACKS = 10
# A source with fewer values has no percentile of its own.
_FEWEST_OF_SOURCE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The fitted numbers and the alert with its false alarms."""

    calibration: Calibration
    point: OperatingPoint
    # Study forgery scores of authentic studies of validation patients and of `trained` stacks, ascending.
    authentic_scores: tuple[float, ...]


def auc(positive: Values, negative: Values) -> float:
    """Probability that a positive lies above a negative, ties half."""
    ranks = rankdata(np.concatenate((positive, negative)))
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


def fit(runs: Sequence[Run], *, trained: Iterable[Run] = ()) -> Calibrated:
    """Fit on authentic and forged runs of validation patients.

    `trained`: authentic stacks of training patients, read once; cost of a lone slice, slope and zero of the score of
    studies rest on them too. The network knows them as authentic, but of validation patients there are few stacks, and
    the highest of nineteen says little (decision 0015).
    """
    if not any(run.family for run in runs) or all(run.family for run in runs):
        raise Refused(
            "Calibration needs authentic and forged validation runs. Give an archive with validation patients."
        )
    every, runs = runs, [run for run in runs if not run.excerpt]
    c = alert(every)
    value = slice_values(runs, c)
    slope, bias = _platt(*_split(runs, value), at_zero=ALERT)
    c = replace(c, slope=slope, bias=bias)
    c = _lesions(runs, c)
    more = [(run.excerpt, _linked(run, c)) for run in trained]
    c = _study(every, [linked for _, linked in more], c)
    c = _kinds(runs, c)
    authentic = np.concatenate([v for run, v in zip(runs, slice_values(runs, c), strict=True) if not run.family])
    flagged = int((authentic >= 0).sum())
    studies = [study_scores(run, c)[0] for run in runs if not run.family]
    studies += [_study_score(linked, c) for excerpt, linked in more if not excerpt]
    return Calibrated(
        calibration=c,
        point=OperatingPoint(
            name="alert",
            forgery=ALERT,
            tumor=ALERT,
            n_authentic=len(authentic),
            flagged=flagged,
            false_alarm_upper=round(upper_bound(flagged, len(authentic)), 4),
        ),
        authentic_scores=tuple(round(s, 4) for s in sorted(studies)),
    )


def alert(runs: Sequence[Run]) -> Calibration:
    """Shares of the scales and the alert of slices; nothing else is fitted."""
    return _alert(runs, _scales(runs, UNCALIBRATED))


def upper_bound(flagged: int, of: int) -> float:
    """95 % upper bound on a rate (Clopper-Pearson)."""
    return 1.0 if flagged >= of else float(beta.ppf(0.95, flagged + 1, of - flagged))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """A track of a run before its probability: slices with their two probabilities, and what it lies on."""

    forged: tuple[tuple[int, float], ...]
    tumor: tuple[float, ...]
    on_lesion: bool
    on_forgery: bool
    # `link.added_terms`
    added: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linked:
    chains: tuple[_Chain, ...]
    placed: bool
    count: int

    def forged(self, lone_cost: float) -> float:
        """Logit of the strongest track."""
        return max(
            (
                link.forged_logit(chain.forged, placed=self.placed, count=self.count, lone_cost=lone_cost)
                for chain in self.chains
            ),
            default=-30.0,
        )

    def tumor(self, *, on_lesion: bool | None = None) -> float:
        """Logit of the strongest track; of those on a lesion, or off all, when asked."""
        return max(
            (
                link.tumor_logit(chain.tumor, placed=self.placed, count=self.count)
                for chain in self.chains
                if on_lesion is None or chain.on_lesion == on_lesion
            ),
            default=-30.0,
        )


def study_scores(run: Run, c: Calibration) -> tuple[float, float]:
    """Forgery and tumor score of a run as the product links it."""
    linked = _linked(run, c)
    return (
        _study_score(linked, c),
        scores.probability(linked.tumor(), c.study_tumor_slope, c.study_tumor_bias),
    )


def _study_score(linked: _Linked, c: Calibration) -> float:
    return link.study_probability(linked.forged(c.lone_cost), c, placed=linked.placed)


def _linked(run: Run, c: Calibration) -> _Linked:
    places = positions(run)
    chains = []
    for members in link.chains(detections(run, c), positions_mm=places):
        on_lesion = any(
            (one.mask & run.lesions[run.planes[index]]).sum() >= _LESION_OVERLAP * one.mask.sum()
            for index, one in members
        )
        chains.append(
            _Chain(
                forged=tuple((index, one.p_forged) for index, one in members),
                tumor=tuple(one.p_tumor for _, one in members),
                on_lesion=on_lesion,
                on_forgery=any(
                    (one.mask & run.masks[run.planes[index]]).any()
                    for index, one in members
                    if run.planes[index] in run.masks
                ),
                added=link.added_terms([one for _, one in members]),
            )
        )
    return _Linked(chains=tuple(chains), placed=len(run.planes) > 1, count=len(run.planes))


def positions(run: Run) -> list[float | None]:
    return [float(plane) if len(run.planes) > 1 else None for plane in run.planes]


def detections(run: Run, c: Calibration) -> list[list[link.Seen]]:
    """As `Detector` makes them from the same slices."""
    values = scores.values(_looks(run), c)
    return [
        [
            link.Seen(
                mask=region.mask,
                p_forged=scores.probability(float(value) + region.weaker, c.slope, c.bias),
                p_tumor=scores.probability(region.lesion, c.tumor_slope, c.tumor_bias),
                added=region.added,
            )
            for region in seen.regions
        ]
        for seen, value in zip(run.seen, values, strict=True)
    ]


def slice_values(runs: Sequence[Run], c: Calibration) -> list[Values]:
    """Of each run, the value of its slices: 0 and above is flagged."""
    return [scores.values(_looks(run), c) for run in runs]


def _split(runs: Sequence[Run], values: Sequence[Values]) -> tuple[Values, Values]:
    """Values of forged planes, and of authentic ones."""
    forged, authentic = [], []
    for run, value in zip(runs, values, strict=True):
        if run.family:
            forged += [value[run.planes.index(plane)] for plane in run.forged]
        else:
            authentic += list(value)
    return np.array(forged), np.array(authentic)


def mean_auc(runs: Sequence[Run], values: Sequence[Values]) -> float:
    """Slice AUC pooled within source, mean over families, then sources."""
    by_source: list[float] = []
    for source in sorted({run.pixels.series.source for run in runs}):
        authentic = [v for run, v in zip(runs, values, strict=True) if not run.family and _from(run, source)]
        if not authentic:
            continue
        negative = np.concatenate(authentic)
        rows = []
        for family in sorted({run.family for run in runs if run.family}):
            chosen = [(r, v) for r, v in zip(runs, values, strict=True) if r.family == family and _from(r, source)]
            positive = np.array([v[r.planes.index(plane)] for r, v in chosen for plane in r.forged])
            if len(positive) >= 3:
                rows.append(auc(positive, negative))
        if rows:
            by_source.append(float(np.mean(rows)))
    return float(np.mean(by_source)) if by_source else 0.5


def _from(run: Run, source: str) -> bool:
    return run.pixels.series.source == source


def _scales(runs: Sequence[Run], c: Calibration) -> Calibration:
    """Shares of the native scale by slice AUC, pictures and stacks on one scale as `_alert` lays them."""
    whole = [run for run in runs if not run.excerpt]
    options = [replace(c, native_share=a, native_share_white=b) for a in _NATIVE_SHARES for b in _WHITE_SHARES]
    return max(options, key=lambda option: mean_auc(whole, slice_values(whole, _alert(runs, option))))


def _worst(groups: Sequence[Values], point: float) -> float:
    """The percentile of the source where it lies highest; of all together when every source is small."""
    points = [float(np.quantile(group, point)) for group in groups if len(group) >= _FEWEST_OF_SOURCE]
    if not points:
        points = [float(np.quantile(np.concatenate(list(groups)), point))]
    return max(points)


def _by_source(runs: Sequence[Run], values: Sequence[Values]) -> list[Values]:
    sources = sorted({run.pixels.series.source for run in runs})
    return [
        np.concatenate(chosen)
        for source in sources
        if (chosen := [v for r, v in zip(runs, values, strict=True) if not r.family and _from(r, source)])
    ]


def _alert(runs: Sequence[Run], c: Calibration) -> Calibration:
    """The alert of series at the worst source's percentile, with the spread that finds most there; then of pictures.

    A study of pictures is flagged by any of them, so the point is what few people reach with the strongest of theirs.
    """
    long = [run for run in runs if len(run.seen) >= scores.FEWEST_FOR_SERIES and not run.excerpt]
    short = [run for run in runs if len(run.seen) < scores.FEWEST_FOR_SERIES]
    if long:
        options = []
        for spread in _SPREADS:
            option = replace(c, series_spread=spread, series_zero=0.0)
            found = slice_values(long, option)
            zero = _worst(_by_source(long, found), _SLICE_POINT)
            forged, _ = _split(long, found)
            passing = float((forged >= zero).mean()) if len(forged) else 0.0
            options.append((passing, replace(option, series_zero=zero)))
        c = max(options, key=lambda option: option[0])[1]
    c = replace(c, middle_most=_middle_most(runs, c))
    strengths = [scores.strengths(_looks(run), c, c.loose_level_share) for run in short]
    groups = _by_source(short, strengths)
    if groups:
        point = _rarely_passed_anywhere(_by_person(short, strengths))
        spread = _loose_spread(point - float(np.median(np.concatenate(groups))), _middle(long, c), c.series_spread)
        c = replace(c, loose_spread=spread, loose_zero=point / spread)
    return c


def _middle_most(runs: Sequence[Run], c: Calibration) -> float:
    """Beyond the middles of all authentic stacks, whole and short; without stacks nothing is beyond."""
    middles = [
        scores.middle(_looks(run), c) for run in runs if not run.family and len(run.seen) >= scores.FEWEST_FOR_SERIES
    ]
    return max(middles) + _MIDDLE_MARGIN if middles else scores.NO_MOST


def _loose_spread(reach: float, middle: float | None, least: float) -> float:
    """Spread of pictures whose authentic middle lies `reach` logits below their alert: as far as that of stacks.

    A number means the same for both then: the alert at 0, the middle of what is authentic at one value.
    """
    return least if middle is None or middle >= 0 else max(least, reach / -middle)


def _middle(long: Sequence[Run], c: Calibration) -> float | None:
    """Median of the authentic values of stacks; None without stacks."""
    found = slice_values([run for run in long if not run.family], c)
    return float(np.median(np.concatenate(found))) if found else None


def _by_person(runs: Sequence[Run], values: Sequence[Values]) -> list[Values]:
    """Of each source the highest authentic value of every person."""
    highest: dict[str, dict[str, float]] = {}
    for run, value in zip(runs, values, strict=True):
        if not run.family:
            people = highest.setdefault(run.pixels.series.source, {})
            person = run.pixels.series.patient
            people[person] = max(people.get(person, -np.inf), float(value.max()))
    return [np.array(list(people.values())) for people in highest.values()]


def _rarely_passed_anywhere(groups: Sequence[Values]) -> float:
    """The point of the source where it lies highest; of all together when every source is small."""
    large = [group for group in groups if len(group) >= _FEWEST_OF_SOURCE]
    return max(_rarely_passed(group) for group in large or [np.concatenate(list(groups))])


def _looks(run: Run) -> list[scores.Look]:
    return [seen.look for seen in run.seen]


def _platt(positive: Values, negative: Values, *, at_zero: float | None) -> tuple[float, float]:
    """Slope and bias of a logistic at 50 % prevalence; `at_zero` fixes the probability at value 0."""
    fixed = None if at_zero is None else scores.logit(at_zero)

    def loss(w: Values) -> float:
        slope, bias = float(np.exp(w[0])), float(w[1]) if fixed is None else fixed
        up, down = np.logaddexp(0, -(slope * positive + bias)), np.logaddexp(0, slope * negative + bias)
        return float(up.mean() + down.mean())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead")
    slope = float(np.clip(np.exp(found.x[0]), 0.05, 20.0))
    return slope, float(found.x[1]) if fixed is None else fixed


def _lesions(runs: Sequence[Run], c: Calibration) -> Calibration:
    """Lesion probability of a region, then of a track with the point that keeps lesion-free studies quiet."""
    yes: list[float] = []
    no: list[float] = []
    for run in runs:
        if run.family or not run.pixels.series.lesion_known:
            continue
        for seen, plane in zip(run.seen, run.planes, strict=True):
            for region in seen.regions:
                share = float((region.mask & run.lesions[plane]).sum()) / max(int(region.mask.sum()), 1)
                (yes if share >= _LESION_OVERLAP else no).append(region.lesion)
    if len(yes) < 10 or len(no) < 10:
        return c
    slope, bias = _platt(np.array(yes), np.array(no), at_zero=None)
    c = replace(c, tumor_slope=slope, tumor_bias=bias, study_tumor_slope=1.0, study_tumor_bias=0.0)
    authentic = [r for r in runs if not r.family and r.pixels.series.lesion_known]
    linked = [_linked(run, c) for run in authentic]
    # What is no lesion is known in every study: its strongest track there is what a lesion has to exceed.
    with_lesion = [one.tumor(on_lesion=True) for one in linked if any(chain.on_lesion for chain in one.chains)]
    groups = _by_source(authentic, [np.array([one.tumor(on_lesion=False)]) for one in linked])
    without = np.concatenate(groups)
    if len(with_lesion) < 5 or len(without) < 5:
        return c
    stacks = [one.tumor(on_lesion=False) for one in linked if one.count >= scores.FEWEST_FOR_SERIES]
    zero = float(np.quantile(stacks, _LESION_POINT)) if len(stacks) >= _FEWEST_STACKS else _worst(groups, _LESION_POINT)
    study_slope, _ = _platt(np.array(with_lesion) - zero, without - zero, at_zero=ALERT)
    return replace(c, study_tumor_slope=study_slope, study_tumor_bias=-study_slope * zero)


def _study(runs: Sequence[Run], more: Sequence[_Linked], c: Calibration) -> Calibration:
    """Cost of a lone slice by study AUC, slope, and the zero that few authentic stacks reach; short ones count as well.

    `more`: authentic stacks of training patients.
    """
    placed = [run for run in runs if len(run.planes) >= scores.FEWEST_FOR_SERIES]
    changed = [_linked(run, c) for run in placed if run.forged]
    untouched = [*(_linked(run, c) for run in placed if not run.family), *more]
    if len(changed) < 5 or len(untouched) < 5:
        return c
    options: list[tuple[float, Calibration]] = []
    for cost in _LONE_COSTS:
        forged = np.array([one.forged(cost) for one in changed])
        authentic = np.array([one.forged(cost) for one in untouched])
        zero = _rarely_passed(authentic)
        # A score of stacks is a weak one: a slope that is held at the alert would go flat.
        slope, _ = _platt(forged, authentic, at_zero=None)
        option = replace(c, lone_cost=cost, study_slope=slope, study_bias=-slope * zero)
        options.append((auc(forged, authentic), option))
    best = max(score for score, _ in options)
    return [option for score, option in options if score >= best - _AUC_TOLERANCE][-1]


def _rarely_passed(authentic: Values) -> float:
    """The k-th highest of n: one more from the same source lies above it with probability k / (n + 1).

    A percentile of a handful of stacks promises less than it says. Under 19 stacks the highest is the best there is.
    """
    k = max(1, int(_STUDY_ALARMS * (len(authentic) + 1)))
    return float(np.sort(authentic)[-k])


def _kinds(runs: Sequence[Run], c: Calibration) -> Calibration:
    """Put in or wiped away, at the strongest track that lies on the forgery; both kinds count alike."""
    terms: dict[str, list[tuple[float, float]]] = {"added": [], "removed": []}
    for run in runs:
        if run.kind not in terms:
            continue
        linked = _linked(run, c)
        hits = [chain for chain in linked.chains if chain.on_forgery]
        if hits:
            strongest = max(hits, key=lambda chain: max(p for _, p in chain.forged))
            terms[run.kind].append(strongest.added)
    added, removed = (np.array(terms[kind]) for kind in ("added", "removed"))
    if min(len(added), len(removed)) < _FEWEST_OF_KIND:
        return c

    def loss(w: Values) -> float:
        slopes = np.exp(w[:2])
        up, down = (values @ slopes + w[2] for values in (added, removed))
        return float(np.logaddexp(0, -up).mean() + np.logaddexp(0, down).mean() + _KIND_PRIOR * (slopes**2).sum())

    found = minimize(loss, np.array([-1.0, -1.0, 0.0]), method="Nelder-Mead").x
    slope, lesion_slope = (float(s) for s in np.clip(np.exp(found[:2]), 0.0, 20.0))
    return replace(c, added_slope=slope, added_lesion_slope=lesion_slope, added_bias=float(found[2]))
