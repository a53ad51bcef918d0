"""ATOM against a slow literal transcription of what is recalled of it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dambench.core.config import read
from dambench.matching.attention import mixed_attention
from dambench.methods import atom, datadam
from dambench.testing import tiny_problem
from dambench.testing.methods import watch
from dambench.training.problem import Network
from tests.lab import generator, noise, pulled, random_network
from tests.methods.test_datadam import CARD, literal_attention

REAL, SYNTHETIC = noise(3, 4, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)


def options(**changes: Any) -> atom.Options:
    return read(atom.Options, {"iterations": 3, "batch_real": 4, **changes}, "method atom")


def literal_channels(maps: Tensor, power: float) -> Tensor:
    """One image, channel and pixel at a time: (n, C)."""
    images = []
    for image in maps:
        strength = torch.stack([sum(abs(value) ** power for value in channel.flatten()) for channel in image])
        images.append(strength / torch.sqrt((strength * strength).sum()))
    return torch.stack(images)


def literal_loss(network: Network, synthetic: Tensor, power: float, channel_power: float, weight: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for of_class in zip(REAL, synthetic, strict=True):
        *layers, last, embedding = zip(*(network.feature_maps(images) for images in of_class), strict=True)
        assert last[0].shape[1] == layers[0][0].shape[1]
        for seen in layers:
            space = [literal_attention(maps, power).sum(0) / len(maps) for maps in seen]
            channels = [literal_channels(maps, channel_power).sum(0) / len(maps) for maps in seen]
            total = total + 100 * ((space[0] - space[1]) ** 2).sum()
            total = total + 100 * weight * ((channels[0] - channels[1]) ** 2).sum()
        means = [maps.flatten(1).sum(0) / len(maps) for maps in embedding]
        total = total + 100 * 0.02 * ((means[0] - means[1]) ** 2).sum()
    return total


@pytest.mark.parametrize(("power", "channel_power", "weight"), [(4.0, 4.0, 1.0), (1.0, 3.0, 0.5), (2.0, 2.0, 1.0)])
def test_loss_and_gradient_are_those_of_the_literal_transcription(
    power: float, channel_power: float, weight: float
) -> None:
    network, free = random_network("convnet-d3-w4", CARD), SYNTHETIC.clone().requires_grad_()
    given = options(power=power, channel_power=channel_power, channel_weight=weight, balance=0.02)
    losses, gradient = pulled(network, atom.terms(network, given), REAL, SYNTHETIC)
    expected = literal_loss(network, free, power, channel_power, weight)
    torch.testing.assert_close(losses["matching"], expected.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, free)[0], rtol=1e-8, atol=1e-11)


def test_without_channels_it_is_datadam() -> None:
    network = random_network("convnet-d3-w6-bn", CARD)
    ours = pulled(network, atom.terms(network, options(channel_weight=0.0)), REAL, SYNTHETIC)
    theirs = pulled(network, datadam.terms(network, datadam.Options(power=4.0)), REAL, SYNTHETIC)
    torch.testing.assert_close(ours[0]["matching"], theirs[0]["matching"])
    torch.testing.assert_close(ours[1], theirs[1])


def test_channels_are_seen_however_the_activations_are_moved_about() -> None:
    maps = noise(5, 4, 3, 6).abs()
    moved = maps.flatten(2)[:, :, torch.randperm(18, generator=generator())].view_as(maps)
    both = [mixed_attention(some, 4.0, 4.0, 1.0)[:, 18:] for some in (maps, moved)]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(both[0], literal_channels(maps, 4.0))


def test_a_step_tells_what_the_loss_is_made_of() -> None:
    for step in watch(atom, tiny_problem(network="convnet-d2-w8"), options()):
        assert list(step.losses) == ["matching", "attention", "features", "skipped"]
