"""No test touches the user's files, database or settings."""

import os
import signal
from pathlib import Path

# Before torch is imported. The tests' tensors are tiny: a second thread only waits, and where something else runs
# on the machine too, waiting for it is 10 times slower than doing without.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# Whoever runs the tests in the background may have them ignored, and then so would the programs that are tested.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "runs.db"))
    monkeypatch.setenv("DAMBENCH_DISK", "local")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("DAMBENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
