"""What keeping a run costs: the same run on digits, once listened to by nobody, once monitored and stored.

Two ways to see it: how much longer the recorded run takes, round by round (with the noise of both), and how much of the
recorded run is spent outside the engine (without the monitor's own thread).
"""

import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks.contest import Contest, Form, Measure, Results, Scene, per_round
from dambench.core.config import Request
from dambench.core.events import AnyEvent, Finished
from dambench.engine.job import Job
from dambench.engine.loop import run
from dambench.engine.settle import prepare
from dambench.runner.monitor import sampled
from dambench.store.runs import Store

ALONE, RECORDED = "engine alone", "recorded"
OUTSIDE = "seconds outside the engine"


# All that this benchmark knows of dambench.


def job(scene: Scene) -> Job:
    """A few seconds of distillation, nearly no evaluation."""
    method = {"name": "dm", "iterations": 3 if scene.quick else 1000}
    request = Request(
        method=method, dataset="digits", ipc=10, evaluate_on=["convnet-d1-w1"], eval_repeats=1, device=scene.device
    )
    return prepare(request)


def alone(a_job: Job) -> None:
    *_, last = run(a_job)
    assert isinstance(last, Finished), last


def recorded(a_job: Job) -> float:
    """As the command `dambench run` records a run; returns the seconds that the engine had."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "runs.db", write=True)
        within = Stopwatch(run(a_job))
        with closing(sampled(within.events())) as events:
            *_, last = store.record(store.create(a_job.config, a_job.card), events)
        store.close()
    assert isinstance(last, Finished), last
    return within.seconds


class Stopwatch:
    """How long the engine had the word."""

    def __init__(self, events: Generator[AnyEvent, None, None]):
        self.seconds = 0.0
        self._events = events

    def events(self) -> Generator[AnyEvent, None, None]:
        while True:
            began = time.perf_counter()
            event = next(self._events, None)
            self.seconds += time.perf_counter() - began
            if event is None:
                return
            yield event


# The contest.


def contest(scene: Scene) -> Contest:
    def engine_alone() -> Measure:
        a_job = job(scene)

        def measure() -> dict[str, float]:
            began = time.perf_counter()
            alone(a_job)
            return {"seconds": time.perf_counter() - began}

        return measure

    def with_all() -> Measure:
        a_job = job(scene)

        def measure() -> dict[str, float]:
            began = time.perf_counter()
            within = recorded(a_job)
            seconds = time.perf_counter() - began
            return {"seconds": seconds, OUTSIDE: seconds - within}

        return measure

    def figures(results: Results) -> dict[str, float]:
        share = [measured[OUTSIDE] / measured["seconds"] for measured in results[RECORDED]]
        return {
            "share of the run outside the engine": median(share),
            "recorded run longer by, share": median(per_round(results, RECORDED, ALONE, "seconds")) - 1,
        }

    return Contest((Form(ALONE, engine_alone), Form(RECORDED, with_all)), ((RECORDED, ALONE),), figures=figures)
