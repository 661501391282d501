"""The one place that makes an application entity of pynetdicom, for both sides (PS3.8).

Its defaults that matter are written out; its own logging handlers print identifiers of requests and are turned off.
"""

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity

from dicomguard.core.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# The A-ASSOCIATE answer of the peer, seconds (ARTIM timer of PS3.8 9.1.5 on our side).
ACSE_TIMEOUT_S = 10.0
# Each of TCP connect and DIMSE answer; a caller with a slower peer sets its own.
CONNECTION_TIMEOUT_S = 10.0
DIMSE_TIMEOUT_S = 30.0
# Without a message for this long an association is aborted.
NETWORK_TIMEOUT_S = 60.0
MAX_PDU_BYTES = 131_072


def make_ae(ae_title: str, *, max_pdu_bytes: int = MAX_PDU_BYTES) -> ApplicationEntity:
    """An AE without presentation contexts that logs no identifier."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    ae = ApplicationEntity(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = max_pdu_bytes
    ae.acse_timeout = ACSE_TIMEOUT_S
    ae.connection_timeout = CONNECTION_TIMEOUT_S
    ae.dimse_timeout = DIMSE_TIMEOUT_S
    ae.network_timeout = NETWORK_TIMEOUT_S
    return ae
