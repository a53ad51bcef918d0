"""The runs that a command is about: ids, their beginnings, or a filter, as in `resume state:lost`."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, NamedTuple

from typer import Argument

from dambench.cli.output import say
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.runner import processes
from dambench.store import filters
from dambench.store.queue import Queue
from dambench.store.rows import RunRow
from dambench.store.runs import Store

Chosen = Annotated[
    list[str], Argument(metavar="ID…|FILTER", help="Runs, by the beginnings of their ids, or by a filter (state:lost).")
]


class Choosing(NamedTuple):
    """The runs that are meant, and how they were named."""

    rows: list[RunRow]
    by_filter: bool


def chosen(store: Store, words: Sequence[str], *, deleted: bool = False) -> Choosing:
    """Look up the runs that a command line names, by ids or by a filter, without duplicates.

    Ids keep their order; the runs of a filter are sorted, the oldest first.

    Args:
        words: all ids, or all words of a filter, which hold together.
        deleted: whether a filter looks in the trash.

    Raises:
        BadInput: ids and a filter are mixed, an id is none, or the filter means no run.
    """
    is_filter = [any(sign in word for sign in ":=<>") for word in words]
    if not any(is_filter):
        return Choosing(list({row.id: row for row in map(store.run, words)}.values()), by_filter=False)
    if not all(is_filter) and (named := [word for word in words if _is_run(store, word)]):
        raise BadInput(f"{display(named[0], 40)!r} is a run and the other words are a filter: say either of them.")
    text = " ".join(words)
    rows = store.newest(deleted=deleted, only=filters.read(text).where(processes.states(store)))
    if not rows:
        raise BadInput(f"No run is meant by {display(text, 200)!r}: `dambench runs --filter` lists those that are.")
    return Choosing([store.run(row.id) for row in reversed(rows)], by_filter=True)


def awaited(store: Store, words: Sequence[str]) -> list[str]:
    """Look up the ids of the runs that `wait` is told of, also of queued ones that have not begun.

    Raises:
        BadInput: as `chosen`.
    """
    queue = Queue(store)
    if not any(sign in word for word in words for sign in ":=<>"):
        return [_awaited(store, queue, word) for word in words]
    queued = [one.id for one in queue.meant(filters.read(" ".join(words)))]
    try:
        runs = [row.id for row in chosen(store, words).rows]
    except BadInput:
        if not queued:
            raise
        runs = []
    return list(dict.fromkeys([*runs, *queued]))


def _awaited(store: Store, queue: Queue, word: str) -> str:
    try:
        return store.run(word).id
    except BadInput as error:
        try:
            return queue.one(word).id
        except BadInput:
            raise error from None


def standings(store: Store, ids: Sequence[str]) -> dict[str, str]:
    """Look up how runs stand, by id, as `processes.state` has it; a queued one is waiting until it is over.

    One that was paused or dropped in the queue is stopped: nobody goes on with it.
    """
    queued = {
        row["id"]: row
        for row in store.query(
            "select id, run, state from queue where id in (select value from json_each(?))", json.dumps(list(ids))
        )
    }
    found: dict[str, str] = {}
    for run in ids:
        entry = queued.get(run)
        row = (store.with_uid(entry["run"]) if entry else None) or store.with_id(run)
        stands = processes.state(row) if row is not None and not row.deleted_at else ""
        if entry and stands not in (*processes.ALIVE, "finished"):
            if entry["state"] in ("waiting", "taken"):
                stands = "waiting"
            elif not stands:
                stands = "stopped" if entry["state"] in ("paused", "dropped") else entry["state"]
        found[run] = stands or "lost"
    return found


def fitting(found: Choosing, check: Callable[[RunRow], None]) -> list[RunRow]:
    """Leave out the runs of a filter that a command has no use for, and say how many; of ids each must be fit.

    Args:
        check: raises BadInput for a run that is not.

    Raises:
        BadInput: a run that was named is not fit, or none of a filter's is: nothing has been done then.
    """
    if not found.by_filter:
        for row in found.rows:
            check(row)
        return found.rows
    fit, first = [], None
    for row in found.rows:
        try:
            check(row)
            fit.append(row)
        except BadInput as error:
            first = first or error
    if not fit and first is not None:
        more = len(found.rows) - 1
        raise BadInput(
            f"None of the {len(found.rows)} runs is fit for that. The first: {first}" if more else str(first)
        )
    if len(fit) < len(found.rows):
        say(f"{counted(len(found.rows) - len(fit), 'run')} left alone. The first: {first}")
    return fit


def _is_run(store: Store, word: str) -> bool:
    with suppress(BadInput):
        return bool(store.run(word))
    return False
