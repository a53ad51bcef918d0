"""Bytes per second to the terminal: what a person on a slow line waits for."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import pytest

from dambench.core.events import AnyEvent, Previewed, Progressed, Real, Sampled, Stepped
from dambench.runner import processes
from dambench.store.queue import Queue
from dambench.store.runs import Store
from tests import ledger
from tests.tui.screen import picture
from tests.tui.terminal import Terminal

LIVE = {(80, 24): 12_000, (160, 48): 25_000}
"""Bytes per second that Live may send, while a run says something ten times a second."""

IDLE = 500


def _words() -> Iterator[AnyEvent]:
    first, *_ = ledger.words(ledger.config(options={"iterations": 10_000}))
    yield first
    draw = np.random.default_rng(0)
    begun = time.monotonic()
    for iteration in itertools.count(1):
        spent = time.monotonic() - begun
        losses: dict[str, Real] = {
            name: float(np.exp(-iteration / 200) + draw.random() / 5) for name in ("matching", "attention")
        }
        parts = {"real images": 0.05 + draw.random() / 50, "synthetic images": 0.02}
        yield Stepped(iteration=iteration, losses=losses, seconds=spent, memory_bytes=10**8, parts=parts)
        yield Progressed(phase="distil", done=iteration, total=10_000)
        if iteration % 10 == 0:
            used = int(2**30 * (1 + draw.random()))
            yield Sampled(
                seconds=spent,
                process_memory_bytes=used,
                process_cpu_percent=100 + 50 * draw.random(),
                host_memory_used_bytes=4 * used,
                host_memory_total_bytes=2**35,
            )
        if iteration % 50 == 1:
            yield Previewed(iteration=iteration, preview=picture(iteration))
        time.sleep(0.1)


@contextmanager
def _speaking(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run that says something ten times a second, and is this process."""
    monkeypatch.setattr("dambench.store.recorder.FLUSH_SECONDS", 0.1)
    over = threading.Event()
    begun: list[str] = []

    def speak() -> None:
        store = Store.open(path, write=True)
        begun.append(store.create(ledger.config(options={"iterations": 10_000}), ledger.CARD, process=here))
        for _ in store.record(begun[0], _words()):
            if over.is_set():
                break
        store.close()

    here = processes.this_process()
    thread = threading.Thread(target=speak)
    thread.start()
    try:
        while not begun:
            time.sleep(0.05)
        yield begun[0]
    finally:
        over.set()
        thread.join()


def _measured(terminal: Terminal, seconds: float, settle: float = 2.0) -> float:
    """Bytes per second, once it shows the run."""
    terminal.read(20, lambda sent: b"Runs" in sent)
    terminal.press("2")
    terminal.read(10, lambda sent: b"matching" in sent)
    assert b"matching" in terminal.sent, terminal.sent[-2000:]
    terminal.read(settle)
    return terminal.read(seconds) / seconds


def test_live_keeps_to_its_bytes_and_is_silent_when_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with _speaking(path, monkeypatch), Terminal(["--db", str(path)], 80, 24, tmp_path) as terminal:
        assert 200 < _measured(terminal, 2, settle=1) <= LIVE[80, 24]
    over = tmp_path / "over.db"
    with closing(Store.open(over, write=True)) as store:
        ledger.add(store, ledger.config())
    with Terminal(["--db", str(over)], 80, 24, tmp_path) as terminal:
        assert _measured(terminal, 1.5, settle=1) <= IDLE


def test_the_age_of_a_lost_run_costs_next_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        gone = msgspec.structs.replace(processes.this_process(), started=1)
        store.create(ledger.config(), ledger.CARD, process=gone)
    with Terminal(["--db", str(path)], 80, 24, tmp_path) as terminal:
        terminal.wait("lost")
        terminal.read(1)
        assert terminal.read(1.5) / 1.5 <= IDLE


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "lines"), LIVE)
def test_a_minute_of_live_keeps_to_its_bytes(
    columns: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with _speaking(path, monkeypatch), Terminal(["--db", str(path)], columns, lines, tmp_path) as terminal:
        rate = _measured(terminal, 60)
    print(f"{columns}×{lines}: {rate:.0f} B/s")
    assert 200 < rate <= LIVE[columns, lines]


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "lines"), LIVE)
def test_on_a_line_of_16_kilobytes_a_second_a_key_is_answered_soon(
    columns: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with _speaking(path, monkeypatch), Terminal(["--db", str(path)], columns, lines, tmp_path) as terminal:
        _measured(terminal, 1)
        terminal.line = 16_000
        terminal.read(5)
        took = []
        for title in ["log y", "Loss  whole run"] * 10:
            began = time.monotonic()
            terminal.press("L")
            terminal.wait(title)
            took.append(time.monotonic() - began)
            terminal.read(0.7)
        began = time.monotonic()
        terminal.press("1")
        terminal.wait("METHOD")
        place = time.monotonic() - began
    print(f"{columns}×{lines}: median {median(took):.3f} s, worst {max(took):.3f} s, another place {place:.3f} s")
    assert median(took) < 0.25
    assert max(took) < 1
    assert place < 2


QUEUE = 3_000
"""Bytes per second that the Queue place may send, while a run of its list says something ten times a second."""


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "lines"), LIVE)
def test_the_queue_keeps_to_its_bytes_while_a_run_of_it_goes_on(
    columns: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with _speaking(path, monkeypatch) as run, closing(Store.open(path, write=True)) as store:
        queue = Queue(store)
        facts = {"method": "dm", "dataset": "digits", "tag": "sweep:mine", "seconds": 600.0}
        queue.add([queue.new({}, seed=seed, run=store.run(run).uid if not seed else "", **facts) for seed in range(30)])
        queue.take("w" * 32)
        with Terminal(["--db", str(path)], columns, lines, tmp_path) as terminal:
            terminal.read(20, lambda sent: b"Runs" in sent)
            terminal.press("4")
            terminal.wait("distil")
            terminal.read(2)
            rate = terminal.read(20) / 20
    print(f"{columns}×{lines}: {rate:.0f} B/s")
    assert 20 < rate <= QUEUE


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "lines"), LIVE)
def test_compare_sends_nothing_while_a_run_goes_on_that_no_table_has(
    columns: int, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config())
    with _speaking(path, monkeypatch), Terminal(["--db", str(path)], columns, lines, tmp_path) as terminal:
        terminal.read(20, lambda sent: b"Runs" in sent)
        terminal.press("3")
        terminal.wait("confidence interval")
        terminal.read(2)
        rate = terminal.read(10) / 10
    print(f"{columns}×{lines}: {rate:.0f} B/s")
    assert rate <= 20
