import pytest
import torch
import torch.nn.functional as F

from dambench.core.errors import BadInput
from tests.lab import noise
from tests.networks.zoo import build, parameters


@pytest.mark.parametrize(("channels", "size", "count"), [(1, 28, 61_706), (3, 32, 62_006)])
def test_parameters_are_as_many_as_published(channels: int, size: int, count: int) -> None:
    assert parameters(build("lenet", channels, size)) == count


@pytest.mark.parametrize(("size", "padding"), [(28, 2), (32, 0), (17, 0)])
def test_logits_and_maps_are_those_of_a_literal_network(size: int, padding: int) -> None:
    network = build("lenet", 1, size).double()
    c1, b1, c2, b2, f1, d1, f2, d2, f3, d3 = network.parameters()
    images = noise(3, 1, size, size)
    first = F.conv2d(images, c1, b1, padding=padding).clamp_min(0)
    second = F.conv2d(F.max_pool2d(first, 2), c2, b2).clamp_min(0)
    hidden = (F.max_pool2d(second, 2).flatten(1) @ f1.T + d1).clamp_min(0)
    hidden = (hidden @ f2.T + d2).clamp_min(0)
    for seen, expected in zip(network.feature_maps(images), [first, second, hidden], strict=True):
        torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(network(images), hidden @ f3.T + d3)


def test_images_too_small_for_two_convolutions_are_refused() -> None:
    assert build("lenet", 3, 16)(torch.zeros(1, 3, 16, 16)).shape == (1, 10)
    with pytest.raises(BadInput, match="15×40 are too small for a lenet: it needs 16×16"):
        build("lenet", 3, (15, 40))
