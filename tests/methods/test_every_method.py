from pathlib import Path

import msgspec
import pytest
import torch

from dambench import networks
from dambench.core import registry
from dambench.core.config import read
from dambench.core.contracts import Method
from dambench.methods import random, whole
from dambench.training.problem import Network, Problem, State, Step
from tests.lab import (
    Seen,
    data_card,
    global_generator_untouched,
    global_seed,
    quick_options,
    real_set,
    tiny_problem,
    undocumented,
    watch,
)

CARDS = {"grey": data_card(mirrors=False), "colour": data_card((6, 5, 8, 5), channels=3)}

SEEDLESS = {"whole", "imported"}
"""Methods that are told which set to give."""


def _quickly(method: Method, problem: Problem, resume: State | None = None) -> list[Seen]:
    return watch(method, problem, quick_options(method, problem), resume)


@pytest.fixture(params=registry.names("methods"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def method(name: str) -> Method:
    return registry.load("methods", name)


@pytest.mark.parametrize("card", CARDS)
def test_the_set_has_ipc_images_per_class_with_the_right_labels(name: str, method: Method, card: str) -> None:
    problem = tiny_problem(card=CARDS[card], ipc=3)
    for step in watch(method, problem, quick_options(method, problem)):
        images, labels = step.images, step.synthetic.hard_labels
        if name == "whole":
            assert labels.tolist() == problem.real.labels.tolist()
        else:
            assert labels.tolist() == [c for c in range(problem.real.classes) for _ in range(3)]
        assert images.shape == (len(labels), *problem.real.images.shape[1:])
        assert images.dtype in (torch.uint8, torch.float32)
        assert images.isfinite().all()
        assert step.synthetic.classes == tuple(problem.card.classes)
        assert step.synthetic.normalisation == problem.real.normalisation
        assert step.synthetic.whole == (name == "whole")


def test_losses_are_finite_scalars(method: Method) -> None:
    problem = tiny_problem()
    for step in method.distill(problem, quick_options(method, problem)):
        if not isinstance(step, Step):
            continue
        for value in step.losses.values():
            assert value.shape == ()
            assert value.isfinite()


def test_iterations_are_counted_up_to_the_number_asked_for(method: Method) -> None:
    steps = _quickly(method, tiny_problem())
    iterations = [step.iteration for step in steps]
    assert iterations
    assert iterations == sorted(set(iterations))
    assert iterations[-1] == getattr(quick_options(method, tiny_problem()), "iterations", 0)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(name: str, method: Method) -> None:
    sets = []
    for seed, unrelated in ((1, 11), (1, 12), (2, 11)):
        with global_seed(unrelated):
            steps = _quickly(method, tiny_problem(seed=seed))
        sets.append(torch.cat([step.images.float() for step in steps]))
    assert torch.equal(sets[0], sets[1])
    assert torch.equal(sets[0], sets[2]) == (name in SEEDLESS)


def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(method: Method) -> None:
    uninterrupted = _quickly(method, tiny_problem())
    for done in range(1, len(uninterrupted)):
        state = uninterrupted[done - 1].state
        rest = _quickly(method, tiny_problem(), state)
        assert [step.iteration for step in rest] == [step.iteration for step in uninterrupted[done:]]
        for expected, step in zip(uninterrupted[done:], rest, strict=True):
            assert torch.equal(step.images, expected.images)
            assert torch.equal(step.labels, expected.labels)
            assert step.losses == expected.losses


def test_real_images_stay_as_they_are(method: Method) -> None:
    problem = tiny_problem()
    _quickly(method, problem)
    assert torch.equal(problem.real.images, real_set(problem.card).images)
    assert problem.real.counts == tuple(problem.card.train_counts)


def test_torch_s_global_generator_is_left_alone(method: Method) -> None:
    with global_generator_untouched():
        _quickly(method, tiny_problem())


def test_a_network_is_built_only_by_methods_that_say_so(method: Method) -> None:
    built = []

    def build() -> Network:
        built.append(True)
        return networks.build("convnet-d1-w8", problem.card)

    problem: Problem = tiny_problem()
    problem.build_network = build
    _quickly(method, problem)
    assert bool(built) == method.MATCHES_ON_NETWORK


def test_the_set_survives_being_written_and_read(name: str, method: Method, tmp_path: Path) -> None:
    final = _quickly(method, tiny_problem())[-1].synthetic
    path = tmp_path / "set.safetensors"
    path.write_bytes(final.to_bytes())
    again = type(final).read(path)
    assert torch.equal(again.images, final.images)
    assert torch.equal(again.labels, final.labels)


def test_a_method_says_what_it_is(method: Method) -> None:
    assert len(method.headline) > 5
    assert method.PAPER == "" or method.PAPER.startswith("https://")
    assert isinstance(method.MATCHES_ON_NETWORK, bool)


def test_options_are_frozen_and_strict(method: Method) -> None:
    options = method.Options()
    for field in options.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(options, field, None)
    assert options.__struct_config__.frozen
    assert options.__struct_config__.forbid_unknown_fields
    assert read(method.Options, msgspec.to_builtins(options), "it") == options


def test_every_option_is_documented(method: Method) -> None:
    assert undocumented(method.Options) == []


def test_recipes_can_be_followed_and_say_where_they_are_from(method: Method) -> None:
    for recipe in method.RECIPES:
        assert isinstance(read(method.Options, recipe.options, f"a recipe of {method.name}"), method.Options)
        assert len(recipe.source) > 5
        low, high = recipe.ipc
        assert 1 <= low <= (high or low)
        if recipe.network:
            networks.parse(recipe.network)


def test_every_recipe_is_the_default_of_some_run(method: Method) -> None:
    recipes = method.RECIPES
    for index, recipe in enumerate(recipes):
        dataset, ipc = (recipe.datasets or ("any other",))[0], recipe.ipc[0]
        first = next(r for r in recipes if r.name == recipe.name and r.fits(dataset, ipc))
        assert first is recipe, f"recipe {index} is hidden by another"


def test_random_gives_the_subset_that_other_methods_start_from() -> None:
    problem = tiny_problem(ipc=4)
    (step,) = watch(random, problem, random.Options())
    assert torch.equal(step.images, problem.random_subset())


def test_whole_gives_every_real_image() -> None:
    problem = tiny_problem()
    (step,) = watch(whole, problem, whole.Options())
    assert torch.equal(step.images, problem.real.images)
    assert torch.equal(step.labels, problem.real.labels)
