"""Train networks on one labelled set: the only such loop.

SGD with cross-entropy, as in the code of DC and its descendants; the protocol says for how long and with what. On
request its gradients are those of GSAM (Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training",
ICLR 2022), as the experts of FTD, DATM and PAD have them.

A small network on a GPU waits for its launches, so there networks of one architecture take their steps together, with
their weights stacked, and each step is a CUDA graph. Each has its own weights, batches and augmentations, those that
it would have alone; only sums are rounded otherwise. On a CPU that would gain nothing, and a network that trains alone
takes the steps of torch's own optimiser.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
import torch.nn.functional as F
from msgspec import Struct
from torch import Tensor
from torch.func import functional_call, stack_module_state

from dambench.core.protocol import Protocol
from dambench.training.augmentation import (
    FILLED,
    Draw,
    augment,
    augment_by,
    draw_passes,
    joined,
    parameters,
    passes,
    strategy_for,
)
from dambench.training.cuda_graph import Replayed
from dambench.training.descent import AdamW, Sgd
from dambench.training.mixing import Mix, draw_mix, mix
from dambench.training.problem import Network, Seeds, SyntheticSet

# What plug-ins may import: see docs/plugins.md.
__all__ = ["predict", "train"]

DEFAULT_LR = 0.01

EPSILON = 1e-12
"""Beside a norm that is divided by."""

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8

Gradients = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Parameters → the gradients of a batch's loss there. Both are (networks, …) each."""


class Gsam(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Surrogate-gap guided sharpness-aware minimisation: steps towards wide minima."""

    rho: float = 0.01
    """How far away the second gradient is taken."""
    alpha: float = 0.3
    """How much of the first gradient is climbed, where it has nothing to do with the second."""
    adaptive: bool = True
    """Whether a parameter is moved in proportion to its own square, as in ASAM."""


def train(
    network: Network,
    data: SyntheticSet,
    protocol: Protocol,
    seeds: Seeds,
    *,
    mirrors: bool,
    reinitialise: bool = True,
    teacher: Network | None = None,
) -> Iterator[tuple[int, int]]:
    """`train_together`, one network."""
    return train_together(
        [network], data, protocol, [seeds], mirrors=mirrors, reinitialise=reinitialise, teacher=teacher
    )


def train_together(
    networks: Sequence[Network],
    data: SyntheticSet,
    protocol: Protocol,
    seeds: Sequence[Seeds],
    *,
    mirrors: bool,
    reinitialise: bool = True,
    on_warning: Callable[[str], None] = lambda message: None,
    gsam: Gsam | None = None,
    epoch_indices: Callable[[int], Tensor] | None = None,
    on_epoch_end: Callable[[int], None] = lambda epochs: None,
    teacher: Network | None = None,
) -> Iterator[tuple[int, int]]:
    """Draw the networks' weights, then train each on the set for the protocol's budget, in place.

    Args:
        networks: of one architecture.
        data: on the networks' device.
        seeds: of each network. Weights, the order of the batches and their augmentation come from them.
        mirrors: whether a mirror image belongs to the same class.
        reinitialise: False: go on from the weights that the networks have.
        on_warning: told once, if a GPU cannot take the step as a graph.
        gsam: None: the gradients are those of the loss.
        epoch_indices: the indices of the images of an epoch 0, 1, …, (n,) int64 on the CPU; None: all, in each.
        on_epoch_end: called before the first epoch with 0, and after each with how many are done.
        teacher: the network whose labels the protocol takes, if it does, on the networks' device.

    Yields:
        After each step, how many are done and how many there will be.
    """
    training = Training(networks, data, protocol, mirrors=mirrors, on_warning=on_warning, gsam=gsam, teacher=teacher)
    return training.run(seeds, reinitialise=reinitialise, epoch_indices=epoch_indices, on_epoch_end=on_epoch_end)


class Training:
    """Networks and the set that they are trained on, once or again and again: a GPU records the step only once.

    From the beginning the weights of networks on a GPU are rows of one tensor for each parameter. The set is looked at
    when a step is taken: its images may change between two runs, in place. (Mosaics are decoded here, once.)

    Args: as for `train_together`.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        data: SyntheticSet,
        protocol: Protocol,
        *,
        mirrors: bool,
        on_warning: Callable[[str], None] = lambda message: None,
        gsam: Gsam | None = None,
        teacher: Network | None = None,
    ) -> None:
        data = data.decoded()
        self._networks, self._protocol = networks, protocol
        self._budget = protocol.whole if data.whole else protocol.synthetic
        self._strategy = strategy_for(protocol.augmentation, mirrors)
        self._passes = passes(self._strategy) if protocol.draws == "all at once" else (self._strategy,)
        self._lr = _rate(data) if isinstance(protocol.lr, str) else protocol.lr
        self._device = data.images.device
        labels = data.hard_labels if protocol.labels == "hard" else data.labels
        if labels.is_floating_point():
            labels = labels.softmax(1)
        elif protocol.mixing != "none":
            dtype = data.images.dtype if data.images.is_floating_point() else torch.float32
            labels = F.one_hot(labels, len(data.classes)).to(dtype)
        self._images = len(labels)
        if (protocol.labels == "teacher") != (teacher is not None):
            raise ValueError("a protocol has a teacher where its labels are those of one, and only there")
        taught = None if teacher is None else teacher.requires_grad_(False).eval()
        loss = _Loss(protocol, taught)
        self._learner: _Single | _Stack
        if len(networks) == 1 and self._device.type == "cpu":
            self._learner = _Single(networks[0], data, labels, protocol, gsam, loss)
        else:
            self._learner = _Stack(networks, data, labels, protocol, gsam, on_warning, loss)

    def run(
        self,
        seeds: Sequence[Seeds],
        *,
        reinitialise: bool = True,
        epoch_indices: Callable[[int], Tensor] | None = None,
        on_epoch_end: Callable[[int], None] = lambda epochs: None,
    ) -> Iterator[tuple[int, int]]:
        """Train, from new weights or those that the networks have: see `train_together`."""
        protocol, budget, lr = self._protocol, self._budget, self._lr
        together = protocol.draws != "for each image"
        size = self._learner.size
        for network, own in zip(self._networks, seeds, strict=True):
            if reinitialise:
                network.reset(own.generator("weights", device=self._device))
            network.train()
        self._learner.forget_momentum()
        if epoch_indices is None:
            total = budget.epochs * self._steps(self._images)
        else:
            total = sum(self._steps(len(epoch_indices(epoch))) for epoch in range(budget.epochs))
        done = 0
        on_epoch_end(0)
        for epoch in range(budget.epochs):
            if epoch in budget.drops:
                lr *= protocol.decay
                if not protocol.keeps_momentum:
                    self._learner.forget_momentum()
            some = None if epoch_indices is None else epoch_indices(epoch)
            count = self._images if some is None else len(some)
            orders = torch.stack([torch.randperm(count, generator=own.generator("order", epoch)) for own in seeds])
            for index, chosen in enumerate((orders if some is None else some[orders]).split(protocol.batch, dim=1)):
                generators = [own.generator("augmentation", epoch, index) for own in seeds] if self._strategy else []
                count_of = chosen.shape[1]
                drawn = [
                    draw_passes(self._passes, count_of, generator, one_operation=together) for generator in generators
                ]
                mixes = []
                if protocol.mixing != "none":
                    how = protocol.mixing, protocol.mixing_probability, protocol.mixing_alpha, count_of, size
                    mixes = [draw_mix(*how, own.generator("mixing", epoch, index)) for own in seeds]
                self._learner.step(chosen, drawn, lr * self._shape(epoch), mixes)
                done += 1
                if index == self._steps(count) - 1:
                    on_epoch_end(epoch + 1)
                yield done, total

    def _steps(self, images: int) -> int:
        return -(-images // self._protocol.batch)

    def _shape(self, epoch: int) -> float:
        """The share of the learning rate that a schedule without drops leaves in an epoch."""
        if self._protocol.schedule == "drops":
            return 1.0
        end = self._budget.epochs * (2 if self._protocol.schedule == "half cosine" else 1)
        return 0.5 * (1 + cos(pi * epoch / end))


@dataclass(frozen=True)
class _Loss:
    """The loss of batches of several networks, and what a teacher says of them.

    Args:
        teacher: in evaluation mode, its weights frozen; None: labels are those of the set.
    """

    protocol: Protocol
    teacher: Network | None

    def rounding(self, device: torch.device) -> torch.autocast:
        """The context in which a network's logits are computed, with the products that the protocol wants."""
        # Without a cache of weights: a step needs each once, and a graph of a GPU may keep none.
        rounded = self.protocol.precision == "bf16"
        return torch.autocast(device.type, torch.bfloat16, enabled=rounded, cache_enabled=False)

    @torch.no_grad()
    def targets(self, images: Tensor, labels: Tensor) -> Tensor:
        """Give the teacher's log-probabilities of images (n, C, H, W), or the labels as they are."""
        if self.teacher is None:
            return labels
        return F.log_softmax(self.teacher(images) / self.protocol.temperature, 1)

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Add up the losses of images, (n, classes)."""
        if self.teacher is None:
            return F.cross_entropy(logits, targets, reduction="sum")
        own = F.log_softmax(logits / self.protocol.temperature, 1)
        return F.kl_div(own, targets, log_target=True, reduction="sum")

    def mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.teacher is None:
            return F.cross_entropy(logits, targets)
        return self.total(logits, targets) / len(logits)


def _rate(data: SyntheticSet) -> float:
    """The learning rate that a set carries. One of 0 is one: nothing is learned with it."""
    return DEFAULT_LR if data.lr is None else float(data.lr)


@torch.no_grad()
def sharpened(gradients: Gradients, parameters: Sequence[Tensor], how: Gsam) -> list[Tensor]:
    """The gradients of GSAM: those of the loss at a point uphill, less a share of what is orthogonal to them here.

    With g here, and g' at θ + ρ |θ|² g / ‖|θ| g‖: g' − α (g − (g·g' / ‖g'‖²) g').

    Args:
        parameters: (networks, …) each; norms and products are over all parameters of a network.
    """
    first = gradients(parameters)
    weights = [parameter.abs() if how.adaptive else torch.ones_like(parameter) for parameter in parameters]
    norm = _products(weighted := [w * g for w, g in zip(weights, first, strict=True)], weighted).sqrt()
    far = how.rho / (norm + EPSILON)
    uphill = [p + _beside(far, p) * w * v for p, w, v in zip(parameters, weights, weighted, strict=True)]
    second = gradients(uphill)
    along = _products(first, second) / (_products(second, second) + EPSILON**2)
    return [b - how.alpha * (a - _beside(along, b) * b) for a, b in zip(first, second, strict=True)]


def _products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Scalar products, one for each network: (networks,)."""
    return torch.stack([(a * b).flatten(1).sum(1) for a, b in zip(left, right, strict=True)]).sum(0)


def _beside(numbers: Tensor, parameter: Tensor) -> Tensor:
    """One number for each network, to be multiplied with a parameter of each: (networks,) → (networks, 1, …)."""
    return numbers.view(-1, *[1] * (parameter.dim() - 1))


class _Single:
    """One network on a CPU."""

    def __init__(
        self, network: Network, data: SyntheticSet, labels: Tensor, protocol: Protocol, gsam: Gsam | None, loss: _Loss
    ) -> None:
        self._network, self._data, self._labels, self._gsam = network, data, labels, gsam
        self._protocol, self._loss = protocol, loss
        self._filled = any(operation in FILLED for operation in protocol.augmentation)
        parameters = list(network.parameters())
        self._descent: Sgd | AdamW
        if protocol.optimiser == "adamw":
            self._descent = AdamW(parameters, ADAM_BETAS, ADAM_EPSILON, protocol.weight_decay)
        else:
            self._descent = Sgd(parameters, protocol.momentum, protocol.weight_decay)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self._data.images.shape[-2], self._data.images.shape[-1]

    def step(self, chosen: Tensor, drawn: Sequence[Draw], lr: float, mixes: Sequence[Mix]) -> None:
        """One step on the images `chosen` (1, B), each batch augmented and mixed as drawn for it, if anything was."""
        images = self._data.inputs(chosen[0])
        for one in drawn:
            images = augment(images.unsqueeze(1), one, _colour(images, self._filled)).squeeze(1)
        labels = self._labels[chosen[0]]
        for mixed_by in mixes:
            partners, numbers = mixed_by.partners.unsqueeze(0), mixed_by.numbers.unsqueeze(0)
            batch = images.unsqueeze(0), labels.unsqueeze(0), partners, numbers
            images, labels = (mixed[0] for mixed in mix(self._protocol.mixing, *batch))
        labels = self._loss.targets(images, labels)
        self._network.zero_grad()
        if self._gsam is None:
            with self._loss.rounding(images.device):
                logits = self._network.forward_once(images)
            self._loss.mean(logits.to(images.dtype), labels).backward()
        else:
            names, parameters = zip(*self._network.named_parameters(), strict=True)

            def gradients(at: Sequence[Tensor]) -> Sequence[Tensor]:
                with torch.enable_grad():
                    free = [tensor.detach()[0].requires_grad_() for tensor in at]
                    with self._loss.rounding(images.device):
                        logits = functional_call(self._network, dict(zip(names, free, strict=True)), (images,))
                    slopes = torch.autograd.grad(self._loss.mean(logits.to(images.dtype), labels), free)
                return [slope.unsqueeze(0) for slope in slopes]

            here = [parameter.unsqueeze(0) for parameter in parameters]
            for parameter, gradient in zip(parameters, sharpened(gradients, here, self._gsam), strict=True):
                parameter.grad = gradient[0]
        self._descent.step(lr)

    def forget_momentum(self) -> None:
        self._descent.forget()


class _Stack:
    """Networks that take their steps together.

    Their weights become rows of one tensor for each parameter, and what the stack learns the networks know at once.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        data: SyntheticSet,
        labels: Tensor,
        protocol: Protocol,
        gsam: Gsam | None,
        on_warning: Callable[[str], None],
        loss: _Loss,
    ) -> None:
        self._network, self._data, self._labels = networks[0], data, labels
        self._protocol, self._gsam, self._loss = protocol, gsam, loss
        self._filled = any(operation in FILLED for operation in protocol.augmentation)
        self._parameters, self._buffers = stack_module_state(list(networks))
        for row, network in enumerate(networks):
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                tensor.data = (self._parameters | self._buffers)[name].detach()[row]
        self._velocities = {name: torch.zeros_like(stacked) for name, stacked in self._parameters.items()}
        """Momenta, first moments of AdamW."""
        self._squares = {}
        if protocol.optimiser == "adamw":
            self._squares = {name: torch.zeros_like(stacked) for name, stacked in self._parameters.items()}
        self._moves = 0
        """Steps since the momenta were 0."""
        self._step = Replayed(self._descend, data.images.device, on_warning=on_warning)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self._data.images.shape[-2], self._data.images.shape[-1]

    def step(self, chosen: Tensor, drawn: Sequence[Draw], lr: float, mixes: Sequence[Mix]) -> None:
        """One step of each network on its images `chosen` (networks, B), augmented and mixed as drawn for it."""
        more = []
        if drawn:
            more = [parameters(joined(drawn), *self._data.images.shape[-2:])]
        if mixes:
            more += [torch.stack([one.partners for one in mixes]), torch.stack([one.numbers for one in mixes])]
        self._moves += 1
        rates = torch.tensor(lr, dtype=torch.float64)
        if self._squares:
            corrections = [1 - beta**self._moves for beta in ADAM_BETAS]
            rates = torch.tensor([lr, *corrections], dtype=torch.float64)
        self._step(chosen, rates, *more)

    def forget_momentum(self) -> None:
        self._moves = 0
        for moment in [*self._velocities.values(), *self._squares.values()]:
            moment.zero_()

    def _descend(self, chosen: Tensor, rates: Tensor, *more: Tensor) -> list[Tensor]:
        images, labels = self._data.inputs(chosen), self._labels[chosen]
        *table, partners, numbers = more if self._protocol.mixing != "none" else (*more, chosen, chosen)
        if table:
            colour = _colour(images, self._filled)
            images = augment_by(images.flatten(0, 1).unsqueeze(1), table[0], colour).view_as(images)
        if self._protocol.mixing != "none":
            images, labels = mix(self._protocol.mixing, images, labels, partners, numbers)
        targets = self._loss.targets(images.flatten(0, 1), labels.flatten(0, 1))

        def gradients(at: Sequence[Tensor]) -> Sequence[Tensor]:
            with torch.enable_grad():
                free = [tensor.detach().requires_grad_() for tensor in at]
                named = dict(zip(self._parameters, free, strict=True))
                with self._loss.rounding(images.device):
                    logits = torch.vmap(self._forward)(named, self._buffers, images)
                # A sum over networks of what each would have alone, so that each gets its own gradient.
                losses = self._loss.total(logits.flatten(0, 1).to(images.dtype), targets)
                return torch.autograd.grad(losses / chosen.shape[1], free)

        here = list(self._parameters.values())
        slopes = gradients(here) if self._gsam is None else sharpened(gradients, here, self._gsam)
        for (name, parameter), gradient in zip(self._parameters.items(), slopes, strict=True):
            self._move(name, parameter, gradient, rates)
        return []

    @torch.no_grad()
    def _move(self, name: str, parameter: Tensor, gradient: Tensor, rates: Tensor) -> None:
        velocity, decay = self._velocities[name], self._protocol.weight_decay
        if not self._squares:
            velocity.mul_(self._protocol.momentum).add_(gradient.add(parameter, alpha=decay))
            parameter.sub_(velocity * rates)
            return
        lr, first, second = rates.unbind()
        square = self._squares[name]
        velocity.lerp_(gradient, 1 - ADAM_BETAS[0])
        square.mul_(ADAM_BETAS[1]).addcmul_(gradient, gradient, value=1 - ADAM_BETAS[1])
        parameter.mul_(1 - lr * decay)
        parameter.sub_(velocity / ((square / second).sqrt() + ADAM_EPSILON) * (lr / first))

    def _forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, (parameters, buffers), (images,))
        return logits


def _colour(images: Tensor, filled: bool) -> Tensor | None:
    """The mean colour of each batch, for each of its images: (…, B, C, H, W) → (… · B, 1, C, 1, 1)."""
    if not filled:
        return None
    mean = images.mean((-4, -2, -1), keepdim=True)
    return mean.expand(*images.shape[:-2], 1, 1).reshape(-1, 1, images.shape[-3], 1, 1)


@torch.inference_mode()
def predict(network: Network, data: SyntheticSet, batch: int) -> Tensor:
    """The network's logits for every image of a set, in evaluation mode: (N, classes) float32."""
    network.eval()
    indices = torch.arange(len(data.images), device=data.images.device)
    return torch.cat([network(data.inputs(chunk)) for chunk in indices.split(batch)])
