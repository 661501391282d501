"""`dicomguard conformance`: the conformance statement, made from the tables that the program itself reads (PS3.2)."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.uid import UID

from dicomguard import __version__, config
from dicomguard.cli.statement import TEXT
from dicomguard.core import admission, uid
from dicomguard.core.admission import Reject, Request
from dicomguard.core.delivery import classify
from dicomguard.core.peer import Peer
from dicomguard.dimse import ae, commitment, contexts, status
from dicomguard.scp import messages
from dicomguard.sr import build, codes, report, segmentation

_ANSWERS = (
    (status.SUCCESS, "durable on disk; also the same pixels again, and bytes that could only be quarantined"),
    (status.COERCED, "other pixels under a known SOP Instance UID; both are kept (`receive.conflict_warning`)"),
    (status.OUT_OF_RESOURCES, "no room, the database is away, or more than `receive.max_instance_bytes`"),
    (status.CANNOT_UNDERSTAND, "it cannot be parsed, and quarantine is full"),
    (status.PROCESSING_FAILURE, "a fault of ours; the message alone fails"),
    (status.CLASS_NOT_SUPPORTED, "another SOP class than that of its presentation context"),
    (status.UNRECOGNISED_OPERATION, "another operation than C-STORE, C-ECHO and storage commitment"),
)


def command() -> None:
    """Print docs/conformance.md: SOP classes, transfer syntaxes, associations, status words, objects and codes."""
    print(document(), end="")


def document() -> str:
    """The whole page."""
    receive, delivery = config.Receive(), config.Delivery()
    sent = (report.SOP_CLASS_UID, report.FALLBACK_SOP_CLASS_UID, segmentation.SOP_CLASS_UID)
    return TEXT.format(
        version=__version__,
        implementation_class=uid.IMPLEMENTATION_CLASS_UID,
        implementation_version=uid.IMPLEMENTATION_VERSION_NAME,
        scheme_uid=uid.CODING_SCHEME_UID,
        scheme=codes.PRIVATE_SCHEME,
        ae_title=config.Node().ae_title,
        port=config.Node().port,
        associations=receive.max_associations,
        associations_per_peer=receive.max_associations_per_peer,
        pdu=receive.max_pdu_bytes,
        sent_pdu=ae.MAX_PDU_BYTES,
        idle_s=f"{receive.idle_s:g}",
        connect_s=f"{delivery.connect_s:g}",
        answer_s=f"{delivery.answer_s:g}",
        first_retry_s=f"{delivery.first_retry_s:g}",
        longest_retry_s=f"{delivery.longest_retry_s:g}",
        give_up_days=f"{delivery.give_up_s / 86400:g}",
        linger_s=f"{delivery.commitment_linger_s:g}",
        deadline_h=f"{delivery.commitment_deadline_s / 3600:g}",
        commitment=contexts.STORAGE_COMMITMENT,
        commitment_instance=commitment.SOP_INSTANCE,
        most_references=commitment.MOST_REFERENCES,
        most_collected=messages.MAX_COLLECTED_BYTES,
        sr_number=build.SR_SERIES_NUMBER,
        seg_number=build.SEG_SERIES_NUMBER,
        received=_table(
            ("SOP class", "UID", "analysed"),
            (
                (name, f"`{key}`", "may be" if key in contexts.IMAGE_CLASSES else "kept only")
                for key, name in contexts.STORAGE_CLASSES.items()
            ),
        ),
        syntaxes=_table(
            ("transfer syntax", "UID"), ((UID(item).name, f"`{item}`") for item in contexts.TRANSFER_SYNTAXES)
        ),
        sent=_table(("SOP class", "UID"), ((UID(item).name, f"`{item}`") for item in sent)),
        rejections=_table(
            ("reason", "result", "source", "diagnostic"),
            ((item.reason, item.result, item.source, item.diagnostic) for item in _rejections()),
        ),
        answers=_table(("status", "when"), ((f"{word:04X}", text) for word, text in _ANSWERS)),
        understood=_table(
            ("status", "meaning", "answer"),
            ((f"{word:04X}", status.sentence(word), classify(word).value.replace("_", " ")) for word in _UNDERSTOOD),
        ),
        codes=_table(
            ("value", "scheme", "meaning"),
            ((f"`{one.value}`", one.scheme, one.meaning) for one in sorted(set(_codes()), key=_order)),
        ),
    )


_UNDERSTOOD = (0x0000, 0x0107, 0x0110, 0x0111, 0x0117, 0x0122, 0x0124, 0xA700, 0xA900, 0xB000, 0xB006, 0xB007, 0xC000)


def _rejections() -> Iterator[Reject]:
    """One of each kind, by asking the function that decides."""
    peers = (Peer(name="ct", ae_title="CT1", networks=("192.0.2.7",)),)
    for calling, called, address in (
        ("OTHER", "DICOMGUARD", "192.0.2.7"),
        ("CT1", "DICOMGUARD", "192.0.2.8"),
        ("CT1", "OTHER", "192.0.2.7"),
        ("CT1", "DICOMGUARD", "192.0.2.7"),
    ):
        request = Request(calling_ae=calling, called_ae=called, address=address, stores=True)
        answer = admission.decide(request, ae_title="DICOMGUARD", peers=peers, congested=True)
        assert isinstance(answer, Reject)
        yield answer
    yield admission.LIMIT_REACHED
    yield admission.PEER_LIMIT_REACHED


def _codes() -> Iterator[codes.Code]:
    """Every coded concept that an object of ours can carry."""

    def inside(value: Any) -> Iterator[codes.Code]:
        if isinstance(value, codes.Code):
            yield value
        elif isinstance(value, dict | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                yield from inside(item)

    for value in vars(codes).values():
        yield from inside(value)


def _order(code: codes.Code) -> tuple[bool, str, str]:
    return code.scheme == codes.PRIVATE_SCHEME, code.scheme, code.value


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *([str(item) for item in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
