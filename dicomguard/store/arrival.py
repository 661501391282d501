"""What comes through the door, and what became of it: the values between the receiver and the store."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from dicomguard.core.instance import Instance
from dicomguard.errors import Refused

Channel = Literal["dimse", "upload", "cli"]
# How an association ended; "lost" when its process died.
How = Literal["release", "abort", "lost", "stop"]


class TooLarge(Refused):
    """The dataset has more bytes than the node takes."""


class QuarantineFull(Refused):
    """No more unreadable bytes are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who brings the bytes."""

    # Configured name, "" for a person at the page or the command line.
    peer: str
    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """Over which association the bytes come."""

    id: str
    # Receiver process that holds it, and since when; "" and None when its row is there already.
    process: str = ""
    opened_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    instance: Instance
    # "" for quarantined bytes.
    study_key: str
    # A sentence, "" when there is nothing to say.
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(_Outcome):
    """Kept; `instance.state` is "own" for one of our results that came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(_Outcome):
    """Known already with the same bytes; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict(_Outcome):
    """Kept beside another copy with other pixels under the same SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined(_Outcome):
    """Kept with its bytes, but it cannot be read; no study holds it."""


Outcome = Stored | Duplicate | Conflict | Quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A dataset and all that is known of it but what its bytes say; hash and size once it is whole."""

    sender: Sender
    channel: Channel
    association: Association | None
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    received_at: datetime
    # Whether the request asked for high priority.
    urgent: bool = False
    sha256: str = ""
    size_bytes: int = 0

    def whole(self, *, sha256: str, size_bytes: int, received_at: datetime) -> "Arrival":
        """With what is known at the end."""
        return replace(self, sha256=sha256, size_bytes=size_bytes, received_at=received_at)
