"""`dambench experts`: train experts before a run needs them, list them, delete them."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer
from typer import Argument, Option

from dambench.cli.arguments import Commands
from dambench.cli.options import DatasetSettings, Json, data_path, request_options
from dambench.cli.output import Watch, table
from dambench.cli.process import foreground
from dambench.cli.signals import EXIT_CODES, Interrupted
from dambench.core import config, cores, expert_files, files, registry, sanitize
from dambench.core.errors import BadInput, named
from dambench.core.events import Progressed, Warned
from dambench.core.protocol import preset
from dambench.core.units import duration, size

if TYPE_CHECKING:
    from dambench.matching.experts import ExpertTraining, Trajectories
    from dambench.training.problem import Notice

app = Commands(rich_markup_mode=None, help="Networks trained on the real images, whose trajectories are matched.")

FLAGS = {
    ("", "seed"): "--seed N",
    ("", "epochs"): "--epochs N",
    ("", "gsam"): "--optimiser gsam",
    ("", "schedule"): "--schedule SCORE",
    ("schedule", "score"): "--schedule SCORE",
}
"""Settings that have a flag of their own."""

SHOW_SECONDS = 0.25
"""Seconds between two signs of life."""


@app.command("train")
@request_options(network="the dataset's", data="", device="", threads="", protocol="no images are held out")
def train(
    dataset: Annotated[str, Option(help="See `dambench data list`.")],
    count: Annotated[int, Option(min=1, max=100_000, help="How many there shall be.")] = 100,
    epochs: Annotated[int | None, Option(help="Of each [default: sgd 50, gsam 100].")] = None,
    optimiser: Annotated[str, Option(help="sgd (MTT) or gsam (FTD, DATM, PAD).")] = "sgd",
    schedule: Annotated[
        str, Option(help="PAD's schedule of the images by el2n, grand or loss; none: every epoch sees all.")
    ] = "none",
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="lr=0.01, gsam.rho=0.01, schedule.growth=20, dataset.size=32, …"),
    ] = None,
    seed: Annotated[int, Option(help="Of the experts; runs of any seed share them.")] = 0,
    preprocessing: Annotated[str, Option(help="mean/std or zca.")] = "mean/std",
    precision: Annotated[str, Option(help="auto, fp32 or tf32 (GPU).")] = "auto",
    *,
    given: dict[str, Any],
    as_json: Json = False,
) -> int:
    """Train experts and keep them. Those that are there already are not trained again."""
    optimiser = named("optimiser", optimiser, ("sgd", "gsam"))
    schedule = named("schedule", schedule, ("none", "el2n", "grand", "loss"))
    space = cast(config.PreprocessingName, named("preprocessing", preprocessing, config.PREPROCESSINGS))
    groups = _settings(settings or [])
    for group, missing in (("gsam", optimiser == "sgd"), ("schedule", schedule == "none")):
        if groups[group] and missing:
            flag = "--optimiser gsam" if group == "gsam" else "--schedule"
            raise BadInput(f"--set {group}.… is for {flag}, which was not asked for.")
    with foreground() as here:
        from dambench import datasets, networks
        from dambench.matching import experts
        from dambench.training.policy import Policy, choose_device, choose_precision
        from dambench.training.problem import Problem, Seeds

        training = _training(optimiser, schedule, groups, seed, epochs)
        device = choose_device("auto" if given["device"] is None else given["device"])
        if choose_precision(precision, device) == "bf16":
            raise BadInput("--precision bf16 is of the images that a set is matched with: experts have fp32, or tf32.")
        wished = {"device": device, "cores": given["threads"] or cores.usable(), "shared_by": 1}
        execution = config.read(config.Execution, wished, "the request")
        policy = Policy.of(execution, choose_precision(precision, device), deterministic=False)
        choice = config.Choice(dataset, groups["dataset"])
        card = datasets.prepare(choice, data_path(given["data"]), here.watch.say)
        name = networks.settle(given["network"] or registry.load("datasets", dataset).NETWORK, card)
        experts.check(networks.build(name, card))
        rule = None if given["protocol"] is None else preset(given["protocol"]).hold_out
        held_out = None if rule is None else datasets.hold_out(card, rule)
        policy.apply()
        problem = Problem(
            real=datasets.open_parts(card, policy.device, space, held_out).train,
            card=card,
            ipc=1,
            seeds=Seeds(seed),
            build_network=lambda: networks.build(name, card),
            network=name,
            policy=policy,
            held_out=held_out.sha256 if held_out else "",
        )
        began = time.monotonic()
        try:
            key = _shown(experts.trajectories(problem, training, count), here.watch, card.notes, policy.used_bytes)
        except Interrupted as interrupt:
            here.watch.say(
                "stopped: the experts that were ready are kept, and the same command goes on with the others."
            )
            return EXIT_CODES[str(interrupt)]
        pool = expert_files.chosen(key)
    if as_json:
        print(json.dumps(msgspec.to_builtins(pool)))
    else:
        here.watch.say(f"{duration(time.monotonic() - began)}: {pool.count} experts, {size(pool.size_bytes)}")
        print(expert_files.folder(key))
    return 0


def _training(
    optimiser: str, schedule: str, groups: dict[str, dict[str, Any]], seed: int, epochs: int | None
) -> "ExpertTraining":
    """How experts are trained.

    Args:
        groups: of `--set`.
    """
    from dambench.matching import experts
    from dambench.training.train import Gsam

    usual = experts.MTT if optimiser == "sgd" else experts.FTD
    fields: dict[str, Any] = groups[""] | {"seed": seed, "epochs": usual.epochs if epochs is None else epochs}
    if optimiser == "gsam":
        fields["gsam"] = config.read(Gsam, groups["gsam"], "gsam")
    if schedule != "none":
        fields["schedule"] = config.read(experts.Schedule, groups["schedule"] | {"score": schedule}, "the schedule")
    return config.read(experts.ExpertTraining, fields, "the experts' training")


def _shown(
    steps: "Generator[Notice, None, Trajectories]", watch: Watch, notes: list[str], used_bytes: Callable[[], int]
) -> str:
    """Train to the end, and show how far it is. Returns the key of the experts."""
    shown = time.monotonic()
    with watch:
        for note in notes:
            watch.show(Warned(message=note))
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                return str(end.value.key)
            if isinstance(event, Warned):
                watch.show(event)
            elif isinstance(event, Progressed) and time.monotonic() - shown > SHOW_SECONDS:
                watch.show(msgspec.structs.replace(event, memory_bytes=used_bytes()))
                shown = time.monotonic()


def _settings(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """`--set` by what is set: dataset, gsam, schedule, or the training itself (an empty name)."""
    groups: dict[str, dict[str, Any]] = {"": {}, "dataset": {}, "gsam": {}, "schedule": {}}
    for pair in pairs:
        group, dot, rest = pair.partition(".")
        if not dot or "=" in group:
            group, rest = "", pair
        if group not in groups or "=" not in rest:
            raise BadInput(f"--set {pair!r} is not of the form NAME=VALUE, or gsam., schedule. or dataset.NAME=VALUE.")
        option = config.settings([f"method.{rest}"])["method"]
        (name,) = option
        if name in groups[group]:
            raise BadInput(f"--set {pair!r} says {name} once more: say it once.")
        if (group, name) in FLAGS:
            raise BadInput(f"--set {pair!r} is not how that is said: {FLAGS[group, name]}.")
        groups[group] |= option
    return groups


@app.command("import")
@request_options(network="the dataset's", data="")
def import_(
    paths: Annotated[list[Path], Argument(metavar="FILE…", help="MTT's replay_buffer_*.pt.")],
    dataset: Annotated[str, Option(help="What they were trained on. See `dambench data list`.")],
    preprocessing: Annotated[str, Option(help="mean/std or zca: what was done to the images.")] = "mean/std",
    settings: DatasetSettings = None,
    *,
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Keep experts that were trained elsewhere, to be followed by mtt, ftd, datm and pad."""
    chosen = named("preprocessing", preprocessing, config.PREPROCESSINGS)
    groups = _settings(settings or [])
    if groups[""] or groups["gsam"] or groups["schedule"]:
        raise BadInput("They are trained already: --set takes dataset.NAME=VALUE only.")
    watch = Watch()
    from dambench import datasets, networks
    from dambench.engine import experts_import

    card = datasets.prepare(config.Choice(dataset, groups["dataset"]), data_path(given["data"]), watch.say)
    if chosen == "zca":
        datasets.whitening(card, watch.say)
    name = networks.settle(given["network"] or registry.load("datasets", dataset).NETWORK, card)
    kept = None
    for done in experts_import.import_experts(paths, card, name, "zca" if chosen == "zca" else "mean/std"):
        if isinstance(done, str):
            watch.say(done)
        else:
            kept = done
    assert kept is not None
    if kept.better:
        other, share = kept.better
        watch.say(
            f"note: the first recognises {100 * kept.recognised:.1f} % of real images with {chosen}, and "
            f"{100 * share:.1f} % with {other}: if they were trained on these, import them again with "
            f"--preprocessing {other}."
        )
    words = ["dambench", "run", "--method", "mtt", "--dataset", dataset, "--network", name]
    words += [word for pair in settings or [] for word in ("--set", pair)] + (
        ["--data", given["data"]] if given["data"] else []
    )
    for setting in (f"experts_from={kept.key[:12]}", f"experts={kept.count}", f"epochs={kept.epochs}"):
        words += ["--set", f"method.{setting}"]
    facts: dict[str, object] = {
        "key": kept.key,
        "experts": kept.count,
        "epochs": kept.epochs,
        "network": name,
        "preprocessing": chosen,
        "recognised": kept.recognised,
        "command": shlex.join(words),
    }
    if as_json:
        print(json.dumps(facts))
        return
    facts["recognised"] = f"{100 * kept.recognised:.1f} % of real images, by the first"
    for fact, value in facts.items():
        if fact != "command":
            print(f"{fact:14}{value}")
    print(f"\n{sanitize.display(shlex.join(words), 2000)}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """What was trained on real images and kept, last used first."""
    pools = expert_files.listed()
    if as_json:
        print(json.dumps(msgspec.to_builtins(pools)))
        return
    table(
        ["key", "what", "dataset", "network", "how", "size", "last used"],
        [
            [
                pool.key[:12],
                f"{pool.count} × {pool.about.epochs} epochs" if pool.about.what == "trajectories" else pool.about.what,
                pool.about.dataset,
                pool.about.network,
                _how(pool.about),
                size(pool.size_bytes),
                f"{datetime.fromtimestamp(pool.used_at, UTC).astimezone():%Y-%m-%d %H:%M}",
            ]
            for pool in pools
        ],
    )
    whole = sum(pool.size_bytes for pool in pools)
    print(f"{size(whole)} in {str(files.experts_folder())!r}.", file=sys.stderr)


def _how(about: expert_files.About) -> str:
    how = about.how
    if "imported" in how:
        return f"imported, {how['preprocessing']}"
    if about.what == "scores":
        return f"mean of {how['scored_by']} networks after {about.epochs} epochs"
    if about.what == "network":
        return f"{about.epochs} epochs"
    parts = ["gsam" if how["gsam"] else "sgd", f"lr {how['lr']:g}", "" if how["augmented"] else "not augmented"]
    parts += [f"{how['schedule']['score']} schedule" if how["schedule"] else "", f"seed {how['seed']}"]
    return ", ".join(part for part in parts if part)


@app.command("delete")
def delete(
    keys: Annotated[list[str] | None, Argument(metavar="KEY…", help="Or their beginnings.")] = None,
    everything: Annotated[bool, Option("--all", help="All experts.")] = False,
    yes: Annotated[bool, Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove experts for good. A run that needs them trains them again; those that a run uses now stay."""
    if bool(keys) == everything:
        raise BadInput("Say which experts are to be deleted: keys, as `dambench experts list` shows them, or --all.")
    pools = expert_files.listed() if everything else [expert_files.chosen(key) for key in keys or []]
    amount = f"{len(pools)} kinds of experts, {size(sum(pool.size_bytes for pool in pools))}"
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput(f"This would delete {amount}, for good: add --yes.")
        if not typer.confirm(f"Delete {amount}, for good?", err=True):
            return 1
    for pool in pools:
        expert_files.delete(pool)
    print(f"Deleted: {amount}.", file=sys.stderr)
    return 0
