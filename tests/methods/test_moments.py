"""NCFM, M3D, DSDM, DANCE and TGDD against slow literal transcriptions, and the identities of their losses."""

import cmath
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import networks
from dambench.core.errors import BadInput
from dambench.matching import pretrained
from dambench.matching.distribution import Memory
from dambench.matching.experts import trajectories
from dambench.matching.pretrained import MosaicOptions, PretrainedMatching, between, mean_features, set_weights
from dambench.methods import dance, dsdm, m3d, ncfm, tgdd
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import quick_options, watch
from dambench.training.problem import Network
from tests.lab import end_of, generator, noise, pulled, random_network

CARD = data_card(channels=3)
REAL, SYNTHETIC = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)


def features(network: Network, images: Tensor) -> list[list[Tensor]]:
    """Image after image, by class: the last block's features, flattened."""
    return [[network.embed(image[None])[0] for image in of_class] for of_class in images]


def average(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).sum(0) / len(vectors)


def agree(network: Network, terms: Any, expected: Any, loss: str = "matching") -> None:
    """The loss and its gradient are those of a function of features of real and synthetic images."""
    free = SYNTHETIC.clone().requires_grad_()
    value = expected(features(network, REAL), features(network, free))
    losses, gradient = pulled(network, terms, REAL, SYNTHETIC)
    torch.testing.assert_close(losses[loss], value.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(value, free)[0], rtol=1e-8, atol=1e-11)


# NCFM.


def ncf(frequencies: Tensor, alpha: float, beta: float) -> Any:
    """The released loss, frequency after frequency, image after image."""

    def loss(real: list[list[Tensor]], synthetic: list[list[Tensor]]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for r, s in zip(real, synthetic, strict=True):
            parts = []
            for t in frequencies:
                waves = []
                for vectors in (r, s):
                    angles = [(vector / vector.norm() * t).sum() for vector in vectors]
                    waves.append((average([a.cos() for a in angles]), average([a.sin() for a in angles])))
                (a, b), (c, d) = waves
                one, other = (a**2 + b**2).sqrt(), (c**2 + d**2).sqrt()
                bracket = (2 * (one * other - (a * c + b * d))).clamp_min(1e-12)
                parts.append((alpha * (one - other) ** 2 + beta * bracket).sqrt())
            total = total + 300 * sum(parts, torch.zeros(())) / len(parts)
        return total

    return loss


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.2, 0.9), (1.0, 0.3)])
def test_ncfm_is_the_released_loss(alpha: float, beta: float) -> None:
    network = random_network("convnet-d2-w8", CARD)
    frequencies = noise(6, network.classifier.in_features, seed=2)
    options = ncfm.Options(amplitude=alpha, phase=beta)
    agree(network, ncfm.terms(network, frequencies, options), ncf(frequencies, alpha, beta))


def test_with_equal_weights_ncfm_is_the_distance_of_characteristic_functions() -> None:
    network = random_network("convnet-d2-w8", CARD)
    frequencies = noise(6, network.classifier.in_features, seed=2)
    losses, _ = pulled(network, ncfm.terms(network, frequencies, ncfm.Options()), REAL, SYNTHETIC)
    total = 0.0
    for r, s in zip(features(network, REAL), features(network, SYNTHETIC), strict=True):
        for t in frequencies:
            functions = []
            for vectors in (r, s):
                waves = [cmath.exp(1j * float((vector / vector.norm()) @ t)) for vector in vectors]
                functions.append(sum(waves) / len(waves))
            total += abs(functions[0] - functions[1]) / len(frequencies)
    assert float(losses["matching"]) == pytest.approx(300 / math.sqrt(2) * total, rel=1e-6)


def test_ncfm_has_a_slope_where_nothing_differs() -> None:
    network = random_network("convnet-d2-w8", CARD)
    frequencies = noise(6, network.classifier.in_features, seed=2)
    losses, gradient = pulled(network, ncfm.terms(network, frequencies, ncfm.Options()), REAL, REAL.clone())
    assert float(losses["matching"]) < 1e-3
    assert gradient.isfinite().all()


def test_each_iteration_of_ncfm_has_frequencies_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    usual = ncfm.waves

    def noted(maps: Tensor, frequencies: Tensor) -> Tensor:
        drawn.append(frequencies.clone())
        return usual(maps, frequencies)

    monkeypatch.setattr(ncfm, "waves", noted)
    watch(ncfm, tiny_problem(), quick_options(ncfm, frequencies=3))
    assert len(torch.stack(drawn).flatten(1).unique(dim=0)) == 4
    assert torch.stack(drawn).std().item() == pytest.approx(1, abs=0.1)


# M3D.


def mmd(real: list[list[Tensor]], synthetic: list[list[Tensor]]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for r, s in zip(real, synthetic, strict=True):
        both = [*s, *r]
        squares = [[(a - b).square().sum() for b in both] for a in both]
        count = len(both)
        bandwidth = float(sum(float(value.detach()) for row in squares for value in row)) / (count**2 - count)
        kernel = [[sum(torch.exp(-v / (bandwidth * 2**j)) for j in (-2, -1, 0, 1, 2)) for v in row] for row in squares]
        m = len(s)
        own = sum(kernel[i][j] for i in range(m) for j in range(m)) / m**2
        across = sum(kernel[i][j] for i in range(m) for j in range(m, count)) / (m * (count - m))
        others = sum(kernel[i][j] for i in range(m, count) for j in range(m, count)) / (count - m) ** 2
        total = total + own - 2 * across + others
    return total


def test_m3d_is_the_released_loss() -> None:
    network = random_network("convnet-d2-w8", CARD)
    agree(network, m3d.terms(network), mmd)


def test_the_discrepancy_of_the_same_images_is_zero() -> None:
    vectors = noise(2, 6, 9)
    assert m3d.discrepancy(vectors, vectors[:, torch.randperm(6, generator=generator())]).item() == pytest.approx(0)
    assert m3d.discrepancy(vectors, vectors[:, :3]).item() > 0.01


def test_m3d_uses_a_network_for_some_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, asked = tiny_problem(), []
    usual = problem.new_network

    def noted(iteration: int) -> Network:
        asked.append(iteration)
        return usual(iteration)

    monkeypatch.setattr(problem, "new_network", noted)
    watch(m3d, problem, quick_options(m3d, iterations=5, redrawn=2))
    assert asked[-5:] == [1, 1, 2, 2, 3]


# DSDM.


def moments(remembered: Tensor, covariance: float, weight: float) -> Any:
    """Means, covariances in full, and the distance from what is remembered."""

    def spread(vectors: list[Tensor]) -> Tensor:
        centred = [vector - average(vectors) for vector in vectors]
        return torch.stack([torch.outer(vector, vector) for vector in centred]).sum(0) / (len(vectors) - 1)

    def loss(real: list[list[Tensor]], synthetic: list[list[Tensor]]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for r, s, h in zip(real, synthetic, remembered, strict=True):
            total = total + (average(r) - average(s)).square().sum() + weight * (average(s) - h).square().sum()
            total = total + covariance / len(h) * (spread(r) - spread(s)).square().sum()
        return total

    return loss


def test_dsdm_is_the_released_loss() -> None:
    network = random_network("convnet-d2-w8", CARD)
    memory = Memory(torch.zeros(3, network.classifier.in_features, dtype=torch.float64), 0.9)
    memory.update(noise(3, network.classifier.in_features, seed=4))
    memory.weight.fill_(0.3)
    before = memory.values.clone()
    agree(network, dsdm.terms(network, dsdm.Options(), memory), moments(before, 50.0, 0.3))
    means = torch.stack([average(of_class) for of_class in features(network, SYNTHETIC)])
    torch.testing.assert_close(memory.values, 0.9 * before + 0.1 * means)


def test_the_covariance_of_one_image_is_zero() -> None:
    real, one = noise(2, 6, 9), noise(2, 1, 9, seed=1)
    expected = sum(torch.cov(of_class.T).square().sum() for of_class in real)
    torch.testing.assert_close(dsdm.covariance_distance(real, one), expected)


def test_the_memory_of_dsdm_comes_in_after_some_iterations_and_is_in_the_state() -> None:
    late, early = (
        watch(dsdm, tiny_problem(), quick_options(dsdm, memory_after=after, memory=50.0)) for after in (2, 10)
    )
    assert [step.losses["means"] for step in late[:2]] == [step.losses["means"] for step in early[:2]]
    assert late[2].losses["means"] > early[2].losses["means"]
    assert late[1].state["memory"].abs().sum() > 0


# Trained networks.


def test_mean_features_are_dm_s_loss() -> None:
    network = random_network("convnet-d2-w8", CARD)

    def expected(real: list[list[Tensor]], synthetic: list[list[Tensor]]) -> Tensor:
        parts = [(average(r) - average(s)).square().sum() for r, s in zip(real, synthetic, strict=True)]
        return sum(parts, torch.zeros(()))

    agree(network, mean_features(network), expected)


def test_a_network_between_two_epochs_is_their_mixture() -> None:
    problem = tiny_problem()
    pool = end_of(trajectories(problem, pretrained.PretrainedOptions(epochs=2).training, 1))
    first, second, last = (pool.weights(0, epoch) for epoch in range(3))
    torch.testing.assert_close(between(pool, (0, 0, 2, 0.25)), 0.25 * first + 0.75 * last)
    assert torch.equal(between(pool, (0, 1, 1, 0.3)), second)
    assert not torch.equal(first, last)
    network = problem.new_network(1)
    kept = [parameter.data_ptr() for parameter in network.parameters()]
    set_weights(network, last)
    assert [parameter.data_ptr() for parameter in network.parameters()] == kept
    assert torch.equal(torch.nn.utils.parameters_to_vector(network.parameters()), last)


def test_batch_norm_has_nothing_between_two_epochs() -> None:
    for method in (dance, tgdd, dsdm, ncfm):
        with pytest.raises(BadInput, match="running statistics"):
            method.check(networks.build("convnet-d1-w8-bn", CARD), method.Options())


def test_one_step_of_dance_is_that_of_its_loop_in_plain_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all real images, no augmentation, and one network whose share of the beginning is known."""
    problem = tiny_problem(card=data_card((6, 6, 6)), ipc=2)
    options: Any = quick_options(dance, iterations=2, batch_real=6, augmentation="none", experts=1, lr_images=0.02)
    steps = watch(dance, problem, options)
    pool = end_of(trajectories(problem, options.training, 1))
    like: Any = problem.real.preprocessing
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (like.mean, like.std))
    indices = problem.real.draw(8, problem.generator("subset")).flatten()
    reals = like.apply(problem.real.images).double()
    mosaics = torch.stack([_composed(reals[indices][4 * n : 4 * n + 4]) for n in range(6)])
    pixels = (mosaics * std + mean).clamp(0, 1).requires_grad_()
    optimiser = torch.optim.SGD([pixels], lr=2 * 0.02, momentum=0.5)
    middle, final = (problem.build_network().double() for _ in range(2))
    for iteration in (1, 2):
        pixels.data.clamp_(0, 1)
        source = problem.seeds.generator("trained network", iteration)
        torch.randint(1, (), generator=source)
        share = torch.rand((), generator=source).item()
        set_weights(middle, (share * pool.weights(0, 0) + (1 - share) * pool.weights(0, 2)).double())
        set_weights(final, pool.weights(0, 2).double())
        total = 0.0
        for c in range(3):
            shown = _tiles((pixels[2 * c : 2 * c + 2] - mean) / std)
            target = middle.embed(reals[6 * c : 6 * c + 6]).mean(0).detach()
            loss = (middle.embed(shown).mean(0) - target).square().sum()
            loss = loss + F.cross_entropy(final(shown), torch.full((8,), c))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        assert steps[iteration - 1].losses["matching"] == pytest.approx(total, rel=1e-4)
    expected = (pixels.detach().clamp(0, 1) - mean) / std
    torch.testing.assert_close(steps[1].images.double(), expected, rtol=1e-4, atol=1e-4)
    assert (steps[1].images.double() - mosaics).abs().max() > 0.01


def _composed(four: Tensor) -> Tensor:
    """Four images, each reduced to a quarter, as one."""
    small = [image.unflatten(1, (4, 2)).mean(2).unflatten(2, (4, 2)).mean(3) for image in four]
    return torch.cat([torch.cat(small[:2], 2), torch.cat(small[2:], 2)], 1)


def _tiles(images: Tensor) -> Tensor:
    corners = [image[None, :, r : r + 4, c : c + 4] for image in images for r in (0, 4) for c in (0, 4)]
    return torch.cat([F.interpolate(tile, (8, 8), mode="bilinear", align_corners=False) for tile in corners])


def test_tgdd_looks_a_few_epochs_ahead_and_not_beyond_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Noted(PretrainedMatching):
        def _renew(self, iteration: int) -> None:
            matched, judging = self._choose(self.problem.seeds.generator("trained network", iteration))
            seen.append((matched[1], judging[1]))
            assert matched[1] == matched[2]
            super()._renew(iteration)

    monkeypatch.setattr(tgdd, "PretrainedMatching", Noted)
    watch(tgdd, tiny_problem(), quick_options(tgdd, iterations=40, epochs=4, window=2))
    assert {matched for matched, _ in seen} == {0, 1, 2, 3, 4}
    assert {later - matched for matched, later in seen} == {0, 1, 2}
    assert max(later for _, later in seen) == 4


def test_networks_of_one_kind_of_training_are_shared() -> None:
    trainings = [method.Options(experts=2, epochs=3).training for method in (dance, tgdd, dsdm, ncfm)]
    assert all(training == trainings[0] for training in trainings)
    assert trainings[0].drops == (2,)
    assert pretrained.PretrainedOptions().training.drops == (40, 50)
    assert MosaicOptions().factor == 2
