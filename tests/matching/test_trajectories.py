import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dambench import networks
from dambench.core.config import read
from dambench.core.errors import BadInput, NotEnoughMemory
from dambench.core.events import Progressed
from dambench.core.protocol import DSA
from dambench.matching import trajectories
from dambench.matching.experts import Trajectories
from dambench.matching.optimised import LearnedImages
from dambench.matching.soft_labels import correct_images, predicted, soft_labels
from dambench.matching.trajectories import (
    Match,
    Minibatch,
    Options,
    SoftOptions,
    Student,
    TrajectoryMatching,
    check,
    depth_mask,
    loss_mask,
    match,
    start_epochs,
    step_bytes,
    trajectory_loss,
)
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import through_a_file
from dambench.testing.problems import global_generator_untouched
from dambench.training.augmentation import Draw, augment, draw
from dambench.training.policy import ALL, Policy
from dambench.training.problem import Network, Problem, Step
from tests.lab import Tape, adaptations, end_of, generator, messages, noise

CARD = data_card(channels=3)


class Given(Trajectories):
    """Experts with these weights: (experts, epochs + 1, L)."""

    def __init__(self, given: Tensor, student: Student):
        super().__init__("", list(given), student.network, torch.device("cpu"))
        self.given = given


def student_of(name: str = "convnet-d2-w4", card: Any = CARD) -> Student:
    network = networks.build(name, card)
    network.reset(generator(5))
    return Student(network.double().train())


def own_weights(student: Student, network: Network | None = None) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in (network or student.network).parameters()])


class Scene:
    """Some images of three classes, a student and where an expert has been."""

    def __init__(self, name: str = "convnet-d2-w4", soft: bool = False, steps: int = 4):
        self.student = student_of(name)
        self.start = own_weights(self.student)
        self.target = self.start + 0.01 * noise(self.student.length, seed=1)
        self.images = noise(6, 3, 8, 8, seed=2)
        self.labels = noise(6, 3, seed=3) if soft else torch.arange(3).repeat_interleave(2)
        self.lr = torch.tensor(0.5, dtype=torch.float64)
        drawn = [draw(DSA, 3, generator(step), one_operation=True) for step in range(steps)]
        orders = [torch.randperm(6, generator=generator(step))[:3] for step in range(steps)]
        self.batches = [Minibatch(some, _by(one)) for some, one in zip(orders, drawn, strict=True)]

    def match(self, **changes: Any) -> Match:
        fields = dict(vars(self)) | changes
        found: Match = end_of(match(**fields))
        return found

    def literally(self) -> tuple[Tensor, list[Tensor]]:
        """The loss with all steps in one graph, and its gradients: lists of parameters, given to modules one by one."""
        images, lr = self.images.clone().requires_grad_(), self.lr.clone().requires_grad_()
        labels = self.labels.clone()
        if labels.is_floating_point():
            labels.requires_grad_()
        network = copy.deepcopy(self.student.network)
        shapes = [shape for _, shape in self.student.parameters]

        def cut(flat: Tensor) -> list[Tensor]:
            parts = flat.split([shape.numel() for shape in shapes])
            return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

        weights, target = [part.clone().requires_grad_() for part in cut(self.start)], cut(self.target)
        for batch in self.batches:
            rest = list(weights)
            for module in network.modules():
                for name in list(module._parameters) or [n for n in ("weight", "bias") if n in vars(module)]:
                    module._parameters.pop(name, None)
                    setattr(module, name, rest.pop(0))
            logits = network(batch.augmented(images[batch.chosen]))
            said = labels[batch.chosen]
            if said.is_floating_point():
                loss = -(said.softmax(1) * logits.log_softmax(1)).sum(1).mean()
            else:
                loss = -logits.log_softmax(1)[torch.arange(len(said)), said].mean()
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            weights = [w - lr * g for w, g in zip(weights, gradients, strict=True)]
        above = sum(((w - t) ** 2).sum() for w, t in zip(weights, target, strict=True))
        below = sum(((w - t) ** 2).sum() for w, t in zip(cut(self.start), target, strict=True))
        found = torch.as_tensor(above / below)
        free = [images, lr, *([labels] if labels.is_floating_point() else [])]
        return found.detach(), list(torch.autograd.grad(found, free))


def _by(drawn: Draw) -> Callable[[Tensor], Tensor]:
    return lambda images: augment(images.unsqueeze(1), drawn).squeeze(1)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["convnet-d2-w4", "convnet-d1-w4-mp", "mlp"])
def test_the_gradient_is_that_of_all_steps_in_one_graph(name: str, soft: bool) -> None:
    scene = Scene(name, soft)
    loss, gradients = scene.literally()
    found = scene.match()
    torch.testing.assert_close(found.loss, loss, rtol=1e-10, atol=0)
    for ours, literal in zip([found.images, found.lr, found.labels], gradients, strict=False):
        torch.testing.assert_close(ours, literal, rtol=1e-9, atol=1e-10 * float(literal.abs().max()))
        assert literal.abs().max() > 0
    assert found.labels.shape == (scene.labels.shape if soft else (0,))


@pytest.mark.parametrize("soft", [False, True])
def test_it_is_the_plain_form(soft: bool) -> None:
    scene = Scene(soft=soft)
    fields = dict(vars(scene)) | {name: getattr(scene, name).clone().requires_grad_() for name in ("images", "lr")}
    plain = trajectory_loss(**fields)
    match = scene.match()
    torch.testing.assert_close(match.loss, plain.detach(), rtol=1e-10, atol=0)
    for ours, theirs in zip(
        (match.images, match.lr), torch.autograd.grad(plain, [fields["images"], fields["lr"]]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_with_one_step_nothing_is_left_out_by_tesla() -> None:
    scene = Scene(steps=1, soft=True)
    loss, gradients = scene.literally()
    found = scene.match(constant=True)
    torch.testing.assert_close(found.loss, loss, rtol=1e-13, atol=0)
    for ours, literal in zip([found.images, found.lr, found.labels], gradients, strict=True):
        torch.testing.assert_close(ours, literal, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_steps_that_are_computed_again_give_the_same(kept: int) -> None:
    scene = Scene(soft=True)
    for ours, expected in zip(scene.match(kept=kept), scene.match(kept=ALL), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)


def test_tesla_s_gradient_is_its_closed_form() -> None:
    scene = Scene(soft=True)
    found = scene.match(constant=True, kept=0)
    # Pass 1: the weights of each step, and the sum of the gradients. Pass 2: the steps again, by themselves.
    weights, points, total = scene.start, [], torch.zeros_like(scene.start)
    for batch in scene.batches:
        points.append(weights.clone().requires_grad_())
        images = batch.augmented(scene.images[batch.chosen])
        gradient = scene.student.gradient(points[-1], images, scene.labels[batch.chosen])
        weights, total = weights - scene.lr * gradient, total + gradient
    below = (scene.start - scene.target).square().sum()
    direction = 2 * (scene.lr * (scene.target - scene.start) + scene.lr**2 * total) / below
    images, labels = scene.images.clone().requires_grad_(), scene.labels.clone().requires_grad_()
    parts = [
        scene.student.gradient(point, b.augmented(images[b.chosen]), labels[b.chosen], again=True) @ direction
        for point, b in zip(points, scene.batches, strict=True)
    ]
    of_images, of_labels = torch.autograd.grad(torch.stack(parts).sum(), [images, labels])
    torch.testing.assert_close(found.images, of_images, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.labels, of_labels, rtol=1e-9, atol=1e-12)
    lr = scene.lr.clone().requires_grad_()
    closed = (scene.start - lr * total - scene.target).square().sum() / below
    torch.testing.assert_close(found.loss, closed.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.lr, torch.autograd.grad(closed, lr)[0], rtol=1e-9, atol=0)
    exact = scene.match()
    assert not torch.allclose(found.images, exact.images, rtol=1e-3), "and it is another gradient"


@pytest.mark.parametrize("mask", [None, depth_mask, loss_mask])
def test_a_student_that_takes_no_steps_is_as_far_away_as_at_the_beginning(mask: Any) -> None:
    scene = Scene()
    weigh = mask(scene.student.length, 0.3, scene.start.device) if mask else None
    assert scene.match(lr=torch.zeros((), dtype=torch.float64), weigh=weigh).loss == 1
    assert scene.match(weigh=weigh).loss != 1


@pytest.mark.parametrize(
    ("network", "size", "classes", "ratio", "cut", "layer", "share"),
    [
        ("convnet-d3-w128", 32, 10, 0.25, 80_002, "blocks.1.0.weight", 0.52),
        ("convnet-d3-w128", 32, 10, 0.5, 160_005, "blocks.2.0.weight", 0.06),
        ("convnet-d3-w128", 32, 10, 0.75, 240_007, "blocks.2.0.weight", 0.60),
        ("convnet-d3-w128", 32, 100, 0.25, 126_105, "blocks.1.0.weight", 0.83),
        ("convnet-d3-w128", 32, 100, 0.5, 252_210, "blocks.2.0.weight", 0.68),
        ("convnet-d4-w128", 64, 200, 0.25, 214_290, "blocks.2.0.weight", 0.42),
        ("convnet-d4-w128", 64, 200, 0.5, 428_580, "blocks.3.0.weight", 0.87),
    ],
)
def test_the_depth_mask_cuts_where_the_papers_would(
    network: str, size: int, classes: int, ratio: float, cut: int, layer: str, share: float
) -> None:
    student = student_of(network, data_card((5,) * classes, channels=3, size=(size, size)))
    counted = depth_mask(student.length, ratio, torch.device("cpu"))(torch.zeros(student.length))
    assert counted.sum() == student.length - cut
    assert not counted[:cut].any()
    before = 0
    for name, shape in student.parameters:  # noqa: B007
        if before + shape.numel() > cut:
            break
        before += shape.numel()
    assert name == layer
    assert (cut - before) / shape.numel() == pytest.approx(share, abs=0.01)


def test_the_loss_mask_leaves_out_the_smallest_differences() -> None:
    squares = torch.tensor([3.0, 0.0, 5.0, 1.0, 2.0])
    assert loss_mask(5, 0.5, squares.device)(squares).tolist() == [1, 0, 1, 0, 1]
    assert loss_mask(5, 0.0, squares.device)(squares).tolist() == [1, 1, 1, 1, 1]


def test_masked_weights_pull_at_nothing_but_are_trained() -> None:
    scene = Scene()
    mask = depth_mask(scene.student.length, 0.5, scene.start.device)
    found = scene.match(weigh=mask)
    counted = mask(scene.start)
    elsewhere = scene.target + 7 * (1 - counted)
    again = scene.match(weigh=mask, target=elsewhere)
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(found.images, scene.match().images)


def test_the_memory_of_a_step_is_that_of_what_its_graph_holds() -> None:
    small, large = Scene(), Scene("convnet-d2-w16")
    found = [
        step_bytes(scene.student, scene.start, scene.images, scene.labels, scene.batches[0]) for scene in (small, large)
    ]
    # At least the first maps of the three images, before and after norm and activation, there and back.
    assert found[0] > 4 * 3 * 4 * 64 * 8
    assert 3 < found[1] / found[0] < 16


# Options.

DATM = [
    ((0, 10, 20, 1000), {0: 10, 99: 10, 100: 11, 500: 15, 999: 19, 1000: 20, 9999: 20}),
    ((0, 20, 40, 2000), {0: 20, 100: 21, 2000: 40, 2001: 40}),
    ((40, 60, 70, 2000), {0: 60, 200: 61, 1000: 65, 2000: 70}),
    ((10, None, 50, 1000), {0: 50, 5000: 50}),
]


@pytest.mark.parametrize(("bounds", "expected"), DATM)
def test_datm_s_bounds_of_the_first_epoch(bounds: tuple[int, int | None, int, int], expected: dict[int, int]) -> None:
    low, first, last, expansion = bounds
    options = SoftOptions(min_start=low, first_max_start=first, max_start=last, expansion=expansion)
    for done, end in expected.items():
        assert start_epochs(options, done) == range(low, end)


def test_mtt_s_students_begin_anywhere_before_the_last_epoch() -> None:
    assert start_epochs(Options(max_start=20), 123) == range(20)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 5, "max_start": 5, "expert_epochs": 2},
        {"epochs": 5, "max_start": 6, "expert_epochs": 1},
        {"min_start": 20, "max_start": 20},
        {"min_start": 5, "first_max_start": 5, "max_start": 20},
        {"first_max_start": 30, "max_start": 20},
    ],
)
def test_epochs_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="max_start"):
        check(one_network(), SoftOptions(**fields))
    check(one_network(), SoftOptions(epochs=5, min_start=3, max_start=4, expert_epochs=2))


# Matching, iteration after iteration.


def options(**changes: Any) -> Options:
    fields = {"iterations": 3, "epochs": 4, "steps": 3, "max_start": 3, "batch_student": 4, "lr_images": 1.0}
    return read(Options, fields | changes, "method")


def soft(**changes: Any) -> SoftOptions:
    fields = {"iterations": 3, "epochs": 4, "steps": 3, "max_start": 3, "lr_images": 1.0, "threshold": 100.0}
    return read(SoftOptions, fields | changes, "method")


def experts_of(problem: Problem, count: int = 3, epochs: int = 4) -> Given:
    student = Student(problem.new_network(0))
    start = own_weights(student)
    walk = 0.02 * noise(count, epochs + 1, student.length, dtype=torch.float32).cumsum(1)
    return Given(start + walk, student)


def matching(problem: Problem, chosen: Options | None = None, **more: Any) -> TrajectoryMatching:
    chosen = chosen or options()
    resume = more.get("resume")
    images = LearnedImages(problem, "real", chosen.lr_images, chosen.momentum_images, resume)
    experts = more.pop("experts", None) or experts_of(problem)
    if isinstance(chosen, SoftOptions):
        more = {"labels": noise(len(images.tensor), 3, dtype=torch.float32)} | more
    return TrajectoryMatching(problem, images, experts, chosen, **more)


def losses_of(one: TrajectoryMatching, count: int = 1, notices: list[Any] | None = None) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in end_of(one.step(), notices).items()} for _ in range(count)]


def test_an_iteration_is_a_step_down_the_gradient_of_a_random_expert_and_epoch() -> None:
    problem = tiny_problem(card=CARD)
    experts = experts_of(problem)
    asked = []

    class Asked(Given):
        def weights(self, expert: int, epoch: int) -> Tensor:
            asked.append((expert, epoch))
            return experts.weights(expert, epoch)

    one = matching(problem, soft(iterations=60, min_start=1), experts=Asked(experts.given, Student(one_network())))
    asked.clear()
    losses_of(one, 60)
    begun, reached = asked[::2], asked[1::2]
    assert {expert for expert, _ in begun} == {0, 1, 2}
    assert {epoch for _, epoch in begun} == {1, 2}
    assert reached == [(expert, epoch + 2) for expert, epoch in begun]


def test_it_is_told_what_the_time_is_spent_on() -> None:
    one = matching(tiny_problem(), options())
    seen = []
    for _ in range(2):
        losses_of(one, 1)
        assert list(one.parts) == ["student's steps", "way back", "update"]
        assert all(seconds > 0 for seconds in one.parts.values())
        seen.append(str(one.parts))
    assert len(set(seen)) == 2


def one_network() -> Network:
    return networks.build("convnet-d1-w8", CARD)


def test_minibatches_are_shuffled_passes_over_the_set() -> None:
    problem = tiny_problem(ipc=3)
    one = matching(problem, options(steps=7, batch_student=4))
    seen: list[list[int]] = []

    def spied(student: Student, *given: Any, **more: Any) -> Any:
        seen.extend(batch.chosen.tolist() for batch in given[5])
        return match(student, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectories, "match", spied)
        losses_of(one)
    assert [len(some) for some in seen] == [4, 4, 1, 4, 4, 1, 4]
    for first in (0, 3):
        assert sorted(number for some in seen[first : first + 3] for number in some) == list(range(9))
    assert seen[0:3] != seen[3:6]


@pytest.mark.parametrize("kind", ["hard", "soft", "told"])
@pytest.mark.parametrize("augmentation", ["dsa", "none"])
def test_a_recorded_iteration_gives_what_a_plain_one_gives(kind: str, augmentation: str) -> None:
    told, sets = [], []
    for recorder in (None, Tape):
        problem = tiny_problem(card=CARD)
        chosen = (soft if kind == "soft" else options)(iterations=6, augmentation=augmentation)
        one = matching(problem, chosen, recorder=recorder, told=kind == "told")
        told.append(losses_of(one, 6))
        sets.append((one.synthetic.images.clone(), one.synthetic.labels.clone(), float(one.synthetic.lr or 0)))
    for plain, recorded in zip(*told, strict=True):
        assert plain == pytest.approx(recorded, rel=1e-4)
    torch.testing.assert_close(sets[0], sets[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("memory", ["unrolled", "checkpointed", "tesla"])
def test_going_on_from_a_state_gives_the_same_bits(memory: str) -> None:
    chosen = soft(iterations=4, memory=memory, threshold=1.0)
    whole = matching(tiny_problem(), chosen)
    expected = losses_of(whole, 4)
    first = matching(tiny_problem(), chosen)
    losses_of(first, 2)
    rest = matching(tiny_problem(), chosen, resume=through_a_file(first.state()))
    assert losses_of(rest, 2) == expected[2:]
    assert torch.equal(rest.synthetic.images, whole.synthetic.images)
    assert torch.equal(rest.synthetic.labels, whole.synthetic.labels)
    assert rest.synthetic.lr == whole.synthetic.lr
    assert rest.gated == whole.gated
    assert 0 < int(whole.gated) < 4, "or the gate was not seen at work"


def test_tesla_s_labels_are_what_the_expert_says_where_the_student_is_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "TOLD_AT_ONCE", 4)
    seen: list[tuple[Tensor, ...]] = []

    def spied(student: Student, *given: Any, **more: Any) -> Any:
        seen.append(tuple(tensor.clone() for tensor in given[1:4]))
        return match(student, *given, **more)

    monkeypatch.setattr(trajectories, "match", spied)
    chosen = options(iterations=4, memory="tesla")
    whole = matching(tiny_problem(), chosen, told=True)
    assert whole.synthetic.labels.tolist() == [0, 0, 1, 1, 2, 2], "nobody was asked yet"
    expected = losses_of(whole, 4)
    with torch.no_grad():
        for target, images, labels in seen:
            torch.testing.assert_close(labels, whole.student.logits(target, images), rtol=1e-4, atol=1e-5)
    assert not torch.equal(seen[2][2], seen[3][2])
    assert torch.equal(whole.synthetic.labels, seen[3][2])
    first = matching(tiny_problem(), chosen, told=True)
    losses_of(first, 2)
    rest = matching(tiny_problem(), chosen, told=True, resume=through_a_file(first.state()))
    assert torch.equal(rest.synthetic.labels, first.synthetic.labels)
    assert losses_of(rest, 2) == expected[2:]
    assert torch.equal(rest.synthetic.images, whole.synthetic.images)


def test_above_the_threshold_nothing_moves_and_it_is_said() -> None:
    notices: list[Any] = []
    one = matching(tiny_problem(), soft(iterations=2, threshold=1e-6))
    before = one.state()
    losses = losses_of(one, 2, notices)
    assert all(loss["matching"] > 1e-6 and loss["skipped"] == 0 for loss in losses)
    after = one.state()
    assert all(torch.equal(after[name], before[name]) for name in ("images", "labels", "lr", "velocity"))
    (message,) = messages(notices)
    assert message == "In 2 of 2 iterations the loss was above the threshold of 1e-06, and the set stayed as it was."


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=12))
def test_the_step_size_stays_positive_and_no_step_changes_it_by_more_than_a_factor(slopes: list[float]) -> None:
    rate = trajectories.LearnedRate(0.01, 1e-3, 0.5, torch.device("cpu"))
    held, last = 0, 0.01
    for slope in slopes:
        free = last - 1e-3 * (0.5 * float(rate.velocity) + slope)
        rate.gradient.fill_(slope)
        rate.move(torch.tensor(True))
        now = float(rate.tensor.detach())
        assert last / 2 <= now * 1.0001
        assert now <= last * 2.0001
        assert now > 0
        if last / 1.99 < free < last * 1.99:
            assert now == pytest.approx(free, rel=1e-4, abs=1e-9)
        held += not last / 2.001 < free < last * 2.001
        last = now
    assert int(rate.held) >= held


def test_a_step_size_that_would_turn_negative_is_held_and_it_is_said() -> None:
    notices: list[Any] = []
    one = matching(tiny_problem(), options(iterations=3, lr_lr=1e4))
    losses_of(one, 3, notices)
    assert float(one.synthetic.lr or 0) > 0
    assert int(one.rate.held) > 0
    (warning,) = messages(notices)
    assert warning.startswith(f"In {int(one.rate.held)} of 3 iterations the students' step size was held back")


def test_a_step_that_is_not_finite_moves_nothing_and_is_counted() -> None:
    problem = tiny_problem()
    experts = experts_of(problem)
    one = matching(problem, soft(), experts=experts)
    losses_of(one)
    before = one.state()
    experts.given.fill_(torch.nan)
    assert losses_of(one)[0]["skipped"] == 1
    after = one.state()
    for name in ("images", "labels", "lr", "velocity", "velocity of labels", "velocity of lr"):
        assert torch.equal(after[name], before[name])


def test_where_memory_is_short_fewer_graphs_are_kept_from_the_beginning_on(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for free in (10**12, 0):
        monkeypatch.setattr(Policy, "free_bytes", lambda self, free=free: free)
        events = list(matching(tiny_problem(), options(iterations=3)).steps(3))
        assert [(event.iteration, event.what, event.value) for event in adaptations(events)] == (
            [] if free else [(1, "kept_steps", 0)]
        )
        steps = [event for event in events if isinstance(event, Step)]
        results.append([{name: float(value) for name, value in step.losses.items()} for step in steps])
    for plenty, none in zip(*results, strict=True):
        assert plenty == pytest.approx(none, rel=1e-4)


def test_out_of_memory_halves_the_graphs_that_are_kept_until_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, notices = tiny_problem(), list[Any]()
    one = matching(problem, options(steps=5))
    most = 1

    def small(*given: Any, kept: int, **more: Any) -> Any:
        if kept > most:
            raise torch.OutOfMemoryError("CUDA out of memory.\nmore")
        return match(*given, kept=kept, **more)

    monkeypatch.setattr(trajectories, "match", small)
    assert losses_of(one, 2, notices)[1]["skipped"] == 0
    assert [(event.iteration, event.what, event.value) for event in adaptations(notices)] == [
        (1, "kept_steps", 2),
        (1, "kept_steps", 1),
    ]
    most = -1
    with pytest.raises(NotEnoughMemory, match="batch_student"):
        losses_of(one)
    assert problem.policy.kept_steps == 0


def test_what_has_no_compiled_form_says_so() -> None:
    problem = tiny_problem()
    problem.policy = Policy(torch.device("cpu"), compiled=True)
    events = list(matching(problem, options(iterations=1)).steps(1))
    assert [(event.what, event.value) for event in adaptations(events)] == [("compiled", 0)]


def test_it_says_how_far_a_student_is() -> None:
    one = matching(tiny_problem(), options(iterations=2, steps=3))
    said = [event for _ in range(2) for event in one.step() if isinstance(event, Progressed)]
    assert [(event.done, event.total) for event in said] == [(done, 12) for done in range(1, 13)]


def test_no_generator_of_torch_s_own_is_used() -> None:
    one = matching(tiny_problem())
    with global_generator_untouched():
        losses_of(one)


# How DATM begins.


def told(steps: Any) -> tuple[list[Any], Tensor]:
    notices: list[Any] = []
    result = end_of(steps, notices)
    return notices, result


class Oracle(Student):
    """Says of an image what `says` makes of the weights and the image."""

    def __init__(self, says: Callable[[Tensor, Tensor], Tensor]):
        super().__init__(one_network())
        self.says = says

    def logits(self, weights: Tensor, images: Tensor) -> Tensor:
        return self.says(weights, images)


def ids(problem: Problem) -> None:
    """Each image shows its number."""
    numbers = torch.arange(len(problem.real.images), dtype=torch.uint8)
    problem.real.images.copy_(numbers.view(-1, 1, 1, 1).expand_as(problem.real.images))


def numbers_of(problem: Problem, images: Tensor) -> Tensor:
    return problem.real.preprocessing.invert(images)[:, 0, 0, 0].long()


def test_the_first_images_are_random_ones_that_the_first_expert_recognises_then_the_next() -> None:
    problem = tiny_problem(card=data_card((5, 6, 7)), ipc=3)
    ids(problem)
    # By expert, the images that it recognises; each one else is taken for another class.
    known = [{0, 1, 2, 3, 5, 6, 11, 12, 13}, {7, 8, 9, 10, 14}]
    experts = Given(torch.tensor([[[9.0], [0.0]], [[9.0], [1.0]]]), Student(one_network()))

    def says(weights: Tensor, images: Tensor) -> Tensor:
        numbers = numbers_of(problem, images)
        right = torch.tensor([int(n) in known[int(weights)] for n in numbers])
        return F.one_hot((problem.real.labels[numbers] + ~right) % 3, 3).float()

    events, pixels = told(correct_images(problem, Oracle(says), experts))
    found = pixels[:, 0, 0, 0].tolist()
    assert len(set(found)) == 9
    assert set(found[:3]) < {0, 1, 2, 3}
    assert {5, 6} < set(found[3:6]) <= {5, 6, 7, 8, 9, 10}
    assert set(found[6:]) == {11, 12, 13}
    assert messages(events) == []
    assert [(event.done, event.total) for event in events] == [(1, 3), (2, 3), (3, 3)]
    others = [told(correct_images(p, Oracle(says), experts))[1] for p in (_with_ids(1), _with_ids(2), _with_ids(3))]
    assert any(set(other[:3, 0, 0, 0].tolist()) != set(found[:3]) for other in others)


def _with_ids(seed: int) -> Problem:
    problem = tiny_problem(card=data_card((5, 6, 7)), ipc=3, seed=seed)
    ids(problem)
    return problem


def test_where_no_expert_recognises_enough_any_others_are_taken_and_it_is_said() -> None:
    problem = tiny_problem(card=data_card((5, 6, 7)), ipc=3)
    ids(problem)
    experts = Given(torch.zeros(2, 2, 1), Student(one_network()))

    def says(weights: Tensor, images: Tensor) -> Tensor:
        numbers = numbers_of(problem, images)
        return F.one_hot(torch.where(numbers == 4, 0, (problem.real.labels[numbers] + 1) % 3), 3).float()

    events, pixels = told(correct_images(problem, Oracle(says), experts))
    found = pixels[:, 0, 0, 0]
    assert 4 in found[:3]
    assert problem.real.labels[found.long()].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(set(found.tolist())) == 9
    assert messages(events) == ["No expert recognises enough images: 8 of the first synthetic ones are any others."]


def test_soft_labels_are_what_the_experts_say_that_are_right() -> None:
    problem = tiny_problem(ipc=1)
    says = torch.tensor(
        [
            [[5.0, 1.0, 0.0], [0.0, 2.0, 9.0], [1.0, 2.0, 0.0]],
            [[3.0, 2.0, 1.0], [7.0, 8.0, 0.0], [4.0, 0.0, 1.0]],
            [[0.0, 8.0, 1.0], [1.0, 6.0, 2.0], [1.0, 1.5, 0.0]],
        ]
    )
    experts = Given(torch.tensor([[[9.0], [float(e)]] for e in range(3)]), Student(one_network()))
    student = Oracle(lambda weights, images: says[int(weights)][images[:, 0, 0, 0].long()])
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    events, labels = told(soft_labels(problem, student, experts, images))
    assert labels[0].tolist() == [4.0, 1.5, 0.5], "of the first two, the third is wrong"
    assert labels[1].tolist() == [4.0, 7.0, 1.0], "of the last two"
    # None is right about the third. All say (2, 3.5/3, 1/3): its class and what it is taken for change places.
    torch.testing.assert_close(labels[2], torch.tensor([1 / 3, 3.5 / 3, 2.0]))
    assert labels.argmax(1).tolist() == [0, 1, 2]
    assert len(events) == 3


def test_what_is_predicted_does_not_depend_on_how_many_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_of()
    images, weights = noise(7, 3, 8, 8), own_weights(student)
    whole = predicted(student, weights, images)
    torch.testing.assert_close(whole, student.network(images).detach())
    monkeypatch.setattr("dambench.matching.soft_labels.RECOGNISED_AT_ONCE", 3)
    torch.testing.assert_close(predicted(student, weights, images), whole)
