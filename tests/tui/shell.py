"""Another shell: `python -m tests.tui.shell` does to databases what it is told, a line of JSON each.

What is done to a database file in the console's own process is another matter: SQLite knows of it, and its locks go.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from dambench.store.runs import Store
from tests import ledger


class Shell:
    """One, as long as it is needed."""

    def __enter__(self) -> Self:
        words = [sys.executable, "-m", "tests.tui.shell"]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def do(self, what: str, path: Path, *words: str) -> None:
        """Have it done, and wait for that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, str(path), *words]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


def add(path: Path, method: str, ipc: str, seed: str) -> None:
    """Record a run."""
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config(method, int(ipc), int(seed)), [random.Random(int(seed)).random()])


def sql(path: Path, statement: str) -> None:
    with closing(Store.open(path, write=True)) as store:
        store.db.conn.execute(statement)


def move(path: Path, to: str) -> None:
    os.rename(path, to)


def replace(path: Path, by: str) -> None:
    """As `git checkout` does."""
    path.unlink(missing_ok=True)
    shutil.copy(by, path)


def write_over(path: Path, by: str) -> None:
    path.write_bytes(Path(by).read_bytes())


if __name__ == "__main__":
    deeds: dict[str, Callable[..., None]] = {
        "add": add,
        "sql": sql,
        "move": move,
        "replace": replace,
        "write_over": write_over,
    }
    for line in sys.stdin:
        what, path, *words = json.loads(line)
        deeds[what](Path(path), *words)
        print("done", flush=True)
