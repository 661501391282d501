"""Every UID that dicomguard makes, derived from what it names: same input, same UID; other input, another.

UUID-derived form of PS3.5 B.2: "2.25." and the decimal of a 128-bit UUID (version 5), at most 44 characters.
An object's UID covers everything its bytes depend on, verdict hash and builder version included: two different datasets
under one SOP Instance UID are lost in an archive, which answers Success and keeps the old one.
"""

import uuid

# Fixed for ever: changing it gives every object of every installation another identity.
_NAMESPACE = uuid.UUID("6f0a3f0e-8a36-5c0b-9d0c-2d1c0de60a4d")
# PS3.3 C.12.1.1.1: identifies our private coding scheme.
CODING_SCHEME_UID = "2.25.278205376883854103929361238101214697805"

# Who wrote a Part 10 file or opened an association (PS3.7 D.3.3.2); a version name has at most 16 characters.
IMPLEMENTATION_CLASS_UID = "2.25.187682466599656921708809805099062460153"
IMPLEMENTATION_VERSION_NAME = "DICOMGUARD"


def derive(kind: str, *parts: str | int) -> str:
    """UID of `kind` from its parts; their order and their borders count."""
    # A bar inside a part (a node may be named so) must not look like a border.
    escaped = (str(part).replace("%", "%25").replace("|", "%7C") for part in (kind, *parts))
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(escaped)).int}"


def device(node_name: str) -> str:
    """Device Observer UID and Instance Creator UID of a node."""
    return derive("device", node_name)


def sr_series(*, study: str, device_uid: str, software: str, model: str, sop_class: str) -> str:
    """Series of the reports: revisions share it; another software or model does not, as equipment is of the series."""
    return derive("sr-series", study, device_uid, software, model, sop_class)


def sr_instance(*, study: str, revision: int, verdict_sha256: str, builder: str, sop_class: str) -> str:
    """One report; `builder` names version and switches of the builder."""
    return derive("sr", study, revision, verdict_sha256, builder, sop_class)


def seg_series(*, study: str, revision: int, verdict_sha256: str, builder: str, source_series: str, stack: int) -> str:
    """Series of the one segmentation of a stack (0 for the first) of a source series in a revision."""
    return derive("seg-series", study, revision, verdict_sha256, builder, source_series, stack)


def seg_instance(
    *, study: str, revision: int, verdict_sha256: str, builder: str, source_series: str, stack: int
) -> str:
    """The one segmentation of that series."""
    return derive("seg", study, revision, verdict_sha256, builder, source_series, stack)


def dimension_organization(seg_instance_uid: str) -> str:
    """Dimension Organization UID of a segmentation."""
    return derive("dimension-organization", seg_instance_uid)


def tracking(*, study: str, series: str, verdict_sha256: str, finding_id: str) -> str:
    """Tracking UID of a finding that no earlier revision knew."""
    return derive("tracking", study, series, verdict_sha256, finding_id)


def study_tracking(study: str) -> str:
    """Tracking UID of the study as a whole, the same in all revisions."""
    return derive("study-tracking", study)
