"""What the units in deploy/systemd promise to systemd."""

import configparser
from pathlib import Path

import pytest

from tests.conftest import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", UNITS, ids=[path.stem for path in UNITS])
def test_a_stop_is_told_to_the_main_process_alone(path: Path) -> None:
    """It ends its children in order; told by systemd themselves, they would count as dead in the middle of a study."""
    assert read(path)["Service"]["KillMode"] == "mixed"


@pytest.mark.parametrize("path", UNITS, ids=[path.stem for path in UNITS])
def test_the_start_waits_for_the_clock_where_the_host_does(path: Path) -> None:
    """Such a target is ordered after and not pulled in: systemd.special(7)."""
    unit = read(path)["Unit"]
    assert "time-sync.target" in unit["After"].split()
    assert "time-sync.target" not in unit["Wants"].split()
