"""What a queue takes for each run beside the runs themselves, and how much sooner two workers are done than one.

The same runs of one thread each, by hand one after another, by one worker, and by two at once; each time in a new
database, and queued before the clock starts.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks.contest import DEFAULT, Contest, Form, Measure, Results, Scene
from dambench.store.queue import Queue
from dambench.store.runs import Store

BY_HAND, ONE, TWO = "by hand, one after another", "one worker", "two workers"
PATIENCE = 600.0


def _dambench(*words: str, db: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "dambench", *words, "--db", str(db)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _all(*processes: "subprocess.Popen[bytes]") -> None:
    """Wait for processes to end well."""
    for process in processes:
        if process.wait(PATIENCE):
            raise RuntimeError(f"{process.args!r} ended with exit code {process.returncode}")


def contest(scene: Scene) -> Contest:
    runs, iterations = (2, 2) if scene.quick else (8, 300)
    request = [
        *("--method", "dm", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "1"),
        *("--iterations", str(iterations), "--set", "method.batch_real=32", "--device", "cpu", "--threads", "1"),
    ]

    def measure(work: Callable[[Path], None], *, queued: bool) -> Measure:
        def once() -> dict[str, float]:
            with tempfile.TemporaryDirectory() as folder:
                db = Path(folder) / "runs.db"
                if queued:
                    _all(_dambench("queue", "add", *request, "--seeds", f"0-{runs - 1}", db=db))
                began = time.perf_counter()
                work(db)
                seconds = time.perf_counter() - began
                with closing(Store.open(db)) as store:
                    assert store.count_by_state() == {"finished": runs}
                    assert not queued or Queue(store).counts() == {"finished": runs}
                return {"seconds": seconds}

        return once

    def by_hand() -> Measure:
        def work(db: Path) -> None:
            for seed in range(runs):
                _all(_dambench("run", "--headless", *request, "--seed", str(seed), db=db))

        return measure(work, queued=False)

    def worker(number: int) -> Callable[[], Measure]:
        def work(db: Path) -> None:
            _all(*[_dambench("queue", "work", "--workers", "1", db=db) for _ in range(number)])

        return lambda: measure(work, queued=True)

    def figures(results: Results) -> dict[str, float]:
        rounds = zip(results[ONE], results[BY_HAND], strict=True)
        return {
            "seconds more per run with one worker than by hand": median(
                (queue["seconds"] - hand["seconds"]) / runs for queue, hand in rounds
            )
        }

    forms = (
        Form(BY_HAND, by_hand, allocator=DEFAULT, warmups=0),
        Form(ONE, worker(1), allocator=DEFAULT, warmups=0),
        Form(TWO, worker(2), allocator=DEFAULT, warmups=0),
    )
    return Contest(forms, ((ONE, BY_HAND), (ONE, TWO)), figures=figures, most_rounds=3)
