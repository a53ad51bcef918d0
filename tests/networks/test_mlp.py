import pytest
import torch

from dambench import networks
from dambench.core import registry
from dambench.networks import mlp
from tests.lab import noise
from tests.networks.zoo import build, parameters


@pytest.mark.parametrize(
    ("name", "channels", "size", "count"),
    [
        ("mlp", 1, 28, 784 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp", 3, 32, 3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp-d1", 1, 28, 784 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_it_has_two_hidden_layers_of_128_or_as_many_as_its_name_says(
    name: str, channels: int, size: int, count: int
) -> None:
    assert parameters(build(name, channels, size)) == count


def test_logits_are_those_of_a_literal_network() -> None:
    network = build("mlp-w8", 2, 4).double()
    first, b1, second, b2, last, b3 = network.parameters()
    images = noise(5, 2, 4, 4)
    seen = (images.flatten(1) @ first.T + b1).clamp_min(0)
    seen = (seen @ second.T + b2).clamp_min(0)
    torch.testing.assert_close(network.embed(images), seen)
    torch.testing.assert_close(network(images), seen @ last.T + b3)


def test_there_is_nothing_to_see_on_the_way() -> None:
    network = build("mlp-d3", 1, 8)
    assert [maps.shape for maps in network.feature_maps(torch.zeros(2, 1, 8, 8))] == [(2, 128)]
    assert network.num_levels == 1


def test_its_name_says_depth_and_width() -> None:
    family = registry.load("networks", "mlp")
    assert networks.parse("mlp-w64-d1") == networks.parse("mlp1-w64") == (family, mlp.Options(depth=1, width=64))
