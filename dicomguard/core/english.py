"""The English sentences by key. Another language is another module with the same keys and placeholders.

A fragment (`PIXEL`) continues "its pixels do not fit the rest of the scan: …" and stands alone with a capital and a
full stop; a sentence (`FILES`) is whole. `{slices}` and `{Slices}` are filled in from the evidence's own slice list;
every other placeholder is a parameter of the same name.
"""

# The four plain answers of the page and the command line, and the fifth.
ANSWERS = {
    "real": "Brain Tumor Detected (Real)",
    "absent": "No Tumor Detected",
    "added": "Tumor Added (Deepfake)",
    "removed": "Tumor Removed (Deepfake)",
    "not_analysable": "Not Analysable",
}

# The result inside a sentence, between quotation marks.
RESULTS = {
    "real": "tumor, no sign of forgery",
    "absent": "no tumor, no sign of forgery",
    "added": "tumor added, signs of forgery",
    "removed": "tumor removed, signs of forgery",
    "not_analysable": "not analysable",
}

# A finding's category where findings are counted, and as the label of a segment.
FINDINGS = {"real": "no sign of forgery", "added": "added, signs of forgery", "removed": "removed, signs of forgery"}

# Pixel-level evidence of a finding.
PIXEL = {
    "noise_below": "noise inside is {percent:.0f} % below tissue of equal brightness",
    "noise_above": "noise inside is {percent:.0f} % above tissue of equal brightness",
    "noise_fits": "noise inside fits tissue of equal brightness",
    "detail_weaker": "fine detail inside is {percent:.0f} % weaker than around it",
    "detail_stronger": "fine detail inside is {percent:.0f} % stronger than around it",
    "texture_repeats": "its texture repeats another place of the same slice",
    "texture_repeats_slice": "its texture repeats that of another slice",
    "texture_unlike": "its texture is unlike tissue of equal brightness in the same series",
    "border_step": "the noise changes along its border",
    "abrupt_end": "it begins or ends abruptly between two slices",
    "forgery_map": "the network marks {percent:.0f} % of its pixels as changed",
    "channel": "the traces stand out in {channel}",
}

# Evidence that the files themselves give.
FILES = {
    "identical_pixels": "{Slices} hold identical pixels under different identifiers.",
    "same_noise": "{Slices} carry the same noise pattern.",
    "position_gap": "{Slices} lie {gap_mm:.1f} mm apart, where {usual_mm:.1f} mm are usual; one may be missing.",
    "position_repeat": "{Slices} lie at one position.",
    "time_order": "The acquisition times of {slices} do not follow the order of the slices.",
    "compression_traces": "Traces of lossy compression that the header does not mention show in {slices}.",
    "lossy_flag_differs": "The lossy compression flag of {slices} differs from the rest of the series.",
    "grey_values_local": "Grey values that occur nowhere else in the series occur in one region of {slices}.",
    "noise_step": "The noise of {slices} differs by {percent:.0f} % from that of the neighbours.",
    "sharpness_differs": "The sharpness of {slices} differs from the rest of the series.",
    "background_blank": "The background of {slices} carries no noise, unlike the rest of the series.",
    "background_repeats": "Pieces of the background noise of {slices} occur twice, which noise never does.",
    "header_changes": "The attribute {attribute} changes inside the series at {slices}.",
    "writer_differs": "Another program than that of the rest of the series wrote {slices} ({attribute} differs).",
    "private_differs": "The private attributes of {slices} come from other writers than those of the rest.",
    "uid_root_differs": "The identifiers of {slices} were given by another organisation than those of the rest.",
    "creation_time": "The creation of {slices} lies more than a day from that of the rest of the series.",
    "pixel_range": "The pixel range that the header of {slices} declares contradicts the pixels.",
    "padding_unused": "The header of {slices} declares padding that only the rest of the series has.",
    "bits_unused": "Of {stored:.0f} stored bits {used:.0f} are used in {slices}.",
    "derived": "The header of {slices} says that the images were derived or processed.",
    "contributing_equipment": "The header of {slices} names further equipment that worked on the images.",
    "signature_broken": "The digital signature of {slices} does not fit what it signed: something changed since.",
    "signature_missing": "The digital signature that others of the series carry is missing on {slices}.",
    "synthetic": "The header of {slices} says that the pixels are synthetic (Synthetic Data YES).",
}

# What to do about it.
_COMPARE = "Compare these slices with the copy on the scanner or in the modality's own archive."
_ASK = "Ask the sender which program wrote these files, and why."
_KNOWN = "If the processing is known and wanted, nothing follows from it."
FILES_NEXT = {
    "identical_pixels": _COMPARE,
    "same_noise": _COMPARE,
    "position_gap": "Ask the sender for the missing slices.",
    "position_repeat": "Ask the sender which of the images at one position is the scanner's.",
    "time_order": _COMPARE,
    "compression_traces": "Ask the sender for the instances as the scanner wrote them.",
    "lossy_flag_differs": "Ask the sender for the instances as the scanner wrote them.",
    "grey_values_local": _COMPARE,
    "noise_step": _COMPARE,
    "sharpness_differs": _COMPARE,
    "background_blank": _COMPARE,
    "background_repeats": _COMPARE,
    "header_changes": _ASK,
    "writer_differs": _ASK,
    "private_differs": _ASK,
    "uid_root_differs": _ASK,
    "creation_time": _ASK,
    "pixel_range": _COMPARE,
    "padding_unused": _COMPARE,
    "bits_unused": "Ask the sender whether the series was an 8-bit picture before.",
    "derived": _KNOWN,
    "contributing_equipment": _KNOWN,
    "signature_broken": "Do not rely on these slices before the signer has confirmed them.",
    "signature_missing": "Ask the signer why these slices are unsigned.",
    "synthetic": "Do not use these images for a patient.",
}

# Why a slice was not analysed, inside parentheses; a reason that is not here is printed as it is.
REASONS = {
    "localiser": "localiser",
    "derived": "computed from other images",
    "no head": "no head",
    "undecodable": "could not be decoded",
    "too small": "too few pixels",
    "lossy": "lossy compression",
    "saturated": "saturated pixels",
    "duplicate position": "a second image at the same position",
    "memory limit": "memory limit reached",
    "time limit": "time limit reached",
    "conflict copy": "other copy of an instance in conflict",
}

# What a reason outside the scope means for the analysed slices of a series.
NOTES = {
    "lossy compression": (
        "The slices of {series} were compressed with loss, which can remove traces of a forgery or look like some."
    ),
    "traces of lossy compression": (
        "Slices of {series} look compressed with loss, which can remove traces of a forgery or look like some."
    ),
    "fine noise missing": (
        "Fine noise is missing in {series}, as after smoothing or enlarging: traces of editing are hard to see there, "
        "and that none was found says little."
    ),
    "most slices look edited": (
        "Most slices of {series} look edited, more than in any authentic series known. They may all have been edited, "
        "or come from a scanner or processing that the program does not know: it cannot tell which."
    ),
}

# Sequence groups of the calibration.
SEQUENCES = {"flair": "FLAIR", "t1": "T1", "t1c": "T1 with contrast", "t2": "T2", "ct": "CT"}

TEXTS = {
    "real": (
        "A region that looks like a brain tumor was found on {place} ({id}{size}). No sign of forgery was found in it."
    ),
    "absent": "No tumor-like region and no sign of forgery were found on {analysed}.",
    "added": (
        "The region {id} on {place}{size_parenthesis} looks like a tumor, but its pixels do not fit the rest of the "
        "scan{why}. This is consistent with a tumor that was added to the images."
    ),
    "removed": (
        "On {place} the region {id}{size_parenthesis} shows no tumor, but its pixels do not fit the rest of the scan"
        "{why}. This is consistent with a tumor that was removed from the images."
    ),
    "not_analysable": (
        "The images could not be analysed: {reason}. Nothing can be said about their authenticity. "
        "This is neither good nor bad news."
    ),
    "not_analysable_series": "{series} ({reason})",
    "no_objects": "the study holds no images",
    "several": (
        "{count} regions: {list}. The result in the title is that of {headline}; each region is described on its own."
    ),
    "score_alert": "Forgery score {score:.2f}; alert threshold {threshold:.2f}.",
    "score_rank": "Forgery score {score:.2f}, alert threshold {threshold:.2f}; {rank} scored as high",
    "score_no_rank": "Forgery score {score:.2f}; alert threshold {threshold:.2f}",
    "rank_none": "none of {of} authentic studies",
    "rank_some": "{as_high} of {of} authentic studies",
    "false_alarms": (
        "; at this threshold {flagged} of the {n} authentic slices that it was set on were flagged "
        "(95 % upper bound {upper:.1f} %, if those of one person were independent)."
    ),
    "slices_above": (
        "At or above the alert threshold by themselves, which is too little to flag the study: {slices} (highest score "
        "{highest:.2f}){known}."
    ),
    "slices_above_known": "; {flagged} of the {n} authentic slices that the threshold was set on were so too",
    "all_analysed": "All {total} slices were analysed.",
    "one_analysed": "The one slice was analysed.",
    "partly_analysed": "{analysed} of {total} slices were analysed.",
    "limits_real": "A forgery can be missed, also one of a kind that the program was trained on.",
    "limits_absent": (
        "This does not exclude a tumor or a forgery: the program sees only brain tumors of the kinds it was trained "
        "on, and it misses some forgeries."
    ),
    "limits_added": (
        "Denoising, stitching or a burned-in overlay can look alike, and a tumor that was removed can be taken for one "
        "that was added."
    ),
    "limits_removed": (
        "Post-operative change, artefact correction or anonymisation can look alike, and a tumor that was added can be "
        "taken for one that was removed."
    ),
    "next_real": "No action follows from this report; please read the images as usual.",
    "next_absent": "No action follows from this report; please read the images as usual.",
    "next_added": (
        "Please do not rely on this region before comparing it with the images on the scanner or in the modality's own "
        "archive, and tell the PACS administrator. Other regions and slices were judged separately."
    ),
    "next_removed": (
        "Please compare with the images on the scanner, with earlier studies and with the report of the day before "
        "concluding that nothing is there, and tell the PACS administrator."
    ),
    "next_files": (
        "The image analysis asks for no action; please show the evidence of the files to the PACS administrator, and "
        "read the images as usual."
    ),
    "next_not_analysable": "Please read the images as if this report did not exist.",
    "not_looked_at": "Not looked at: {list}. A forgery there would not be seen.",
    "touches_skipped": "The region {id} reaches a slice that was not analysed; it may go on there.",
    "outside_scope": (
        "Outside the validated scope: the program was validated for {scope}; {series}. "
        "The scores have no known error rate here."
    ),
    "inside_scope": "Inside the validated scope ({scope}).",
    "from_files": (
        "This finding comes from the files, not from the image analysis, and did not change the score; {alarms}."
    ),
    "alarms": "it was seen in {k} of {n} authentic studies",
    "alarms_unknown": "how often authentic studies show it has not been counted",
    "conflict": (
        "{count} copies of {slice} with different pixels arrived under one identifier, {copies}. "
        "{analysed}; all are kept. Only one of them can be what the scanner made."
    ),
    "no_slice": "an object that is no image",
    "conflict_copy": "at {time} from sender {sender}",
    "conflict_one": "The one of {time} was analysed",
    "conflict_first": "Of these the one named first was analysed",
    "conflict_none": "None was analysed",
    "two_patients": (
        "The study carries {count} different Patient IDs; this report carries that of the first analysed instance."
    ),
    "revision": "This is report {number}. It replaces report {before}{date} because {because}.",
    "revision_changed": "Changed: result from '{old}' to '{new}'.",
    "revision_same": "The result is unchanged: '{new}'.",
    "because_late_instance": "more slices arrived",
    "because_late_instance_one": "one more slice arrived",
    "because_late_instance_counted": "{count} more slices arrived",
    "because_pixel_conflict": "a copy with other pixels arrived",
    "because_forced": "an administrator asked for it",
    "because_model_rerun": "another model was used",
    "because_first": "it was analysed again",
    "no_segmentation": (
        "{series} gives no position in the patient (no Frame of Reference), so its regions are outlined here "
        "but there is no segmentation."
    ),
    "extent": "{series}: {analysed} of {total} slices analysed. {reason}",
    "extent_empty": "{series}: no slices. {reason}",
    "use": "Research use only. Not for diagnosis. Made by a program, not checked by a person.",
    "model": "Model {id}, operating point {point}.",
    "no_model": "No model has judged, since its weights could not be read.",
    "slice": "slice",
    "slices": "slices",
    "frame": "frame",
    "frames": "frames",
    "to": "to",
    "and": "and",
    "of_series": "{slices} of {series}",
    "series": "series {number}",
    "series_unnumbered": "a series without number",
    "series_unnumbered_many": "{count} series without number",
    "whole_series": "all of {series} ({count} {noun}: {reason})",
    "some_slices": "{series}: {noun} {numbers} ({reason})",
    "by_place": " (counted along the stack)",
    "more": "{count} more",
    "size_ml": "about {ml} ml",
    "size_mm": "about {mm:.0f} mm across",
    "unknown_reason": "no reason was recorded",
    "head": "head",
    "highest": "the region with the highest forgery score",
    "highest_tumor": "the region with the highest tumor score",
}
