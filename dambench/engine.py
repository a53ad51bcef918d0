"""run(job) → events: distil, evaluate, and say every step of the way.

The engine is a generator. It knows no database, no screen and no signal: who reads its events keeps them, and
stops a run by throwing `StopRun` into it.
"""

import os
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from types import ModuleType
from typing import Any, cast

import msgspec
import torch

from dambench import datasets, events, files, networks, registry
from dambench.checkpoints import Checkpoint, Keeper, newest
from dambench.config import (
    PREPROCESSINGS,
    Choice,
    Options,
    Plugin,
    PreprocessingName,
    Recipe,
    Request,
    RunConfig,
    Where,
    read,
)
from dambench.environment import environment
from dambench.errors import BadInput, NotEnoughMemory, named
from dambench.evaluation.accuracy import evaluate
from dambench.events import (
    SKIPPED,
    Adapted,
    AnyEvent,
    Beginning,
    Checkpointed,
    Cost,
    DataCard,
    Environment,
    Failed,
    Finished,
    Previewed,
    Progressed,
    Resumed,
    Snapshot,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from dambench.precision import STACK, Policy, choose_compiling, choose_device, choose_precision, micro_batch
from dambench.preview import preview
from dambench.problem import Problem, RealSet, Seeds, State, Step, SyntheticSet
from dambench.protocol import preset

DATA = "DAMBENCH_DATA"
"""In the environment: where raw data are, if the request does not say."""

LOGGED_STEPS = 1000
"""About how many of a run's iterations have their losses logged: enough for any screen, and no more waiting."""

MOST_PIXELS = 128 * 128
"""Of an image that can be turned by a matrix."""

ADAPTABLE = ("compiled", "real_chunk", "synthetic_chunk", "kept_steps")
"""Fields of the policy that may change while a set is made."""

DECIDING = ("torch", "cuda", "cudnn", "driver", "device_name", "threads", "tf32_matmul", "tf32_convolution")
"""Of the environment, what the last bits depend on."""

SILENCE = 0.5
"""Seconds after which a sign of life is given. A run can be stopped only where it yields."""


PREVIEW_SECONDS = 5.0
"""Between two previews of the set on its way, at least."""

PREVIEWS = 200
"""Of a run, at most about."""

PREVIEW_SHARE = 0.005
"""Of a run's time that previews may take."""

PREVIEW_BYTES = 40_000


class StopRun(Exception):
    """Thrown into `run` to make it stop: the name of the signal, or whatever else asked for it."""


class Diverged(ArithmeticError):
    """The loss, an image, or what networks make of the images, is no longer a number.

    Args:
        iteration: the first of which this is so.
    """

    def __init__(self, iteration: int, what: str, hint: str = "A smaller step size may help."):
        super().__init__(f"{what}: the run diverged. {hint}")
        self.iteration = iteration


@dataclass(frozen=True)
class Job:
    """A run that can begin: nothing is left open, and its data are ready."""

    config: RunConfig
    card: DataCard
    recipe: Recipe | None
    method: ModuleType
    options: Options
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
    read(method.Options, asked, f"method {wanted.name}")
    asked_recipe = request.recipe
    if asked_recipe is not None:
        asked_recipe = named(f"recipe of {wanted.name}", asked_recipe, {recipe.name for recipe in method.RECIPES})
    if request.network is not None:
        networks.parse(request.network)
    for name in request.evaluate_on or []:
        networks.members(name)
    asked_preprocessing = request.preprocessing
    if asked_preprocessing is not None:
        asked_preprocessing = named("preprocessing", asked_preprocessing, PREPROCESSINGS)
    data = files.user_path(request.data) if request.data else None
    files.can_keep_sets()
    card = datasets.prepare(dataset, data, say)
    if request.deterministic and on_gpu and card.height * card.width > MOST_PIXELS:
        raise BadInput(
            f"--deterministic on a GPU turns images by a matrix, which {card.height}×{card.width} images are too large "
            "for: leave it out, or use --device cpu."
        )
    ipc = _ipc(request.ipc, wanted.name, card)
    if request.ipc is not None and ipc is None:
        notes.append(f"The method whole takes every image: --ipc {request.ipc} has no effect.")
    recipe = _recipe(method, wanted.name, asked_recipe, dataset.name, ipc)
    chosen = (recipe.options if recipe else {}) | asked
    options: Options = read(method.Options, chosen, f"method {wanted.name}")
    brought: PreprocessingName | None = None
    if settle := getattr(method, "settle", None):
        options, brought = settle(options, card, ipc)
    if brought and asked_preprocessing not in (None, brought):
        raise BadInput(
            f"--preprocessing {asked_preprocessing} was said, but what {wanted.name} is to use was made with "
            f"{brought}: leave it out."
        )
    preprocessing = asked_preprocessing or brought or (recipe.preprocessing if recipe else "mean/std")
    if preprocessing == "zca":
        datasets.whitening(card, say)
    usual = registry.load("datasets", dataset.name).NETWORK or "convnet"
    if request.network is None:
        network = _network_of(recipe, usual, card)
    else:
        network = networks.settle(request.network, card, recipe.norm if recipe else "")
    evaluate_on = networks.settle_all(request.evaluate_on or [_plain(network, card)], card, network)
    for name in {network, *evaluate_on}:
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
        with registry.foreign("methods", wanted.name):
            getattr(method, "check", lambda network, options: None)(matched, options)
        batch_norm = matched.mixes_images
        compiled, note = choose_compiling(request.compile, device, getattr(options, "iterations", 0), batch_norm)
        notes += [note] if note else []
        if precision == "bf16" and not getattr(method, "REDUCED_PRECISION", True):
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
    where = Where(
        data=os.path.realpath(data) if data else "",
        device=device,
        threads=request.threads or 0,
        compiled=compiled,
        real_chunk=chunk,
        synthetic_chunk=chunk,
        stack=min(repeats, STACK) if on_gpu else 1,
        checkpoint_every=Where().checkpoint_every if request.checkpoint_every is None else request.checkpoint_every,
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
            "method_version": getattr(method, "VERSION", 1),
            "plugins": _plugins(wanted.name, dataset.name, {network, *evaluate_on} - {""}),
            "where": where,
        },
        "the run",
    )
    policy = Policy.of(config.where, config.precision, config.deterministic)
    return Job(config, card, recipe, method, options, policy, overrides, notes)


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
    choose_device(config.where.device)
    files.can_keep_sets()
    card = datasets.prepare(config.dataset, files.user_path(config.where.data) if config.where.data else None, say)
    if card.sha256 != dataset_sha256:
        raise BadInput(
            f"The run began on other data: {card.label} was {dataset_sha256[:8]}… and is {card.sha256[:8]}… now. "
            "Begin a new run."
        )
    # As many threads as then, also where there are more cores: sums are in the order of threads.
    threads = before.threads if before and config.where.device == "cpu" else config.where.threads
    policy = Policy.of(msgspec.structs.replace(config.where, threads=threads), config.precision, config.deterministic)
    return Job(config, card, Recipe(source=recipe) if recipe else None, method, options, policy, overrides, [])


def evaluation(job: Job, request: Request, set_sha256: str, iteration: int) -> Job:
    """A run that only evaluates what a finished one has made: on other networks, more of them, by another protocol.

    Args:
        job: the finished run, as `reopen` gives it.
        request: `evaluate_on`, `eval_repeats`, `protocol`, `device` and `threads` are looked at.

    Raises:
        BadInput: it cannot be met.
    """
    config = job.config
    device = choose_device(request.device or config.where.device)
    names = [*(request.evaluate_on or config.evaluate_on)]
    evaluate_on = networks.settle_all(names, job.card, config.network or config.evaluate_on[0])
    for name in evaluate_on:
        networks.build(name, job.card)
    repeats = request.eval_repeats or config.eval_repeats
    where = msgspec.structs.replace(
        config.where,
        device=device,
        threads=request.threads or 0,
        stack=1 if device == "cpu" else min(repeats, STACK),
        made=set_sha256,
        made_after=iteration,
    )
    changed = msgspec.structs.replace(
        config,
        evaluate_on=evaluate_on,
        eval_repeats=repeats,
        evaluate_every=0,
        plugins=(
            # The last one of a name is that which is trained here.
            *(
                p
                for p in config.plugins
                if p.kind != "networks" or p.name == (config.network and networks.family(config.network))
            ),
            *(p for p in _plugins(config.method.name, config.dataset.name, evaluate_on) if p.kind == "networks"),
        ),
        protocol=config.protocol if request.protocol is None else preset(request.protocol),
        precision=config.precision if config.precision == "bf16" else choose_precision(None, device),
        where=where,
    )
    return replace(job, config=changed, policy=Policy.of(where, changed.precision, changed.deterministic))


def _found(kind: registry.Kind, choice: Choice) -> Choice:
    """The same choice, its name written as the registry has it: that one is stored and hashed."""
    return Choice(registry.find(kind, choice.name), choice.options)


def _fields(options: Options) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__struct_fields__}


def _ipc(asked: int | None, method: str, card: DataCard) -> int | None:
    if method == "whole":
        return None
    ipc = 1 if asked is None else asked
    smallest = min(card.train_counts)
    if ipc > smallest:
        name = card.classes[card.train_counts.index(smallest)]
        raise BadInput(f"--ipc {ipc} is too many: class {name!r} of {card.label} has {smallest} training images.")
    return ipc


def _recipe(method: ModuleType, name: str, wanted: str | None, dataset: str, ipc: int | None) -> Recipe | None:
    """The first recipe of that name that fits; without a name, the first `default` one."""
    recipes: tuple[Recipe, ...] = method.RECIPES
    called = [recipe for recipe in recipes if recipe.name == ("default" if wanted is None else wanted)]
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
    method: ModuleType,
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
    for recipe in method.RECIPES:
        if recipe.fits(dataset, ipc or 1):
            fitting.setdefault(recipe.name, recipe)
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


def _plugins(method: str, dataset: str, on: Iterable[str]) -> tuple[Plugin, ...]:
    """The code from outside that a run with these names depends on.

    Args:
        on: full names of networks.
    """
    names: set[tuple[registry.Kind, str]] = {("networks", networks.family(name)) for name in on}
    names |= {("methods", method), ("datasets", dataset)}
    found = (registry.plugin(kind, name) for kind, name in sorted(names))
    return tuple(plugin for plugin in found if plugin is not None)


def _check_code(config: RunConfig, say: Callable[[str], None]) -> None:
    """See that what goes on with a run is the code that began it.

    Raises:
        BadInput: it is not; what changed is said.
    """
    named = {*config.evaluate_on} | ({config.network} - {""})
    now = {(plugin.kind, plugin.name): plugin for plugin in _plugins(config.method.name, config.dataset.name, named)}
    then = {(plugin.kind, plugin.name): plugin for plugin in config.plugins}
    if config.where.made:  # the set is there: only networks are trained
        trained = {("networks", networks.family(name)) for name in config.evaluate_on}
        now, then = ({key: plugin for key, plugin in of.items() if key in trained} for of in (now, then))
    elif (version := getattr(registry.load("methods", config.method.name), "VERSION", 1)) != config.method_version:
        raise BadInput(
            f"The run began with version {config.method_version} of {config.method.name}, and this is version "
            f"{version}, which makes other sets. Begin a new run, or go on with the dambench that began it."
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
    if not module.__name__.endswith(".convnet"):
        return networks.settle("convnet", card)
    return networks.spell(module, module.Options(**{key: getattr(options, key) for key in ("depth", "width")}))


@dataclass
class _Clock:
    """Seconds and peak memory of each phase, in the order in which the phases began."""

    policy: Policy
    phase: str = "prepare"
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def enter(self, phase: str) -> None:
        """End the current phase and begin, or go on with, another."""
        self.close()
        self.phase = phase
        self.policy.restart_peak()
        self._since = time.perf_counter()

    def note_peak(self, peak: int) -> None:
        """A peak of the current phase that was measured by someone who will begin a new measurement."""
        self.peaks[self.phase] = max(peak, self.peaks.get(self.phase, 0))
        self.reserved[self.phase] = max(self.policy.peak_reserved_bytes(), self.reserved.get(self.phase, 0))

    def close(self) -> None:
        self.policy.synchronise()
        now = time.perf_counter()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self._since = now
        self.note_peak(self.policy.peak_bytes())

    def spent(self, phase: str) -> float:
        running = time.perf_counter() - self._since if phase == self.phase else 0.0
        return self.seconds.get(phase, 0.0) + running

    def costs(self) -> list[Cost]:
        # After an error of the device it may not answer any more.
        with suppress(RuntimeError):
            self.close()
        return [
            Cost(
                phase=phase,
                seconds=seconds,
                peak_memory_bytes=self.peaks.get(phase, 0),
                peak_reserved_bytes=self.reserved.get(phase, 0),
            )
            for phase, seconds in self.seconds.items()
        ]


def run(
    job: Job, command_line: str = "", keeper: Keeper | None = None, beginning: Beginning | None = None
) -> Generator[AnyEvent, None, None]:
    """Distil a set, train networks on it, test them.

    Ends with Finished, Failed or Stopped, and raises nothing: what goes wrong is an event.

    Args:
        keeper: keeps checkpoints. Without it a run cannot be resumed.
        beginning: the run was begun already; it goes on from its last checkpoint.
    """
    clock = _Clock(job.policy)
    position = _Position(stack=beginning.stack if beginning else 0)
    try:
        job.policy.apply()
        here = environment(job.policy, command_line)
        if beginning is not None:
            yield from _resumed(job, here, keeper, beginning, clock, position)
        if beginning is None or beginning.environment is None:
            yield Started(
                config=job.config,
                config_sha256=job.config.sha256,
                data=job.card,
                recipe=job.recipe.source if job.recipe else "",
                overrides=job.overrides,
                environment=here,
            )
            for note in [*job.card.notes, *job.notes]:
                yield Warned(message=note)
        yield from _distil_and_evaluate(job, clock, position, keeper)
    except StopRun as stop:
        phase, costs = clock.phase, clock.costs()
        if keeper is not None:
            with suppress(StopRun):
                yield from _checkpointed(keeper, clock, position)
        last: AnyEvent = Stopped(signal=str(stop), phase=phase, iteration=position.iteration, costs=costs)
    except (Exception, SystemExit) as error:  # a method from outside may try to leave the program
        said = str(error).strip() or "no message"
        told = isinstance(error, Diverged | BadInput | NotEnoughMemory)
        last = Failed(
            error=said if told else f"{type(error).__name__}: {said}",
            traceback=traceback.format_exc(),
            costs=clock.costs(),
            diverged=error.iteration if isinstance(error, Diverged) else None,
        )
    else:
        last = Finished(set_sha256=position.set_sha256, costs=clock.costs())
    with suppress(StopRun):  # too late to stop
        yield last
    if keeper is not None and isinstance(last, Finished):
        keeper.sweep(0)


@dataclass
class _Position:
    iteration: int = 0
    set_sha256: str = ""
    stack: int = 0
    """Of the evaluation networks, after the GPU's memory was too small for the policy's; 0: it was not."""
    checkpoint: Callable[[], Checkpoint] | None = None
    """Makes one of where the run is; None: it has not got anywhere."""
    from_: Checkpoint | None = None
    """That the run goes on from."""
    scores: set[tuple[int, str, int]] = field(default_factory=set)
    """Iteration, network and repeat of those that are known already."""
    sets: set[int] = field(default_factory=set)
    """The iterations whose sets are."""
    losses: list[Stepped] = field(default_factory=list)
    """All that were logged."""


def _resumed(
    job: Job, here: Environment, keeper: Keeper | None, beginning: Beginning, clock: _Clock, position: _Position
) -> Iterator[AnyEvent]:
    """Find the last checkpoint that is whole, and be where it is."""
    names = beginning.checkpoints
    found = newest(keeper.folder, names, job.config.sha256) if keeper else None
    iteration = found[0].iteration if found else -1
    yield Resumed(
        attempt=beginning.attempt,
        iteration=iteration,
        checkpoint=found[1] if found else "",
        process=beginning.process,
        environment=here,
    )
    if names and (found is None or found[1] != names[-1]):
        where = f"the one of iteration {iteration}" if found else "the beginning"
        yield Warned(message=f"The last checkpoint is missing or damaged: the run goes on from {where}.")
    before = beginning.environment or here
    if others := [name for name in DECIDING if getattr(here, name) != getattr(before, name)]:
        changes = ", ".join(f"{name} {getattr(before, name)} → {getattr(here, name)}" for name in others)
        yield Warned(message=f"Resumed in another environment, so the last bits may differ: {changes}.")
    if found is None:
        return
    position.from_, position.iteration = found[0], iteration
    position.scores = {score for score in beginning.scores if score[0] <= iteration}
    position.sets = {known for known in beginning.sets if known <= iteration}
    position.losses = [stepped for stepped in beginning.losses if stepped.iteration <= iteration]
    clock.seconds |= found[0].seconds
    clock.peaks |= {phase: peaks[0] for phase, peaks in found[0].peaks.items()}
    clock.reserved |= {phase: peaks[1] for phase, peaks in found[0].peaks.items()}


def _checkpointed(keeper: Keeper, clock: _Clock, position: _Position) -> Iterator[Checkpointed | Warned]:
    """Write a checkpoint of where the run is, if it is anywhere."""
    if position.checkpoint is None:
        return
    clock.close()
    peaks = {phase: [clock.peaks.get(phase, 0), clock.reserved.get(phase, 0)] for phase in clock.seconds}
    try:
        now = replace(position.checkpoint(), seconds=dict(clock.seconds), peaks=peaks)
        if not now.finite:
            return  # the next iteration will say so
        sha256, size, seconds = keeper.write(now)
    except (OSError, BadInput) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        yield Warned(message=f"The checkpoint of iteration {position.iteration} could not be written: {why}.")
        return
    yield Checkpointed(iteration=now.iteration, sha256=sha256, size_bytes=size, seconds=seconds)
    keeper.sweep()


def open_problem(job: Job, real: RealSet) -> Problem:
    """What the job's method is given."""
    return Problem(
        real=real,
        card=job.card,
        ipc=job.config.ipc or 0,
        seeds=Seeds(job.config.seed),
        build_network=lambda: networks.build(job.config.network, job.card),
        network=job.config.network,
        policy=job.policy,
    )


def distilled(job: Job, problem: Problem, resume: State | None = None) -> Iterator[Step | Progressed]:
    """What the job's method says.

    Raises:
        BadInput: it is from outside, and says something else.
    """
    for told in job.method.distill(problem, job.options, resume):
        if not isinstance(told, Step | Progressed):
            what = f"gave a {type(told).__name__} where a Step or Progressed is due"
            raise BadInput(f"The method {job.config.method.name} {what}.")
        yield told


def _distil_and_evaluate(job: Job, clock: _Clock, position: _Position, keeper: Keeper | None) -> Iterator[AnyEvent]:
    config, policy = job.config, job.policy
    real, test = datasets.open_sets(job.card, policy.device, config.preprocessing)
    said: list[AnyEvent] = []
    problem = open_problem(job, real)
    problem.warn, problem.adapted = (lambda message: said.append(Warned(message=message))), said.append
    problem.enter = clock.enter
    total: int = getattr(job.options, "iterations", 0)
    logged = max(1, total // LOGGED_STEPS)
    begun = position.from_
    if config.where.made:
        begun = Checkpoint(config.sha256, config.where.made_after, {}, config.where.made)
        position.iteration = begun.iteration
    if begun is not None:
        problem.policy = replace(policy, **cast(dict[str, Any], begun.policy))
        position.checkpoint = partial(_same, begun)
        if keeper is not None and position.from_ is None:
            yield from _checkpointed(keeper, clock, position)
        if begun.set_sha256:
            made = _kept(begun.set_sha256, job, real)
            yield from _judge(job, made, begun.iteration, begun.iteration >= total, test, clock, position)
        if begun.iteration >= total:
            return  # it was made, and is evaluated

    step: Step | None = None
    due = between = False

    def checkpoint() -> Checkpoint:
        assert step is not None
        return Checkpoint(
            config_sha256=config.sha256,
            iteration=step.iteration,
            state=step.state(),
            # To be evaluated before the run goes on, or after its end.
            set_sha256=_keep(step.synthetic, step.iteration, job.card).sha256 if due or step.iteration >= total else "",
            policy={name: int(getattr(problem.policy, name)) for name in ADAPTABLE},
        )

    heard = time.perf_counter()
    finite = _Finite()
    photographer = _Photographer(total)
    clock.enter("distil")
    for told in distilled(job, problem, begun.state if begun else None):
        if isinstance(told, Progressed):  # on the way to a step
            between = between or told.phase == "distil"
            while said:
                yield said.pop(0)
            if time.perf_counter() - heard > SILENCE:
                yield msgspec.structs.replace(told, memory_bytes=policy.used_bytes())
                heard = time.perf_counter()
            continue
        _check_step(told, step, total, job)
        first, step = step is None, told
        position.iteration, position.checkpoint = step.iteration, checkpoint
        finite.look(step)
        if first:  # what cannot be used is known now, not after all iterations
            _check_set(step.synthetic, step.iteration, job)
        last = step.iteration >= total
        due = bool(config.evaluate_every) and step.iteration % config.evaluate_every == 0 and not last
        # First of all: a checkpoint of this iteration, from wherever it is asked for, comes after its losses.
        if step.losses and (step.iteration % logged == 0 or step.iteration == 1 or last):
            finite.check()
            position.losses.append(_stepped(step, clock.spent("distil"), policy))
            yield position.losses[-1]
            heard = time.perf_counter()
        while said:
            yield said.pop(0)
        if time.perf_counter() - heard > SILENCE:
            yield Progressed(phase="distil", done=step.iteration, total=total, memory_bytes=policy.used_bytes())
            heard = time.perf_counter()
        if keeper is not None and keeper.due and not last:
            finite.check()
            yield from _checkpointed(keeper, clock, position)
        if not (due or last) and photographer.due(step):
            yield photographer.take(step)
        if due:
            yield from _judge(job, step.synthetic, step.iteration, False, test, clock, position)
            due = False
            clock.enter("distil")
            heard = time.perf_counter()
        if between and keeper is not None:
            # It can be stopped before its next step, when this one's tensors are valid no more.
            position.checkpoint = partial(_same, checkpoint())
    if step is None:
        raise BadInput(f"The method {config.method.name} gave no synthetic set.")
    if step.iteration < total:
        raise BadInput(
            f"The method {config.method.name} stopped after {step.iteration} of its {total} iterations, so its set is "
            f"not the one that was asked for. To have it, ask for {step.iteration}."
        )
    finite.check()
    left_out = position.losses[-1].losses.get(SKIPPED, 0.0) if position.losses else 0.0
    in_a_row = int(step.state().get("in_a_row", 0)) if left_out else 0
    if in_a_row > 1:  # a step may be left out now and then: the next one has other images
        since = step.iteration - in_a_row + 1
        raise Diverged(since, f"The loss or its gradient is not finite from iteration {since} to the end")
    if keeper is not None:
        yield from _checkpointed(keeper, clock, position)
    if left_out:
        yield Warned(message=f"{left_out:.0f} of {step.iteration} steps were left out: they were not finite.")
    if warning := _not_fallen(position.losses, job.options):
        yield Warned(message=warning)
    yield from _judge(job, step.synthetic, step.iteration, True, test, clock, position)


def _check_step(step: Step, before: Step | None, total: int, job: Job) -> None:
    """See that a step's iteration is one of those to come.

    Raises:
        BadInput: it is not.
    """
    method = job.config.method.name
    if total and (step.iteration > total or (before and step.iteration <= before.iteration)):
        after = f" after iteration {before.iteration}" if before else ""
        raise BadInput(
            f"The method {method} was asked for {total} iterations, and gave number {step.iteration}{after}."
        )


def _check_set(synthetic: SyntheticSet, iteration: int, job: Job) -> None:
    """See that a set can be trained on and kept, and is what was asked for.

    Raises:
        BadInput: its shape, type, labels or number of images are not.
        Diverged: its images, its labels or its learning rate are not finite.
    """
    rate = torch.as_tensor(0.0 if synthetic.lr is None else synthetic.lr)
    for what, values in (("images", synthetic.images), ("labels", synthetic.labels), ("learning rates", rate)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise Diverged(iteration, f"The {what} after iteration {iteration} are not finite")
    try:
        if job.config.ipc is None or synthetic.whole:
            if job.config.ipc is not None or not synthetic.whole:
                raise BadInput(f"It is {'' if synthetic.whole else 'not '}the whole dataset.")
            return
        if why := synthetic.wrong():
            raise BadInput(f"{why[:1].upper()}{why[1:]}.")
        if synthetic.preprocessing != job.config.preprocessing:
            raise BadInput(
                f"Its images are as {synthetic.preprocessing} leaves them, the run is of {job.config.preprocessing}."
            )
        if (ipc := synthetic.ipc_on(job.card)) != job.config.ipc:
            raise BadInput(f"It has {ipc} images per class, and {job.config.ipc} were asked for.")
    except BadInput as error:
        which = f"after iteration {iteration}" if iteration else "that it chose"
        raise BadInput(f"The set of the method {job.config.method.name} {which} cannot be used. {error}") from None


def _same(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint


class _Photographer:
    """Takes pictures of the set on its way: not too many, and not more often than they are worth.

    Args:
        total: iterations of the run.
    """

    def __init__(self, total: int) -> None:
        self._least = total / PREVIEWS
        """Iterations between two."""
        self._last = -total
        self._next = time.perf_counter() + SILENCE

    def due(self, step: Step) -> bool:
        return time.perf_counter() >= self._next and step.iteration - self._last >= self._least

    def take(self, step: Step) -> Previewed:
        began = time.perf_counter()
        taken = Previewed(iteration=step.iteration, preview=preview(step.synthetic, PREVIEW_BYTES))
        now = time.perf_counter()
        self._last, self._next = step.iteration, now + max(PREVIEW_SECONDS, (now - began) / PREVIEW_SHARE)
        return taken


class _Finite:
    """Sees the first iteration whose loss is no number, without making a GPU wait for each."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._first = torch.empty(0)
        """By loss, its last value, and the iteration since which it is no number: (2, losses); -1: it is one."""

    def look(self, step: Step) -> None:
        if not step.losses:
            return
        values = torch.stack([loss.detach().double() for loss in step.losses.values()])
        if list(step.losses) != self._names:
            self._names = list(step.losses)
            self._first = torch.stack([values, torch.full_like(values, -1)])
        value, since = self._first
        fine = since < 0
        since = torch.where(fine & ~values.isfinite(), step.iteration, since)
        self._first = torch.stack([torch.where(fine, values, value), since])
        if values.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raises Diverged if there was one. Here the host waits for the device."""
        for name, value, since in zip(self._names, *self._first.tolist(), strict=True) if self._names else ():
            if since >= 0:
                raise Diverged(int(since), f"The {name} loss is {value} at iteration {since:.0f}")


def _kept(sha256: str, job: Job, real: RealSet) -> SyntheticSet:
    """A set that was kept, on the run's device."""
    if sha256 == job.card.sha256:
        return open_problem(job, real).whole_set()
    path = files.set_path(sha256)
    if not path.is_file() or files.sha256(path) != sha256:
        raise BadInput(f"The set {sha256[:8]}… that is to be evaluated is missing or damaged in {str(path.parent)!r}.")
    made = SyntheticSet.read(path)
    device = job.policy.device
    return replace(made, images=made.images.to(device), labels=made.labels.to(device))


def _not_fallen(logged: list[Stepped], options: Options) -> str:
    """What to say where the matching loss is no lower at the end of a whole run than at its beginning; else nothing.

    Each iteration may have a network of its own, and their losses differ: medians are compared. The first iteration
    counts by itself, too, for a step that is far too large makes the loss jump at once, and then fall.
    """
    losses = [float(event.losses["matching"]) for event in logged if "matching" in event.losses]
    few = len(losses) // 10
    if few < 5 or logged[0].iteration > 1:
        return ""
    first, last = min(losses[0], median(losses[:few])), median(losses[-few:])
    if last < first:
        return ""
    smaller = getattr(options, "lr_images", 1.0) / 10
    return (
        f"The matching loss has not fallen: it began at {first:.3g} and is {last:.3g} over the last tenth of the run. "
        f"A smaller step may help (--set method.lr_images={smaller:g}), or matching on the ConvNet (--network convnet)."
    )


def _stepped(step: Step, seconds: float, policy: Policy) -> Stepped:
    # The only place where the host waits for the device.
    losses = {name: events.real(float(value)) for name, value in step.losses.items()}
    used = policy.used_bytes()
    return Stepped(iteration=step.iteration, losses=losses, seconds=seconds, memory_bytes=used, parts=step.parts)


def _judge(
    job: Job,
    synthetic: SyntheticSet,
    iteration: int,
    final: bool,
    test: RealSet,
    clock: _Clock,
    position: _Position,
) -> Iterator[AnyEvent]:
    """Keep the set, then evaluate it."""
    _check_set(synthetic, iteration, job)
    clock.enter("evaluate")
    # Its tensors are the method's own, and valid until it goes on.
    snapshot = _keep(synthetic, iteration, job.card)
    position.set_sha256 = snapshot.sha256
    if iteration not in position.sets:
        yield snapshot
    heard = time.perf_counter()
    known = frozenset((network, repeat) for at, network, repeat in position.scores if at == iteration)
    scored = set(known)
    for event in evaluate(
        synthetic,
        snapshot.sha256,
        test,
        job.card,
        iteration=iteration,
        final=final,
        network_names=job.config.evaluate_on,
        repeats=job.config.eval_repeats,
        protocol=job.config.protocol,
        seeds=Seeds(job.config.seed),
        policy=replace(job.policy, stack=position.stack or job.policy.stack),
        known=known,
    ):
        if isinstance(event, Adapted):
            position.stack = event.value
        if isinstance(event, Progressed):
            if time.perf_counter() - heard < SILENCE:
                continue
            event = msgspec.structs.replace(event, memory_bytes=job.policy.used_bytes())
        heard = time.perf_counter()
        if isinstance(event, events.Evaluated):
            scored.add((event.network, event.repeat))
            clock.note_peak(event.peak_memory_bytes)
            if isinstance(event.loss, str):
                yield Warned(message=f"{event.network} #{event.repeat}: its loss on the test set is {event.loss}.")
        yield event
    # What the networks that are left say is no mean: the set, not chance, chose them.
    repeats = range(job.config.eval_repeats)
    if final and not any(all((name, repeat) in scored for repeat in repeats) for name in job.config.evaluate_on):
        raise Diverged(
            iteration,
            f"Of each network some diverged when they were trained on the set of iteration {iteration}, so that it has "
            "no accuracy",
            "Its values, or its learning rate, may be too large for this protocol.",
        )


def _keep(synthetic: SyntheticSet, iteration: int, card: DataCard) -> Snapshot:
    """Write the set to its file, unless it is the prepared dataset itself."""
    if synthetic.whole:
        path = datasets.path_of(card)
        digest, size = card.sha256, path.stat().st_size
    else:
        content = synthetic.to_bytes()
        digest, size = files.digest(content), len(content)
        path = files.set_path(digest)
        if not path.exists():
            with files.writing("The synthetic set", path.parent, files.HOME_HINT):
                files.write_whole(path, content)
    return Snapshot(
        iteration=iteration,
        sha256=digest,
        size_bytes=size,
        shape=list(synthetic.images.shape),
        dtype=str(synthetic.images.dtype).removeprefix("torch."),
        preview=preview(synthetic),
    )
