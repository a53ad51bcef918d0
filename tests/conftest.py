"""No test touches the user's files, database or settings, and none trains longer than it has to."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

# Before torch is imported. The tests' tensors are tiny: a second thread only waits, and where something else runs
# on the machine too, waiting for it is 10 times slower than doing without.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from msgspec.structs import replace

from dambench.core.protocol import PRESETS, USUAL, Budget, Protocol
from dambench.store.runs import Store

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
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DAMBENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _few_epochs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the usual protocol would train for 200 epochs, two are enough to have a run: that was 80 % of its time.

    The protocol keeps its name and its hash. Slow tests train as users do, and so do those that ask for
    `every_epoch`.
    """
    training: Any = sys.modules.get("dambench.training.train")  # who has not imported torch does not wait for it here
    asked = {*request.fixturenames, *(mark.name for mark in request.node.iter_markers())}
    if training is None or asked & {"every_epoch", "slow", "gpu"}:
        return
    usual, begin = PRESETS[USUAL], training.Training.__init__

    def briefly(self: Any, networks: Any, data: Any, protocol: Protocol, **more: Any) -> None:
        if (protocol.synthetic, protocol.whole) == (usual.synthetic, usual.whole):
            protocol = replace(protocol, synthetic=Budget(epochs=2, drops=(1,)), whole=Budget(epochs=1))
        begin(self, networks, data, protocol, **more)

    monkeypatch.setattr(training.Training, "__init__", briefly)


@pytest.fixture
def every_epoch() -> None:
    """Ask for this where scores are to mean something."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty database, where the commands look for one."""
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield store


def pytest_sessionfinish() -> None:
    """Let what commands kept from Python's search for cycles go: libraries complain of what is left at the end."""
    gc.unfreeze()
