"""How fast a large database answers: the list of runs, a hundred of them compared, one curve, the program's start.

1,000 runs with 300 logged iterations each; ROWS in the environment sets another number of them in all. The ratio is of
two ways to ask for the last loss of a hundred runs: one by one along the primary key, or grouped, which reads all that
they said.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec

from benchmarks import recording
from benchmarks.contest import ROOT, Contest, Form, Measure, Results, Scene, middle, timed
from dambench.core import files
from dambench.core.events import Stepped
from dambench.engine.loop import run
from dambench.store.leaderboard import leaderboard
from dambench.store.records import EventLogged, LogRecord, RunCreated
from dambench.store.runs import NO_PROCESS, Store

COMPARED = 100

AT = "2026-01-01T00:00:00.000+00:00"


# All that this benchmark knows of dambench.


@cache
def filled(runs: int, rows: int) -> Path:
    """A database with so many finished runs, which logged so many iterations in all. The first run is a real one."""
    path = files.home() / "large.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    job = recording.job(Scene("cpu", quick=True))
    said = list(run(job))
    first = len(said) - 1  # the steps come before the last word
    with closing(Store.open(path, write=True)) as store:
        for seed in range(runs):
            uid, config = f"{seed:032x}", msgspec.structs.replace(job.config, seed=seed)
            lines: list[LogRecord] = [
                RunCreated(
                    uid=uid, id=f"r{seed:05}", name="", tags=[], at=AT, config=config, card=job.card, process=NO_PROCESS
                )
            ]
            for sequence, event in enumerate(said):
                # Its last words, with which the losses stop counting, come after them.
                number = sequence if sequence < first else sequence + rows
                lines.append(EventLogged(uid=uid, attempt=1, sequence=number, at=AT, event=event))
            store.write(lines)
        steps = [
            (first + n, AT, msgspec.json.encode(Stepped(iteration=n + 4, losses={"loss": 1 / (n + 1)}, seconds=n / 10)))
            for n in range(rows // runs)
        ]
        for number in range(1, runs + 1):
            store.db.conn.execute("begin")
            store.db.conn.executemany(
                "insert into events (run, sequence, at, kind, body) values (?, ?, ?, 'stepped', ?)",
                ((number, sequence, at, body.decode()) for sequence, at, body in steps),
            )
            store.db.conn.execute("commit")
    return path


def last_losses(store: Store, numbers: list[int]) -> list[object]:
    """Of each run, by its key."""
    sql = "select body from events where run = ? and kind = 'stepped' order by sequence desc limit 1"
    return [msgspec.json.decode(store.query(sql, number)[0]["body"], type=Stepped).losses for number in numbers]


def last_losses_grouped(store: Store, numbers: list[int]) -> list[object]:
    """Of all these runs in one question."""
    sql = f"""
        select body, max(sequence) from events where run in ({", ".join("?" * len(numbers))}) and kind = 'stepped'
        group by run
    """
    return [msgspec.json.decode(row["body"], type=Stepped).losses for row in store.query(sql, *numbers)]


# The contest.


def contest(scene: Scene) -> Contest:
    runs = 20 if scene.quick else 1000
    rows = 200 if scene.quick else int(os.environ.get("ROWS", 300_000))
    size = f"{runs:,} runs, {rows:,} rows"
    compared = list(range(1, runs + 1, max(1, runs // COMPARED)))[:COMPARED]
    seek, grouped = f"last loss of {len(compared)} runs, by key", f"last loss of {len(compared)} runs, grouped"

    def form(name: str, work: Callable[[Store], object]) -> Form:
        def prepare() -> Measure:
            path = filled(runs, rows)

            def measure() -> dict[str, float]:
                with closing(Store.open(path)) as store:
                    return timed(lambda: work(store), "cpu")

            return measure

        return Form(name, prepare)

    def started() -> Measure:
        path = filled(runs, rows)

        def measure() -> dict[str, float]:
            began = time.perf_counter()
            command = [sys.executable, "-m", "dambench", "runs", "--db", str(path)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            return {"seconds": time.perf_counter() - began}

        return measure

    forms = (
        form(seek, lambda store: last_losses(store, compared)),
        form(grouped, lambda store: last_losses_grouped(store, compared)),
        form("run list, the newest 100", lambda store: store.newest(100)),
        form("run list, all", lambda store: store.newest()),
        form("one curve", lambda store: list(store.tail(f"r{runs // 2:05}"))),
        form("one run found by its id", lambda store: store.run(f"r{runs // 2:05}")),
        form("report", leaderboard),
        Form("`dambench runs`, from its start", started),
    )

    def figures(results: Results) -> dict[str, float]:
        return {f"{name}, {size}, ms": 1000 * middle(results, name) for name in results}

    return Contest(forms, ((grouped, seek),), figures=figures)
