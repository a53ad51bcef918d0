"""SRe2L against a slow literal transcription of its loop, and how batches are shown."""

import json
import math
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dambench import networks
from dambench.cli.app import run_cli
from dambench.core.errors import BadInput
from dambench.core.protocol import PRESETS, Budget
from dambench.matching.optimised import MOST_SKIPPED
from dambench.matching.recovery import RecoveredImages, Recovery, Views, view
from dambench.matching.teaching import teacher_of
from dambench.methods import random, sre2l
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import quick_options, watch
from dambench.training.problem import Problem, Teacher
from tests.lab import Tape, end_of, generator, noise

BN = "convnet-d2-w8-bn"


def problem_of(**more: Any) -> Problem:
    return tiny_problem(card=data_card(channels=3), network=BN, **more)


def teacher(problem: Problem) -> Any:
    return end_of(teacher_of(problem, 2))[0].double()


def literal_statistics(network: Any, shown: Tensor, first: float) -> Tensor:
    """Block after block, channel after channel, pixel after pixel."""
    total, maps = torch.zeros((), dtype=torch.float64), shown
    for index, (block, pool) in enumerate(zip(network.blocks, network.pools, strict=True)):
        convolution, norm, activation = block
        given = convolution(maps)
        means, variances = [], []
        for channel in given.unbind(1):
            values = channel.flatten()
            mean = sum(values) / len(values)
            means.append(mean)
            variances.append(sum((value - mean) ** 2 for value in values) / len(values))
        apart = torch.stack(variances) - norm.running_var, torch.stack(means) - norm.running_mean
        total = total + (first if index == 0 else 1.0) * sum(torch.sqrt((of**2).sum()) for of in apart)
        maps = pool(activation(norm(given)))
    return total


def test_its_iterations_are_those_of_its_loop() -> None:
    """In float64, batch after batch, under torch's own Adam."""
    problem = problem_of(ipc=2)
    options: Any = quick_options(sre2l, iterations=5, batch=2, jitter=2, statistics=0.3, lr_images=0.1)
    steps = watch(sre2l, problem, options)
    network = teacher(problem)
    like: Any = problem.real.preprocessing
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (like.mean, like.std))
    start = torch.randn(6, 3, 8, 8, generator=problem.generator("noise")).double()
    losses = torch.zeros(5, 3, dtype=torch.float64)
    for place in range(2):
        for number, classes in enumerate(([0, 1], [2])):
            own = [2 * c + place for c in classes]
            images = start[own].clone().requires_grad_()
            optimiser = torch.optim.Adam([images], lr=0.1, betas=(0.5, 0.9), eps=1e-8)
            for iteration in range(5):
                optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * iteration / 5))
                source = problem.seeds.generator("views", iteration + 1)
                offsets = [torch.randint(0, 3, (2,), generator=source).tolist() for _ in range(4)]
                shown = torch.roll(images, shifts=offsets[2 * place + number], dims=(2, 3))
                recognised = F.cross_entropy(network(shown), torch.tensor(classes))
                apart = 0.3 * literal_statistics(network, shown, 10.0)
                optimiser.zero_grad()
                (recognised + apart).backward()
                optimiser.step()
                images.data = torch.maximum(torch.minimum(images.data, (1 - mean) / std), -mean / std)
                losses[iteration] += torch.stack([recognised + apart, recognised, apart]).detach() / 4
            torch.testing.assert_close(steps[-1].images[own].double(), images.detach(), rtol=1e-4, atol=1e-4)
    for step, expected in zip(steps, losses, strict=True):
        given = [step.losses[name] for name in ("matching", "cross-entropy", "statistics")]
        assert given == pytest.approx(expected.tolist(), rel=1e-4)
    assert steps[-1].losses["matching"] < steps[0].losses["matching"]


def test_the_set_names_the_teacher_that_random_images_have_too() -> None:
    (taught,) = watch(random, problem_of(), random.Options(teacher_epochs=2))
    steps = watch(sre2l, problem_of(), quick_options(sre2l))
    assert taught.synthetic.teacher is not None
    assert {step.synthetic.teacher for step in steps} == {taught.synthetic.teacher}


def test_a_batch_is_rolled_as_torch_rolls() -> None:
    images = noise(2, 3, 6, 8)
    seen = set()
    for seed in range(60):
        shown = view(images, *Views(jitter=2, both_ways=True).draw((6, 8), generator(seed)))
        shifts = [(d, a) for d in range(-2, 3) for a in range(-2, 3) if torch.equal(images.roll((d, a), (2, 3)), shown)]
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) > 15
    assert {d for d, _ in seen} == {a for _, a in seen} == {-2, -1, 0, 1, 2}


def test_a_crop_is_what_torch_makes_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut, resized bilinearly, mirrored, then rolled."""
    images = noise(2, 3, 12, 10)
    box = [(3, 5), (1, 7)]
    monkeypatch.setattr(Views, "_box", lambda self, size, source: box)
    resized = F.interpolate(images[:, :, 3:8, 1:8], (12, 10), mode="bilinear", align_corners=False)
    expected = {False: resized, True: resized.flip(3)}
    mirrored = set()
    for seed in range(12):
        taken, shares = Views(0.1, 3, True, True).draw((12, 10), generator(seed))
        shown = view(images, taken, shares)
        matches = [
            mirror
            for mirror, whole in expected.items()
            for d in range(-3, 4)
            for a in range(-3, 4)
            if torch.allclose(whole.roll((d, a), (2, 3)), shown, atol=1e-6)
        ]
        assert len(matches) == 1
        mirrored.update(matches)
    assert mirrored == {True, False}


def test_crops_have_the_areas_and_proportions_that_are_asked_for() -> None:
    source = generator()
    views = Views(least_area=0.08)
    boxes = [views._box((32, 32), source) for _ in range(2000)]
    areas = torch.tensor([rows * columns / 1024 for (_, rows), (_, columns) in boxes])
    ratios = torch.tensor([columns / rows for (_, rows), (_, columns) in boxes])
    assert areas.min() > 0.06
    assert areas.max() <= 1
    # Up to three quarters of the image every box that is drawn is within it.
    assert areas[areas < 0.75].mean().item() == pytest.approx((0.08 + 0.75) / 2, abs=0.02)
    assert 0.6 < ratios.min() < 0.8 < 1.25 < ratios.max() < 1.6
    assert all(0 <= first <= 32 - count for box in boxes for first, count in box)
    assert Views(least_area=0.99)._box((4, 40), source) == [(0, 4), (0, 40)]


def test_images_stay_between_black_and_white() -> None:
    step = watch(sre2l, problem_of(), quick_options(sre2l, lr_images=50.0))[-1]
    like: Any = problem_of().real.preprocessing
    pixels = step.images * torch.tensor(like.std).view(-1, 1, 1) + torch.tensor(like.mean).view(-1, 1, 1)
    assert pixels.min().item() == pytest.approx(0, abs=1e-6)
    assert pixels.max().item() == pytest.approx(1, abs=1e-6)


def recovery(problem: Problem, **more: Any) -> Recovery:
    network = end_of(teacher_of(problem, 1))[0]
    images = RecoveredImages(problem, "noise", 0.1, 8, None)
    return Recovery(
        problem, images, network, Teacher(BN, ""), views=Views(0.3, 2), batch=2, weight=0.1, first=10.0, **more
    )


def test_a_graph_that_is_replayed_does_the_same() -> None:
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    plain, replayed = recovery(problem_of()), recovery(problem_of(), recorder=recorder)
    for _ in range(6):
        losses, others = end_of(plain.step()), end_of(replayed.step())
        assert {name: float(value) for name, value in losses.items()} == {n: float(v) for n, v in others.items()}
    assert torch.equal(plain.images.tensor, replayed.images.tensor)
    assert sum(tape.replayed for tape in tapes) == 3


def test_steps_that_are_no_numbers_are_left_out_and_end_the_run() -> None:
    loop = recovery(problem_of())
    before = loop.images.tensor.detach().clone()
    norm = next(module for module in loop.network.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_mean is not None
    norm.running_mean.fill_(torch.nan)
    for number in range(1, MOST_SKIPPED + 1):
        losses = end_of(loop.step())
        assert losses["skipped"] == number
        assert not losses["matching"].isfinite()
    assert torch.equal(loop.images.tensor, before)
    assert loop.recovered.count == 0


def test_a_network_without_batch_norm_is_refused() -> None:
    with pytest.raises(BadInput, match="this network has none: match on one with it"):
        sre2l.check(networks.build("convnet-d1-w8", data_card()), sre2l.Options())
    sre2l.check(networks.build("resnet18-bn", data_card()), sre2l.Options())


def test_a_run_under_its_protocol_is_taught_by_its_teacher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = msgspec.structs.replace(PRESETS["sre2l"], synthetic=Budget(epochs=2))
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: few)
    words = ["run", "--headless", "--method", "sre2l", "--dataset", "digits", "--ipc", "1", "--protocol", "sre2l"]
    words += ["--set", "method.epochs=1", "--set", "method.iterations=2", "--eval-repeats", "1", "--device", "cpu"]
    assert run_cli([*words, "--network", "convnet-d1-w4-in"]) == 2
    assert "this network has none" in capsys.readouterr().err
    assert run_cli([*words, "--network", "convnet-d1-w4-bn", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["state"], made["n"]) == ("finished", 1)


@pytest.mark.parametrize("method", ["sre2l", "dance"])
def test_whitened_images_are_refused_before_a_run_begins(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--headless", "--method", method, "--dataset", "digits", "--ipc", "1", "--preprocessing", "zca"]
    words += ["--set", "method.factor=1"] if method == "dance" else []
    assert run_cli([*words, "--device", "cpu"]) == 2
    assert f"{method} learns pixels from black to white" in capsys.readouterr().err
