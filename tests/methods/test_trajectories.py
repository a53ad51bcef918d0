"""MTT, DATM and PAD: what they have in common is tested in tests/matching/test_trajectories.py."""

from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import torch

from dambench import networks
from dambench.core.config import read
from dambench.matching.experts import FTD, MTT, PAD, trajectories
from dambench.matching.soft_labels import predicted
from dambench.matching.trajectories import Student, check, training
from dambench.methods import datm, ftd, mtt, pad
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import quick_options, watch
from dambench.training.problem import SyntheticSet
from tests.lab import end_of

ALL_FOUR = pytest.mark.parametrize("method", [mtt, ftd, datm, pad], ids=["mtt", "ftd", "datm", "pad"])


@ALL_FOUR
def test_a_set_carries_the_step_size_and_the_labels_that_were_learned(method: ModuleType, tmp_path: Path) -> None:
    problem = tiny_problem()
    last = watch(method, problem, quick_options(method))[-1].synthetic
    path = tmp_path / "set.safetensors"
    path.write_bytes(last.to_bytes())
    again = SyntheticSet.read(path)
    assert isinstance(again.lr, float)
    assert again.lr == float(last.lr or 0)
    assert 0 < again.lr != quick_options(method).lr_student  # type: ignore[attr-defined]
    assert again.labels.shape == ((6,) if method in (mtt, ftd) else (6, 3))


@ALL_FOUR
def test_no_recipe_contradicts_itself(method: ModuleType) -> None:
    network = networks.build("convnet-d1-w8", data_card())
    for recipe in method.RECIPES:
        check(network, read(method.Options, recipe.options, "a recipe"))
    check(network, method.Options())


def test_the_set_of_ftd_is_the_moving_average_of_the_images_that_mtt_would_have() -> None:
    settings = {"iterations": 5, "lr_images": 3.0}
    experts = {"gsam_rho": 1e-9, "gsam_alpha": 0.0}  # plain SGD, but for rounding
    averaged = watch(ftd, tiny_problem(), quick_options(ftd, ema_decay=0.7, **settings, **experts))
    plain = watch(ftd, tiny_problem(), quick_options(ftd, ema_decay=0.0, **settings, **experts))
    of_mtt = watch(mtt, tiny_problem(), quick_options(mtt, **settings))
    torch.testing.assert_close(plain[-1].images, of_mtt[-1].images, rtol=1e-3, atol=1e-3)
    problem = tiny_problem()
    average = problem.real.preprocessing.apply(problem.random_subset()).double()
    for step, image in zip(averaged, plain, strict=True):
        average = 0.7 * average + 0.3 * image.images.double()
        torch.testing.assert_close(step.images.double(), average, rtol=1e-5, atol=1e-5)
    assert not torch.equal(averaged[-1].images, plain[-1].images)


def test_tesla_is_mtt_with_the_gradient_that_needs_no_memory() -> None:
    recipes = [recipe for recipe in mtt.RECIPES if recipe.name == "tesla"]
    assert all(read(mtt.Options, recipe.options, "a recipe").memory == "tesla" for recipe in recipes)
    (own,) = [recipe for recipe in recipes if recipe.datasets == ("cifar10",) and recipe.ipc == (1, 1)]
    assert (own.preprocessing, own.options["max_start"], own.options["lr_images"]) == ("mean/std", 5, 1000.0)
    assert any(recipe.fits("mnist", 1) for recipe in recipes)
    assert {recipe.datasets for recipe in recipes if recipe.options.get("labels") == "expert"} == {("imagenet",)}
    told = watch(mtt, tiny_problem(), quick_options(mtt, memory="tesla", labels="expert"))[-1].synthetic
    assert told.labels.shape == (6, 3)


def test_experts_are_trained_as_published() -> None:
    assert training(mtt.Options()) == MTT
    flat = training(ftd.Options())
    assert flat.gsam is not None
    assert (flat.epochs, flat.gsam.rho, flat.gsam.alpha) == (50, 0.01, 1.0)
    assert training(datm.Options()) == FTD
    assert training(pad.Options(), pad.Options().schedule) == PAD
    options = datm.Options(epochs=7, lr_expert=0.5, batch_expert=9, experts_seed=3, gsam_rho=0.2, augmentation="none")
    changed = training(options)
    assert (changed.epochs, changed.lr, changed.batch, changed.seed, changed.augmented) == (7, 0.5, 9, 3, False)
    assert changed.gsam is not None
    assert changed.gsam.rho == 0.2


@pytest.mark.parametrize(("ipc", "share"), [(1, 0.0), (10, 0.25), (50, 0.25), (500, 0.5), (1000, 0.75)])
def test_pad_masks_as_much_as_its_table_says_for_cifar10(ipc: int, share: float) -> None:
    recipe = next(r for r in pad.RECIPES if r.name == "default" and r.fits("cifar10", ipc))
    options = read(pad.Options, recipe.options, "a recipe")
    assert (options.mask, options.mask_ratio) == ("depth", share)


def test_each_mask_of_pad_leads_elsewhere() -> None:
    ends = []
    for change in ({"mask_ratio": 0.0}, {"mask": "depth"}, {"mask": "loss"}):
        options = msgspec.structs.replace(quick_options(pad), **{"mask_ratio": 0.5, **change})
        ends.append(watch(pad, tiny_problem(), options)[-1].losses["matching"])
    assert len(set(ends)) == 3


def test_datm_begins_with_images_that_its_first_expert_recognises() -> None:
    card = data_card((20, 20, 20))
    problem = tiny_problem(card=card)
    # Random pixels, all of them brighter in each class.
    shades = torch.tensor([0, 60, 120], dtype=torch.uint8).repeat_interleave(20).view(-1, 1, 1, 1)
    problem.real.images.div_(3, rounding_mode="floor").add_(shades)
    problem.build_network = lambda: networks.build("convnet-d1-w8-nn", card)
    problem.network = "convnet-d1-w8-nn"
    options = quick_options(datm, epochs=40, lr_expert=0.1, iterations=1, lr_images=1e-9, lr_labels=0.0)
    assert isinstance(options, datm.Options)
    first = watch(datm, problem, options)[0]
    experts = end_of(trajectories(problem, training(options), 2))
    student = Student(problem.new_network(0))
    says = [predicted(student, experts.weights(e, 40), first.images) for e in range(2)]
    assert says[0].argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    right = [said.argmax(1) == problem.labels() for said in says]
    both = right[0] & right[1]
    torch.testing.assert_close(first.labels[both], (says[0] + says[1])[both] / 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.labels[~right[1]], says[0][~right[1]], atol=1e-4, rtol=1e-4)
