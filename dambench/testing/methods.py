"""The promises of all methods."""

import ast
import inspect
import io
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import torch
from torch import Tensor

from dambench import networks
from dambench.core.config import Options, read
from dambench.core.contracts import Method
from dambench.testing.problems import (
    data_card,
    global_generator_untouched,
    global_seed,
    real_set,
    tiny_problem,
)
from dambench.testing.promises import broken_promises, hold, own_home, refuse
from dambench.training.problem import Network, Problem, State, Step, SyntheticSet

QUICK: dict[str, Any] = {
    **{"iterations": 4, "batch_real": 4, "epochs": 2, "updates": 3},
    **{"experts": 2, "steps": 2, "expert_epochs": 1, "max_start": 2, "scored_by": 2, "scored_after": 1, "growth": 1},
    **{"memory_after": 1, "patience": 1, "frequencies": 16},
    **{"queue": 2, "push_every": 2, "train_steps": 2, "accuracy_over": 3},
    "lr_labels": 0.01,  # of experts that learn next to nothing: a usual step would change what an image is
}
"""Settings that make any method quick; each takes those that it knows."""


MOST_STEPS = 5
"""The steps of a method that are checked."""


def check_method(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Check that a method keeps every promise: its contract, its sets, resuming to the bit, its recipes.

    Args:
        options: settings that it needs to be quick, or at all.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    refuse(method_faults(name, options))


def method_faults(name: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """The sentences that `check_method` would raise."""
    with own_home():
        return broken_promises(
            "methods", name, METHOD_PROMISES, lambda plugin: MethodTrial(plugin, lambda problem: options or {})
        )


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
        hold(steps, "It yields no Step.")
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
    hold(len(method.headline) > 5, "Its module has no docstring, whose first line says what the method is.")
    hold(method.PAPER == "" or method.PAPER.startswith("https://"), f"Its PAPER is {method.PAPER!r}, not an https://….")


def its_options_are_explained_frozen_and_strict(trial: MethodTrial) -> None:
    kind = trial.method.Options
    hold(
        kind.__struct_config__.frozen, "Its Options are not frozen: write `class Options(config.Options, frozen=True)`."
    )
    hold(kind.__struct_config__.forbid_unknown_fields, "Its Options take what they do not know.")
    hold(
        read(kind, msgspec.to_builtins(kind()), "it") == kind(), "Its default options are not read as they are written."
    )
    for name in undocumented(kind):
        hold(False, f"Its option {name} is not explained: give it a `Meta(description=…)`, or a docstring below it.")


def its_recipes_have_a_source_and_can_be_followed(trial: MethodTrial) -> None:
    recipes = trial.method.RECIPES
    for index, recipe in enumerate(recipes):
        title = f"Its recipe {recipe.name!r} (number {index + 1})"
        read(trial.method.Options, recipe.options, title)
        hold(len(recipe.source) > 5, f"{title} does not say where it is from.")
        low, high = recipe.ipc
        hold(1 <= low <= (high or low), f"{title} is for IPC {low} to {high}, which is no range.")
        if recipe.network:
            networks.parse(recipe.network)
        dataset = (recipe.datasets or ("any other",))[0]
        first = next(other for other in recipes if other.name == recipe.name and other.fits(dataset, low))
        hold(first is recipe, f"{title} is hidden by an earlier one of its name, so no run follows it.")


def its_set_has_ipc_images_per_class_with_the_right_labels(trial: MethodTrial) -> None:
    for card in (data_card(mirrors=False), data_card((6, 5, 8, 5), channels=3)):
        problem = tiny_problem(card=card, ipc=3)
        for step in trial.steps(problem):
            images, data = step.images, step.synthetic
            due = problem.real.labels if data.whole else problem.labels()
            labels = data.hard_labels.tolist()
            hold(labels == due.tolist(), f"Its labels are {labels}, where {due.tolist()} are due: sorted by class.")
            shape = (len(due), *problem.real.images.shape[1:])
            hold(images.shape == shape, f"Its images are of shape {tuple(images.shape)}, where {shape} is due.")
            hold(images.dtype in (torch.uint8, torch.float32), f"Its images are {images.dtype}, not float32 or uint8.")
            hold(images.isfinite().all(), f"Not all pixels of its set are finite after iteration {step.iteration}.")
            hold(data.classes == tuple(problem.card.classes), "Its set has other classes: use `problem.synthetic_set`.")
            same = data.preprocessing == problem.real.preprocessing
            hold(same, "Its set says another preprocessing than the real images have: use `problem.synthetic_set`.")


def its_losses_are_finite_scalars(trial: MethodTrial) -> None:
    problem = tiny_problem()
    events = trial.method.distill(problem, trial.options(problem), None)
    for step in islice((event for event in events if isinstance(event, Step)), MOST_STEPS):
        for name, value in step.losses.items():
            hold(isinstance(value, Tensor) and value.shape == (), f"Its loss {name!r} is not a tensor of shape ().")
            hold(value.isfinite(), f"Its loss {name!r} is {value} after iteration {step.iteration}.")


def its_iterations_are_counted_up_to_the_number_asked_for(trial: MethodTrial) -> None:
    problem = tiny_problem()
    iterations = [step.iteration for step in trial.steps(problem)]
    hold(iterations == sorted(set(iterations)), f"Its iterations are {iterations}: each is to be higher than the last.")
    due = getattr(trial.options(problem), "iterations", 0)
    hold(len(iterations) == MOST_STEPS or iterations[-1:] == [due], f"Its iterations are {iterations}, {due} were due.")


def the_same_seed_gives_the_same_bits(trial: MethodTrial) -> None:
    sets = []
    for unrelated in (11, 12):
        with global_seed(unrelated):
            sets.append(torch.cat([step.images.float() for step in trial.steps(tiny_problem(seed=1))]))
    hold(
        torch.equal(*sets),
        "Two runs of one seed give different sets: draw from `problem.generator(purpose, iteration)`.",
    )


def a_resumed_run_gives_the_bits_of_an_uninterrupted_one(trial: MethodTrial) -> None:
    uninterrupted = trial.steps(tiny_problem())
    for done, before in enumerate(uninterrupted[:-1], 1):
        rest, due = trial.steps(tiny_problem(), before.state)[: len(uninterrupted) - done], uninterrupted[done:]
        title = f"Resumed after iteration {before.iteration}"
        made, left = ([step.iteration for step in steps] for steps in (rest, due))
        hold(made == left, f"{title}, it makes the iterations {made}, where {left} are left.")
        for step, expected in zip(rest, due, strict=True):
            for what in ("images", "labels", "losses"):
                one, other = getattr(step, what), getattr(expected, what)
                same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
                hold(
                    same,
                    f"{title}, after iteration {step.iteration} its {what} are not those of a run never interrupted.",
                )


def the_real_images_stay_as_they_are(trial: MethodTrial) -> None:
    problem = tiny_problem()
    trial.steps(problem)
    same = torch.equal(problem.real.images, real_set(problem.card).images)
    hold(same and problem.real.counts == tuple(problem.card.train_counts), "It changes the real images.")


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
    hold(bool(built) == matches, f"Its MATCHES_ON_NETWORK is {matches}, and it {verb} network.")


def its_set_survives_being_written_and_read(trial: MethodTrial) -> None:
    final = trial.steps(tiny_problem())[-1].synthetic
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.safetensors"
        path.write_bytes(final.to_bytes())
        again = SyntheticSet.read(path)
    same = torch.equal(again.images, final.images) and torch.equal(again.labels, final.labels)
    hold(same, "Its set is another after it was written and read.")


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
