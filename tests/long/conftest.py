"""Order and figures of the long tier, which several processes run side by side."""

from collections import Counter

import pytest

# Longest first, so that none is left over at the end. Each process is dealt two tests at a time: the short one behind
# the hour of soak waits for it. Those that are not named follow.
_ORDER = (
    "test_soak.py::test_an_hour",
    "test_verify_late.py",
    "test_retrain_cycle.py",
    "test_effects.py",
    "test_receive_kill.py",
    "test_fuzz_campaign.py",
    "test_powercut.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests among themselves; others keep their places before them."""

    def place(item: pytest.Item) -> int:
        if item.path.parent.name != "long":
            return -1
        name = item.nodeid.rpartition("/")[2]
        return next((number for number, start in enumerate(_ORDER) if name.startswith(start)), len(_ORDER))

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Sums of what tests have recorded as properties: kills, states, mutations."""
    sums: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            sums[name] += value
    if sums:
        terminalreporter.section("sums over all tests that passed")
        for name, value in sums.items():
            terminalreporter.write_line(f"{name}: {value:,}")
