"""Attacks: against literal transcriptions, within their budgets, and none that is stronger leaves more recognised."""

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import networks
from dambench.core import registry
from dambench.core.config import read
from dambench.core.errors import BadInput
from dambench.core.events import Measured
from dambench.core.protocol import Budget
from dambench.evaluators import Context, robustness
from dambench.evaluators._attacks import Attacked, Ball, fgsm, gradients, lengths, pgd, project, square
from dambench.evaluators.robustness import Options, at_random, attacked, evenly, items, metrics_of
from dambench.testing import data_card
from dambench.testing.evaluators import tiny_context
from dambench.testing.problems import striped_set
from dambench.training.problem import Normalisation, Whitening
from tests.lab import generator, noise

QUICK = Options(linf=(8, 64), l2=(0.5, 4.0), steps=4, queries=12, images=60, transfer_from=("mlp-d1-w8",))


def linear(seed: int = 0) -> Any:
    """A smooth network of float64: pixels (n, 2, 5, 5) → 4 outputs."""
    first, second = noise(50, 16, seed=seed), noise(16, 4, seed=seed + 1)
    return lambda pixels: torch.tanh((pixels.flatten(1) - 0.5) @ first) @ second


def images(count: int = 12) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1], and what the network answers for them."""
    pixels = torch.rand(count, 2, 5, 5, generator=generator(5), dtype=torch.float64)
    return pixels, linear()(pixels).argmax(1)


def last(found: Iterator[Attacked]) -> Attacked:
    *_, end = found
    return end


def literal_pgd(pixels: Tensor, labels: Tensor, norm: str, budget: float, steps: int, size: float) -> Tensor:
    """Madry et al., section 2.1, an image and a pixel at a time."""
    results = []
    for image, label in zip(pixels, labels, strict=True):
        x = image.clone()
        for _ in range(steps):
            x = x.detach().requires_grad_(True)
            F.cross_entropy(linear()(x[None]), label[None]).backward()
            g = x.grad
            if norm == "linf":
                x = x.detach() + size * torch.sign(g)
                for place in torch.cartesian_prod(*map(torch.arange, image.shape)).tolist():
                    at = tuple(place)
                    x[at] = max(image[at] - budget, min(image[at] + budget, x[at]))
                    x[at] = max(0.0, min(1.0, x[at]))
            else:
                x = x.detach() + size * g / math.sqrt(float((g**2).sum()))
                length = math.sqrt(float(((x - image) ** 2).sum()))
                if length > budget:
                    x = image + (x - image) * budget / length
                x = x.clamp(0, 1)
        results.append(x.detach())
    return torch.stack(results)


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.03), ("linf", 0.3), ("l2", 0.2), ("l2", 2.0)])
def test_pgd_is_the_literal_loop(norm: Any, budget: float) -> None:
    pixels, labels = images()
    ball, steps, size = Ball(norm, budget), 6, 2.5 * budget / 6
    trace = [found.examples for found in pgd(linear(), pixels, labels, ball, steps, size, pixels)]
    expected = literal_pgd(pixels, labels, norm, budget, steps, size)
    found = last(pgd(linear(), pixels, labels, ball, steps, size, pixels))
    broken_at_the_end = linear()(expected).argmax(1) != labels
    assert torch.equal(found.broken & broken_at_the_end, broken_at_the_end), "what the literal loop breaks is broken"
    unbroken = ~found.broken
    assert torch.allclose(found.examples[unbroken], expected[unbroken], atol=1e-12)
    one = literal_pgd(pixels, labels, norm, budget, 1, size)
    assert torch.allclose(trace[0][~found.broken], one[~found.broken], atol=1e-12)
    assert bool((linear()(found.examples).argmax(1) != labels)[found.broken].all()), "what is said to be broken is"


def test_fgsm_by_hand() -> None:
    """A network whose output 0 falls with the first pixel and rises with the second: its sign is known."""
    weights = torch.tensor([[-1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    pixels = torch.tensor([[[[0.5, 0.95]]]], dtype=torch.float64)
    found = fgsm(lambda x: x.flatten(1) @ weights.T, pixels, torch.tensor([0]), Ball("linf", 0.1))
    assert torch.allclose(found.examples.flatten(), torch.tensor([0.6, 0.85], dtype=torch.float64))
    assert not bool(found.broken)
    by_l2 = fgsm(lambda x: x.flatten(1) @ weights.T, pixels, torch.tensor([0]), Ball("l2", 1.0))
    expected = torch.tensor([0.5 + 1 / math.sqrt(5), 0.95 - 2 / math.sqrt(5)], dtype=torch.float64)
    assert torch.allclose(by_l2.examples.flatten(), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_attack_leaves_its_budget_or_the_range_of_pixels(norm: Any) -> None:
    pixels, labels = images()
    for budget in (0.01, 0.3, 3.0):
        ball = Ball(norm, budget)
        made = [
            fgsm(linear(), pixels, labels, ball).examples,
            last(pgd(linear(), pixels, labels, ball, 5, budget, at_random(pixels, ball, generator()))).examples,
            at_random(pixels, ball, generator(2)),
            project(pixels + noise(*pixels.shape), pixels, ball),
        ]
        if norm == "linf":
            made.append(last(square(linear(), pixels, labels, budget, 30, generator())).examples)
        for examples in made:
            change = examples - pixels
            size = change.abs().amax((1, 2, 3)) if norm == "linf" else lengths(change)
            assert bool((size <= budget + 1e-9).all())
            assert bool(((examples >= 0) & (examples <= 1)).all())


def test_more_steps_and_more_queries_never_mend_an_image() -> None:
    pixels, labels = images(40)
    runs = (
        pgd(linear(), pixels, labels, Ball("linf", 0.05), 12, 0.02, pixels),
        square(linear(), pixels, labels, 0.1, 60, generator()),
    )
    for run in runs:
        counts = []
        before = torch.zeros_like(labels, dtype=torch.bool)
        for found in run:
            assert bool((found.broken | ~before).all())
            before = found.broken
            counts.append(int(found.broken.sum()))
        assert 0 < counts[-1] < len(labels)
        assert counts[-1] > counts[0], "the attack gets somewhere"


def test_square_lowers_margins_by_answers_alone() -> None:
    pixels, labels = images(30)

    def blind(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        outputs: Tensor = linear()(x)
        return outputs

    def margin(x: Tensor) -> Tensor:
        outputs = linear()(x)
        own = outputs.gather(1, labels[:, None]).squeeze(1)
        margins: Tensor = own - outputs.scatter(1, labels[:, None], -math.inf).amax(1)
        return margins

    margins = [margin(found.examples) for found in square(blind, pixels, labels, 0.05, 50, generator())]
    for earlier, later in pairwise(margins):
        assert bool((later <= earlier + 1e-12).all())


def test_gradients_are_of_pixels_through_mean_and_std_and_through_zca() -> None:
    card = data_card((4, 4, 4))
    network = networks.build("convnet-d1-w8", card)
    network.reset(generator())
    pixels = torch.rand(4, card.channels, card.height, card.width, generator=generator(1))
    content = Whitening.fit((255 * torch.rand(40, *pixels.shape[1:], generator=generator(2))).to(torch.uint8))
    zca = Whitening("zca", **safetensors.torch.load(content))
    labels = torch.tensor([0, 1, 2, 0])
    for preprocessing in (Normalisation((0.3,) * card.channels, (0.2,) * card.channels), zca):
        logits = attacked(network, preprocessing)
        found, _ = gradients(logits, pixels, labels)
        for place in ((0, 0, 1, 2), (3, 0, 4, 4)):
            step = 1e-2
            losses = []
            for sign in (1, -1):
                moved = pixels.clone()
                moved[place] += sign * step
                losses.append(F.cross_entropy(logits(moved), labels, reduction="sum").item())
            assert found[place].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0.05, abs=2e-3)
        whole = (255 * pixels).round() / 255
        as_bytes = preprocessing.apply((255 * pixels).round().to(torch.uint8))
        assert torch.allclose(logits(whole), network(as_bytes), atol=1e-4), "what is attacked is what is tested"


def learnt() -> Context:
    """Networks that learn to tell three classes apart, and 60 test images."""
    context = tiny_context(registry.load("evaluators", "robustness"))
    many = msgspec.structs.replace(context.card, train_counts=[20, 20, 20])
    longer = msgspec.structs.replace(context.protocol, synthetic=Budget(epochs=40))
    return replace(context, test=striped_set(many, seed=3), networks=("convnet-d1-w8",), protocol=longer)


def test_a_stronger_attack_never_gives_a_higher_accuracy() -> None:
    context = learnt()
    options = Options(linf=(2, 64, 160), l2=(0.5, 1.0, 4.0), steps=5, queries=20, transfer_from=("mlp-d1-w8",))
    found = [event for event in robustness.evaluate(context, options) if isinstance(event, Measured)]
    assert [event.repeat for event in found] == [0, 1]
    for event in found:
        values = {name: float(value) for name, value in event.values.items()}
        assert values.keys() == metrics_of(options).keys() | {"clean"}
        for attack in ("fgsm_linf", "pgd_linf", "square_linf", "transfer_mlp-d1-w8_linf"):
            row = [values["clean"], *(values[f"{attack}_{budget}"] for budget in options.linf)]
            assert row == sorted(row, reverse=True), attack
        row = [values["clean"], *(values[f"pgd_l2_{name}"] for name in ("0-5", "1", "4"))]
        assert row == sorted(row, reverse=True)
        for budget in options.linf:
            assert values[f"pgd_linf_{budget}"] <= values[f"fgsm_linf_{budget}"]
        assert values["clean"] > 0.9
        assert values["pgd_linf_160"] < values["clean"], "an attack that does nothing is none"
        assert values["transfer_mlp-d1-w8_linf_160"] < values["clean"]


def test_a_network_that_did_not_learn_is_refused_in_one_sentence() -> None:
    context = learnt()
    untrained = msgspec.structs.replace(context.protocol, synthetic=Budget(epochs=1), lr=1e-9)
    with pytest.raises(
        BadInput, match=r"did not learn from this set: it recognises .* It has no robustness to measure"
    ):
        list(robustness.evaluate(replace(context, protocol=untrained), QUICK))
    with pytest.raises(BadInput, match="convnet-d1-w8 did not learn"):
        items(replace(context, recall=lambda *key: 1 / len(context.card.classes)), QUICK)
    assert len(items(replace(context, recall=lambda *key: 0.99), QUICK)) == 2
    with pytest.raises(BadInput, match="which is attacked itself"):
        items(context, Options(transfer_from=("convnet-d1-w8",)))


def test_the_images_that_are_attacked_are_an_even_share_of_each_class() -> None:
    assert evenly((3, 4), 100).tolist() == [0, 1, 2, 3, 4, 5, 6]
    chosen = evenly((100, 50, 10), 32)
    assert [int(((chosen >= low) & (chosen < high)).sum()) for low, high in ((0, 100), (100, 150), (150, 160))] == [
        *(20, 10, 2)
    ]
    assert len({*chosen.tolist()}) == 32
    assert len(evenly((1000, 1), 10)) == 11, "no class is left out"


@pytest.mark.parametrize(
    "wrong",
    [{"linf": [0]}, {"linf": [8, 8]}, {"l2": [-1.0]}, {"steps": 0}, {"linf": []}, {"transfer_from": ["a", "A"]}],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Options)


def test_a_budget_that_is_no_list_is_refused_with_the_list_that_would_be_right() -> None:
    with pytest.raises(BadInput, match=r"linf = 8 is not allowed: it is a list, as \[8\]\."):
        read(Options, {"linf": 8}, "evaluator robustness")


TORCHATTACKS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import torchattacks
state = torch.load(sys.argv[2], weights_only=True)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(50, 16).double(), torch.nn.Linear(16, 4).double()
    def forward(self, x):
        return self.second(torch.tanh(self.first(x.flatten(1))))
net = Net()
net.load_state_dict(state["net"])
x, y = state["x"], state["y"]
made = {
    "fgsm": torchattacks.FGSM(net, eps=0.05),
    "pgd": torchattacks.PGD(net, eps=0.05, alpha=0.02, steps=7, random_start=False),
    "pgd_l2": torchattacks.PGDL2(net, eps=0.7, alpha=0.2, steps=7, random_start=False),
}
torch.save({name: attack(x, y) for name, attack in made.items()}, sys.argv[3])
"""


@pytest.mark.slow
def test_the_attacks_are_those_of_torchattacks(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target"]
    if subprocess.run([*pip, tmp_path / "packages", "torchattacks==3.5.1", "--no-deps"], check=False).returncode:
        pytest.skip("torchattacks cannot be installed here: nothing to compare with")
    subprocess.run([*pip, tmp_path / "packages", "requests", "tqdm", "gdown"], check=True)
    first, second = noise(50, 16), noise(16, 4, seed=1)
    state = {"first.weight": first.T, "first.bias": -0.5 * first.sum(0), "second.weight": second.T}
    state["second.bias"] = torch.zeros(4, dtype=torch.float64)
    pixels, labels = images(64)
    torch.save({"net": state, "x": pixels, "y": labels}, tmp_path / "given.pt")
    script = tmp_path / "theirs.py"
    script.write_text(TORCHATTACKS)
    subprocess.run(
        [sys.executable, script, tmp_path / "packages", tmp_path / "given.pt", tmp_path / "made.pt"], check=True
    )
    theirs = torch.load(tmp_path / "made.pt", weights_only=True)
    assert torch.allclose(fgsm(linear(), pixels, labels, Ball("linf", 0.05)).examples, theirs["fgsm"], atol=1e-6)
    for name, ball, size in (("pgd", Ball("linf", 0.05), 0.02), ("pgd_l2", Ball("l2", 0.7), 0.2)):
        ours = last(pgd(linear(), pixels, labels, ball, 7, size, pixels))
        missed = linear()(theirs[name]).argmax(1) != labels
        assert 0 < int(missed.sum()) < len(labels)
        assert bool((ours.broken | ~missed).all()), "whatever theirs breaks ours breaks"
        rest = ~ours.broken
        assert torch.allclose(ours.examples[rest], theirs[name][rest], atol=1e-6)
