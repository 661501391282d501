"""Pictures of slices for the page, from the one decoding child of this process, in turns."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from dicomguard.analyze.client import Previews

# Pictures that are asked for again while somebody scrolls, about 100 kB each.
REMEMBERED = 200


class Frames:
    """PNG of kept slices; safe for many threads."""

    def __init__(self, previews: Previews) -> None:
        self._previews = previews
        self._turn = Lock()
        self._known: OrderedDict[tuple[Path, int | None], bytes] = OrderedDict()

    def png(self, path: Path, frame: int | None) -> bytes:
        """8-bit grey PNG; raises `Refused` when the slice cannot be decoded, `Unavailable` when the child died."""
        with self._turn:
            known = self._known.get((path, frame))
            if known is None:
                known = self._previews.frame(path, frame).png
                self._known[path, frame] = known
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return known

    def close(self) -> None:
        """End the child."""
        with self._turn:
            self._previews.close()
