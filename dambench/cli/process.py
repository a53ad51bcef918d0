"""Where a command runs: here, in the foreground, or in a process of its own."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dambench.cli.output import Watch
from dambench.cli.signals import Signals
from dambench.cli.store import open_store
from dambench.core import allocator
from dambench.core.events import Process
from dambench.runner import processes
from dambench.store.records import Identity

AGAIN = "it is not run again (--again does so)."


class Foreground:
    """This process while it runs something: its screen, the signals that it gets, and who waits for its run.

    Args:
        launcher: None: nobody does.
        queued: what the first run is to be; None: it was not queued.
    """

    def __init__(
        self,
        watch: Watch,
        signals: Signals,
        launcher: processes.Detached | None,
        queued: Identity | None = None,
    ):
        self.watch, self.signals, self._launcher, self._queued = watch, signals, launcher, queued
        self._announced = False

    def announce(self, run_id: str) -> None:
        """Tell the id of the first run to whoever waits for it."""
        if self._launcher and not self._announced:
            self._announced = True
            self._launcher.announce(run_id)

    def identity(self) -> Identity | None:
        """What the run that is begun now is to be, where it was queued: once, of the run that was asked for."""
        queued, self._queued = self._queued, None
        return queued

    @property
    def is_queued(self) -> bool:
        """Whether the run that is begun now was queued, as a run of its own."""
        return self._queued is not None

    def process(self) -> Process:
        """This process, as a run records it."""
        return processes.this_process(self._launcher.log if self._launcher else "")


@contextmanager
def foreground() -> Iterator[Foreground]:
    """Run something in this process; to be entered before torch is imported."""
    watch, launcher, queued = Watch(), processes.detached(), processes.queued()
    os.environ.setdefault("GOMP_SPINCOUNT", allocator.SPINS)  # read when torch is imported
    patient = bool(os.environ.get(processes.BATCH))
    with Signals(detached=launcher is not None, patient=patient, say=watch.say) as signals:
        yield Foreground(watch, signals, launcher, queued)


def detach(arguments: list[str], path: Path, as_json: bool, sets: Sequence[str] = ()) -> int:
    """Run `dambench` with these arguments in a process of its own, and say its id.

    Args:
        sets: SHA-256 of those that it evaluates: a run that is of none of them only comes before.
    """
    watch, began = Watch(), datetime.now(UTC)
    run_id, code = processes.start(arguments, watch.say)
    if not run_id:
        return code
    existing = ended_before(path, run_id, began)
    first = bool(sets) and not _is_of(path, run_id, sets)
    more = ({"existing": True} if existing else {}) | ({"comes_before": "evaluation"} if first else {})
    print(json.dumps({"run": run_id} | more) if as_json else run_id, flush=True)
    if first:
        watch.say(
            f"The run {run_id} comes first, because the evaluation compares with it; the same process then begins the "
            f"evaluation, and `dambench logs -f {run_id}` names it."
        )
    if existing:
        return 0  # it has said so
    watch.say(f"It goes on without this terminal: dambench watch {run_id}, logs {run_id}, stop {run_id}.")
    return 0


def ended_before(path: Path, run_id: str, began: datetime) -> bool:
    """Whether the run that a process named had ended before that process began."""
    with open_store(path) as store:
        row = store.run(run_id)
        return row.state == "finished" and datetime.fromisoformat(row.ended_at or "") < began


def _is_of(path: Path, run_id: str, sets: Sequence[str]) -> bool:
    """Whether a run evaluates one of these sets."""
    with open_store(path) as store:
        return json.loads(store.run(run_id).config).get("where", {}).get("made", "") in sets
