from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dambench import networks
from dambench.core.config import Precision
from dambench.core.errors import NotEnoughMemory
from dambench.core.events import Adapted
from dambench.core.protocol import DSA
from dambench.matching.distribution import ClassMeans, Matching, Term, mean_matching_loss
from dambench.matching.optimised import LearnedImages
from dambench.matching.real_batch import RealBatch
from dambench.methods import datadam, dm
from dambench.testing import data_card, real_set, tiny_problem
from dambench.testing.methods import CopiedStep, watch
from dambench.training.augmentation import draw
from dambench.training.policy import ALL, Policy
from dambench.training.problem import Network
from tests.lab import GivenBatch, Tape, adaptations, end_of, generator, noise, pulled, random_network
from tests.methods import test_datadam, test_dm

CARD = data_card(channels=3)


def both(network: Network) -> list[Term]:
    """Terms on several levels, two on the same."""
    doubled = Term("doubled", network.num_levels - 1, lambda maps: 2 * maps.flatten(1), 0.5)
    return [*datadam.terms(network, datadam.Options()), doubled]


@pytest.mark.parametrize("network", ["convnet-d2-w8", "convnet-d2-w8-bn"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 10, 14, 15, 100])
def test_how_many_images_go_through_at_once_changes_nothing(network: str, chunk: int) -> None:
    real, synthetic = noise(4, 7, 3, 8, 8), noise(4, 3, 3, 8, 8, seed=1)
    model, drawn = random_network(network, CARD), draw(DSA, 4, generator(1))
    losses, gradient = pulled(model, both(model), real, synthetic, drawn, chunk)
    expected, expected_gradient = pulled(model, both(model), real, synthetic, drawn)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-bn", "vit-p4-d2-w16-h2"])
def test_it_is_the_plain_form(name: str, chunk: int) -> None:
    real, synthetic = noise(3, 4, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1).requires_grad_()
    model = random_network(name, CARD)
    plain = mean_matching_loss(model, both(model), real, synthetic)
    losses, gradient = pulled(model, both(model), real, synthetic, chunk=chunk)
    torch.testing.assert_close(losses["matching"], plain.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, synthetic)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "chunk", "largest"),
    [("convnet-d2-w8", 4, 4), ("convnet-d2-w8", 3, 3), ("convnet-d2-w8-bn", 4, 8), ("convnet-d2-w8", 100, 28)],
)
def test_batches_are_as_small_as_asked(name: str, chunk: int, largest: int) -> None:
    model = random_network(name, CARD)
    seen: list[int] = []
    model.get_submodule("blocks.0.0").register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    pulled(model, dm.terms(model), noise(4, 7, 3, 8, 8), noise(4, 2, 3, 8, 8), chunk=chunk)
    # Synthetic images with BatchNorm go together: their gradient is wanted.
    assert max(seen) == largest
    again = 2 if model.uses_batch_statistics else 1  # the first maps of BatchNorm are made twice
    assert sum(seen) == again * 4 * 7 + 4 * 2


def test_batch_norm_in_a_network_that_is_no_chain_sees_all_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_network("convnet-d2-w8-bn", CARD)
    monkeypatch.setattr(type(model), "stages", ())
    seen: list[int] = []
    model.get_submodule("blocks.0.0").register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    pulled(model, dm.terms(model), noise(4, 7, 3, 8, 8), noise(4, 2, 3, 8, 8), chunk=4)
    assert seen == [28, 8]


def test_a_network_mixes_images_while_it_has_batch_norm_and_trains() -> None:
    assert not random_network("convnet-d1-w8", CARD).uses_batch_statistics
    assert random_network("convnet-d1-w8-bn", CARD).uses_batch_statistics
    assert not random_network("convnet-d1-w8-bn", CARD).eval().uses_batch_statistics


def test_the_means_are_those_of_each_class() -> None:
    real = noise(3, 5, 3, 8, 8)
    model = random_network("convnet-d2-w8", CARD)
    batch = GivenBatch(real_set(CARD), torch.zeros(3, 5, dtype=torch.int64), None, given=real)
    (means,) = ClassMeans(model, dm.terms(model), Policy(torch.device("cpu"), real_chunk=2)).of_real(batch)
    for c in range(3):
        torch.testing.assert_close(means[c], model.embed(real[c]).mean(0))


def test_weights_add_up_by_name() -> None:
    real, synthetic = noise(2, 4, 3, 8, 8), noise(2, 1, 3, 8, 8, seed=1)
    model = random_network("convnet-d2-w8", CARD)
    one = pulled(model, dm.terms(model), real, synthetic)[0]["matching"]
    terms = [Term("twice", 2, lambda maps: maps.flatten(1), w) for w in (0.5, 1.5)] + [
        Term("thrice", 2, lambda maps: maps.flatten(1), 3.0)
    ]
    losses, gradient = pulled(model, terms, real, synthetic)
    torch.testing.assert_close(losses, {"matching": 5 * one, "twice": 2 * one, "thrice": 3 * one})
    torch.testing.assert_close(gradient, 5 * pulled(model, dm.terms(model), real, synthetic)[1])


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_term_may_have_a_distance_of_its_own(chunk: int) -> None:
    real, synthetic = noise(2, 4, 3, 8, 8), noise(2, 1, 3, 8, 8, seed=1).requires_grad_()
    model = random_network("convnet-d2-w8", CARD)
    term = Term("matching", 2, lambda maps: maps.flatten(1), 3.0, lambda real, ours: (real - ours).abs().sum())
    losses, gradient = pulled(model, [term], real, synthetic, chunk=chunk or ALL)
    literal = sum((model.embed(real[c]).mean(0) - model.embed(synthetic[c]).mean(0)).abs().sum() for c in range(2))
    assert isinstance(literal, Tensor)
    torch.testing.assert_close(losses["matching"], 3 * literal.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(3 * literal, synthetic)[0])


def test_the_gradient_replaces_what_was_there_and_weights_have_none() -> None:
    model = random_network("convnet-d2-w8", CARD)
    real, synthetic = noise(2, 4, 3, 8, 8), noise(2, 1, 3, 8, 8, seed=1)
    batch = GivenBatch(real_set(CARD), torch.zeros(2, 4, dtype=torch.int64), None, given=real)
    images = synthetic.flatten(0, 1).requires_grad_()
    means, gradient = ClassMeans(model, dm.terms(model), Policy(torch.device("cpu"))), torch.zeros_like(images)
    means.pull(batch, images, gradient)
    first = gradient.clone()
    means.pull(batch, images, gradient)
    assert torch.equal(gradient, first)
    assert first.abs().sum() > 0
    assert images.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_real_batch_is_fetched_class_by_class_as_it_would_be_whole() -> None:
    real = real_set(CARD)
    batch = RealBatch(real, real.draw(4, generator()), draw(DSA, 3, generator(1)))
    whole = batch.images(slice(0, 3))
    assert whole.shape == (3, 4, 3, 8, 8)
    for c in range(3):
        torch.testing.assert_close(batch.images(slice(c, c + 1)), whole[c : c + 1])


# A GPU whose memory is too small.


def crowded(monkeypatch: pytest.MonkeyPatch, network: str, most: int, *, synthetic: int = 10**9) -> list[int]:
    """From now on, the first block takes at most so many images: real ones (no gradient), and synthetic ones.

    Returns:
        How many it was given each time.
    """
    seen: list[int] = []
    forward = nn.Conv2d.forward

    def limited(layer: nn.Conv2d, images: Tensor) -> Tensor:
        if layer.in_channels == 3:
            seen.append(len(images))
            if len(images) > (synthetic if images.requires_grad else most):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has …\nmore")
        return forward(layer, images)

    monkeypatch.setattr(nn.Conv2d, "forward", limited)
    return seen


def distilled(network: str, **policy: Any) -> tuple[list[CopiedStep], list[Adapted]]:
    problem = tiny_problem(card=data_card((9, 9, 9), channels=3), network=network)
    notices: list[Any] = []
    problem.policy = Policy(torch.device("cpu"), **policy)
    steps = watch(dm, problem, dm.Options(iterations=3, batch_real=8), notices=notices)
    return steps, adaptations(notices)


@pytest.mark.parametrize("network", ["convnet-d2-w8", "convnet-d2-w8-bn"])
def test_out_of_memory_halves_the_micro_batch_and_changes_nothing(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, nothing = distilled(network)
    assert nothing == []
    crowded(monkeypatch, network, 7)
    steps, adapted = distilled(network)
    assert [(event.iteration, event.what, event.value) for event in adapted] == [
        (1, "real_chunk", 12),
        (1, "real_chunk", 6),
    ]
    assert all(event.reason.startswith("CUDA out of memory. Tried to allocate 2.50 GiB.") for event in adapted)
    for step, other in zip(steps, expected, strict=True):
        torch.testing.assert_close(step.images, other.images, rtol=1e-4, atol=1e-5)


def test_out_of_memory_with_the_gradient_halves_the_synthetic_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = distilled("convnet-d2-w8")
    crowded(monkeypatch, "convnet-d2-w8", 100, synthetic=2)
    steps, adapted = distilled("convnet-d2-w8")
    assert [(event.what, event.value) for event in adapted] == [("synthetic_chunk", 3)]
    for step, other in zip(steps, expected, strict=True):
        torch.testing.assert_close(step.images, other.images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "limits", "said"),
    [
        ("convnet-d2-w8", {"most": 0}, "1 real images do not fit"),
        ("convnet-d2-w8", {"most": 100, "synthetic": 1}, "2 synthetic images do not fit .* the fewest"),
        (
            "convnet-d2-w8-bn",
            {"most": 100, "synthetic": 5},
            "6 synthetic .* BatchNorm needs them all",
        ),
    ],
)
def test_where_less_at_once_would_be_another_loss_the_run_stops_and_says_what_it_needs(
    network: str, limits: dict[str, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded(monkeypatch, network, **limits)
    with pytest.raises(NotEnoughMemory, match=said + r".*needs at least [\d.]+ GB"):
        distilled(network)


def test_memory_does_not_grow_with_classes_and_batch() -> None:
    """The largest tensor that any operation makes, of 4 and of 40 images per class."""
    for network in ("convnet-d2-w8", "convnet-d2-w8-bn"):
        model = random_network(network, CARD)
        largest = []
        for count in (40, 400):
            batch = GivenBatch(
                real_set(CARD), torch.zeros(4, count, dtype=torch.int64), None, given=noise(4, count, 3, 8, 8)
            )
            means = ClassMeans(model, dm.terms(model), Policy(torch.device("cpu"), real_chunk=16))
            with Largest() as made:
                means.of_real(batch)
            largest.append(made.elements)
        images, maps_of_all = 4 * 400 * 3 * 64, 4 * 400 * 8 * 64
        # With BatchNorm the images of all classes, and in parts what follows the first pooling, are kept.
        assert largest[1] == (images if model.uses_batch_statistics else images // 4) < maps_of_all


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


# Each mode, against the literal loss in float64. How near, relative: the loss, and the gradient (as a whole).

NEAR = {"fp32": (1e-5, 1e-4), "bf16": (1e-2, 5e-2)}
LITERAL = {
    "dm": lambda model, real, synthetic: test_dm.literal_loss(
        model, real, synthetic, None, together=model.uses_batch_statistics
    ),
    "datadam": lambda model, real, synthetic: test_datadam.literal_loss(model, real, synthetic, None, 1.0, 0.01),
}


def compare(network: str, method: ModuleType, precision: Precision, **policy: Any) -> None:
    card = data_card((40,) * 4, channels=3, size=(16, 16))
    model = networks.build(network, card)
    model.reset(generator(5))
    model.requires_grad_(False).train()
    real, synthetic = noise(4, 32, 3, 16, 16), noise(4, 2, 3, 16, 16, seed=1) / 2
    terms = datadam.terms(model, datadam.Options()) if method is datadam else dm.terms(model)
    given = model, terms, real.float(), synthetic.float()
    losses, gradient = pulled(*given, chunk=16, precision=precision, **policy)
    exact = synthetic.requires_grad_()
    expected = LITERAL[method.__name__.rpartition(".")[2]](model.double(), real, exact)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    of_loss, of_gradient = NEAR[precision]
    assert abs(losses["matching"] / expected - 1) < of_loss
    distance = (gradient.double() - expected_gradient).norm() / expected_gradient.norm()
    assert distance < of_gradient
    if precision == "bf16":
        assert distance > 1e-4, "nothing was rounded"


@pytest.mark.parametrize("network", ["convnet-d3-w16", "convnet-d3-w16-bn"])
@pytest.mark.parametrize("method", [dm, datadam])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_precision_is_as_near_to_float64_as_it_says(
    network: str, method: ModuleType, precision: Precision
) -> None:
    compare(network, method, precision, workers=1 if network.endswith("-bn") else 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own code
@pytest.mark.parametrize("network", ["convnet-d3-w16", "convnet-d3-w16-bn"])
@pytest.mark.parametrize("method", [dm, datadam])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_they_are_as_near(network: str, method: ModuleType, precision: Precision) -> None:
    compare(network, method, precision, compiled=True)


def test_a_compiler_that_fails_is_done_without_before_the_first_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, **how: Any) -> Any:
        def fail(*given: Any) -> Any:
            raise RuntimeError("g++: internal compiler error\nand more")

        return fail

    expected, _ = distilled("convnet-d2-w8")
    monkeypatch.setattr(torch, "compile", broken)
    steps, adapted = distilled("convnet-d2-w8", compiled=True)
    assert [(event.iteration, event.what, event.value) for event in adapted] == [(1, "compiled", 0)]
    assert adapted[0].reason == "compiling failed: RuntimeError: g++: internal compiler error"
    for step, other in zip(steps, expected, strict=True):
        assert torch.equal(step.images, other.images)


# As a graph of a GPU, which remembers operations and no Python.


@pytest.mark.parametrize("network", ["convnet-d2-w8", "convnet-d2-w8-bn"])
@pytest.mark.parametrize("augmentation", ["dsa", "none"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("chunk", [10**9, 5])
def test_an_iteration_can_be_replayed(
    network: str, augmentation: Literal["dsa", "none"], precision: Precision, chunk: int
) -> None:
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    made = []
    for record in (recorder, None):
        problem = tiny_problem(card=data_card((9, 9, 9), channels=3), network=network)
        problem.policy = Policy(torch.device("cpu"), precision=precision, real_chunk=chunk)
        images = LearnedImages(problem, "real", 1.0, 0.5, None)
        matching = Matching(problem, images, dm.terms, 8, augmentation, record)
        losses = [{name: float(loss) for name, loss in end_of(matching.step()).items()} for _ in range(7)]
        assert images.iteration == 7
        made.append((losses, images.tensor.detach()))
    ((losses, tensor), (expected_losses, expected)) = made
    assert (tapes[-1].warmed_up, tapes[-1].recorded, tapes[-1].replayed) == (3, 1, 4)
    # (The augmentation of a graph is that of a table, which is another order of operations.)
    torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-3 if precision == "bf16" else 1e-4)
    assert len({loss["matching"] for loss in losses}) == 7
    for loss, other in zip(losses, expected_losses, strict=True):
        assert loss == pytest.approx(other, rel=5e-2 if precision == "bf16" else 1e-3)


def test_a_graph_of_fewer_images_at_once_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    crowded(monkeypatch, "convnet-d2-w8", 7)
    tapes: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        tapes.append(Tape(device))
        return tapes[-1]

    problem = tiny_problem(card=data_card((9, 9, 9), channels=3), network="convnet-d2-w8")
    matching = Matching(problem, LearnedImages(problem, "real", 1.0, 0.5, None), dm.terms, 8, "dsa", recorder)
    for _ in range(5):
        end_of(matching.step())
    assert problem.policy.real_chunk == 6
    assert [tape.recorded for tape in tapes] == [0, 0, 1]


# Side by side.


def test_the_bits_do_not_depend_on_how_many_micro_batches_are_worked_on_at_once() -> None:
    one, two, three = (distilled("convnet-d2-w8", workers=workers, real_chunk=3)[0] for workers in (1, 2, 3))
    for first, step, other in zip(one, two, three, strict=True):
        assert torch.equal(step.images, other.images)
        torch.testing.assert_close(first.images, step.images, rtol=1e-4, atol=1e-5)
