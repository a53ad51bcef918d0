"""`dambench tune`: choose settings by validation images, with the same grid and budget for every arm."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from typer import Argument, Option

from dambench.cli.options import Db, Json, Settings, request_options
from dambench.cli.output import table
from dambench.cli.process import Foreground, foreground
from dambench.cli.record import record
from dambench.cli.signals import EXIT_CODES
from dambench.cli.store import open_store
from dambench.core import config, files, grid
from dambench.core.config import MAX_RUNS, Request
from dambench.core.errors import BadInput
from dambench.core.protocol import preset
from dambench.core.sanitize import counted, display
from dambench.store import runs as stored
from dambench.store import tuning
from dambench.store.runs import Store
from dambench.store.tuning import OBJECTIVE, Trial

if TYPE_CHECKING:
    from dambench.engine.job import Job

PROTOCOL = "fair-quick"
SEEDS = "0-2"

UNTUNED = ("name", "tags", "device", "threads", "data", "checkpoint_every", "seed", "seeds")
"""Fields that are left out of the settings that are chosen: of this machine, or of this search."""


@request_options()
def tune(
    file: Annotated[Path | None, Argument(metavar="[FILE.toml]", help="Settings; flags go over them.")] = None,
    grid_: Annotated[
        list[str] | None,
        Option(
            "--grid",
            metavar="NAME=A,B",
            help="method.lr_images=0.1,1, protocol.lr=0.01,0.1 or iterations=100,200; may be repeated.",
        ),
    ] = None,
    arms: Annotated[str, Option(help="Methods that are tuned by the same grid, with commas [default: --method].")] = "",
    *,
    given: dict[str, Any],
    settings: Settings = None,
    objective: Annotated[str, Option(help="What is made as high as it gets.")] = OBJECTIVE,
    output: Annotated[
        Path | None, Option("--output", "-o", help="A folder: the chosen settings of each arm, as ARM.toml.")
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Choose settings from a grid by validation accuracy [defaults: --protocol fair-quick, --seeds 0-2]."""
    if objective != OBJECTIVE:
        raise BadInput(
            f"--objective {display(objective, 60)}: what is measured on the test set may choose nothing, so that "
            f"{OBJECTIVE} is the only objective there is."
        )
    tried = grid.parse(grid_ or [])
    fields = _fields(file, given, settings)
    requests = [
        (arm, point, _request(fields, arm, point)) for arm in _arms(arms, fields) for point in grid.points(tried)
    ]
    runs = sum(len(request.each_seed()) for *_, request in requests)
    if runs > MAX_RUNS:
        raise BadInput(f"The grid asks for {runs} runs: at most {MAX_RUNS} are made at once.")
    path = db or stored.default_path()
    stored.check(path)
    with foreground() as here:
        here.watch.only_validation = True
        jobs = _settled(requests, here)
        with open_store(path, write=True) as store:
            here.watch.say(f"{counted(runs, 'run')}; those that are there already are not made again")
            trials: list[Trial] = []
            sets: dict[str, str] = {}
            for arm, point, request, job in jobs:
                trial = Trial(arm, point)
                trials.append(trial)
                for each in request.each_seed():
                    if here.signals.received:
                        return EXIT_CODES[here.signals.received]
                    code = _try(store, trial, job.with_seed(each.seed or 0), each, here, sets)
                    if code >= EXIT_CODES["SIGHUP"]:
                        return code
                found = tuning.validation_accuracies(store, list(trial.runs.values()))
                trial.by_seed = {seed: found[run] for seed, run in trial.runs.items() if run in found}
    chosen = _chosen(trials, fields)
    if output is not None:
        _write(output, chosen)
    if as_json:
        print(json.dumps(_as_json(trials, chosen)))
    else:
        _show(trials, chosen)
    return 0 if len(chosen) == len({trial.arm for trial in trials}) else 1


def _fields(file: Path | None, given: Mapping[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """All that is the same for every arm and every point."""
    import os

    fields = config.read_toml(file) if file else {}
    fields = config.overlay(fields, {"data": os.environ.get("DAMBENCH_DATA") or None})
    options = config.settings(settings or [])
    config.check_said_once({**given, **options}, "the command")
    fields = config.overlay(config.overlay(fields, given), options)
    fields |= config.overlay({"protocol": PROTOCOL}, {"protocol": fields.get("protocol")})
    return fields if fields.get("seed") is not None else {"seeds": SEEDS} | fields


def _arms(text: str, fields: Mapping[str, Any]) -> list[str]:
    arms = [arm.strip() for arm in text.split(",") if arm.strip()]
    if len(set(arms)) < len(arms):
        raise BadInput(f"--arms {display(text, 100)}: each must be there once.")
    return arms or [config.read(Request, dict(fields), "the request").choice("method").name]


def _request(fields: dict[str, Any], arm: str, point: grid.Point) -> Request:
    over = config.overlay(config.overlay(fields, {"method": arm}), grid.fields(point))
    config.check_said_once(over, "the grid and the request")
    return config.read(Request, over, "the request")


def _settled(
    requests: Sequence[tuple[str, grid.Point, Request]], here: Foreground
) -> "list[tuple[str, grid.Point, Request, Job]]":
    """All jobs, before the first of them begins.

    Raises:
        BadInput: an arm does not have a setting of the grid, or no validation images are held out, or other ones.
    """
    from dambench import engine

    jobs: list[tuple[str, grid.Point, Request, Job]] = []
    for _, _, request in requests:
        protocol = preset(request.protocol or PROTOCOL)
        if protocol.hold_out is None:
            raise BadInput(
                f"Settings are chosen by validation images, and the protocol {protocol.name} holds none out: take "
                "fair-quick, fair-brief or fair.",
                field="protocol",
            )
    for arm, point, request in requests:
        try:
            job = engine.prepare(request.each_seed()[0], here.watch.say)
        except BadInput as error:
            where = f" with {_in_words(point)}" if point else ""
            raise BadInput(f"The arm {display(arm, 60)}{where}: {error}") from None
        if not job.config.validates:
            raise BadInput(
                f"Settings are chosen by validation images, and {display(arm, 60)} brings a set that may have been "
                "made of them."
            )
        if jobs and job.config.held_out != jobs[0][-1].config.held_out:
            raise BadInput("Every arm and point of a grid must have the same validation images.")
        jobs.append((arm, point, request, job))
    return jobs


def _try(store: Store, trial: Trial, job: "Job", request: Request, here: Foreground, sets: dict[str, str]) -> int:
    """Make one run, unless there is one. Returns its exit code.

    Args:
        sets: runs of this search by what their sets depend on; under another protocol their sets are only evaluated.
    """
    seed = job.config.seed
    made_by = msgspec.structs.replace(job.config, protocol=preset(PROTOCOL)).sha256
    run = store.finished(job.config, job.card, purpose="tuning")
    run = run or tuning.diverged(store, job.config.sha256, job.card.sha256)
    if run:
        trial.runs[seed] = run
        sets.setdefault(made_by, run)
        return 0
    if made_by in sets:
        job = _of_set(store, job, sets[made_by])
    source = job.recipe.source if job.recipe else ""
    tags = request.tags or []
    run = store.create(
        job.config, job.card, request.name or "", tags, here.process(), source, job.overrides, purpose="tuning"
    )
    here.announce(run)
    here.watch.say(f"run {run}: {trial.arm}{f', {_in_words(trial.point)}' if trial.point else ''}")
    trial.runs[seed] = run
    sets.setdefault(made_by, run)
    return record(store, run, job, here, False)


def _of_set(store: Store, job: "Job", run: str) -> "Job":
    """The job, of the set that another run has made by the same settings, if it is there."""
    row = store.run(run)
    made, iteration = row.set_sha256, store.iteration_of(row)
    evaluates_on_the_way = job.config.evaluate_every > 0
    if row.state != "finished" or made is None or iteration is None or evaluates_on_the_way:
        return job
    if made != row.dataset_sha256 and not files.set_path(made).is_file():
        return job
    execution = msgspec.structs.replace(job.config.execution, made=made, made_after=iteration)
    return replace(job, config=msgspec.structs.replace(job.config, execution=execution))


def _in_words(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.removeprefix('method.')} {display(str(value), 60)}" for name, value in point.items())


Chosen = dict[str, tuple[Trial, dict[str, Any]]]
"""By arm, its best trial and the settings of it as fields of a request."""


def _chosen(trials: Sequence[Trial], fields: dict[str, Any]) -> Chosen:
    chosen = {}
    for arm in dict.fromkeys(trial.arm for trial in trials):
        winner = tuning.best([trial for trial in trials if trial.arm == arm])
        if winner is not None:
            over = config.overlay(config.overlay(fields, {"method": arm}), grid.fields(dict(winner.point)))
            chosen[arm] = winner, {key: value for key, value in over.items() if key not in UNTUNED}
    return chosen


def _toml(arm: str, trial: Trial, fields: dict[str, Any]) -> str:
    """The settings as `dambench run FILE.toml` reads them."""
    import tomli_w

    seeds = ", ".join(map(str, trial.runs))
    head = f"# {display(arm, 60)}, chosen by validation accuracy with the seeds {seeds}: report other seeds than these"
    return f"{head}\n{tomli_w.dumps(fields)}"


def _write(folder: Path, chosen: Chosen) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"The folder {str(folder)!r} cannot be made: {error.strerror}.") from None
    for arm, (trial, fields) in chosen.items():
        with files.writing("The chosen settings", folder):
            files.write_whole(folder / f"{arm}.toml", _toml(arm, trial, fields).encode())


def _show(trials: Sequence[Trial], chosen: Chosen) -> None:
    names = list(trials[0].point)
    lines = []
    for trial in trials:
        accuracy, winner = trial.accuracy, chosen.get(trial.arm)
        spread = "" if accuracy is None or accuracy.std is None else f" ± {100 * accuracy.std:.1f}"
        lines.append(
            [
                trial.arm,
                *(trial.point[name] for name in names),
                "diverged" if accuracy is None else f"{100 * accuracy.mean:.1f}{spread}",
                f"{len(trial.by_seed)} of {len(trial.runs)}",
                "chosen" if winner and winner[0] is trial else "",
            ]
        )
    table(["arm", *(name.removeprefix("method.") for name in names), "validation %", "seeds", ""], lines)
    print("validation %: mean over seeds ± their standard deviation; the test set is not shown, and chose nothing.")
    for arm, (trial, _) in chosen.items():
        print(_lead_in_words(arm, trial, [one for one in trials if one.arm == arm]))
    for arm, (trial, fields) in chosen.items():
        print(f"\n{_toml(arm, trial, fields)}", end="")
    for arm in dict.fromkeys(trial.arm for trial in trials):
        if arm not in chosen:
            print(f"{display(arm, 60)}: every combination diverged with some seed, so that none is chosen.")


def _lead_in_words(arm: str, trial: Trial, trials: Sequence[Trial]) -> str:
    lead = tuning.lead(trials, trial)
    if lead is None:
        return f"{display(arm, 60)}: nothing to compare with."
    half = "" if lead.half is None else f" ± {100 * lead.half:.1f}"
    told = "told apart" if lead.clear else "not told apart"
    points, over = f"{100 * lead.points:.1f}{half} points", _in_words(lead.over.point)
    return f"{display(arm, 60)}: {points} above {over} (95 %, by seed): {told}."


def _as_json(trials: Sequence[Trial], chosen: Chosen) -> dict[str, Any]:
    return {
        "objective": OBJECTIVE,
        "trials": [
            {
                "arm": trial.arm,
                "settings": dict(trial.point),
                "runs": list(trial.runs.values()),
                OBJECTIVE: {str(seed): value for seed, value in trial.by_seed.items()},
                "mean": None if trial.accuracy is None else trial.accuracy.mean,
                "std": None if trial.accuracy is None else trial.accuracy.std,
                "chosen": trial.arm in chosen and chosen[trial.arm][0] is trial,
            }
            for trial in trials
        ],
        "chosen": {arm: fields for arm, (_, fields) in chosen.items()},
    }
