"""Settle a request: with the recipe, the data and the device it becomes a Job, in which nothing is open."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from dambench import datasets, networks
from dambench.core import files, overrides, registry
from dambench.core.config import (
    LATER,
    PREPROCESSINGS,
    Choice,
    Execution,
    HeldOut,
    Options,
    Plugin,
    Precision,
    PreprocessingName,
    Recipe,
    Request,
    RunConfig,
    SetRef,
    read,
)
from dambench.core.contracts import Method
from dambench.core.errors import BadInput, about, named
from dambench.core.events import (
    DataCard,
    Environment,
)
from dambench.core.hard_labels import wants_twin
from dambench.core.protocol import USUAL, Protocol, preset, unrounded
from dambench.engine.job import Job
from dambench.engine.sharing import check_shares, shared
from dambench.engine.threads import with_threads
from dambench.training.policy import (
    STACK,
    Policy,
    choose_compiling,
    choose_device,
    choose_devices,
    choose_precision,
    has_bf16,
    micro_batch,
)
from dambench.training.problem import mosaic_fault

DATA = "DAMBENCH_DATA"
"""In the environment: where raw data are, if the request does not say."""

MOST_WARPED_PIXELS = 128 * 128
"""Largest image that can be turned by a matrix."""


@dataclass(frozen=True)
class _MethodChoice:
    """A method and its settings."""

    name: str
    method: Method
    ipc: int | None
    recipe: Recipe | None
    """Whose settings stand where none were given."""
    options: Options
    preprocessing: PreprocessingName | None
    """None: nobody has asked for one."""
    notes: list[str]

    @property
    def iterations(self) -> int:
        return int(getattr(self.options, "iterations", 0))

    @property
    def needs_network(self) -> bool:
        with registry.guarded("methods", self.name):
            return bool(self.method.needs_network(self.options))


def prepare(request: Request, say: Callable[[str], None] = lambda text: None) -> Job:
    """Settle a request: recipe below, the request on top, the data and the device looked at.

    Args:
        say: hears what takes long.

    Raises:
        BadInput: it cannot be met.
    """
    # What needs no data comes before they are prepared, which may take minutes.
    method_name, dataset = (_registered(kind, request.choice(kind)) for kind in ("method", "dataset"))
    wants_twin(request)
    devices = choose_devices("auto" if request.device is None else request.device, request.ranks)
    device = devices[0]
    protocol, protocol_notes = _settle_protocol(preset(USUAL if request.protocol is None else request.protocol), device)
    choose_precision(request.precision, device)
    choose_compiling(request.compile, device, 0, False)
    chosen = _choose_method(request, method_name, dataset.name)
    check_shares(chosen.name, chosen.method, devices)
    _check_teacher(protocol, chosen.method, chosen.options)
    _check_network_names(request)
    with about("data"):
        data = files.user_path(request.data) if request.data else None
    files.can_keep_sets()
    with about("dataset"):
        card = datasets.prepare(dataset, data, say)
    _check_device(request, card, device)
    held_out, hold_out_notes = _settle_hold_out(protocol, chosen, card)
    _check_ipc(chosen.ipc, card, held_out)
    chosen, preprocessing = _settle_files(chosen, card, held_out)
    _check_preprocessing(chosen, preprocessing, card)
    if preprocessing == "zca":
        with about("preprocessing"):
            datasets.whitening(card, say, held_out)
    usual_network = registry.load("datasets", dataset.name).NETWORK
    network, evaluate_on, network_notes = _settle_networks(request, chosen, usual_network, card)
    settings: dict[str, Any] = {"preprocessing": preprocessing} | ({"network": network} if network else {})
    network_of = partial(_network_of, usual=usual_network, card=card)
    recipe, changed_options, changed_settings = _nearest_recipe(chosen, dataset.name, settings, network_of)
    precision, compiled, computing_notes = _settle_computing(request, chosen, network, card, device)
    if precision == "bf16":
        changed_settings["precision"] = precision
    evaluate_every, evaluation_notes = _settle_evaluate_every(request, chosen.iterations)
    repeats = 5 if request.eval_repeats is None else request.eval_repeats
    chunk = micro_batch(device, networks.map_bytes(network, card)) if network else 0
    config = RunConfig(
        dataset=dataset,
        method=Choice(chosen.name, _fields(chosen.options)),
        network=network,
        ipc=chosen.ipc,
        protocol=protocol,
        evaluate_on=evaluate_on,
        eval_repeats=repeats,
        evaluate_every=evaluate_every,
        seed=request.seed or 0,
        deterministic=bool(request.deterministic),
        precision=precision,
        preprocessing=preprocessing,
        method_version=chosen.method.VERSION,
        held_out=held_out,
        plugins=_plugins({("methods", chosen.name), ("datasets", dataset.name), *_families([network, *evaluate_on])}),
        execution=_settle_execution(request, device, repeats, data=data, compiled=compiled, chunk=chunk),
    )
    config = msgspec.structs.replace(config, execution=with_threads(config, card))
    notes = [*chosen.notes, *protocol_notes, *network_notes, *computing_notes, *evaluation_notes, *hold_out_notes]
    evaluator = registry.load("evaluators", config.evaluator.name)
    job = Job(
        config=config,
        card=card,
        recipe=recipe,
        method=chosen.method,
        options=chosen.options,
        evaluator=evaluator,
        evaluator_options=evaluator.Options(),
        policy=Policy.of(config.execution, precision, config.deterministic),
        changed_options=changed_options,
        changed_settings=changed_settings,
        notes=[*notes, *_data_notes(request, dataset.name)],
    )
    return shared(job, devices)


def _check_preprocessing(chosen: _MethodChoice, preprocessing: PreprocessingName, card: DataCard) -> None:
    _check_factor(getattr(chosen.options, "factor", 1), preprocessing, card)
    _check_pixels(chosen.method, preprocessing)


def _choose_method(request: Request, choice: Choice, dataset: str) -> _MethodChoice:
    """The method with its options, by the recipe and by what was given."""
    name, given, notes = choice.name, dict(choice.options), []
    with about("method"):
        method = registry.load("methods", name)
    if request.iterations is not None:
        if "iterations" in method.Options.__struct_fields__:
            given["iterations"] = request.iterations
        else:
            notes.append(f"The method {name} has no iterations: --iterations has no effect.")
    ipc = None if name == "whole" else request.ipc or 1
    if request.ipc is not None and ipc is None:
        notes.append(f"The method whole takes every image: --ipc {request.ipc} has no effect.")
    recipe = _recipe(method, name, request.recipe, dataset, ipc)
    with about("preprocessing"):
        requested = request.preprocessing
        preprocessing = None if requested is None else named("preprocessing", requested, PREPROCESSINGS)
    return _MethodChoice(
        name=name,
        method=method,
        ipc=ipc,
        recipe=recipe,
        options=read(method.Options, (recipe.options if recipe else {}) | given, f"method {name}", "method"),
        preprocessing=cast(PreprocessingName | None, preprocessing),
        notes=notes,
    )


def _settle_protocol(protocol: Protocol, device: str) -> tuple[Protocol, list[str]]:
    """The protocol that this device can carry out, and a note where it is another: its scores are of that one."""
    if protocol.precision == "fp32" or has_bf16(device):
        return protocol, []
    instead = unrounded(protocol)
    note = (
        f"The protocol {protocol.name} trains in bfloat16, and this {'processor' if device == 'cpu' else 'GPU'} has "
        f"none: the run is under {instead.label}, in float32, and its scores stand in that row."
    )
    return instead, [note]


@about("protocol")
def _check_teacher(protocol: Protocol, method: Method, options: Options) -> None:
    if protocol.labels != "teacher":
        return
    with registry.guarded("methods", method.name):
        names_teacher = method.names_teacher(options)
    if not names_teacher:
        instead = "take another protocol, or a method whose sets do"
        if method.name == "random":
            instead = "take another protocol, or --set method.teacher_epochs=60, and they do"
        raise BadInput(
            f"The protocol {protocol.name} trains with the labels of a teacher, and sets of {method.name} name none: "
            f"{instead}."
        )


def _check_network_names(request: Request) -> None:
    with about("network"):
        if request.network is not None:
            networks.parse(request.network)
    with about("evaluate_on"):
        for name in request.evaluate_on or []:
            networks.members(name)


@about("deterministic")
def _check_device(request: Request, card: DataCard, device: str) -> None:
    if request.deterministic and device != "cpu" and card.height * card.width > MOST_WARPED_PIXELS:
        raise BadInput(
            f"--deterministic on a GPU turns images by a matrix, which {card.height}×{card.width} images are too large "
            "for: leave it out, or use --device cpu."
        )


def _settle_hold_out(protocol: Protocol, chosen: _MethodChoice, card: DataCard) -> tuple[HeldOut | None, list[str]]:
    """The validation images that the set is made without, and notes.

    Raises:
        BadInput: a class is too small to hold any out.
    """
    if protocol.hold_out is None:
        return None, []
    if chosen.method.USES_TRAINING_SET:
        return datasets.hold_out(card, protocol.hold_out), []
    return None, _validation_notes(protocol, None)


@about("ipc")
def _check_ipc(ipc: int | None, card: DataCard, held_out: HeldOut | None) -> None:
    smallest = min(card.train_counts)
    held = held_out.of_each_class if held_out else 0
    if ipc is not None and ipc > smallest - held:
        name = card.classes[card.train_counts.index(smallest)]
        left = f", {held} of which are held out for validation" if held else ""
        raise BadInput(f"--ipc {ipc} is too many: class {name!r} of {card.label} has {smallest} training images{left}.")


def _check_factor(factor: int, preprocessing: PreprocessingName, card: DataCard) -> None:
    fault = mosaic_fault(factor, card.height, card.width)
    if factor > 1 and preprocessing == "zca":
        fault = "tiles of whitened images are no images: it takes --preprocessing mean/std"
    if fault:
        raise BadInput(f"A set of factor {factor} was asked for, but {fault}.", field="method.factor")


def _check_pixels(method: Method, preprocessing: PreprocessingName) -> None:
    if method.PLAIN_PIXELS and preprocessing == "zca":
        raise BadInput(
            f"{method.name} learns pixels from black to white, and whitened ones have no such range: it takes "
            "--preprocessing mean/std.",
            field="preprocessing",
        )


def _settle_files(
    chosen: _MethodChoice, card: DataCard, held_out: HeldOut | None
) -> tuple[_MethodChoice, PreprocessingName]:
    """Write out the files that its options name, and choose the preprocessing."""
    with about("method"), registry.guarded("methods", chosen.name):
        options, brought = chosen.method.settle(chosen.options, card, chosen.ipc)
        if not isinstance(options, chosen.method.Options) or brought not in (None, *PREPROCESSINGS):
            raise TypeError("its settle gave something else than its Options and a preprocessing or None")
    if held_out and (elsewhere := getattr(options, "experts_from", "")):
        raise BadInput(
            f"The experts {elsewhere[:12]} were trained elsewhere, and may have seen the validation images that are "
            "held out here: leave method.experts_from out, and experts are trained without them.",
            field="method.experts_from",
        )
    if brought and chosen.preprocessing not in (None, brought):
        raise BadInput(
            f"--preprocessing {chosen.preprocessing} was said, but what {chosen.name} is to use was made with "
            f"{brought}: leave it out.",
            field="preprocessing",
        )
    usual = chosen.recipe.preprocessing if chosen.recipe else "mean/std"
    return replace(chosen, options=options), chosen.preprocessing or brought or usual


def _settle_networks(
    request: Request, chosen: _MethodChoice, usual: str, card: DataCard
) -> tuple[str, tuple[str, ...], list[str]]:
    """The full names of the network to match on, empty where there is none, and of those to evaluate on; and notes."""
    with about("network"):
        if request.network is None:
            network = _network_of(chosen.recipe, usual, card)
        else:
            network = networks.settle(request.network, card, chosen.recipe.norm if chosen.recipe else "")
        networks.build(network, card)
    with about("evaluate_on"):
        evaluate_on = networks.settle_all(request.evaluate_on or [_plain(network, card)], card, network)
        for name in evaluate_on:
            networks.build(name, card)
    if chosen.needs_network:
        return network, evaluate_on, []
    note = f"The method {chosen.name} matches on no network: --network decides its evaluation only."
    return "", evaluate_on, [note] if request.network else []


def _settle_computing(
    request: Request, chosen: _MethodChoice, network: str, card: DataCard, device: str
) -> tuple[Precision, bool, list[str]]:
    """The precision, whether networks are compiled, and notes."""
    name, method = chosen.name, chosen.method
    precision = choose_precision(request.precision, device)
    if not chosen.needs_network:
        if precision != "bf16" and request.compile != "on":
            return precision, False, []
        precision = choose_precision(None if precision == "bf16" else precision, device)
        note = f"The method {name} matches on no network: --precision and --compile are for those that do."
        return precision, False, [note]
    matched = networks.build(network, card)
    with about("network"), registry.guarded("methods", name):
        method.check(matched, chosen.options)
    compiled, note = choose_compiling(request.compile, device, chosen.iterations, matched.uses_batch_statistics)
    notes = [note] if note else []
    if precision == "bf16" and not method.REDUCED_PRECISION:
        precision = choose_precision(None, device)
        notes.append(f"The method {name} computes nothing in bfloat16: --precision bf16 has no effect.")
    if precision == "bf16" and not has_bf16(device):
        precision = choose_precision(None, device)
        notes.append(
            f"--precision bf16: this {'processor' if device == 'cpu' else 'GPU'} has no bfloat16. The run computes in "
            f"{precision}, and its scores stand in that row."
        )
    if compiled and not chosen.iterations:
        compiled = False
        notes.append(f"The method {name} has no iterations: --compile has no effect.")
    return precision, compiled, notes


def _settle_evaluate_every(request: Request, iterations: int) -> tuple[int, list[str]]:
    every = request.evaluate_every or 0
    if every < iterations or not every:
        return every, []
    only = f"has {iterations} iterations" if iterations else "has no iterations"
    return 0, [f"The run {only}: --evaluate-every {every} has no effect, it is evaluated at its end."]


def _settle_execution(
    request: Request, device: str, repeats: int, *, data: Path | None, compiled: bool, chunk: int
) -> Execution:
    every = Execution().checkpoint_every if request.checkpoint_every is None else request.checkpoint_every
    return Execution(
        data=os.path.realpath(data) if data else "",
        device=device,
        threads=request.threads or 0,
        compiled=compiled,
        real_chunk=chunk,
        synthetic_chunk=chunk,
        stack=1 if device == "cpu" else min(repeats, STACK),
        checkpoint_every=every,
    )


def _data_notes(request: Request, dataset: str) -> list[str]:
    needless = registry.load("datasets", dataset).SOURCE == "package" and request.data != os.environ.get(DATA)
    return [f"The dataset {dataset} comes with a package: --data has no effect."] if request.data and needless else []


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
    where = config.execution
    if before and where.device == "cpu" and not where.cores:
        where = msgspec.structs.replace(where, threads=before.threads)
    policy = Policy.of(where, config.precision, config.deterministic)
    evaluator = registry.load("evaluators", config.evaluator.name)
    evaluator_options = read(evaluator.Options, config.evaluator.options, f"evaluator {config.evaluator.name}")
    return Job(
        config=config,
        card=card,
        recipe=Recipe(source=recipe) if recipe else None,
        method=method,
        options=options,
        evaluator=evaluator,
        evaluator_options=evaluator_options,
        policy=policy,
        changed_options={key: value for key, value in overrides.items() if key in options.__struct_fields__},
        changed_settings={key: value for key, value in overrides.items() if key not in options.__struct_fields__},
        notes=[],
    )


def evaluation(job: Job, request: Request, made: SetRef, choice: Choice) -> Job:
    """A run that only evaluates what a finished one has made: on other networks, more of them, by another protocol.

    Args:
        job: the finished run, as `reopen` gives it.
        made: its set.
        choice: the evaluator.
        request: `evaluate_on`, `eval_repeats`, `protocol`, `device` and `threads` are looked at.

    Raises:
        BadInput: it cannot be met.
    """
    config = job.config
    protocol = (
        config.protocol if request.protocol is None else preset(overrides.over(config.protocol.name, request.protocol))
    )
    _check_teacher(protocol, job.method, job.options)
    device = choose_device(request.device or config.execution.device)
    protocol, protocol_notes = _settle_protocol(protocol, device)
    names = [*(request.evaluate_on or config.evaluate_on)]
    evaluate_on = networks.settle_all(names, job.card, config.network or config.evaluate_on[0])
    for name in evaluate_on:
        networks.build(name, job.card)
    evaluator = registry.load("evaluators", choice.name)
    evaluator_options: Options = read(evaluator.Options, choice.options, f"evaluator {evaluator.name}")
    repeats = request.eval_repeats or config.eval_repeats
    execution = msgspec.structs.replace(
        config.execution,
        device=device,
        threads=request.threads or 0,
        stack=1 if device == "cpu" else min(repeats, STACK),
        devices=(),
        made=made.sha256,
        made_after=made.iteration,
    )
    notes = [*protocol_notes, *_validation_notes(protocol, config.held_out)]
    # Of networks that of the one that is matched on, which may be trained here, too.
    matched = config.network and networks.family(config.network)
    kept = [p for p in config.plugins if p.kind in ("methods", "datasets") or (p.kind, p.name) == ("networks", matched)]
    changed = msgspec.structs.replace(
        config,
        evaluate_on=evaluate_on,
        eval_repeats=repeats,
        evaluate_every=0,
        plugins=(*kept, *_plugins({("evaluators", evaluator.name), *_families(evaluate_on)})),
        protocol=protocol,
        precision=config.precision if config.precision == "bf16" else choose_precision(None, device),
        execution=execution,
        evaluator=Choice(evaluator.name, _fields(evaluator_options)),
        evaluator_version=evaluator.VERSION,
    )
    execution = with_threads(changed, job.card)
    changed = msgspec.structs.replace(changed, execution=execution)
    return replace(
        job,
        config=changed,
        policy=Policy.of(execution, changed.precision, changed.deterministic),
        evaluator=evaluator,
        evaluator_options=evaluator_options,
        notes=notes,
    )


def _validation_notes(protocol: Protocol, held_out: HeldOut | None) -> list[str]:
    """A note where a protocol holds images out, and the set that is evaluated was not made without them.

    Raises:
        BadInput: it was made without others.
    """
    if protocol.hold_out is None or (held_out and held_out.rule == protocol.hold_out):
        return []
    if held_out:
        raise BadInput(
            f"The set was made without other validation images than {protocol.label} holds out: evaluate it under the "
            "protocol of its run.",
            field="protocol",
        )
    return [f"The validation images of {protocol.name} may be among those the set was made of: they are not looked at."]


def _registered(kind: Literal["method", "dataset"], choice: Choice) -> Choice:
    """Write the name of a choice as the registry has it: that one is stored and hashed."""
    with about(kind):
        return Choice(registry.find("methods" if kind == "method" else "datasets", choice.name), choice.options)


def _fields(options: Options) -> dict[str, Any]:
    fields = zip(options.__struct_fields__, options.__struct_defaults__, strict=True)
    values = [(name, getattr(options, name), default) for name, default in fields]
    return {name: value for name, value, default in values if not (name in LATER and value == default == LATER[name])}


@about("recipe")
def _recipe(method: Method, name: str, recipe_name: str | None, dataset: str, ipc: int | None) -> Recipe | None:
    """The first recipe of that name that fits; without a name, the first `default` one."""
    if recipe_name is not None:
        recipe_name = named(f"recipe of {name}", recipe_name, {recipe.name for recipe in method.RECIPES})
    called = [recipe for recipe in method.RECIPES if recipe.name == (recipe_name or "default")]
    fitting = [recipe for recipe in called if recipe.fits(dataset, ipc or 1)]
    if recipe_name is not None and not fitting:
        raise BadInput(f"The recipe {recipe_name!r} of {name} is not for {dataset} at IPC {ipc}.")
    return fitting[0] if fitting else None


def _network_of(recipe: Recipe | None, usual: str, card: DataCard) -> str:
    """The full name of the network that a recipe matches on.

    Args:
        usual: the dataset's, for a recipe that names none.
    """
    return networks.settle((recipe.network if recipe else "") or usual, card, recipe.norm if recipe else "")


def _nearest_recipe(
    chosen: _MethodChoice, dataset: str, settings: dict[str, Any], network_of: Callable[[Recipe | None], str]
) -> tuple[Recipe | None, dict[str, Any], dict[str, Any]]:
    """The recipe that a run is described by, and the options and the settings that differ from it.

    It is the one that they are, or else that with the fewest differences. So the same settings are described in the
    same way, whether they came by a recipe or one by one.
    """
    fitting: dict[str, Recipe | None] = {}
    for one in chosen.method.RECIPES:
        if one.fits(dataset, chosen.ipc or 1):
            fitting.setdefault(one.name, one)
    candidates: list[tuple[int, Recipe | None, dict[str, Any], dict[str, Any]]] = []
    for name, recipe in ({"default": None} | fitting).items():
        options = _fields(read(chosen.method.Options, recipe.options if recipe else {}, f"the recipe {name}"))
        standard: dict[str, Any] = {"preprocessing": recipe.preprocessing if recipe else "mean/std"}
        if "network" in settings:
            with suppress(BadInput):  # it does not suit these images: then it is none that could have been meant
                standard["network"] = network_of(recipe)
        changed_options = _differences(_fields(chosen.options), options)
        changed_settings = _differences(settings, standard)
        count = len(changed_options) + len(changed_settings)
        weight = count + (name != "default") if count else 0
        if name != "default":
            changed_settings["recipe"] = name
        candidates.append((weight, recipe, changed_options, changed_settings))
    return min(candidates, key=lambda candidate: candidate[0])[1:]


def _differences(values: dict[str, Any], standard: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value != standard.get(key)}


def _families(names: Iterable[str]) -> set[tuple[registry.Kind, str]]:
    """The families of networks, by their full names."""
    return {("networks", networks.family(name)) for name in names if name}


def _plugins(parts: Iterable[tuple[registry.Kind, str]]) -> tuple[Plugin, ...]:
    """The code from outside among what a run depends on."""
    origins = (registry.origin(kind, name) for kind, name in sorted(parts))
    return tuple(plugin for plugin in origins if plugin is not None)


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
        title = f"The {plugin.kind.removesuffix('s')} {plugin.name}"
        if before is None and not then:
            say(f"{title} is from outside, and it is not on record which code of it began the run.")
        elif before != plugin:
            was = _code(before) if before else "built in"
            raise BadInput(
                f"{title} is other code now: the run began with {was}, and this is {_code(plugin)}. Begin a new run, "
                "or bring back the code that began it."
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
