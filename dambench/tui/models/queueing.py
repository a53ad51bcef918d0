"""Queueing from the console: requests as the queue keeps them, from the form, or from runs that are made once more with
other seeds and settings."""

import itertools
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tomli_w

from dambench.core import config, sweep
from dambench.core.config import MAX_RUNS, Request, RunConfig
from dambench.core.errors import BadInput
from dambench.core.files import digest
from dambench.core.hard_labels import wants_twin
from dambench.core.sanitize import display
from dambench.store import history
from dambench.store.queue import ASKED, Added, Queue
from dambench.store.records import QueuedRun
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui.models.request import Form, of_run, to_toml


class Wish(NamedTuple):
    """A run that is to be queued."""

    request: Request
    settings: dict[str, Any]
    """What tells it from the others, by axis."""
    like: RunRow | None
    """The run that it is made from, which says what it would take; None: nothing is known."""
    key: str = ""
    """What the queue knows the same run by: the digests of its configuration and its data; empty: not known."""


def wishes_of_form(form: Mapping[str, str], answer: Mapping[str, Any] | None = None) -> list[Wish]:
    """The runs that a form asks for, one per seed.

    Args:
        answer: what `dambench run --check` says of it, if that was asked.

    Raises:
        BadInput: something is wrong with it.
    """
    keys = _keys(answer or {})
    return [Wish(request, {}, None, keys.get(request.seed or 0, "")) for request in _requests(dict(form))]


def _keys(answer: Mapping[str, Any]) -> dict[int, str]:
    """By seed, what the queue knows the runs of an outlook by; none: its data are not prepared."""
    digests, data = answer.get("config_sha256", ()), answer.get("data", {}).get("sha256", "")
    return {seed: f"{sha256} {data}" for seed, sha256 in zip(answer.get("seeds", ()), digests, strict=False)}


def with_keys(
    wishes: Sequence[Wish], outlooks: Callable[[Sequence[Sequence[str]]], Sequence[Mapping[str, Any]]]
) -> list[Wish]:
    """The same runs, each with what the queue knows it by.

    Args:
        outlooks: answers what `dambench checks` would.

    Raises:
        BadInput: one cannot be.
    """
    groups: dict[str, list[Wish]] = {}
    for wish in wishes:
        if not wish.key:
            alike = msgspec.structs.replace(wish.request, seed=None, seeds=None)
            groups.setdefault(msgspec.json.encode(alike).decode(), []).append(wish)
    found: dict[tuple[str, int], str] = {}
    with tempfile.TemporaryDirectory(prefix="dambench-") as folder:
        questions = []
        for number, group in enumerate(groups.values()):
            seeds = [wish.request.seed or 0 for wish in group]
            request = msgspec.structs.replace(group[0].request, seed=None, seeds=list(dict.fromkeys(seeds)))
            file = Path(folder, f"{number}.toml")
            file.write_text(tomli_w.dumps(sweep.file_of(request)))
            questions.append([str(file), "--again"])
        for name, answer in zip(groups, outlooks(questions), strict=True):
            if "error" in answer:
                raise BadInput(display(str(answer["error"]), 500))
            found |= {(name, seed): key for seed, key in _keys(answer).items()}
    keyed = []
    for wish in wishes:
        alike = msgspec.structs.replace(wish.request, seed=None, seeds=None)
        key = wish.key or found.get((msgspec.json.encode(alike).decode(), wish.request.seed or 0), "")
        keyed.append(wish._replace(key=key))
    return keyed


def wishes_like(rows: Sequence[RunRow], text: str) -> list[Wish]:
    """Runs once more, with every combination of other settings.

    Args:
        text: `seeds=0-4 ipc=1,10 method.lr_images=0.1,1`; empty: the same again.

    Raises:
        BadInput: it cannot be read, a run only evaluates a set, or there would be too many.
    """
    axes = _axes(text)
    wishes = []
    for row in rows:
        if json.loads(row.config).get("where", {}).get("made"):
            raise BadInput(f"{row.id} only evaluates a set: `dambench evaluate` takes several sets.")
        base = of_run(row)
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            changed = {name for name in point if name != "seeds"}
            for request in _requests(base | point):
                settings = {name: point[name] for name in changed}
                wishes.append(Wish(request, settings, None if changed else row, "" if changed else _key(row, request)))
    if len(wishes) > MAX_RUNS:
        raise BadInput(f"That would be {len(wishes)} runs: at most {MAX_RUNS} are queued at once from here.")
    return wishes


def _key(row: RunRow, request: Request) -> str:
    """What the queue knows a run by that differs from another one in its seed alone."""
    run = msgspec.json.decode(row.config, type=RunConfig)
    return f"{msgspec.structs.replace(run, seed=request.seed or 0).sha256} {row.dataset_sha256}"


def _axes(text: str) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for pair in text.split():
        name, equals, values = pair.partition("=")
        name = {"seed": "seeds", "iterations": "method.iterations"}.get(name, name)
        if not equals or not all(parts := values.split(",")):
            raise BadInput(f"{display(pair, 60)!r} is not of the form NAME=A,B, such as seeds=0-4 or ipc=1,10.")
        if name in axes:
            raise BadInput(f"{display(name, 60)} is there twice: give all its values at once.")
        axes[name] = [values] if name == "seeds" else parts
    if prod(map(len, axes.values())) > MAX_RUNS:
        raise BadInput(f"{display(text, 100)!r} has more than {MAX_RUNS} combinations.")
    return axes


def _requests(form: Form) -> list[Request]:
    fields = tomllib.loads(to_toml(form))
    fields = config.overlay({"data": os.environ.get("DAMBENCH_DATA") or None}, fields)
    config.check_said_once(fields, "the form")
    request = config.read(Request, fields, "the request")
    request.choice("method")
    request.choice("dataset")
    return request.each_seed()


def queue(store: Store, wishes: Sequence[Wish], tag: str) -> Added:
    """Queue all of them, or none.

    Args:
        tag: of the sweep that they are; empty: of none.

    Raises:
        BadInput, NotKept: nothing was queued.
    """
    waiting = Queue(store)
    known: dict[str, history.Expected | None] = {}
    runs = [_queued(store, waiting, wish, tag, known) for wish in wishes]
    return waiting.add(runs, asked={run.uid: _asked(wish) for run, wish in zip(runs, wishes, strict=True)})


def _asked(wish: Wish) -> str:
    """What the queue knows a run by whose configuration is not known yet, since its data are not prepared."""
    return f"{ASKED}{digest(json.dumps(sweep.file_of(wish.request), sort_keys=True).encode())}"


def _queued(store: Store, waiting: Queue, wish: Wish, tag: str, known: dict[str, history.Expected | None]) -> QueuedRun:
    request, row = wish.request, wish.like
    if tag:
        request = msgspec.structs.replace(request, tags=[*(request.tags or []), tag])
    facts: dict[str, Any] = {}
    if row is not None:
        facts = {"ipc": row.ipc, "network": row.network, "protocol": row.protocol}
        if row.id not in known:
            run = msgspec.json.decode(row.config, type=RunConfig)
            known[row.id] = next(iter(history.expected(store, run, row.dataset_sha256)), None)
        cost = known[row.id]
        if cost is not None:
            phases = cost.phases(hard_twin=wants_twin(request))
            facts |= {
                "seconds": None if phases is None else sum(phases.values()),
                "peak_memory_bytes": cost.peak_memory_bytes or None,
                "disk_bytes": cost.disk_bytes or None,
            }
    method, dataset = request.choice("method"), request.choice("dataset")
    ipc = None if method.name in sweep.WITHOUT_IPC else request.ipc or 1
    options = {f"method.{name}": value for name, value in method.options.items()} if wish.settings else {}
    return waiting.new(
        sweep.file_of(request),
        **{
            "method": method.name,
            "dataset": dataset.name,
            "ipc": ipc,
            "network": request.network or "",
            "protocol": request.protocol or "",
            "seed": request.seed or 0,
            "threads": request.threads or 0,
            "device": "" if request.device in (None, "auto") else request.device,
            "settings": wish.settings | options,
            "tag": tag,
            "key": wish.key or _asked(wish),
        }
        | facts,
    )
