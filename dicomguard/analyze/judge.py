"""The network's answer on one stack as linked regions and scores; it loads torch, so only the child imports it."""

from collections.abc import Sequence
from pathlib import Path

from dicomguard.analyze import link
from dicomguard.analyze.judging import JudgedRegion, JudgedStack, Plane
from dicomguard.analyze.net.detector import Detector, Slice


class NetworkJudge:
    """A loaded detector as a `judging.Judge`."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @classmethod
    def load(cls, weights: Path, *, device: str, threads: int) -> "NetworkJudge":
        """Read the weights onto the device; "" takes CUDA where there is one."""
        return cls(Detector.load(weights, device=device or None, threads=threads))

    def stack(
        self,
        slices: Sequence[Plane],
        *,
        positions_mm: Sequence[float | None],
        spacing_mm: tuple[float, float] | None,
        elsewhere: int,
    ) -> JudgedStack:
        """Judge slices of one shape in order; see `judging.Judge`."""
        asked = [
            Slice(pixels=pixels, position_mm=position, spacing_mm=spacing_mm, key=str(index))
            for index, (pixels, position) in enumerate(zip(slices, positions_mm, strict=True))
        ]
        series = self._detector.series(asked)
        found = series.slices
        seen = [
            [
                link.Seen(mask=item.mask, p_forged=item.p_forged, p_tumor=item.p_tumor, added=item.added)
                for item in one.detections
            ]
            for one in found
        ]
        looked_at = sum(one.state == "analysed" for one in found)
        linked = link.tracks(
            seen,
            positions_mm=positions_mm,
            looked_at=looked_at,
            elsewhere=elsewhere,
            calibration=self._detector.calibration,
        )
        tracks = link.joined(linked)
        return JudgedStack(
            scores=tuple(one.forgery if one.state == "analysed" else None for one in found),
            skipped=tuple(one.reason for one in found),
            head_pixels=tuple(round(one.head_share * pixels.size) for one, pixels in zip(found, slices, strict=True)),
            regions=tuple(
                JudgedRegion(masks=track.masks, p_forged=track.p_forged, p_tumor=track.p_tumor, p_lesion=track.p_lesion)
                for track in tracks
            ),
            smoothing=max((one.smoothing for one in found), default=0.0),
            edited_alike=series.edited_alike,
            forgery=max((track.p_forged for track in tracks), default=0.0),
            tumor=max((track.p_tumor for track in tracks), default=0.0),
        )
