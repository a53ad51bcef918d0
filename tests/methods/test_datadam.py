import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dambench import networks
from dambench.core.config import Request, read
from dambench.core.protocol import DSA, preset
from dambench.engine.settle import prepare
from dambench.matching.attention import attention
from dambench.methods import datadam, dm
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import watch
from dambench.training.augmentation import Draw, draw
from dambench.training.problem import Network
from tests.lab import generator, literally_augmented, messages, noise, pulled, random_network

CARD = data_card(channels=3)


def options(**changes: Any) -> datadam.Options:
    return read(datadam.Options, {"iterations": 3, "batch_real": 4, **changes}, "method datadam")


def literal_attention(maps: Tensor, power: float) -> Tensor:
    """Spec 6.1, one image and one channel at a time: (n, H * W)."""
    images = []
    for image in maps:
        strength = sum((channel.abs() ** power for channel in image), torch.zeros(())).flatten()
        images.append(strength / torch.sqrt((strength * strength).sum()))
    return torch.stack(images)


def literal_loss(
    network: Network, real: Tensor, synthetic: Tensor, drawn: Draw | None, power: float, balance: float
) -> Tensor:
    """100 · SAM over all ReLUs but the last + 100 · λ · MMD, one forward pass of all classes, spec 6.1 and 6.2."""
    if drawn is not None:
        real, synthetic = literally_augmented(real, drawn), literally_augmented(synthetic, drawn)
    of_real = network.feature_maps(torch.cat(list(real)).detach())
    of_synthetic = network.feature_maps(torch.cat(list(synthetic)))
    *relus_real, last_real = of_real
    *relus_synthetic, last_synthetic = of_synthetic
    sam = torch.zeros((), dtype=synthetic.dtype)
    for layer in range(len(relus_real) - 1):
        ours = literal_attention(relus_synthetic[layer], power).split(synthetic.shape[1])
        theirs = literal_attention(relus_real[layer], power).split(real.shape[1])
        for c in range(len(real)):
            sam = sam + ((theirs[c].sum(0) / real.shape[1] - ours[c].sum(0) / synthetic.shape[1]) ** 2).sum()
    mmd = torch.zeros((), dtype=synthetic.dtype)
    for c in range(len(real)):
        theirs_mean = last_real.flatten(1).split(real.shape[1])[c].sum(0) / real.shape[1]
        ours_mean = last_synthetic.flatten(1).split(synthetic.shape[1])[c].sum(0) / synthetic.shape[1]
        mmd = mmd + ((theirs_mean - ours_mean) ** 2).sum()
    return 100 * sam + 100 * balance * mmd


@pytest.mark.parametrize("network", ["convnet-d3-w6", "convnet-d3-w6-bn"])
@pytest.mark.parametrize("power", [1.0, 4.0, 2.5])
@pytest.mark.parametrize("augmented", [False, True])
def test_loss_and_gradient_are_those_of_the_literal_transcription(network: str, power: float, augmented: bool) -> None:
    real, synthetic = noise(3, 4, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1).requires_grad_()
    model = random_network(network, CARD)
    drawn = draw(DSA, 3, generator(2)) if augmented else None
    terms = datadam.terms(model, options(power=power, balance=0.02))
    losses, gradient = pulled(model, terms, real, synthetic, drawn)
    expected = literal_loss(model, real, synthetic, drawn, power, 0.02)
    (expected_gradient,) = torch.autograd.grad(expected, synthetic)
    # Augmentation's parameters are float32 numbers.
    rtol, atol = (1e-4, 1e-4) if augmented else (1e-9, 1e-11)
    torch.testing.assert_close(losses["matching"], expected.detach(), rtol=rtol, atol=atol)
    torch.testing.assert_close(gradient, expected_gradient, rtol=rtol, atol=atol)
    assert losses["matching"] == losses["attention"] + losses["features"]


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_attention_is_where_the_activations_are_with_length_one(power: float) -> None:
    maps = noise(5, 4, 3, 6)
    torch.testing.assert_close(attention(maps, power), literal_attention(maps, power))
    torch.testing.assert_close(attention(maps, power).norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_attention_by_hand() -> None:
    maps = torch.tensor([[[[3.0, 0.0]], [[-1.0, 3.0]]]])
    torch.testing.assert_close(attention(maps, 1), torch.tensor([[4.0, 3.0]]) / 5)
    torch.testing.assert_close(attention(maps, 2), torch.tensor([[10.0, 9.0]]) / math.sqrt(181))


def test_a_layer_that_sees_nothing_has_no_attention_and_breaks_nothing() -> None:
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    seen = attention(maps)
    seen.sum().backward()
    assert torch.equal(seen, torch.zeros(2, 16))
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_all_layers_but_the_last_have_their_attention_matched() -> None:
    network = networks.build("convnet-d3-w128", data_card((1,) * 10, channels=3, size=(32, 32)))
    terms = datadam.terms(network, datadam.Options())
    assert [(term.name, term.level, term.weight) for term in terms] == [
        ("attention", 0, 100.0),
        ("attention", 1, 100.0),
        ("features", 3, 1.0),
    ]
    maps = network.feature_maps(torch.zeros(2, 3, 32, 32))
    assert [term.vectors(maps[term.level]).shape[1] for term in terms] == [32 * 32, 16 * 16, 2048]


def test_without_attention_it_is_dm() -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)
    model = random_network("convnet-d3-w6-bn", CARD)
    ours = pulled(model, datadam.terms(model, options(attention_weight=0.0, balance=0.01)), real, synthetic)
    theirs = pulled(model, dm.terms(model), real, synthetic)
    torch.testing.assert_close(ours[0]["matching"], theirs[0]["matching"])
    torch.testing.assert_close(ours[1], theirs[1])


def test_the_attention_part_lies_between_0_and_twice_the_classes_and_layers() -> None:
    for seed in range(5):
        real, synthetic = noise(3, 5, 3, 8, 8, seed=seed), 10 * noise(3, 1, 3, 8, 8, seed=seed + 10) - 5
        model = random_network("convnet-d3-w6", CARD)
        losses, _ = pulled(model, datadam.terms(model, options()), real, synthetic)
        assert 0 < losses["attention"] / 100 < 2 * 3 * 2
    losses, _ = pulled(model, datadam.terms(model, options()), real, real.clone())
    assert losses["matching"].item() == pytest.approx(0, abs=1e-18)


def test_a_step_tells_what_the_loss_is_made_of() -> None:
    for step in watch(datadam, tiny_problem(network="convnet-d2-w8-bn"), options()):
        assert list(step.losses) == ["matching", "attention", "features", "skipped"]
        assert step.losses["matching"] == pytest.approx(step.losses["attention"] + step.losses["features"])
        assert min(step.losses["attention"], step.losses["features"]) > 0


def test_the_loss_falls() -> None:
    problem = tiny_problem(card=data_card((20, 20, 20)), network="convnet-d2-w8-bn")
    losses = [
        step.losses["matching"] for step in watch(datadam, problem, options(iterations=40, batch_real=20, init="noise"))
    ]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize(("network", "said"), [("convnet-d1-w8", 1), ("convnet-d2-w8", 0)])
def test_a_network_without_a_layer_to_match_is_worth_a_warning(network: str, said: int) -> None:
    notices: list[Any] = []
    watch(datadam, tiny_problem(network=network), options(), notices=notices)
    assert len([message for message in messages(notices) if "attention" in message]) == said


@pytest.mark.parametrize("network", ["convnet-d2-w8", "convnet-d2-w8-bn"])
@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(network: str, done: int) -> None:
    whole = watch(datadam, tiny_problem(network=network), options(iterations=5))
    rest = watch(datadam, tiny_problem(network=network), options(iterations=5), whole[done - 1].state)
    assert [step.iteration for step in rest] == list(range(done + 1, 6))
    for expected, step in zip(whole[done:], rest, strict=True):
        assert torch.equal(step.images, expected.images)
        assert step.losses == expected.losses


# Settings.


def recipe(name: str, dataset: str, ipc: int) -> tuple[datadam.Options, str]:
    found = next(r for r in datadam.RECIPES if r.name == name and r.fits(dataset, ipc))
    return read(datadam.Options, found.options, "method datadam"), found.norm


def test_the_default_is_what_the_released_code_does() -> None:
    code = datadam.Options(iterations=20_000, lr_images=1.0, batch_real=64, power=1.0, balance=0.01)
    assert recipe("default", "cifar10", 50) == (code, "batch")
    assert recipe("default", "mnist", 1) == (code, "batch")
    assert recipe("default", "cifar10", 100)[0].lr_images == 10.0
    assert recipe("default", "imagenet", 1)[0].balance == 0.02


def test_the_paper_s_table_is_a_recipe() -> None:
    table = datadam.Options(iterations=8_000, lr_images=1.0, batch_real=64, power=4.0, balance=0.01)
    assert recipe("paper", "cifar10", 50) == (table, "instance")
    assert recipe("paper", "cifar10", 51)[0].lr_images == 10.0
    assert recipe("paper", "imagenet", 10)[0].balance == 0.02


def test_the_seed_s_settings_are_k_times_t_updates() -> None:
    mnist, mhist = recipe("seed", "mnist", 10), recipe("seed", "mhist", 50)
    assert (mnist[0].iterations, mnist[0].lr_images, mnist[0].batch_real, mnist[1]) == (1_000, 0.1, 256, "instance")
    assert (mhist[0].iterations, mhist[0].lr_images, mhist[0].batch_real, mhist[1]) == (2_000, 0.1, 128, "instance")


@pytest.mark.parametrize(
    ("asked", "wanted", "settled", "overrides"),
    [
        ({}, None, "convnet-d2-w32-bn", {}),
        ({}, "convnet-d2-w8", "convnet-d2-w8-bn", {"network": "convnet-d2-w8-bn"}),
        ({}, "convnet-d2-w8-in", "convnet-d2-w8", {"network": "convnet-d2-w8"}),
        ({"recipe": "paper"}, None, "convnet-d2-w32", {"recipe": "paper"}),
        (
            {"recipe": "paper"},
            "convnet-d2-w8-bn",
            "convnet-d2-w8-bn",
            {"network": "convnet-d2-w8-bn", "recipe": "paper"},
        ),
    ],
)
def test_the_norm_comes_from_the_recipe_where_the_network_s_name_says_none(
    asked: dict[str, Any], wanted: str | None, settled: str, overrides: dict[str, str]
) -> None:
    job = prepare(Request(method="datadam", dataset="digits", network=wanted, **asked))
    assert job.config.network == settled
    assert job.overrides == overrides
    # What is trained on the set has instance norm, whatever it was matched with.
    assert job.config.evaluate_on == (settled.removesuffix("-bn"),)


def test_its_protocols_are_what_the_code_and_the_table_say() -> None:
    code, table = preset("datadam"), preset("datadam-table")
    assert (code.synthetic.epochs, code.synthetic.drops, code.batch, code.lr) == (1801, (902,), 64, 0.01)
    assert (table.decay, table.synthetic.drops[:3], table.keeps_momentum) == (0.5, (15, 30, 45), True)
