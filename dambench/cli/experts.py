"""`dambench experts`: train experts before a run needs them, list them, delete them."""

import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer
from rich.console import Console
from typer import Argument, Option

from dambench.cli.arguments import Commands
from dambench.cli.output import Watch, table
from dambench.cli.record import EXIT_CODES, Signals, Told
from dambench.core import allocator, config, expert_files, files, registry, sanitize
from dambench.core.errors import BadInput, named
from dambench.core.events import Progressed, Warned
from dambench.core.units import duration, size

app = Commands(rich_markup_mode=None, help="Networks trained on the real images, whose trajectories are matched.")

Json = Annotated[bool, Option("--json", help="JSON on stdout.")]

FLAGS = {
    ("", "seed"): "--seed N",
    ("", "epochs"): "--epochs N",
    ("", "gsam"): "--optimiser gsam",
    ("", "schedule"): "--schedule SCORE",
    ("schedule", "score"): "--schedule SCORE",
}
"""Settings that have a flag of their own."""

SILENCE = 0.25
"""Seconds between two signs of life."""


@app.command("train")
def train(
    dataset: Annotated[str, Option(help="See `dambench data list`.")],
    network: Annotated[str | None, Option(help="Such as convnet-d3-w128 [default: the dataset's].")] = None,
    count: Annotated[int, Option(min=1, max=100_000, help="How many there shall be.")] = 100,
    epochs: Annotated[int | None, Option(help="Of each [default: sgd 50, gsam 100].")] = None,
    optimiser: Annotated[str, Option(help="sgd (MTT) or gsam (FTD, DATM, PAD).")] = "sgd",
    schedule: Annotated[
        str, Option(help="PAD's schedule of the images by el2n, grand or loss; none: every epoch sees all.")
    ] = "none",
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="lr=0.01, gsam.rho=0.01, schedule.growth=20, dataset.size=32, …"),
    ] = None,
    seed: Annotated[int, Option(help="Of the experts; runs of any seed share them.")] = 0,
    preprocessing: Annotated[str, Option(help="mean/std or zca.")] = "mean/std",
    data: Annotated[str | None, Option(help="Where raw data are [default: DAMBENCH_DATA].")] = None,
    device: Annotated[str, Option(help="auto, cpu or cuda:N.")] = "auto",
    threads: Annotated[int, Option(help="CPU threads [default: torch's choice].")] = 0,
    precision: Annotated[str, Option(help="auto, fp32 or tf32 (GPU).")] = "auto",
    as_json: Json = False,
) -> int:
    """Train experts and keep them. Those that are there already are not trained again."""
    optimiser = named("optimiser", optimiser, ("sgd", "gsam"))
    schedule = named("schedule", schedule, ("none", "el2n", "grand", "loss"))
    space = cast(config.PreprocessingName, named("preprocessing", preprocessing, config.PREPROCESSINGS))
    said = _settings(set_ or [])
    for group, missing in (("gsam", optimiser == "sgd"), ("schedule", schedule == "none")):
        if said[group] and missing:
            flag = "--optimiser gsam" if group == "gsam" else "--schedule"
            raise BadInput(f"--set {group}.… is for {flag}, which was not asked for.")
    watch = Watch(Console(stderr=True, highlight=False))
    os.environ.setdefault("GOMP_SPINCOUNT", allocator.SPINS)  # read when torch is imported
    with Signals(say=watch.say):
        from dambench import datasets, networks
        from dambench.matching import experts
        from dambench.training.policy import Policy, choose_device, choose_precision
        from dambench.training.problem import Problem, Seeds
        from dambench.training.train import Gsam

        usual = experts.MTT if optimiser == "sgd" else experts.FTD
        parts: dict[str, Any] = said[""] | {"seed": seed, "epochs": usual.epochs if epochs is None else epochs}
        if optimiser == "gsam":
            parts["gsam"] = config.read(Gsam, said["gsam"], "gsam")
        if schedule != "none":
            parts["schedule"] = config.read(experts.Schedule, said["schedule"] | {"score": schedule}, "the schedule")
        how = config.read(experts.ExpertTraining, parts, "the experts' training")
        place = data or os.environ.get("DAMBENCH_DATA")
        on = choose_device(device)
        if choose_precision(precision, on) == "bf16":
            raise BadInput("--precision bf16 is of the images that a set is matched with: experts have fp32, or tf32.")
        where = config.read(config.Where, {"device": on, "threads": threads}, "the request")
        policy = Policy.of(where, choose_precision(precision, on), deterministic=False)
        choice = config.Choice(dataset, said["dataset"])
        card = datasets.prepare(choice, files.user_path(place) if place else None, watch.say)
        name = networks.settle(network or registry.load("datasets", dataset).NETWORK, card)
        experts.check(networks.build(name, card))
        policy.apply()
        problem = Problem(
            real=datasets.open_sets(card, policy.device, space)[0],
            card=card,
            ipc=1,
            seeds=Seeds(seed),
            build_network=lambda: networks.build(name, card),
            network=name,
            policy=policy,
        )
        began = heard = time.monotonic()
        steps = experts.trajectories(problem, how, count)
        try:
            with watch:
                for note in card.notes:
                    watch.hear(Warned(message=note))
                while True:
                    event = next(steps)
                    if isinstance(event, Warned):
                        watch.hear(event)
                    elif isinstance(event, Progressed) and time.monotonic() - heard > SILENCE:
                        watch.hear(msgspec.structs.replace(event, memory_bytes=policy.used_bytes()))
                        heard = time.monotonic()
        except StopIteration as end:
            key = end.value.key
        except Told as told:
            watch.say("stopped: the experts that were ready are kept, and the same command goes on with the others.")
            return EXIT_CODES[str(told)]
        pool = expert_files.chosen(key)
    if as_json:
        print(json.dumps(msgspec.to_builtins(pool)))
    else:
        watch.say(f"{duration(time.monotonic() - began)}: {pool.count} experts, {size(pool.size_bytes)}")
        print(expert_files.folder(key))
    return 0


def _settings(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """`--set` by what is set: dataset, gsam, schedule, or the training itself (an empty name)."""
    found: dict[str, dict[str, Any]] = {"": {}, "dataset": {}, "gsam": {}, "schedule": {}}
    for pair in pairs:
        group, dot, rest = pair.partition(".")
        if not dot or "=" in group:
            group, rest = "", pair
        if group not in found or "=" not in rest:
            raise BadInput(f"--set {pair!r} is not of the form NAME=VALUE, or gsam., schedule. or dataset.NAME=VALUE.")
        option = config.settings([f"method.{rest}"])["method"]
        (name,) = option
        if name in found[group]:
            raise BadInput(f"--set {pair!r} says {name} once more: say it once.")
        if (group, name) in FLAGS:
            raise BadInput(f"--set {pair!r} is not how that is said: {FLAGS[group, name]}.")
        found[group] |= option
    return found


@app.command("import")
def import_(
    paths: Annotated[list[Path], Argument(metavar="FILE…", help="MTT's replay_buffer_*.pt.")],
    dataset: Annotated[str, Option(help="What they were trained on. See `dambench data list`.")],
    network: Annotated[str | None, Option(help="Such as convnet-d3-w128 [default: the dataset's].")] = None,
    preprocessing: Annotated[str, Option(help="mean/std or zca: what was done to the images.")] = "mean/std",
    set_: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="dataset.size=32, …")] = None,
    data: Annotated[str | None, Option(help="Where raw data are [default: DAMBENCH_DATA].")] = None,
    as_json: Json = False,
) -> None:
    """Keep experts that were trained elsewhere, to be followed by mtt, datm and pad."""
    chosen = named("preprocessing", preprocessing, config.PREPROCESSINGS)
    said = _settings(set_ or [])
    if said[""] or said["gsam"] or said["schedule"]:
        raise BadInput("They are trained already: --set takes dataset.NAME=VALUE only.")
    watch = Watch(Console(stderr=True, highlight=False))
    from dambench import datasets, networks
    from dambench.engine import experts_import

    place = data or os.environ.get("DAMBENCH_DATA")
    card = datasets.prepare(
        config.Choice(dataset, said["dataset"]), files.user_path(place) if place else None, watch.say
    )
    if chosen == "zca":
        datasets.whitening(card, watch.say)
    name = networks.settle(network or registry.load("datasets", dataset).NETWORK, card)
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
    words += [word for pair in set_ or [] for word in ("--set", pair)] + (["--data", data] if data else [])
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
    found = expert_files.listed()
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
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
            for pool in found
        ],
    )
    whole = sum(pool.size_bytes for pool in found)
    print(f"{size(whole)} in {str(files.experts_folder())!r}.", file=sys.stderr)


def _how(about: expert_files.About) -> str:
    how = about.how
    if "imported" in how:
        return f"imported, {how['preprocessing']}"
    if about.what == "scores":
        return f"mean of {how['scored_by']} networks after {about.epochs} epochs"
    if about.what == "network":
        return f"{about.epochs} epochs"
    said = ["gsam" if how["gsam"] else "sgd", f"lr {how['lr']:g}", "" if how["augmented"] else "not augmented"]
    said += [f"{how['schedule']['score']} schedule" if how["schedule"] else "", f"seed {how['seed']}"]
    return ", ".join(part for part in said if part)


@app.command("delete")
def delete(
    keys: Annotated[list[str] | None, Argument(metavar="KEY…", help="Or their beginnings.")] = None,
    everything: Annotated[bool, Option("--all", help="All experts.")] = False,
    yes: Annotated[bool, Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove experts for good. A run that needs them trains them again; those that a run uses now stay."""
    if bool(keys) == everything:
        raise BadInput("Say which experts are to be deleted: keys, as `dambench experts list` shows them, or --all.")
    found = expert_files.listed() if everything else [expert_files.chosen(key) for key in keys or []]
    what = f"{len(found)} kinds of experts, {size(sum(pool.size_bytes for pool in found))}"
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput(f"This would delete {what}, for good: add --yes.")
        if not typer.confirm(f"Delete {what}, for good?", err=True):
            return 1
    for pool in found:
        expert_files.delete(pool)
    print(f"Deleted: {what}.", file=sys.stderr)
    return 0
