"""How long report and compare over 10,000 finished runs take, in seconds of the processor, from the program's start.

The runs are of 81 settings; RUNS in the environment sets another number of them. Beside it, in the same rounds: an
empty report, which is the start; and the same report of a database without the copies of final scores, which adds up
the tables themselves, as reports did before there were copies.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec

from benchmarks import recording
from benchmarks.contest import Contest, Form, Measure, Results, Scene, middle
from benchmarks.program import processor_time
from dambench.core import files
from dambench.core.events import Finished, Measured, Snapshot
from dambench.core.files import digest
from dambench.engine.loop import run
from dambench.store.records import EventLogged, LogRecord, RunCreated
from dambench.store.runs import NO_PROCESS, Store

SETTINGS = 81

AT = "2026-01-01T00:00:00.000+00:00"

EMPTY, COPIES, TABLES, COMPARED = "report, no run", "report", "report without copies", "compare"


# All that this benchmark knows of dambench.


@cache
def filled(runs: int) -> Path:
    """A database with so many finished runs, each with a set and scores of its own. The first run is a real one."""
    path = files.home() / f"table-{runs}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    job = recording.job(Scene("cpu", quick=True))
    events = list(run(job))
    with closing(Store.open(path, write=True)) as store:
        lines: list[LogRecord] = []
        for number in range(runs):
            uid, sha256 = f"{number:032x}", digest(str(number).encode())
            config = msgspec.structs.replace(job.config, seed=number // SETTINGS, ipc=1 + number % SETTINGS)
            created = RunCreated(
                uid=uid, id=f"r{number:05}", name="", tags=[], at=AT, config=config, card=job.card, process=NO_PROCESS
            )
            lines.append(created)
            for sequence, event in enumerate(events):
                if isinstance(event, Snapshot):
                    event = msgspec.structs.replace(event, sha256=sha256)
                elif isinstance(event, Finished):
                    event = msgspec.structs.replace(event, set_sha256=sha256)
                elif isinstance(event, Measured):
                    values = event.values | {"accuracy": (number * 7919 % 1000) / 1000}
                    event = msgspec.structs.replace(event, set_sha256=sha256, values=values)
                lines.append(EventLogged(uid=uid, attempt=1, sequence=sequence, at=AT, event=event))
            if len(lines) > 10_000:
                store.write(lines)
                lines = []
        store.write(lines)
    return path


@cache
def without_copies(path: Path) -> Path:
    other = path.with_name(f"plain-{path.name}")
    shutil.copyfile(path, other)
    with closing(Store.open(other, write=True)) as store:
        store.db.conn.execute("delete from finals")
    return other


def report(path: Path) -> Measure:
    return processor_time("-m", "dambench", "report", "--db", str(path))


def compare(path: Path, runs: int) -> Measure:
    """The earlier seeds against the later ones, at every place."""
    half = max(1, runs // SETTINGS // 2)
    return processor_time("-m", "dambench", "compare", f"seed<{half}", f"seed>={half}", "--db", str(path))


# The contest.


def contest(scene: Scene) -> Contest:
    runs = int(os.environ.get("RUNS", 3 * SETTINGS if scene.quick else 10_000))
    forms: dict[str, Callable[[], Measure]] = {
        EMPTY: lambda: report(files.home() / "none.db"),
        COPIES: lambda: report(filled(runs)),
        TABLES: lambda: report(without_copies(filled(runs))),
        COMPARED: lambda: compare(filled(runs), runs),
    }

    def figures(results: Results) -> dict[str, float]:
        found = {f"{name}, seconds of the processor": middle(results, name) for name in forms}
        return found | {"runs": float(runs)}

    return Contest(tuple(Form(name, prepare) for name, prepare in forms.items()), ((COPIES, TABLES),), figures=figures)
