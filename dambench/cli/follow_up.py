"""Runs that follow from another one: begun, or gone on with where an earlier one was interrupted."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dambench.cli.process import Foreground
from dambench.core.config import RunConfig
from dambench.core.events import Beginning
from dambench.runner import processes
from dambench.store.rows import RunRow
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.job import Job


def record_follow_up(
    store: Store, job: "Job", here: Foreground, what: str, *, tags: Sequence[str], recipe: str, again: bool = False
) -> tuple[str, int]:
    """Run a job that follows from another run, from where an interrupted run of the same configuration is.

    Args:
        what: what the run is, for whoever watches.
        tags, recipe: of a run that is begun.
        again: begin a new one in any case.

    Returns:
        The run's id, and the exit code.
    """
    from dambench.cli.record import record

    row = None if again else interrupted_run(store, job)
    if row is None:
        new = store.create(job.config, job.card, "", list(tags), here.process(), recipe, job.overrides)
        here.watch.say(f"run {new}, {what}")
        here.announce(new)  # after what is said of it: who waits for it hears that, too
        return new, record(store, new, job, here, as_json=False)
    beginning = store.beginning(row.id, here.process())
    reopened = reopen(row, beginning, here)
    here.announce(row.id)
    here.watch.say(f"run {row.id}, resumed: {what}")
    return row.id, record(store, row.id, reopened, here, as_json=False, beginning=beginning)


def reopen(row: RunRow, beginning: Beginning, here: Foreground) -> "Job":
    """Settle a run that is recorded once more, to go on with it.

    Raises:
        BadInput: what it needs is not here, or is not what it was.
    """
    from dambench import engine

    return engine.reopen(
        msgspec.json.decode(row.config, type=RunConfig),
        row.dataset_sha256,
        row.recipe,
        json.loads(row.overrides),
        beginning.environment,
        here.watch.say,
    )


def interrupted_run(store: Store, job: "Job") -> RunRow | None:
    """The newest run of this configuration, on these data and this set, that can be gone on with."""
    made = job.config.execution.made
    rows = store.runs(
        "config_sha256 = ? and dataset_sha256 = ? and state != 'finished' and deleted_at = '' and diverged_at is null "
        f"order by {store.by_age(newest_first=True)}",
        *(job.config.sha256, job.card.sha256),
    )
    for row in rows:
        same_set = json.loads(row.config).get("where", {}).get("made", "") == made
        if same_set and processes.state(row) not in processes.ALIVE:
            return row
    return None
