"""Decoded slices, one at a time, from a child that may die: the caller's side of `analyze.decoding`.

A file that kills its decoder, hangs it or is garbage costs its own slices only; the study goes on and the slice says
why it was not looked at.
"""

import mmap
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard import log
from dicomguard.analyze.decoding import MAX_PIXELS
from dicomguard.child import Child, ChildEnded, ChildSilent
from dicomguard.core.job import DECODE_MEMORY_BYTES, DECODE_S
from dicomguard.errors import Broken, Refused, Unavailable

Plane: TypeAlias = NDArray[np.float32]

# Processor seconds of one child; a fresh one follows.
_CPU_S = 3600.0
_START_S = 60.0
# A file that ends its decoder this often is given up.
_ATTEMPTS = 2
_SHARED_BYTES = MAX_PIXELS * 4

_logger = log.get("analyze")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One decoded frame."""

    # H×W in modality units.
    pixels: Plane
    # Of the decoded stored values.
    sha256: str
    # Came in colour; `pixels` is its luminance.
    colour: bool
    # Header facts for `analyze.evidence`.
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecoded:
    """A frame that could not be had."""

    # undecodable, memory limit or time limit.
    reason: str


class Reader:
    """Asks a decoding child for frames and starts another when it dies. Use it in a `with`."""

    def __init__(self, *, memory_bytes: int = DECODE_MEMORY_BYTES, frame_s: float = DECODE_S, module: str = "") -> None:
        self._memory_bytes = memory_bytes
        self._frame_s = frame_s
        # A test puts a decoder that misbehaves here.
        self._module = module or "dicomguard.analyze.decoding"
        self._descriptor = os.memfd_create("dicomguard-frame")
        os.truncate(self._descriptor, _SHARED_BYTES)
        self._shared = mmap.mmap(self._descriptor, _SHARED_BYTES, prot=mmap.PROT_READ)
        self._child: Child | None = None

    def read(self, path: Path, frame: int | None) -> Slice | Undecoded:
        """One frame in modality units; `frame` counts from 1, None is the only one."""
        reply = self._ask({"path": str(path), "frame": frame})
        if isinstance(reply, Undecoded):
            return reply
        rows, columns = (int(side) for side in reply["shape"])
        if not (0 < rows * columns <= MAX_PIXELS and reply["bytes"] == rows * columns * 4):
            raise Broken(f"The decoding child gave {reply['bytes']} bytes for {rows} × {columns}. Look at its log.")
        pixels = np.frombuffer(self._shared, dtype="<f4", count=rows * columns).reshape(rows, columns).copy()
        return Slice(pixels=pixels, sha256=reply["sha256"], colour=bool(reply["colour"]), facts=reply["facts"])

    def png(self, path: Path, frame: int | None) -> tuple[bytes, tuple[int, int]]:
        """A windowed 8-bit picture of one frame and its rows and columns. Raises `Refused` when it cannot be had."""
        reply = self._ask({"path": str(path), "frame": frame, "as": "png"})
        if isinstance(reply, Undecoded):
            raise Refused(f"The slice cannot be shown: {reply.reason}. Send the instance again.")
        length = int(reply["bytes"])
        if not 0 < length <= _SHARED_BYTES:
            raise Broken(f"The decoding child gave {length} bytes of a picture. Look at its log.")
        rows, columns = (int(side) for side in reply["shape"])
        return self._shared[:length], (rows, columns)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | Undecoded:
        reason = ""
        for _ in range(_ATTEMPTS):
            child = self._running()
            try:
                child.send(request)
                reply = child.receive(self._frame_s)
            except ChildSilent:
                self._stop()
                _logger.warning("decoding.timed_out", seconds=self._frame_s)
                return Undecoded(reason="time limit")
            except (ChildEnded, Broken) as error:
                self._stop()
                _logger.warning("decoding.ended", reason=str(error))
                reason = "memory limit" if "memory" in str(error) else "undecodable"
                continue
            if reply.get("ok") is True:
                return reply
            _logger.warning("decoding.refused", reason=str(reply.get("skipped")), kind=str(reply.get("kind")))
            return Undecoded(reason="memory limit" if reply.get("skipped") == "memory limit" else "undecodable")
        return Undecoded(reason=reason)

    def _running(self) -> Child:
        if self._child is None:
            child = Child.start(
                [sys.executable, "-m", self._module, str(self._descriptor)],
                memory_bytes=self._memory_bytes,
                cpu_s=_CPU_S,
                # Threads of a codec's or NumPy's pool each reserve address space, which is limited.
                env_extra={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=(self._descriptor,),
            )
            try:
                child.receive(_START_S)
            except Unavailable:
                child.kill("it did not start")
                raise
            self._child = child
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill("a file made it fail")
            self._child = None

    def close(self) -> None:
        """End the child and give the memory back."""
        self._stop()
        self._shared.close()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
