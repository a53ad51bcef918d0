import pytest
import torch
from torch import nn

from dambench.core.errors import BadInput
from tests.lab import noise
from tests.networks.zoo import build, copy_weights, parameters, with_norms

CONVOLUTIONS = [(3, 128, 5), (128, 192, 5), (192, 256, 3), (256, 192, 3), (192, 192, 3)]


def test_parameters_are_those_of_its_layers() -> None:
    convolutions = sum(before * after * kernel**2 + after for before, after, kernel in CONVOLUTIONS)
    assert parameters(build("alexnet", 3, 32)) == convolutions + 192 * 4 * 4 * 10 + 10
    norms = 2 * sum(after for _, after, _ in CONVOLUTIONS)
    assert parameters(build("alexnet-bn", 3, 32)) == convolutions + norms + 192 * 4 * 4 * 10 + 10
    assert parameters(build("alexnet", 1, 28)) == convolutions - 2 * 128 * 25 + 192 * 4 * 4 * 10 + 10


@pytest.mark.parametrize(("size", "padding"), [(32, 2), (28, 4)])
@pytest.mark.parametrize("norm", ["", "-bn"])
def test_logits_and_maps_are_those_of_a_literal_network(norm: str, size: int, padding: int) -> None:
    network = with_norms(build(f"alexnet{norm}", 3, size))
    layers: list[nn.Module] = []
    for index, (before, after, kernel) in enumerate(CONVOLUTIONS):
        layers.append(nn.Conv2d(before, after, kernel, padding=padding if index == 0 else kernel // 2))
        layers += [nn.BatchNorm2d(after)] if norm else []
        layers.append(nn.ReLU())
        layers += [nn.MaxPool2d(2)] if index in (0, 1, 4) else []
    literal = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192 * 16, 10)).double()
    copy_weights(literal, network)
    seen = images = noise(2, 3, size, size)
    relus = []
    for layer in literal:
        seen = layer(seen)
        relus += [seen] if isinstance(layer, nn.ReLU) else []
    torch.testing.assert_close(network(images), seen)
    for ours, theirs in zip(network.feature_maps(images), relus, strict=False):
        torch.testing.assert_close(ours, theirs)
    assert network.num_levels == len(relus) + 1
    assert len(network.stages) == len(relus)


def test_images_too_small_for_three_halvings_are_refused() -> None:
    assert build("alexnet", 1, 8)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(BadInput, match=r"7×9 are too small for an alexnet.* 8×8 or more"):
        build("alexnet", 1, (7, 9))
