"""Names and help texts of all metrics; units stand in the name, labels carry no patient, study or UID.

An AE label is only ever a configured peer's or destination's name, else "unknown".
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

REGISTRY = CollectorRegistry()

INSTANCES = Gauge(
    "dicomguard_instances", "Instances in the store, by what became of them.", ["state"], registry=REGISTRY
)
RECEIVED = Gauge(
    "dicomguard_received",
    "Since the first start, by peer: instances_received, received_bytes, instances_repeated, instances_conflicting, "
    "instances_quarantined.",
    ["count", "peer"],
    registry=REGISTRY,
)
STUDIES = Gauge("dicomguard_studies", "Studies by state of their current revision.", ["state"], registry=REGISTRY)
VERDICTS = Gauge("dicomguard_verdicts", "Current verdicts by category.", ["category"], registry=REGISTRY)
DELIVERIES = Gauge(
    "dicomguard_deliveries", "Deliveries by destination and state.", ["destination", "state"], registry=REGISTRY
)
REFUSED = Gauge(
    "dicomguard_associations_refused", "Associations refused in the last 24 hours, by reason.", ["reason"],
    registry=REGISTRY,
)  # fmt: skip
CUT = Gauge(
    "dicomguard_connections_cut", "Connections that the receiver ended since the first start, by reason and peer.",
    ["reason", "peer"], registry=REGISTRY,
)  # fmt: skip
DISK_FREE = Gauge("dicomguard_disk_free_bytes", "Free bytes on the file system of the store.", registry=REGISTRY)
PROCESS_UP = Gauge("dicomguard_process_up", "1 while the supervised process runs.", ["process"], registry=REGISTRY)
PROCESS_RESTARTS = Counter(
    "dicomguard_process_restarts", "Restarts of a supervised process.", ["process"], registry=REGISTRY
)
BUILD = Gauge("dicomguard_build_info", "1, labelled with the version.", ["version"], registry=REGISTRY)
