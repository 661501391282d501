"""What all tiers share: programs not written here, and real data that a newcomer may not have.

A missing program skips its tests by name and says the Debian package. With DICOMGUARD_REQUIRE=all (as CI sets it) every
skip is a failure, except one for real data that is truly absent.
"""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers import Postgres, postgres

ROOT = Path(__file__).resolve().parents[1]
REQUIRE_ALL = os.environ.get("DICOMGUARD_REQUIRE") == "all"
NO_DATA = "the real data folder is absent"
# Cheapest first, so that a fault shows early.
TIERS = ("house", "unit", "interop", "fault", "browser", "long")
# pynetdicom installs storescu, storescp and echoscu of its own: programs not written here are looked for elsewhere.
_ELSEWHERE = [
    folder
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
    if Path(folder) != Path(sys.executable).parent
]
# PostgreSQL's own programs do not stand on the path of Debian.
SEARCH = os.pathsep.join([*_ELSEWHERE, "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
_skipped: list[str] = []


def data_folder() -> Path:
    """Folder of real data that is not part of the product: DICOMGUARD_DATA, else shared/data beside the checkout."""
    return Path(os.environ.get("DICOMGUARD_DATA", ROOT.parent / "shared" / "data"))


def tier(path: Path) -> str:
    """Name of the folder below tests/."""
    return path.relative_to(ROOT / "tests").parts[0]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: content made at import may hold the time, and every worker has to find one name."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tier; first long paths, at whose end nobody shall wait alone, then the tiers, cheapest first."""
    for item in items:
        if tier(item.path) == "long":
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: (item.get_closest_marker("smoke") is None, TIERS.index(tier(item.path))))


def pytest_collection_finish() -> None:
    """Hide modules and items from the garbage collector, as the decoding child does: a decoder collects every file."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect skips that CI must not accept."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        absent = NO_DATA in reason and not (data_folder() / "index.csv").is_file()
        if not absent:
            _skipped.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With DICOMGUARD_REQUIRE=all a skip fails the run."""
    if REQUIRE_ALL and _skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped although it had to run."""
    if REQUIRE_ALL and _skipped:
        terminalreporter.section("skipped, which DICOMGUARD_REQUIRE=all forbids")
        for line in _skipped:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """`need("storescu", "dcmtk")` is the path of a program, or the test is skipped by name."""

    def find(program: str, package: str) -> str:
        path = shutil.which(program, path=SEARCH)
        if path is None:
            pytest.skip(f"{program} is missing: install the Debian package {package}")
        return path

    return find


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, or the test is skipped with the reason."""
    folder = data_folder()
    if not (folder / "index.csv").is_file():
        pytest.skip(f"{NO_DATA}: set DICOMGUARD_DATA to it")
    return folder


@pytest.fixture(autouse=True)
def _no_leftover_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DICOMGUARD_CONFIG", raising=False)
    yield


@pytest.fixture(scope="session")
def postgres_server(need: Callable[[str, str], str]) -> Iterator[Postgres]:
    """One PostgreSQL cluster for the run; `postgres_server.create(name)` gives a test its own database."""
    with postgres(need) as server:
        yield server
