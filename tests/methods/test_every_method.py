"""Promises that all methods make."""

from collections.abc import Callable

import pytest
import torch

from dambench.core import registry
from dambench.methods import random, whole
from dambench.testing import tiny_problem
from dambench.testing.methods import METHOD_PROMISES, MethodTrial, watch
from tests.lab import needs

SEEDLESS = {"whole", "imported"}
"""Methods that are told which set to give."""


@pytest.fixture(params=registry.names("methods"))
def trial(request: pytest.FixtureRequest) -> MethodTrial:
    return MethodTrial(registry.load("methods", request.param), lambda problem: needs(request.param, problem))


@pytest.mark.parametrize("promise", METHOD_PROMISES, ids=lambda promise: promise.__name__)
def test_every_method_keeps_its_promise_that(promise: Callable[[MethodTrial], None], trial: MethodTrial) -> None:
    promise(trial)


def test_another_seed_gives_another_set(trial: MethodTrial) -> None:
    sets = [torch.cat([step.images.float() for step in trial.steps(tiny_problem(seed=seed))]) for seed in (1, 2)]
    assert torch.equal(*sets) == (trial.method.name in SEEDLESS)


def test_only_the_whole_set_is_called_so(trial: MethodTrial) -> None:
    for step in trial.steps(tiny_problem()):
        assert step.synthetic.whole == (trial.method.name == "whole")


def test_random_gives_the_subset_that_other_methods_start_from() -> None:
    problem = tiny_problem(ipc=4)
    (step,) = watch(random, problem, random.Options())
    assert torch.equal(step.images, problem.random_subset())


def test_whole_gives_every_real_image() -> None:
    problem = tiny_problem()
    (step,) = watch(whole, problem, whole.Options())
    assert torch.equal(step.images, problem.real.images)
    assert torch.equal(step.labels, problem.real.labels)
