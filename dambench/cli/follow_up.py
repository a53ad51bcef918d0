"""Runs that follow from another one: begun, or gone on with where an earlier one was interrupted."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dambench.cli.process import Foreground
from dambench.cli.rank import ranks_of_torchrun
from dambench.core.config import RunConfig
from dambench.core.errors import BadInput
from dambench.core.events import Beginning
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store.records import Purpose
from dambench.store.rows import RunRow
from dambench.store.runs import Store

POLL_SECONDS = 1.0

if TYPE_CHECKING:
    from dambench.engine.job import Job


def record_follow_up(
    store: Store,
    job: "Job",
    here: Foreground,
    what: str,
    *,
    tags: Sequence[str],
    recipe: str,
    again: bool = False,
    purpose: Purpose = "",
) -> tuple[str, int]:
    """Run a job that follows from another run, from where an interrupted run of the same configuration is.

    Args:
        what: what the run is, for whoever watches.
        tags, recipe: of a run that is begun.
        again: begin a new one in any case.
        purpose: of a run that is begun.

    Returns:
        The run's id, and the exit code.
    """
    from dambench.cli.record import record
    from dambench.engine import resumed

    row = None if again else interrupted_run(store, job, purpose)
    if row is None:
        new = store.create(job.config, job.card, "", list(tags), here.process(), recipe, job.overrides, purpose=purpose)
        here.watch.say(f"run {new}, {what}")
        here.announce(new)  # after what is said of it: who waits for it hears that, too
        return new, record(store, new, job, here, as_json=False)
    beginning = store.beginning(row.id, here.process())
    reopened = resumed(reopen(row, beginning, here), ranks_of_torchrun(None))
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


def interrupted_run(store: Store, job: "Job", purpose: Purpose = "") -> RunRow | None:
    """The newest run of this configuration and purpose, on these data and this set, that can be gone on with."""
    return next((row for row in _begun(store, job, purpose) if processes.state(row) not in processes.ALIVE), None)


def going_on(store: Store, job: "Job") -> RunRow | None:
    """The newest run of this configuration, on these data and this set, that another process carries out."""
    return next((row for row in _begun(store, job) if processes.state(row) == "running"), None)


def left_by_another(store: Store, job: "Job", here: Foreground) -> RunRow | None:
    """The run of this configuration that somebody stopped, or whose process was lost: who wants it goes on with it.

    One that another process carries out is waited for.

    Returns:
        None: there is no such run, or it is finished now.

    Raises:
        BadInput: the one that was waited for was stopped, or has failed.
    """
    going = going_on(store, job)
    if going is not None:
        here.announce(going.id)
        here.watch.say(
            f"run {going.id} does this now, as process {going.pid} on {display(going.host, 60)}: it is waited for "
            "(--again begins another)"
        )
        while processes.state(going) == "running":
            time.sleep(POLL_SECONDS)
            store.refresh()
            going = store.run(going.id)
        if (now := processes.state(going)) not in ("finished", "lost"):
            raise BadInput(f"The run {going.id}, which was waited for, is {now}: `dambench resume {going.id}`.")
    row = interrupted_run(store, job)
    return row if row is not None and processes.state(row) in ("stopped", "lost") else None


def _begun(store: Store, job: "Job", purpose: Purpose = "") -> list[RunRow]:
    """Runs of this configuration that are not over, the newest first."""
    made = job.config.execution.made
    rows = store.runs(
        "config_sha256 = ? and dataset_sha256 = ? and state != 'finished' and deleted_at = '' and purpose = ? "
        f"and diverged_at is null order by {store.by_age(newest_first=True)}",
        *(job.config.sha256, job.card.sha256, purpose),
    )
    return [row for row in rows if json.loads(row.config).get("where", {}).get("made", "") == made]
