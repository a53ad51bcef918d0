"""Worker: takes queued runs one after another, hands them to an executor, and notes how they ended.

Several work on one queue at once, on one host or on many: each run is taken by one of them. One that is killed leaves
its runs as they are; what it held is given back by the next worker that looks, which follows those that go on, and goes
on with the others from their last checkpoint.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from dambench import __version__
from dambench.core import config, files
from dambench.core.config import Request, RunConfig
from dambench.core.errors import BadInput, Held, NotKept
from dambench.core.hard_labels import wants_twin
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.runner.executors import Executor, Explaining, Handle, Outcome, Site, Wishes, open_executor
from dambench.store import database, history, records
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store
from dambench.store.version import VERSION

POLL_SECONDS = 0.25
LOOK_SECONDS = 3.0
"""Between two looks for workers that are gone."""
LEAST_ROOM = 20_000_000
"""Free bytes below which no run is begun: on a full disk each of a long queue would fail, one after another."""
MOST_LOSSES = 5
"""Processes that a run may lose, one after another, without getting any further."""


@dataclass
class WorkDone:
    """What a worker has done."""

    finished: list[str] = field(default_factory=list)
    """Ids, in the order of their ends; so are the others."""
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Ready, but nothing that this worker could run."""
    blocked: list[str] = field(default_factory=list)
    """Waiting for others that will not be finished: they failed, or were paused or dropped."""
    hindered: str = ""
    """Why it took no more of what it could have run."""


@dataclass
class _Held:
    queued: Queued
    handle: Handle
    progress: tuple[object, ...]
    """How far the run was when it was taken."""
    outcome: Outcome | None = None
    """How it ended, until that is noted."""


class Worker:
    """A worker on the queue of a store that is open to write.

    Args:
        say: hears what it does, a sentence each.
        stopping: whether it is to stop its runs and end.
        only: runs of these uids, until all of them are over; None: any.
        ended: hears of each run how it ended.
        until: when it takes nothing more, by the monotonic clock; None: never.
    """

    def __init__(
        self,
        store: Store,
        executor: str,
        wishes: Wishes,
        say: Callable[[str], None],
        stopping: Callable[[], bool] = lambda: False,
        only: Collection[str] | None = None,
        ended: Callable[[Queued, Outcome], None] = lambda queued, outcome: None,
        until: float | None = None,
    ):
        self._store, self._queue, self._say, self._stopping = store, Queue(store), say, stopping
        self._until = until
        self._only, self._ended = None if only is None else frozenset(only), ended
        self.uid = secrets.token_hex(16)
        self._check_version()
        self._executor_name = executor
        self._executor: Executor = open_executor(executor, Site(store.path, store, self.uid), wishes)
        self._held: list[_Held] = []
        self._explained: dict[str, str] = {}
        self._unfit: tuple[object, ...] = ()
        """How the queue and what is held stood when nothing that was ready fitted; empty: something may."""
        self._unfit_at = 0.0
        self._waits = False
        """Whether something could come when this was looked at last."""
        self._beat_at = self._looked_at = 0.0
        self.tally = WorkDone()

    def _check_version(self) -> None:
        """See that this dambench may work on the queue.

        Raises:
            BadInput: another version works on it, or a newer one filled it.
        """
        for worker in self._queue.workers():
            if worker.dambench not in ("", __version__) and processes.state(worker) in processes.ALIVE:
                raise BadInput(
                    f"A worker of dambench {display(worker.dambench, 20)} (process {worker.pid} on "
                    f"{display(worker.host, 40)}) is at this queue, and this is dambench {__version__}: "
                    "one table is made by one version."
                )
        rows = self._store.query("select distinct dambench from queue where state in ('waiting', 'taken')")
        for row in rows:
            if _number(row["dambench"]) > _number(__version__):
                raise BadInput(
                    f"dambench {display(row['dambench'], 20)} has filled this queue, and this is dambench "
                    f"{__version__}: update it."
                )

    def work(self) -> WorkDone:
        """Work until nothing is left that could be run, or until it is to stop. Runs that go on are left as they are
        where this ends with an exception.

        Raises:
            NotKept: the database cannot be written.
            BadInput: a newer dambench has changed the database.
        """
        process = processes.this_process()
        self._queue.see(
            self.uid,
            host=process.host,
            boot=process.boot,
            pid=process.pid,
            process_started=process.started,
            dambench=__version__,
            executor=self._executor_name,
            devices=json.dumps(list(self._executor.devices)),
            slots=self._executor.slots,
            log=process.log,
            began_at=records.now(),
        )
        try:
            while self._more():
                time.sleep(POLL_SECONDS)
        finally:
            self._leave()
        return self.tally

    def _more(self) -> bool:
        try:
            return self._turn()
        except Held as error:  # that may pass; the runs go on meanwhile
            self._say(str(error))
            return True

    def _turn(self) -> bool:
        """Look at everything once. Returns whether there is more to do."""
        self._store.refresh()
        self._look_around()
        for held in list(self._held):
            held.outcome = held.outcome or self._executor.poll(held.handle)
            if held.outcome:
                self._note(held, held.outcome)
                self._held.remove(held)
        self._explain()
        stop, take = self._asked()
        self._stop_what_is_not_ours(stop)
        if take:
            self._fill()
        return bool(self._held) or (take and self._may_come())

    def _look_around(self) -> None:
        """Give a sign of life, and give back what workers hold that are gone."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS and self._looked_at:
            return
        self._looked_at = now
        if now - self._beat_at > processes.BEAT_SECONDS or not self._beat_at:
            self._beat_at = now
            if database.version(self._store.db) > VERSION:
                raise BadInput("A newer dambench has changed this database: its runs go on, this worker ends.")
            self._queue.see(self.uid, ended_at="")
        gone = []
        for worker in self._queue.workers(ended=True):
            if worker.uid == self.uid or processes.state(worker, acting=True) in processes.ALIVE:
                continue
            gone.append(worker.uid)
            if not worker.ended_at:
                self._queue.see(worker.uid, beat_at=worker.beat_at, ended_at=records.now())
        for one in self._queue.give_back(gone, "its worker is gone"):
            self._say(f"{one.called}: its worker is gone; it waits again")

    def _explain(self) -> None:
        """Note in the queue what an executor says of runs that it has and that wait all the same."""
        if not isinstance(self._executor, Explaining):
            return
        standings = {held.queued.uid: self._executor.standing(held.handle) for held in self._held}
        news = {uid: said for uid, said in standings.items() if said != self._explained.get(uid, "")}
        if news:
            self._queue.explain(news)
        self._explained = standings

    def _asked(self) -> tuple[bool, bool]:
        """Whether our runs are to stop, and whether more may be taken."""
        asked = next((worker.asked for worker in self._queue.workers() if worker.uid == self.uid), "")
        stop = self._stopping() or asked == "stop"
        return stop, not (stop or asked or (self._until is not None and time.monotonic() >= self._until))

    def _stop_what_is_not_ours(self, everything: bool) -> None:
        """Stop runs that were paused, dropped or taken by another worker; or all."""
        now = {one.uid: one for one in self._queue.with_uids([held.queued.uid for held in self._held])}
        for held in self._held:
            one = now.get(held.queued.uid)
            if everything or one is None or one.state in ("paused", "dropped"):
                self._executor.stop(held.handle)

    def _fill(self) -> None:
        """Take what there is room for."""
        self.tally.hindered = _full_disk(self._store)
        if self._is_unfit_still():
            return
        while not self.tally.hindered and len(self._held) < self._executor.slots and not self._stopping():
            one = self._queue.take(self.uid, self._executor.fits, self._only)
            if one is None:
                self._unfit, self._unfit_at = self._standing(), time.monotonic()
                return
            progress = self._progress(one)
            row = self._store.with_uid(one.run)
            if row is not None and row.deleted_at:
                self._fail(
                    one, f"its run {row.id} is in the trash: `dambench restore` brings it back, a retry begins another"
                )
                continue
            try:
                handle = self._executor.start(one)
            except BadInput as error:
                self._note(_Held(one, _NoHandle(one), progress), Outcome("failed", str(error)))
                continue
            self._held.append(_Held(one, handle, progress))
            self._say(one.called)

    def _standing(self) -> tuple[object, ...]:
        """What tells, nearly always, whether something else may fit than before."""
        return tuple(sorted(self._queue.counts().items())), tuple(held.queued.uid for held in self._held)

    def _is_unfit_still(self) -> bool:
        """Whether a look would find again that nothing fits: it reads all that is ready, which may be thousands."""
        soon = time.monotonic() - self._unfit_at < LOOK_SECONDS
        return bool(self._unfit) and soon and self._unfit == self._standing()

    def _may_come(self) -> bool:
        """Whether something could still be taken, once others are done."""
        if self._is_unfit_still() and self._waits:
            return True
        self._waits = self._could_come()
        return self._waits

    def _could_come(self) -> bool:
        ready = list(self._queue.ready(self._only))
        self.tally.left = [one.id for one in ready]
        if self.tally.hindered:
            return False
        if any(self._executor.fits(one) for one in ready):
            return True
        going = self._queue.all("state = 'taken'")
        if self._only is not None:
            if any(one.uid in self._only for one in going):
                return True
        elif going and self._store.query("select 1 from queue where state = 'waiting' and after != '[]' limit 1"):
            return True
        can = {one.uid for one in ready}
        waiting = [one for one in self._queue.all("state = 'waiting'") if one.uid not in can]
        self.tally.blocked = [one.id for one in waiting if self._only is None or one.uid in self._only]
        return False

    def _progress(self, one: Queued) -> tuple[object, ...]:
        row = self._store.with_uid(one.run)
        if row is None:
            return ()
        (scores,) = self._store.query("select count(*) n from evaluations where run = ?", row.number)
        return self._store.last_checkpoint(row), row.phase, row.done, scores["n"]

    def _note(self, held: _Held, outcome: Outcome) -> None:
        """Note in the queue how a run ended, and say it."""
        one, said = held.queued, held.queued.called
        stop, _ = self._asked()
        match outcome.state:
            case "finished":
                other = self._other_than_queued(one, outcome.run)
                self._queue.finish(one, outcome.run, other)
                self.tally.finished.append(one.id)
                self._learn(one, outcome.run)
                self._say(f"{said}: finished{f', {other}' if other else ''}")
            case "failed":
                self._fail(one, outcome.reason)
            case "stopped" if stop:
                self._queue.release(one, "its worker was stopped")
                self._say(f"{said}: stopped, and waits")
            case "stopped":
                if self._queue.hold(one, "stopped by hand"):
                    self._say(f"{said}: stopped by hand: `dambench queue resume {one.id}` goes on with it")
            case "lost":
                further = self._progress(one) != held.progress
                if not further and one.losses + 1 >= MOST_LOSSES:
                    self._fail(one, f"its process was lost {MOST_LOSSES} times without getting further")
                else:
                    self._queue.release(one, outcome.reason or "its process was lost", lost=True, further=further)
                    self._say(f"{said}: its process was lost; it waits again")
        self._ended(one, outcome)

    def _learn(self, one: Queued, run: str) -> None:
        """Note what others of its kind take, now that one is finished."""
        row = self._store.with_uid(run or one.run)
        if one.command != "run" or one.seconds is not None or row is None:
            return
        made = msgspec.json.decode(row.config, type=RunConfig)
        twin = wants_twin(config.read(Request, one.request, f"the queued run {one.id}"))
        for cost in history.expected(self._store, made, row.dataset_sha256)[:1]:
            if phases := cost.phases(hard_twin=twin):
                seconds = sum(phases.values())
                self._queue.learn(one, seconds, cost.peak_memory_bytes, cost.disk_bytes)

    def _other_than_queued(self, one: Queued, run: str) -> str:
        """What its run has been made of that it was not queued for; empty: nothing."""
        row = self._store.with_uid(run or one.run)
        config, _, data = one.key.partition(" ")
        if one.command != "run" or row is None or not data:
            return ""
        if row.dataset_sha256 != data:
            return "but on other data than it was queued for: they have changed since"
        return "" if row.config_sha256 == config else "but with other settings than it was queued with"

    def _fail(self, one: Queued, reason: str) -> None:
        if self._queue.fail(one, reason):
            self.tally.failed.append(one.id)
            self._say(f"{one.called}: failed: {display(reason, 300)}")

    def _leave(self) -> None:
        """Let go of what is held: its runs go on, and the next worker follows them."""
        try:
            for held in self._held:
                self._queue.release(held.queued, "its worker has ended")
            self._queue.see(self.uid, ended_at=records.now())
        except (NotKept, BadInput, sqlite3.Error):
            return  # it will be seen that our process is gone
        finally:
            self._executor.close()


@dataclass
class _NoHandle:
    queued: Queued


def _full_disk(store: Store) -> str:
    """Which disk that runs write to is full, in a sentence; empty: none."""
    for folder in (files.home(), store.path.absolute().parent):
        with suppress(OSError):  # its first run makes it, or says what is wrong
            if files.room(folder) < LEAST_ROOM:
                return f"The disk of {display(str(folder), 200)} is full: no run is begun until there is room."
    return ""


def _number(version: str) -> list[int]:
    """A version as it is compared."""
    return [int(part) if part.isdigit() else 0 for part in version.split(".")[:3]]
