"""A process that works on databases as it is told, a line of JSON at a time: what one process can do, many can at once.

`["open", PATH]` opens a database to write. `["write", PATH, SEED, SECONDS]` adds runs to it for so long, and
`["read", PATH, SECONDS]` looks at it again and again. `["take", PATH, NAME]` takes queued runs until there are none.
It answers a line each time: `["done", FINDINGS]`, or what went wrong.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dambench.core.events import AnyEvent, Sampled, Stepped
from dambench.store.queue import Queue
from dambench.store.runs import Store
from tests.ledger import CARD, config, words

STEPS = 40
"""That a run of ours takes, besides what any run says."""


def open_(path: str) -> int:
    with closing(Store.open(Path(path), write=True)) as store:
        return len(store.query("select id from runs"))


def write(path: str, seed: int, seconds: float) -> dict[str, int]:
    """Add runs; returns the events of each that the store took."""
    until = time.monotonic() + seconds
    taken: dict[str, int] = {}
    with closing(Store.open(Path(path), write=True)) as store:
        while time.monotonic() < until:
            run = config(seed=seed)
            said: list[AnyEvent] = list(words(run))
            steps: list[AnyEvent] = [Stepped(iteration=n, losses={"a": 1.0}, seconds=n) for n in range(3, STEPS + 3)]
            said[-2:-2] = [*steps, Sampled(seconds=1.0)]
            run_id = store.create(run, CARD)
            taken[run_id] = sum(1 for _ in store.record(run_id, iter(said)))
    return taken


def read(path: str, seconds: float) -> list[float]:
    """Look at the newest run as a viewer does; returns how long each look took, in seconds."""
    until = time.monotonic() + seconds
    took = []
    with closing(Store.open(Path(path))) as store:
        while time.monotonic() < until:
            began = time.perf_counter()
            newest = store.query("select id, state, done from runs order by number desc limit 20")
            if newest:
                assert all(event is not None for _, event in store.tail(newest[0]["id"]))
            took.append(time.perf_counter() - began)
            time.sleep(0.01)
    return took


def take(path: str, name: str) -> list[str]:
    """Take queued runs until there is none that can begin, and finish each; returns their ids."""
    taken = []
    with closing(Store.open(Path(path), write=True)) as store:
        queue = Queue(store)
        while one := queue.take(name):
            assert queue.finish(one)
            taken.append(one.id)
    return taken


WORK: dict[str, Callable[..., Any]] = {"open": open_, "write": write, "read": read, "take": take}


def main() -> None:
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        try:
            found = WORK[what](*arguments)
            print(json.dumps(["done", found]), flush=True)
        except Exception as error:
            print(json.dumps([type(error).__name__, str(error)]), flush=True)


if __name__ == "__main__":
    main()
