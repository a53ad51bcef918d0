"""Matching by trajectories: where N steps on the synthetic set take a student, and where the real set took an expert.

MTT, FTD, DATM and PAD are of this kind. An expert is a network that was trained on the real set, and θ*_t its weights
after t epochs. A student begins as θ_0 = θ*_t and takes N steps on the synthetic set, θ_{i+1} = θ_i − α g_i, with g_i
the gradient of its cross-entropy on an augmented minibatch; the minibatches are shuffled passes over the set.

    loss = ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖²

The images, the labels if they are soft, and the step size α go down its gradient, through all N steps. That gradient
is found by going back over them: with λ_N = ∂loss/∂θ_N,

    ∂loss/∂(images of step i) = −α ∂(g_i·λ_{i+1})/∂images,    λ_i = λ_{i+1} − α ∂(g_i·λ_{i+1})/∂θ_i,

and ∂loss/∂α = −Σ_i g_i·λ_{i+1}. So no graph spans two steps. Those of the last steps are kept from the way there, as
many as memory has room for; of the others only θ_i is, and g_i is computed again on the way back: the same maths, about
a third more time. TESLA (Cui et al., ICML 2023) leaves out the second equation, λ_i = λ_N, and so what a step does to
the gradients of all later ones. It needs no kept graph and is faster, but its gradient of images and labels is another.

α can become neither negative nor huge: a step at most halves or doubles it. (The released codes have no such bound, and
users met both.)
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from dambench.core import config, expert_files
from dambench.core.config import PreprocessingName
from dambench.core.errors import BadInput, NotEnoughMemory
from dambench.core.events import DataCard, Progressed, Warned
from dambench.core.protocol import DSA
from dambench.core.units import size
from dambench.matching.experts import ExpertTraining, Schedule, Trajectories
from dambench.matching.experts import check as check_network
from dambench.matching.loop import MatchingLoop
from dambench.matching.optimised import Learned, LearnedImages
from dambench.training.augmentation import Draw, augment, augment_by, draw, parameters, strategy_for
from dambench.training.cuda_graph import GraphRecorder
from dambench.training.policy import ALL
from dambench.training.problem import Network, Notice, Problem, State, SyntheticSet
from dambench.training.train import Gsam

MOST_OF_MEMORY = 0.7
"""Share of the free memory that the graphs of kept steps may take."""

TOLD_AT_ONCE = 256
"""Images that an expert is shown at once."""

MOST_CHANGE = 2.0
"""Factor by which one step may change the students' step size."""


class Student:
    """A network as a function of its weights, which are one flat vector in the order of its modules.

    Args:
        network: in train mode; its own weights count for nothing.
    """

    def __init__(self, network: Network):
        self.network = network
        named = [(name, parameter.shape) for name, parameter in network.named_parameters()]
        self.parameters: tuple[tuple[str, torch.Size], ...] = tuple(named)
        self.length = sum(shape.numel() for _, shape in named)

    def logits(self, weights: Tensor, images: Tensor) -> Tensor:
        """(L,), (B, C, H, W) → (B, classes)."""
        parts = weights.split([shape.numel() for _, shape in self.parameters])
        views = {name: part.view(shape) for (name, shape), part in zip(self.parameters, parts, strict=True)}
        logits: Tensor = functional_call(self.network, views, (images,))
        return logits

    def gradient(self, weights: Tensor, images: Tensor, labels: Tensor, again: bool = False) -> Tensor:
        """Compute the gradient of the mean cross-entropy with respect to the weights: (L,).

        Args:
            weights: requires a gradient.
            labels: (B,) int64, or (B, classes) logits of soft labels.
            again: whether a gradient of this will be taken.
        """
        targets = labels.softmax(1) if labels.is_floating_point() else labels
        loss = F.cross_entropy(self.logits(weights, images), targets)
        return torch.autograd.grad(loss, weights, create_graph=again)[0]


@dataclass(frozen=True)
class Minibatch:
    """What a student's step is taken on."""

    chosen: Tensor
    """(B,) int64, indices of synthetic images, each once."""
    augmented: Callable[[Tensor], Tensor] = lambda images: images
    """(B, C, H, W) → the same shape, differentiable."""


def trajectory_loss(
    student: Student,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    lr: Tensor,
    batches: Sequence[Minibatch],
) -> Tensor:
    """Compute the loss in its plain form: all steps of the student in one graph. `match` gives the same, and its
    gradients, without that graph.

    Args:
        start, target: (L,) weights; images: (n, C, H, W); labels: (n,) int64 or (n, classes) logits; lr: a scalar.
    """
    weights = start.detach().requires_grad_()
    for batch in batches:
        some = batch.augmented(images[batch.chosen])
        weights = weights - lr * student.gradient(weights, some, labels[batch.chosen], again=True)
    return (weights - target).square().sum() / (start - target).square().sum()


class Options(config.Options, frozen=True):
    """What methods of this kind have in common."""

    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic set")] = 5_000
    experts: Annotated[int, Meta(ge=1, le=10**6, description="networks that are trained on the real set")] = 100
    epochs: Annotated[int, Meta(ge=1, le=10**6, description="for which each expert is trained")] = 50
    lr_expert: Annotated[float, Meta(gt=0, description="step size of the experts' training")] = 0.01
    batch_expert: Annotated[int, Meta(ge=1, le=10**6, description="real images of a step of that training")] = 256
    experts_from: Annotated[
        str,
        Meta(
            pattern="^([0-9a-f]{4,64})?$",
            description="key of experts that `dambench experts import` has kept, or its beginning; empty: they are "
            "trained here",
        ),
    ] = ""
    experts_seed: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="of the experts, which runs of all seeds share")
    ] = 0
    steps: Annotated[int, Meta(ge=1, le=10**6, description="N, of a student on the synthetic set")] = 30
    expert_epochs: Annotated[int, Meta(ge=1, le=10**6, description="M: the student is to get as far in its steps")] = 2
    max_start: Annotated[int, Meta(ge=1, le=10**6, description="T⁺: students begin before this epoch")] = 20
    lr_images: Annotated[float, Meta(gt=0, description="step size for the images")] = 100.0
    momentum_images: Annotated[float, Meta(ge=0, lt=1, description="momentum of the images' SGD")] = 0.5
    lr_student: Annotated[float, Meta(gt=0, description="α, the students' step size, at the beginning")] = 0.01
    lr_lr: Annotated[float, Meta(ge=0, description="step size for α")] = 1e-5
    momentum_lr: Annotated[float, Meta(ge=0, lt=1, description="momentum of α's SGD")] = 0.5
    batch_student: (
        Annotated[int, Meta(ge=1, le=10**6, description="synthetic images of a student's step; None: all")] | None
    ) = None
    augmentation: Annotated[
        Literal["dsa", "none"], Meta(description="of the experts' and the students' batches, each image by itself")
    ] = "dsa"
    memory: Annotated[
        Literal["unrolled", "checkpointed", "tesla"],
        Meta(
            description="unrolled: keep the graphs of as many steps as fit; checkpointed: of none, the same gradient; "
            "tesla: of none, and another gradient, without what a step does to the later ones"
        ),
    ] = "unrolled"


class SoftOptions(Options, frozen=True):
    """DATM's, which PAD shares."""

    iterations: Annotated[int, Meta(ge=1, le=10**9, description="updates of the synthetic set")] = 10_000
    epochs: Annotated[int, Meta(ge=1, le=10**6, description="for which each expert is trained")] = 100
    steps: Annotated[int, Meta(ge=1, le=10**6, description="N, of a student on the synthetic set")] = 80
    min_start: Annotated[int, Meta(ge=0, le=10**6, description="T⁻: students begin at this epoch or later")] = 0
    first_max_start: (
        Annotated[int, Meta(ge=1, le=10**6, description="T: T⁺ at the beginning, from where it grows; None: T⁺")] | None
    ) = None
    expansion: Annotated[int, Meta(ge=1, le=10**9, description="iterations in which T grows to T⁺")] = 1_000
    lr_labels: Annotated[float, Meta(ge=0, description="step size for the labels' logits")] = 2.0
    momentum_labels: Annotated[float, Meta(ge=0, lt=1, description="momentum of the labels' SGD")] = 0.9
    threshold: Annotated[float, Meta(gt=0, description="a step is taken where the loss is at most this")] = 1.0
    init: Annotated[
        Literal["correct", "real"],
        Meta(description="start from real images that the first expert recognises, or from any"),
    ] = "correct"
    gsam_rho: Annotated[float, Meta(gt=0, description="ρ of the experts' GSAM")] = 0.01
    gsam_alpha: Annotated[float, Meta(ge=0, description="α of the experts' GSAM")] = 0.3


class FlatOptions(Options, frozen=True):
    """FTD's."""

    gsam_rho: Annotated[float, Meta(gt=0, description="ρ of the experts' GSAM")] = 0.01
    gsam_alpha: Annotated[float, Meta(ge=0, description="α of the experts' GSAM")] = 1.0


def training(options: Options, schedule: Schedule | None = None) -> ExpertTraining:
    """How the experts are trained.

    Args:
        schedule: which images each epoch sees; None: all.
    """
    return ExpertTraining(
        epochs=options.epochs,
        lr=options.lr_expert,
        batch=options.batch_expert,
        augmented=options.augmentation == "dsa",
        gsam=Gsam(rho=options.gsam_rho, alpha=options.gsam_alpha)
        if isinstance(options, SoftOptions | FlatOptions)
        else None,
        schedule=schedule,
        seed=options.experts_seed,
    )


AnyOptions = TypeVar("AnyOptions", bound=Options)


def settle(options: AnyOptions, card: DataCard, ipc: int | None) -> tuple[AnyOptions, PreprocessingName | None]:
    """The options with the whole key of imported experts, and the preprocessing that these were trained with.

    Raises:
        BadInput: they are not there, are of other data, or fewer or shorter than the options say.
    """
    if not options.experts_from:
        return options, None
    pool = expert_files.chosen(options.experts_from)
    how, which = pool.about.how, f"The experts {pool.key[:12]}"
    if "imported" not in how:
        raise BadInput(f"{which} were trained here: a run finds them without method.experts_from.")
    if how["data"] != card.sha256:
        raise BadInput(f"{which} were imported for other data than {card.label} has here: {pool.about.dataset}.")
    for name, there, fits in (
        ("experts", pool.count, options.experts <= pool.count),
        ("epochs", pool.about.epochs, options.epochs == pool.about.epochs),
    ):
        if not fits:
            raise BadInput(
                f"{which} have {there} {name}, the run was asked for {getattr(options, name)}: say "
                f"--set method.{name}={there}."
            )
    return msgspec.structs.replace(options, experts_from=pool.key), how["preprocessing"]


def check(network: Network, options: Options) -> None:
    """
    Raises:
        BadInput: the network has more than weights, or students would begin or end where no expert ever was, or it is
            another than imported experts have.
    """
    check_network(network)
    if options.experts_from:
        about = expert_files.chosen(options.experts_from).about
        if about.how["imported"] != str(network):
            raise BadInput(
                f"The experts {options.experts_from[:12]} are of the network {about.network}: say it as --network."
            )
    needed = options.max_start - 1 + options.expert_epochs
    if needed > options.epochs:
        raise BadInput(
            f"A student that begins at epoch {options.max_start - 1} (max_start {options.max_start}) is compared with "
            f"epoch {needed} of an expert (expert_epochs {options.expert_epochs}), and experts have {options.epochs}: "
            f"max_start is at most epochs − expert_epochs + 1."
        )
    if isinstance(options, SoftOptions):
        low, first = options.min_start, options.first_max_start or options.max_start
        if not low < first <= options.max_start:
            raise BadInput(
                f"Students begin at epoch min_start = {low} or later and before first_max_start = {first}, which grows "
                f"to max_start = {options.max_start}: the second is larger than the first, the third at least as large."
            )


def start_epochs(options: Options, done: int) -> range:
    """The epochs, one of which the student of the next iteration begins at.

    Args:
        done: iterations so far.
    """
    if not isinstance(options, SoftOptions):
        return range(options.max_start)
    first = options.first_max_start or options.max_start
    grown = first + (options.max_start - first) * done // options.expansion
    return range(options.min_start, min(options.max_start, grown))


class Match(NamedTuple):
    """The matching loss, and its gradients."""

    loss: Tensor
    images: Tensor
    labels: Tensor
    """Empty for hard labels."""
    lr: Tensor


class _StudentStep(NamedTuple):
    """A step of a student, with the graph of its gradient."""

    weights: Tensor
    images: Tensor
    labels: Tensor
    gradient: Tensor


@torch.enable_grad()
def _take_step(
    student: Student, weights: Tensor, images: Tensor, labels: Tensor, on: Minibatch, again: bool
) -> _StudentStep:
    """
    Args:
        again: whether the graph of its gradient is kept.
    """
    point = weights.detach().requires_grad_()
    some = images.detach()[on.chosen].requires_grad_()
    targets = labels.detach()[on.chosen]
    if targets.is_floating_point():
        targets.requires_grad_()
    return _StudentStep(point, some, targets, student.gradient(point, on.augmented(some), targets, again))


def match(
    student: Student,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    lr: Tensor,
    batches: Sequence[Minibatch],
    *,
    kept: int = ALL,
    constant: bool = False,
    weigh: Callable[[Tensor], Tensor] | None = None,
) -> Generator[None, None, Match]:
    """Where steps on the batches take a student, against where it should be.

    Args:
        start: (L,) weights of the student.
        target: (L,), of the expert.
        images: (n, C, H, W); labels: (n,) int64 or (n, classes) logits; lr: a scalar.
        kept: steps whose graph is kept for the way back; the others are computed again.
        constant: the weights of each step are taken for constants, as TESLA does.
        weigh: the squared differences (L,) → what each of them counts for, (L,); None: all count alike.

    Yields:
        After each step, there and back: twice as often as there are batches.
    """
    ways: list[_StudentStep | Tensor] = []
    weights, rate = start, lr.detach()
    for number, batch in enumerate(batches):
        # The last ones are kept: they are gone when the first are computed again.
        keeps = len(batches) - number <= kept
        step = _take_step(student, weights, images, labels, batch, keeps)
        ways.append(step if keeps else weights)
        weights = weights - rate * step.gradient.detach()
        del step
        yield
    apart, before = weights - target, (start - target).square()
    squares = apart.square()
    pull = 2 * apart
    if weigh is not None:
        counted = weigh(squares)
        squares, before, pull = squares * counted, before * counted, pull * counted
    whole = before.sum()
    loss, pull = squares.sum() / whole, pull / whole
    of_images, of_lr = torch.zeros_like(images, requires_grad=False), torch.zeros_like(lr, requires_grad=False)
    soft = labels.is_floating_point()
    of_labels = torch.zeros_like(labels, requires_grad=False) if soft else images.new_zeros(0)
    for number, batch in reversed(list(enumerate(batches))):
        way = ways.pop()
        step = _take_step(student, way, images, labels, batch, True) if isinstance(way, Tensor) else way
        of_lr -= step.gradient.detach() @ pull
        free = [step.images, *([step.labels] if soft else []), *([step.weights] if number and not constant else [])]
        slopes = list(torch.autograd.grad(step.gradient, free, pull * -rate))
        of_images.index_add_(0, batch.chosen, slopes.pop(0))
        if soft:
            of_labels.index_add_(0, batch.chosen, slopes.pop(0))
        if slopes:
            pull = pull + slopes[0]
        del way, step
        yield
    return Match(loss, of_images, of_labels, of_lr)


def step_bytes(student: Student, weights: Tensor, images: Tensor, labels: Tensor, on: Minibatch) -> int:
    """What the graph of one step keeps in memory."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with saved_tensors_hooks(count, lambda tensor: tensor):
        step = _take_step(student, weights, images, labels, on, True)
    return sum(kept.values()) + step.gradient.nbytes


# What of the weights is compared.


def depth_mask(length: int, ratio: float, device: torch.device) -> Callable[[Tensor], Tensor]:
    """All but the first `ratio` of them: those of the shallow layers count for nothing. The cut falls where it falls.

    Returns:
        As `match` wants it.
    """
    counted = (torch.arange(length, device=device) >= int(ratio * length)).float()
    return lambda squares: counted.to(squares.dtype)


def loss_mask(length: int, ratio: float, device: torch.device) -> Callable[[Tensor], Tensor]:
    """All but the `ratio` of them whose squared differences are the smallest at the moment."""
    counted = (torch.arange(length, device=device) >= int(ratio * length)).float()
    return lambda squares: torch.zeros_like(squares).scatter_(
        0, squares.argsort(stable=True), counted.to(squares.dtype)
    )


class LearnedRate(Learned):
    """A step size that is learned: a scalar, which one step at most doubles or halves."""

    def __init__(self, value: float, lr: float, momentum: float, device: torch.device):
        super().__init__(torch.full((), value, device=device), lr, momentum)
        self.held = torch.zeros((), dtype=torch.int64, device=device)
        """Steps that would have changed it by more."""

    @torch.no_grad()
    def move(self, allowed: Tensor) -> None:
        before = self.tensor.clone()
        super().move(allowed)
        bounded = torch.maximum(before / MOST_CHANGE, torch.minimum(before * MOST_CHANGE, self.tensor))
        held = bounded != self.tensor
        # As if the gradient had been that small: momentum would go on with a change that was not made.
        self.velocity.copy_(torch.where(held, (before - bounded) / (self.lr or 1.0), self.velocity))
        self.held.add_(held)
        self.tensor.copy_(bounded)


class TrajectoryMatching(MatchingLoop):
    """Moves a synthetic set so that steps on it take a student where real images took an expert.

    Args:
        labels: logits of soft labels, (classes * ipc, classes), which are learned; None: hard ones.
        told: labels are what the expert says, where the student is to get, of the images as they are: anew in each
            iteration, and not learned.
        weigh: as for `match`.
        recorder: stands in for CUDA's, in tests.
    """

    def __init__(
        self,
        problem: Problem,
        images: LearnedImages,
        experts: Trajectories,
        options: Options,
        *,
        labels: Tensor | None = None,
        told: bool = False,
        weigh: Callable[[Tensor], Tensor] | None = None,
        resume: State | None = None,
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
    ):
        super().__init__(problem, images, self._iterate_on, recorder)
        self.experts, self.options = experts, options
        self.student = Student(problem.new_network(0))
        self._weigh = weigh
        self.rate = LearnedRate(options.lr_student, options.lr_lr, options.momentum_lr, problem.device)
        images.learn("lr", self.rate, resume)
        self._labels = problem.labels()
        self._learned_labels: Learned | None = None
        self._within: float | None = None
        if isinstance(options, SoftOptions):
            self._within = options.threshold
        if labels is not None and isinstance(options, SoftOptions):
            self._learned_labels = Learned(labels, options.lr_labels, options.momentum_labels)
            images.learn("labels", self._learned_labels, resume)
        count = len(images.tensor)
        self._told = torch.zeros(count, problem.real.classes, device=problem.device) if told else None
        """What the expert said in the last iteration."""
        if resume is not None and self._told is not None:
            self._told.copy_(resume["told"])
        self.gated = torch.zeros((), dtype=torch.int64, device=problem.device)
        """Steps that were not taken since the loss was above the threshold."""
        if resume is not None:
            self.gated.copy_(resume["gated"])
            self.rate.held.copy_(resume["held"])
        batch = min(count, options.batch_student or count)
        of_pass = [min(batch, count - first) for first in range(0, count, batch)]
        self._sizes = [of_pass[step % len(of_pass)] for step in range(options.steps)]
        """Images of each step."""
        self._passes = -(-options.steps // len(of_pass))
        self._strategy = strategy_for(DSA, problem.card.mirrors) if options.augmentation == "dsa" else ()
        self._resumed = resume is not None

    @property
    def labels(self) -> Tensor:
        """(classes * ipc,) int64, or (classes * ipc, classes) logits."""
        if self._told is not None and self.images.iteration:
            return self._told
        return self._labels if self._learned_labels is None else self._learned_labels.tensor.detach()

    @property
    def synthetic(self) -> SyntheticSet:
        whole = self.problem.synthetic_set(self.images.tensor.detach(), self.labels)
        return replace(whole, lr=self.rate.tensor.detach())

    def state(self) -> State:
        own = {} if self._told is None else {"told": self._told.clone()}
        return self.images.state() | {"gated": self.gated.clone(), "held": self.rate.held.clone()} | own

    def _prepare(self) -> Iterator[Notice]:
        if self.problem.policy.compiled:
            reason = "trajectory matching has no compiled form"
            yield from self.problem.adapt(self.images.iteration + 1, reason, "compiled", False)
        if not self._resumed and self.options.memory == "unrolled":
            yield from self._keep_what_fits()

    def step(self) -> Generator[Notice, None, dict[str, Tensor]]:
        """Take the next iteration.

        Yields:
            How many of the student's steps are done, there and back, of all iterations.

        Returns:
            `matching`, `lr`, the step size that led to it, and `skipped`, the steps that were left out so far.
        """
        iteration = self.images.iteration + 1
        generator = self.problem.seeds.generator("trajectory", iteration)
        expert = int(torch.randint(len(self.experts), (), generator=generator))
        epochs = start_epochs(self.options, self.images.iteration)
        epoch = epochs[int(torch.randint(len(epochs), (), generator=generator))]
        start = self.experts.weights(expert, epoch)
        target = self.experts.weights(expert, epoch + self.options.expert_epochs)
        orders = [torch.randperm(len(self.images.tensor), generator=generator) for _ in range(self._passes)]
        chosen = torch.cat(orders)[: sum(self._sizes)]
        drawn = [draw(self._strategy, size, generator, one_operation=True) for size in self._sizes if self._strategy]
        losses = yield from self._until_it_fits(lambda: self._iterate(start, target, chosen, drawn))
        self.images.iteration = iteration
        if iteration == self.options.iterations:
            yield from self._closing_warnings()
        return losses

    def _iterate(
        self, start: Tensor, target: Tensor, chosen: Tensor, drawn: list[Draw]
    ) -> Generator[Notice, None, dict[str, Tensor]]:
        if self._graphed:
            table = []
            if drawn:
                whole = torch.cat([one.choice for one in drawn]), torch.cat([one.uniforms for one in drawn])
                table = [parameters(Draw(self._strategy, *whole), *self.images.tensor.shape[-2:])]
            values = self._replayed(start, target, chosen, *table)
            return dict(zip(("matching", "lr", "skipped"), values, strict=True))
        batches = [
            Minibatch(some, partial(_augmented, drawn=drawn[step]) if drawn else Minibatch.augmented)
            for step, some in enumerate(chosen.split(self._sizes))
        ]
        steps = self._descend(start, target, batches)
        total = 2 * len(batches) * self.options.iterations
        done = 2 * len(batches) * self.images.iteration
        note = f"student {self.images.iteration + 1}"
        spent = {"student's steps": 0.0, "way back": 0.0, "update": 0.0}
        there = done + len(batches)
        while True:
            began, part = time.perf_counter(), "student's steps" if done < there else "way back"
            try:
                next(steps)
            except StopIteration as end:
                self.parts = spent | {"update": time.perf_counter() - began}
                losses: dict[str, Tensor] = end.value
                return losses
            spent[part] += time.perf_counter() - began
            done += 1
            yield Progressed(phase="distil", done=done, total=total, note=note)

    def _iterate_on(self, start: Tensor, target: Tensor, chosen: Tensor, table: Tensor | None = None) -> list[Tensor]:
        rows: Sequence[Tensor | None] = [None] * len(self._sizes) if table is None else table.split(self._sizes)
        batches = [
            Minibatch(some, Minibatch.augmented if part is None else partial(_augmented_by, table=part))
            for some, part in zip(chosen.split(self._sizes), rows, strict=True)
        ]
        return list(_result(self._descend(start, target, batches)).values())

    def _descend(
        self, start: Tensor, target: Tensor, batches: Sequence[Minibatch]
    ) -> Generator[None, None, dict[str, Tensor]]:
        matched = yield from match(
            self.student,
            start,
            target,
            self.images.tensor,
            self.labels if self._told is None else self._tell(target, self._told),
            self.rate.tensor,
            batches,
            kept=self.problem.policy.kept_steps if self.options.memory == "unrolled" else 0,
            constant=self.options.memory == "tesla",
            weigh=self._weigh,
        )
        self.images.gradient.copy_(matched.images)
        self.rate.gradient.copy_(matched.lr)
        if self._learned_labels is not None:
            self._learned_labels.gradient.copy_(matched.labels)
        within = None
        if self._within is not None:
            within = matched.loss <= self._within
            self.gated.add_(~within)
        return self.images.descend({"matching": matched.loss, "lr": self.rate.tensor.detach().clone()}, within)

    @torch.no_grad()
    def _tell(self, target: Tensor, told: Tensor) -> Tensor:
        """Write what the expert says of the images, (classes * ipc, classes) logits, into a tensor that stays."""
        for part, images in zip(told.split(TOLD_AT_ONCE), self.images.tensor.split(TOLD_AT_ONCE), strict=True):
            part.copy_(self.student.logits(target, images))
        return told

    def _keep_what_fits(self) -> Iterator[Notice]:
        """Where the graphs of all steps would not fit the memory that is free, keep fewer, from the beginning on."""
        policy = self.problem.policy
        weights = self.experts.weights(0, 0)
        some = torch.arange(self._sizes[0], device=self.problem.device)
        try:
            one = step_bytes(self.student, weights, self.images.tensor, self.labels, Minibatch(some))
        except torch.OutOfMemoryError:
            return  # iterations deal with it
        free = policy.free_bytes()
        fit = int(free * MOST_OF_MEMORY / one)
        if fit < self.options.steps:
            why = f"the graphs of {self.options.steps} steps take {size(self.options.steps * one)}"
            reason = f"{why}, and {size(free)} are free"
            yield from self.problem.adapt(self.images.iteration + 1, reason, "kept_steps", fit)

    def _less(self, reason: str) -> tuple[str, int]:
        """Halve the steps whose graphs are kept."""
        policy = self.problem.policy
        now = min(policy.kept_steps, self.options.steps) if self.options.memory == "unrolled" else 0
        if not now:
            raise NotEnoughMemory(
                f"One step of a student on {max(self._sizes)} images does not fit the GPU's memory, of which "
                f"{size(policy.used_bytes())} are in use: take a smaller batch_student. ({reason})"
            )
        return "kept_steps", now // 2

    def _follow_policy(self) -> None:
        """Each iteration reads it anew."""

    def _closing_warnings(self) -> Iterator[Warned]:
        """At the end, what a reader should know of steps that were not taken as they were computed."""
        held, gated = int(self.rate.held), int(self.gated)
        if held:
            yield Warned(
                message=f"In {held} of {self.options.iterations} iterations the students' step size was held back, to "
                "be at most doubled or halved: a smaller lr_lr may help (--set method.lr_lr=…)."
            )
        if gated:
            yield Warned(
                message=f"In {gated} of {self.options.iterations} iterations the loss was above the threshold of "
                f"{self._within:g}, and the set stayed as it was."
            )


def _augmented(images: Tensor, drawn: Draw) -> Tensor:
    return augment(images.unsqueeze(1), drawn).squeeze(1)


def _augmented_by(images: Tensor, table: Tensor) -> Tensor:
    return augment_by(images.unsqueeze(1), table).squeeze(1)


def _result(steps: Generator[Any, None, dict[str, Tensor]]) -> dict[str, Tensor]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            losses: dict[str, Tensor] = end.value
            return losses
