"""No test touches the user's files, database or settings."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "runs.db"))
    monkeypatch.delenv("DAMBENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
