"""Names and help texts of all metrics; units stand in the name, labels carry no patient, study or UID.

An AE label is only ever a configured peer's or destination's name, else "unknown".
"""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()

INSTANCES = Gauge(
    "dicomguard_instances", "Instances in the store, by what became of them.", ["state"], registry=REGISTRY
)
RECEIVED = Gauge(
    "dicomguard_received",
    "Since the first start, by peer: instances_received, received_bytes, instances_repeated, instances_conflicting, "
    "instances_quarantined, connections_slowed.",
    ["count", "peer"],
    registry=REGISTRY,
)
STUDIES = Gauge("dicomguard_studies", "Studies by state of their current revision.", ["state"], registry=REGISTRY)
VERDICTS = Gauge("dicomguard_verdicts", "Current verdicts by category.", ["category"], registry=REGISTRY)
COMMITMENTS_LATE = Gauge(
    "dicomguard_commitments_late",
    "Storage commitments that a destination has neither given nor refused in time, by destination.",
    ["destination"],
    registry=REGISTRY,
)
DELIVERIES = Gauge(
    "dicomguard_deliveries", "Deliveries by destination and state.", ["destination", "state"], registry=REGISTRY
)
COMMITMENTS = Gauge(
    "dicomguard_commitments",
    "Storage commitments asked of destinations, by destination and state.",
    ["destination", "state"],
    registry=REGISTRY,
)
REFUSED = Gauge(
    "dicomguard_associations_refused", "Associations refused in the last 24 hours, by reason.", ["reason"],
    registry=REGISTRY,
)  # fmt: skip
CUT = Gauge(
    "dicomguard_connections_cut", "Connections that the receiver ended since the first start, by reason and peer.",
    ["reason", "peer"], registry=REGISTRY,
)  # fmt: skip
ASSOCIATIONS = Gauge("dicomguard_associations_open", "Open associations by peer.", ["peer"], registry=REGISTRY)
WAITING = Gauge(
    "dicomguard_connections_waiting", "Connections that have no association yet, or none any more.", registry=REGISTRY
)
SEGMENTS_FREE = Gauge(
    "dicomguard_log_segments_free", "Segments of a receiver's log that wait to be used; at 0 senders wait.",
    ["receiver"], registry=REGISTRY,
)  # fmt: skip
LOG_RECORDS = Gauge(
    "dicomguard_log_records", "Instances in the log of a receiver since its start.", ["receiver"], registry=REGISTRY
)
FILER_LAG = Gauge(
    "dicomguard_filer_lag_records", "Acknowledged instances without file and row.", ["receiver"], registry=REGISTRY
)
FILER_LAG_S = Gauge("dicomguard_filer_lag_seconds", "Age of the oldest of them.", ["receiver"], registry=REGISTRY)
VERIFIED = Gauge(
    "dicomguard_verified_timestamp_seconds", "When files were last held against rows; 0 before.", registry=REGISTRY
)
VERIFY_FINDINGS = Gauge(
    "dicomguard_verify_findings", "What that inspection found, by kind.", ["kind"], registry=REGISTRY
)
SET_ASIDE = Gauge(
    "dicomguard_instances_set_aside",
    "Acknowledged instances that could not be filed and are kept aside, by the kind of the fault.",
    ["fault"],
    registry=REGISTRY,
)
DISK_FREE = Gauge("dicomguard_disk_free_bytes", "Free bytes on the file system of the store.", registry=REGISTRY)
PROCESS_UP = Gauge("dicomguard_process_up", "1 while the supervised process runs.", ["process"], registry=REGISTRY)
PROCESS_RESTARTS = Counter(
    "dicomguard_process_restarts", "Restarts of a supervised process.", ["process"], registry=REGISTRY
)
BUILD = Gauge("dicomguard_build_info", "1, labelled with the version.", ["version"], registry=REGISTRY)


class _Flushes(Collector):
    """A histogram that the receivers count and the supervisor shows."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, Sequence[int], float]] = []
        self._bounds: Sequence[float] = ()

    def show(self, shown: Iterable[tuple[str, Sequence[int], float]], *, bounds_s: Sequence[float]) -> None:
        """Receiver, flushes by bucket (one more than bounds, not added up), seconds of all."""
        self._bounds, self._shown = bounds_s, list(shown)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Buckets as Prometheus has them: each holds those below it."""
        family = HistogramMetricFamily(
            "dicomguard_log_flush_seconds", "How long a flush of a receiver's log took.", labels=["receiver"]
        )
        for receiver, counts, seconds in self._shown:
            names = [*map(str, self._bounds), "+Inf"]
            buckets = [(name, float(sum(counts[: at + 1]))) for at, name in enumerate(names)]
            family.add_metric([receiver], buckets=buckets, sum_value=seconds)
        yield family


FLUSHES = _Flushes()
REGISTRY.register(FLUSHES)
