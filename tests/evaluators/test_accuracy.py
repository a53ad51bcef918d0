import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dambench import evaluators, networks
from dambench.core.errors import Diverged
from dambench.core.events import Adapted, DataCard, Measured, Progressed, Warned
from dambench.core.protocol import DSA, PRESETS, Budget, Protocol
from dambench.evaluators import Context, Finding, accuracy
from dambench.testing import data_card, real_set
from dambench.testing.problems import global_generator_untouched
from dambench.training import train as training
from dambench.training.cuda_graph import Replayed
from dambench.training.policy import Policy
from dambench.training.problem import Network, Normalisation, RealSet, Seeds, SyntheticSet, Teacher
from dambench.training.teachers import UNTRAINED
from dambench.training.train import predict, train, train_together
from tests.lab import Tape, noise, synthetic_set

NORMALISATION = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CARD = data_card((4, 4, 4), test_counts=(6, 3, 1), channels=3)
POLICY = Policy(torch.device("cpu"))


MEASURED = set(accuracy.METRICS) - {"validation_accuracy"}
"""What is measured where no images were held out."""


def protocol(epochs: int = 2, **changes: Any) -> Protocol:
    return Protocol(name="made-up", synthetic=Budget(epochs=epochs), whole=Budget(epochs=epochs + 1), **changes)


def judged(
    data: SyntheticSet,
    test: RealSet,
    *,
    card: DataCard = CARD,
    names: tuple[str, ...] = ("convnet-d1-w8",),
    repeats: int = 1,
    how: Protocol | None = None,
    seed: int = 0,
    stack: int = 1,
    final: bool = True,
    done: Collection[tuple[str, int]] = (),
) -> list[Finding]:
    context = Context(
        evaluator="accuracy",
        synthetic=data,
        set_sha256="f" * 64,
        iteration=40,
        final=final,
        test=test,
        card=card,
        networks=names,
        repeats=repeats,
        protocol=how or protocol(),
        seeds=Seeds(seed),
        policy=Policy(torch.device("cpu"), stack=stack),
    )
    return list(accuracy.evaluate(context, accuracy.Options(), done))


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("name", PRESETS)
def test_a_network_whose_outputs_are_no_numbers_has_no_accuracy_by_any_protocol(name: str, stack: int) -> None:
    few = Budget(epochs=2)
    how = msgspec.structs.replace(PRESETS[name], synthetic=few, whole=few)
    data, test = random_sets()
    data = replace(data, teacher=Teacher("convnet-d1-w8", UNTRAINED))
    absurd = replace(data, images=data.images * 1e30, lr=0.01)
    events = judged(absurd, test, how=how, repeats=2, stack=stack, final=False)
    assert rows(events) == []
    notes = [event.message for event in events if isinstance(event, Warned)]
    assert notes == [
        f"convnet-d1-w8 #{repeat} diverged when it was trained on the set of iteration 40: its outputs are no numbers, "
        "and it has no accuracy."
        for repeat in (0, 1)
    ]
    assert len(rows(judged(data, test, how=how, repeats=2, stack=stack))) == 2
    with pytest.raises(Diverged, match=r"^Every network diverged when it was trained on the set of iteration 40"):
        judged(absurd, test, how=how, repeats=2, stack=stack)


def test_where_of_a_network_only_some_diverged_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data, test = random_sets()
    scores, diverged = accuracy.scores, iter([False, True])
    monkeypatch.setattr(
        accuracy, "scores", lambda context, network: None if next(diverged) else scores(context, network)
    )
    with pytest.raises(Diverged, match=r"^Of convnet-d1-w8 some diverged when they were trained on the set"):
        judged(data, test, repeats=2)


def test_the_whole_set_with_too_large_a_rate_has_no_accuracy() -> None:
    real = real_set(CARD)
    whole = SyntheticSet(real.images, real.labels, real.preprocessing, tuple(CARD.classes), whole=True)
    assert rows(judged(whole, real, how=protocol(lr=1e30), final=False)) == []


def test_with_a_carried_rate_of_zero_nothing_is_learned() -> None:
    data, _ = random_sets()
    untrained, trained = (networks.build("convnet-d1-w8", CARD) for _ in range(2))
    untrained.reset(Seeds(0).generator("weights"))
    how = protocol(lr="as the set carries")
    list(train(trained, replace(data, lr=0.0), how, Seeds(0), mirrors=True))
    assert all(torch.equal(a, b) for a, b in zip(untrained.parameters(), trained.parameters(), strict=True))
    list(train(trained, replace(data, lr=None), how, Seeds(0), mirrors=True))
    assert not all(torch.equal(a, b) for a, b in zip(untrained.parameters(), trained.parameters(), strict=True))


def rows(events: list[Finding]) -> list[Measured]:
    return [event for event in events if isinstance(event, Measured)]


def random_sets() -> tuple[SyntheticSet, RealSet]:
    data = synthetic_set(noise(6, 3, 8, 8, dtype=torch.float32), torch.arange(3).repeat_interleave(2), 3)
    return data, real_set(data_card(CARD.test_counts, channels=3), seed=1)


# By hand: a network that cannot learn, and answers what the images of one pixel say.


class Reader(Network):
    """The colours of the only pixel are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 3)

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        yield self.see(images)

    def see(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        self.classifier.weight.copy_(torch.eye(3))
        self.classifier.bias.zero_()


def pixels_for(answers: list[int]) -> Tensor:
    """An image for each answer: full in that colour, a fifth in the others."""
    return torch.full((len(answers), 3), 51, dtype=torch.uint8).index_put(
        (torch.arange(len(answers)), torch.tensor(answers)), torch.tensor(255, dtype=torch.uint8)
    )[:, :, None, None]


def read_out(answers: list[int], counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> Measured:
    """The score of a network that answers so on a test set of so many images per class."""
    monkeypatch.setattr(networks, "build", lambda name, card: Reader())
    labels = torch.tensor([0, 0, 1, 2])
    training = SyntheticSet(pixels_for([0, 1, 1, 2]).float() / 255, labels, NORMALISATION, ("a", "b", "c"))
    test = RealSet(pixels_for(answers), counts, NORMALISATION)
    (row,) = rows(judged(training, test, how=protocol(lr=0.0)))
    return row


def test_accuracy_balanced_accuracy_and_loss_are_those_computed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    row = read_out([0, 0, 0, 0, 1, 2, 1, 1, 0, 0], (6, 3, 1), monkeypatch)
    assert row.values["accuracy"] == 6 / 10
    assert row.values["balanced_accuracy"] == pytest.approx((4 / 6 + 2 / 3 + 0 / 1) / 3)
    total = math.exp(1) + 2 * math.exp(0.2)
    right, wrong = -math.log(math.exp(1) / total), -math.log(math.exp(0.2) / total)
    assert row.values["loss"] == pytest.approx((6 * right + 4 * wrong) / 10, rel=1e-5)
    assert row.values["train_accuracy"] == 3 / 4
    # Hits 4, 2 and 0 of 6, 3 and 1; answered 6, 3 and 1 times.
    assert row.values["macro_f1"] == pytest.approx((8 / 12 + 4 / 6 + 0) / 3)
    assert [row.values[f"class_class-{c}"] for c in range(3)] == [4 / 6, 2 / 3, 0]
    assert row.values["spread"] == pytest.approx(2 / 3)
    assert row.values["spread_std"] == pytest.approx(math.sqrt(2 * (2 / 9) ** 2 / 3 + (4 / 9) ** 2 / 3))
    assert row.values["calibration_error"] == pytest.approx(abs(0.6 - math.exp(1) / total))
    assert "auc" not in row.values


def test_of_a_set_on_the_way_no_class_has_a_figure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    data, test = random_sets()
    (row,) = rows(judged(data, test, final=False))
    assert set(row.values) == MEASURED


def test_of_two_classes_there_is_an_area_under_the_curve() -> None:
    card = data_card((4, 4), channels=3)
    data = synthetic_set(noise(4, 3, 8, 8, dtype=torch.float32), torch.tensor([0, 0, 1, 1]), 2)
    (row,) = rows(judged(data, real_set(card, seed=1), card=card))
    assert 0 <= float(row.values["auc"]) <= 1
    assert set(row.values) == MEASURED | set(accuracy.further_metrics(card))


def test_an_answer_that_is_always_the_largest_class_is_balanced_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    row = read_out([0] * 10, (6, 3, 1), monkeypatch)
    assert row.values["accuracy"] == 0.6
    assert row.values["balanced_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("counts", [(6, 4, 0), (6, 0, 4), (0, 6, 4)])
def test_a_class_without_test_images_has_no_say_in_balanced_accuracy(
    counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (c for c in range(3) if counts[c])
    row = read_out([first] * 3 + [second] * 7, counts, monkeypatch)
    assert row.values["accuracy"] == 7 / 10
    assert row.values["balanced_accuracy"] == pytest.approx((3 / 6 + 4 / 4) / 2)


def test_perfect_answers_are_perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    row = read_out([0] * 6 + [1] * 3 + [2], (6, 3, 1), monkeypatch)
    assert (row.values["accuracy"], row.values["balanced_accuracy"]) == (1.0, 1.0)


def test_a_loss_that_is_no_number_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "build", lambda name, card: Reader())
    images = torch.full((3, 3, 1, 1), float("nan"))
    data = SyntheticSet(images, torch.tensor([0, 1, 2]), NORMALISATION, ("a", "b", "c"))
    test = RealSet(pixels_for([0, 1, 2]), (1, 1, 1), NORMALISATION)
    assert rows(judged(data, test, how=protocol(lr=0.1), final=False)) == []
    logits = torch.tensor([[3e38, -3e38, 0.0]]).expand(3, 3)
    monkeypatch.setattr(accuracy, "predict", lambda network, data, batch: logits)
    (row,) = rows(judged(data, test, how=protocol(lr=0.1)))
    assert row.values["loss"] == "inf"
    assert row.values["accuracy"] == pytest.approx(1 / 3)


# With networks that learn.


def test_a_score_is_that_of_a_network_trained_on_the_set_and_tested_after_the_last_epoch() -> None:
    data, test = random_sets()
    how = protocol(4, augmentation=DSA, lr=0.05)
    (row,) = rows(judged(data, test, how=how))
    network = networks.build("convnet-d1-w8", CARD)
    own = Seeds(0).child("evaluation of convnet-d1-w8", 0)
    list(train(network, data, how, own, mirrors=CARD.mirrors))
    logits = predict(network, SyntheticSet(test.images, test.labels, data.preprocessing, data.classes), 100)
    right = [int(answer) == int(label) for answer, label in zip(logits.argmax(1), test.labels, strict=True)]
    assert row.values["accuracy"] == pytest.approx(sum(right) / 10)
    assert row.values["balanced_accuracy"] == pytest.approx(
        (sum(right[:6]) / 6 + sum(right[6:9]) / 3 + sum(right[9:])) / 3
    )
    assert row.values["loss"] == pytest.approx(F.cross_entropy(logits, test.labels).item(), rel=1e-4)
    known = predict(network, data, 100).argmax(1) == data.labels
    assert row.values["train_accuracy"] == pytest.approx(known.float().mean().item())


def test_classes_that_differ_in_colour_are_learned_and_recognised() -> None:
    def colourful(counts: tuple[int, ...], seed: int) -> Tensor:
        classes = torch.arange(3).repeat_interleave(torch.tensor(counts))
        colours = torch.eye(3)[classes] * 150 + 50
        pixels = colours[:, :, None, None] + noise(len(classes), 3, 8, 8, seed=seed, dtype=torch.float32) * 5
        return pixels.clamp(0, 255).to(torch.uint8)

    data = synthetic_set(colourful((2, 2, 2), 0), torch.arange(3).repeat_interleave(2), 3)
    test = RealSet(colourful((6, 3, 1), 1), (6, 3, 1), data.preprocessing)
    (row,) = rows(judged(data, test, names=("convnet-d1-w8-nn",), how=protocol(40, lr=0.05)))
    assert (row.values["accuracy"], row.values["balanced_accuracy"], row.values["train_accuracy"]) == (1.0, 1.0, 1.0)


def test_the_test_images_are_normalised_as_the_set_says() -> None:
    data, test = random_sets()
    other = RealSet(test.images, test.counts, Normalisation((0.1, 0.2, 0.3), (0.7, 0.8, 0.9)))
    assert [row.values["loss"] for row in rows(judged(data, other))] == [
        row.values["loss"] for row in rows(judged(data, test))
    ]


def test_a_whole_set_is_trained_on_for_the_whole_budget() -> None:
    data, test = random_sets()
    whole = SyntheticSet(data.images, data.labels, data.preprocessing, data.classes, whole=True)
    for given, epochs in ((data, 2), (whole, 3)):
        progress = [event for event in judged(given, test) if isinstance(event, Progressed)]
        assert [(event.done, event.total) for event in progress] == [(n, epochs) for n in range(1, epochs + 1)]


# Several networks.


def test_each_network_gives_a_row_per_repeat_in_order() -> None:
    data, test = random_sets()
    names = ("convnet-d2-w8", "convnet-d1-w8-bn")
    events = judged(data, test, names=names, repeats=3)
    scores = rows(events)
    assert [(row.subject, row.repeat) for row in scores] == [(name, repeat) for name in names for repeat in range(3)]
    how = protocol()
    for row in scores:
        assert (row.iteration, row.final, row.set_sha256) == (40, True, "f" * 64)
        assert row.protocol_sha256 == how.sha256
        assert row.seconds > 0
        assert row.peak_memory_bytes > 0
        assert 0 <= float(row.values["accuracy"]) <= 1
    assert len({row.values["loss"] for row in scores}) == 6


def test_progress_counts_the_epochs_of_all_networks() -> None:
    data, test = random_sets()
    events = judged(data, test, names=("convnet-d1-w8", "convnet-d1-w4"), repeats=2)
    kinds = [type(event) for event in events]
    assert kinds == [Progressed, Progressed, Measured] * 4
    progress = [event for event in events if isinstance(event, Progressed)]
    assert [event.done for event in progress] == list(range(1, 9))
    assert {event.total for event in progress} == {8}
    assert {event.phase for event in progress} == {"evaluate"}
    assert [event.note for event in progress[::2]] == [
        "convnet-d1-w8 1/4",
        "convnet-d1-w8 2/4",
        "convnet-d1-w4 3/4",
        "convnet-d1-w4 4/4",
    ]


@pytest.mark.parametrize("stack", [2, 3, 7])
def test_networks_that_are_trained_together_score_as_one_after_another(stack: int) -> None:
    data, test = random_sets()
    names, how = ("convnet-d1-w8", "convnet-d1-w8-bn"), protocol(6, augmentation=DSA, lr=0.05, batch=4)
    alone, together = (
        rows(judged(data, test, names=names, repeats=5, how=how, stack=several)) for several in (1, stack)
    )
    assert [(row.subject, row.repeat) for row in together] == [(name, repeat) for name in names for repeat in range(5)]
    for row, expected in zip(together, alone, strict=True):
        assert row.values["loss"] == pytest.approx(expected.values["loss"], rel=1e-3)
        for score in ("accuracy", "balanced_accuracy", "train_accuracy"):
            assert row.values[score] == expected.values[score]
    assert len({row.values["loss"] for row in together}) == 10


def test_what_networks_cost_together_is_shared_out() -> None:
    data, test = random_sets()
    scores = rows(judged(data, test, repeats=5, stack=3))
    assert [len({(row.seconds, row.peak_memory_bytes) for row in part}) for part in (scores[:3], scores[3:])] == [1, 1]
    assert scores[0].seconds != scores[3].seconds
    assert all(row.seconds > 0 and row.peak_memory_bytes > 0 for row in scores)


def test_progress_counts_the_epochs_of_networks_that_are_trained_together() -> None:
    data, test = random_sets()
    events = judged(data, test, names=("convnet-d1-w8", "convnet-d1-w4"), repeats=3, stack=2)
    assert [type(event) for event in events] == [
        *[Progressed, Progressed, Measured, Measured, Progressed, Progressed, Measured] * 2
    ]
    progress = [event for event in events if isinstance(event, Progressed)]
    assert [event.done for event in progress] == [2, 4, 5, 6, 8, 10, 11, 12]
    assert {event.total for event in progress} == {12}
    assert [event.note for event in progress[::2]] == [
        "convnet-d1-w8 1–2/6",
        "convnet-d1-w8 3/6",
        "convnet-d1-w4 4–5/6",
        "convnet-d1-w4 6/6",
    ]


def test_a_step_that_is_no_cuda_graph_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Tape):
        def record(self, function: Callable[[], list[Tensor]]) -> NoReturn:
            raise RuntimeError("not permitted")

    def replayed(function: Any, device: torch.device, on_warning: Callable[[str], None]) -> Replayed:
        return Replayed(function, device, on_warning=on_warning, recorder=Refusing)

    data, test = random_sets()
    plain = rows(judged(data, test, repeats=2, stack=2, how=protocol(5)))
    monkeypatch.setattr(training, "Replayed", replayed)
    events = judged(data, test, repeats=2, stack=2, how=protocol(5))
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert warnings == ["Without a CUDA graph, which is slower: RuntimeError: not permitted"]
    assert [row.values["loss"] for row in rows(events)] == [row.values["loss"] for row in plain]


def initial_weights(data: SyntheticSet, test: RealSet, monkeypatch: pytest.MonkeyPatch, **how: Any) -> list[Tensor]:
    """Of each network that is evaluated: those that it has after training with a step size of zero."""
    built: list[Network] = []
    original = networks.build

    def build(name: str, card: DataCard) -> Network:
        built.append(original(name, card))
        return built[-1]

    with monkeypatch.context() as patch:
        patch.setattr(networks, "build", build)
        judged(data, test, how=protocol(lr=0.0), **how)
    return [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in built]


def test_initial_weights_depend_on_seed_and_repeat_and_not_on_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    data, test = random_sets()
    first = initial_weights(data, test, monkeypatch, repeats=3)
    assert len(first) == 3
    assert len(torch.stack(first).unique(dim=0)) == 3
    larger = synthetic_set(noise(9, 3, 8, 8, seed=5, dtype=torch.float32), torch.arange(3).repeat_interleave(3), 3)
    for one, other in zip(first, initial_weights(larger, test, monkeypatch, repeats=3), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(first, initial_weights(data, test, monkeypatch, repeats=3, seed=1), strict=True):
        assert not torch.equal(one, other)


def test_a_network_is_the_same_whichever_others_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    data, test = random_sets()
    alone = initial_weights(data, test, monkeypatch, names=("convnet-d1-w8",), repeats=1)
    among = initial_weights(data, test, monkeypatch, names=("convnet-d1-w4", "convnet-d1-w8"), repeats=2)
    assert torch.equal(alone[0], among[2])


def test_the_same_seed_gives_the_same_scores() -> None:
    data, test = random_sets()

    def scores(seed: int) -> list[Any]:
        return [
            (r.values["accuracy"], r.values["balanced_accuracy"], r.values["loss"])
            for r in rows(judged(data, test, repeats=2, seed=seed))
        ]

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)


def test_neither_set_is_changed() -> None:
    data, test = random_sets()
    images, pixels = data.images.clone(), test.images.clone()
    judged(data, test, how=protocol(4, augmentation=DSA, lr=0.1))
    assert torch.equal(data.images, images)
    assert torch.equal(test.images, pixels)


def test_torch_s_global_generator_is_left_alone() -> None:
    data, test = random_sets()
    with global_generator_untouched():
        judged(data, test, how=protocol(augmentation=DSA))


def test_out_of_memory_halves_the_stack_and_the_scores_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data, test = random_sets()
    how = protocol(3, lr=0.05)
    expected = rows(judged(data, test, repeats=5, how=how))
    original = train_together

    def crowded(networks: Any, *given: Any, **more: Any) -> Iterator[tuple[int, int]]:
        for progress in original(networks, *given, **more):
            if len(networks) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nMore")
            yield progress

    monkeypatch.setattr(evaluators, "train_together", crowded)
    events = judged(data, test, repeats=5, stack=5, how=how)
    adapted = [event for event in events if isinstance(event, Adapted)]
    assert [(event.iteration, event.what, event.value) for event in adapted] == [(40, "stack", 3), (40, "stack", 2)]
    assert adapted[0].reason == "CUDA out of memory. Tried to allocate 1 GiB."
    scores = rows(events)
    assert [row.repeat for row in scores] == [0, 1, 2, 3, 4]
    assert [row.values["loss"] for row in scores] == pytest.approx([row.values["loss"] for row in expected], rel=1e-4)


def test_one_network_that_does_not_fit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def crowded(*given: Any, **more: Any) -> Iterator[tuple[int, int]]:
        raise torch.OutOfMemoryError("CUDA out of memory.")
        yield

    monkeypatch.setattr(evaluators, "train_together", crowded)
    with pytest.raises(torch.OutOfMemoryError):
        judged(*random_sets(), repeats=3, stack=3)


def test_at_which_rate_a_set_without_one_was_tested_is_said_where_the_protocol_would_take_its_own() -> None:
    data, test = random_sets()
    carried = protocol(lr="as the set carries")

    def told(data: SyntheticSet, how: Protocol) -> list[str]:
        return [event.message for event in judged(data, test, how=how) if isinstance(event, Warned)]

    sentence = "The set carries no learning rate, which made-up would train at: its networks are trained at 0.01."
    assert told(data, carried) == [sentence]
    assert told(replace(data, lr=0.02), carried) == []
    assert told(data, protocol()) == []
