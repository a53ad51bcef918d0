"""Settle a request: with the recipe, the data and the device it becomes a Job, in which nothing is open."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from dambench import datasets, networks
from dambench.core import files, registry
from dambench.core.config import (
    PREPROCESSINGS,
    Choice,
    Execution,
    Options,
    Plugin,
    PreprocessingName,
    Recipe,
    Request,
    RunConfig,
    SetRef,
    read,
)
from dambench.core.contracts import Evaluator, Method
from dambench.core.errors import BadInput, about, named
from dambench.core.events import (
    DataCard,
    Environment,
)
from dambench.core.protocol import preset
from dambench.training.policy import STACK, Policy, choose_compiling, choose_device, choose_precision, micro_batch

DATA = "DAMBENCH_DATA"
"""In the environment: where raw data are, if the request does not say."""

MOST_PIXELS = 128 * 128
"""Of an image that can be turned by a matrix."""


@dataclass(frozen=True)
class Job:
    """A run that can begin: nothing is left open, and its data are ready."""

    config: RunConfig
    card: DataCard
    recipe: Recipe | None
    method: Method
    options: Options
    evaluator: Evaluator
    evaluator_options: Options
    policy: Policy
    overrides: dict[str, Any]
    """The method's settings that differ from the recipe's, its network and preprocessing if they do, and the recipe's
    name if that is not the default."""
    notes: list[str]
    """What was asked for and has no effect."""

    def with_seed(self, seed: int) -> "Job":
        """The same run under another seed: on nothing else that was settled does it depend."""
        return replace(self, config=msgspec.structs.replace(self.config, seed=seed))


def prepare(request: Request, say: Callable[[str], None] = lambda text: None) -> Job:
    """Settle a request: recipe below, the request on top, the data and the device looked at.

    Args:
        say: hears what takes long.

    Raises:
        BadInput: it cannot be met.
    """
    wanted, dataset = _found("methods", request.choice("method")), _found("datasets", request.choice("dataset"))
    with about("method"):
        method = registry.load("methods", wanted.name)
    protocol = preset("quick" if request.protocol is None else request.protocol)
    device = choose_device("auto" if request.device is None else request.device)
    on_gpu = device != "cpu"
    precision = choose_precision(request.precision, device)
    choose_compiling(request.compile, device, 0, False)
    notes = []
    asked = wanted.options
    if request.iterations is not None:
        if "iterations" in method.Options.__struct_fields__:
            asked = asked | {"iterations": request.iterations}
        else:
            notes.append(f"The method {wanted.name} has no iterations: --iterations has no effect.")
    # What needs no data is looked at before they are prepared, which may take minutes.
    read(method.Options, asked, f"method {wanted.name}", "method")
    asked_recipe = request.recipe
    if asked_recipe is not None:
        with about("recipe"):
            asked_recipe = named(f"recipe of {wanted.name}", asked_recipe, {recipe.name for recipe in method.RECIPES})
    if request.network is not None:
        with about("network"):
            networks.parse(request.network)
    with about("evaluate_on"):
        for name in request.evaluate_on or []:
            networks.members(name)
    asked_preprocessing = request.preprocessing
    if asked_preprocessing is not None:
        with about("preprocessing"):
            asked_preprocessing = named("preprocessing", asked_preprocessing, PREPROCESSINGS)
    with about("data"):
        data = files.user_path(request.data) if request.data else None
    files.can_keep_sets()
    with about("dataset"):
        card = datasets.prepare(dataset, data, say)
    if request.deterministic and on_gpu and card.height * card.width > MOST_PIXELS:
        raise BadInput(
            f"--deterministic on a GPU turns images by a matrix, which {card.height}×{card.width} images are too large "
            "for: leave it out, or use --device cpu.",
            field="deterministic",
        )
    ipc = _ipc(request.ipc, wanted.name, card)
    if request.ipc is not None and ipc is None:
        notes.append(f"The method whole takes every image: --ipc {request.ipc} has no effect.")
    recipe = _recipe(method, wanted.name, asked_recipe, dataset.name, ipc)
    chosen = (recipe.options if recipe else {}) | asked
    options: Options = read(method.Options, chosen, f"method {wanted.name}", "method")
    brought: PreprocessingName | None = None
    if settle := getattr(method, "settle", None):
        with about("method"):
            options, brought = settle(options, card, ipc)
    if brought and asked_preprocessing not in (None, brought):
        raise BadInput(
            f"--preprocessing {asked_preprocessing} was said, but what {wanted.name} is to use was made with "
            f"{brought}: leave it out.",
            field="preprocessing",
        )
    preprocessing = asked_preprocessing or brought or (recipe.preprocessing if recipe else "mean/std")
    if preprocessing == "zca":
        with about("preprocessing"):
            datasets.whitening(card, say)
    usual = registry.load("datasets", dataset.name).NETWORK
    with about("network"):
        if request.network is None:
            network = _network_of(recipe, usual, card)
        else:
            network = networks.settle(request.network, card, recipe.norm if recipe else "")
        networks.build(network, card)
    with about("evaluate_on"):
        evaluate_on = networks.settle_all(request.evaluate_on or [_plain(network, card)], card, network)
        for name in evaluate_on:
            networks.build(name, card)
    if not method.MATCHES_ON_NETWORK:
        network = ""
        if request.network:
            notes.append(f"The method {wanted.name} matches on no network: --network decides its evaluation only.")
    settings = _fields(options) | {"preprocessing": preprocessing}
    settings |= {"network": network} if network else {}
    recipe, overrides = _nearest(method, dataset.name, ipc, settings, partial(_network_of, usual=usual, card=card))
    compiled = False
    if method.MATCHES_ON_NETWORK:
        matched = networks.build(network, card)
        with about("network"), registry.foreign("methods", wanted.name):
            method.check(matched, options)
        batch_norm = matched.uses_batch_statistics
        compiled, note = choose_compiling(request.compile, device, getattr(options, "iterations", 0), batch_norm)
        notes += [note] if note else []
        if precision == "bf16" and not method.REDUCED_PRECISION:
            precision = choose_precision(None, device)
            notes.append(f"The method {wanted.name} computes nothing in bfloat16: --precision bf16 has no effect.")
        if compiled and not getattr(options, "iterations", 0):
            compiled = False
            notes.append(f"The method {wanted.name} has no iterations: --compile has no effect.")
        if precision == "bf16":
            overrides["precision"] = precision
    elif precision == "bf16" or request.compile == "on":
        precision = choose_precision(None if precision == "bf16" else precision, device)
        notes.append(
            f"The method {wanted.name} matches on no network: --precision and --compile are for those that do."
        )
    every, total = request.evaluate_every or 0, getattr(options, "iterations", 0)
    if every and every >= total:
        only = f"has {total} iterations" if total else "has no iterations"
        notes.append(f"The run {only}: --evaluate-every {every} has no effect, it is evaluated at its end.")
        every = 0
    if data and registry.load("datasets", dataset.name).SOURCE == "package" and request.data != os.environ.get(DATA):
        notes.append(f"The dataset {dataset.name} comes with a package: --data has no effect.")
    chunk = micro_batch(device, networks.map_bytes(network, card)) if network else 0
    repeats = 5 if request.eval_repeats is None else request.eval_repeats
    execution = Execution(
        data=os.path.realpath(data) if data else "",
        device=device,
        threads=request.threads or 0,
        compiled=compiled,
        real_chunk=chunk,
        synthetic_chunk=chunk,
        stack=min(repeats, STACK) if on_gpu else 1,
        checkpoint_every=Execution().checkpoint_every if request.checkpoint_every is None else request.checkpoint_every,
    )
    config = read(
        RunConfig,
        {
            "dataset": Choice(dataset.name, dataset.options),
            "method": Choice(wanted.name, _fields(options)),
            "network": network,
            "ipc": ipc,
            "protocol": protocol,
            "evaluate_on": evaluate_on,
            "eval_repeats": repeats,
            "evaluate_every": every,
            "seed": request.seed or 0,
            "deterministic": bool(request.deterministic),
            "precision": precision,
            "preprocessing": preprocessing,
            "method_version": method.VERSION,
            "plugins": _plugins(
                {("methods", wanted.name), ("datasets", dataset.name), *_families([network, *evaluate_on])}
            ),
            "execution": execution,
        },
        "the run",
    )
    policy = Policy.of(config.execution, config.precision, config.deterministic)
    evaluator = registry.load("evaluators", config.evaluator.name)
    return Job(config, card, recipe, method, options, evaluator, evaluator.Options(), policy, overrides, notes)


def reopen(
    config: RunConfig,
    dataset_sha256: str,
    recipe: str,
    overrides: dict[str, Any],
    before: Environment | None,
    say: Callable[[str], None],
    *,
    only_its_set: bool = False,
) -> Job:
    """A run that was begun, to go on with, in the same way.

    Args:
        recipe: its source.
        before: what it was begun in.
        only_its_set: it is finished, and its set is to be evaluated: the code that made it is not needed.

    Raises:
        BadInput: it cannot go on here: its method, data or device are not there, or the code or the data are others
            now.
    """
    method = registry.load("methods", config.method.name)
    if not only_its_set:
        _check_code(config, say)
    options: Options = read(method.Options, config.method.options, f"method {config.method.name}")
    choose_device(config.execution.device)
    files.can_keep_sets()
    card = datasets.prepare(
        config.dataset, files.user_path(config.execution.data) if config.execution.data else None, say
    )
    if card.sha256 != dataset_sha256:
        raise BadInput(
            f"The run began on other data: {card.label} was {dataset_sha256[:8]}… and is {card.sha256[:8]}… now. "
            "Begin a new run."
        )
    # As many threads as then, also where there are more cores: sums are in the order of threads.
    threads = before.threads if before and config.execution.device == "cpu" else config.execution.threads
    policy = Policy.of(
        msgspec.structs.replace(config.execution, threads=threads), config.precision, config.deterministic
    )
    settings_of = Recipe(source=recipe) if recipe else None
    evaluator = registry.load("evaluators", config.evaluator.name)
    evaluator_options = read(evaluator.Options, config.evaluator.options, f"evaluator {config.evaluator.name}")
    return Job(config, card, settings_of, method, options, evaluator, evaluator_options, policy, overrides, [])


def evaluation(job: Job, request: Request, made: SetRef, evaluator_name: str = "accuracy") -> Job:
    """A run that only evaluates what a finished one has made: on other networks, more of them, by another protocol.

    Args:
        job: the finished run, as `reopen` gives it.
        made: its set.
        request: `evaluate_on`, `eval_repeats`, `protocol`, `device` and `threads` are looked at.

    Raises:
        BadInput: it cannot be met.
    """
    config = job.config
    device = choose_device(request.device or config.execution.device)
    names = [*(request.evaluate_on or config.evaluate_on)]
    evaluate_on = networks.settle_all(names, job.card, config.network or config.evaluate_on[0])
    for name in evaluate_on:
        networks.build(name, job.card)
    evaluator = registry.load("evaluators", evaluator_name)
    evaluator_options = evaluator.Options()
    repeats = request.eval_repeats or config.eval_repeats
    execution = msgspec.structs.replace(
        config.execution,
        device=device,
        threads=request.threads or 0,
        stack=1 if device == "cpu" else min(repeats, STACK),
        made=made.sha256,
        made_after=made.iteration,
    )
    # Of networks that of the one that is matched on, which may be trained here, too.
    matched = config.network and networks.family(config.network)
    kept = [p for p in config.plugins if p.kind in ("methods", "datasets") or (p.kind, p.name) == ("networks", matched)]
    changed = msgspec.structs.replace(
        config,
        evaluate_on=evaluate_on,
        eval_repeats=repeats,
        evaluate_every=0,
        plugins=(*kept, *_plugins({("evaluators", evaluator.name), *_families(evaluate_on)})),
        protocol=config.protocol if request.protocol is None else preset(request.protocol),
        precision=config.precision if config.precision == "bf16" else choose_precision(None, device),
        execution=execution,
        evaluator=Choice(evaluator.name, _fields(evaluator_options)),
        evaluator_version=evaluator.VERSION,
    )
    return replace(
        job,
        config=changed,
        policy=Policy.of(execution, changed.precision, changed.deterministic),
        evaluator=evaluator,
        evaluator_options=evaluator_options,
    )


def _found(kind: registry.Kind, choice: Choice) -> Choice:
    """The same choice, its name written as the registry has it: that one is stored and hashed."""
    with about(kind.removesuffix("s")):
        return Choice(registry.find(kind, choice.name), choice.options)


def _fields(options: Options) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__struct_fields__}


@about("ipc")
def _ipc(asked: int | None, method: str, card: DataCard) -> int | None:
    if method == "whole":
        return None
    ipc = 1 if asked is None else asked
    smallest = min(card.train_counts)
    if ipc > smallest:
        name = card.classes[card.train_counts.index(smallest)]
        raise BadInput(f"--ipc {ipc} is too many: class {name!r} of {card.label} has {smallest} training images.")
    return ipc


@about("recipe")
def _recipe(method: Method, name: str, wanted: str | None, dataset: str, ipc: int | None) -> Recipe | None:
    """The first recipe of that name that fits; without a name, the first `default` one."""
    called = [recipe for recipe in method.RECIPES if recipe.name == ("default" if wanted is None else wanted)]
    fitting = [recipe for recipe in called if recipe.fits(dataset, ipc or 1)]
    if wanted is not None and not fitting:
        raise BadInput(f"The recipe {wanted!r} of {name} is not for {dataset} at IPC {ipc}.")
    return fitting[0] if fitting else None


def _network_of(recipe: Recipe | None, usual: str, card: DataCard) -> str:
    """The full name of the network that a recipe matches on.

    Args:
        usual: the dataset's, for a recipe that names none.
    """
    return networks.settle((recipe.network if recipe else "") or usual, card, recipe.norm if recipe else "")


def _nearest(
    method: Method,
    dataset: str,
    ipc: int | None,
    settings: dict[str, Any],
    network_of: Callable[[Recipe | None], str],
) -> tuple[Recipe | None, dict[str, Any]]:
    """The recipe that settings are told by, and how they are told: its name, and what differs from it.

    It is the one that they are, or else that with the fewest differences. So the same settings are told in the same
    way, whether they came by a recipe or one by one.
    """
    fitting: dict[str, Recipe | None] = {}
    for one in method.RECIPES:
        if one.fits(dataset, ipc or 1):
            fitting.setdefault(one.name, one)
    found: list[tuple[int, Recipe | None, dict[str, Any]]] = []
    for name, recipe in ({"default": None} | fitting).items():
        standard = _fields(read(method.Options, recipe.options if recipe else {}, f"the recipe {name}"))
        standard["preprocessing"] = recipe.preprocessing if recipe else "mean/std"
        if "network" in settings:
            with suppress(BadInput):  # it does not suit these images: then it is none that could have been meant
                standard["network"] = network_of(recipe)
        told = {key: value for key, value in settings.items() if value != standard.get(key)}
        weight = len(told) + (name != "default") if told else 0
        found.append((weight, recipe, told | ({"recipe": name} if name != "default" else {})))
    _, nearest, overrides = min(found, key=lambda candidate: candidate[0])
    return nearest, overrides


def _families(names: Iterable[str]) -> set[tuple[registry.Kind, str]]:
    """What these networks, by their full names, are of."""
    return {("networks", networks.family(name)) for name in names if name}


def _plugins(parts: Iterable[tuple[registry.Kind, str]]) -> tuple[Plugin, ...]:
    """The code from outside among what a run depends on."""
    found = (registry.origin(kind, name) for kind, name in sorted(parts))
    return tuple(plugin for plugin in found if plugin is not None)


def _check_code(config: RunConfig, say: Callable[[str], None]) -> None:
    """See that what goes on with a run is the code that began it.

    Raises:
        BadInput: it is not; what changed is said.
    """
    parts = {("evaluators", config.evaluator.name), *_families(config.evaluate_on)}
    if not config.evaluates:  # else the set is there, and is only measured
        parts |= {("methods", config.method.name), ("datasets", config.dataset.name), *_families([config.network])}
    now = {(plugin.kind, plugin.name): plugin for plugin in _plugins(parts)}
    then = {(p.kind, p.name): p for p in config.plugins if not config.evaluates or (p.kind, p.name) in parts}
    version = registry.load("methods", config.method.name).VERSION
    if version != config.method_version and not config.evaluates:
        raise BadInput(
            f"The run began with version {config.method_version} of {config.method.name}, and this is version "
            f"{version}, which makes other sets. Begin a new run, or go on with the dambench that began it."
        )
    version = registry.load("evaluators", config.evaluator.name).VERSION
    if version != config.evaluator_version:
        raise BadInput(
            f"The run began with version {config.evaluator_version} of {config.evaluator.name}, and this is version "
            f"{version}, which gives other numbers. Begin a new run, or go on with the dambench that began it."
        )
    for key, plugin in now.items():
        before = then.get(key)
        what = f"The {plugin.kind.removesuffix('s')} {plugin.name}"
        if before is None and not then:
            say(f"{what} is from outside, and it is not on record which code of it began the run.")
        elif before != plugin:
            was = _code(before) if before else "built in"
            raise BadInput(
                f"{what} is other code now: the run began with {was}, and this is {_code(plugin)}. Begin a new run, or "
                "bring back the code that began it."
            )
    for key in then.keys() - now.keys():
        raise BadInput(
            f"The {key[0].removesuffix('s')} {key[1]} is built in now: the run began with {_code(then[key])}. Begin a "
            "new run."
        )


def _code(plugin: Plugin) -> str:
    return f"{plugin.package or 'an unknown package'} {plugin.version}".strip() + f", source {plugin.sha256[:8]}"


def _plain(network: str, card: DataCard) -> str:
    """The network that is evaluated on where none is named: the matching ConvNet with instance norm.

    (A set is comparable only on the same network, whatever norm it was matched with. Networks of other families
    fall back to the ConvNet that suits the images.)
    """
    module, options = networks.parse(network)
    if module.name != "convnet":
        return networks.settle("convnet", card)
    return networks.spell(module, module.Options(**{key: getattr(options, key) for key in ("depth", "width")}))
