"""Terms of all vectors, mosaics, subsets, judges and memories, in parts as at once, in both precisions, in a graph."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import networks
from dambench.core.config import Precision
from dambench.core.protocol import DSA
from dambench.matching.distribution import ClassMeans, Judge, Matching, Memory, Term
from dambench.matching.pixel_space import PixelImages, PixelSteps
from dambench.matching.real_batch import RealBatch
from dambench.testing import data_card, real_set, tiny_problem
from dambench.training.augmentation import augment, draw, draw_passes, passes
from dambench.training.policy import ALL, Policy
from dambench.training.problem import Network, Step, decode
from tests.lab import GivenBatch, Tape, generator, noise

CARD = data_card((5, 6, 7, 8), channels=3)
C, N, IPC = 4, 7, 3


def random_network(name: str, seed: int = 5) -> Network:
    network = networks.build(name, CARD)
    network.reset(generator(seed))
    return network.double().requires_grad_(False).train()


def spread_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Between the mean squares of all pairs of vectors: it depends on each, not on their mean."""
    return ((real @ real.mT).square().mean((1, 2)) - (synthetic @ synthetic.mT).square().mean((1, 2))).abs().sum()


def modulus(real: Tensor, synthetic: Tensor) -> Tensor:
    difference: Tensor = (real - synthetic).unflatten(1, (2, -1))
    return difference.square().sum(1).add(1e-12).sqrt().sum()


def terms(network: Network, memory: Memory | None = None) -> list[Term]:
    """On the embedding and a level before it, where there is one."""
    last = network.num_levels - 1
    return [
        Term("matching", last, lambda maps: maps.flatten(1), 2.0, memory=memory),
        Term("pairs", last, lambda maps: maps.flatten(1), 0.5, spread_distance, whole=True),
        Term("deep", max(0, last - 1), lambda maps: maps.flatten(1)[:, :32], 0.1, spread_distance, whole=True),
        Term("modulus", last, lambda maps: maps.flatten(1)[:, :32], 1.5, modulus),
    ]


def plainly(network: Network, judge: Network, real: Tensor, shown: Tensor, remembered: Tensor, weight: float) -> Tensor:
    """The loss of images as they are shown, (c, n, C, H, W), all at once, term by term, class by class."""
    of_real, of_shown = (network.feature_maps(images.flatten(0, 1)) for images in (real, shown))
    loss = torch.zeros((), dtype=torch.float64)
    last = network.num_levels - 1
    for c in range(len(real)):
        r, s = of_real[last].flatten(1)[c * real.shape[1] :][: real.shape[1]], of_shown[last].flatten(1)
        s = s[c * shown.shape[1] :][: shown.shape[1]]
        loss = loss + 2 * (r.mean(0) - s.mean(0)).square().sum() + weight * (remembered[c] - s.mean(0)).square().sum()
        loss = loss + 0.5 * ((r @ r.T).square().mean() - (s @ s.T).square().mean()).abs()
        cosine, sine = (r.mean(0) - s.mean(0))[:32].unflatten(0, (2, -1))
        loss = loss + 1.5 * (cosine.square() + sine.square() + 1e-12).sqrt().sum()
        before = max(0, last - 1)
        r = of_real[before].flatten(1)[c * real.shape[1] :][: real.shape[1], :32]
        s = of_shown[before].flatten(1)[c * shown.shape[1] :][: shown.shape[1], :32]
        loss = loss + 0.1 * ((r @ r.T).square().mean() - (s @ s.T).square().mean()).abs()
        logits = judge(shown[c])
        loss = loss + 0.7 * F.cross_entropy(logits, torch.full((len(logits),), c))
    return loss


def pull(name: str, chunk: int, dtype: torch.dtype = torch.float64, **policy: Any) -> dict[str, Any]:
    """`ClassMeans.pull` with all of it, twice, and what it leaves in the memory."""
    real, synthetic = noise(C, N, 3, 8, 8).to(dtype), noise(C * IPC, 3, 8, 8, seed=1).to(dtype)
    network, judge = random_network(name).to(dtype), random_network("convnet-d1-w8", 6).eval().to(dtype)
    memory = Memory(torch.zeros(C, network.classifier.in_features, dtype=dtype), 0.75)
    memory.weight.fill_(0.25)
    drawn = draw_passes(passes(("color", "crop", "cutout")), C, generator(1))
    subset = torch.stack([torch.randperm(IPC * 4, generator=generator(c))[:5] for c in range(C)])
    indices = torch.zeros(C, N, dtype=torch.int64)
    batch = GivenBatch(real_set(data_card()), indices, drawn, given=real, subset=subset)
    how = Policy(real.device, real_chunk=chunk, synthetic_chunk=chunk, **policy)
    means = ClassMeans(network, terms(network, memory), how, 2, Judge(judge, 0.7))
    gradient = torch.full_like(synthetic, torch.nan)
    free = synthetic.clone().requires_grad_()
    means.pull(batch, free, gradient)
    remembered = memory.values.clone()
    losses = means.pull(batch, free, gradient)
    decoded = decode(free.unflatten(0, (C, IPC)), 2)
    shown = augment(decoded[torch.arange(C).unsqueeze(1), subset], drawn)
    return {
        "losses": losses,
        "gradient": gradient,
        "remembered": remembered,
        "memory": memory.values,
        "network": network,
        "judge": judge,
        "real": augment(real, drawn),
        "shown": shown,
        "free": free,
    }


NAMES = ["convnet-d2-w8", "convnet-d2-w8-bn"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_plain_form(name: str) -> None:
    one = pull(name, ALL)
    network = one["network"]
    loss = plainly(network, one["judge"], one["real"], one["shown"], one["remembered"], 0.25)
    total = sum(one["losses"][key] for key in ("matching", "pairs", "deep", "modulus", "calibration"))
    torch.testing.assert_close(total, loss.detach(), rtol=1e-10, atol=0)
    (slope,) = torch.autograd.grad(loss, one["free"])
    torch.testing.assert_close(one["gradient"], slope, rtol=1e-8, atol=1e-10)
    means = network.embed(one["shown"].flatten(0, 1)).unflatten(0, (C, -1)).mean(1).detach()
    torch.testing.assert_close(one["remembered"], means)
    torch.testing.assert_close(one["memory"], means)  # .75 of it and .25 of the same


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 3, 5, 7, 10, 14])
def test_how_many_images_go_through_at_once_changes_nothing(name: str, chunk: int) -> None:
    parts, whole = pull(name, chunk), pull(name, ALL)
    torch.testing.assert_close(parts["losses"], whole["losses"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(parts["gradient"], whole["gradient"], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(parts["memory"], whole["memory"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-3), ("bf16", 0.1)])
def test_each_precision_is_near_to_float64(name: str, precision: Precision, near: float) -> None:
    exact, rounded = pull(name, ALL), pull(name, 7, torch.float32, precision=precision)
    distance = (rounded["gradient"].double() - exact["gradient"]).norm() / exact["gradient"].norm()
    assert distance < near
    assert (distance > 1e-4) == (precision == "bf16")


def test_a_memory_does_not_take_what_is_no_number() -> None:
    memory = Memory(torch.zeros(2, 3), 0.9)
    memory.update(torch.full((2, 3), torch.nan))
    memory.update(torch.full((2, 3), 2.0))
    memory.update(torch.full((2, 3), torch.inf))
    memory.update(torch.full((2, 3), 3.0))
    torch.testing.assert_close(memory.values, torch.full((2, 3), 2.1))
    again = Memory(torch.zeros(2, 3), 0.9)
    again.go_on(memory.state())
    again.update(torch.full((2, 3), 4.1))
    torch.testing.assert_close(again.values, torch.full((2, 3), 2.3))


def test_one_draw_of_dsa_is_as_before() -> None:
    batch = RealBatch(real_set(CARD), torch.zeros(3, 2, dtype=torch.int64), draw(DSA, 3, generator()))
    images = noise(3, 2, 3, 8, 8)
    assert batch.drawn is not None
    assert torch.equal(batch.synthetic(images, slice(0, 3), 1), augment(images, batch.drawn))


# As on a GPU: recorded once, then replayed.


def moved(recorded: bool) -> tuple[Tensor, dict[str, Tensor], list[Tape]]:
    """Images after 6 iterations of all of it at once, and their last losses."""
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    problem = tiny_problem(card=data_card((9, 9, 9), channels=3), ipc=2)
    steps = PixelSteps(lr=0.01, optimiser="adamw", weight_decay=0.01, patience=2)
    images = PixelImages(problem, "mix", steps, None, 2)
    judge = problem.build_network().requires_grad_(False).eval()
    judge.reset(generator(8))
    memory = Memory(torch.zeros(3, problem.new_network(1).classifier.in_features), 0.75)

    class Everything(Matching):
        def _renew(self, iteration: int) -> None:
            super()._renew(iteration)
            judge.reset(generator(iteration))
            memory.weight.fill_(float(iteration > 2))

    def of(network: Network) -> list[Term]:
        return terms(network, memory)

    how = recorder if recorded else None
    matching = Everything(problem, images, of, 4, "color+crop+cutout", how, Judge(judge))
    matching.most_synthetic = 5
    last = [event for event in matching.steps(6) if isinstance(event, Step)][-1]
    return images.tensor.detach(), {name: value.clone() for name, value in last.losses.items()}, tapes


def test_recorded_and_replayed_it_does_the_same() -> None:
    expected, losses, _ = moved(False)
    images, of_replay, tapes = moved(True)
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(of_replay, losses, rtol=1e-3, atol=1e-3)
    assert tapes[0].recorded == 1
    assert tapes[0].replayed == 6 - tapes[0].warmed_up
