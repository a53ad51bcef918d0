import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dambench.cli.record import run_until_signal
from dambench.cli.signals import EXIT_CODES, Interrupted, Signals
from dambench.engine.loop import StopRun
from dambench.store.runs import Store
from tests.cli.lab import DM


@pytest.mark.parametrize(
    ("number", "code", "phase"),
    [
        (signal.SIGINT, 130, "distil"),
        (signal.SIGTERM, 143, "evaluate"),
        pytest.param(signal.SIGINT, 130, "evaluate", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "distil", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_cleanly_and_is_recorded(
    number: signal.Signals, code: int, phase: str, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "dambench", *DM]
    much, count = ("--iterations", "1000000") if phase == "distil" else ("--eval-repeats", "1000")
    words[words.index(much) + 1] = count
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("iteration" if phase == "distil" else "convnet"):
                break
        process.send_signal(number)
        assert process.wait(30) == code
        assert "stopped by" in process.stderr.read()
    with closing(Store.open(tmp_path / "runs.db")) as store:
        (row,) = store.query("select state, error, ended_at from runs")
        assert (row["state"], row["error"]) == ("stopped", f"stopped by {number.name}")
        assert store.query("select seconds from costs where phase = 'distil'")[0]["seconds"] > 0


@contextmanager
def _stuck(where: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs dambench and never comes back from a function of it; entered once it is there."""
    module, _, function = where.rpartition(".")
    code = (
        "import sys, time, importlib; from dambench.cli.app import run_cli\n"
        f"module = importlib.import_module({module!r})\n"
        "def stuck(*arguments):\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    while True: time.sleep(0.01)\n"
        f"setattr(module, {function!r}, stuck); sys.exit(run_cli({DM!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line == "begun\n" for line in process.stderr)
        yield process


def test_a_second_signal_does_not_wait_for_the_run_and_is_recorded_all_the_same(tmp_path: Path) -> None:
    with _stuck("dambench.methods.dm.distill") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    with closing(Store.open(tmp_path / "runs.db")) as store:
        assert store.query("select state, error from runs") == [{"state": "stopped", "error": "stopped by SIGINT"}]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_each_signal_that_ends_a_program_is_heard_and_has_its_code(name: str) -> None:
    number = signal.Signals[name]

    def get(signals: Signals) -> None:
        with signals:
            os.kill(os.getpid(), number)

    before = signal.signal(number, lambda *_: None)  # one that is not heard would end this process
    try:
        with pytest.raises(Interrupted, match=f"^{name}$"):
            get(Signals())
    finally:
        signal.signal(number, before)
    assert EXIT_CODES[name] == {"SIGHUP": 129, "SIGINT": 130}.get(name, 143)


def test_of_the_signals_of_a_batch_system_only_the_first_counts() -> None:
    def get(signals: Signals) -> None:
        with signals, signals.kept_for_the_run():
            for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
                os.kill(os.getpid(), number)

    patient = Signals(patient=True)
    get(patient)
    assert patient.received == "SIGUSR2"
    with pytest.raises(Interrupted, match="SIGUSR2"):
        get(Signals())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_before_a_run_begins_leaves_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with _stuck("dambench.datasets.digits.load") as process:
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr is not None
        assert process.stderr.read() == f"dambench: stopped by {number.name}, before a run began.\n"
    assert not (tmp_path / "runs.db").exists()
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_a_reason_to_stop_is_thrown_into_the_run_once() -> None:
    heard = []

    def run() -> Generator[Any, None, None]:
        try:
            yield from range(100)
        except StopRun as stop:
            heard.append(str(stop))
            yield "stopping"
            yield "stopped"

    told = iter(["", "", "SIGINT", "SIGINT", "SIGINT"])
    assert list(run_until_signal(run(), lambda: next(told), StopRun)) == [0, 1, 2, "stopping", "stopped"]
    assert heard == ["SIGINT"]
