"""What a run would be (`--check`, and many times: `checks`), and what it would take (`--dry-run`)."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from dambench.cli.arguments import Group
from dambench.cli.complaints import Complaint, complaint_about
from dambench.cli.options import given_options, requests_of
from dambench.cli.output import complain, table
from dambench.cli.process import AGAIN
from dambench.cli.store import open_store
from dambench.core import config, registry, sanitize
from dambench.core.config import Request
from dambench.core.errors import BadInput, NotEnoughMemory
from dambench.core.hard_labels import wants_twin
from dambench.core.sanitize import counted
from dambench.core.units import duration, size
from dambench.store import runs as stored
from dambench.store.runs import Store
from dambench.store.statistics import ENOUGH

if TYPE_CHECKING:
    from dambench.engine.job import Job


class _TakesLong(Exception):
    """Work that has to be done before more can be said."""


def outlook(requests: Sequence[Request], path: Path | None) -> dict[str, Any]:
    """What a run would be, or what of it can be told while its data are not prepared.

    Args:
        path: the database, whose finished runs would not be run again; None: they would.
    """
    from dambench import engine

    def stop(text: str) -> NoReturn:
        raise _TakesLong(text)

    try:
        job = engine.prepare(requests[0], stop)
    except _TakesLong as work:
        return {"runs": len(requests), "first": str(work)}
    jobs = [job.with_seed(request.seed or 0) for request in requests]
    standard = config.read(job.method.Options, job.recipe.options if job.recipe else {}, "the recipe")
    existing: dict[int, str] = {}
    if path is not None and stored.exists(path):
        with open_store(path) as store:
            finished = {each.config.seed: store.finished(each.config, each.card) for each in jobs}
        existing = {seed: run_id for seed, run_id in finished.items() if run_id}
    notes = [
        f"The run {run_id} has done this already{f' for seed {seed}' if len(jobs) > 1 else ''}: {AGAIN}"
        for seed, run_id in existing.items()
    ]
    return {
        "runs": len(requests),
        "existing": list(existing.values()),
        "seeds": [each.config.seed for each in jobs],
        "config_sha256": [each.config.sha256 for each in jobs],
        "config": msgspec.to_builtins(job.config),
        "data": msgspec.to_builtins(job.card),
        "recipe": msgspec.to_builtins(job.recipe),
        "standard": msgspec.to_builtins(standard),
        "overrides": job.overrides,
        "hard_twin": wants_twin(requests[0]),
        "notes": [*job.card.notes, *job.notes, *notes],
    }


def checks(context: typer.Context) -> None:
    """Answer what `run … --check` would, many times: each line is a JSON list of arguments of `run`.

    An answer is a JSON object: the outlook, or `error`, a sentence, with `field`, the option that it is about. For the
    console, which has no torch and asks again with every letter that is typed.
    """
    group = context.find_root().command
    assert isinstance(group, Group)
    for line in sys.stdin:
        try:
            with redirect_stdout(sys.stderr):
                with group.commands["run"].make_context("run", list(json.loads(line)), parent=context) as parsed:
                    values = parsed.params
                requests = requests_of(values["file"], given_options(values, lists=True), values["settings"])
                path = values["db"] or stored.default_path()
                stored.check(path)
                answer = outlook(requests, None if values["again"] else path)
        except Exception as error:
            # A fault of ours, or of a method from outside, is no reason to end: the next request may be better.
            sentence = f"{type(error).__name__}: {sanitize.display(str(error))}"
            complaint = complaint_about(error) or Complaint(sentence)
            answer = {"error": sanitize.display(complaint.text, 1000), "field": complaint.field}
        print(json.dumps(answer), flush=True)


def few_sets(store: Store, job: "Job") -> str:
    """What to say where the settings of a run have too few sets for a claim about its method; empty: nothing."""
    if job.config.method.name in ("whole", "imported"):
        return ""  # one set is all that there is
    seeds = {0, 1, 2, job.config.seed}
    sets = sum(store.finished(job.with_seed(seed).config, job.card) is not None for seed in seeds)
    if sets >= ENOUGH:
        return ""
    return (
        f"{counted(sets, 'set')} of these settings: no claim about the method. --seeds 0-2 makes three, and not again "
        "what is there."
    )


def estimate(job: "Job", runs: int, as_json: bool, *, hard_twin: bool = False) -> int:
    """Measure a few steps of a run, and say what all would take."""
    from dambench.engine.estimate import estimate

    if job.config.execution.devices:
        raise BadInput(
            "--dry-run measures one process, and what several that share a run would take is not known: name one "
            "device, and leave --ranks out.",
            field="ranks",
        )
    try:
        with registry.stdout_to_stderr(), registry.guarded("methods", job.config.method.name):
            measured = estimate(job, hard_twin=hard_twin)
    except NotEnoughMemory as error:
        return complain(str(error), 1)
    if as_json:
        print(json.dumps({"runs": runs} | msgspec.to_builtins(measured)))
        return 0
    each = f", {measured.iteration_seconds:.3g} s each after the first ({measured.first_iteration_seconds:.3g} s)"
    total = sum(measured.seconds.values())
    training = measured.seconds.get("experts", 0.0)
    rows = [
        *([["experts", duration(training), "kept for the next run that needs them"]] if training else []),
        [
            "distil",
            duration(measured.seconds["distil"]),
            f"{measured.iterations} iterations{each}" if measured.iterations else "",
        ],
        [
            "evaluate",
            duration(measured.seconds["evaluate"]),
            f"{measured.networks} networks: "
            + ", ".join(f"{name} {seconds:.3g} s each" for name, seconds in measured.network_seconds.items()),
        ],
        *(
            [
                [
                    "hard twin",
                    duration(measured.seconds["hard twin"]),
                    "the set with hard labels at the usual rate",
                ]
            ]
            if "hard twin" in measured.seconds
            else []
        ),
        ["in all", duration(total * runs), f"{runs} runs of {duration(total)}" if runs > 1 else ""],
        [
            "peak memory",
            size(max(measured.peak_memory_bytes.values())),
            ", ".join(f"{phase} {size(peak)}" for phase, peak in measured.peak_memory_bytes.items()),
        ],
        ["disk", size(measured.disk_bytes * runs), "synthetic sets, and about what the database grows by"],
        *(["", "", note] for note in measured.notes),
    ]
    table(["", "estimate", "from a few measured steps; nothing was kept"], rows)
    return 0
