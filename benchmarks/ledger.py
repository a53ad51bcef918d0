"""`make ledger`: make those runs of ledger.txt that runs.db lacks, and put each in it once it is finished.

They are made in ledger.db, a copy; after each, runs.db is replaced by a copy of that, whole, with the finished runs
alone: at every moment it is a ledger that git can keep. Whoever interrupts it (Ctrl+C, `timeout -s INT 2h make ledger`)
loses nothing: the run that was under way is gone on with from its last checkpoint the next time.
"""

import argparse
import fcntl
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from dambench.cli.app import run_cli
from dambench.core.config import Request
from dambench.core.errors import BadInput
from dambench.store import database, upkeep
from dambench.store.connection import Database
from dambench.store.merge import merge
from dambench.store.runs import Store

STOPPED = (129, 130, 143)
"""Exit codes of a run that a signal has stopped."""
STATE = "-wal", "-shm", "-lock"
"""Files that SQLite and dambench have beside a database while it is written to."""


@dataclass(frozen=True)
class Wanted:
    """A run that the list asks for."""

    words: tuple[str, ...]
    """What follows `dambench run --headless`, with one seed."""

    def __str__(self) -> str:
        return shlex.join(self.words)


@dataclass
class State:
    """What a ledger has of what its list asks for."""

    finished: list[str] = field(default_factory=list)
    """Runs, by id."""
    missing: list[tuple[Wanted, str]] = field(default_factory=list)
    """With the id of a run of the same settings that did not come to its end; empty: none was begun."""
    unknown: int = 0
    """How many of the missing may be there: their dataset is not prepared on this machine yet."""


def wanted(text: str) -> list[Wanted]:
    """The runs of a list, a line per command, in its order: one per seed.

    Raises:
        BadInput: the seeds of a line are no seeds.
    """
    found: list[Wanted] = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if "--seeds" not in words:
            found += [Wanted(tuple(words))] if words else []
            continue
        at = words.index("--seeds")
        for request in Request(seeds=words[at + 1]).each_seed():
            found.append(Wanted((*words[:at], *words[at + 2 :], "--seed", str(request.seed))))
    return found


def look(work: Path, runs: Sequence[Wanted]) -> State:
    """See which of these runs a database has.

    Raises:
        BadInput: one of them cannot be run.
    """
    state = State()
    for run in runs:
        said = io.StringIO()
        with redirect_stdout(said):
            code = run_cli(["run", "--check", "--db", str(work), *run.words])
        if code:
            raise BadInput(f"This line of the list cannot be run: {run}")
        outlook = json.loads(said.getvalue())
        state.unknown += "data" not in outlook
        if existing := outlook.get("existing"):
            state.finished += existing
        else:
            state.missing.append((run, _begun(work, outlook)))
    return state


def _begun(work: Path, outlook: dict[str, Any]) -> str:
    """The newest run of the same settings that can be gone on with, by id; empty: there is none."""
    if "data" not in outlook:
        return ""  # the dataset is yet to be prepared
    with closing(Store.open(work)) as store:
        rows = store.query(
            "select id from runs where state != 'finished' and deleted_at = '' and diverged_at is null "
            f"and config_sha256 = ? and dataset_sha256 = ? order by {store.by_age(newest_first=True)}",
            outlook["config_sha256"][0],
            outlook["data"]["sha256"],
        )
    return str(rows[0]["id"]) if rows else ""


def prepare(ledger: Path, work: Path) -> None:
    """Have a copy of the ledger to add runs to, of this schema; what an interrupted attempt left in it stays.

    Raises:
        BadInput: somebody has the ledger open to write, or it cannot be read.
    """
    check_alone(ledger)
    if ledger.exists() and not work.exists():
        upkeep.back_up(ledger, work)
    with closing(Store.open(work, write=True)) as store:
        if ledger.exists():
            merge(store, ledger)
    for old in work.parent.glob(f"{work.name}.schema*"):
        old.unlink()  # the ledger is still there, as it was


def check_alone(ledger: Path) -> None:
    """See that nothing is being written to the ledger: it would be lost, or spoil the file that takes its place.

    Raises:
        BadInput: something is.
    """
    beside = ledger.with_name(f"{ledger.name}-wal")
    if beside.exists() and beside.stat().st_size:
        raise BadInput(
            f"{ledger} is open elsewhere, or was left so ({beside.name} lies beside it): close the console and what "
            "else runs on it (`dambench runs` folds it in), then make the ledger again. Keep your own runs in another "
            "database, with DAMBENCH_DB."
        )


def put_in_place(work: Path, ledger: Path) -> None:
    """Replace the ledger by its copy, if that has more: one file, without unfinished runs and pictures of their way."""
    check_alone(ledger)
    if not set(_finished(work)) - set(_finished(ledger)):
        return
    with closing(database.open_as_it_is(work)) as db:
        database.copy_whole(db, ledger, overwrite=True, and_then=_trim)


def _trim(db: Database) -> None:
    db.conn.execute("pragma foreign_keys = on")
    db.conn.execute("delete from runs where state != 'finished'")
    db.conn.execute("delete from previews")
    db.conn.execute("vacuum")


def strays(ledger: Path, finished: Sequence[str]) -> list[str]:
    """Runs of the ledger that the list does not ask for, by id."""
    return [each for each in _finished(ledger).values() if each not in set(finished)]


def _finished(path: Path) -> dict[str, str]:
    """The ids of finished runs by what is theirs on every machine."""
    if not path.exists():
        return {}
    with closing(Store.open(path)) as store:
        rows = store.query(f"select uid, id from runs where state = 'finished' order by {store.by_age()}")
    return {row["uid"]: row["id"] for row in rows}


def run(words: Sequence[str], work: Path) -> int:
    """Run dambench in a process of its own; a signal that comes here goes there, once. Returns its exit code."""
    environment = os.environ | {"DAMBENCH_DATA": ""}  # where the raw data lie is not a ledger's
    process = subprocess.Popen(
        [sys.executable, "-m", "dambench", *words, "--headless", "--db", str(work)],
        stdin=subprocess.DEVNULL,
        env=environment,
        process_group=0,  # else Ctrl+C would reach it twice, and the second ends it at once
    )

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold what no second attempt may have at the same time.

    Raises:
        BadInput: another one has it.
    """
    lock = work.with_name(f"{work.name}.making")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"Another process is making the ledger ({lock.name} is held).") from None
        yield
        lock.unlink(missing_ok=True)


def make(listed: Path, ledger: Path, work: Path) -> int:
    """Make what is missing. Returns the exit code: 0 if the ledger has all runs of its list now."""
    runs = wanted(listed.read_text())
    with alone(work):
        prepare(ledger, work)
        state = look(work, runs)
        put_in_place(work, ledger)  # if the attempt before ended between the two
        unknown = f", or {state.unknown} of them not known before their data are prepared" if state.unknown else ""
        _say(
            f"{ledger}: {len(state.finished)} of {len(runs)} runs are finished, {len(state.missing)} missing{unknown}."
        )
        failed: list[str] = []
        for number, (each, begun) in enumerate(state.missing, 1):
            _say(f"[{number}/{len(state.missing)}] {each}" + (f" (goes on with {begun})" if begun else ""))
            code = run(["resume", begun] if begun else ["run", *each.words], work)
            if code in STOPPED or code < 0:
                _say(f"Stopped. What is finished is in {ledger}; `make ledger` goes on.")
                return code if code > 0 else 128 - code
            if code:
                failed.append(str(each))
            else:
                put_in_place(work, ledger)
        for line in failed:
            _say(f"Did not come to its end: {line}")
        if not failed:
            _report(ledger, look(ledger, runs).finished, len(runs))
            for path in (work, *(work.with_name(f"{work.name}{end}") for end in STATE)):
                path.unlink(missing_ok=True)
        return 1 if failed else 0


def _report(ledger: Path, finished: list[str], runs: int) -> None:
    _say(f"{ledger}: all {runs} runs of its list are there.")
    if others := strays(ledger, finished):
        _say(
            f"It also has {len(others)} runs that the list does not ask for, or no longer in this version of a method. "
            f"They stay; to remove them: dambench delete {' '.join(others)}, and dambench db purge"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__.partition("\n")[0])
    parser.add_argument("--list", type=Path, default=Path("ledger.txt"), help="the runs [default: ledger.txt]")
    parser.add_argument("--ledger", type=Path, default=Path("runs.db"), help="[default: runs.db]")
    said = parser.parse_args()
    try:
        return make(said.list, said.ledger, said.ledger.with_name("ledger.db"))
    except BadInput as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("Stopped, between two runs; `make ledger` goes on.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
