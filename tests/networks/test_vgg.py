import pytest
import torch
import torchvision
from torch import nn

from dambench.core.errors import BadInput
from tests.lab import noise
from tests.networks.zoo import build, copy_weights, parameters, with_norms


@pytest.mark.parametrize(
    ("name", "count"), [("vgg11", 9_231_114), ("vgg13-bn", 9_416_010), ("vgg16", 14_728_266), ("vgg19", 20_040_522)]
)
def test_parameters_are_as_many_as_published(name: str, count: int) -> None:
    assert parameters(build(name, 3, 32)) == count


@pytest.mark.parametrize("depth", [11, 16])
def test_logits_and_maps_are_those_of_torchvision_s_convolutions(depth: int) -> None:
    network = with_norms(build(f"vgg{depth}-bn", 3, 32))
    features = getattr(torchvision.models, f"vgg{depth}_bn")(init_weights=False).features
    theirs = nn.Sequential(*features, nn.Flatten(), nn.Linear(512, 10)).double()
    copy_weights(theirs, network)
    seen = images = noise(2, 3, 32, 32)
    relus = []
    for layer in theirs:
        seen = layer(seen)
        relus += [seen.clone()] if isinstance(layer, nn.ReLU) else []
    torch.testing.assert_close(network(images), seen)
    for ours, expected in zip(network.feature_maps(images), relus, strict=False):
        torch.testing.assert_close(ours, expected)
    assert (network.num_levels, len(network.stages)) == (len(relus) + 1, len(relus))


def test_28_pixels_become_32() -> None:
    network = build("vgg11", 1, 28)
    maps = network.feature_maps(torch.zeros(1, 1, 28, 28))
    assert [seen.shape[-1] for seen in maps] == [32, 16, 8, 8, 4, 4, 2, 2, 1]
    assert parameters(network) == 9_231_114 - 2 * 64 * 9


def test_images_too_small_for_five_halvings_are_refused() -> None:
    with pytest.raises(BadInput, match="8×8 are too small for a vgg13, which halves them 5 times: it needs 32×32"):
        build("vgg13", 1, 8)
