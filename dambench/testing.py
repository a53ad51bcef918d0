"""What the author of a plug-in calls: the promises that all plug-ins of its kind keep, checked in seconds.

    from dambench.testing import check_method

    def test_mine() -> None:
        check_method("mine")

What is not kept is an AssertionError with a sentence each. dambench's own plug-ins are tested by the same functions.
"""

import ast
import copy
import inspect
import io
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor

from dambench import datasets, networks
from dambench.core import registry
from dambench.core.config import Choice, Options, read
from dambench.core.contracts import Dataset, Method, NetworkFamily
from dambench.core.errors import BadInput, described
from dambench.core.events import DataCard
from dambench.training.problem import Network, Normalisation, Problem, RealSet, Seeds, State, Step, SyntheticSet

__all__ = ["check_dataset", "check_method", "check_network", "data_card", "real_set", "tiny_problem"]

QUICK: dict[str, Any] = {
    **{"iterations": 4, "batch_real": 4, "epochs": 2, "updates": 3},
    **{"experts": 2, "steps": 2, "expert_epochs": 1, "max_start": 2, "scored_by": 2, "scored_after": 1, "growth": 1},
    "lr_labels": 0.01,  # of experts that learn next to nothing: a usual step would change what an image is
}
"""Settings that make any method quick; each takes those that it knows."""

MOST_STEPS = 5
"""Of a method that are looked at."""


def check_method(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Check that a method keeps every promise: its contract, its sets, resuming to the bit, its recipes.

    Args:
        options: settings that it needs to be quick, or at all.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    _raise(method_faults(name, options))


def check_dataset(name: str, data: Path | None = None, options: Mapping[str, Any] | None = None) -> None:
    """Check that a dataset keeps every promise.

    Args:
        data: where its raw data are.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    with _own_home():
        _raise(_faults("datasets", name, DATASET_PROMISES, lambda plugin: DatasetTrial(plugin, data, options or {})))


def check_network(name: str) -> None:
    """Check that a family of networks keeps every promise.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    _raise(_faults("networks", name, NETWORK_PROMISES, lambda plugin: plugin))


def method_faults(name: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """What `check_method` would raise, a sentence each."""
    with _own_home():
        return _faults(
            "methods", name, METHOD_PROMISES, lambda plugin: MethodTrial(plugin, lambda problem: options or {})
        )


T = TypeVar("T")


def _faults(
    kind: registry.Kind, name: str, promises: Iterable[Callable[[T], None]], trial: Callable[[Any], T]
) -> list[str]:
    """The promises that a plug-in does not keep, a sentence each.

    Raises:
        BadInput: there is no plug-in of that name.
    """
    name = registry.find(kind, name)
    try:
        subject = trial(registry.load(kind, name))
    except BadInput as error:
        return [str(error)]
    sentences: dict[str, None] = {}
    for promise in promises:
        try:
            promise(subject)
        except (AssertionError, BadInput) as error:
            sentences[str(error)] = None
        except Exception as error:  # whatever code from outside may raise
            sentences[f"It failed with {described(error)}."] = None
    return list(sentences)


def _raise(faults: list[str]) -> None:
    if faults:
        raise AssertionError("\n".join(faults))


def _hold(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


@contextmanager
def _own_home() -> Iterator[None]:
    """Keep what is made meanwhile, experts and prepared data, out of the user's DAMBENCH_HOME."""
    before = os.environ.get("DAMBENCH_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DAMBENCH_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["DAMBENCH_HOME"]
            if before is not None:
                os.environ["DAMBENCH_HOME"] = before


# Problems that take no time.


def data_card(
    counts: Sequence[int] = (5, 6, 7),
    *,
    test_counts: Sequence[int] | None = None,
    channels: int = 1,
    size: tuple[int, int] = (8, 8),
    mirrors: bool = True,
) -> DataCard:
    """Made-up images, so many of each class."""
    return DataCard(
        name="made-up",
        label="made-up",
        train_counts=list(counts),
        test_counts=list(test_counts or counts),
        classes=[f"class {c}" for c in range(len(counts))],
        channels=channels,
        height=size[0],
        width=size[1],
        mean=[0.4, 0.5, 0.6][:channels],
        std=[0.2, 0.25, 0.3][:channels],
        mirrors=mirrors,
        source="made up",
        sha256="0" * 64,
        size_bytes=0,
    )


def real_set(card: DataCard, seed: int = 0) -> RealSet:
    """Random pixels, as many of each class as the card says."""
    shape = (sum(card.train_counts), card.channels, card.height, card.width)
    pixels = torch.randint(256, shape, generator=_generator(seed), dtype=torch.uint8)
    return RealSet(pixels, tuple(card.train_counts), Normalisation(tuple(card.mean), tuple(card.std)))


def tiny_problem(
    *, seed: int = 0, ipc: int = 2, card: DataCard | None = None, network: str = "convnet-d1-w8"
) -> Problem:
    """A few random images of three classes, and a network that takes a millisecond."""
    card = card or data_card()
    return Problem(
        real=real_set(card),
        card=card,
        ipc=ipc,
        seeds=Seeds(seed),
        build_network=lambda: networks.build(network, card),
        network=network,
    )


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def global_generator_untouched() -> Iterator[None]:
    """Fail where the code inside draws from torch's global generator."""
    before = torch.get_rng_state()
    yield
    _hold(
        torch.equal(torch.get_rng_state(), before),
        "It draws from torch's global generator, which belongs to nobody: take one from `problem.generator`.",
    )


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# Methods.


@dataclass(frozen=True)
class CopiedStep:
    """A step of a method, copied: the method's own tensors are valid until its next step."""

    iteration: int
    synthetic: SyntheticSet
    images: Tensor
    labels: Tensor
    losses: dict[str, float]
    state: State


@dataclass(frozen=True)
class MethodTrial:
    """A method on tiny problems.

    Args:
        settings: what it needs for a problem, besides what is quick.
    """

    method: Method
    settings: Callable[[Problem], Mapping[str, Any]] = lambda problem: {}

    def options(self, problem: Problem) -> Options:
        return quick_options(self.method, **self.settings(problem))

    def steps(self, problem: Problem, resume: State | None = None) -> list[CopiedStep]:
        steps = watch(self.method, problem, self.options(problem), resume, most=MOST_STEPS)
        _hold(steps, "It yields no Step.")
        return steps


def quick_options(method: Method | ModuleType, **settings: Any) -> Options:
    """The method's options, quick where they are not among the settings."""
    quick = {key: value for key, value in QUICK.items() if key in method.Options.__struct_fields__}
    options: Options = read(method.Options, quick | settings, "the settings of the check")
    return options


def watch(
    method: Method | ModuleType,
    problem: Problem,
    options: Options,
    resume: State | None = None,
    notices: list[Any] | None = None,
    most: int | None = None,
) -> list[CopiedStep]:
    """The steps of a method. The state of each went through a file, as that of an interrupted run does.

    Args:
        notices: gets what else it yields.
    """
    steps: list[CopiedStep] = []
    for event in method.distill(problem, options, resume):
        if isinstance(event, Step):
            steps.append(_copied(event))
            if len(steps) == most:
                break
        elif notices is not None:
            notices.append(event)
    return steps


def _copied(step: Step) -> CopiedStep:
    return CopiedStep(
        step.iteration,
        step.synthetic,
        step.synthetic.images.clone(),
        step.synthetic.labels.clone(),
        {name: float(value) for name, value in step.losses.items()},
        through_a_file(step.state()),
    )


def through_a_file(state: State) -> State:
    """The state as it is read again: tensors, numbers and text, nothing that would have to be executed."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read_again: State = torch.load(file, weights_only=True)
    return read_again


def it_says_what_it_is(trial: MethodTrial) -> None:
    method = trial.method
    _hold(len(method.headline) > 5, "Its module has no docstring, whose first line says what the method is.")
    _hold(
        method.PAPER == "" or method.PAPER.startswith("https://"), f"Its PAPER is {method.PAPER!r}, not an https://…."
    )


def its_options_are_explained_frozen_and_strict(trial: MethodTrial) -> None:
    kind = trial.method.Options
    _hold(
        kind.__struct_config__.frozen, "Its Options are not frozen: write `class Options(config.Options, frozen=True)`."
    )
    _hold(kind.__struct_config__.forbid_unknown_fields, "Its Options take what they do not know.")
    _hold(
        read(kind, msgspec.to_builtins(kind()), "it") == kind(), "Its default options are not read as they are written."
    )
    for name in undocumented(kind):
        _hold(False, f"Its option {name} is not explained: give it a `Meta(description=…)`, or a docstring below it.")


def its_recipes_have_a_source_and_can_be_followed(trial: MethodTrial) -> None:
    recipes = trial.method.RECIPES
    for index, recipe in enumerate(recipes):
        title = f"Its recipe {recipe.name!r} (number {index + 1})"
        read(trial.method.Options, recipe.options, title)
        _hold(len(recipe.source) > 5, f"{title} does not say where it is from.")
        low, high = recipe.ipc
        _hold(1 <= low <= (high or low), f"{title} is for IPC {low} to {high}, which is no range.")
        if recipe.network:
            networks.parse(recipe.network)
        dataset = (recipe.datasets or ("any other",))[0]
        first = next(other for other in recipes if other.name == recipe.name and other.fits(dataset, low))
        _hold(first is recipe, f"{title} is hidden by an earlier one of its name, so no run follows it.")


def its_set_has_ipc_images_per_class_with_the_right_labels(trial: MethodTrial) -> None:
    for card in (data_card(mirrors=False), data_card((6, 5, 8, 5), channels=3)):
        problem = tiny_problem(card=card, ipc=3)
        for step in trial.steps(problem):
            images, data = step.images, step.synthetic
            due = problem.real.labels if data.whole else problem.labels()
            found = data.hard_labels.tolist()
            _hold(found == due.tolist(), f"Its labels are {found}, where {due.tolist()} are due: sorted by class.")
            shape = (len(due), *problem.real.images.shape[1:])
            _hold(images.shape == shape, f"Its images are of shape {tuple(images.shape)}, where {shape} is due.")
            _hold(images.dtype in (torch.uint8, torch.float32), f"Its images are {images.dtype}, not float32 or uint8.")
            _hold(images.isfinite().all(), f"Not all pixels of its set are finite after iteration {step.iteration}.")
            _hold(
                data.classes == tuple(problem.card.classes), "Its set has other classes: use `problem.synthetic_set`."
            )
            same = data.normalisation == problem.real.normalisation
            _hold(same, "Its set says another preprocessing than the real images have: use `problem.synthetic_set`.")


def its_losses_are_finite_scalars(trial: MethodTrial) -> None:
    problem = tiny_problem()
    events = trial.method.distill(problem, trial.options(problem), None)
    for step in islice((event for event in events if isinstance(event, Step)), MOST_STEPS):
        for name, value in step.losses.items():
            _hold(isinstance(value, Tensor) and value.shape == (), f"Its loss {name!r} is not a tensor of shape ().")
            _hold(value.isfinite(), f"Its loss {name!r} is {value} after iteration {step.iteration}.")


def its_iterations_are_counted_up_to_the_number_asked_for(trial: MethodTrial) -> None:
    problem = tiny_problem()
    iterations = [step.iteration for step in trial.steps(problem)]
    _hold(
        iterations == sorted(set(iterations)), f"Its iterations are {iterations}: each is to be higher than the last."
    )
    due = getattr(trial.options(problem), "iterations", 0)
    _hold(
        len(iterations) == MOST_STEPS or iterations[-1:] == [due], f"Its iterations are {iterations}, {due} were due."
    )


def the_same_seed_gives_the_same_bits(trial: MethodTrial) -> None:
    sets = []
    for unrelated in (11, 12):
        with global_seed(unrelated):
            sets.append(torch.cat([step.images.float() for step in trial.steps(tiny_problem(seed=1))]))
    _hold(
        torch.equal(*sets),
        "Two runs of one seed give different sets: draw from `problem.generator(purpose, iteration)`.",
    )


def a_resumed_run_gives_the_bits_of_an_uninterrupted_one(trial: MethodTrial) -> None:
    uninterrupted = trial.steps(tiny_problem())
    for done, before in enumerate(uninterrupted[:-1], 1):
        rest = trial.steps(tiny_problem(), before.state)[: len(uninterrupted) - done]
        due = [step.iteration for step in uninterrupted[done:]]
        found = [step.iteration for step in rest]
        where = f"Resumed after iteration {before.iteration}, it"
        _hold(found == due, f"{where} makes the iterations {found}, where {due} are left.")
        for expected, step in zip(uninterrupted[done:], rest, strict=True):
            where = f"{where[:-4]}, after iteration {step.iteration} its"
            _hold(torch.equal(step.images, expected.images), f"{where} images are others than without an interruption.")
            _hold(torch.equal(step.labels, expected.labels), f"{where} labels are others than without an interruption.")
            _hold(step.losses == expected.losses, f"{where} losses are others than without an interruption.")
            where = f"Resumed after iteration {before.iteration}, it"


def the_real_images_stay_as_they_are(trial: MethodTrial) -> None:
    problem = tiny_problem()
    trial.steps(problem)
    same = torch.equal(problem.real.images, real_set(problem.card).images)
    _hold(same and problem.real.counts == tuple(problem.card.train_counts), "It changes the real images.")


def torch_s_global_generator_is_left_alone(trial: MethodTrial) -> None:
    with global_generator_untouched():
        trial.steps(tiny_problem())


def a_network_is_built_only_by_methods_that_say_so(trial: MethodTrial) -> None:
    built = []
    problem = tiny_problem()

    def build() -> Network:
        built.append(True)
        return networks.build("convnet-d1-w8", problem.card)

    problem.build_network = build
    trial.steps(problem)
    matches = trial.method.MATCHES_ON_NETWORK
    verb = "builds a" if built else "never builds its"
    _hold(bool(built) == matches, f"Its MATCHES_ON_NETWORK is {matches}, and it {verb} network.")


def its_set_survives_being_written_and_read(trial: MethodTrial) -> None:
    final = trial.steps(tiny_problem())[-1].synthetic
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.safetensors"
        path.write_bytes(final.to_bytes())
        again = SyntheticSet.read(path)
    same = torch.equal(again.images, final.images) and torch.equal(again.labels, final.labels)
    _hold(same, "Its set is another after it was written and read.")


METHOD_PROMISES: tuple[Callable[[MethodTrial], None], ...] = (
    it_says_what_it_is,
    its_options_are_explained_frozen_and_strict,
    its_recipes_have_a_source_and_can_be_followed,
    its_set_has_ipc_images_per_class_with_the_right_labels,
    its_losses_are_finite_scalars,
    its_iterations_are_counted_up_to_the_number_asked_for,
    the_same_seed_gives_the_same_bits,
    a_resumed_run_gives_the_bits_of_an_uninterrupted_one,
    the_real_images_stay_as_they_are,
    torch_s_global_generator_is_left_alone,
    a_network_is_built_only_by_methods_that_say_so,
    its_set_survives_being_written_and_read,
)


def undocumented(kind: type[Options]) -> list[str]:
    """Fields that neither a `Meta(description=…)` nor a docstring under the field explains."""
    properties = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    explained = {name for base in kind.__mro__ if issubclass(base, Options) for name in _with_docstring(base)}
    return [name for name in kind.__struct_fields__ if not _described(properties[name]) and name not in explained]


def _with_docstring(kind: type) -> Iterator[str]:
    """The fields that have a docstring in the source of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    for field, text in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id


def _described(schema: dict[str, Any]) -> bool:
    return bool(schema.get("description")) or any(_described(part) for part in schema.get("anyOf", []))


# Datasets.


@dataclass(frozen=True)
class DatasetTrial:
    """A dataset, and where its raw data are."""

    dataset: Dataset
    data: Path | None = None
    options: Mapping[str, Any] | None = None

    def prepare(self, say: Callable[[str], None] = lambda text: None) -> DataCard:
        return datasets.prepare(Choice(self.dataset.name, dict(self.options or {})), self.data, say)


def what_is_prepared_is_what_the_module_reads(trial: DatasetTrial) -> None:
    raw = trial.dataset.load(read(trial.dataset.Options, trial.options or {}, "the options"), trial.data)
    card = trial.prepare()
    for part, images, labels in zip(
        datasets.open_sets(card, torch.device("cpu")),
        (raw.train_images, raw.test_images),
        (raw.train_labels, raw.test_labels),
        strict=True,
    ):
        _hold(part.labels.tolist() == sorted(labels.tolist()), "Its labels are not those that were prepared.")
        _hold(part.images.dtype == torch.uint8, f"Its prepared images are {part.images.dtype}, not uint8.")
        _hold(part.images.shape == images.shape, f"Its images are {images.shape}, prepared {tuple(part.images.shape)}.")
        for label in range(len(raw.classes)):
            same = np.array_equal(part.images[part.labels == label].numpy(), images[labels == label])
            _hold(same, f"Its images of class {label} are not the bytes that were prepared: are they uint8?")


def it_is_prepared_once_and_the_same_each_time(trial: DatasetTrial) -> None:
    messages: list[str] = []
    first = trial.prepare(messages.append)
    again = trial.prepare(messages.append)
    _hold(len(messages) <= 1, "It is prepared each time: its fingerprint is not the same for the same data.")
    with _own_home():
        elsewhere = trial.prepare()
    _hold(first == again == elsewhere, "Prepared twice, it is not the same: do its images come in a random order?")


def its_network_suits_it(trial: DatasetTrial) -> None:
    card = trial.prepare()
    network = networks.build(networks.settle(trial.dataset.NETWORK, card), card)
    logits = network(torch.zeros(2, card.channels, card.height, card.width))
    _hold(logits.shape == (2, len(card.classes)), f"Its NETWORK gives {tuple(logits.shape)} for two of its images.")


DATASET_PROMISES: tuple[Callable[[DatasetTrial], None], ...] = (
    what_is_prepared_is_what_the_module_reads,
    it_is_prepared_once_and_the_same_each_time,
    its_network_suits_it,
)


# Networks.


def smallest_card(family: NetworkFamily) -> DataCard:
    """Two classes of images as small as the family can see."""
    for size in (8, 16, 32, 64, 128):
        card = data_card((1, 1), channels=3, size=(size, size))
        try:
            networks.settle(family.name, card)
        except BadInput:
            continue
        return card
    raise AssertionError("It has no network for images of any size from 8×8 to 128×128.")


def fresh_network(family: NetworkFamily, card: DataCard, seed: int = 0) -> Network:
    """The family's usual network for these images, its weights drawn."""
    network = networks.build(networks.settle(family.name, card), card)
    network.reset(_generator(seed))
    return network


def some_images(card: DataCard, count: int = 4) -> Tensor:
    """N(0, 1), (count, C, H, W) float32."""
    return torch.randn(count, card.channels, card.height, card.width, generator=_generator())


CARDS = (data_card((1,) * 10, channels=3, size=(32, 32)), data_card((1,) * 10, channels=1, size=(28, 28)))


def logits_are_finite_and_one_per_class(family: NetworkFamily) -> None:
    for card in CARDS:
        logits = fresh_network(family, card)(some_images(card))
        _hold(logits.shape == (4, 10), f"Its logits of 4 images and 10 classes are of shape {tuple(logits.shape)}.")
        _hold(logits.dtype == torch.float32 and logits.isfinite().all(), "Its logits are not finite, or not float32.")
        _hold(len(logits.unique(dim=0)) == 4, "It gives the same logits for different images.")


def gradients_reach_the_images_and_every_weight(family: NetworkFamily) -> None:
    for card in CARDS:
        images, network = some_images(card).requires_grad_(), fresh_network(family, card)
        network(images).square().sum().backward()
        for name, tensor in (("the images", images), *network.named_parameters()):
            _hold(tensor.grad is not None and tensor.grad.isfinite().all(), f"No finite gradient reaches {name}.")


def the_embedding_is_the_last_map_flattened_and_what_the_classifier_reads(family: NetworkFamily) -> None:
    for card in CARDS:
        images, network = some_images(card, 3), fresh_network(family, card).eval()
        embedding, maps = network.embed(images), network.feature_maps(images)
        _hold(
            len(maps) == network.num_levels, f"It yields {len(maps)} maps, and its num_levels is {network.num_levels}."
        )
        _hold(embedding.shape == (3, network.classifier.in_features), "Its last map is not what its classifier reads.")
        same = torch.equal(embedding, maps[-1].flatten(1)) and torch.allclose(
            network(images), network.classifier(embedding), atol=1e-5
        )
        _hold(same, "Its logits are not what its classifier makes of its last map.")
        _hold(all((m.dim(), len(m)) == (4, 3) for m in maps[:-1]), "A map before its last one is not (B, C, H, W).")


def images_are_not_changed(family: NetworkFamily) -> None:
    for card in CARDS:
        images, network = some_images(card, 2), fresh_network(family, card)
        before = images.clone()
        network(images)
        network.feature_maps(images)
        _hold(
            torch.equal(images, before), "It changes the images that it is given: an `inplace=True` of its first layer?"
        )


def a_full_name_is_its_own_full_name(family: NetworkFamily) -> None:
    for card in CARDS:
        name = networks.settle(family.name, card)
        _hold(name.startswith(family.name), f"Its network is called {name!r}.")
        _hold(networks.settle(name, card) == name, f"{name!r} is the full name of {networks.settle(name, card)!r}.")


def every_choice_of_a_name_can_be_built_and_is_another_network(family: NetworkFamily) -> None:
    choices = [spelling for spelling in family.PARTS.values() if not isinstance(spelling, str)]
    words = [word for spelling in choices for word in spelling]
    _hold(len(set(words)) == len(words), f"One of its words spells two options: {words}.")
    card = CARDS[0]
    names = {networks.settle(f"{family.name}-{word}", card) for word in words}
    for name in names:
        network = networks.build(name, card)
        network.reset(_generator())
        _hold(network(some_images(card, 2)).isfinite().all(), f"The logits of {name} are not finite.")
    # Each option has one word for its default, which the full name leaves out.
    _hold(len(names) == len(words) - len(choices) + bool(choices), f"The words {words} give the networks {names}.")


def the_same_generator_draws_the_same_weights_whatever_was_there_before(family: NetworkFamily) -> None:
    for card in CARDS:
        network = fresh_network(family, card).requires_grad_(False)
        before = copy.deepcopy(network.state_dict())
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(7)
        with global_generator_untouched():
            network.reset(_generator())
        after = network.state_dict()
        for key, tensor in before.items():
            _hold(torch.equal(tensor, after[key]), f"`reset` does not draw {key} anew.")
        frozen = not any(parameter.requires_grad for parameter in network.parameters())
        _hold(frozen, "`reset` makes frozen weights learn again.")


def building_leaves_torch_s_global_generator_alone(family: NetworkFamily) -> None:
    for card in CARDS:
        with global_generator_untouched():
            fresh_network(family, card)


def gradients_of_gradients_reach_the_images(family: NetworkFamily) -> None:
    """Gradients are matched, and students unrolled."""
    card = smallest_card(family)
    images, network = some_images(card, 3).requires_grad_(), fresh_network(family, card)
    slopes = torch.autograd.grad(network(images).square().sum(), list(network.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(torch.stack([slope.square().sum() for slope in slopes]).sum(), images)
    reached = second.isfinite().all() and second.flatten(1).norm(dim=1).min() > 0
    _hold(reached, "No gradient of a gradient reaches the images: the methods that match gradients cannot use it.")


NETWORK_PROMISES: tuple[Callable[[NetworkFamily], None], ...] = (
    logits_are_finite_and_one_per_class,
    gradients_reach_the_images_and_every_weight,
    the_embedding_is_the_last_map_flattened_and_what_the_classifier_reads,
    images_are_not_changed,
    a_full_name_is_its_own_full_name,
    every_choice_of_a_name_can_be_built_and_is_another_network,
    the_same_generator_draws_the_same_weights_whatever_was_there_before,
    building_leaves_torch_s_global_generator_alone,
    gradients_of_gradients_reach_the_images,
)
