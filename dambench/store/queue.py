"""The queue: what is to be run, in the order of its turn, kept beside the runs.

A queued run has the id and the uid that its run will have: whoever begins it, the run is entered once, because no
database takes a uid twice. It is *waiting*, *paused*, *taken* by a worker, *finished*, *failed* or *dropped*. To take
one is to raise its `attempt`, which only one worker can; what is said of an earlier attempt does not hold any more.

Many are queued at once, or none. A merge brings runs, and leaves the queue of the other database alone: it is that of
its own machine.
"""

import itertools
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from dambench import __version__
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.store import prefixes, records
from dambench.store.filters import Filter
from dambench.store.records import (
    AttemptSuperseded,
    JsonObject,
    QueuedRun,
    QueueEdited,
    QueueTaken,
    RunsQueued,
    WorkerSeen,
)
from dambench.store.row_names import method_label
from dambench.store.rows import SqlRow
from dambench.store.runs import Store

State = Literal["waiting", "paused", "taken", "finished", "failed", "dropped"]
PENDING: tuple[State, ...] = ("waiting", "paused", "taken")
ASKED = "asked:"
"""What a key begins with where no more was known of a run than what was asked, since its data were not prepared."""
LOOKED_AT = 200
"""Runs, in the order of their turn, that are read at once where one is looked for that fits."""
MOST_WAITING = 100_000
"""Runs that one queue may hold."""

Values = dict[str, str | int | float | None]
"""By column of `queue`."""

_READY = """
    queue.state = 'waiting' and not exists (
        select 1 from json_each(queue.after) as needed
            left join queue as before on before.uid = needed.value
        where before.state is not 'finished'
    )
"""
_TURN = "queue.priority desc, queue.place, queue.uid"


class Queued(Struct, frozen=True, kw_only=True):
    """A queued run as it stands: a row of `queue`, and of `runs` once it has begun."""

    number: int
    uid: str
    id: str
    command: Literal["run", "evaluate", "experts"]
    request: JsonObject
    method: str
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    seed: int | None
    settings: JsonObject
    tag: str
    key: str
    state: State
    priority: int
    place: float
    after: list[str]
    threads: int
    device: str
    seconds: float | None
    peak_memory_bytes: int | None
    disk_bytes: int | None
    worker: str
    attempt: int
    losses: int
    run: str
    reason: str
    dambench: str
    added_at: str
    taken_at: str
    ended_at: str

    @property
    def label(self) -> str:
        """Its method, with what a sweep changes of it, as in a table of results: `dm (iterations 50)`."""
        return label_of(self.method, self.settings)

    @property
    def what(self) -> str:
        """It in words: `dm digits IPC 10 seed 0`."""
        ipc = "" if self.ipc is None else f"IPC {self.ipc}"
        seed = "" if self.seed is None else f"seed {self.seed}"
        return display(" ".join(part for part in (self.label, self.dataset, ipc, seed) if part), 200)

    @property
    def called(self) -> str:
        """It in words, with its id: `ab2cde: dm digits IPC 10 seed 0`."""
        return f"{display(self.id, 40)}: {self.what}"


def label_of(method: str, settings: JsonObject) -> str:
    """A method with what a sweep changes of it, as `Queued.label` is."""
    options = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith("method.")}
    named = settings.get("method")
    if isinstance(named, dict):
        options |= {key: value for key, value in named.items() if key != "name"}
    return method_label(method, options)


class WorkerRow(Struct, frozen=True, kw_only=True):
    """A worker as it was last seen: a row of `workers`, with what `processes.state` looks at."""

    uid: str
    host: str
    boot: str
    pid: int
    process_started: int
    dambench: str
    executor: str
    devices: str
    """JSON: a list of names."""
    slots: int
    log: str
    began_at: str
    beat_at: str
    ended_at: str
    asked: str

    @property
    def state(self) -> str:
        """By its own word: its process may be gone."""
        return "finished" if self.ended_at else "running"


class Added(NamedTuple):
    """What came of queueing."""

    new: list[Queued]
    there: list[Queued]
    """They were queued already: the same configuration on the same data waits, or is being run."""


class Queue:
    """The queue of an open store."""

    def __init__(self, store: Store):
        self.store = store

    def add(
        self,
        runs: Sequence[QueuedRun],
        again: Mapping[str, str] | None = None,
        asked: Mapping[str, str] = MappingProxyType({}),
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> Added:
        """Queue runs, all or none. One whose `key` waits already, or is being run, is not queued twice.

        Args:
            runs: in the order of their turn; `place` is found here. `after` may name uids among them.
            again: uids of queued runs that are over or paused, and are to wait once more, with the uids of their runs.
            asked: the keys that they would have if no more were known than what was asked, by uid.
            known: the keys that those of `unknown` would have by now, by uid.

        Raises:
            BadInput: there would be too many, or one names another that is not there.
            NotKept: nothing was queued.
        """
        new: list[str] = []
        there: list[str] = []

        def decision() -> list[records.LogRecord]:
            new.clear()
            there.clear()
            (row,) = self.store.query(
                "select count(*) filter (where state in ('waiting', 'paused', 'taken')) as pending, "
                "coalesce(max(place), 0) as last from queue"
            )
            if row["pending"] + len(runs) > MOST_WAITING:
                raise BadInput(
                    f"The queue holds {counted(row['pending'], 'run')}, and {len(runs)} more would be more than "
                    f"{MOST_WAITING}: nothing was queued."
                )
            pending = {
                key: one["uid"]
                for one in self.store.query(
                    f"""
                    select queue.key, queue.uid, runs.config_sha256 || ' ' || runs.dataset_sha256 as begun
                    from queue left join runs on queue.key like '{ASKED}%' and runs.uid = queue.run
                    where queue.state in ('waiting', 'paused', 'taken')
                    """
                )
                for key in (one["key"], one["begun"], known.get(one["uid"]))
                if key
            }
            same: dict[str, str] = {}
            added: list[QueuedRun] = []
            for run in runs:
                if waits := pending.get(run.key) or pending.get(asked.get(run.uid, "")):
                    same[run.uid] = waits
                    there.append(waits)
                    continue
                if run.key:
                    pending[run.key] = run.uid
                added.append(msgspec.structs.replace(run, place=row["last"] + len(added) + 1))
            added = [
                msgspec.structs.replace(run, after=list(dict.fromkeys(same.get(uid, uid) for uid in run.after)))
                for run in added
            ]
            self._check_after(added)
            new.extend(run.uid for run in added)
            waiting: Values = {"state": "waiting", "reason": "", "losses": 0, "worker": "", "ended_at": ""}
            over = [one for one in self.with_uids(list(again or {})) if one.state not in ("waiting", "taken")]
            edits = [_edit(one, **waiting | {"run": (again or {})[one.uid]}) for one in over]
            there.extend(again or {})
            return [*([RunsQueued(at=records.now(), dambench=__version__, runs=added)] if added else []), *edits]

        self.store.decide(decision)
        return Added(self.with_uids(new), self.with_uids(list(dict.fromkeys(there))))

    def unknown(self) -> list[Queued]:
        """Those that are pending and are known by what was asked alone, since their data were not prepared then."""
        return self.all(f"state in ('waiting', 'paused', 'taken') and key like '{ASKED}%'")

    def _check_after(self, added: Sequence[QueuedRun]) -> None:
        named = {uid for run in added for uid in run.after} - {run.uid for run in added}
        known = {
            row["uid"]
            for row in self.store.query(
                "select uid from queue where uid in (select value from json_each(?))", json.dumps(list(named))
            )
        }
        if named - known:
            raise BadInput("A run is to come after one that is not queued: nothing was queued.")

    def new(self, request: JsonObject, **facts: Any) -> QueuedRun:
        """Prepare a run to be queued, with an id of its own. `facts` are fields of `QueuedRun`."""
        run_id = records.new_id()
        return QueuedRun(uid=secrets.token_hex(16), id=run_id, request=request, **facts)

    def all(self, condition: str = "1", *values: Any) -> list[Queued]:
        """The queued runs that meet a condition in SQL on `queue`, in the order of their turn."""
        return [
            _queued(row) for row in self.store.query(f"select * from queue where {condition} order by {_TURN}", *values)
        ]

    def meant(self, only: Filter) -> list[Queued]:
        """Those that are pending and whose runs a filter would mean, as far as they are known; they all wait."""
        pending = self.store.query("select number from queue where state in ('waiting', 'paused', 'taken')")
        condition, values = only.where({-row["number"]: "waiting" for row in pending})
        known = {"number": "-number", "uid": "run", "created_at": "added_at", "state": "'waiting'"}
        own = ("id", "method", "dataset", "ipc", "network", "protocol", "seed")
        columns = [row["name"] for row in self.store.query("select name from pragma_table_info('runs')")]
        shown = ", ".join(f"""{known.get(name, name if name in own else "''")} as {name}""" for name in columns)
        found = self.store.query(
            f"""
            with waiting as materialized (select * from queue where queue.state in ('waiting', 'paused', 'taken')),
            runs as (select {shown} from waiting),
            tags as (
                select tag, -number as run from waiting
                union all select value, -number from waiting, json_each(request, '$.tags')
            )
            select id from runs where {condition}
            """,
            *values,
        )
        return self.all("id in (select value from json_each(?))", json.dumps([row["id"] for row in found]))

    def with_uids(self, uids: Sequence[str]) -> list[Queued]:
        """Those of these uids, in the order of their turn."""
        return self.all("uid in (select value from json_each(?))", json.dumps(list(uids)))

    def one(self, prefix: str) -> Queued:
        """The queued run of that id, or of the only id that begins so.

        Raises:
            BadInput: there is none, or more than one.
        """
        found = self.all(prefixes.CONDITION, *prefixes.bounds(prefix))
        return prefixes.meant(found, prefix, "queued run", "`dambench queue list` shows them")

    def counts(self) -> dict[State, int]:
        """How many there are, by state."""
        return {
            row["state"]: row["n"] for row in self.store.query("select state, count(*) n from queue group by state")
        }

    def ready(self, only: Collection[str] | None = None) -> Iterator[Queued]:
        """Those that could begin now, in the order of their turn."""
        mine = "1 or ?" if only is None else "queue.uid in (select value from json_each(?))"
        sql = f"select * from queue where {_READY} and ({mine}) order by {_TURN} limit {LOOKED_AT} offset ?"
        uids = json.dumps([] if only is None else list(only))
        for offset in itertools.count(0, LOOKED_AT):
            rows = self.store.query(sql, uids, offset)
            yield from map(_queued, rows)
            if len(rows) < LOOKED_AT:
                return

    def waits_for(self, one: Queued) -> list[Queued]:
        """Those that must be finished before a queued run begins, and are not."""
        return [other for other in self.with_uids(one.after) if other.state != "finished"]

    def take(
        self, worker: str, fits: Callable[[Queued], bool] = lambda one: True, only: Collection[str] | None = None
    ) -> Queued | None:
        """Take the next run that can begin; None: there is none. No other worker has it then.

        Args:
            worker: who takes it, by uid.
            fits: whether it can be run there; asked in the order of their turn.
            only: those of these uids; None: any.

        Raises:
            NotKept: none was taken.
        """
        chosen: list[Queued] = []
        lost: set[tuple[str, int]] = set()

        def decision() -> list[QueueTaken]:
            chosen.clear()
            for one in self.ready(only):
                if (one.uid, one.attempt) not in lost and fits(one):
                    chosen.append(one)
                    return [QueueTaken(uid=one.uid, attempt=one.attempt + 1, at=records.now(), worker=worker)]
            return []

        while True:
            try:
                self.store.decide(decision)
            except AttemptSuperseded:  # on another host, whose record may come to be seen later
                lost.add((chosen[0].uid, chosen[0].attempt))
                continue
            return self.with_uids([chosen[0].uid])[0] if chosen else None

    def finish(self, one: Queued, run: str = "", reason: str = "") -> bool:
        """Note that a run which this worker has taken is finished. Returns whether it was still the worker's.

        Args:
            run: the uid of the run, where another had done the same before.
            reason: what is to be known of it.
        """
        return self._end(one, state="finished", reason=reason, **({"run": run} if run else {}))

    def learn(self, one: Queued, seconds: float, peak_bytes: int, disk_bytes: int) -> None:
        """Note what those take that differ from a run in their seed alone, where nothing was known of it."""
        about = "command, method, dataset, ipc, network, protocol, json_remove(request, '$.seed')"
        alike = self.all(
            f"state in ('waiting', 'paused') and seconds is null and ({about}) is "
            f"(select {about} from queue as this where this.uid = ?)",
            one.uid,
        )
        values: Values = {"seconds": seconds, "peak_memory_bytes": peak_bytes, "disk_bytes": disk_bytes}
        if alike:
            self._change([other.uid for other in alike], ("waiting", "paused"), lambda other: values)

    def fail(self, one: Queued, reason: str) -> bool:
        """Note that a run failed. Returns whether it was still the worker's."""
        return self._end(one, state="failed", reason=reason)

    def release(self, one: Queued, reason: str, *, lost: bool = False, further: bool = False) -> bool:
        """Give a run back, to be taken again. Returns whether it was still the worker's.

        Args:
            lost: its process ended without a word.
            further: it had got further by then: what was lost before is forgotten.
        """
        losses = {"losses": 1 if further else one.losses + 1} if lost else {}
        return self._end(one, state="waiting", worker="", reason=reason, ended_at="", **losses)

    def hold(self, one: Queued, reason: str) -> bool:
        """Pause a run that this worker has taken. Returns whether it was still the worker's."""
        return self._end(one, state="paused", worker="", reason=reason, ended_at="")

    def _end(self, one: Queued, **values: str | int | float | None) -> bool:
        changed: list[bool] = []

        def decision() -> list[QueueEdited]:
            now = self._now(one.uid)
            mine = now.state == "taken" and now.attempt == one.attempt
            changed[:] = [mine]
            return [_edit(now, **({"ended_at": records.now()} | values))] if mine else []

        self.store.decide(decision)
        return changed[0]

    def _now(self, uid: str) -> Queued:
        return self.with_uids([uid])[0]

    def give_back(self, workers: Collection[str], reason: str) -> list[Queued]:
        """Let what workers held that are gone, or that nobody knows, wait again: their runs may still go on.

        Args:
            workers: the uids of those that are gone.

        Returns:
            What was given back.
        """
        gone = json.dumps(list(workers))
        sql = """state = 'taken' and (worker in (select value from json_each(?))
            or worker not in (select uid from workers))"""
        if not self.store.query(f"select 1 from queue where {sql} limit 1", gone):
            return []
        given: list[Queued] = []

        def decision() -> list[QueueEdited]:
            given[:] = self.all(sql, gone)
            return [_edit(one, state="waiting", worker="", reason=reason) for one in given]

        self.store.decide(decision)
        return given

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Note why runs that workers hold do not simply go on, by uid, in the words of who has them.

        Args:
            reasons: empty texts: they do.
        """

        def decision() -> list[QueueEdited]:
            held = [one for one in self.with_uids(list(reasons)) if one.state == "taken"]
            return [_edit(one, reason=reasons[one.uid]) for one in held if one.reason != reasons[one.uid]]

        self.store.decide(decision)

    def pause(self, uids: Sequence[str], reason: str = "") -> list[Queued]:
        """Let runs wait until they are resumed. One that is being run is to stop then. Returns those that changed."""
        return self._change(uids, ("waiting", "taken"), lambda one: {"state": "paused", "reason": reason})

    def resume(self, uids: Sequence[str]) -> list[Queued]:
        """Let runs that were paused wait for their turn. Returns those that changed."""
        return self._change(uids, ("paused",), lambda one: {"state": "waiting", "reason": "", "worker": ""})

    def drop(self, uids: Sequence[str], reason: str = "") -> list[Queued]:
        """Take runs out of the queue. One that is being run is to stop then. Returns those that changed."""
        return self._change(
            uids,
            ("waiting", "paused", "taken", "failed"),
            lambda one: {"state": "dropped", "reason": reason, "ended_at": records.now()},
        )

    def take_back(self, dropped: Sequence[Queued]) -> list[Queued]:
        """Let runs that were dropped stand as they did before. Returns those that changed.

        Args:
            dropped: as they stood then, waiting or paused.
        """
        was: dict[str, Values] = {
            one.uid: {"state": one.state, "reason": one.reason, "ended_at": ""} for one in dropped
        }
        return self._change(list(was), ("dropped",), lambda one: was[one.uid])

    def retry(self, uids: Sequence[str], reason: str = "", anew: Collection[str] = ()) -> list[Queued]:
        """Let runs that failed or were dropped wait again. Returns those that changed.

        Args:
            anew: those whose run cannot be gone on with: another one is begun.
        """

        def values(one: Queued) -> Values:
            new = {"run": secrets.token_hex(16)} if one.uid in anew else {}
            return {"state": "waiting", "reason": reason, "losses": 0, "worker": "", "ended_at": "", **new}

        return self._change(uids, ("failed", "dropped"), values)

    def prioritise(self, uids: Sequence[str], priority: int) -> list[Queued]:
        """Change the priority of runs that have not begun. Returns those that changed."""
        return self._change(uids, ("waiting", "paused"), lambda one: {"priority": priority})

    def move(self, uids: Sequence[str], to: Literal["first", "last"] | Queued) -> list[Queued]:
        """Move runs that have not begun, in the order in which they are named. Returns those that changed.

        Args:
            to: the first or last place of all, or before another one, whose priority they get.

        Raises:
            BadInput: that one does not wait.
        """
        waiting = self.all("state in ('waiting', 'paused')")
        others = [one for one in waiting if one.uid not in set(uids)]
        if isinstance(to, Queued) and to.uid not in {one.uid for one in others}:
            raise BadInput(f"{display(to.id, 40)} is {to.state}: a run is moved before one that waits.")
        if not others:
            lower, upper, priority = 0.0, 1.0, waiting[0].priority if waiting else 0
        elif to == "first":
            lower, upper, priority = others[0].place - 1, others[0].place, others[0].priority
        elif to == "last":
            lower, upper, priority = others[-1].place, others[-1].place + 1, others[-1].priority
        else:
            assert isinstance(to, Queued)
            before = [one for one in others if one.priority == to.priority and one.place < to.place]
            lower, upper = (before[-1].place if before else to.place - 1), to.place
            priority = to.priority
        places = {uid: lower + (n + 1) * (upper - lower) / (len(uids) + 1) for n, uid in enumerate(uids)}
        if len({lower, *places.values(), upper}) < len(places) + 2:  # no number is left between: all are counted anew
            at = others.index(to) if isinstance(to, Queued) else 0 if to == "first" else len(others)
            order = [one.uid for one in others]
            places = {uid: float(n) for n, uid in enumerate([*order[:at], *places, *order[at:]], 1)}

        def values(one: Queued) -> Values:
            return {"place": places[one.uid], "priority": priority if one.uid in uids else one.priority}

        changed = self._change(list(places), ("waiting", "paused"), values)
        return [one for one in changed if one.uid in uids]

    def _change(
        self,
        uids: Sequence[str],
        states: tuple[State, ...],
        values: Callable[[Queued], Values],
    ) -> list[Queued]:
        """Change those of these runs that are in one of these states."""
        changed: list[Queued] = []

        def decision() -> list[QueueEdited]:
            changed[:] = [one for one in self.with_uids(uids) if one.state in states]
            return [_edit(one, **values(one)) for one in changed]

        self.store.decide(decision)
        return changed

    def see(self, worker: str, **values: str | int) -> None:
        """Note what is known of a worker, by column of `workers`."""
        now = records.now()
        self.store.decide(lambda: [WorkerSeen(uid=worker, at=now, values={"beat_at": now, **values})])

    def ask(self, worker: str, what: Literal["drain", "stop"]) -> None:
        """Ask a worker to take no more, or to stop its runs with a checkpoint, too."""
        self.store.decide(lambda: [WorkerSeen(uid=worker, at=records.now(), values={"asked": what})])

    def workers(self, *, ended: bool = False) -> list[WorkerRow]:
        """The workers that have not said that they ended, or all; the newest first."""
        sql = "select * from workers where ? or ended_at = '' order by began_at desc, uid"
        return [WorkerRow(**row) for row in self.store.query(sql, ended)]


def _edit(one: Queued, **values: str | int | float | None) -> QueueEdited:
    return QueueEdited(uid=one.uid, attempt=one.attempt, at=records.now(), values=values)


def _queued(row: SqlRow) -> Queued:
    """Read a row.

    Raises:
        BadInput: it is not as a dambench wrote it.
    """
    try:
        parts = {name: json.loads(row[name]) for name in ("request", "settings", "after")}
        return msgspec.convert(row | parts, Queued, strict=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"The queue is not as a dambench wrote it: {display(str(error), 200)}.") from None
