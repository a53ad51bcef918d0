import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dambench import networks
from dambench.core.config import read
from dambench.core.errors import NotEnoughMemory
from dambench.core.protocol import DSA, Protocol
from dambench.matching import gradients
from dambench.matching.gradients import (
    ClassGradients,
    GradientMatching,
    Options,
    distance,
    epochs_for,
    gradient_matching_loss,
    updates_for,
)
from dambench.matching.optimised import LearnedImages
from dambench.matching.real_batch import real_batch
from dambench.methods import dc
from dambench.testing import data_card, real_set, tiny_problem
from dambench.training import train as training
from dambench.training.augmentation import Draw, draw
from dambench.training.cuda_graph import Replayed
from dambench.training.policy import ALL, Policy
from dambench.training.problem import Network, Problem, Step, SyntheticSet
from tests.lab import GivenBatch, Tape, adaptations, generator, literally_augmented, messages, noise

CARD = data_card(channels=3)
NAMES = ["convnet-d2-w8", "convnet-d2-w8-ln", "convnet-d2-w8-gn", "convnet-d2-w8-nn", "convnet-d2-w8-bn"]


def options(**changes: Any) -> Options:
    return read(Options, {"iterations": 2, "batch_real": 4, "updates": 3, "epochs": 2, **changes}, "method")


def random_network(name: str) -> Network:
    """In float64; BatchNorm with some statistics, which it holds."""
    network = networks.build(name, CARD)
    network.reset(generator(5))
    network.double().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = noise(8, seed=6), noise(8, seed=7).exp()
            module.eval()
    return network


def literal_distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """Spec 3, row by row and number by number."""
    total = torch.zeros((), dtype=torch.float64)
    for name, a in ours.items():
        b = theirs[name]
        if a.dim() in (3, 4):  # a layer norm: (C, H · W); a convolution: (out, in · kh · kw)
            a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        elif a.dim() == 1:  # a bias, another norm
            continue
        for row, other in zip(a, b, strict=True):
            product = sum((x * y for x, y in zip(row, other, strict=True)), torch.zeros(()).double())
            total = total + 1 - product / (length(row) * length(other) + 1e-6)
    return total


def literal_squares(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """Spec 3, `mse`: the squared length of the difference of the concatenated gradients."""
    return sum(((x - y) ** 2 for x, y in pairs(ours, theirs)), torch.zeros(()).double())


def literal_cosine(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """Spec 3, `cos`: 1 − the cosine of the concatenated gradients."""
    zero = torch.zeros(()).double()
    product = sum((x * y for x, y in pairs(ours, theirs)), zero)
    lengths = [sum((x**2 for x, _ in pairs(some, some)), zero).sqrt() for some in (ours, theirs)]
    return 1 - product / (lengths[0] * lengths[1] + 1e-6)


def pairs(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each number of one beside that of the other."""
    return [(x, y) for name in ours for x, y in zip(ours[name].flatten(), theirs[name].flatten(), strict=True)]


LITERAL = {"rows": literal_distance, "mse": literal_squares, "cos": literal_cosine}


def length(row: Tensor) -> Tensor:
    # A square root has no slope at 0: what a network's channel that is dead leaves.
    return row.square().sum().sqrt() if row.any() else row.sum()


def literal_loss(
    network: Network, real: Tensor, synthetic: Tensor, drawn: Draw | None = None, apart: str = "rows"
) -> Tensor:
    """Spec 3 and 4: class after class, all images of a class at once."""
    if drawn is not None:
        real, synthetic = literally_augmented(real, drawn), literally_augmented(synthetic, drawn)
    total = torch.zeros((), dtype=synthetic.dtype)
    named = dict(network.named_parameters())
    for label, (of_real, of_synthetic) in enumerate(zip(real, synthetic, strict=True)):
        both = []
        for images, again in ((of_real, False), (of_synthetic, True)):
            loss = F.cross_entropy(network(images), torch.full((len(images),), label))
            found = torch.autograd.grad(loss, list(named.values()), create_graph=again)
            both.append(dict(zip(named, found, strict=True)))
        total = total + LITERAL[apart](both[1], both[0])
    return total


def pulled(
    network: Network,
    real: Tensor,
    synthetic: Tensor,
    drawn: Draw | None = None,
    chunk: int = ALL,
    apart: str = "rows",
    **policy: Any,
) -> tuple[Tensor, Tensor]:
    """`ClassGradients.pull` on given images: the loss, and its gradient (classes, ipc, C, H, W)."""
    batch = GivenBatch(real_set(data_card()), torch.zeros(real.shape[:2], dtype=torch.int64), drawn, given=real)
    free = synthetic.detach().flatten(0, 1).clone().requires_grad_()
    gradient = torch.full_like(free, torch.nan, requires_grad=False)
    how = Policy(real.device, real_chunk=chunk, **policy)
    loss = ClassGradients(network, how, apart).pull(batch, free, gradient)
    return loss, gradient.view_as(synthetic)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("augmented", [False, True])
def test_loss_and_gradient_are_those_of_the_formula(name: str, augmented: bool) -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1).requires_grad_()
    network = random_network(name)
    drawn = draw(DSA, 3, generator(2)) if augmented else None
    expected = literal_loss(network, real, synthetic, drawn)
    (slope,) = torch.autograd.grad(expected, synthetic)
    ours = pulled(network, real, synthetic, drawn)
    # Augmentation's parameters are float32 numbers.
    rtol, atol = (1e-4, 1e-5) if augmented else (1e-9, 1e-12)
    torch.testing.assert_close(ours, (expected.detach(), slope), rtol=rtol, atol=atol)
    assert slope.abs().max() > 1e-4


@pytest.mark.parametrize("apart", ["rows", "mse", "cos"])
@pytest.mark.parametrize("chunk", [2, ALL])
def test_it_is_the_plain_form(chunk: int, apart: str) -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1).requires_grad_()
    network = random_network("convnet-d2-w4")
    plain = gradient_matching_loss(network, real, synthetic, apart)
    (slope,) = torch.autograd.grad(plain, synthetic)
    ours = pulled(network, real, synthetic, chunk=chunk, apart=apart)
    torch.testing.assert_close(ours, (plain.detach(), slope), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("apart", ["mse", "cos"])
@pytest.mark.parametrize("name", ["convnet-d1-w4", "convnet-d1-w4-bn"])
def test_the_other_distances_are_those_of_the_formula_and_of_all_parameters(name: str, apart: str) -> None:
    real, synthetic = noise(3, 4, 3, 4, 4), noise(3, 2, 3, 4, 4, seed=1).requires_grad_()
    network = networks.build(name, data_card(channels=3, size=(4, 4)))
    network.reset(generator(5))
    network.double().train(name == "convnet-d1-w4")
    expected = literal_loss(network, real, synthetic, apart=apart)
    (slope,) = torch.autograd.grad(expected, synthetic)
    ours = pulled(network, real, synthetic, apart=apart)
    torch.testing.assert_close(ours, (expected.detach(), slope), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pulled(network, real, synthetic, apart=apart, chunk=3), ours, rtol=1e-9, atol=1e-12)
    for parameter in network.parameters():  # biases and norms count
        assert slope.abs().max() > 1e-4
        with torch.no_grad():
            parameter.add_(0.1)
        assert not torch.isclose(pulled(network, real, synthetic, apart=apart)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("way", [{"chunk": 2}, {"chunk": 3, "workers": 2}, {"workers": 2}])
@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-bn"])
def test_a_few_images_at_a_time_give_the_same(name: str, way: dict[str, Any]) -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)
    network, drawn = random_network(name), draw(DSA, 3, generator(2))
    whole = pulled(network, real, synthetic, drawn)
    torch.testing.assert_close(pulled(network, real, synthetic, drawn, **way), whole, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)
    network, towards, far = random_network("convnet-d1-w8"), noise(3, 2, 3, 8, 8, seed=2), 1e-5
    _, gradient = pulled(network, real, synthetic)
    ahead, behind = (pulled(network, real, synthetic + sign * far * towards)[0] for sign in (1, -1))
    torch.testing.assert_close((ahead - behind) / (2 * far), (gradient * towards).sum(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_real_images_are_near_to_themselves_and_far_from_others(name: str) -> None:
    real, others = noise(3, 5, 3, 8, 8), noise(3, 5, 3, 8, 8, seed=1)
    network = random_network(name)
    # Not quite at no distance: a row that is 0 counts 1 (a third of them, with these statistics of BatchNorm).
    assert pulled(network, real, real)[0] < 0.4 * pulled(network, real, others)[0]


@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-bn"])
def test_bfloat16_is_that_of_the_real_images_alone_and_near(name: str) -> None:
    real, synthetic = noise(3, 5, 3, 8, 8).float(), noise(3, 2, 3, 8, 8, seed=1).float()
    network = random_network(name).float()
    exact = pulled(network, real, synthetic)
    network.train()  # as it is when the other's copy is made
    free = synthetic.flatten(0, 1).clone().requires_grad_()
    slope = torch.zeros_like(free, requires_grad=False)
    batch = GivenBatch(real_set(data_card()), torch.zeros(3, 5, dtype=torch.int64), None, given=real)
    gradients_of = ClassGradients(network, Policy(torch.device("cpu"), precision="bf16"))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    rounded = gradients_of.pull(batch, free, slope), slope.view_as(synthetic)
    assert 1e-7 < (rounded[0] / exact[0] - 1).abs() < 0.02
    assert F.cosine_similarity(rounded[1].flatten(), exact[1].flatten(), dim=0) > 0.98


@given(st.integers(0, 1000))
def test_distance_counts_each_row_from_zero_to_two(seed: int) -> None:
    shapes = {"conv": (4, 3, 2, 2), "layer norm": (3, 2, 2), "linear": (5, 6), "bias": (5,)}
    ours, theirs = ({n: noise(*s, seed=seed + k) for n, s in shapes.items()} for k in (0, 1))
    found = distance(list(ours.values()), list(theirs.values()))
    torch.testing.assert_close(found, literal_distance(ours, theirs), rtol=1e-12, atol=1e-12)
    assert 0 <= found <= 2 * (4 + 3 + 5)
    opposite = distance(list(ours.values()), [-tensor for tensor in ours.values()])
    torch.testing.assert_close(opposite, torch.tensor(2.0 * 12).double(), rtol=1e-5, atol=0)


def test_a_row_without_gradient_is_one_apart_and_pulls_nowhere() -> None:
    ours = torch.zeros(2, 3, requires_grad=True)
    loss = distance([ours], [torch.ones(2, 3)])
    assert loss.item() == 2
    (slope,) = torch.autograd.grad(loss, ours)
    assert slope.isfinite().all()


# The schedule.


def test_updates_and_epochs_are_the_published_ones_and_lie_between_them_elsewhere() -> None:
    table = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    assert {ipc: (updates_for(ipc), epochs_for(ipc)) for ipc in table} == table
    assert [(updates_for(ipc), epochs_for(ipc)) for ipc in (4, 15, 25, 51, 1000)] == [
        (4, 17),
        (15, 38),
        (25, 22),
        (50, 10),
        (50, 10),
    ]


# The loop.


def matched(
    problem: Problem, how: Options, notices: list[Any] | None = None, **tools: Any
) -> tuple[Tensor, list[float]]:
    """The images after all iterations, and the losses."""
    images = LearnedImages(problem, how.init, how.lr_images, how.momentum_images, None)
    losses = []
    for event in GradientMatching(problem, images, how, **tools).steps(how.iterations):
        if isinstance(event, Step):
            losses.append(float(event.losses["matching"]))
        elif notices is not None:
            notices.append(event)
    return images.tensor.detach().clone(), losses


def by_hand(problem: Problem, how: Options) -> tuple[Tensor, list[float]]:
    """Spec 3: networks, updates, and between two updates training on the synthetic images, without augmentation."""
    start = LearnedImages(problem, how.init, how.lr_images, how.momentum_images, None)
    images = start.tensor.detach().clone().requires_grad_()
    velocity, losses = torch.zeros_like(images), []
    for iteration in range(1, how.iterations + 1):
        network = copy.deepcopy(problem.new_network(iteration)).requires_grad_(True)
        total = 0.0
        for update in range(how.updates or 0):
            number = (iteration - 1) * (how.updates or 0) + update + 1
            network.train()
            if network.uses_batch_statistics:
                with torch.no_grad():
                    network(problem.real.sample(16, problem.generator("statistics", number)).flatten(0, 1))
                for module in network.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
            batch = real_batch(problem, how.batch_real, "none", number)
            real = batch.images(slice(0, 3))
            loss = literal_loss(network, real, images.unflatten(0, (3, -1)))
            (slope,) = torch.autograd.grad(loss, images)
            total += loss.item()
            with torch.no_grad():
                velocity = how.momentum_images * velocity + slope
                images -= how.lr_images * velocity
            if update + 1 < (how.updates or 0):
                network.train()
                optimizer = torch.optim.SGD(network.parameters(), lr=how.lr_network)
                for _ in range(how.epochs or 0):
                    optimizer.zero_grad()
                    F.cross_entropy(network(images.detach()), problem.labels()).backward()
                    optimizer.step()
        losses.append(total / (how.updates or 1))
    return images.detach(), losses


@pytest.mark.parametrize("name", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_the_loop_is_that_of_the_released_code(name: str) -> None:
    how = options(augmentation="none", init="noise", lr_images=1.0, lr_network=0.5)
    images, losses = matched(tiny_problem(network=name), how)
    expected, of_each = by_hand(tiny_problem(network=name), how)
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-4)
    assert losses == pytest.approx(of_each, rel=1e-4)
    untrained, _ = matched(tiny_problem(network=name), options(**_fields(how) | {"epochs": 0}))
    assert (untrained - expected).abs().max() > 1e-2, "training the network would make no difference"


def _fields(how: Options) -> dict[str, Any]:
    return {name: getattr(how, name) for name in how.__struct_fields__}


def test_a_network_is_trained_with_augmentation_where_the_images_are_matched_with_it() -> None:
    def inner(**changes: Any) -> Any:
        problem, how = tiny_problem(), options(**changes)
        images = LearnedImages(problem, how.init, how.lr_images, how.momentum_images, None)
        return GradientMatching(problem, images, how).inner

    assert inner().augmentation == DSA
    plain = inner(augmentation="none")
    assert plain.augmentation == ()
    assert (plain.lr, plain.momentum, plain.weight_decay, plain.batch) == (0.01, 0, 0, 256)
    assert plain.synthetic.epochs == 2
    assert inner(updates=1) is None
    assert inner(epochs=0) is None


@pytest.mark.parametrize("augmentation", ["none", "dsa"])
def test_a_recording_does_what_the_calls_do(augmentation: str) -> None:
    how = options(augmentation=augmentation, iterations=3, epochs=1)
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    images, losses = matched(tiny_problem(), how, recorder=recorder)
    expected, of_each = matched(tiny_problem(), how)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)
    assert losses == pytest.approx(of_each, rel=1e-4)
    assert [tape.replayed for tape in tapes] == [3 * 3 - 3]


@pytest.mark.parametrize("name", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_as_on_a_gpu_all_of_it_is_recorded_once_and_does_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = options(iterations=3, augmentation="none", init="noise", lr_network=0.5)
    expected, of_each = by_hand(tiny_problem(network=name), how)
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    def stacked(network: Network, data: SyntheticSet, labels: Tensor, inner: Protocol, *more: Any) -> training._Stack:
        gsam, loss = more
        return training._Stack([network], data, labels, inner, gsam, pytest.fail, loss)

    def replayed(*given: Any, **named: Any) -> Replayed:
        return Replayed(*given, **named, recorder=recorder)

    monkeypatch.setattr(training, "_Single", stacked)
    monkeypatch.setattr(training, "Replayed", replayed)
    images, losses = matched(tiny_problem(network=name), how, recorder=recorder)
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3)
    assert losses == pytest.approx(of_each, rel=1e-3)
    # 3 networks: 3 updates for each, and 2 trainings of 2 steps.
    assert [(tape.warmed_up, tape.recorded, tape.replayed) for tape in tapes] == [(3, 1, 9 - 3), (3, 1, 12 - 3)]


def test_it_is_told_what_the_time_is_spent_on() -> None:
    steps = [
        step
        for step in dc.distill(tiny_problem(), read(dc.Options, {**_fields(options())}, "dc"))
        if isinstance(step, Step)
    ]
    for step in steps:
        assert list(step.parts) == ["matching", "network training", "new network"]
        assert all(seconds > 0 for seconds in step.parts.values())
    assert len({str(step.parts) for step in steps}) == len(steps) == 2


def test_a_class_with_fewer_images_than_the_real_batch_is_said() -> None:
    notices: list[Any] = []
    matched(tiny_problem(), options(batch_real=100, iterations=1, updates=1), notices)
    (message,) = messages(notices)
    assert "fewer than the real batch of 100" in message


@pytest.mark.parametrize("recorded", [False, True])
def test_where_memory_is_too_small_fewer_real_images_go_through_at_once(
    monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    tools: dict[str, Any] = {"recorder": Tape} if recorded else {}
    expected, losses = matched(tiny_problem(), options(), **tools)
    _with_memory_for(2, monkeypatch)
    notices: list[Any] = []
    images, same = matched(tiny_problem(), options(), notices, **tools)
    changes = [(event.iteration, event.what, event.value) for event in adaptations(notices)]
    assert changes == [(1, "real_chunk", 2)]
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)
    assert same == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(("most", "which"), [(0, "1 real images"), (1, "2 synthetic images")])
def test_where_not_even_the_fewest_fit_the_run_ends(monkeypatch: pytest.MonkeyPatch, most: int, which: str) -> None:
    _with_memory_for(most, monkeypatch)
    with pytest.raises(NotEnoughMemory, match=f"^{which} do not fit"):
        matched(tiny_problem(), options())


def _with_memory_for(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than so many images at once do not fit."""
    of_images = ClassGradients._gradients

    def limited(self: ClassGradients, network: Network, some: Tensor, *given: Any, **named: Any) -> Any:
        if len(some) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
        return of_images(self, network, some, *given, **named)

    monkeypatch.setattr(ClassGradients, "_gradients", limited)


def test_that_it_runs_uncompiled_is_said() -> None:
    notices: list[Any] = []
    problem = tiny_problem()
    problem.policy = Policy(torch.device("cpu"), compiled=True)
    matched(problem, options(iterations=1, updates=1), notices)
    assert [(event.what, event.value) for event in adaptations(notices)] == [("compiled", 0)]
    assert not problem.policy.compiled


def test_statistics_are_of_real_images_and_then_held(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny_problem(network="convnet-d1-w8-bn")
    seen: list[tuple[Tensor, bool]] = []
    pull = ClassGradients.pull

    def noted(self: ClassGradients, *given: Any) -> Tensor:
        norm = next(module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d))
        assert norm.running_mean is not None
        before = norm.running_mean.clone()
        loss = pull(self, *given)
        seen.append((before, torch.equal(before, norm.running_mean)))
        return loss

    monkeypatch.setattr(gradients.ClassGradients, "pull", noted)
    matched(problem, options(iterations=1, updates=1, augmentation="none"))
    ((mean, held),) = seen
    assert held
    network = problem.new_network(1)
    convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    maps = convolution(problem.real.sample(16, problem.generator("statistics", 1)).flatten(0, 1))
    torch.testing.assert_close(mean, 0.1 * maps.mean((0, 2, 3)))
