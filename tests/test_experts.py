import os
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from dambench import experts, files, networks
from dambench.experts import expert, features_of_each_class, recipe
from dambench.problem import Network, Problem
from dambench.train import predict, train
from tests.lab import data_card, tiny_problem


def finished(problem: Problem, epochs: int = 2) -> Network:
    """The network, whatever was said on the way."""
    network: Network = _end(expert(problem, recipe(epochs)))
    return network


def _end(steps: Generator[Any, None, Network]) -> Network:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            network: Network = end.value
            return network


def weights(network: Network) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in network.state_dict().values()])


def kept() -> list[str]:
    folder = files.home() / "experts"
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.mark.parametrize("network", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_a_kept_network_is_the_one_that_was_trained_and_is_not_trained_again(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = tiny_problem(network=network)
    first = finished(problem)
    twin = problem.build_network()
    list(train(twin, problem.whole_set(), recipe(2), problem.seeds.child("expert"), mirrors=True))
    assert torch.equal(weights(first), weights(twin))
    assert len(kept()) == 1
    monkeypatch.setattr(experts, "train", None)
    again = finished(tiny_problem(network=network))
    assert torch.equal(weights(again), weights(first))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_what_the_weights_depend_on_has_a_file_of_its_own() -> None:
    other_card = data_card()
    changed = type(other_card)(
        **{f: getattr(other_card, f) for f in other_card.__struct_fields__} | {"sha256": "1" * 64}
    )
    for problem, epochs in (
        (tiny_problem(), 1),
        (tiny_problem(), 2),
        (tiny_problem(seed=1), 1),
        (tiny_problem(card=changed), 1),
        (tiny_problem(network="convnet-d1-w12"), 1),
        (tiny_problem(network="convnet-d1-w8-mp"), 1),
    ):
        before = len(kept())
        finished(problem, epochs)
        assert len(kept()) == before + 1
    finished(tiny_problem(ipc=1), 1)
    assert len(kept()) == before + 1, "how many images are chosen does not matter to it"


def test_a_damaged_file_is_made_again() -> None:
    first = finished(tiny_problem())
    path = files.home() / "experts" / kept()[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert torch.equal(weights(finished(tiny_problem())), weights(first))
    assert path.read_bytes() == whole


def test_training_says_how_far_it_is() -> None:
    said = list(expert(tiny_problem(), recipe(3)))
    assert [(event.done, event.total) for event in said] == [(1, 3), (2, 3), (3, 3)]


def test_features_are_what_the_classifier_reads_of_each_image_class_by_class() -> None:
    problem = tiny_problem(card=data_card((5, 300, 7)))
    network = finished(problem)
    found = list(features_of_each_class(problem, network))
    assert [len(features) for features in found] == [5, 300, 7]
    logits = network.classifier(torch.cat(found))
    torch.testing.assert_close(logits, predict(network, problem.whole_set(), 64))


def test_an_expert_knows_its_images_better_than_chance() -> None:
    card = data_card((20, 20, 20))
    problem = tiny_problem(card=card)
    # Random pixels, all of them brighter in each class.
    shades = torch.tensor([0, 60, 120], dtype=torch.uint8).repeat_interleave(20).view(-1, 1, 1, 1)
    problem.real.images.div_(3, rounding_mode="floor").add_(shades)
    problem.build_network = lambda: networks.build("convnet-d1-w8-nn", card)
    right = predict(finished(problem, 40), problem.whole_set(), 64).argmax(1) == problem.real.labels
    assert right.float().mean() > 0.8
