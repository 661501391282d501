"""Runs of series that a network never saw: values of slices as given, of a quiet source and of a loud one."""

import numpy as np

from dicomguard.analyze.net.detector import Seen
from dicomguard.analyze.scores import Look, Terms
from dicomguard.retrain.dataset import Pixels, Plane, Series
from dicomguard.retrain.net.shown import Run


def run(source: str, raw: list[float], *, family: str = "", forged: tuple[int, ...] = (), person: str = "p") -> Run:
    planes = tuple(Plane(number=i, file=f"{i}", mask="", bits=8, sha256=f"{i}") for i in range(len(raw)))
    series = Series(source=source, patient=person, group="g", sequence="t1", planes=planes)
    empty = np.zeros((len(raw), 4, 4))
    pixels = Pixels(series=series, stored=empty.astype(np.uint8), lesion=empty > 0, touching=(True,) * (len(raw) - 1))
    seen = tuple(
        Seen(
            look=Look(native=Terms(raw=r, level=-4.0), half=Terms(raw=r, level=-4.0), colour=0.7, smoothing=2.0),
            regions=(),
        )
        for r in raw
    )
    none = {i: empty[i] > 0 for i in range(len(raw))}
    return Run(
        pixels=pixels,
        seen=seen,
        planes=tuple(range(len(raw))),
        family=family,
        kind="",
        forged=forged,
        masks={i: none[i] for i in forged},
        lesions=none,
    )


def runs() -> list[Run]:
    rng = np.random.default_rng(0)
    made = []
    for source, spread in (("quiet", 0.5), ("loud", 1.5)):
        for k in range(12):
            made.append(run(source, list(rng.normal(0, spread, 10)), person=f"{k}"))
        for _ in range(12):
            raw = rng.normal(0, spread, 10)
            raw[4:6] += 5
            made.append(run(source, list(raw), family="splice", forged=(4, 5)))
    return made
