"""Environments of tests that need a package which is not installed here."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[1]


def python_with(requirement: str, home: Path) -> Path:
    """Make an environment with a package besides all that is installed here; skip the test where it cannot be had.

    Args:
        requirement: as pip takes it.
        home: the folder of the environment, which is not there yet.

    Returns:
        Its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    here = Path(msgspec.__file__).parents[1]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target", str(packages)]
    made = subprocess.run([*pip, requirement], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"{requirement} cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
    (packages / "borrowed.pth").write_text(f"{here}\n{ROOT}\n")
    return home / "bin" / "python"
