import json
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.protocol import PRESETS, Budget
from dambench.methods import random, rded
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import quick_options, watch
from dambench.training.problem import Problem, decode
from dambench.training.teachers import load_teacher

BN = "convnet-d1-w8-bn"


def problem_of(**more: Any) -> Problem:
    return tiny_problem(card=data_card((9, 9, 9), channels=3), network=BN, **more)


def literally_chosen(problem: Problem, options: rded.Options, teacher: Any) -> list[list[Tensor]]:
    """One image, one crop after the other: of each class the tiles, the best first."""
    chosen = []
    for label in range(3):
        own = problem.real.images[9 * label : 9 * label + 9].float()
        source = problem.seeds.generator("crops", label)
        some = torch.randperm(9, generator=source)[: options.images]
        drawn = torch.rand(len(some), options.crops, 3, generator=source)
        best = []
        for image, boxes in zip(own[some], drawn.tolist(), strict=True):
            of_image = []
            for area, down, across in boxes:
                side = max(1, round(8 * (0.08 + 0.92 * area) ** 0.5))
                top, left = int(down * (9 - side)), int(across * (9 - side))
                crop = image[None, :, top : top + side, left : left + side]
                tile = 8 // options.factor
                resized = F.interpolate(crop, (tile, tile), mode="bilinear", antialias=True)
                shown = F.pad(problem.real.preprocessing.apply(resized), ((8 - tile) // 2,) * 4)
                loss = -teacher(shown)[0].log_softmax(0)[label].item()
                of_image.append((loss, resized[0]))
            best.append(min(of_image, key=lambda pair: pair[0]))
        best.sort(key=lambda pair: pair[0])
        chosen.append([tile for _, tile in best][: problem.ipc * options.factor**2])
    return chosen


@pytest.mark.parametrize("factor", [1, 2])
def test_the_crops_are_those_that_the_teacher_recognises_best(factor: int) -> None:
    problem = problem_of()
    options: Any = quick_options(rded, factor=factor, images=8, crops=3)
    (step,) = watch(rded, problem, options)
    teacher = load_teacher(step.synthetic, lambda name: problem_of().build_network())
    expected = literally_chosen(problem, options, teacher)
    assert step.images.dtype == torch.uint8
    for label in range(3):
        images = step.images[2 * label : 2 * label + 2].float()
        tile = 8 // factor
        tiles = images.unfold(2, tile, tile).unfold(3, tile, tile).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        torch.testing.assert_close(tiles, torch.stack(expected[label]).round(), rtol=0, atol=1)
    assert step.synthetic.factor == factor
    assert decode(step.images.float(), factor).shape[0] == 6 * factor**2


def test_the_set_names_its_teacher_which_is_kept() -> None:
    (step,) = watch(rded, problem_of(), quick_options(rded))
    teacher = step.synthetic.teacher
    assert teacher is not None
    assert teacher.network == BN
    assert files.sha256(files.teacher_path(teacher.sha256)) == teacher.sha256
    (again,) = watch(rded, problem_of(), quick_options(rded))
    assert again.synthetic.teacher == teacher


def test_random_images_may_have_a_teacher_too() -> None:
    problem = problem_of()
    (step,) = watch(rded, problem, quick_options(rded, choose="random", factor=2))
    assert torch.equal(step.images, problem.random_subset(2))
    assert step.synthetic.teacher is not None


def test_random_images_with_a_teacher_are_those_without_and_have_the_teacher_that_rded_has() -> None:
    options: Any = quick_options(rded, epochs=1)
    (chosen,) = watch(rded, problem_of(), options)
    (plain,) = watch(random, problem_of(), random.Options())
    (taught,) = watch(random, problem_of(), random.Options(teacher_epochs=1))
    assert torch.equal(plain.images, taught.images)
    assert plain.synthetic.teacher is None
    assert taught.synthetic.teacher == chosen.synthetic.teacher


def test_a_class_with_too_few_images_gives_several_crops_of_each() -> None:
    problem = tiny_problem(card=data_card((3, 3, 3), channels=3), network=BN)
    (step,) = watch(rded, problem, quick_options(rded, factor=2, crops=4))
    tiles = step.images[:2].unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    assert len(tiles.flatten(1).unique(dim=0)) == 8


def test_a_run_under_the_soft_protocol_is_taught_by_the_teacher_of_its_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = msgspec.structs.replace(PRESETS["soft"], synthetic=Budget(epochs=2))
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: few)
    words = ["run", "--headless", "--method", "random", "--dataset", "digits", "--ipc", "1", "--protocol", "soft"]
    assert run_cli([*words, "--network", "convnet-d1-w4-bn", "--device", "cpu"]) == 2
    assert "--set method.teacher_epochs=60, and they do" in capsys.readouterr().err
    words[3] = "rded"
    words += ["--network", "convnet-d1-w4-bn", "--set", "method.epochs=1", "--eval-repeats", "2", "--device", "cpu"]
    assert run_cli([*words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["state"], made["n"]) == ("finished", 2)
    assert len(list(files.teacher_path("0" * 64).parent.iterdir())) == 1
    assert run_cli(["evaluate", made["run"], "--evaluate-on", "convnet-d1-w4", "--eval-repeats", "1", "--json"]) == 0
