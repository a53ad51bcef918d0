import math
from random import Random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dambench import networks
from dambench.core import registry
from dambench.core.config import Options as AnyOptions
from dambench.core.contracts import NetworkFamily
from dambench.core.errors import BadInput
from dambench.networks import convnet
from dambench.testing import data_card
from dambench.training.problem import Network
from tests.lab import noise
from tests.networks.zoo import build, parameters, with_norms


def family() -> NetworkFamily:
    return registry.load("networks", "convnet")


SIZES = [8, 20, 28, 30, 32, 36, 64]
NORMS = ["in", "bn", "ln", "gn", "nn"]
ACTIVATIONS = ["relu", "sigmoid", "leakyrelu", "swish"]
POOLINGS = ["ap", "mp", "np"]

OPTIONS = st.builds(
    convnet.Options,
    depth=st.integers(1, 8),
    width=st.integers(1, 4096),
    norm=st.sampled_from(["instance", "batch", "layer", "group", "none"]),
    activation=st.sampled_from(["relu", "sigmoid", "leakyrelu", "swish"]),
    pooling=st.sampled_from(["average", "max", "none"]),
)
settled = settings(derandomize=True, deadline=None, database=None)


# Published sizes.


@pytest.mark.parametrize(
    ("name", "channels", "size", "classes", "count"),
    [
        ("convnet", 3, 32, 10, 320_010),
        ("convnet", 3, 32, 100, 504_420),
        ("convnet", 1, 28, 10, 317_706),
        ("convnet", 3, 64, 200, 857_160),
        ("convnet", 3, 128, 10, 615_690),
        ("convnet-d7", 3, 224, 2, 891_138),
    ],
)
def test_parameters_are_as_many_as_published(name: str, channels: int, size: int, classes: int, count: int) -> None:
    assert parameters(build(name, channels, size, classes)) == count


def test_the_parameters_of_the_cifar_network_are_spread_over_its_layers_as_published() -> None:
    network = build("convnet", 3, 32)
    layers = [parameters(layer) for layer in network.modules() if not list(layer.children()) and parameters(layer)]
    assert layers == [3_584, 256, 147_584, 256, 147_584, 256, 20_490]


@pytest.mark.parametrize(
    ("name", "channels", "size", "features"),
    [
        ("convnet-d3", 3, 32, 2048),
        ("convnet-d3", 1, 28, 2048),
        ("convnet-d4", 3, 64, 2048),
        ("convnet-d5", 3, 128, 2048),
        ("convnet-d7", 3, 224, 128),
        ("convnet-d3", 3, 224, 100_352),
    ],
)
def test_embeddings_are_as_wide_as_published(name: str, channels: int, size: int, features: int) -> None:
    network = build(name, channels, size)
    with torch.no_grad():
        assert network.embed(torch.zeros(1, channels, size, size)).shape == (1, features)
    assert network.classifier.in_features == features


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 32), (1, 28), (3, 28)])
def test_maps_of_the_cifar_network_halve_from_32_pixels(channels: int, size: int) -> None:
    maps = build("convnet", channels, size).feature_maps(torch.zeros(2, channels, size, size))
    assert [tuple(seen.shape) for seen in maps] == [(2, 128, 32, 32), (2, 128, 16, 16), (2, 128, 8, 8), (2, 128, 4, 4)]


def test_maps_are_what_comes_out_of_the_activation() -> None:
    *maps, _ = build("convnet-d3-w8", 3, 32).feature_maps(noise(4, 3, 32, 32, dtype=torch.float32))
    for seen in maps:
        assert seen.min() == 0
        assert seen.max() > 0


# What it computes.


def literal_logits(network: Network, images: Tensor, norm: str, activation: str, pooling: str) -> Tensor:
    """Spec 1.2 for a network whose parameters lie in the order of its layers."""
    weights = iter([parameter.detach() for parameter in network.parameters()])
    depth = sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
    size = images.shape[-1]
    for block in range(depth):
        images = F.conv2d(images, next(weights), next(weights), padding=3 if block == 0 and size == 28 else 1)
        if norm != "nn":
            scale, shift = next(weights), next(weights)
            grouped = {"in": images.unsqueeze(2), "gn": images.unflatten(1, (4, -1))}.get(norm, images)
            over = {"in": (3, 4), "gn": (2, 3, 4), "ln": (1, 2, 3), "bn": (0, 2, 3)}[norm]
            centred = grouped - grouped.mean(over, keepdim=True)
            centred = centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt()
            if norm != "ln":
                scale, shift = scale.view(-1, 1, 1), shift.view(-1, 1, 1)
            images = centred.reshape(images.shape) * scale + shift
        images = {
            "relu": torch.where(images > 0, images, 0.0),
            "leakyrelu": torch.where(images > 0, images, 0.01 * images),
            "sigmoid": 1 / (1 + torch.exp(-images)),
            "swish": images / (1 + torch.exp(-images)),
        }[activation]
        height, width = images.shape[-2] // 2 * 2, images.shape[-1] // 2 * 2
        corners = torch.stack([images[..., i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)])
        images = {"ap": corners.mean(0), "mp": corners.amax(0), "np": images}[pooling]
    weight, bias = next(weights), next(weights)
    assert next(weights, None) is None
    return images.reshape(len(images), -1) @ weight.T + bias


@pytest.mark.parametrize("size", [8, 20, 28])
@pytest.mark.parametrize(
    ("norm", "activation", "pooling"),
    [
        *((norm, "relu", "ap") for norm in NORMS),
        *(("in", activation, "ap") for activation in ACTIVATIONS[1:]),
        *(("in", "relu", pooling) for pooling in POOLINGS[1:]),
        ("bn", "swish", "mp"),
    ],
)
def test_logits_are_those_of_a_literal_network(norm: str, activation: str, pooling: str, size: int) -> None:
    network = with_norms(build(f"convnet-d2-w8-{norm}-{activation}-{pooling}", 3, size))
    images = noise(3, 3, size, size)
    expected = literal_logits(network, images, norm, activation, pooling)
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("part", [*NORMS, *ACTIVATIONS, *POOLINGS])
def test_every_part_works_on_every_size_forwards_and_backwards(part: str, channels: int, size: int) -> None:
    network = build(f"convnet-w8-{part}", channels, size, 3)
    images = noise(2, channels, size, size, dtype=torch.float32).requires_grad_()
    logits = network(images)
    assert logits.shape == (2, 3)
    F.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for tensor in (images, *network.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert images.grad is not None
    assert images.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("size", [(20, 41), (28, 41), (41, 28)])
def test_images_need_not_be_square(size: tuple[int, int]) -> None:
    height, width = size
    network = build("convnet-d2-w8", 3, size)
    maps = network.feature_maps(noise(2, 3, height, width, dtype=torch.float32))
    halves = [size, (height // 2, width // 2), (height // 4, width // 4)]
    assert [tuple(seen.shape[2:]) for seen in maps] == halves


@pytest.mark.parametrize("size", [8, 28, 36])
@pytest.mark.parametrize("part", [*NORMS, *POOLINGS])
def test_the_embedding_is_the_last_map_flattened(part: str, size: int) -> None:
    network = build(f"convnet-w8-{part}", 1, size)
    images = noise(3, 1, size, size, dtype=torch.float32)
    embedding = network.embed(images)
    assert torch.equal(embedding, network.feature_maps(images)[-1].flatten(1))
    assert torch.equal(network(images), network.classifier(embedding))


@pytest.mark.parametrize("norm", ["in", "gn", "ln", "nn"])
def test_norms_without_batch_statistics_are_the_same_in_training_and_testing(norm: str) -> None:
    network = build(f"convnet-d2-w8-{norm}", 3, 8)
    images = noise(4, 3, 8, 8, dtype=torch.float32)
    assert torch.equal(network.train()(images), network.eval()(images))
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_batch_norm_is_not() -> None:
    network = build("convnet-d2-w8-bn", 3, 8)
    images = noise(4, 3, 8, 8, dtype=torch.float32)
    assert (network.train()(images) - network.eval()(images)).abs().max() > 1e-3


# Names.


@settled
@given(OPTIONS)
def test_a_name_says_all_of_a_network(options: convnet.Options) -> None:
    assert networks.parse(networks.spell(family(), options)) == (family(), options)


@settled
@given(OPTIONS)
def test_different_networks_have_different_names(options: convnet.Options) -> None:
    name = networks.spell(family(), options)
    assert networks.spell(*networks.parse(name)) == name
    default = convnet.Options(depth=options.depth, width=options.width)
    assert (name == f"convnet-d{options.depth}-w{options.width}") == (options == default)


@settled
@given(OPTIONS, st.randoms(use_true_random=False))
def test_the_parts_of_a_name_may_come_in_any_order_and_case(options: convnet.Options, random: Random) -> None:
    _, *parts = networks.spell(family(), options).split("-")
    random.shuffle(parts)
    assert networks.parse("-".join(["ConvNet", *parts]).upper()) == (family(), options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnet", convnet.Options()),
        ("convnet-d3", convnet.Options(depth=3)),
        ("convnet-w64-bn", convnet.Options(width=64, norm="batch")),
        (
            "convnet-d1-w8-gn-swish-mp",
            convnet.Options(depth=1, width=8, norm="group", activation="swish", pooling="max"),
        ),
        (
            "convnet-ln-leakyrelu-np",
            convnet.Options(norm="layer", activation="leakyrelu", pooling="none"),
        ),
        ("convnet-nn-sigmoid", convnet.Options(norm="none", activation="sigmoid")),
        ("convnet-in-relu-ap", convnet.Options(norm="instance", activation="relu", pooling="average")),
    ],
)
def test_names_are_read_as_the_field_writes_them(name: str, options: AnyOptions) -> None:
    assert networks.parse(name) == (family(), options)


@pytest.mark.parametrize(
    ("size", "depth"),
    [(8, 1), (16, 2), (20, 2), (28, 3), (30, 2), (32, 3), (36, 3), (63, 3), (64, 4), (128, 5), (224, 5), (256, 6)],
)
def test_a_name_without_depth_gets_the_one_that_suits_the_images(size: int, depth: int) -> None:
    card = data_card(size=(size, size))
    assert networks.settle("convnet", card) == f"convnet-d{depth}-w128"
    assert networks.settle("convnet-bn-w8", card) == f"convnet-d{depth}-w8-bn"
    assert networks.settle("convnet-d1", card) == "convnet-d1-w128"


@settled
@given(st.integers(4, 1024), st.integers(4, 1024))
def test_images_are_halved_until_their_shorter_side_is_four_to_seven_pixels(height: int, width: int) -> None:
    name = networks.settle("convnet", data_card(size=(height, width)))
    _, options = networks.parse(name)
    assert isinstance(options, convnet.Options)
    shorter = 32 if (height, width) == (28, 28) else min(height, width)
    # 4 to 7 pixels are not halved to less, and one block there must be.
    assert shorter // 2 ** (options.depth or 0) in (range(4, 8) if shorter >= 8 else range(2, 4))
    assert networks.settle(name, data_card(size=(height, width))) == name


@pytest.mark.parametrize("name", ["convnett", "convnets-d3"])
def test_an_unknown_family_is_refused_with_the_nearest_name(name: str) -> None:
    with pytest.raises(BadInput, match="Did you mean 'convnet'"):
        networks.parse(name)


@pytest.mark.parametrize("part", ["xn", "dd3", "d", "d-3", "w1.5", "", "depth3", "d3w8"])
def test_an_unknown_part_is_refused_with_the_known_ones(part: str) -> None:
    with pytest.raises(BadInput, match=r"no part is called .* dN, wN, in\|bn\|ln\|gn\|nn, "):
        networks.parse(f"convnet-{part}")


@pytest.mark.parametrize("part", ["d0", "d9", "w0", "w4097"])
def test_a_senseless_number_is_refused(part: str) -> None:
    with pytest.raises(BadInput, match=f"convnet-{part}"):
        networks.parse(f"convnet-{part}")


@pytest.mark.parametrize(("size", "deepest"), [(8, 3), (20, 4), (28, 5), (32, 5), (63, 5), (2, 1)])
def test_a_network_too_deep_for_its_images_is_refused(size: int, deepest: int) -> None:
    card = data_card(size=(size, size))
    network = build(f"convnet-d{deepest}-w8", 1, size, 3)
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 3)
    with pytest.raises(BadInput, match=f"at most depth {deepest}"):
        networks.settle(f"convnet-d{deepest + 1}", card)
    with pytest.raises(BadInput, match=f"at most depth {deepest}"):
        networks.build(f"convnet-d{deepest + 1}-w8", card)


def test_without_pooling_no_depth_is_too_deep() -> None:
    network = build("convnet-d8-w8-np", 1, 8, 3)
    assert [tuple(seen.shape[2:]) for seen in network.feature_maps(torch.zeros(2, 1, 8, 8))] == [(8, 8)] * 9


def test_group_norm_needs_a_width_of_whole_groups() -> None:
    with pytest.raises(BadInput, match="width 6 is not a multiple of 4"):
        build("convnet-d1-w6-gn", 1, 8)


# Weights.


def test_weights_are_bounded_by_the_inverse_root_of_their_inputs() -> None:
    network = build("convnet-d3-w64", 3, 32)
    for layer, inputs in zip(
        [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)],
        [3 * 9, 64 * 9, 64 * 9, 64 * 16],
        strict=True,
    ):
        bound = 1 / math.sqrt(inputs)
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is not None
        assert layer.bias.abs().max() <= bound


@pytest.mark.parametrize("name", ["convnet-d2-d3", "convnet-bn-in", "convnet-w8-relu-w8"])
def test_a_part_said_twice_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="twice"):
        networks.parse(name)


def test_digits_of_other_scripts_are_no_numbers() -> None:
    with pytest.raises(BadInput, match="no part is called"):
        networks.parse("convnet-d\N{ARABIC-INDIC DIGIT THREE}")
