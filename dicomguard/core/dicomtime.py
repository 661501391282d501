"""DA, TM, DT and Timezone Offset From UTC (PS3.5 6.2, PS3.3 C.12.1.1.8) from aware times, and back."""

import re
from datetime import datetime, timedelta, timezone, tzinfo

from dicomguard.errors import Refused

_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
# Offsets in use on Earth; PS3.5 allows −1200 to +1400.
_EARLIEST, _LATEST = timedelta(hours=-12), timedelta(hours=14)
_DT = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?")


def da(moment: datetime) -> str:
    """Date of an aware time, in its own zone."""
    return _aware(moment).strftime("%Y%m%d")


def tm(moment: datetime) -> str:
    """Time of day of an aware time, in its own zone; fractions only when there are any."""
    text = _aware(moment).strftime("%H%M%S")
    return f"{text}.{moment.microsecond:06d}" if moment.microsecond else text


def dt(moment: datetime) -> str:
    """Date, time and offset of an aware time."""
    return f"{da(moment)}{tm(moment)}{offset(moment)}"


def offset(moment: datetime) -> str:
    """Offset from UTC of an aware time as ±HHMM; seconds of historic zones are cut."""
    delta = _aware(moment).utcoffset() or timedelta()
    minutes = int(delta.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def zone(text: str) -> timezone | None:
    """The zone that a Timezone Offset From UTC names; None when the text is malformed or impossible."""
    match = _OFFSET.fullmatch(text.strip())
    if match is None or int(match[3]) > 59:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3])) * (-1 if match[1] == "-" else 1)
    return timezone(delta) if _EARLIEST <= delta <= _LATEST else None


def parse_dt(text: str, *, default: tzinfo) -> datetime:
    """Aware time of a DT value; missing parts are their smallest, a missing offset is `default`. Raises `Refused`."""
    match = _DT.fullmatch(text.strip(" \0"))
    if match is None:
        raise Refused(f'"{text}" is no DICOM date and time. Write YYYYMMDDHHMMSS, if wanted with ±HHMM.')
    year, month, day, hour, minute, second, fraction, offset_text = match.groups()
    place = default if offset_text is None else zone(offset_text)
    if place is None:
        raise Refused(f'"{text}" has the impossible offset {offset_text}. Use -1200 to +1400.')
    try:
        return datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0),
            int((fraction or "0").ljust(6, "0")), tzinfo=place,
        )  # fmt: skip
    except ValueError as error:
        raise Refused(f'"{text}" is no moment of the calendar ({error}). Correct the date or time.') from None


def _aware(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no zone; give an aware time.")
    return moment
