"""Matching by gradients: where a step on the real images of a class would take a network, and one on the synthetic.

DC and DSA are of this kind. For a network θ and each class c, g_T = ∇θ CE(real_c) and g_S = ∇θ CE(synthetic_c), and

    loss = Σ_c Σ_layers Σ_rows 1 − ⟨g_T, g_S⟩ / (‖g_T‖ ‖g_S‖ + 1e-6)

with a row what leads to one output: a convolution's weight is (out, in · kh · kw), a linear layer's (out, in), a layer
norm's (C, H · W). Biases and the weights of other norms have no rows and count for nothing. The released code has two
more distances, of all of a class's gradient in one row, biases and norms included: `mse`, ‖g_T − g_S‖², and `cos`,
1 − ⟨g_T, g_S⟩ / (‖g_T‖ ‖g_S‖ + 1e-6). The images go down this loss, which is a gradient of a gradient, and between two
of their steps the network is trained on them.

A class's gradient is a sum over its images, so the real ones go through the network a few at a time, and classes are
worked on side by side. That holds with BatchNorm too: its statistics are set by a few real images first, and stay.
(All ten classes at once by torch.func.vmap, against a plain loop, two threads, width 64, the machine not quite idle:
1.8 to 1.9 times as long for 64 real images each; for the gradient of a gradient 0.6 at IPC 1 and 1.1 at IPC 10.)
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from copy import deepcopy
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from dambench.core import config
from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.core.errors import NotEnoughMemory
from dambench.core.events import SKIPPED, Progressed
from dambench.core.protocol import DSA, Budget, Protocol
from dambench.matching.optimised import LearnedImages
from dambench.matching.real_batch import RealBatch, RealBatchLoop, even_part, exact, too_little
from dambench.training.cuda_graph import GraphRecorder
from dambench.training.policy import Policy
from dambench.training.problem import Network, Notice, Problem, State, Step
from dambench.training.train import Training

EPSILON = 1e-6

STATISTICS = 16
"""Real images per class by which BatchNorm's statistics are set before a match."""

UPDATES = 50
"""Most updates of the images per network: as many as images per class, up to here."""

EPOCHS = {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
"""By IPC, the epochs for which a network is trained between two updates."""


def gradient_matching_loss(network: Network, real: Tensor, synthetic: Tensor, apart: str = "rows") -> Tensor:
    """Compute the loss in its plain form: class after class, all images of one at once.

    Args:
        real: (classes, n, C, H, W), synthetic: (classes, ipc, C, H, W); augmented, each class alike.
        apart: one of `DISTANCES`.
    """

    def gradient(images: Tensor, label: int) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(network(images), torch.full((len(images),), label, device=images.device))
        return torch.autograd.grad(loss, list(network.parameters()), create_graph=True)

    loss = synthetic.new_zeros(())
    for label, (real_c, synthetic_c) in enumerate(zip(real, synthetic, strict=True)):
        target = [slope.detach() for slope in gradient(real_c, label)]
        loss = loss + DISTANCES[apart](gradient(synthetic_c, label), target)
    return loss


class Options(config.Options, frozen=True):
    """What methods of this kind have in common."""

    iterations: Annotated[int, Meta(ge=1, le=10**9, description="networks, each matched `updates` times")] = 1_000
    updates: Annotated[int, Meta(ge=1, le=10**6, description="of the images per network")] | None = None
    """None: as many as images per class, at most 50."""
    epochs: (
        Annotated[int, Meta(ge=0, le=10**6, description="of a network's training on the images between two updates")]
        | None
    ) = None
    """None: the published 1, 50, 25, 20, 15, 10 at IPC 1, 10, 20, 30, 40, 50; between these in a straight line."""
    lr_images: Annotated[float, Meta(gt=0, description="step size for the images")] = 0.1
    momentum_images: Annotated[float, Meta(ge=0, lt=1, description="momentum of the images' SGD")] = 0.5
    lr_network: Annotated[float, Meta(gt=0, description="step size of a network's training")] = 0.01
    batch_network: Annotated[int, Meta(ge=1, le=10**6, description="images of a step of that training")] = 256
    batch_real: Annotated[int, Meta(ge=1, le=10**6, description="real images per class and update")] = 256
    init: Annotated[Literal["real", "noise"], Meta(description="start from random real images or from N(0, 1)")] = (
        "real"
    )
    augmentation: Annotated[
        Literal["dsa", "none"],
        Meta(description="the same draw for a class's real and synthetic images, and of each image in training"),
    ] = "dsa"
    distance: Annotated[
        Literal["rows", "mse", "cos"],
        Meta(description="of two gradients: the cosine of each row of each layer, all squares, or one cosine of all"),
    ] = "rows"


DIGITS = Recipe(
    datasets=("digits",),
    options={"iterations": 100, "batch_real": 64},
    source="ours: digits has 130 images per class and a 2-block network, and is done in seconds" + CHECKED,
)

BRIEF = (
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        ipc=(1, 1),
        options={"iterations": 200, "batch_real": 64},
        network="convnet-d3-w64",
        source="ours, meant for two minutes on two idle CPU cores (timed on busy ones: 6 to 8): "
        "200 networks (published: 1,000), width 64 (128), 64 real images per class (256)" + UNCHECKED,
    ),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        ipc=(2, None),
        options={"iterations": 20, "updates": 5, "epochs": 5, "batch_real": 32, "init": "real"},
        network="convnet-d3-w64",
        source="ours, meant for two minutes on two idle CPU cores at IPC 10, not timed: "
        "20 networks (published: 1,000), 5 updates each "
        "with 5 epochs between them (10 and 50), width 64 (128), 32 real images per class (256), from real images"
        + UNCHECKED,
    ),
)
"""DC's and DSA's."""


def updates_for(ipc: int) -> int:
    """Updates of the images per network."""
    return min(ipc, UPDATES)


def epochs_for(ipc: int) -> int:
    """Epochs of a network's training between two updates."""
    below = max(entry for entry in EPOCHS if entry <= ipc)
    above = min((entry for entry in EPOCHS if entry >= ipc), default=below)
    share = (ipc - below) / max(1, above - below)
    return round(EPOCHS[below] + share * (EPOCHS[above] - EPOCHS[below]))


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """How far two gradients of one network are from pointing the same way: the sum over the rows of all layers.

    Args:
        ours, theirs: by parameter, of its shape; those of one dimension are passed over.
    """
    total = ours[0].new_zeros(())
    for one, other in zip(ours, theirs, strict=True):
        if one.dim() > 1:
            a, b = one.flatten(1), other.flatten(1)
            cosines = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + EPSILON)
            total = total + (1 - cosines).sum()
    return total


def squares(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """‖ours − theirs‖², of all parameters in one row."""
    return torch.stack([(one - other).square().sum() for one, other in zip(ours, theirs, strict=True)]).sum()


def cosine(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """1 − cos(ours, theirs), of all parameters in one row."""
    a, b = (torch.cat([tensor.flatten() for tensor in some]) for some in (ours, theirs))
    apart: Tensor = 1 - (a * b).sum() / (a.norm() * b.norm() + EPSILON)
    return apart


DISTANCES = {"rows": distance, "mse": squares, "cos": cosine}


class ClassGradients:
    """The gradients of each class for a network, and how to bring the synthetic ones nearer to the real ones.

    Args:
        network: its weights require gradients; they may change from call to call, in place.
        apart: one of `DISTANCES`.
    """

    def __init__(self, network: Network, policy: Policy, apart: str = "rows"):
        self.network, self.policy, self.apart = network, policy, apart
        self.phase = "real"
        """Which images were being looked at last: `real` or `synthetic`."""
        # The real branch may have a precision of its own: the same network, its weights rounded.
        rounded = policy.real_dtype != torch.float32
        self._real_network = deepcopy(network).to(policy.real_dtype) if rounded else network

    def pull(self, batch: RealBatch, synthetic: Tensor, gradient: Tensor) -> Tensor:
        """The matching loss, and its gradient with respect to the synthetic images.

        Args:
            synthetic: (classes * ipc, C, H, W), sorted by class. It is augmented as the real batch is.
            gradient: the same shape; overwritten.
        """
        classes = len(batch.indices)
        labels = torch.arange(batch.first, batch.first + classes, device=synthetic.device)
        by_class, slopes = (tensor.detach().unflatten(0, (classes, -1)) for tensor in (synthetic, gradient))
        if self._real_network is not self.network:
            _copy(self.network, self._real_network)

        def descend(label: int) -> Tensor:
            of = slice(label, label + 1)
            self.phase = "real"
            target = self.of_real(batch, of, labels[of])
            self.phase = "synthetic"
            images = by_class[of].clone().requires_grad_()
            own = self._gradients(self.network, batch.augmented(images, of).flatten(0, 1), labels[of], again=True)
            apart = DISTANCES[self.apart](own, target)
            (slopes[of],) = torch.autograd.grad(apart, images)
            return apart.detach()

        with torch.enable_grad():
            return torch.stack(self.policy.each(descend, range(classes))).sum()

    def of_real(self, batch: RealBatch, of: slice, label: Tensor) -> list[Tensor]:
        """The mean gradient of one class's real images, by parameter that counts.

        Args:
            label: (1,).
        """
        count = batch.indices.shape[1]
        part = even_part(count, min(count, self.policy.real_chunk))
        total: list[Tensor] = []
        dtype = next(self._real_network.parameters()).dtype
        for first in range(0, count, part):
            images = batch.images(of, slice(first, first + part)).flatten(0, 1)
            slopes = self._gradients(self._real_network, images.to(dtype), label)
            scaled = torch._foreach_mul([exact(slope) for slope in slopes], len(images) / count)
            total = list(torch._foreach_add(total, scaled)) if total else list(scaled)
        return total

    def _gradients(self, network: Network, images: Tensor, label: Tensor, again: bool = False) -> tuple[Tensor, ...]:
        """Compute the gradient of the mean cross-entropy of images of one class (label (1,)), by parameter that counts.

        Args:
            again: whether a gradient of these will be taken.
        """
        logits = network(images) if again else network.forward_once(images)
        loss = F.cross_entropy(logits, label.expand(len(images)))
        counting = [p for p in network.parameters() if self.apart != "rows" or p.dim() > 1]
        return torch.autograd.grad(loss, counting, create_graph=again)


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    """The weights, the statistics, and whether these are held; in place."""
    for module, other in zip(source.modules(), target.modules(), strict=True):
        other.training = module.training
    for tensor, place in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        place.copy_(tensor)


class GradientMatching(RealBatchLoop):
    """Moves synthetic images so that a step on them trains a network as one on the real images does.

    Args:
        recorder: stands in for CUDA's, in tests.
    """

    names = ("matching", SKIPPED)

    def __init__(
        self,
        problem: Problem,
        images: LearnedImages,
        options: Options,
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
    ):
        super().__init__(problem, images, options.batch_real, options.augmentation, recorder)
        self.options = options
        self.updates = options.updates or updates_for(problem.ipc)
        epochs = epochs_for(problem.ipc) if options.epochs is None else options.epochs
        network = problem.new_network(images.iteration + 1).requires_grad_(True)
        self.inner = self._training = None
        if epochs and self.updates > 1:
            self.inner = Protocol(
                name="between two updates",
                synthetic=Budget(epochs=epochs),
                whole=Budget(epochs=epochs),
                batch=options.batch_network,
                lr=options.lr_network,
                momentum=0.0,
                weight_decay=0.0,
                augmentation=DSA if options.augmentation == "dsa" else (),
            )
            # Before anything is recorded: on a GPU it moves the network's weights, once and for all.
            data = problem.synthetic_set(images.tensor.detach())
            self._training = Training(
                [network], data, self.inner, mirrors=problem.card.mirrors, on_warning=self._warnings.append
            )
        self.gradients = ClassGradients(network, problem.policy, options.distance)

    def _prepare(self) -> Iterator[Notice]:
        yield from super()._prepare()
        if self.problem.policy.compiled:
            reason = "gradient matching has no compiled form"
            yield from self.problem.adapt(self.images.iteration + 1, reason, "compiled", False)

    def step(self) -> Generator[Notice, None, dict[str, Tensor]]:
        """Take the next iteration: a new network, and all updates that it is used for.

        Yields:
            How many updates are done, of all iterations.

        Returns:
            `matching`, the mean over the updates, and `skipped`, the updates that were left out so far: detached
            scalars, valid until the next.
        """
        began = time.perf_counter()
        iteration = self.images.iteration + 1
        network = self.problem.new_network(iteration)
        losses = []
        matching = training = 0.0
        for update in range(self.updates):
            number = self.images.iteration * self.updates + update
            since = time.perf_counter()
            if update and self._training is not None:
                # On the synthetic images as they are now. (One rank does it for all, to the same bits.)
                seeds = [self.problem.seeds.child("inner training", number)]
                ranks = self.problem.ranks
                for _ in self._training.run(seeds, reinitialise=False) if ranks is None or ranks.is_first else ():
                    yield self._progressed(number)
                if ranks is not None:
                    ranks.follow_first(list(network.parameters()))
            trained = time.perf_counter()
            self._set_statistics(network, number + 1)
            moved = yield from self._move(number + 1)
            losses.append(moved["matching"].clone())
            training += trained - since
            matching += time.perf_counter() - trained
            if update + 1 < self.updates:
                yield self._progressed(number + 1)
        self.images.iteration = iteration
        means = {"matching": torch.stack(losses).mean(), "skipped": self.images.skipped.clone()}
        if self.problem.device.type == "cpu":
            rest = time.perf_counter() - began - matching - training
            self.parts = {"matching": matching, "network training": training, "new network": rest}
        return means

    def _pull(self, batch: RealBatch, images: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        return {"matching": self.gradients.pull(batch, images, gradient)}

    def _less(self, reason: str) -> tuple[str, int]:
        """Halve the real images that go through the network at once."""
        policy, gradients = self.problem.policy, self.gradients
        of_real = gradients.phase == "real"
        now = min(policy.real_chunk, self.count) if of_real else self.problem.ipc
        if now == 1 or not of_real:
            raise NotEnoughMemory(too_little(gradients.phase, now, False, reason, policy))
        return "real_chunk", -(-now // 2)

    def _follow_policy(self) -> None:
        self.gradients = ClassGradients(self.gradients.network, self.problem.policy, self.gradients.apart)

    @torch.no_grad()
    def _set_statistics(self, network: Network, number: int) -> None:
        """Show BatchNorm a few real images of every class, then hold its statistics."""
        network.train()
        if network.uses_batch_statistics:
            real = self.problem.real
            network(real.sample(STATISTICS, self.problem.generator("statistics", number)).flatten(0, 1))
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _progressed(self, number: int) -> Progressed:
        note = f"update {number % self.updates + 1} of {self.updates} of network {number // self.updates + 1}"
        return Progressed(phase="distil", done=number, total=self.options.iterations * self.updates, note=note)


def match_gradients(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Distil by gradients: a whole `distill` for a method of this kind."""
    images = LearnedImages(problem, options.init, options.lr_images, options.momentum_images, resume)
    yield from GradientMatching(problem, images, options).steps(options.iterations)
