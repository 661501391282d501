"""All tables of the node, for SQLite and PostgreSQL alike, and the forward migrations between schema versions.

Times are aware UTC. Texts of senders (AE titles, UIDs) are columns, never parts of names or paths.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)


class Moment(TypeDecorator[datetime]):
    """Aware UTC time as ISO 8601 text of fixed width, which sorts as time does and is equal on both databases."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Refuse a time without a zone: it would be somebody's local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone. Pass the time of dicomguard.clock.")
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Aware UTC again."""
        return None if value is None else datetime.fromisoformat(value)


METADATA = MetaData()
# 64 characters hold a UID (PS3.5 9.1) and a SHA-256. AE titles have 16, but what a stranger says may be longer.
_UID = String(64)
_HASH = String(64)
_KEY = String(32)
_AE = String(64)
_ADDRESS = String(64)

meta = Table("meta", METADATA, Column("name", String(32), primary_key=True), Column("value", Text, nullable=False))

study = Table(
    "study",
    METADATA,
    Column("study_key", _KEY, primary_key=True),
    Column("study_uid", _UID, nullable=False, unique=True),
    Column("calling_ae", _AE, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    # True while instances wait that no revision covers yet; the two times and the reason are of this collection.
    Column("collecting", Boolean, nullable=False),
    Column("collecting_first_at", Moment),
    Column("collecting_last_at", Moment),
    Column("opened_because", String(16), nullable=False),
    Column("forced_by", String(128), nullable=False, default=""),
    Column("held_by", String(128), nullable=False, default=""),
    # 0 before the first revision.
    Column("current_revision", Integer, nullable=False, default=0),
    # Whether a request of this collection asked for high priority.
    Column("urgent", Boolean, nullable=False, default=False, server_default=false()),
    Index("study_collecting", "collecting"),
    Index("study_last", "last_at"),
)

instance = Table(
    "instance",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("sop_uid", _UID, nullable=False),
    Column("sha256", _HASH, nullable=False),
    # Null for quarantined bytes, which may belong to no study.
    Column("study_key", _KEY, ForeignKey("study.study_key")),
    Column("study_uid", _UID, nullable=False),
    Column("series_uid", _UID, nullable=False),
    Column("sop_class", _UID, nullable=False),
    Column("syntax", _UID, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("size", BigInteger, nullable=False),
    # Of Pixel Data as sent; computed when a second copy arrives. "" for an object without pixels.
    Column("pixel_sha256", _HASH),
    # Of the attributes that reports and grouping use, with the study key mixed in.
    Column("identity_sha256", _HASH, nullable=False),
    # Of Patient ID with the study key mixed in: says only whether two instances of one study agree.
    Column("patient_sha256", _HASH, nullable=False),
    Column("path", String(255), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("calling_ae", _AE, nullable=False),
    Column("called_ae", _AE, nullable=False),
    Column("address", _ADDRESS, nullable=False),
    Column("channel", String(8), nullable=False),
    Column("received_at", Moment, nullable=False),
    # Which pixels under this UID: 0 the first, 1 and up conflicting copies.
    Column("ordinal", Integer, nullable=False),
    # Which header of these pixels: 0 the first, the highest is current.
    Column("version", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("sop_uid", "sha256"),
    Index("instance_place", "sop_uid", "ordinal", "version", unique=True),
    Index("instance_study", "study_key", "received_at"),
)

association = Table(
    "association",
    METADATA,
    Column("id", _KEY, primary_key=True),
    # Executor id of the receiver process that holds it.
    Column("process", String(64), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("calling_ae", _AE, nullable=False),
    Column("called_ae", _AE, nullable=False),
    Column("address", _ADDRESS, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("last_store_at", Moment),
    Column("closed_at", Moment),
    # release, abort, lost (the process died), stop.
    Column("how", String(16), nullable=False, default=""),
    Column("stored", Integer, nullable=False, default=0),
    Index("association_open", "closed_at", "opened_at"),
)

association_study = Table(
    "association_study",
    METADATA,
    Column("association_id", _KEY, ForeignKey("association.id"), primary_key=True),
    Column("study_key", _KEY, ForeignKey("study.study_key"), primary_key=True),
    Column("last_store_at", Moment, nullable=False),
    Index("association_study_study", "study_key"),
)

revision = Table(
    "revision",
    METADATA,
    Column("study_key", _KEY, ForeignKey("study.study_key"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("opened_because", String(16), nullable=False),
    Column("closed_because", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("calling_ae", _AE, nullable=False),
    # "opened", then what flow makes of it.
    Column("state", String(24), nullable=False),
    # Why it is in this state, where that needs a word.
    Column("reason", Text, nullable=False, default=""),
    Column("progress_done", Integer, nullable=False, default=0),
    Column("progress_total", Integer, nullable=False, default=0),
    Column("manifest_sha256", _HASH),
    Column("manifest", Text),
    # Whether it is analysed and delivered before others.
    Column("urgent", Boolean, nullable=False, default=False, server_default=false()),
    # How often a person has started it again; each time it has its attempts anew.
    Column("retries", Integer, nullable=False, default=0, server_default=text("0")),
    Index("revision_state", "state"),
)

revision_instance = Table(
    "revision_instance",
    METADATA,
    Column("study_key", _KEY, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("instance_id", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("instance.id"), primary_key=True),
    ForeignKeyConstraint(["study_key", "number"], ["revision.study_key", "revision.number"]),
)

analysis = Table(
    "analysis",
    METADATA,
    Column("study_key", _KEY, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("verdict_sha256", _HASH, nullable=False),
    # Of verdict.json, relative to the root.
    Column("path", String(255), nullable=False),
    Column("category", String(24), nullable=False),
    Column("score", Float),
    Column("complete", Boolean, nullable=False),
    Column("model_id", String(128), nullable=False),
    Column("kept_at", Moment, nullable=False),
    ForeignKeyConstraint(["study_key", "number"], ["revision.study_key", "revision.number"]),
)

result = Table(
    "result",
    METADATA,
    Column("sop_uid", _UID, primary_key=True),
    Column("study_key", _KEY, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("sop_class", _UID, nullable=False),
    Column("series_uid", _UID, nullable=False),
    # Of the Part 10 file.
    Column("sha256", _HASH, nullable=False),
    Column("path", String(255), nullable=False),
    Column("place", Integer, nullable=False),
    Column("kept_at", Moment, nullable=False),
    ForeignKeyConstraint(["study_key", "number"], ["revision.study_key", "revision.number"]),
    Index("result_revision", "study_key", "number"),
)

delivery = Table(
    "delivery",
    METADATA,
    Column("study_key", _KEY, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("destination", String(64), primary_key=True),
    # The worst of its items.
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("planned_at", Moment, nullable=False),
    Column("next_at", Moment),
    Column("comment", Text, nullable=False, default=""),
    ForeignKeyConstraint(["study_key", "number"], ["revision.study_key", "revision.number"]),
    Index("delivery_due", "next_at"),
)

delivery_instance = Table(
    "delivery_instance",
    METADATA,
    Column("study_key", _KEY, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("destination", String(64), primary_key=True),
    # In sending order.
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    # SOP Instance UIDs of its forms, JSON list.
    Column("forms", Text, nullable=False),
    Column("form", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    # Status word of the C-STORE response; null when there was none.
    Column("status", Integer),
    Column("comment", Text, nullable=False, default=""),
    ForeignKeyConstraint(
        ["study_key", "number", "destination"], ["delivery.study_key", "delivery.number", "delivery.destination"]
    ),
)

# What a destination is asked to vouch for (PS3.4 annex J), one row a delivery.
commitment = Table(
    "commitment",
    METADATA,
    Column("study_key", _KEY, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("destination", String(64), primary_key=True),
    # Of the last question; "" before the first.
    Column("transaction_uid", _UID, nullable=False, default=""),
    Column("state", String(12), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("resent", Boolean, nullable=False),
    Column("planned_at", Moment, nullable=False),
    Column("next_at", Moment),
    Column("comment", Text, nullable=False, default=""),
    # JSON list of SOP Class UID, SOP Instance UID, whether it is committed, Failure Reason.
    Column("parts", Text, nullable=False),
    ForeignKeyConstraint(
        ["study_key", "number", "destination"], ["delivery.study_key", "delivery.number", "delivery.destination"]
    ),
    Index("commitment_due", "next_at"),
    Index("commitment_transaction", "transaction_uid"),
)

# What a peer asks us to vouch for.
commitment_request = Table(
    "commitment_request",
    METADATA,
    # Random key of ours.
    Column("key", _KEY, primary_key=True),
    Column("transaction_uid", _UID, nullable=False),
    Column("calling_ae", _AE, nullable=False),
    # JSON list of SOP Class and SOP Instance UIDs.
    Column("parts", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    # waiting, answered, given up.
    Column("state", String(12), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("next_at", Moment),
    Column("comment", Text, nullable=False, default=""),
    UniqueConstraint("transaction_uid", "calling_ae"),
    Index("commitment_request_due", "next_at"),
)

refused = Table(
    "refused",
    METADATA,
    # Start of the hour: one row however often a stranger knocks.
    Column("hour", Moment, primary_key=True),
    Column("address", _ADDRESS, primary_key=True),
    Column("calling_ae", _AE, primary_key=True),
    Column("called_ae", _AE, primary_key=True),
    Column("reason", String(200), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
)

executor = Table(
    "executor",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("node", String(128), nullable=False),
    # receiver, worker or web.
    Column("role", String(16), nullable=False),
    Column("version", String(32), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("heartbeat_at", Moment, nullable=False),
    Column("lease_until", Moment, nullable=False),
    # Its work was taken over, or it ended in order; the row stays a while so that a late heartbeat learns of it.
    Column("retired", Boolean, nullable=False),
)

lease = Table(
    "lease",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", Moment, nullable=False),
)

audit = Table(
    "audit",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", String(255), nullable=False),
    # Canonical JSON.
    Column("change", Text, nullable=False),
    Column("previous", _HASH, nullable=False),
    Column("sha256", _HASH, nullable=False),
)

model = Table(
    "model",
    METADATA,
    # Name and version as the weights' head says.
    Column("id", String(128), primary_key=True),
    Column("sha256", _HASH, nullable=False, unique=True),
    # Relative to the root; "" for the weights that ship with the package.
    Column("path", String(255), nullable=False),
    # candidate, current, retired, rejected.
    Column("state", String(16), nullable=False),
    Column("predecessor", String(128), nullable=False, default=""),
    # Figures and reasons of the promotion decision, canonical JSON.
    Column("decision", Text, nullable=False, default="{}"),
    Column("proposed_by", String(128), nullable=False),
    Column("proposed_at", Moment, nullable=False),
    Column("decided_by", String(128), nullable=False, default=""),
    Column("decided_at", Moment),
)

retrain_run = Table(
    "retrain_run",
    METADATA,
    Column("key", String(64), primary_key=True),
    # One run per period; a run by hand names its moment.
    Column("period", String(64), nullable=False, unique=True),
    Column("state", String(24), nullable=False),
    Column("started_by", String(128), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    # Relative to the root.
    Column("report_path", String(255), nullable=False, default=""),
    Column("candidate_sha256", _HASH, nullable=False, default=""),
    Column("progress", Text, nullable=False, default="{}"),
    Column("message", Text, nullable=False, default=""),
)

# Sessions, set-up codes and other small state of the page, with an end.
ephemeral = Table(
    "ephemeral",
    METADATA,
    Column("kind", String(32), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", Text, nullable=False),
    Column("expires_at", Moment),
)

counter = Table(
    "counter",
    METADATA,
    Column("name", String(64), primary_key=True),
    # Configured name of the peer, else "unknown"; "" where it has no meaning.
    Column("peer", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)


def _add_urgent(connection: Connection) -> None:
    for table in ("study", "revision"):
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN urgent BOOLEAN NOT NULL DEFAULT false")


def _add_commitment(connection: Connection) -> None:
    for table in (commitment, commitment_request):
        table.create(connection, checkfirst=True)


def _add_retries(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE revision ADD COLUMN retries INTEGER NOT NULL DEFAULT 0")


# Step from version n to n + 1, keyed by n; the first version is made by `METADATA.create_all`.
MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {1: _add_urgent, 2: _add_commitment, 3: _add_retries}
SCHEMA_VERSION = 1 + len(MIGRATIONS)
