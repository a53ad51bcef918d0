"""The contests are between forms of the same maths."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks import official, official_mosaics
from benchmarks.images import TINY
from dambench import networks
from dambench.core.protocol import DSA
from dambench.matching.distribution import Term
from dambench.matching.pretrained import mean_features
from dambench.matching.trajectories import Minibatch, Student, match
from dambench.methods import datadam, dm, ncfm
from dambench.testing import data_card
from dambench.testing.problems import global_seed
from dambench.training.augmentation import Draw, augment
from dambench.training.problem import Network, decode
from tests.lab import end_of, generator, noise, pulled
from tests.matching.test_gradients import pulled as matched_gradients

CARD = data_card((1, 1, 1), channels=1, size=(28, 28))


def both_networks(norm: str) -> tuple[Network, official.ConvNet]:
    """Ours and the official form, with the same weights."""
    ours = networks.build("convnet-d3-w6" + ("-bn" if norm == "batch" else ""), CARD)
    ours.reset(generator(3))
    with global_seed(0):
        theirs = official.ConvNet(1, 28, 3, 6, norm)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine)
    for network in (ours, theirs):
        network.double().requires_grad_(False).train()
    return ours, theirs


class Given(official.Draws):
    """These numbers, one after another, for all images."""

    def __init__(self, count: int, uniforms: list[float]):
        super().__init__(count)
        self.left = iter(uniforms)

    def uniform(self, device: torch.device | str) -> Tensor:
        return torch.full((self.count,), next(self.left), device=device)


def as_drawn(images: Tensor, drawn: Draw) -> Iterator[Tensor]:
    """Class after class, augmented by the official form with the numbers of our draw."""
    for of_class, choice, uniforms in zip(images, drawn.choice.tolist(), drawn.uniforms.tolist(), strict=True):
        yield official.OPERATIONS[drawn.strategy[choice]](of_class, Given(len(of_class), uniforms))


@pytest.mark.parametrize("method", ["DM", "DataDAM"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("drawn", [None, ("color", "crop", "cutout"), ("flip", "scale", "rotate")])
def test_losses_and_gradients_of_the_official_form_are_ours(
    method: str, norm: str, drawn: tuple[str, ...] | None
) -> None:
    ours, theirs = both_networks(norm)
    real, synthetic = noise(3, 5, 1, 28, 28), noise(3, 2, 1, 28, 28, seed=1)
    terms: list[Term] = dm.terms(ours) if method == "DM" else datadam.terms(ours, datadam.Options())
    draw = None if drawn is None else Draw(drawn, torch.arange(3), torch.rand(3, 3, generator=generator(4)))
    losses, gradient = pulled(ours, terms, real, synthetic, draw)

    free = synthetic.clone().requires_grad_()
    pairs = zip(real, free, strict=True)
    if draw is not None:
        pairs = zip(as_drawn(real, draw), as_drawn(free, draw), strict=True)
    loss = official.LOSSES[method](theirs, pairs)
    (expected,) = torch.autograd.grad(loss, free)

    # Augmentation's parameters are float32 numbers.
    rtol, atol = (1e-9, 1e-12) if draw is None else (1e-4, 1e-5)
    torch.testing.assert_close(losses["matching"], loss.detach(), rtol=rtol, atol=atol)
    torch.testing.assert_close(gradient, expected, rtol=rtol, atol=atol * float(expected.abs().max()))
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("drawn", [None, ("color", "crop", "cutout"), ("flip", "scale", "rotate")])
def test_gradient_matching_of_the_official_form_is_ours(drawn: tuple[str, ...] | None) -> None:
    ours, theirs = both_networks("instance")
    for network in (ours, theirs):
        network.requires_grad_(True)
    real, synthetic = noise(3, 5, 1, 28, 28), noise(3, 2, 1, 28, 28, seed=1)
    draw = None if drawn is None else Draw(drawn, torch.arange(3), torch.rand(3, 3, generator=generator(4)))
    found, gradient = matched_gradients(ours, real, synthetic, draw)

    free = synthetic.clone().requires_grad_()
    pairs = zip(real, free, strict=True)
    if draw is not None:
        pairs = zip(as_drawn(real, draw), as_drawn(free, draw), strict=True)
    loss = official.LOSSES["DSA"](theirs, pairs)
    (expected,) = torch.autograd.grad(loss, free)

    rtol, atol = (1e-9, 1e-12) if draw is None else (1e-3, 1e-4)
    torch.testing.assert_close(found, loss.detach(), rtol=rtol, atol=atol)
    torch.testing.assert_close(gradient, expected, rtol=rtol, atol=atol * float(expected.abs().max()))
    assert gradient.abs().max() > 0


def test_trajectory_matching_of_the_official_form_is_ours() -> None:
    ours, theirs = both_networks("instance")
    ours.requires_grad_(True)
    student, network = Student(ours), official.FlatNetwork(theirs)
    start = torch.cat([parameter.detach().flatten() for parameter in ours.parameters()])
    target = start + 0.01 * noise(len(start))
    images, labels = noise(6, 1, 28, 28, seed=1), torch.arange(3).repeat_interleave(2)
    lr = torch.tensor(0.5, dtype=torch.float64)
    orders = [torch.randperm(6, generator=generator(step))[:4] for step in range(3)]
    found = end_of(match(student, start, target, images, labels, lr, [Minibatch(chosen) for chosen in orders]))

    free, rate = images.clone().requires_grad_(), lr.clone().requires_grad_()
    loss = official.trajectory_loss(network, start, target, rate, [(free[some], labels[some]) for some in orders])
    gradients = torch.autograd.grad(loss, [free, rate])
    for mine, expected in zip((found.loss, found.images, found.lr), (loss.detach(), *gradients), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max()))
    assert found.images.abs().max() > 0


@pytest.mark.parametrize("operation", official.OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_of_the_official_augmentation_is_ours(operation: str, channels: int) -> None:
    assert set(official.OPERATIONS) == set(DSA)
    images = noise(8, 2, channels, 28, 28)
    drawn = Draw((operation,), torch.zeros(8, dtype=torch.int64), torch.rand(8, 3, generator=generator(1)))
    theirs = torch.stack(list(as_drawn(images, drawn)))
    torch.testing.assert_close(theirs, augment(images, drawn), rtol=1e-4, atol=1e-4)


def test_a_seed_gives_all_images_the_same_operation_and_numbers() -> None:
    image = noise(1, 1, 28, 28)
    strategy = tuple(official.OPERATIONS)
    with global_seed(0):
        for seed in range(12):
            few, many = (official.augmented(image.expand(n, -1, -1, -1), strategy, seed) for n in (1, 4))
            torch.testing.assert_close(many, few.expand(4, -1, -1, -1))
        drawn = official.Draws(4)
        assert len(set(drawn.uniform("cpu").tolist())) == 4


def test_the_test_pass_counts_what_is_right() -> None:
    with global_seed(0):
        network = official.ConvNet(1, 28, 3, 4, "instance")
    images = noise(300, 1, 28, 28).float()
    truth = network.eval()(images)[1].argmax(1)
    assert official.test(network, images, truth) == 1
    assert official.test(network, images, (truth + 1) % 3) == 0


@pytest.mark.parametrize("method", ["DANCE", "NCFM"])
def test_losses_of_the_official_form_with_mosaics_are_ours(method: str) -> None:
    ours, theirs = both_networks("instance")
    real, mosaics = noise(3, 5, 1, 28, 28), noise(3, 2, 1, 28, 28, seed=1)
    free, decoded = mosaics.clone().requires_grad_(), decode(mosaics, 2)
    frequencies = noise(7, ours.classifier.in_features, seed=2)
    terms = mean_features(ours) if method == "DANCE" else ncfm.terms(ours, frequencies, ncfm.Options())
    losses, gradient = pulled(ours, terms, real, decoded)
    (through,) = torch.autograd.grad(decode(free, 2), free, gradient)
    loss = torch.zeros((), dtype=torch.float64)
    for of_class, stored in zip(real, free, strict=True):
        shown = official_mosaics.decoded(stored)
        if method == "DANCE":
            loss = loss + official_mosaics.dance_loss(theirs, of_class, shown)
        else:
            loss = loss + official_mosaics.ncfm_loss(theirs, of_class, shown, frequencies)
    (expected,) = torch.autograd.grad(loss, free)
    torch.testing.assert_close(losses["matching"], loss.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(through, expected, rtol=1e-7, atol=1e-10)
    assert through.abs().max() > 0


@pytest.mark.parametrize("method", ["DANCE", "NCFM"])
def test_an_iteration_of_the_official_form_with_mosaics_moves_every_image(method: str) -> None:
    with global_seed(0):
        form = official_mosaics.Condensation(method, TINY, ipc=2, batch_real=4, width=4, frequencies=8, device="cpu")
        before = form.synthetic.detach().clone()
        losses = [form.step() for _ in range(2)]
    moved = (form.synthetic.detach() - before).flatten(1).abs().amax(1)
    assert all(loss > 0 for loss in losses)
    assert (moved > 0).all()
