"""How long it takes to look: commands of the ledger's runs, and the console's first picture, in seconds of processor.

User and system time of a process of its own, from its start: the machine's other work hardly shows in it. Beside it, in
the same rounds: an interpreter that does nothing.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.console import Terminal
from benchmarks.contest import DEFAULT, ROOT, Contest, Form, Measure, Results, Scene, middle
from benchmarks.program import processor_time
from dambench.core import files
from dambench.store.runs import Store

NOTHING, CONSOLE = "python", "the console"


# All that this benchmark knows of dambench.


def ledger() -> tuple[Path, str]:
    """A copy of the ledger, and its newest run."""
    path = files.home() / "opening.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "runs.db", path)
    with closing(Store.open(path)) as store:
        return path, store.newest()[0].id


def first_picture() -> Measure:
    """The console until its first picture has the newest run in it."""
    path, newest = ledger()

    def measure() -> dict[str, float]:
        terminal = Terminal(path)
        try:
            wall = terminal.wait(newest)
            return {"seconds": terminal.processor(), "on the wall, seconds": wall}
        finally:
            terminal.close()

    return measure


# The contest.


def contest(scene: Scene) -> Contest:
    def command(*words: str) -> Callable[[], Measure]:
        return lambda: processor_time("-m", "dambench", *words, "--db", str(ledger()[0]))

    forms: dict[str, Callable[[], Measure]] = {
        NOTHING: lambda: processor_time("-c", "pass"),
        "dambench runs": command("runs"),
        "dambench show": lambda: processor_time("-m", "dambench", "show", ledger()[1], "--db", str(ledger()[0])),
        "dambench report": command("report"),
        "dambench compare": command("compare", "dm", "random"),
        CONSOLE: first_picture,
    }

    def figures(results: Results) -> dict[str, float]:
        return {f"{name}, seconds of the processor": middle(results, name) for name in forms}

    ratios = tuple((name, NOTHING) for name in forms if name != NOTHING)
    return Contest(
        tuple(Form(name, prepare, allocator=DEFAULT) for name, prepare in forms.items()), ratios, figures=figures
    )
