"""What headers and pixel hashes say: copies, attributes that change inside a series, statements about the pixels."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from dicomguard.analyze.evidence.facts import Facts, Found
from dicomguard.core.finding import SliceRef, Strength

# Attributes that one acquisition writes alike into each slice.
_CONSTANT = {
    "manufacturer": "Manufacturer",
    "model_name": "Manufacturer's Model Name",
    "device_serial": "Device Serial Number",
    "software_versions": "Software Versions",
}
# Traces of the program that wrote a file, as people call them.
_WRITER = {
    "implementation": "Implementation Class UID and Version Name",
    "instance_creator": "Instance Creator UID",
    "transfer_syntax": "Transfer Syntax UID",
}
# Slices of a series that were written this long after the others were not written by the scanner.
_LATER_S = 86400.0
# An 8-bit range in a field of at least so many bits.
_BITS_OF_A_PICTURE = 8
_BITS_OF_A_SCAN = 10
# Padding is usual where the middle slice has this share of it.
_PADDED = 0.01


def of_study(slices: Sequence[Facts]) -> Iterable[Found]:
    """Copies anywhere in the study."""
    by_hash: dict[str, list[Facts]] = defaultdict(list)
    for item in slices:
        if not item.blank:
            by_hash[item.sha256].append(item)
    for same in by_hash.values():
        if len({(item.sop_instance_uid, item.frame) for item in same}) > 1:
            yield Found(
                kind="identical_pixels", strength="strong", parameters={}, slices=tuple(item.ref for item in same)
            )


def of_stack(stack: Sequence[Facts]) -> Iterable[Found]:
    """All that the headers of one stack say."""
    for check in _CHECKS:
        yield from check(stack)


def _refs(slices: Iterable[Facts]) -> tuple[SliceRef, ...]:
    return tuple(item.ref for item in slices)


def _unlike(stack: Sequence[Facts], name: str) -> list[Facts]:
    """Slices whose value differs from the most frequent one."""
    values = Counter(str(item.header.get(name, "")) for item in stack)
    if len(values) < 2:
        return []
    usual = values.most_common(1)[0][0]
    return [item for item in stack if str(item.header.get(name, "")) != usual]


def _changes(stack: Sequence[Facts]) -> Iterable[Found]:
    for kind, names in (("header_changes", _CONSTANT), ("writer_differs", _WRITER)):
        for name, attribute in names.items():
            if odd := _unlike(stack, name):
                yield Found(kind=kind, strength="notable", parameters={"attribute": attribute}, slices=_refs(odd))
    if odd := _unlike(stack, "private_creators"):
        yield Found(kind="private_differs", strength="notable", parameters={}, slices=_refs(odd))


def _root(uid: str) -> str:
    """The organisation's part of a UID: what one writer gives all its instances (PS3.5 9.1)."""
    return ".".join(uid.split(".")[:5])


def _uid_roots(stack: Sequence[Facts]) -> Iterable[Found]:
    roots = Counter(_root(item.sop_instance_uid) for item in stack)
    if len(roots) > 1:
        usual = roots.most_common(1)[0][0]
        odd = [item for item in stack if _root(item.sop_instance_uid) != usual]
        # A writer that draws UIDs without a root (2.25.) gives each slice another.
        if len(odd) < len(stack) / 2:
            yield Found(kind="uid_root_differs", strength="notable", parameters={}, slices=_refs(odd))


def _created(stack: Sequence[Facts]) -> Iterable[Found]:
    """Instance Creation Date and Time (PS3.3 C.12.1.1.1)."""
    times = [_moment(str(item.header.get("created", ""))) for item in stack]
    known = sorted(time for time in times if time is not None)
    if len(known) < 3:
        return
    usual = known[len(known) // 2]
    odd = [
        item
        for item, time in zip(stack, times, strict=True)
        if time is not None and abs((time - usual).total_seconds()) > _LATER_S
    ]
    if odd and len(odd) < len(stack) / 2:
        yield Found(kind="creation_time", strength="notable", parameters={}, slices=_refs(odd))


def _moment(created: str) -> datetime | None:
    try:
        return datetime.strptime(created[:14], "%Y%m%d%H%M%S")  # noqa: DTZ007 - one writer's own clock, only compared
    except ValueError:
        return None


def _lossy(stack: Sequence[Facts]) -> Iterable[Found]:
    # Absent and "00" both say: never compressed with loss.
    lossy = [item for item in stack if item.header.get("lossy") == "01"]
    if 0 < len(lossy) < len(stack):
        yield Found(kind="lossy_flag_differs", strength="notable", parameters={}, slices=_refs(lossy))


def _stated(stack: Sequence[Facts]) -> Iterable[Found]:
    def has(name: str, kind: str, strength: Strength) -> Iterable[Found]:
        if slices := [item for item in stack if item.header.get(name)]:
            yield Found(kind=kind, strength=strength, parameters={}, slices=_refs(slices))

    yield from has("synthetic", "synthetic", "strong")
    derived = [item for item in stack if item.header.get("derived") and not item.header.get("synthetic")]
    if derived:
        yield Found(kind="derived", strength="info", parameters={}, slices=_refs(derived))
    yield from has("contributing_equipment", "contributing_equipment", "info")


def _signatures(stack: Sequence[Facts]) -> Iterable[Found]:
    """Digital signatures (PS3.15 C), checked by `analyze.signature`."""
    broken = [item for item in stack if "broken" in item.header.get("signatures", ())]
    if broken:
        yield Found(kind="signature_broken", strength="strong", parameters={}, slices=_refs(broken))
    unsigned = [item for item in stack if not item.header.get("signatures")]
    if 0 < len(unsigned) < len(stack) / 2:
        yield Found(kind="signature_missing", strength="notable", parameters={}, slices=_refs(unsigned))


def _range(stack: Sequence[Facts]) -> Iterable[Found]:
    """Smallest and Largest Image Pixel Value against the stored pixels (PS3.3 C.7.6.3.1)."""
    wrong = []
    for item in stack:
        header = item.header
        declared, actual = (header.get("smallest"), header.get("largest")), header.get("stored_range")
        # Writers that leave both at one value state nothing; multi-frame objects state the range of all frames.
        if None in declared or actual is None or declared[0] == declared[1] or item.frame is not None:
            continue
        if actual[0] < declared[0] or actual[1] > declared[1]:
            wrong.append(item)
    if wrong:
        yield Found(kind="pixel_range", strength="notable", parameters={}, slices=_refs(wrong))


def _padding(stack: Sequence[Facts]) -> Iterable[Found]:
    """Pixel Padding Value (PS3.3 C.7.5.1.1.2) that the series uses and a slice only declares."""
    shares = [item.header.get("padded") for item in stack]
    known = sorted(share for share in shares if share is not None)
    if len(known) < 3 or known[len(known) // 2] < _PADDED:
        return
    none = [item for item, share in zip(stack, shares, strict=True) if share == 0 and not item.blank]
    if none:
        yield Found(kind="padding_unused", strength="notable", parameters={}, slices=_refs(none))


def _bits(stack: Sequence[Facts]) -> Iterable[Found]:
    """Bits Stored (PS3.3 C.7.6.3) of which the whole series uses only what a picture has."""
    ranges = [item.header["stored_range"] for item in stack if item.header.get("stored_range") is not None]
    if len(ranges) < max(3, len(stack)):
        return
    used = max(max(abs(low), abs(high)) for low, high in ranges).bit_length()
    stored = min(int(item.header.get("bits_stored") or 0) for item in stack)
    if used == _BITS_OF_A_PICTURE and stored >= _BITS_OF_A_SCAN:
        yield Found(
            kind="bits_unused", strength="info", parameters={"used": used, "stored": stored}, slices=_refs(stack)
        )


_CHECKS: tuple[Callable[[Sequence[Facts]], Iterable[Found]], ...] = (
    _changes,
    _uid_roots,
    _created,
    _lossy,
    _stated,
    _signatures,
    _range,
    _padding,
    _bits,
)
