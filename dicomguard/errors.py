"""The errors of dicomguard, in families by remedy (what has to happen next), not by origin.

    DicomguardError
    ├── Refused      the input or request is not acceptable; its sender must change it; never retried
    ├── Unavailable  not now (disk, peer, lock, device memory); the step's own backoff tries again
    │   └── Shortage     of the machine: nobody's request is to blame
    └── Broken       a promise is broken (hash differs, unknown schema); held until a person decides

A message is two sentences: what is so, with the value; what to do.
"""

import errno

# A disk without room or that stumbles, no descriptors, no memory: what failed may do well later as it is.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class DicomguardError(Exception):
    """Root of the families; catch a family, not this, unless at the top of a step, handler, request or child."""

    # Exit status of a command that ends with this error (sysexits.h where there is a fitting one).
    exit_status = 1


class Refused(DicomguardError):
    """The input or request is not acceptable as it is."""

    exit_status = 2


class Unavailable(DicomguardError):
    """The request is fine, the moment is not."""

    exit_status = 75


class Shortage(Unavailable):
    """The machine lacks something for now; neither the request nor who works on it is to blame."""


class Broken(DicomguardError):
    """Something that was promised does not hold."""

    exit_status = 70


def shortage(error: BaseException) -> Shortage | None:
    """What an error says when the machine is behind it, itself or as its cause, in a way that passes; else None."""
    if isinstance(error, Shortage):
        return error
    if isinstance(error, OSError) and error.errno in _PASSING:
        # Not its whole text, which holds a path.
        return Shortage(
            f"The machine could not do it now ({error.strerror}). Make room or repair it; it is tried again."
        )
    return None if error.__cause__ is None else shortage(error.__cause__)
