"""The parser of PDUs, PDVs and command sets: what it takes comes out whole, everything else is a `Fault`."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, A_RELEASE_RP, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA, MaximumLengthNotification
from pynetdicom.presentation import build_context

from dicomguard.scp import command, negotiation, pdu
from dicomguard.scp.pdu import Fault

PDVS = st.lists(st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=200)), min_size=1, max_size=20)


def body(pdvs: list[tuple[int, int, bytes]]) -> bytes:
    primitive = P_DATA()
    primitive.presentation_data_value_list = [[context, bytes([control]) + piece] for context, control, piece in pdvs]
    encoded = P_DATA_TF()
    encoded.from_primitive(primitive)
    return bytes(encoded.encode())[6:]


def associate_rq(*, calling: str = "CT1", contexts: int = 1) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "DICOMGUARD"
    proposed = []
    for number in range(contexts):
        context = build_context("1.2.840.10008.5.1.4.1.1.4", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
        context.context_id = 2 * number + 1
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length = MaximumLengthNotification()
    length.maximum_length_received = 16384
    primitive.user_information = [length]
    encoded = A_ASSOCIATE_RQ()
    encoded.from_primitive(primitive)
    return bytes(encoded.encode())


@given(PDVS)
def test_fragments_are_those_of_pynetdicoms_encoder(pdvs: list[tuple[int, int, bytes]]) -> None:
    found = [(context, control, bytes(piece)) for context, control, piece in pdu.fragments(memoryview(body(pdvs)))]
    assert found == pdvs


@given(PDVS, st.data())
def test_a_cut_anywhere_is_a_fault_or_a_whole_number_of_fragments(
    pdvs: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    content = body(pdvs)
    at = data.draw(st.integers(0, len(content)))
    taken = []
    with contextlib.suppress(Fault):
        taken = [(c, k, bytes(piece)) for c, k, piece in pdu.fragments(memoryview(content)[:at])]
    assert taken == pdvs[: len(taken)]


@given(st.binary(max_size=400))
def test_any_bytes_are_fragments_or_a_fault(content: bytes) -> None:
    with contextlib.suppress(Fault):
        assert sum(6 + len(piece) for _, _, piece in pdu.fragments(memoryview(content))) == len(content)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_command_set_or_a_fault(content: bytes) -> None:
    with contextlib.suppress(Fault):
        command.parse(content)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@given(st.binary(max_size=300), st.integers(0, 299), st.integers(0, 255))
def test_any_association_request_is_a_proposal_or_a_fault(more: bytes, at: int, value: int) -> None:
    content = bytearray(associate_rq()[6:])
    content[at % len(content)] = value
    for candidate in (bytes(content), bytes(content[:68]) + more):
        with contextlib.suppress(Fault):
            proposal = negotiation.read(memoryview(candidate))
            negotiation.accept(proposal, max_pdu_bytes=131072)


@pytest.mark.parametrize("length", [0, 1])
def test_a_pdv_without_its_header_is_a_fault(length: int) -> None:
    with pytest.raises(Fault, match="too short"):
        list(pdu.fragments(memoryview(length.to_bytes(4, "big") + b"\x01\x03")))


def test_an_empty_fragment_is_none() -> None:
    """Some senders end a message with one."""
    assert [bytes(piece) for _, _, piece in pdu.fragments(memoryview(b"\0\0\0\x02\x01\x02"))] == [b""]


@pytest.mark.parametrize(
    ("kind", "length", "reason"),
    [
        (0x47, 10, pdu.UNRECOGNISED_PDU),
        (pdu.P_DATA, 10, pdu.UNEXPECTED_PDU),
        (pdu.RELEASE_RQ, 4, pdu.UNEXPECTED_PDU),
        (pdu.ASSOCIATE_RQ, 0xFFFFFFFF, pdu.INVALID_PARAMETER),
        (pdu.ASSOCIATE_RQ, 67, pdu.INVALID_PARAMETER),
        (pdu.ABORT, 1 << 20, pdu.INVALID_PARAMETER),
    ],
)
def test_what_may_not_come_first(kind: int, length: int, reason: int) -> None:
    with pytest.raises(Fault) as caught:
        pdu.check_first(kind, length)
    assert (caught.value.source, caught.value.reason) == (pdu.SERVICE_PROVIDER, reason)


@pytest.mark.parametrize(
    ("kind", "length", "reason"),
    [
        (pdu.P_DATA, 0, pdu.INVALID_PARAMETER),
        (pdu.P_DATA, 16385, pdu.INVALID_PARAMETER),
        (pdu.P_DATA, 0xFFFFFFFF, pdu.INVALID_PARAMETER),
        (pdu.RELEASE_RQ, 4096, pdu.INVALID_PARAMETER),
        (pdu.ASSOCIATE_RQ, 200, pdu.UNEXPECTED_PDU),
        (pdu.ASSOCIATE_AC, 200, pdu.UNEXPECTED_PDU),
        (0x08, 4, pdu.UNRECOGNISED_PDU),
        (0x00, 4, pdu.UNRECOGNISED_PDU),
    ],
)
def test_what_may_not_come_in_an_association(kind: int, length: int, reason: int) -> None:
    with pytest.raises(Fault) as caught:
        pdu.check_next(kind, length, max_pdu_bytes=16384)
    assert (caught.value.source, caught.value.reason) == (pdu.SERVICE_PROVIDER, reason)
    pdu.check_next(pdu.P_DATA, 16384, max_pdu_bytes=16384)


def test_an_association_request_with_a_million_items_is_refused_before_it_is_decoded() -> None:
    content = bytes(68) + b"\x20\x00\x00\x00" * 60_000
    with pytest.raises(Fault, match="too many items"):
        pdu.check_items(memoryview(content))
    nested = b"\x40\x00\x00\x00" * 16_000
    content = bytes(68) + b"\x20\x00" + (4 + len(nested)).to_bytes(2, "big") + bytes(4) + nested
    with pytest.raises(Fault, match="too many parts"):
        pdu.check_items(memoryview(content))


def test_all_128_contexts_are_answered() -> None:
    proposal = negotiation.read(memoryview(associate_rq(contexts=128)[6:]))
    agreement = negotiation.accept(proposal, max_pdu_bytes=131072)
    assert sorted(agreement.accepted) == list(range(1, 257, 2))
    assert agreement.peer_max_pdu_bytes == 16384
    assert (proposal.calling_ae, proposal.called_ae) == ("CT1", "DICOMGUARD")


def test_the_first_context_of_an_id_counts() -> None:
    content = associate_rq(contexts=2)
    second = content.rindex(b"\x20\x00")
    assert content[second + 4] == 3
    content = content[: second + 4] + b"\x01" + content[second + 5 :]
    agreement = negotiation.accept(negotiation.read(memoryview(content[6:])), max_pdu_bytes=131072)
    assert sorted(agreement.accepted) == [1]


@given(st.integers(0, 200))
def test_a_response_fits_the_peers_pdus(max_pdu_bytes: int) -> None:
    request = command.Command(
        field=command.C_STORE_RQ,
        message_id=7,
        has_dataset=True,
        elements={command.AFFECTED_CLASS: b"1.2.840.10008.5.1.4.1.1.4\0", command.AFFECTED_INSTANCE: b"1.2.3 "},
    )
    content = command.response(request, 0xB000, "other pixels\\\n are kept")
    sent, whole = memoryview(pdu.command(5, content, max_pdu_bytes=max_pdu_bytes)), b""
    while sent:
        kind, length = pdu.header(sent)
        assert kind == pdu.P_DATA
        assert max_pdu_bytes < 8 or length <= max_pdu_bytes
        for context_id, control, piece in pdu.fragments(sent[6 : 6 + length]):
            assert context_id == 5
            whole += bytes(piece)
            last = control
        assert bool(last & pdu.LAST) is (len(sent) == 6 + length)
        sent = sent[6 + length :]
    assert whole == content


def test_a_response_is_what_pynetdicom_reads() -> None:
    from pynetdicom.dimse_messages import C_STORE_RSP

    request = command.Command(
        field=command.C_STORE_RQ,
        message_id=513,
        has_dataset=True,
        elements={command.AFFECTED_CLASS: b"1.2.840.10008.5.1.4.1.1.4\0", command.AFFECTED_INSTANCE: b"1.2.3.4\0"},
    )
    primitive = P_DATA()
    content = command.response(request, 0xA700, "No room: ä.")
    primitive.presentation_data_value_list = [[1, b"\x03" + content]]
    message = C_STORE_RSP()
    assert message.decode_msg(primitive)
    answer = message.message_to_primitive()
    assert isinstance(answer, C_STORE)
    assert answer.MessageIDBeingRespondedTo == 513
    assert answer.Status == 0xA700
    assert answer.AffectedSOPInstanceUID == "1.2.3.4"
    assert answer.AffectedSOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
    assert answer.ErrorComment == "No room: ?."
    assert message.command_set.CommandGroupLength == len(content) - 12


def test_abort_and_release_are_what_pynetdicom_reads() -> None:
    abort = A_ABORT_RQ()
    abort.decode(pdu.abort(pdu.SERVICE_PROVIDER, pdu.INVALID_PARAMETER))
    assert (abort.source, abort.reason_diagnostic) == (2, 6)
    assert A_RELEASE_RP().encode() == pdu.RELEASE_ANSWER


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\x08\0\0\0\x02\0\0\0ab", b"\0\0\0\x01\xff\0\0\0ab"])
def test_what_is_no_command_set_is_the_users_abort(content: bytes) -> None:
    with pytest.raises(Fault) as caught:
        command.parse(content)
    assert (caught.value.source, caught.value.reason) == (pdu.SERVICE_USER, 0)
