"""What the tests of the networks share."""

import torch
from torch import Tensor, nn

from dambench import networks
from dambench.testing import data_card
from dambench.training.problem import Network
from tests.lab import generator


def build(name: str, channels: int, size: int | tuple[int, int], classes: int = 10) -> Network:
    """The network with weights drawn from a generator of its own."""
    size = (size, size) if isinstance(size, int) else size
    card = data_card((1,) * classes, channels=channels, size=size)
    network = networks.build(networks.settle(name, card), card)
    network.reset(generator(1))
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def with_norms(network: Network) -> Network:
    """The network in double precision, with norms that are not the identity."""
    network.double()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.GroupNorm | nn.BatchNorm2d | nn.LayerNorm):
                layer.weight.uniform_(0.5, 2, generator=generator(2))
                layer.bias.uniform_(-1, 1, generator=generator(3))
    return network


def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Between networks whose weights are of the same shapes in the same order."""
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
            mine.copy_(theirs)


def instance_norm(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    centred = images - images.mean((2, 3), keepdim=True)
    centred = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    return centred * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
