import copy
import importlib
from collections.abc import Callable

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from dambench import networks
from dambench.core import registry
from dambench.core.contracts import NetworkFamily
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.protocol import Budget, Protocol
from dambench.testing import data_card
from dambench.testing.networks import NETWORK_PROMISES
from dambench.testing.problems import global_generator_untouched, global_seed
from dambench.training.problem import Network, Seeds
from dambench.training.train import train, train_together
from tests.lab import generator, noise, synthetic_set

CARDS = {
    "cifar": data_card((1,) * 10, channels=3, size=(32, 32)),
    "mnist": data_card((1,) * 10, channels=1, size=(28, 28)),
}


@pytest.fixture(params=registry.names("networks"))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def module(family: str) -> NetworkFamily:
    return registry.load("networks", family)


@pytest.fixture
def narrow(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of the channels of a family that has only wide networks: the same layers, in a tenth of the time."""
    source = importlib.import_module(f"dambench.networks.{family}")
    if widths := getattr(source, "WIDTHS", ()):
        monkeypatch.setattr(source, "WIDTHS", tuple(max(8, width // 16) for width in widths))


@pytest.fixture(params=CARDS)
def card(request: pytest.FixtureRequest) -> DataCard:
    return CARDS[request.param]


@pytest.fixture
def network(family: str, card: DataCard) -> Network:
    network = networks.build(networks.settle(family, card), card)
    network.reset(generator())
    return network


def words(module: NetworkFamily) -> list[str]:
    """Every choice that a name of the family can spell."""
    return [word for spelling in module.PARTS.values() if not isinstance(spelling, str) for word in spelling]


@pytest.mark.parametrize("promise", NETWORK_PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.usefixtures("narrow")
def test_every_network_keeps_its_promise_that(promise: Callable[[NetworkFamily], None], module: NetworkFamily) -> None:
    promise(module)


# Drawing weights.


def test_another_generator_gives_other_weights(network: Network) -> None:
    before = copy.deepcopy(network)
    network.reset(generator(1))
    norms = nn.GroupNorm | nn.BatchNorm2d | nn.LayerNorm
    drawn = [name for name, layer in network.named_modules() if not isinstance(layer, norms)]
    for name in drawn:
        for key, parameter in network.get_submodule(name).named_parameters(recurse=False):
            old = before.get_submodule(name).get_parameter(key)
            assert (parameter != old).float().mean() > 0.99, (name, key)


def test_weights_are_drawn_as_torch_draws_them_by_default(network: Network, family: str, card: DataCard) -> None:
    """Layer by layer against the layers of a network just built, which torch has initialised."""
    with global_seed(3):
        fresh = networks.build(networks.settle(family, card), card)
        for layer in fresh.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.reset_parameters()
    for theirs, ours in zip(fresh.modules(), network.modules(), strict=True):
        assert type(theirs) is type(ours)
        if isinstance(ours, nn.Conv2d | nn.Linear):
            for name, parameter in theirs.named_parameters():
                # Of millions some are enough.
                step = max(1, parameter.numel() // 20_000)
                drawn, expected = (each.detach().flatten()[::step] for each in (ours.get_parameter(name), parameter))
                assert ks_2samp(drawn.numpy(), expected.numpy()).pvalue > 1e-5
                if len(drawn) > 1000:
                    assert drawn.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.01)
                    assert drawn.std().item() == pytest.approx(expected.std().item(), rel=0.1)


def test_norms_and_their_running_statistics_begin_anew(module: NetworkFamily, family: str) -> None:
    card = CARDS["cifar"]
    for name in [family, *(f"{family}-{word}" for word in words(module))]:
        network = networks.build(networks.settle(name, card), card)
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.fill_(7)
        network.reset(generator(1))
        for layer in network.modules():
            if isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d):
                assert torch.equal(layer.weight, torch.ones_like(layer.weight))
                assert torch.equal(layer.bias, torch.zeros_like(layer.bias))
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                assert layer.num_batches_tracked is not None
                assert layer.running_mean.abs().max() == 0
                assert torch.equal(layer.running_var, torch.ones_like(layer.running_var))
                assert layer.num_batches_tracked == 0


# Training.

SMALLEST = {"lenet": 16, "vgg": 32, "resnet": 9}
"""Of the images that a family can see, where 8×8 is too small."""

SMALL = {"vit": "vit-d2-w32"}
"""A network of the family, where the usual one is slow."""


@pytest.mark.usefixtures("narrow")
def test_networks_trained_together_learn_what_each_learns_alone(family: str) -> None:
    size = SMALLEST.get(family, 8)
    card = data_card((1, 1), channels=3, size=(size, size))
    data = synthetic_set(noise(3, 3, size, size), torch.tensor([0, 1, 1]), 2)
    how = Protocol(name="", synthetic=Budget(epochs=2), whole=Budget(epochs=1), lr=0.001)
    name = networks.settle(SMALL.get(family, family), card)

    def fresh() -> Network:
        return networks.build(name, card).double()

    stack, alone = [fresh(), fresh()], [fresh(), fresh()]
    with global_generator_untouched():
        list(train_together(stack, data, how, [Seeds(0), Seeds(1)], mirrors=True))
        for seed, network in enumerate(alone):
            list(train(network, data, how, Seeds(seed), mirrors=True))
    for one, other in zip(stack, alone, strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-6, atol=1e-9)
    assert not torch.equal(next(alone[0].parameters()), next(alone[1].parameters()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 28, 32, 64, 128, 224])
def test_images_of_every_size_have_a_network_or_are_refused(family: str, size: int, channels: int) -> None:
    card = data_card((1, 1), channels=channels, size=(size, size))
    if size < SMALLEST.get(family, 8) and (family, size) != ("vgg", 28):
        with pytest.raises(BadInput, match=f"Images of {size}×{size} are too small for a {family}"):
            networks.settle(family, card)
        return
    with torch.device("meta"):
        network = networks.build(networks.settle(family, card), card)
        *maps, last = network.feature_maps(torch.empty(2, channels, size, size))
    assert len(maps) == network.num_levels - 1
    assert {seen.dim() for seen in maps} <= {4}
    assert last.flatten(1).shape == (2, network.classifier.in_features)


def test_the_memory_of_the_largest_map_is_that_of_the_shallow_ones() -> None:
    card = CARDS["cifar"]
    sizes = {"convnet-d3-w128": 128, "vgg11": 64, "resnet18": 64, "resnet50": 256, "alexnet": 128}
    for name, width in sizes.items():
        assert networks.map_bytes(name, card) == 4 * width * 32 * 32
