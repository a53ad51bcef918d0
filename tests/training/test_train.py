import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dambench import networks
from dambench.core.protocol import DC, DSA, Budget, Protocol
from dambench.testing import data_card
from dambench.testing.problems import global_generator_untouched, global_seed
from dambench.training import train as training
from dambench.training.cuda_graph import Replayed
from dambench.training.problem import Network, Seeds, SyntheticSet
from dambench.training.train import Gsam, Training, predict, train, train_together
from tests.lab import Tape, generator, noise, synthetic_set

CLASSES = 3
CARD = data_card((1,) * CLASSES, channels=2, size=(6, 6))


def protocol(epochs: int = 3, *drops: int, **changes: Any) -> Protocol:
    return Protocol(
        name="made-up",
        synthetic=Budget(epochs=epochs, drops=drops),
        whole=Budget(epochs=epochs + 4, drops=(1,)),
        **{"lr": 0.1, **changes},
    )


def small_network(name: str = "convnet-d1-w8", dtype: torch.dtype = torch.float32) -> Network:
    return networks.build(name, CARD).to(dtype)


def labelled(count: int = 12, *, soft: bool = False, dtype: torch.dtype = torch.float32, **said: Any) -> SyntheticSet:
    images = noise(count, 2, 6, 6, dtype=dtype)
    labels = noise(count, CLASSES, seed=1, dtype=dtype) * 3 if soft else torch.arange(count) % CLASSES
    return synthetic_set(images, labels, CLASSES, **said)


def trained(
    data: SyntheticSet, how: Protocol, *, seed: int = 0, name: str = "convnet-d1-w8", gsam: Gsam | None = None
) -> Network:
    """A network of the set's precision, trained."""
    dtype = torch.float32 if data.images.dtype == torch.uint8 else data.images.dtype
    network = small_network(name, dtype)
    list(train_together([network], data, how, [Seeds(seed)], mirrors=True, gsam=gsam))
    return network


def weights(network: Network) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


class Watcher(Network):
    """Sees nothing in its images, and notes each batch that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(1, CLASSES)
        self.batches: list[Tensor] = []
        self.modes: list[bool] = []

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        yield self.see(images)

    def see(self, images: Tensor) -> Tensor:
        self.batches.append(images.detach().clone())
        self.modes.append(self.training)
        return images.new_ones(len(images), 1)


def numbered(count: int, size: int = 6) -> SyntheticSet:
    """Image n is n everywhere."""
    images = torch.arange(1.0, count + 1).view(-1, 1, 1, 1).expand(count, 2, size, size).contiguous()
    return synthetic_set(images, torch.arange(count) % CLASSES, CLASSES)


def watched(data: SyntheticSet, how: Protocol, *, mirrors: bool = True, seed: int = 0) -> Watcher:
    network = Watcher()
    list(train(network, data, how, Seeds(seed), mirrors=mirrors))
    return network


# Against a loop written by hand. All images in one batch, so that their order does not matter.


def by_hand(
    network: Network,
    images: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    drops: Iterable[int],
    lr: float,
    momentum: float,
    weight_decay: float,
    decay: float,
    keeps_momentum: bool,
) -> Tensor:
    """Spec 1.8, from the network's present weights on; targets are probabilities."""
    velocities = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for epoch in range(epochs):
        if epoch in drops:
            lr *= decay
            if not keeps_momentum:
                velocities = [torch.zeros_like(parameter) for parameter in network.parameters()]
        log_probabilities = network(images).log_softmax(1)
        loss = -(targets * log_probabilities).sum() / len(images)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient, velocity in zip(network.parameters(), gradients, velocities, strict=True):
                velocity.mul_(momentum).add_(gradient + weight_decay * parameter)
                parameter.sub_(lr * velocity)
    return weights(network)


@pytest.mark.parametrize("keeps_momentum", [False, True])
@pytest.mark.parametrize("drops", [(), (3,), (2, 4)])
@pytest.mark.parametrize("soft", [False, True])
def test_training_is_descent_with_momentum_that_a_drop_of_the_rate_makes_forget(
    soft: bool, drops: tuple[int, ...], keeps_momentum: bool
) -> None:
    data = labelled(soft=soft, dtype=torch.float64)
    settings: dict[str, Any] = {
        "lr": 0.2,
        "momentum": 0.8,
        "weight_decay": 0.01,
        "decay": 0.3,
        "keeps_momentum": keeps_momentum,
    }
    how = protocol(6, *drops, labels="as the set carries", **settings)
    # Without a step, the network keeps the weights that were drawn for it.
    start = trained(data, protocol(1, lr=0.0))
    targets = data.labels.softmax(1) if soft else torch.eye(CLASSES, dtype=torch.float64)[data.labels]
    expected = by_hand(start, data.images, targets, epochs=6, drops=drops, **settings)
    torch.testing.assert_close(weights(trained(data, how)), expected, rtol=1e-9, atol=1e-12)


def test_training_goes_on_from_the_weights_that_a_network_has() -> None:
    data = labelled(dtype=torch.float64)
    settings: dict[str, Any] = {"lr": 0.2, "momentum": 0.0, "weight_decay": 0.0, "decay": 0.1, "keeps_momentum": False}
    network = trained(data, protocol(3, **settings))
    targets = torch.eye(CLASSES, dtype=torch.float64)[data.labels]
    expected = by_hand(copy.deepcopy(network), data.images, targets, epochs=5, drops=(), **settings)
    list(train(network, data, protocol(5, **settings), Seeds(0), mirrors=True, reinitialise=False))
    torch.testing.assert_close(weights(network), expected, rtol=1e-9, atol=1e-12)


def test_the_momentum_that_is_lost_makes_a_difference() -> None:
    data = labelled(dtype=torch.float64)
    lost, kept = (trained(data, protocol(4, 2, keeps_momentum=keeps)) for keeps in (False, True))
    assert (weights(lost) - weights(kept)).abs().max() > 1e-3


def test_the_default_settings_are_those_of_the_field() -> None:
    how = Protocol(name="made-up", synthetic=Budget(epochs=1), whole=Budget(epochs=1))
    settings = (how.batch, how.lr, how.momentum, how.weight_decay, how.decay, how.keeps_momentum, how.labels)
    assert settings == (256, 0.01, 0.9, 5e-4, 0.1, False, "hard")


def test_small_batches_are_steps_of_their_own() -> None:
    data = labelled(8, dtype=torch.float64)
    network = trained(data, protocol(1, lr=0.0))
    network.train()
    order = watched(numbered(8), protocol(1, batch=3)).batches
    velocities = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for batch in order:
        chosen = batch[:, 0, 0, 0].long() - 1
        loss = -network(data.images[chosen]).log_softmax(1)[range(len(chosen)), data.labels[chosen]].mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient, velocity in zip(network.parameters(), gradients, velocities, strict=True):
                velocity.mul_(0.9).add_(gradient + 5e-4 * parameter)
                parameter.sub_(0.1 * velocity)
    torch.testing.assert_close(weights(trained(data, protocol(1, batch=3))), weights(network), rtol=1e-9, atol=1e-12)


# Epochs and batches.


def test_each_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    network = watched(numbered(10), protocol(4, batch=4))
    assert [len(batch) for batch in network.batches] == [4, 4, 2] * 4
    shown = torch.cat(network.batches)[:, 0, 0, 0].view(4, 10)
    for epoch in shown:
        assert epoch.sort().values.tolist() == list(range(1, 11))
    assert len(shown.unique(dim=0)) == 4
    assert network.modes == [True] * 12


def test_every_epoch_is_reported() -> None:
    network, data = small_network(), labelled()
    assert list(train(network, data, protocol(3), Seeds(0), mirrors=True)) == [(1, 3), (2, 3), (3, 3)]


def test_a_whole_set_is_trained_on_for_the_whole_budget() -> None:
    how = protocol(3)
    data = labelled(whole=True)
    network = small_network()
    assert [done for done, _ in train(network, data, how, Seeds(0), mirrors=True)] == [1, 2, 3, 4, 5, 6, 7]
    # With the whole budget's drop, too.
    same = Protocol(name="made-up", synthetic=how.whole, whole=how.synthetic, lr=0.1)
    assert torch.equal(weights(network), weights(trained(labelled(), same)))
    assert not torch.equal(weights(network), weights(trained(labelled(), protocol(7))))


def test_what_the_network_was_before_does_not_matter() -> None:
    name = "convnet-d1-w8-bn"
    network = trained(labelled(soft=True), protocol(4), seed=5, name=name)
    list(train(network.eval(), labelled(), protocol(2), Seeds(0), mirrors=True))
    fresh = trained(labelled(), protocol(2), name=name)
    for key, tensor in fresh.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor), key


# Labels.


def test_hard_labels_are_the_classes_of_the_largest_logits() -> None:
    soft = labelled(soft=True)
    hard = synthetic_set(soft.images, soft.labels.argmax(1), CLASSES)
    how = protocol(3, labels="hard", batch=5)
    assert torch.equal(weights(trained(soft, how)), weights(trained(hard, how)))
    softly = protocol(3, labels="as the set carries", batch=5)
    assert not torch.equal(weights(trained(soft, softly)), weights(trained(hard, softly)))
    assert torch.equal(weights(trained(hard, softly)), weights(trained(hard, how)))


def test_soft_labels_are_logits() -> None:
    # The same number added to all logits of an image changes no probability.
    soft = labelled(soft=True, dtype=torch.float64)
    moved = synthetic_set(soft.images, soft.labels + noise(12, 1, seed=9), CLASSES)
    how = protocol(3, labels="as the set carries")
    torch.testing.assert_close(weights(trained(soft, how)), weights(trained(moved, how)))


# The learning rate.


def test_the_learning_rate_may_be_the_one_that_was_distilled_with_the_set() -> None:
    carried = protocol(3, 2, lr="as the set carries")
    for said, lr in ((0.3, 0.3), (None, 0.01)):
        followed = trained(labelled(lr=said), carried)
        assert torch.equal(weights(followed), weights(trained(labelled(), protocol(3, 2, lr=lr))))


@pytest.mark.parametrize("lr", [0.1, 1])
def test_the_protocol_s_learning_rate_counts_where_it_says_one(lr: float) -> None:
    data, carrying = labelled(), labelled(lr=0.3)
    how = protocol(2, lr=lr)
    assert torch.equal(weights(trained(data, how)), weights(trained(carrying, how)))
    assert (weights(trained(data, how)) - weights(trained(data, protocol(2, lr=0.0)))).abs().max() > lr / 10


# Augmentation.


def test_without_augmentation_images_are_shown_as_they_are() -> None:
    data = labelled()
    network = watched(data, protocol(1))
    (batch,) = network.batches
    assert {tuple(image.flatten().tolist()) for image in batch} == {
        tuple(image.flatten().tolist()) for image in data.images
    }


def test_each_batch_has_one_operation_with_parameters_of_its_own_for_each_image() -> None:
    data = synthetic_set(torch.ones(40, 1, 16, 16), torch.arange(40) % CLASSES, CLASSES)
    network = watched(data, protocol(60, augmentation=("crop", "cutout"), batch=40))
    kinds = []
    for batch in network.batches:
        assert len(batch.flatten(1).unique(dim=0)) > 10
        blank = batch[:, 0] == 0
        # A shift blanks whole rows or columns (except one in 25, by nothing), a square never does.
        shifted = int((blank.all(2).any(1) | blank.all(1).any(1)).sum())
        assert shifted == 0 or shifted >= 33
        kinds.append(shifted > 0)
    assert 15 < sum(kinds) < 45


def test_images_are_mirrored_only_where_their_class_allows_it() -> None:
    ramp = torch.arange(6.0).expand(40, 2, 6, 6).contiguous()
    data = synthetic_set(ramp, torch.arange(40) % CLASSES, CLASSES)
    how = protocol(2, augmentation=("flip",))
    mirrored = torch.cat(watched(data, how).batches)[:, 0, 0, 0] == 5
    assert 25 < int(mirrored.sum()) < 55
    assert torch.equal(torch.cat(watched(data, how, mirrors=False).batches), torch.cat([ramp, ramp]))


def test_an_operation_is_drawn_for_each_image_where_the_protocol_says_so() -> None:
    data = numbered(40, size=12)

    def blanked(**how: Any) -> set[int]:
        """How many of a batch's images lost pixels, in each of 12 batches."""
        batches = watched(data, protocol(12, augmentation=("color", "cutout"), batch=40, **how)).batches
        return {int((batch == 0).flatten(1).any(1).sum()) for batch in batches[:12]}

    assert blanked() <= {0, 40}
    assert all(5 < count < 35 for count in blanked(draws="for each image"))


def test_what_dc_s_crop_brings_in_has_the_colour_of_the_batch() -> None:
    data = numbered(4, size=8)  # 1, 2, 3 and 4 everywhere
    how = protocol(12, augmentation=("dc-crop",), draws="for each image", batch=4)
    seen = {round(value, 4) for batch in watched(data, how).batches[:12] for value in batch.unique().tolist()}
    assert seen == {1, 2, 2.5, 3, 4}


def test_each_batch_and_epoch_is_augmented_anew() -> None:
    data = synthetic_set(torch.ones(20, 2, 8, 8), torch.arange(20) % CLASSES, CLASSES)
    batches = watched(data, protocol(3, augmentation=("color",), batch=10)).batches
    assert len(batches) == 6
    assert len(torch.stack(batches).flatten(1).unique(dim=0)) == 6


def test_the_set_itself_is_not_augmented() -> None:
    data = labelled()
    before = data.images.clone()
    trained(data, protocol(6, augmentation=DSA, batch=4))
    assert torch.equal(data.images, before)


# Seeds.


@pytest.mark.parametrize("name", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_the_same_seeds_give_the_same_bits(name: str) -> None:
    how = protocol(3, 2, augmentation=DSA, batch=5)
    results = []
    for unrelated in (1, 2):
        with global_seed(unrelated):
            results.append(weights(trained(labelled(), how, seed=7, name=name)))
    assert torch.equal(*results)
    assert not torch.equal(results[0], weights(trained(labelled(), how, seed=8, name=name)))


def test_weights_order_and_augmentation_depend_on_the_seeds() -> None:
    data = labelled()
    start = [weights(trained(data, protocol(1, lr=0.0), seed=seed)) for seed in (0, 1)]
    assert not torch.equal(*start)
    order = [torch.cat(watched(numbered(10), protocol(1), seed=seed).batches)[:, 0, 0, 0] for seed in (0, 1)]
    assert not torch.equal(*order)
    same = synthetic_set(torch.ones(10, 2, 8, 8), torch.arange(10) % CLASSES, CLASSES)
    colours = [watched(same, protocol(1, augmentation=("color",)), seed=seed).batches[0] for seed in (0, 1)]
    assert not torch.equal(*colours)


def test_torch_s_global_generator_is_left_alone() -> None:
    network, data = small_network(), labelled()
    with global_generator_untouched():
        list(train(network, data, protocol(2, augmentation=DSA, batch=5), Seeds(0), mirrors=True))
        predict(network, data, 5)


# Networks that are trained together.


def trained_together(
    data: SyntheticSet,
    how: Protocol,
    seeds: Iterable[int] = (0, 1, 2),
    name: str = "convnet-d1-w8",
    mirrors: bool = True,
    gsam: Gsam | None = None,
) -> list[Network]:
    """As `trained`, one network for each seed."""
    dtype = torch.float32 if data.images.dtype == torch.uint8 else data.images.dtype
    stack = [small_network(name, dtype) for _ in seeds]
    list(train_together(stack, data, how, [Seeds(seed) for seed in seeds], mirrors=mirrors, gsam=gsam))
    return stack


def assert_as_if_alone(data: SyntheticSet, how: Protocol, name: str = "convnet-d1-w8", tolerance: float = 1e-9) -> None:
    """Each of a stack has the weights, the statistics and the logits that it would have without the others."""
    for seed, network in enumerate(trained_together(data, how, name=name)):
        alone = trained(data, how, seed=seed, name=name)
        torch.testing.assert_close(network.state_dict(), alone.state_dict(), rtol=tolerance, atol=tolerance)
        logits = [predict(each, data, 5) for each in (network, alone)]
        torch.testing.assert_close(*logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keeps_momentum", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("norm", ["", "-bn", "-nn"])
def test_a_network_learns_among_others_what_it_learns_alone(norm: str, soft: bool, keeps_momentum: bool) -> None:
    # 12 images in batches of 5: the last one is smaller.
    settings: dict[str, Any] = {"batch": 5, "decay": 0.3, "keeps_momentum": keeps_momentum, "weight_decay": 0.01}
    how = protocol(5, 2, 4, labels="as the set carries", **settings)
    assert_as_if_alone(labelled(soft=soft, dtype=torch.float64), how, "convnet-d1-w8" + norm)


@pytest.mark.parametrize("pooling", ["ap", "mp", "np"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "leakyrelu", "swish"])
@pytest.mark.parametrize("norm", ["in", "bn", "ln", "gn", "nn"])
def test_networks_of_every_kind_can_be_trained_together(norm: str, activation: str, pooling: str) -> None:
    data = labelled(dtype=torch.float64)
    assert_as_if_alone(data, protocol(2, batch=7), f"convnet-d2-w8-{norm}-{activation}-{pooling}")


@pytest.mark.parametrize("norm", ["", "-bn", "-nn"])
def test_each_network_of_a_stack_has_the_augmentations_that_it_has_alone(norm: str) -> None:
    # In single precision, and by the other form of augmentation.
    assert_as_if_alone(labelled(), protocol(6, 3, batch=5, augmentation=DSA), "convnet-d1-w8" + norm, 1e-5)
    dc = protocol(6, 3, batch=5, augmentation=DC, draws="for each image")
    assert_as_if_alone(labelled(), dc, "convnet-d1-w8" + norm, 1e-5)


@pytest.mark.parametrize("mirrors", [False, True])
def test_a_stack_mirrors_images_only_where_their_class_allows_it(mirrors: bool) -> None:
    data, how = labelled(dtype=torch.float64), protocol(4, augmentation=("flip",))
    for seed, network in enumerate(trained_together(data, how, mirrors=mirrors)):
        alone = small_network(dtype=torch.float64)
        list(train(alone, data, how, Seeds(seed), mirrors=mirrors))
        torch.testing.assert_close(weights(network), weights(alone), rtol=1e-9, atol=1e-9)


def test_a_stack_follows_a_set_of_pixels_its_rate_and_the_whole_budget() -> None:
    pixels = torch.randint(256, (12, 2, 6, 6), dtype=torch.uint8, generator=generator())
    data = synthetic_set(pixels, torch.arange(12) % CLASSES, CLASSES, lr=0.05, whole=True)
    assert_as_if_alone(data, protocol(2, batch=5, lr="as the set carries"), tolerance=1e-5)


def test_a_network_is_the_same_whichever_others_it_is_trained_with() -> None:
    data, how = labelled(dtype=torch.float64), protocol(3, augmentation=DSA, batch=5)
    few, many = trained_together(data, how, (4, 2)), trained_together(data, how, (7, 4, 3, 2))
    torch.testing.assert_close(weights(few[0]), weights(many[1]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights(few[1]), weights(many[3]), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(weights(few[0]), weights(few[1]), atol=1e-3)


def test_a_stack_reports_its_steps_and_knows_what_it_learned_after_each() -> None:
    data, stack = labelled(), [small_network("convnet-d1-w8-bn") for _ in range(2)]
    steps, seen = [], []
    for step in train_together(stack, data, protocol(2, batch=5), [Seeds(0), Seeds(1)], mirrors=True):
        steps.append(step)
        seen.append(torch.stack([weights(network) for network in stack]))
    assert steps == [(n, 6) for n in range(1, 7)]
    assert len(torch.stack(seen).flatten(0, 1).unique(dim=0)) == 12


@pytest.mark.parametrize("count", [1, 2])
def test_networks_can_be_trained_again_on_a_set_whose_images_have_changed(count: int) -> None:
    data, how = labelled(dtype=torch.float64), protocol(2, augmentation=DSA, batch=5)
    stack = [small_network("convnet-d1-w8-bn", torch.float64) for _ in range(count)]
    again = Training(stack, data, how, mirrors=True)
    for first in (0, 10):
        seeds = range(first, first + count)
        assert len(list(again.run([Seeds(seed) for seed in seeds]))) == 6
        for seed, network in zip(seeds, stack, strict=True):
            alone = trained(data, how, seed=seed, name="convnet-d1-w8-bn")
            torch.testing.assert_close(network.state_dict(), alone.state_dict(), rtol=1e-4, atol=1e-6)
        data.images.mul_(-0.5)
    alone = copy.deepcopy(stack[0])
    list(train(alone, data, how, Seeds(5), mirrors=True, reinitialise=False))
    list(again.run([Seeds(seed) for seed in range(5, 5 + count)], reinitialise=False))
    torch.testing.assert_close(stack[0].state_dict(), alone.state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("count", "gsam"), [(1, None), (3, None), (3, Gsam(rho=0.1))])
def test_all_that_changes_from_step_to_step_reaches_a_recorded_step(
    count: int, gsam: Gsam | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where one network is a stack too."""
    made: list[Tape] = []

    def record(device: torch.device) -> Tape:
        made.append(Tape(device))
        return made[-1]

    def replayed(function: Any, device: torch.device, **more: Any) -> Replayed:
        return Replayed(function, device, recorder=record, **more)

    def single(network: Network, data: SyntheticSet, labels: Tensor, how: Protocol, *more: Any) -> object:
        sharp, loss = more
        return training._Stack([network], data, labels, how, sharp, pytest.fail, loss)

    data, how = labelled(soft=True), protocol(9, 6, 8, batch=5, augmentation=DSA, labels="as the set carries")
    name, seeds = "convnet-d1-w8-bn", range(count)
    alone = [trained(data, how, seed=seed, name=name, gsam=gsam) for seed in seeds]
    monkeypatch.setattr(training, "Replayed", replayed)
    monkeypatch.setattr(training, "_Single", single)
    for network, expected in zip(trained_together(data, how, seeds, name, gsam=gsam), alone, strict=True):
        torch.testing.assert_close(weights(network), weights(expected), rtol=1e-4, atol=1e-5)
        statistics = [dict(each.named_buffers()) for each in (network, expected)]
        torch.testing.assert_close(*statistics, rtol=1e-4, atol=1e-5)
    # Whole batches and the last one of an epoch.
    assert made[0].recorded == 2
    assert made[0].replayed == 9 * 3 - made[0].warmed_up


def test_a_stack_leaves_the_set_and_torch_s_global_generator_alone() -> None:
    data = labelled()
    before = data.images.clone()
    stack = [small_network() for _ in range(2)]
    with global_generator_untouched():
        list(train_together(stack, data, protocol(2, augmentation=DSA), [Seeds(0), Seeds(1)], mirrors=True))
    assert torch.equal(data.images, before)


# Testing.


def test_a_trained_network_knows_its_images() -> None:
    data = labelled()
    network = trained(data, protocol(60, lr=0.05))
    assert predict(network, data, 100).argmax(1).tolist() == data.labels.tolist()


@pytest.mark.parametrize("batch", [1, 5, 12, 100])
@pytest.mark.parametrize("name", ["convnet-d1-w8", "convnet-d1-w8-bn"])
def test_predictions_in_chunks_are_those_of_one_pass_in_evaluation_mode(name: str, batch: int) -> None:
    data = labelled()
    network = trained(data, protocol(3), name=name)
    logits = predict(network, data, batch)
    untouched = copy.deepcopy(network).eval()
    assert logits.shape == (12, CLASSES)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, untouched(data.images).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predict(network, data, 12), logits, rtol=1e-5, atol=1e-5)
    assert not network.training
    assert not logits.requires_grad


def test_a_network_predicts_in_chunks_of_the_size_asked_for() -> None:
    network = Watcher()
    predict(network, numbered(10), 4)
    assert [batch[:, 0, 0, 0].tolist() for batch in network.batches] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert network.modes == [False] * 3


def test_pixels_are_trained_and_tested_on_as_if_they_had_been_normalised_before() -> None:
    pixels = torch.randint(256, (12, 2, 6, 6), dtype=torch.uint8, generator=generator())
    labels = torch.arange(12) % CLASSES
    stored = synthetic_set(pixels, labels, CLASSES)
    normalised = synthetic_set(stored.preprocessing.apply(pixels), labels, CLASSES)
    how = protocol(3, batch=5)
    networks_trained = [trained(data, how) for data in (stored, normalised)]
    assert torch.equal(weights(networks_trained[0]), weights(networks_trained[1]))
    assert torch.equal(predict(networks_trained[0], stored, 5), predict(networks_trained[0], normalised, 5))
    assert math.isfinite(weights(networks_trained[0]).sum().item())


@pytest.mark.parametrize("count", [1, 2])
def test_a_protocol_in_bfloat16_rounds_the_products_of_training_and_nothing_that_stays(count: int) -> None:
    data, ends = labelled(), {}
    for precision in ("fp32", "bf16"):
        together = [small_network() for _ in range(count)]
        list(
            train_together(
                together, data, protocol(precision=precision), [Seeds(n) for n in range(count)], mirrors=True
            )
        )
        assert {parameter.dtype for network in together for parameter in network.parameters()} == {torch.float32}
        assert predict(together[0], data, 5).dtype == torch.float32
        ends[precision] = weights(together[-1])
    apart = (ends["fp32"] - ends["bf16"]).norm() / ends["fp32"].norm()
    assert 1e-5 < apart < 0.03
