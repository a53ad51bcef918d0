"""How soon the console answers, in a terminal of 80×24, in a database of 10,000 runs and in that of the repository.

Measured from outside, through a pseudo-terminal: from the start of `dambench` to its first picture with runs in it, and
from a key to the picture that answers it. The runs are copies of those of the ledger. Once more while a real run trains
on the same cores: what a key takes then is measured in Live of that run, too.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from math import ceil
from pathlib import Path
from statistics import median

import psutil

from benchmarks.contest import DEFAULT, ROOT, Contest, Form, Measure, Results, Scene
from benchmarks.program import compiled_once
from dambench.core import files
from dambench.store.runs import Store
from dambench.tui.settings import Settings

BESIDE = " beside a run"
"""The form in which a run trains meanwhile."""

LATE = "key, 95th percentile, seconds"
LIVE = "key in Live, 95th percentile, seconds"
FIRST, KEY, END, FILTER = "seconds", "key, seconds", "to the other end, seconds", "filter, seconds"
BYTES = "bytes of a key"
PATIENCE = 60.0
ENDING = 10.0
ROUNDS = 3
"""Of some twenty keys each: about two minutes in all."""


# All that this benchmark knows of dambench.


def database(runs: int) -> Path:
    """Copies of the ledger's runs, as many as asked for, with a part of their events."""
    path = files.home() / f"console-{runs}.db"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    shutil.copy(ROOT / "runs.db", new)
    with closing(Store.open(new, write=True)) as store:
        made = [row["number"] for row in store.query("select number from runs order by number")]
        columns = {
            table: ", ".join(
                row["name"]
                for row in store.query("select name from pragma_table_info(?)", table)
                if row["name"] not in ("run", "number", "id", "uid", "age")
            )
            for table in ("runs", "evaluations", "measurements", "costs", "events", "artifacts")
        }
        db = store.db.conn
        db.execute("begin")
        for index in range(runs - len(made)):
            model = made[index % len(made)]
            number = db.execute(
                f"insert into runs (id, uid, {columns['runs']}) select ?, ?, {columns['runs']} from runs "
                "where number = ?",
                [f"z{index:05}", f"copy {index}", model],
            ).lastrowid
            for table in ("evaluations", "measurements", "costs", "events", "artifacts"):
                part = "and (kind != 'stepped' or sequence % 20 = 0)" if table == "events" else ""
                names = columns[table].replace("preview", "x'' as preview") if table == "artifacts" else columns[table]
                db.execute(
                    f"insert into {table} (run, {columns[table]}) select ?, {names} from {table} where run = ? {part}",
                    [number, model],
                )
        db.execute("update runs set age = (select max(age) from runs) where age = ''")  # all newer than the ledger's
        db.execute("commit")
    new.rename(path)
    return path


class Terminal:
    """The console in a terminal of 80×24."""

    def __init__(self, path: Path):
        self._file, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dambench", "--db", str(path)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=compiled_once() | {"TERM": "xterm-256color", "XDG_STATE_HOME": str(path.parent / "state")},
        )
        os.close(theirs)
        self.heard = b""

    def press(self, keys: str) -> None:
        self.heard = b""
        os.write(self._file, keys.encode())

    def wait(self, text: str) -> float:
        """Until it is drawn; the seconds that took."""
        began = time.perf_counter()
        while text not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.heard.decode(errors="replace")):
            left = PATIENCE - (time.perf_counter() - began)
            if left < 0 or not select.select([self._file], [], [], left)[0]:
                raise RuntimeError(f"{text!r} was not drawn within {PATIENCE:.0f} s")
            self.heard += os.read(self._file, 65536)
        return time.perf_counter() - began

    def processor(self) -> float:
        """Seconds of the processor that the console has taken since it was started, user and system."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def settle(self, still: float) -> int:
        """Until nothing more is drawn for so many seconds, four times that at most; the bytes since the last key."""
        until = time.perf_counter() + 4 * still
        while time.perf_counter() < until and select.select([self._file], [], [], still)[0]:
            self.heard += os.read(self._file, 65536)
        return len(self.heard)

    def settle_for(self, seconds: float) -> None:
        """Take in what is drawn for so long: beside a run something always is."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            if select.select([self._file], [], [], left)[0]:
                self.heard += os.read(self._file, 65536)

    def close(self) -> None:
        """Ask it to end, and take in its last words: a console whose terminal stalls waits for it."""
        self._process.terminate()
        until = time.monotonic() + ENDING
        while self._process.poll() is None and time.monotonic() < until:
            if select.select([self._file], [], [], 0.05)[0]:
                with suppress(OSError):  # it has gone
                    os.read(self._file, 65536)
        self._process.kill()
        self._process.wait()
        os.close(self._file)


OWN = "pid = ? and state = 'running'"
"""Finished runs of the ledger may have had the same process number."""


@contextmanager
def training(path: Path) -> Iterator[str]:
    """A run that trains as long as it is looked at; its id. It writes to that database, and is deleted from it."""
    words = ["run", "--headless", "--dataset", "digits", "--method", "dm", "--iterations", "1000000", "--device", "cpu"]
    words += ["--db", str(path), "--checkpoint-every", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dambench", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _begun(path, process)
    finally:
        process.kill()
        process.wait()
        with closing(Store.open(path, write=True)) as store:
            for row in store.query(f"select id from runs where {OWN}", process.pid):
                store.edit(row["id"], "deleted_at", "2026-01-01T00:00:00.000+00:00")


def _begun(path: Path, process: "subprocess.Popen[bytes]") -> str:
    """Wait until it distils; its id."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with closing(Store.open(path)) as store:
            for row in store.query(f"select id from runs where {OWN} and done > 0", process.pid):
                return str(row["id"])
        time.sleep(0.1)
    raise RuntimeError("the run beside the console has not begun")


def answers(path: Path, keys: int, still: float, beside: bool = False) -> dict[str, float]:
    """Begin, move, go to the end, filter.

    Args:
        beside: while a run trains, which then is watched, too.
    """
    with training(path) if beside else nullcontext("") as trained:
        return _answers(path, keys, still, trained)


def _answers(path: Path, keys: int, still: float, trained: str) -> dict[str, float]:
    shutil.rmtree(path.parent / "state", ignore_errors=True)
    # What is said once to a newcomer is no answer to a key.
    Settings(path.parent / "state" / "dambench" / "console.json").set("runs.welcomed", True)
    with closing(Store.open(path)) as store:
        of = "from runs where deleted_at = '' order by number"
        ids = [row["id"] for row in store.query(f"select id {of} desc limit ?", keys + 1)]
        last = store.query(f"select id {of} limit 1")[0]["id"]
    terminal = Terminal(path)
    try:
        found = {FIRST: terminal.wait(f"{ids[0]} {'run' if trained else 'done'}")}
        terminal.settle(still)
        took, sent = [], []
        for run in ids[1:]:
            terminal.press("j")
            took.append(terminal.wait(f" {run}  "))  # in the strip below
            sent.append(terminal.settle(still))
        found |= {KEY: median(took), LATE: percentile(took), BYTES: median(sent)}
        terminal.press("G")
        found[END] = terminal.wait(f" {last}  ")
        terminal.settle(still)
        terminal.press("/method:whole\r")
        found[FILTER] = terminal.wait(" of ")
        if trained:
            terminal.press("2")
            terminal.wait("[2 Live]")
            terminal.settle_for(2 * still)
            found[LIVE] = percentile([_toggled(terminal, pressed, still) for pressed in range(2 * keys)])
        return found
    finally:
        terminal.close()


def _toggled(terminal: Terminal, pressed: int, still: float) -> float:
    """The axis of the losses is logarithmic, and is not; the seconds until its title says so."""
    terminal.press("L")
    took = terminal.wait("Loss  whole run" if pressed % 2 else "log y")
    terminal.settle_for(still)
    return took


def percentile(took: list[float]) -> float:
    """Below which 95 % of them lie."""
    return sorted(took)[max(0, ceil(0.95 * len(took)) - 1)]


# The contest.


def contest(scene: Scene) -> Contest:
    many = 100 if scene.quick else 10_000

    def asked(runs: int, beside: bool = False) -> Callable[[], Measure]:
        def prepare() -> Measure:
            path = database(runs)
            return lambda: answers(path, 2 if scene.quick else 11, 0.1 if scene.quick else 0.3, beside)

        return prepare

    with closing(Store.open(ROOT / "runs.db")) as store:
        few = store.query("select count(*) n from runs")[0]["n"]
    names = {f"{few} runs": few, f"{many} runs": many}

    def figures(results: Results) -> dict[str, float]:
        return {
            f"{name}: {what}": median(one[what] for one in found)
            for name, found in results.items()
            for what in found[0]
        }

    forms = [Form(name, asked(runs), allocator=DEFAULT) for name, runs in names.items()]
    forms.append(Form(f"{many} runs{BESIDE}", asked(many, beside=True), allocator=DEFAULT))
    return Contest(tuple(forms), ((f"{many} runs", f"{few} runs"),), figures=figures, most_rounds=ROUNDS)
