"""What somebody else's machine needs: a wheel that runs outside the checkout, and make in any folder."""

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT], check=True)
    (wheel,) = (tmp_path / "dist").glob("dambench-*.whl")
    home = tmp_path / "some where"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # The dependencies are those installed here; the package is the wheel's.
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, wheel], check=True)
    work = tmp_path / "work"
    work.mkdir()
    python = home / "bin" / "python"
    environment = os.environ | {"DAMBENCH_HOME": str(tmp_path / "files"), "DAMBENCH_DB": "mine.db"}

    def dambench(*words: str) -> str:
        command = [str(python), "-m", "dambench", *words]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=True).stdout

    where = subprocess.run([python, "-c", "import dambench; print(dambench.__file__)"], capture_output=True, text=True)
    assert str(packages) in where.stdout
    small = ["--iterations", "3", "--eval-repeats", "1", "--json"]
    result = json.loads(dambench("run", "--headless", "--method", "dm", "--dataset", "digits", *small))
    assert result["state"] == "finished"
    assert "| dm " in dambench("report")
    shown = json.loads(dambench("show", result["run"], "--json"))
    assert shown["environment"]["git_commit"] == ""


def test_the_makefile_refuses_an_old_python_with_a_sentence(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "run", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 2
    assert f"dambench needs Python 3.11 or newer; {old} is Python 3.10.1." in done.stderr + done.stdout
    assert not (tmp_path / ".venv").exists()
