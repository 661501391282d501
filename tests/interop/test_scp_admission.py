"""Who gets in, over real sockets; what is refused stands in the log and the database."""

import subprocess
from pathlib import Path

from demo.ports import listens
from dicomguard.dimse.ae import make_ae
from dicomguard.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from dicomguard.store import associations, refusals
from tests.instances import MR, ROOT, part10_file
from tests.peers import Need, wait_for
from tests.receiver import LiveReceiver, associated, receiver, send


def echoscu(program: str, live: LiveReceiver, calling: str, called: str) -> str:
    command = [program, "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(live.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return "accepted" if done.returncode == 0 else done.stdout + done.stderr


def test_titles_and_address_are_checked_together(need: Need, tmp_path: Path) -> None:
    program = need("echoscu", "dcmtk")
    with receiver(tmp_path) as live:
        assert echoscu(program, live, "CT1", "DICOMGUARD") == "accepted"
        assert "Calling AE Title Not Recognized" in echoscu(program, live, "STRANGER", "DICOMGUARD")
        assert "Calling AE Title Not Recognized" in echoscu(program, live, "ct1", "DICOMGUARD")
        assert "Called AE Title Not Recognized" in echoscu(program, live, "CT1", "OTHER")
        # The title of a peer that lives elsewhere.
        assert "no reason" in echoscu(program, live, "FAR", "DICOMGUARD").lower()
        wait_for(lambda: len(live.events("association.refused")) == 4, what="the last refusal")
        with live.store().read() as tx:
            rows = {(row.calling_ae, row.called_ae, row.address): row.reason for row in refusals.recent(tx)}
        assert rows["STRANGER", "DICOMGUARD", "127.0.0.1"] == "the calling AE title is no peer's"
        assert rows["ct1", "DICOMGUARD", "127.0.0.1"].endswith("it differs from peer ct1 only in case")
        assert rows["CT1", "OTHER", "127.0.0.1"] == "the called AE title is not ours"
        assert rows["FAR", "DICOMGUARD", "127.0.0.1"] == "the address is not one of the peer's"
        logged = {(event["calling_ae"], event["reason"]) for event in live.events("association.refused")}
        assert logged == {(calling, reason) for (calling, _, _), reason in rows.items()}


def test_without_peers_the_port_is_on_loopback_and_nobody_gets_in(need: Need, tmp_path: Path) -> None:
    program = need("echoscu", "dcmtk")
    with receiver(tmp_path, peers={}) as live:
        assert live.events("receiver.opened")[0]["host"] == "127.0.0.1"
        assert "Calling AE Title Not Recognized" in echoscu(program, live, "CT1", "DICOMGUARD")


def test_associations_beyond_the_limit_are_refused_for_now(tmp_path: Path) -> None:
    file = part10_file(tmp_path / "in")
    with receiver(tmp_path, more="[receive]\nmax_associations = 2") as live:
        with associated(live, [file]) as one, associated(live, [file]) as two:
            assert one.is_established
            assert two.is_established
            with associated(live, [file], calling_ae="MR1") as three:
                assert three.is_rejected
                answer = three.acceptor.primitive
                # Transient, presentation related, local limit exceeded.
                assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
            assert send(one, file) == 0
        wait_for(lambda: bool(live.events("association.refused")), what="the refusal")
        with live.store().read() as tx:
            assert [row.reason for row in refusals.recent(tx)] == ["all associations are in use"]
        with associated(live, [file]) as again:
            assert again.is_established


def test_associations_leave_rows_with_their_end(tmp_path: Path) -> None:
    file, other = part10_file(tmp_path / "in"), part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.2")
    with receiver(tmp_path) as live:
        with associated(live, [file]) as association:
            assert send(association, file) == 0
            assert send(association, other) == 0
        with associated(live, [file]) as association:
            assert send(association, file) == 0
            association.abort()

        def ends() -> list[tuple[str, int]]:
            with live.store().read() as tx:
                return sorted((row.how, row.stored) for row in associations.recent(tx))

        wait_for(lambda: ends() == [("abort", 1), ("release", 2)], what="the end of both")


def test_every_class_and_syntax_of_the_table_is_negotiated(tmp_path: Path) -> None:
    classes = sorted(STORAGE_CLASSES)
    with receiver(tmp_path) as live:
        for start in range(0, len(classes), 10):
            part = classes[start : start + 10]
            ae = make_ae("CT1")
            for sop_class in part:
                for syntax in TRANSFER_SYNTAXES:
                    ae.add_requested_context(sop_class, syntax)
            association = ae.associate("127.0.0.1", live.port, ae_title="DICOMGUARD")
            try:
                got = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
            finally:
                association.release()
            assert got == {(sop_class, syntax) for sop_class in part for syntax in TRANSFER_SYNTAXES}


def test_plain_syntaxes_are_preferred_and_deflated_ones_are_not_taken(tmp_path: Path) -> None:
    with receiver(tmp_path) as live:
        ae = make_ae("CT1")
        ae.add_requested_context(MR, ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
        ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", ["1.2.840.10008.1.2.1.99"])
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", live.port, ae_title="DICOMGUARD")
        try:
            got = {cx.abstract_syntax: cx.transfer_syntax[0] for cx in association.accepted_contexts}
        finally:
            association.release()
        assert got == {MR: "1.2.840.10008.1.2.1", VERIFICATION: "1.2.840.10008.1.2.1"}


def test_an_orderly_stop_ends_with_success_and_closes_the_port(tmp_path: Path) -> None:
    file = part10_file(tmp_path / "in")
    with receiver(tmp_path) as live:
        with associated(live, [file]) as association:
            assert send(association, file) == 0
            assert live.stop() == 0
        assert not listens(live.port)
        with live.store().read() as tx:
            assert [row.how for row in associations.recent(tx)] in (["stop"], ["abort"])
        assert live.events("receiver.stopped")
