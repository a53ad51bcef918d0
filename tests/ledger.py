"""A stand-in for the engine: runs with any scores, in any store, also as an older dambench left it."""

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec
from sqlite_utils import Database

from dambench.core.config import Choice, RunConfig
from dambench.core.events import (
    AnyEvent,
    Cost,
    DataCard,
    Environment,
    Evaluated,
    Failed,
    Finished,
    Measured,
    Progressed,
    Snapshot,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from dambench.core.files import digest
from dambench.core.protocol import PRESETS, Protocol
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.store.schema import migrations
from dambench.store.version import APPLICATION_ID

CARD = DataCard(
    name="digits",
    label="digits",
    train_counts=[5, 5],
    test_counts=[6, 4],
    classes=["0", "1"],
    channels=1,
    height=8,
    width=8,
    mean=[0.5],
    std=[0.25],
    mirrors=False,
    source="s",
    sha256="d" * 64,
    size_bytes=640,
)

ENVIRONMENT = Environment(
    dambench="0.1.0",
    python="3.11",
    torch="2.15.0",
    torchvision="0.29.2",
    cuda="",
    cudnn="",
    driver="",
    device="cpu",
    device_name="a CPU",
    host="here",
    platform="Linux",
    cpus=2,
    threads=2,
    deterministic_algorithms=False,
    cudnn_benchmark=False,
    tf32_matmul=False,
    tf32_convolution=True,
    matmul_precision="highest",
    cublas_workspace="",
    sqlite="3.40.1",
    git_commit="",
    git_dirty=False,
    command_line="dambench run",
)

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
"""Of one pixel."""


def config(
    method: str = "dm",
    ipc: int | None = 1,
    seed: int = 0,
    protocol: Protocol = PRESETS["quick"],
    network: str = "convnet-d1-w8",
    options: dict[str, object] | None = None,
    evaluate_on: str = "",
) -> RunConfig:
    """Matched on `network`, and evaluated there too, unless said otherwise."""
    return RunConfig(
        dataset=Choice("digits"),
        method=Choice(method, options or {}),
        network="" if method in ("random", "whole") else network,
        ipc=None if method == "whole" else ipc,
        protocol=protocol,
        evaluate_on=(evaluate_on or network,),
        eval_repeats=1,
        seed=seed,
    )


def costs(seconds: float = 1.0) -> list[Cost]:
    return [Cost(phase=phase, seconds=seconds, peak_memory_bytes=10**6) for phase in ("prepare", "distil", "evaluate")]


def words(
    run: RunConfig,
    accuracies: Sequence[float] = (0.5,),
    *,
    card: DataCard = CARD,
    overrides: dict[str, object] | None = None,
    recipe: str = "",
    made: str = "",
    end: AnyEvent | None = None,
    seconds: float = 1.0,
) -> Iterator[AnyEvent]:
    """What an engine would say of a run with these accuracies, one network each.

    Args:
        made: two runs with the same words here made the same set; by default the configuration decides.
    """
    yield Started(
        config=run,
        config_sha256=run.sha256,
        data=card,
        recipe=recipe,
        overrides=overrides or {},
        environment=ENVIRONMENT,
    )
    yield Warned(message="a note")
    yield Stepped(iteration=1, losses={"matching": 2.5}, seconds=0.1)
    yield Progressed(phase="distil", done=1, total=2)
    yield Stepped(iteration=2, losses={"matching": 1.25}, seconds=0.2)
    what = made or f"{run.method} {run.ipc} {0 if run.method.name == 'whole' else run.seed} {card.sha256}"
    sha256 = digest(what.encode())
    yield Snapshot(iteration=2, sha256=sha256, size_bytes=10, shape=[2, 1, 8, 8], dtype="float32", preview=PNG)
    for repeat, accuracy in enumerate(accuracies):
        yield Measured(
            evaluator="accuracy",
            subject=run.evaluate_on[0],
            repeat=repeat,
            iteration=2,
            final=True,
            set_sha256=sha256,
            protocol_sha256=run.protocol.sha256,
            seconds=seconds,
            peak_memory_bytes=10**6,
            values={"accuracy": accuracy, "balanced_accuracy": accuracy, "loss": 0.5, "train_accuracy": 1.0},
        )
    yield end or Finished(set_sha256=sha256, costs=costs(seconds))


class More(TypedDict, total=False):
    """What `words` can be told."""

    card: DataCard
    overrides: dict[str, object]
    recipe: str
    made: str
    end: AnyEvent
    seconds: float


def add(store: Store, run: RunConfig, accuracies: Sequence[float] = (0.5,), **more: Unpack[More]) -> str:
    """Record such a run; returns its id."""
    run_id = store.create(run, more.get("card", CARD))
    for _ in store.record(run_id, words(run, accuracies, **more)):
        pass
    return run_id


def add_sets(store: Store, run: RunConfig, sets: Sequence[Sequence[float]], **more: Unpack[More]) -> list[str]:
    """Record a run for each of these sets, under the seeds 0, 1, …; returns their ids."""
    return [add(store, msgspec.structs.replace(run, seed=seed), networks, **more) for seed, networks in enumerate(sets)]


def failed() -> Failed:
    return Failed(error="it broke", traceback="Traceback …", costs=costs())


def stopped(iteration: int = 1) -> Stopped:
    return Stopped(signal="SIGTERM", phase="distil", iteration=iteration, costs=costs())


def other_data(letter: str, label: str = "digits") -> DataCard:
    return msgspec.structs.replace(CARD, sha256=letter * 64, label=label)


def speech() -> Iterator[AnyEvent]:
    """What an engine would say that logs much and evaluates often, for ever."""
    said = list(words(config()))
    yield said[0]
    (score,) = (event for event in said if isinstance(event, Measured))
    iteration = 0
    while True:
        for _ in range(60):
            iteration += 1
            yield Stepped(iteration=iteration, losses={"matching": 1.0}, seconds=0.1)
        for repeat in range(3):
            yield msgspec.structs.replace(score, iteration=iteration, repeat=repeat)
        yield Progressed(phase="distil", done=iteration, total=10**6)


def run_row(**more: Any) -> RunRow:
    """A row of `runs` of which this is known, and nothing else."""
    empty: dict[str, Any] = dict.fromkeys(RunRow.__struct_fields__, "")
    numbers = dict.fromkeys(("number", "seed", "done", "total", "attempt", "pid", "process_started", "stop_asked"), 0)
    return RunRow(**empty | numbers | more)


SCHEMAS = (1, 2, 3, 4, 5, 6, 7, 8)
"""Older ones, each as the migrations made it."""

NEXT = {
    1: "m002_samples",
    2: "m003_engine",
    3: "m004_durable",
    4: "m005_results",
    5: "m006_measurements",
    6: "m007_selection",
    7: "m008_queue",
    8: "m009_finals",
}
"""By schema, the migration that ended it."""


def older(path: Path, schema: int) -> None:
    """Make a file as the dambench of that schema left it, with three runs: two finished, one failed."""
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "new.db"
        with closing(Store.open(new, write=True)) as store:
            add(store, config("dm"), [0.5, 0.75])
            add(store, config("random"), [0.25])
            add(store, config("dm", seed=1), end=failed())
        _older(path, schema, new)


def _older(path: Path, schema: int, new: Path) -> None:
    db = Database(path)
    migrations.apply(db, stop_before=NEXT[schema])
    db.conn.execute(f"pragma application_id = {APPLICATION_ID}")
    db.conn.execute(f"pragma user_version = {schema}")
    db.conn.execute("attach ? as new", [str(new)])
    for table in tables(db.conn):
        if table == "metrics":  # it has those of its schema
            continue
        columns = ", ".join(row[1] for row in db.conn.execute(f"pragma main.table_info({table})"))
        db.conn.execute(f"insert into main.{table} ({columns}) select {columns} from new.{table}")
    unknown = {1: ["device_uuid", "allocator", "compiler"], 2: ["allocator", "compiler"]}.get(schema, [])
    for name in unknown:
        db.conn.execute("update events set body = json_remove(body, ?)", [f"$.environment.{name}"])
    said = "select run, sequence, body from events where kind = 'measured'"
    for run, sequence, body in db.conn.execute(said) if schema < 6 else ():
        old = msgspec.json.encode(as_logged_before(msgspec.json.decode(body, type=Measured))).decode()
        where = [old, run, sequence]
        db.conn.execute("update events set kind = 'evaluated', body = ? where run = ? and sequence = ?", where)
    db.conn.commit()
    db.close()


def as_logged_before(event: Measured) -> Evaluated:
    """The same score as runs logged it up to schema 5."""
    shared = {name: getattr(event, name) for name in Measured.__struct_fields__ if hasattr(Evaluated, name)}
    return msgspec.convert(shared | event.values | {"kind": "evaluated", "network": event.subject}, Evaluated)


def tables(db: sqlite3.Connection) -> list[str]:
    """Those of dambench."""
    rows = db.execute("select name from main.sqlite_master where type = 'table'").fetchall()
    return [name for (name,) in rows if not name.startswith(("sqlite_", "_sqlite"))]
