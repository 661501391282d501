"""The text of a configuration, to say where a fault stands, and what was meant by a misspelt name."""

import difflib
import re
from pathlib import Path


class Source:
    """The text that was read, to say where a fault stands."""

    def __init__(self, path: Path | None, text: str) -> None:
        self.path = path
        self._lines = text.splitlines()

    def at(self, table: str, key: str | None = None) -> str:
        """`file:line` of a key in a table, as near as can be told."""
        name = str(self.path) if self.path is not None else "configuration"
        inside = not table
        for number, line in enumerate(self._lines, start=1):
            header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?", line)
            if header:
                inside = header.group(1) == table
                if inside and key is None:
                    return f"{name}:{number}"
            elif inside and key is not None and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
                return f"{name}:{number}"
        return name


def nearest(name: str, known: list[str]) -> str:
    """A half sentence with the name that was meant, else with all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else f" Known are: {', '.join(sorted(known))}."
