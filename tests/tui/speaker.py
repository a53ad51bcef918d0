"""A run that goes on: `python -m tests.tui.speaker DATABASE` says its id, and then has a step twenty times a second."""

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dambench.core.events import AnyEvent, Progressed, Stepped
from dambench.runner import processes
from dambench.store import recorder
from dambench.store.runs import Store
from tests import ledger

ITERATIONS = 100_000
RUN = ledger.config(options={"iterations": ITERATIONS})


def words() -> Iterator[AnyEvent]:
    first, *_ = ledger.words(RUN)
    yield first
    for iteration in itertools.count(1):
        yield Stepped(iteration=iteration, losses={"matching": 1 / iteration}, seconds=iteration / 20)
        yield Progressed(phase="distil", done=iteration, total=ITERATIONS)
        time.sleep(0.05)


if __name__ == "__main__":
    recorder.FLUSH_SECONDS = 0.1
    with closing(Store.open(Path(sys.argv[1]), write=True)) as store:
        run = store.create(RUN, ledger.CARD, process=processes.this_process())
        print(run, flush=True)
        for _ in store.record(run, words()):
            pass
