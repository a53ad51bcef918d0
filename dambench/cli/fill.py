"""`dambench report --fill`: what a table lacks, queued."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dambench.cli import plans
from dambench.cli.options import requests_of
from dambench.cli.output import say
from dambench.cli.plans import SettledRun
from dambench.cli.process import foreground
from dambench.cli.queueing import queue_settled, threads_of_one
from dambench.cli.store import open_store
from dambench.core import config
from dambench.core.config import Request
from dambench.core.sanitize import counted, display
from dambench.core.sweep import Point, Sweep
from dambench.store.baselines import Missing
from dambench.store.leaderboard import Leaderboard, alike
from dambench.store.queue import Queue
from dambench.store.runs import Store
from dambench.tui.models.request import of_run, to_toml

TAG = "fill"


def missing_requests(store: Store, board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Request]:
    """Requests for the baselines that a leaderboard lacks, and for the seeds that only other rows of a place have.

    Raises:
        BadInput: a run is of settings that this dambench does not know.
    """
    found: list[Request] = []
    for missing in board.baselines.missing:
        found += _of_baseline(missing)
    for table in board.tables:
        for cells in alike(table, rows, columns).values() if "method" in (*rows, *columns) else ():
            every = {seed for cell in cells.values() for seed in cell.seeds}
            for cell in cells.values():
                if cell.seeds and (seeds := sorted(every - {*cell.seeds})):
                    found += _of_seeds(store, cell.scores[0].run, seeds)
    keyed = {msgspec.json.encode(request): request for request in found}
    return list(keyed.values())


def _of_baseline(missing: Missing) -> list[Request]:
    """Requests that make a baseline; none: no single command does."""
    if not missing.words:
        return []
    words = [*missing.words, "--evaluate-on", ",".join(missing.networks)]
    flags = {option.flag: option.name for option in config.options()}
    given: dict[str, str] = {}
    settings: list[str] = []
    for flag, value in zip(words[::2], words[1::2], strict=True):
        if flag == "--set":
            settings.append(value)
        else:
            given[flags[flag]] = value
    lists = {"evaluate_on": given.pop("evaluate_on").split(",")}
    numbers = {name: int(given.pop(name)) for name in ("eval_repeats",) if name in given}
    return [
        request
        for ipc in given.pop("ipc", "").split(",")
        for request in requests_of(None, given | lists | numbers | ({"ipc": int(ipc)} if ipc else {}), settings)
    ]


def _of_seeds(store: Store, run: str, seeds: Sequence[int]) -> list[Request]:
    """Requests for the same as a run, under other seeds; none: it only evaluates a set that another has made."""
    row = store.run(run)
    if json.loads(row.config).get("where", {}).get("made"):
        return []
    fields = tomllib.loads(to_toml(of_run(row) | {"seeds": ",".join(map(str, seeds)), "device": ""}))
    return config.read(Request, fields, f"the run {row.id}").each_seed()


def queue_missing(
    path: Path, requests: Sequence[Request], without: Sequence[Missing], *, dry_run: bool = False, as_json: bool = False
) -> int:
    """Queue what is lacking, all or nothing, and say what it is.

    Args:
        without: what no single command makes, which is named.
        dry_run: only say what would be queued, and what it takes.
    """
    for one in without:
        say(f"no run of its own makes {display(one.what, 200)} ({display(one.where, 200)}): left out")
    if not requests and not dry_run:
        say("The tables lack nothing that could be queued.")
        return 0
    grid = Sweep(TAG, (), tuple(Point({}, request) for request in requests), len(requests), ())
    with foreground() as here:
        planned = plans.plan(grid, path, prepare=here.watch.say)
        unique = {f"{one.sha256} {one.job.card.sha256}": one for one in planned if isinstance(one, SettledRun)}
        new = [one for one in unique.values() if one.standing in ("new", "to resume")]
        if dry_run:
            return _say_missing(path, new, as_json=as_json)
        with open_store(path, write=True) as store:
            added = queue_settled(store, new, "", threads_of_one(None))
    for queued in added.new:
        print(f"{queued.id}  {queued.what}")
    there = f", {len(added.there)} were there already" if added.there else ""
    say(f"{counted(len(added.new), 'run')} queued{there}. `dambench queue work` carries them out.")
    return 0


def _say_missing(path: Path, new: Sequence[SettledRun], *, as_json: bool) -> int:
    """Say what would be queued, and for how long it would run."""
    with open_store(path) as store:
        pending = {one.key for one in Queue(store).all("state in ('waiting', 'paused', 'taken')")}
    left = [one for one in new if f"{one.sha256} {one.job.card.sha256}" not in pending]
    what = [_what(one) for one in left]
    if as_json:
        times = [one.seconds for one in left if one.seconds is not None]
        works = [work.seconds or 0.0 for work in plans.works_of(left)]
        facts = {"runs": what, "seconds": sum(times) + sum(works), "without": len(left) - len(times)}
        print(json.dumps(facts | {"queued": len(new) - len(left)}))
        return 0
    for line in what:
        print(line)
    there = f", {len(new) - len(left)} are queued already" if len(new) > len(left) else ""
    say(f"{counted(len(left), 'run')} would be queued{there}.")
    for line in plans.times(left):
        say(line)
    return 0


def _what(one: SettledRun) -> str:
    config = one.job.config
    ipc = "" if config.ipc is None else f"IPC {config.ipc}"
    words = (config.method.name, one.job.card.label, ipc, config.protocol.label, f"seed {config.seed}")
    return display(" ".join(word for word in words if word), 200)
