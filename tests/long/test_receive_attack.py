"""The attack of three hundred silent and fifty dripping peers, lying lengths, two hundred associations a second and
silent TLS clients, all at once, in rounds with and without; Orthanc under the same in the same run."""

import statistics
from pathlib import Path

from demo.ports import free_port
from tests.attackers import PEERS, Attack, Measured, attacked, good_peers
from tests.fault.test_receive_attack import cuts, resident_kib, tls
from tests.peers import Need, orthanc
from tests.receiver import receiver

_ROUNDS, _ROUND_S = 3, 10.0


def rounds(port: int, tls_port: int, *, called: str, attack: Attack) -> tuple[list[Measured], list[Measured]]:
    """Quiet and harassed, in turn; each harassed round begins when the attack is at its full number."""
    quiet, harassed = [], []
    for number in range(_ROUNDS):
        quiet.append(good_peers(port, seconds=_ROUND_S, run=2 * number, called=called))
        with attacked(port, tls_port, attack) as running:
            before_s = running.cpu_s
            harassed.append(good_peers(port, seconds=_ROUND_S, run=2 * number + 1, called=called))
            taken = (running.cpu_s - before_s) / _ROUND_S
        print(f"  attackers took {taken:.2f} of a processor: {running.counts}")
    return quiet, harassed


def say(name: str, quiet: list[Measured], harassed: list[Measured]) -> tuple[float, float]:
    """Print and return the C-ECHO p99 in seconds and the median of the rounds' ratios of rates."""
    echoes = sorted(echo for measured in harassed for echo in measured.echoes)
    p99 = echoes[int(0.99 * len(echoes))]
    ratio = statistics.median(bad.rate / good.rate for good, bad in zip(quiet, harassed, strict=True))
    print(
        f"{name}: C-ECHO p99 {1e3 * p99:.0f} ms of {len(echoes)} (median {1e3 * statistics.median(echoes):.0f} ms), "
        f"C-STORE {statistics.median(m.rate for m in quiet):.0f}/s quiet, "
        f"{statistics.median(m.rate for m in harassed):.0f}/s attacked, ratio {ratio:.2f} "
        f"(rounds {', '.join(f'{bad.rate / good.rate:.2f}' for good, bad in zip(quiet, harassed, strict=True))})"
    )
    return p99, ratio


def test_good_peers_under_the_whole_attack(need: Need, tmp_path: Path) -> None:
    port, more = tls(need, tmp_path / "ca")
    with receiver(tmp_path / "state", peers=PEERS, more=more) as live:
        quiet, harassed = rounds(live.port, port, called="DICOMGUARD", attack=Attack())
        print(f"  cut {cuts(live)}, peak of memory {resident_kib(live) >> 10} MiB")
        p99, ratio = say("dicomguard", quiet, harassed)
        assert not live.events("connection.failed")
        assert resident_kib(live) < 100 << 10
        assert p99 < 1.0
        assert ratio >= 0.8


def test_orthanc_under_the_same(need: Need, tmp_path: Path) -> None:
    """No promise of ours: what the others do, for comparison. It serves at most so many, so the good peer may fail."""
    with orthanc(need, tmp_path) as pacs:
        try:
            quiet, harassed = rounds(pacs.port, free_port(), called="ORTHANC", attack=Attack(silent_tls=0))
        except (AssertionError, OSError) as error:
            print(f"Orthanc: a good peer was not served ({type(error).__name__}: {error})")
            return
        say("Orthanc", quiet, harassed)
