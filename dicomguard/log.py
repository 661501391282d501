"""Structured log: one JSON line an event, with allow-listed fields only.

Event names read `noun.past_verb`. No patient name, id, accession number or UID of a sender passes: studies are named by
our own short key. A field outside the list is dropped and counted, so that a slip cannot leak.
"""

import json
import logging
import sys
import traceback
from typing import Any

from dicomguard.clock import Clock, SystemClock

# What may stand in a log line. Adding a field is a decision about privacy: keys, counts and configured names only.
FIELDS = frozenset(
    """
    action actor address addresses ae attempt bytes called_ae calling_ae category cause child command
    count destination device error executor exit file frames free_bytes host instances key kind line
    message model name next_at number operation page path peer period pid port process queue reason
    revision route run score seconds series setup_code sha256 slices source state status step study
    total url version workflow
    """.split()
)
MAX_TEXT = 400
_MARK = "dicomguard_fields"


class Logger:
    """Writes events of one room."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"dicomguard.{name}")

    def event(self, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Write `event` with its allow-listed fields."""
        self._logger.log(level, event, extra={_MARK: fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Something a person should look at when there is time."""
        self.event(event, level=logging.WARNING, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something a person must look at."""
        self.event(event, level=logging.ERROR, **fields)

    def crashed(self, event: str, **fields: Any) -> None:
        """An error with the place it came from: frames and exception type, never the values in the message."""
        kind, _, trace = sys.exc_info()
        places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-4:]]
        cause = f"{kind.__name__ if kind else 'error'} at {' < '.join(reversed(places))}"
        self.event(event, level=logging.ERROR, **{**fields, "cause": cause})


def get(name: str) -> Logger:
    """The logger of a room, for example `get("scp")`."""
    return Logger(name)


class JsonLines(logging.Formatter):
    """One line of JSON: time, level, room, event, fields."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.dropped = 0

    def format(self, record: logging.LogRecord) -> str:
        """Records of libraries (uvicorn, pynetdicom, dbos) keep level and place, never their text: it may hold UIDs."""
        fields: dict[str, Any] | None = getattr(record, _MARK, None)
        line: dict[str, Any] = {
            "time": self._clock.now().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("dicomguard."),
        }
        if fields is None:
            line["event"] = "library.reported"
            line["name"] = f"{record.module}:{record.lineno}"
        else:
            line["event"] = record.msg
            for key, value in fields.items():
                if key in FIELDS:
                    line[key] = _plain(value)
                else:
                    self.dropped += 1
                    line["dropped"] = self.dropped
        return json.dumps(line, ensure_ascii=True)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:50]]
    return str(value)[:MAX_TEXT]


def configure(level: str = "INFO", clock: Clock | None = None) -> None:
    """Send all records of this process to standard error as JSON lines; called by process entries only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(clock or SystemClock()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("dicomguard").setLevel(level)
