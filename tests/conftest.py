"""What all tiers share: programs not written here, and real data that a newcomer may not have.

A missing program skips its tests by name and says the Debian package. With DICOMGUARD_REQUIRE=all (as CI sets it) such
a skip is a failure.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

REQUIRE = os.environ.get("DICOMGUARD_REQUIRE", "")
# PostgreSQL's own programs do not stand on the path of Debian.
SEARCH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
)


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """`need("storescu", "dcmtk")` is the path of a program, or the test is skipped by name."""

    def find(program: str, package: str) -> str:
        path = shutil.which(program, path=SEARCH)
        if path is None:
            message = f"{program} is missing: install the Debian package {package}"
            if REQUIRE == "all":
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data that is not part of the product; DICOMGUARD_DATA, else shared/data beside the checkout."""
    folder = Path(os.environ.get("DICOMGUARD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (folder / "index.csv").is_file():
        # Never a failure: a newcomer cannot have it.
        pytest.skip("the real data folder is absent: set DICOMGUARD_DATA to it")
    return folder
