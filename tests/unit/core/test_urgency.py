import pytest

from dicomguard.core.urgency import Policy, why_urgent


@pytest.mark.parametrize(
    ("policy", "asked", "priorities", "expected"),
    [
        ("asked", False, ["", ""], ""),
        ("asked", False, ["ROUTINE", "MED"], ""),
        ("asked", True, [], "its sender asked for high priority"),
        ("asked", False, ["stat "], "its request is marked STAT"),
        ("asked", False, ["", "HIGH"], "its request is marked HIGH"),
        # Only whole words count.
        ("asked", False, ["STATUS", "HIGHEST"], ""),
        ("never", True, ["STAT"], ""),
        ("always", False, [], "its sender goes first by configuration"),
    ],
)
def test_table(policy: Policy, asked: bool, priorities: list[str], expected: str) -> None:
    assert why_urgent(policy, asked=asked, priorities=priorities) == expected
