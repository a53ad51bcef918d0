import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from dambench.core.config import read
from dambench.core.errors import BadInput
from dambench.core.protocol import DSA
from dambench.matching.distribution import ClassMeans
from dambench.matching.real_batch import RealBatch
from dambench.methods import dm
from dambench.testing import data_card, real_set, tiny_problem
from dambench.testing.methods import watch
from dambench.training.augmentation import Draw, draw
from dambench.training.problem import Network, Step
from tests.lab import generator, literally_augmented, messages, noise, pulled, random_network

CARD = data_card(channels=3)


def options(**changes: Any) -> dm.Options:
    return read(dm.Options, {"iterations": 3, "batch_real": 4, **changes}, "method dm")


def literal_loss(network: Network, real: Tensor, synthetic: Tensor, drawn: Draw | None, *, together: bool) -> Tensor:
    """Spec 5, word by word: a loop over classes, or for batch statistics one forward pass of all of them."""
    if drawn is not None:
        real, synthetic = literally_augmented(real, drawn), literally_augmented(synthetic, drawn)
    if together:
        of_real = list(network.embed(torch.cat(list(real))).split(real.shape[1]))
        of_synthetic = list(network.embed(torch.cat(list(synthetic))).split(synthetic.shape[1]))
    else:
        of_real = [network.embed(images) for images in real]
        of_synthetic = [network.embed(images) for images in synthetic]
    total = torch.zeros((), dtype=synthetic.dtype)
    for c in range(len(real)):
        real_mean = torch.stack([image.detach() for image in of_real[c]]).sum(0) / real.shape[1]
        synthetic_mean = torch.stack(list(of_synthetic[c])).sum(0) / synthetic.shape[1]
        for one, other in zip(real_mean, synthetic_mean, strict=True):
            total = total + (one - other) ** 2
    return total


def with_gradient(loss: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def of_dm(network: Network, real: Tensor, synthetic: Tensor, drawn: Draw | None = None) -> tuple[Tensor, Tensor]:
    """DM's loss and its gradient."""
    losses, gradient = pulled(network, dm.terms(network), real, synthetic, drawn)
    return losses["matching"], gradient


@pytest.mark.parametrize(("network", "together"), [("convnet-d2-w8", False), ("convnet-d2-w8-bn", True)])
@pytest.mark.parametrize("augmented", [False, True])
def test_loss_and_gradient_are_those_of_the_released_code(network: str, together: bool, augmented: bool) -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1).requires_grad_()
    model = random_network(network, CARD)
    for seed in range(3 if augmented else 1):
        drawn = draw(DSA, 3, generator(seed)) if augmented else None
        ours = of_dm(model, real, synthetic, drawn)
        expected = with_gradient(literal_loss(model, real, synthetic, drawn, together=together), synthetic)
        # Augmentation's parameters are float32 numbers.
        torch.testing.assert_close(ours, expected, rtol=1e-4 if augmented else 1e-10, atol=1e-5 if augmented else 1e-12)


def test_batch_norm_sees_the_batch_of_all_classes() -> None:
    # Otherwise the two forms that the test above tells apart would be one.
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)
    model = random_network("convnet-d2-w8-bn", CARD)
    apart = literal_loss(model, real, synthetic, None, together=False)
    assert (of_dm(model, real, synthetic)[0] / apart - 1).abs() > 0.01


@pytest.mark.parametrize("network", ["convnet-d2-w8", "convnet-d2-w8-bn"])
def test_the_loss_is_zero_where_the_synthetic_images_are_the_real_ones(network: str) -> None:
    real = noise(3, 5, 3, 8, 8)
    model = random_network(network, CARD)
    for seed in range(5):
        drawn = draw(DSA, 3, generator(seed))
        assert of_dm(model, real, real.clone(), drawn)[0].item() == pytest.approx(0, abs=1e-20)
        assert of_dm(model, real, noise(3, 5, 3, 8, 8, seed=1), drawn)[0].item() > 0.01


def test_the_order_of_the_images_of_a_class_does_not_matter() -> None:
    real, synthetic = noise(3, 5, 3, 8, 8), noise(3, 4, 3, 8, 8, seed=1)
    model, drawn = random_network("convnet-d2-w8-bn", CARD), draw(DSA, 3, generator())
    loss = of_dm(model, real, synthetic, drawn)[0]
    torch.testing.assert_close(of_dm(model, real, synthetic[:, [2, 0, 3, 1]], drawn)[0], loss)
    torch.testing.assert_close(of_dm(model, real[:, [4, 3, 2, 1, 0]], synthetic, drawn)[0], loss)
    # The order of the classes does.
    assert (of_dm(model, real, synthetic[[1, 2, 0]], drawn)[0] / loss - 1).abs() > 0.01


# The loop.


@dataclass
class Recorder:
    """Stands in for `ClassMeans.pull`, and notes what it was asked."""

    networks: list[Network] = field(default_factory=list)
    reals: list[Tensor] = field(default_factory=list)
    synthetics: list[Tensor] = field(default_factory=list)
    drawns: list[Draw | None] = field(default_factory=list)

    def note(self, means: ClassMeans, batch: RealBatch, synthetic: Tensor) -> None:
        self.networks.append(copy.deepcopy(means.network))
        classes = slice(0, len(batch.indices))
        self.reals.append(RealBatch(batch.real, batch.indices).images(classes))
        self.synthetics.append(synthetic.detach().clone().unflatten(0, (len(batch.indices), -1)))
        self.drawns.append(batch.drawn)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder, pull = Recorder(), ClassMeans.pull

    def noted(means: ClassMeans, batch: RealBatch, synthetic: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        recorder.note(means, batch, synthetic)
        return pull(means, batch, synthetic, gradient)

    monkeypatch.setattr(ClassMeans, "pull", noted)
    return recorder


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_images_follow_gradient_descent_with_momentum(recorder: Recorder, momentum: float) -> None:
    problem = tiny_problem(card=CARD)
    start = problem.real.preprocessing.apply(problem.random_subset()).double()
    steps = dm.distill(problem, options(lr_images=0.3, momentum_images=momentum))
    yielded = [
        (step.synthetic.images.double(), step.losses["matching"].item()) for step in steps if isinstance(step, Step)
    ]
    images, velocity = start, torch.zeros_like(start)
    assert len(yielded) == 3
    for index, (seen, loss) in enumerate(yielded):
        model = recorder.networks[index].double()
        free = images.clone().requires_grad_()
        expected, gradient = with_gradient(
            literal_loss(
                model, recorder.reals[index].double(), free.unflatten(0, (3, 2)), recorder.drawns[index], together=False
            ),
            free,
        )
        velocity = momentum * velocity + gradient
        images = images - 0.3 * velocity
        assert loss == pytest.approx(expected.item(), rel=1e-3)
        torch.testing.assert_close(seen, images, rtol=1e-4, atol=1e-4)
    assert (images - start).abs().max() > 0.01


def test_each_iteration_has_a_network_real_images_and_an_augmentation_of_its_own(recorder: Recorder) -> None:
    problem = tiny_problem(card=CARD)
    watch(dm, problem, options(iterations=4))
    weights = torch.stack([network.classifier.weight for network in recorder.networks])
    assert len(weights.flatten(1).unique(dim=0)) == 4
    assert len(torch.stack(recorder.reals).flatten(1).unique(dim=0)) == 4
    draws = torch.stack([drawn.uniforms for drawn in recorder.drawns if drawn])
    assert len(draws.flatten(1).unique(dim=0)) == 4
    for network, real, drawn in zip(recorder.networks, recorder.reals, recorder.drawns, strict=True):
        assert network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert real.shape == (3, 4, 3, 8, 8)
        assert drawn is not None
        assert drawn.choice.shape == (3,)
    assert recorder.synthetics[0].shape == (3, 2, 3, 8, 8)


def test_each_class_has_an_operation_of_its_own(recorder: Recorder) -> None:
    watch(dm, tiny_problem(), options(iterations=20))
    choices = torch.stack([drawn.choice for drawn in recorder.drawns if drawn])
    assert choices.shape == (20, 3)
    # Of six operations, three classes get the same one once in 36 times.
    assert int((choices == choices[:, :1]).all(1).sum()) < 4


def test_the_real_batch_of_a_class_holds_images_of_that_class_each_once(recorder: Recorder) -> None:
    problem = tiny_problem(card=CARD)
    watch(dm, problem, options(iterations=10))
    images = problem.real.preprocessing.apply(problem.real.images)
    for batch in recorder.reals:
        for c, drawn in enumerate(batch):
            matches = (drawn.unsqueeze(1) == images).flatten(2).all(2)
            assert matches.sum(1).tolist() == [1] * 4
            found = matches.float().argmax(1)
            assert problem.real.labels[found].tolist() == [c] * 4
            assert len(found.unique()) == 4


@pytest.mark.parametrize(("mirrors", "strategy"), [(True, DSA), (False, tuple(o for o in DSA if o != "flip"))])
def test_images_are_mirrored_only_where_their_class_allows_it(
    recorder: Recorder, mirrors: bool, strategy: tuple[str, ...]
) -> None:
    watch(dm, tiny_problem(card=data_card(mirrors=mirrors)), options())
    assert [drawn.strategy for drawn in recorder.drawns if drawn] == [strategy] * 3


def test_without_augmentation_nothing_is_drawn(recorder: Recorder) -> None:
    watch(dm, tiny_problem(), options(augmentation="none"))
    assert recorder.drawns == [None] * 3


def test_it_starts_from_the_random_subset(recorder: Recorder) -> None:
    problem = tiny_problem(card=CARD)
    watch(dm, problem, options(iterations=1))
    start = problem.real.preprocessing.apply(problem.random_subset())
    assert torch.equal(recorder.synthetics[0].flatten(0, 1), start)


def test_it_can_start_from_noise(recorder: Recorder) -> None:
    problem = tiny_problem(card=data_card((60, 60, 60), channels=3), ipc=50)
    watch(dm, problem, options(iterations=1, init="noise"))
    start = recorder.synthetics[0]
    assert start.shape == (3, 50, 3, 8, 8)
    assert start.mean().abs() < 0.03
    assert (start.std() - 1).abs() < 0.03
    assert len(start.flatten(0, 1).flatten(1).unique(dim=0)) == 150


def test_the_loss_falls() -> None:
    problem = tiny_problem(card=data_card((20, 20, 20)))
    losses = [
        step.losses["matching"]
        for step in watch(dm, problem, options(iterations=40, batch_real=20, init="noise", lr_images=1.0))
    ]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_it_makes_as_many_iterations_as_it_is_asked() -> None:
    assert [step.iteration for step in watch(dm, tiny_problem(), options(iterations=5))] == [1, 2, 3, 4, 5]


def test_a_step_tells_the_matching_loss_as_a_tensor_that_nobody_waited_for() -> None:
    for step in dm.distill(tiny_problem(), options()):
        assert isinstance(step, Step)
        assert list(step.losses) == ["matching", "skipped"]
        assert step.losses["matching"].shape == ()
        assert not step.losses["matching"].requires_grad
        assert not step.synthetic.images.requires_grad


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("done", [1, 3])
@pytest.mark.parametrize("network", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(network: str, done: int, momentum: float) -> None:
    chosen = options(iterations=5, momentum_images=momentum)
    whole = watch(dm, tiny_problem(network=network), chosen)
    rest = watch(dm, tiny_problem(network=network), chosen, whole[done - 1].state)
    assert [step.iteration for step in rest] == list(range(done + 1, 6))
    for expected, step in zip(whole[done:], rest, strict=True):
        assert torch.equal(step.images, expected.images)
        assert step.losses == expected.losses


def test_a_state_does_not_change_when_the_method_goes_on() -> None:
    states, copies = [], []
    for step in dm.distill(tiny_problem(), options()):
        assert isinstance(step, Step)
        states.append(step.state())
        copies.append(copy.deepcopy(states[-1]))
    for state, before in zip(states, copies, strict=True):
        assert state["iteration"] == before["iteration"]
        assert torch.equal(state["images"], before["images"])
        assert torch.equal(state["velocity"], before["velocity"])


def test_real_images_stay_as_they_are() -> None:
    problem = tiny_problem()
    watch(dm, problem, options(lr_images=100.0))
    assert torch.equal(problem.real.images, real_set(problem.card).images)


@pytest.mark.parametrize(("batch", "said"), [(5, []), (6, [5, 6])])
def test_a_class_smaller_than_the_real_batch_is_worth_a_warning(batch: int, said: list[int]) -> None:
    problem = tiny_problem(card=data_card((5, 6, 7)))
    notices: list[Any] = []
    watch(dm, problem, options(batch_real=batch), notices=notices)
    warnings = messages(notices)
    assert len(warnings) == (1 if said else 0)
    assert all(str(number) in warning for warning in warnings for number in said)


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"lr_images": 0.0},
        {"momentum_images": 1.0},
        {"batch_real": 0},
        {"init": "smart"},
        {"augmentation": "flip"},
        {"lr_image": 1.0},
    ],
)
def test_senseless_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(bad))):
        options(**bad)


@pytest.mark.parametrize(
    ("dataset", "ipc", "lr"), [("cifar10", 1, 1.0), ("cifar10", 50, 1.0), ("cifar10", 100, 10.0), ("svhn", 100, 1.0)]
)
def test_the_default_settings_are_the_published_ones(dataset: str, ipc: int, lr: float) -> None:
    recipe = next(recipe for recipe in dm.RECIPES if recipe.fits(dataset, ipc))
    settled = read(dm.Options, recipe.options, "method dm")
    assert settled == dm.Options(
        iterations=20_000, lr_images=lr, momentum_images=0.5, batch_real=256, init="real", augmentation="dsa"
    )
