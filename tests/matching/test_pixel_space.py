from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from dambench.core.errors import BadInput
from dambench.matching.pixel_space import PixelImages, PixelSpace, PixelSteps
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import through_a_file
from dambench.training.problem import Normalisation, Problem, Whitening, compose
from tests.lab import noise

LIKE = Normalisation((0.5, 0.375), (0.25, 0.125))
CLASSES, IPC, SHAPE = 3, 2, (2, 4, 4)


def problem_of(preprocessing: Any = LIKE) -> Problem:
    problem = tiny_problem(card=data_card(channels=2), ipc=IPC)
    problem.real = type(problem.real)(problem.real.images, problem.real.counts, preprocessing)
    return problem


def loss_of_class(images: Tensor, number: int) -> Tensor:
    """A loss of a class that no quadratic is: of what a network would see, (IPC, 2, 4, 4)."""
    seen = (images.flatten() @ noise(images.numel(), 9, seed=number)).tanh()
    return (seen - noise(9, seed=10 + number)).square().sum() + images.pow(3).mean()


def start() -> Tensor:
    """Plain pixels, some of them out of the range that they are to be in."""
    return noise(CLASSES * IPC, *SHAPE, seed=5) * 0.4 + 0.5


def pixel_by_pixel(steps: PixelSteps, iterations: int, scheduled: bool = False) -> tuple[Tensor, list[float]]:
    """The papers' loop: plain pixels, torch's optimiser, a step for each class (or one of all), a clamp before."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (LIKE.mean, LIKE.std))
    pixels = start().clone().requires_grad_()
    optimiser: torch.optim.Optimizer = torch.optim.SGD([pixels], steps.lr, steps.momentum)
    if steps.optimiser == "adamw":
        optimiser = torch.optim.AdamW([pixels], steps.lr, weight_decay=steps.weight_decay)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=steps.patience)
    totals = []
    for _ in range(iterations):
        pixels.data.clamp_(0, 1)
        losses = []
        for number in range(CLASSES):
            images = (pixels[number * IPC : (number + 1) * IPC] - mean) / std
            losses.append(loss_of_class(images, number))
            if steps.for_each_class:
                optimiser.zero_grad()
                losses[-1].backward()
                optimiser.step()
        if not steps.for_each_class:
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()
            optimiser.step()
        totals.append(float(sum(loss.detach() for loss in losses)))
        if steps.patience:
            plateau.step(totals[-1])
    return (pixels.detach().clamp(0, 1) - mean) / std, totals


def moved(steps: PixelSteps, iterations: int, images: PixelImages | None = None) -> tuple[PixelImages, list[float]]:
    """What the loop of a method does with `PixelImages`."""
    images = images or new_images(steps)
    totals = []
    for _ in range(iterations):
        shown = images.shown().requires_grad_()
        losses = [loss_of_class(part, number) for number, part in enumerate(shown.split(IPC))]
        total = torch.stack(losses).sum()
        images.gradient.copy_(torch.autograd.grad(total, shown)[0])
        images.descend({"matching": total.detach()})
        images.iteration += 1
        totals.append(float(total.detach()))
    return images, totals


def new_images(steps: PixelSteps, resume: Any = None) -> PixelImages:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (LIKE.mean, LIKE.std))
    return PixelImages(problem_of(), (start() - mean) / std, steps, resume)


WAYS = {
    "sgd": PixelSteps(lr=0.0078125, momentum=0.0, for_each_class=False),
    "momentum": PixelSteps(lr=0.00390625, momentum=0.5, for_each_class=False),
    "momentum, a step for each class": PixelSteps(lr=0.00390625, momentum=0.5),
    "adamw": PixelSteps(lr=0.03125, optimiser="adamw", weight_decay=0.5, for_each_class=False),
    "adamw, a step for each class": PixelSteps(lr=0.03125, optimiser="adamw", weight_decay=0.5),
    "a plateau": PixelSteps(lr=0.0078125, momentum=0.5, patience=1),
}


@pytest.mark.parametrize("name", WAYS)
def test_steps_are_those_of_the_papers_in_pixel_space(name: str) -> None:
    expected, losses = pixel_by_pixel(WAYS[name], 12)
    images, ours = moved(WAYS[name], 12)
    torch.testing.assert_close(images.tensor.detach(), expected, rtol=1e-6, atol=1e-6)
    assert ours == pytest.approx(losses, rel=1e-6)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (LIKE.mean, LIKE.std))
    pixels = images.tensor.detach() * std + mean
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert ((pixels == 0) | (pixels == 1)).float().mean() > 0.01, "nothing was clamped"


def test_the_ways_are_not_one() -> None:
    ends = [moved(steps, 12)[0].tensor.detach().flatten() for steps in WAYS.values()]
    for index, one in enumerate(ends):
        assert all((one - other).abs().max() > 1e-3 for other in ends[:index])


def test_the_plateau_halved_the_step() -> None:
    images, losses = moved(WAYS["a plateau"], 40)
    assert images.state()["scale"] < 1
    torch.testing.assert_close(images.tensor.detach(), pixel_by_pixel(WAYS["a plateau"], 40)[0], rtol=1e-5, atol=1e-5)
    assert losses[-1] < losses[0]


def test_step_sizes_are_translated_for_each_channel() -> None:
    space = PixelSpace.of(LIKE, torch.device("cpu"))
    assert space.sgd_step(1.0).flatten().tolist() == [16, 64]
    assert space.adam_step(1.0).flatten().tolist() == [4, 8]
    assert space.black.flatten().tolist() == [-2, -3]
    assert space.white.flatten().tolist() == [2, 5]
    assert space.clamp(torch.tensor([-9.0, 0.0, 9.0]).expand(2, 1, 3)).flatten().tolist() == [-2, 0, 2, -3, 0, 5]


@pytest.mark.parametrize("name", WAYS)
def test_they_go_on_from_a_state_to_the_bit(name: str) -> None:
    whole = moved(WAYS[name], 6)[0]
    state = through_a_file(moved(WAYS[name], 2)[0].state())
    again = moved(WAYS[name], 4, new_images(WAYS[name], state))[0]
    assert torch.equal(again.tensor, whole.tensor)
    assert all(
        torch.equal(value, whole.state()[key]) for key, value in again.state().items() if isinstance(value, Tensor)
    )


@pytest.mark.parametrize("name", WAYS)
def test_a_step_that_is_not_finite_changes_nothing(name: str) -> None:
    images, _ = moved(WAYS[name], 3)
    before = {key: value for key, value in images.state().items() if isinstance(value, Tensor)}
    images.shown()
    images.gradient.fill_(torch.nan)
    images.descend({"matching": torch.tensor(1.0, dtype=torch.float64)})
    after = images.state()
    unchanged = before.keys() - {"skipped", "in_a_row"}
    assert all(torch.equal(before[key], after[key]) for key in unchanged)
    assert (after["skipped"], after["in_a_row"]) == (1, 1)


def test_whitened_images_have_no_range() -> None:
    whitening = Whitening("0" * 64, torch.zeros(2), torch.zeros(2), torch.zeros(2))
    with pytest.raises(BadInput, match="takes --preprocessing mean/std") as error:
        new_of(whitening)
    assert error.value.field == "preprocessing"


def new_of(preprocessing: Any) -> PixelImages:
    return PixelImages(problem_of(preprocessing), "real", PixelSteps(lr=1.0), None)


@pytest.mark.parametrize("init", ["real", "mix", "noise"])
def test_a_start_is_in_the_range_of_pixels(init: Literal["real", "mix", "noise"]) -> None:
    problem = tiny_problem(card=data_card((9, 9, 9), channels=3), ipc=2)
    images = PixelImages(problem, init, PixelSteps(lr=1.0), None, 2).tensor.detach()
    assert torch.equal(PixelSpace.of(problem.real.preprocessing, torch.device("cpu")).clamp(images), images)
    if init == "mix":
        indices = problem.real.draw(8, problem.generator("subset"))
        reals = problem.real.preprocessing.apply(problem.real.images[indices.flatten()])
        assert torch.equal(images, compose(reals, 2))
