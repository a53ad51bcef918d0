"""NCFM's sampling network against torch's own layers, loss and optimiser."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dambench.core import registry
from dambench.matching.distribution import ClassMeans
from dambench.matching.pretrained import PretrainedMatching
from dambench.matching.sampling import SamplingNetwork
from dambench.methods import ncfm
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import (
    MethodTrial,
    a_resumed_run_gives_the_bits_of_an_uninterrupted_one,
    quick_options,
    watch,
)
from dambench.testing.problems import real_set
from dambench.training.policy import Policy
from tests.lab import GivenBatch, pulled, random_network
from tests.methods.test_moments import CARD, REAL, SYNTHETIC, features, ncf


def literal_network(sampling: SamplingNetwork) -> nn.Sequential:
    """ψ of torch's own layers, with the same weights."""
    width, layers, parts = sampling.width, list[nn.Module](), sampling.weights.tensor.detach().clone()
    for index in range(3):
        linear, norm = nn.Linear(width, width).double(), nn.BatchNorm1d(width).double()
        matrix, bias, scale, shift, parts = parts.split(
            [width * width, width, width, width, len(parts) - width * width - 3 * width]
        )
        pairs = (
            (linear.weight, matrix.view(width, width)),
            (linear.bias, bias),
            (norm.weight, scale),
            (norm.bias, shift),
        )
        for parameter, values in pairs:
            parameter.data.copy_(values)
        layers += [linear, norm, nn.Tanh() if index == 2 else nn.LeakyReLU(0.2)]
    assert not len(parts)
    return nn.Sequential(*layers)


def flat_gradients(network: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("repeated", [1, 3])
@pytest.mark.parametrize("chunk", [10**9, 4])
def test_it_goes_up_the_loss_that_the_images_go_down(repeated: int, chunk: int) -> None:
    network = random_network("convnet-d2-w8", CARD)
    frequencies = torch.zeros(7, network.classifier.in_features, dtype=torch.float64)
    sampling = SamplingNetwork(tiny_problem(), frequencies, 0.01, 0.5, repeated)
    sampling.noise.normal_(generator=torch.Generator().manual_seed(3))
    options = ncfm.Options(amplitude=0.3, phase=0.6)
    free = SYNTHETIC.detach().flatten(0, 1).clone().requires_grad_()
    gradient = torch.zeros_like(free, requires_grad=False)
    batch = GivenBatch(real_set(data_card()), torch.zeros(REAL.shape[:2], dtype=torch.int64), given=REAL)
    means = ClassMeans(
        network,
        ncfm.terms_in_full(network, frequencies, options),
        Policy(torch.device("cpu"), real_chunk=chunk, synthetic_chunk=chunk),
        beside=[(frequencies, sampling.slope)],
    )
    literal = literal_network(sampling)
    optimiser = torch.optim.SGD(literal.parameters(), lr=0.01, momentum=0.5)
    for _ in range(2):
        back = sampling.sample()
        losses = means.pull(batch, free, gradient)
        back()
        made = literal(sampling.noise).repeat(repeated, 1)[:7]
        torch.testing.assert_close(frequencies.detach(), made.detach())
        images = SYNTHETIC.clone().requires_grad_()
        value = ncf(made, 0.3, 0.6)(features(network, REAL), features(network, images))
        optimiser.zero_grad()
        (-value).backward()
        torch.testing.assert_close(losses["matching"], value.detach(), rtol=1e-10, atol=0)
        assert images.grad is not None
        torch.testing.assert_close(gradient.view_as(images), -images.grad, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(sampling.weights.gradient, flat_gradients(literal), rtol=1e-7, atol=1e-9)
        optimiser.step()
        sampling.weights.move(torch.tensor(True))
    expected = torch.cat([parameter.detach().flatten() for parameter in literal.parameters()])
    torch.testing.assert_close(sampling.weights.tensor.detach(), expected, rtol=1e-9, atol=1e-12)


def test_at_given_frequencies_the_loss_is_that_without_it() -> None:
    network, options = random_network("convnet-d2-w8", CARD), ncfm.Options()
    frequencies = torch.randn(6, network.classifier.in_features, generator=torch.Generator().manual_seed(2)).double()
    one = pulled(network, ncfm.terms(network, frequencies, options), REAL, SYNTHETIC)
    other = pulled(network, ncfm.terms_in_full(network, frequencies, options), REAL, SYNTHETIC)
    torch.testing.assert_close(one, other)


def test_a_run_with_it_goes_on_to_the_bit_and_learns_it() -> None:
    settings = {"sampled_by": "network", "frequencies": 12, "repeated": 2, "lr_sampling": 0.1}
    a_resumed_run_gives_the_bits_of_an_uninterrupted_one(
        MethodTrial(registry.load("methods", "ncfm"), lambda problem: settings)
    )
    steps = watch(ncfm, tiny_problem(), quick_options(ncfm, **settings))
    first, last = (step.state["sampling network"] for step in (steps[0], steps[-1]))
    assert (first - last).abs().max() > 1e-4
    without: Any = watch(ncfm, tiny_problem(), quick_options(ncfm, frequencies=12))
    assert "sampling network" not in without[0].state
    assert not torch.equal(without[0].images, steps[0].images)


def test_a_step_that_is_left_out_leaves_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"sampled_by": "network", "frequencies": 12, "lr_sampling": 0.1}
    usual = PretrainedMatching._pull

    def broken(self: Any, *given: Any) -> dict[str, Tensor]:
        losses = usual(self, *given)
        return losses if self.images.iteration != 1 else losses | {"matching": losses["matching"] * torch.nan}

    monkeypatch.setattr(PretrainedMatching, "_pull", broken)
    steps = watch(ncfm, tiny_problem(card=data_card()), quick_options(ncfm, **settings))
    states = [step.state["sampling network"] for step in steps]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])
