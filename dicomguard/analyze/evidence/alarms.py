"""False alarms by kind, counted on authentic DICOM; `python -m dicomguard.analyze.counting` counts them again."""

from dicomguard.core.finding import FalseAlarms

# Kinds that one slice alone can show; the others compare the slices of a stack and need one of five.
_ALONE = frozenset(
    {
        "background_repeats",
        "compression_traces",
        "contributing_equipment",
        "derived",
        "pixel_range",
        "signature_broken",
        "synthetic",
    }
)

# Whole studies: Philips with three series, Siemens twice (one of them multi-frame). Further 9 sets of single instances
# in many encodings, in which only what a slice shows alone counts. In the Philips study two slices of a series state
# other Software Versions than the rest; five sets were written as DERIVED by converters; one lossy copy contradicts
# the range of its header.
FALSE_ALARMS = {
    "identical_pixels": FalseAlarms(k=0, n=3),
    "same_noise": FalseAlarms(k=0, n=3),
    "position_gap": FalseAlarms(k=0, n=3),
    "position_repeat": FalseAlarms(k=0, n=3),
    "time_order": FalseAlarms(k=0, n=3),
    "compression_traces": FalseAlarms(k=0, n=12),
    "lossy_flag_differs": FalseAlarms(k=0, n=3),
    "grey_values_local": FalseAlarms(k=0, n=3),
    "noise_step": FalseAlarms(k=0, n=3),
    "sharpness_differs": FalseAlarms(k=0, n=3),
    "background_blank": FalseAlarms(k=0, n=3),
    "background_repeats": FalseAlarms(k=0, n=12),
    "header_changes": FalseAlarms(k=1, n=3),
    "writer_differs": FalseAlarms(k=0, n=3),
    "private_differs": FalseAlarms(k=0, n=3),
    "uid_root_differs": FalseAlarms(k=0, n=3),
    "creation_time": FalseAlarms(k=0, n=3),
    "pixel_range": FalseAlarms(k=1, n=12),
    "padding_unused": FalseAlarms(k=0, n=3),
    "bits_unused": FalseAlarms(k=0, n=3),
    "derived": FalseAlarms(k=5, n=12),
    "contributing_equipment": FalseAlarms(k=0, n=12),
    "signature_broken": FalseAlarms(k=0, n=12),
    "signature_missing": FalseAlarms(k=0, n=3),
    "synthetic": FalseAlarms(k=0, n=12),
}
COMPARED = FALSE_ALARMS.keys() - _ALONE
