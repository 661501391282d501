"""The errors of dicomguard, in families by remedy (what has to happen next), not by origin.

    DicomguardError
    ├── Refused      the input or request is not acceptable; its sender must change it; never retried
    ├── Unavailable  not now (disk, peer, lock, device memory); the step's own backoff tries again
    └── Broken       a promise is broken (hash differs, unknown schema); held until a person decides

A message is two sentences: what is so, with the value; what to do.
"""


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


class Broken(DicomguardError):
    """Something that was promised does not hold."""

    exit_status = 70
