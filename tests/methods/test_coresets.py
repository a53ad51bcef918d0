"""Herding, K-Center and K-Means against loops written by hand, in float64."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dambench.core.events import Progressed
from dambench.matching.experts import expert, expert_protocol, features_of_each_class
from dambench.methods import herding, kcenter, kmeans
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import watch
from tests.lab import end_of, noise


def distance(a: Tensor, b: Tensor) -> float:
    return float(((a - b) ** 2).sum().sqrt())


def literally_herded(features: Tensor, count: int) -> list[int]:
    """Spec 2: at step k the one not yet chosen that minimises ‖k·m − Σ(chosen) − f‖₂."""
    mean = sum(features, torch.zeros_like(features[0])) / len(features)
    chosen: list[int] = []
    for k in range(1, count + 1):
        target = k * mean - sum((features[i] for i in chosen), torch.zeros_like(mean))
        left = [i for i in range(len(features)) if i not in chosen]
        chosen.append(min(left, key=lambda i: distance(target, features[i])))
    return chosen


def literal_centres(features: Tensor, count: int) -> list[int]:
    """Spec 2: nearest to the mean, then the farthest from its nearest centre."""
    mean = sum(features, torch.zeros_like(features[0])) / len(features)
    chosen = [min(range(len(features)), key=lambda i: distance(mean, features[i]))]
    while len(chosen) < count:
        left = [i for i in range(len(features)) if i not in chosen]
        chosen.append(max(left, key=lambda i: min(distance(features[i], features[c]) for c in chosen)))
    return chosen


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_herding_is_that_of_the_formula(seed: int, count: int, width: int) -> None:
    features = noise(12, width, seed=seed) + 5
    assert herding.herd(features, count).tolist() == literally_herded(features, count)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_k_center_is_that_of_the_formula(seed: int, count: int, width: int) -> None:
    features = noise(12, width, seed=seed) + 5
    assert kcenter.centres(features, count).tolist() == literal_centres(features, count)


@pytest.mark.parametrize("method", [herding.herd, kcenter.centres, lambda f, n: kmeans.representatives(f, n, 0)])
def test_no_image_is_taken_twice_even_where_all_are_equal(method: Callable[[Tensor, int], Tensor]) -> None:
    assert sorted(method(torch.ones(6, 3), 6).tolist()) == [0, 1, 2, 3, 4, 5]
    doubled = noise(4, 3).float().repeat(2, 1)
    assert len(set(method(doubled, 7).tolist())) == 7


def test_herding_follows_the_mean_better_than_chance() -> None:
    features = noise(300, 8).exp()
    mean = features.mean(0)
    herded = features[herding.herd(features, 10)].mean(0)
    drawn = [features[noise(300, seed=seed).argsort()[:10]].mean(0) for seed in range(20)]
    assert distance(herded, mean) < 0.3 * min(distance(one, mean) for one in drawn)


def test_k_means_takes_an_image_near_the_middle_of_each_cluster() -> None:
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    offsets = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    features = (middles.unsqueeze(1) + offsets).flatten(0, 1)  # the first of each five is in the middle
    for seed in range(5):
        assert sorted(kmeans.representatives(features, 3, seed).tolist()) == [0, 5, 10]


def test_k_means_with_one_cluster_takes_the_image_nearest_to_the_mean() -> None:
    features = noise(30, 6).float()
    assert kmeans.representatives(features, 1, 0).tolist() == literal_centres(features.double(), 1)


@pytest.mark.parametrize("module", [herding, kcenter, kmeans])
def test_images_are_chosen_among_those_of_their_class(module: ModuleType) -> None:
    problem = tiny_problem(card=data_card((5, 6, 7)), ipc=4)
    (step,) = watch(module, problem, module.Options(epochs=1))
    real = problem.real.images.split(list(problem.real.counts))
    for label, chosen in enumerate(step.images.split(4)):
        found = [int((real[label] == image).flatten(1).all(1).nonzero().item()) for image in chosen]
        assert len(set(found)) == 4


def test_the_features_are_those_of_the_expert() -> None:
    problem = tiny_problem(ipc=2)
    (step,) = watch(herding, problem, herding.Options(epochs=2))
    notices: list[Any] = []
    network = end_of(expert(problem, expert_protocol(2)), notices)
    assert not [event for event in notices if isinstance(event, Progressed)], "it was kept"
    first = next(features_of_each_class(problem, network))
    expected = problem.real.images[literally_herded(first.double(), 2)]
    assert torch.equal(step.images[:2], expected)
