"""Every gate turns red on a planted fault: import contracts, ruff and mypy.

Each case copies the package, writes one fault into the copy and runs the real tool on it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package and its settings."""
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors", "static", "templates")
    shutil.copytree(ROOT / "dicomguard", tmp_path / "dicomguard", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tool: str, *arguments: str, where: Path) -> tuple[int, str]:
    """Exit status and all output of a tool."""
    done = subprocess.run(
        [str(TOOLS / tool), *arguments], cwd=where, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


def plant(tree: Path, module: str, code: str) -> None:
    """Append a fault to a module, which is made when it does not exist."""
    path = tree / "dicomguard" / module
    path.write_text((path.read_text() if path.exists() else '"""Planted."""\n') + "\n" + code + "\n")


CONTRACTS = [
    ("core/canon.py", "import os", "The core is pure"),
    ("core/geometry.py", "import numpy", "The core is pure"),
    ("util.py", "", "Storeys"),
    ("store/db.py", "import dicomguard.scp", "Storeys"),
    ("sr/codes.py", "import time", "Results are made without"),
    ("flow/study.py", "import torch", "torch lives in two rooms"),
    ("scp/storage.py", "import dicomguard.analyze", "The receiver knows neither"),
    ("deliver/storage.py", "import dicomguard.store", "The sender knows no database"),
    ("retrain/promotion.py", "import dicomguard.store", "Retraining knows the archive"),
    ("web/app.py", "import sqlalchemy", "Only store speaks SQL"),
    ("web/app.py", "import dbos", "Only flow speaks DBOS"),
    ("flow/study.py", "import pynetdicom", "Only dimse, scp and deliver"),
    ("retrain/net/twins.py", "import dicomguard.retrain.tamper.second_hand", "Training never sees"),
    (
        "retrain/net/twins.py",
        "import dicomguard.retrain.sealed.families",
        "Training, calibration and the other families",
    ),
]


@pytest.mark.parametrize(("module", "code", "contract"), CONTRACTS)
def test_import_contract_breaks_on_its_plant(tree: Path, module: str, code: str, contract: str) -> None:
    plant(tree, module, code)
    status, output = run("lint-imports", "--no-cache", where=tree)
    assert status != 0
    # A long name is wrapped in the summary; layers are exhaustive, so a new room is named as missing.
    entries = re.split(r"(?<= KEPT)|(?<= BROKEN)", " ".join(output.split()))
    broken = [entry for entry in entries if entry.endswith(" BROKEN")]
    assert any(contract in entry for entry in broken) or (module == "util.py" and "util" in output), output


def test_import_contracts_hold_without_a_plant(tree: Path) -> None:
    status, output = run("lint-imports", "--no-cache", where=tree)
    assert status == 0, output


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import pickle", "TID251"),
        ("from time import time", "TID251"),
        ("import subprocess", "TID251"),
        ("print('x')", "T201"),
        ("try:\n    pass\nexcept Exception:\n    pass", "BLE001"),
    ],
)
def test_ruff_breaks_on_its_plant(tree: Path, code: str, rule: str) -> None:
    plant(tree, "core/canon.py", code)
    status, output = run("ruff", "check", "--no-cache", "dicomguard/core/canon.py", where=tree)
    assert status != 0
    assert rule in output


def test_mypy_breaks_on_its_plant(tree: Path) -> None:
    plant(tree, "core/canon.py", 'WRONG: int = "text"')
    status, output = run("mypy", "--cache-dir", str(tree / "cache"), "-m", "dicomguard.core.canon", where=tree)
    assert status != 0
    assert "Incompatible types in assignment" in output
