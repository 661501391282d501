"""The configuration: what is refused, with which sentence, and what it means."""

import contextlib
import threading
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard import config
from dicomguard.config.sections import SECTIONS
from dicomguard.core import delivery
from dicomguard.errors import Refused


def parse(text: str) -> config.Config:
    """Parse as if the text stood in node.toml."""
    return config.parse(text, base=Path("/base"), path=Path("node.toml"))


def test_defaults_listen_on_loopback_and_name_no_peer() -> None:
    loaded = parse("")
    assert loaded.node.host == "127.0.0.1"
    assert loaded.peers == ()
    assert loaded.database_url == "sqlite:////base/var/node.sqlite"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[node]\nae_titel = 'X'\n", 'node.toml:2: [node] has no key "ae_titel". Did you mean "ae_title"?'),
        ("[nodes]\n", 'node.toml:1: there is no section "nodes". Did you mean "node"?'),
        ("[node]\n\nport = 70000\n", "node.toml:3: port = 70000 is impossible. Use 1 to 65535."),
        ("[node]\nport = 'x'\n", "node.toml:2: port = 'x' is not a whole number."),
        ("[node]\nport = true\n", "is not a whole number"),
        ("[node]\nae_title = 'CT_SCANNER_ROOM_12'\n", "has 18 characters; PS3.5 allows 16"),
        (f"[node]\nname = '{'n' * 65}'\n", "node.toml:2: name has 1 to 64 characters"),
        ("[node]\nhost = '0.0.0.0'\n", "no peer is named"),
        ("[node]\ntimezone = 'Mars/Olympus'\n", 'there is no time zone "Mars/Olympus"'),
        ("[peers.ct]\nae_title = 'CT'\naddresses = ['nowhere']\n", '"nowhere" is no IP address'),
        ("[peers.ct]\nae_title = 'CT'\n", 'lacks "addresses"'),
        ("[peers.ct]\nae_title = 'CT'\naddresses = []\n", "names no address"),
        ("[destinations.a]\nae_title='A'\nhost='h'\nport=0\n", "Port 0"),
        ("[[routes]]\nname='r'\nto=['pacs']\n", 'sends to "pacs", which is no destination'),
        ("[[routes]]\nname='r'\n", 'node.toml:1: route "r" names no destination'),
        ("[[routes]]\nname='r'\nto=['sender']\ncategories=['fake']\n", 'node.toml:4: route "r" is for "fake"'),
        ("[[rules]]\nname='r'\naction='look'\n", "is not one of analyse, skip"),
        ("[[rules]]\nname='r'\naction='skip'\nmodality=7\n", "is no list of texts"),
        ("[routes]\nname='r'\n", "Write [[routes]]"),
        ("node = 3\n", "[node] is a section"),
        ("[node\n", "is not valid TOML"),
        ("[web]\nport = 8091\n", "share a port"),
        (f"[storage]\nstop_bytes = {1 << 70}\n", "is more than any machine has. Use at most 1125899906842624."),
        ("[receive]\nidle_s = nan\n", "node.toml:2: idle_s = nan is no number to count with"),
        (
            "[peers.ct]\nae_title='CT'\naddresses=['192.0.2.7']\nidle_s = inf\n",
            "node.toml:4: idle_s = inf is no number",
        ),
        (f"[storage]\nkeep_days = 1{'0' * 400}\n", "node.toml:2: keep_days"),
        (
            "[delivery]\ngive_up_s = 1e12\n",
            "node.toml:2: give_up_s = 1000000000000.0 is impossible. Use 1 to 315360000.",
        ),
        ("[destinations.sender]\nae_title='A'\nhost='h'\nport=104\n", 'node.toml:1: "sender" is the word of routes'),
        ("[tls]\nport = 2762\n", 'node.toml:2: TLS needs "certificate"'),
        ("[peers.ct]\nae_title = 'CT'\naddresses = ['192.0.2.7']\nkey_sha256 = ['00']\n", "is no SHA-256 in hex"),
        (
            f"[peers.ct]\nae_title = 'CT'\naddresses = ['192.0.2.7']\nkey_sha256 = ['{'0' * 64}']\n",
            "node.toml:4: the peer has to come by TLS, which is off",
        ),
        ("[peers.ct]\nae_title = 'CT'\naddresses = ['192.0.2.7']\nidle_s = 90000\n", "Use 1 to 86400"),
    ],
)
def test_a_fault_is_refused_with_its_sentence(text: str, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert sentence in str(caught.value)


_FLOATS = [(kind.__name__.lower(), key) for kind in SECTIONS for key in fields(kind) if key.type is float]


@pytest.mark.parametrize(("section", "key"), [(section, key.name) for section, key in _FLOATS])
@pytest.mark.parametrize("value", ["nan", "inf", "1e15"])
def test_no_number_is_without_bounds(section: str, key: str, value: str) -> None:
    """Beyond them calendar and sockets overflow, long after the configuration was called sound."""
    with pytest.raises(Refused, match=rf"node\.toml:2: {key} = "):
        parse(f"[{section}]\n{key} = {value}\n")


def test_the_longest_times_are_times_that_calendar_and_locks_know() -> None:
    sections: dict[str, str] = {}
    for section, key in _FLOATS:
        sections[section] = f"{sections.get(section, f'[{section}]')}\n{key.name} = {key.metadata['most']}"
    longest = parse("\n".join(sections.values()))
    now = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    for section, key in _FLOATS:
        value = getattr(getattr(longest, section), key.name)
        span = timedelta(days=value) if key.name.endswith("days") else timedelta(seconds=value)
        assert now - span < now + span
        assert value <= threading.TIMEOUT_MAX
    said = longest.delivery
    backoff = delivery.Backoff(
        first=timedelta(seconds=said.first_retry_s),
        longest=timedelta(seconds=said.longest_retry_s),
        give_up=timedelta(seconds=said.give_up_s),
    )
    item = delivery.Item(kind="SR", forms=("2.25.1",))
    busy = {"2.25.1": delivery.Answer(event=delivery.Event.BUSY)}
    for attempt in (0, 1, 20, 1000):
        tried = delivery.Delivery(
            study_key="k", revision=1, destination="pacs", items=(item,), attempt=attempt, planned_at=now, next_at=now
        )
        after = delivery.record(tried, busy, now=now, backoff=backoff)
        assert after.next_at is not None and now < after.next_at <= now + backoff.longest


def test_a_rule_matches_on_attributes() -> None:
    loaded = parse("[[rules]]\nname='ct'\naction='analyse'\nmodality=['CT']\nbody_part=['HEAD*']\n")
    assert (loaded.rules[0].modality, loaded.rules[0].body_part) == (("CT",), ("HEAD*",))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        config.load(tmp_path / "none.toml")


@given(st.text(max_size=200))
def test_garbage_is_refused_or_read_but_never_crashes(text: str) -> None:
    with contextlib.suppress(Refused):
        parse(text)


@given(
    st.sampled_from(["node", "web", "retrain", "peers.x", "storage"]), st.text("abcdefghij_", min_size=1, max_size=12)
)
def test_unknown_keys_are_refused_with_the_line(section: str, key: str) -> None:
    with pytest.raises(Refused, match=r"node\.toml:2"):
        parse(f"[{section}]\n{key}_zz = 1\n")


def test_the_password_of_the_database_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("p@ss/wörd\n", encoding="utf-8")
    text = '[database]\nurl = "postgresql+psycopg://guard@db:5432/guard"\npassword_file = "secret"\n'
    loaded = config.parse(text, base=tmp_path, path=None)
    assert loaded.database_url == "postgresql+psycopg://guard:p%40ss%2Fw%C3%B6rd@db:5432/guard"
    assert "p@ss" not in repr(loaded)


@pytest.mark.parametrize("url", ["", "postgresql+psycopg://db/guard", "postgresql+psycopg://guard:x@db/guard"])
def test_a_password_without_its_user_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Refused, match="belongs to the user"):
        config.parse(f'[database]\nurl = "{url}"\npassword_file = "secret"\n', base=tmp_path, path=None)


@pytest.mark.parametrize("padded", ["CT1 ", " CT1"])
def test_padding_of_an_ae_title_is_not_significant(padded: str) -> None:
    loaded = parse(
        f"[node]\nae_title = '{padded}'\n[peers.ct]\nae_title = '{padded}'\naddresses = ['192.0.2.7']\n"
        f"[destinations.ct]\nae_title = '{padded}'\nhost = 'h'\nport = 104\n"
    )
    assert {loaded.node.ae_title, loaded.peers[0].ae_title, loaded.destinations[0].ae_title} == {"CT1"}


def test_a_refused_url_is_not_repeated_since_it_may_hold_a_password() -> None:
    with pytest.raises(Refused, match="no database of ours") as caught:
        parse("[database]\nurl = 'mysql://guard:hunter2@db/guard'\n")
    assert "hunter2" not in str(caught.value)


_PACS = "[destinations.pacs]\nae_title = 'PACS'\nhost = 'h'\nport = 104\n"
_CT = "[peers.ct]\nae_title = 'CT1'\naddresses = ['192.0.2.7']\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[analysis]\nweights = 'none.safetensors'\n", "weights of [analysis] names /base/none.safetensors"),
        ("[tls]\nport = 2762\ncertificate = 'c'\nkey = 'k'\nauthorities = 'a'\n", "key of [tls] names /base/k"),
        ("[retrain]\narchive = 'cases'\n", "archive of [retrain] names /base/cases, where no folder is"),
        (_PACS, "No route leads to the destination pacs"),
        (_CT + "[[routes]]\nname = 'r'\nto = ['sender']\n", "no destination is CT1"),
        (
            _PACS + "[[routes]]\nname = 'r'\ncalling_ae_titles = ['CT9']\nto = ['pacs']\n",
            "CT9, which no peer is",
        ),
        (_PACS + "commitment = true\n", "pacs is asked for storage commitment, but is no peer"),
        (
            _PACS + "[destinations.second]\nae_title = 'PACS'\nhost = 'i'\nport = 104\n",
            "Destinations pacs and second have one AE title, PACS",
        ),
        ("[web]\nhost = '0.0.0.0'\n", "open to the network at 0.0.0.0 without TLS"),
        ("[web]\nhost = '0.0.0.0'\n", "answers by no name but localhost"),
    ],
)
def test_what_a_node_would_not_find_is_doubtful(text: str, sentence: str) -> None:
    assert [said for said in config.doubts(parse(text)) if sentence in said]


def test_a_configuration_that_fits_itself_is_not_doubtful() -> None:
    routes = "[[routes]]\nname = 'r'\ncalling_ae_titles = ['CT1']\nto = ['pacs', 'sender']\n"
    modality = "[destinations.ct]\nae_title = 'CT1'\nhost = 'h'\nport = 104\ncommitment = true\n"
    assert config.doubts(parse(_CT + _PACS + modality + routes)) == []
