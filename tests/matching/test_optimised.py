from typing import Any

import pytest
import torch
from torch import Tensor

from dambench.core.config import Request
from dambench.core.events import Failed, Stepped
from dambench.engine.loop import run
from dambench.engine.settle import prepare
from dambench.matching.optimised import MOST_SKIPPED, LearnedImages
from dambench.testing import tiny_problem
from dambench.testing.methods import through_a_file
from dambench.training.cuda_graph import WARM_UPS, Replayed
from tests.lab import Tape, noise

NAN, INF = float("nan"), float("inf")


def learned(resume: dict[str, Any] | None = None) -> LearnedImages:
    return LearnedImages(tiny_problem(), "real", 0.1, 0.5, resume)


def step(images: LearnedImages, loss: float = 1.0, slope: float | Tensor = 1.0) -> dict[str, float]:
    """A step down that gradient."""
    images.gradient.copy_(torch.as_tensor(slope))
    losses = images.descend({"matching": torch.tensor(loss), "part": torch.tensor(loss / 2)})
    return {name: float(value) for name, value in losses.items()}


def test_a_step_is_descent_with_momentum() -> None:
    images = learned()
    expected, velocity = images.tensor.detach().clone(), torch.zeros_like(images.gradient)
    for seed in range(3):
        slope = noise(*expected.shape, seed=seed, dtype=torch.float32)
        assert step(images, 2.0, slope) == {"matching": 2.0, "part": 1.0, "skipped": 0}
        velocity = 0.5 * velocity + slope
        expected = expected - 0.1 * velocity
        torch.testing.assert_close(images.tensor.detach(), expected)
        torch.testing.assert_close(images.velocity, velocity)


@pytest.mark.parametrize(("loss", "slope"), [(NAN, 1.0), (INF, 1.0), (3.0, NAN), (3.0, -INF), (NAN, NAN)])
def test_a_step_that_is_not_finite_moves_nothing_and_is_counted(loss: float, slope: float) -> None:
    images = learned()
    step(images, 2.0)
    before = images.tensor.detach().clone(), images.velocity.clone()
    one_bad = torch.ones_like(images.gradient)
    one_bad.view(-1)[7] = slope
    assert step(images, loss, one_bad) == {"matching": 2.0, "part": 1.0, "skipped": 1}
    assert torch.equal(images.tensor, before[0])
    assert torch.equal(images.velocity, before[1])
    assert step(images, 4.0) == {"matching": 4.0, "part": 2.0, "skipped": 1}
    assert not torch.equal(images.tensor, before[0])


@pytest.mark.parametrize(("loss", "slope", "told"), [(NAN, 1.0, "nan"), (INF, 1.0, "inf"), (3.0, NAN, "nan")])
def test_many_steps_in_a_row_that_are_not_finite_are_told_as_they_are(loss: float, slope: float, told: str) -> None:
    images = learned()
    step(images, 2.0)
    for _ in range(MOST_SKIPPED - 1):
        assert step(images, loss, slope)["matching"] == 2.0
    said = step(images, loss, slope)
    assert (str(said["matching"]), said["skipped"]) == (told, MOST_SKIPPED)


def test_a_step_in_between_ends_the_row() -> None:
    images = learned()
    for _ in range(3):
        step(images, 2.0)
        for _ in range(MOST_SKIPPED - 1):
            assert step(images, NAN)["matching"] == 2.0
    assert step(images)["skipped"] == 3 * (MOST_SKIPPED - 1)


def test_a_run_whose_first_step_is_not_finite_does_not_go_on() -> None:
    assert str(step(learned(), NAN)["matching"]) == "nan"


def test_what_was_left_out_is_remembered() -> None:
    images = learned()
    step(images, 2.0)
    for _ in range(MOST_SKIPPED - 2):
        step(images, NAN)
    again = learned(through_a_file(images.state()))
    for one in (images, again):
        assert step(one, NAN) == {"matching": 2.0, "part": 1.0, "skipped": MOST_SKIPPED - 1}
        assert str(step(one, NAN)["matching"]) == "nan"


def test_a_graph_leaves_out_what_it_was_not_recorded_with() -> None:
    images = learned()

    def descend(loss: Tensor, slope: Tensor) -> list[Tensor]:
        images.gradient.copy_(slope)
        return list(images.descend({"matching": loss}).values())

    tape = Tape(torch.device("cpu"))
    replayed = Replayed(descend, torch.device("cpu"), recorder=lambda device: tape)
    good = torch.ones_like(images.gradient)
    for _ in range(WARM_UPS + 1):
        replayed(torch.tensor(1.0), good)
    before = images.tensor.detach().clone()
    told = [replayed(torch.tensor(NAN), good), replayed(torch.tensor(5.0), good * INF)]
    assert torch.equal(images.tensor, before)
    assert [float(value) for value in told[-1]] == [1.0, 2.0]
    assert tape.replayed == 3


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
def test_a_run_that_diverges_ends_with_an_explanation(method: str) -> None:
    request = Request(
        method={"name": method, "lr_images": 1e30, "batch_real": 4, "iterations": 60},
        dataset="digits",
        ipc=1,
        network="convnet-d1-w8",
        device="cpu",
    )
    events = list(run(prepare(request)))
    last = events[-1]
    assert isinstance(last, Failed)
    assert "the run diverged" in last.error
    assert max(float(e.losses["skipped"]) for e in events if isinstance(e, Stepped)) == MOST_SKIPPED - 1
