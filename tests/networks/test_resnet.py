from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dambench.core.errors import BadInput
from tests.lab import noise
from tests.networks.zoo import build, copy_weights, instance_norm, parameters, with_norms


@pytest.mark.parametrize(
    ("name", "channels", "size", "count"),
    [
        ("resnet18", 3, 32, 11_173_962),
        ("resnet18-bn", 3, 32, 11_173_962),
        ("resnet34", 3, 32, 21_282_122),
        ("resnet50-bn", 3, 32, 23_520_842),
        ("resnet18", 1, 28, 11_173_962 - 2 * 64 * 9),
        # The classifier reads 4×4 pixels of 512 maps (3×3 of MNIST's), not their mean.
        ("resnet18-bn-ap", 3, 32, 11_173_962 + 512 * 15 * 10),
        ("resnet18-ap", 1, 28, 11_173_962 - 2 * 64 * 9 + 512 * 8 * 10),
    ],
)
def test_parameters_are_as_many_as_published(name: str, channels: int, size: int, count: int) -> None:
    assert parameters(build(name, channels, size)) == count


@pytest.mark.parametrize(("depth", "size"), [(18, 32), (18, 20), (34, 16), (50, 18)])
def test_logits_and_maps_are_those_of_torchvision_s_with_a_small_stem(depth: int, size: int) -> None:
    network = with_norms(build(f"resnet{depth}-bn", 3, size))
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).double()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False).double(), nn.Identity()
    copy_weights(theirs, network)
    stages: list[Tensor] = []
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        stage.register_forward_hook(lambda module, given, seen: stages.append(seen))
    images = noise(2, 3, size, size)
    torch.testing.assert_close(network(images), theirs(images))
    *maps, embedding = network.feature_maps(images)
    for ours, expected in zip(maps, stages, strict=True):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(embedding, stages[-1].mean((2, 3)))


def literal_ap(images: Tensor, weights: Iterator[Tensor]) -> Tensor:
    """Spec 1.2: ResNet18_AP with instance norm, its last maps, from its parameters in the order of its layers."""

    def convolution(images: Tensor, padding: int = 1) -> Tensor:
        return F.conv2d(images, next(weights), padding=padding)

    def norm(images: Tensor) -> Tensor:
        return instance_norm(images, next(weights), next(weights))

    images = norm(convolution(images)).clamp_min(0)
    for stage in range(4):
        for block in range(2):
            halves = stage > 0 and block == 0
            seen = norm(convolution(images)).clamp_min(0)
            seen = F.avg_pool2d(seen, 2) if halves else seen
            seen = norm(convolution(seen))
            images = norm(F.avg_pool2d(convolution(images, 0), 2)) if halves else images
            images = (seen + images).clamp_min(0)
    return images


@pytest.mark.parametrize("size", [32, 28])
def test_with_average_pooling_it_is_the_literal_network(size: int) -> None:
    network = with_norms(build("resnet18-ap", 3, size))
    images = noise(2, 3, size, size)
    *weights, last, bias = [parameter.detach() for parameter in network.parameters()]
    rest = iter(weights)
    expected = literal_ap(images, rest)
    assert next(rest, None) is None
    torch.testing.assert_close(network.feature_maps(images)[-1], expected)
    torch.testing.assert_close(network(images), expected.flatten(1) @ last.T + bias)


@pytest.mark.parametrize("halving", ["", "-ap"])
def test_a_deep_one_halves_as_often_with_average_pooling(halving: str) -> None:
    maps = build(f"resnet50-bn{halving}", 3, 16).feature_maps(torch.zeros(2, 3, 16, 16))
    assert [tuple(seen.shape[1:]) for seen in maps[:4]] == [(256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]


@pytest.mark.parametrize(
    ("name", "size", "wrong"),
    [
        ("resnet18", 8, "8×8 are too small for a resnet18 with instance norm.* take resnet18-bn"),
        ("resnet18-ap", 15, "15×15 are too small for a resnet18 with instance norm"),
        ("resnet18-ap-bn", 7, "7×7 are too small for a resnet18-ap"),
    ],
)
def test_images_of_which_nothing_would_be_left_are_refused(name: str, size: int, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        build(name, 1, size)
    network = build(name, 1, size + 1)
    assert network(noise(3, 1, size + 1, size + 1).float()).var(0).min() > 0


@pytest.mark.parametrize("name", ["resnet18-bn", "resnet18-gn", "resnet18-ln", "resnet18-nn"])
def test_other_norms_leave_something_of_one_pixel(name: str) -> None:
    assert build(name, 1, 8)(noise(3, 1, 8, 8).float()).var(0).min() > 0
