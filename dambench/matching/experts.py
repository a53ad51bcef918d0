"""Experts: networks trained on the real set. They are trained once, kept in DAMBENCH_HOME, and shared by all runs.

Three kinds of them are kept (`dambench.core.expert_files` says how):

* trajectories, the weights of each network after each epoch, which trajectory matching follows: plain SGD as in MTT
  (Cazenavette et al., CVPR 2022), or GSAM as in FTD (Du et al., CVPR 2023), DATM and PAD, for PAD on images that are
  chosen for each epoch by their difficulty;
* the difficulty scores of the real images: EL2N and GraNd (Paul et al., NeurIPS 2021) and the loss;
* one network, whose features coresets are chosen by.

A file is named by all that the weights depend on: the prepared data and what is done to them, the network, how it is
trained, the seed, and the kind of arithmetic. Coresets have a network for each seed of a run, so that a repetition
repeats this choice too. Trajectories and scores are expensive: their seed is a setting of its own, and runs of
different seeds share them. On a CPU each has a process of its own, and the bits that it would have alone. Networks
that are trained together on a GPU have the batches and augmentations that each
would have alone; how many there are changes their last bits, which are then kept.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import floor
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
import psutil
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from msgspec import Meta, Struct
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from dambench.core import expert_files, files
from dambench.core.config import Seed
from dambench.core.errors import BadInput
from dambench.core.events import Progressed, Warned
from dambench.core.protocol import DSA, Budget, Positive, Protocol, identity
from dambench.core.side_by_side import Advanced, Completed, Waited, Work
from dambench.core.units import size
from dambench.training.policy import STACK, until_it_fits
from dambench.training.problem import Network, Notice, PhaseStarted, Problem, Seeds, SyntheticSet
from dambench.training.threads import can_fork, choose, multiplications, networks_beside, shared_memory, sharing
from dambench.training.train import Gsam, train, train_together

FORMAT = 2
"""Version of what is kept. Raise it when training changes: all is then trained anew."""

SHARE = 4
"""Trajectories take no more than one part in so many of the memory that is free."""

POOL_SECONDS = 1.0
"""Between two looks at whether another process has ended."""

Ratio = Annotated[float, Meta(ge=0, le=1)]
Score = Literal["el2n", "grand", "loss"]


class Schedule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which images an epoch sees (PAD, "filtered information extraction"): hard ones late, easy ones early.

    Of each class the easiest int(p · n) of its n images in epochs 0 to `growth`, where p grows evenly from `initial` to
    1; then all; and after the epoch of a removal all but the easiest. (The paper has a growth and one removal, the
    released command the two that are the default here; its code takes every class for one of 5,000 images.)
    """

    score: Score = "el2n"
    """The paper's default; the released command has GraNd."""
    initial: Annotated[float, Meta(gt=0, le=1)] = 0.75
    """IR."""
    growth: Annotated[int, Meta(ge=0)] = 20
    """AEE: the epoch in which all images are there. (The paper: 20 for CIFAR-10, 40 for CIFAR-100 and TinyImageNet.)"""
    removals: tuple[tuple[int, Ratio], ...] = ((40, 0.1), (60, 0.2))
    """(R, r): after epoch R the easiest share r of each class is left out, in place of what was before."""
    scored_by: Positive = 10
    """Networks whose scores are averaged."""
    scored_after: Positive = 10
    """Their epochs."""

    def kept(self, count: int, epoch: int) -> tuple[int, int]:
        """From which image on, and up to which, those of a class are seen, from the easiest to the hardest.

        At least one is.
        """
        dropped = ([0.0] + [share for after, share in self.removals if epoch > after])[-1]
        grown = min(1.0, self.initial + (1 - self.initial) * epoch / self.growth) if self.growth else 1.0
        first, end = _part(dropped, count), max(1, _part(grown, count))
        return min(first, end - 1), end


def _part(share: float, count: int) -> int:
    return floor(share * count + 1e-9)  # 0.29 · 100 is 28.999…


class ExpertTraining(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the experts of trajectories are trained. As it stands: MTT's."""

    epochs: Positive = 50
    lr: Annotated[float, Meta(gt=0)] = 0.01
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    batch: Positive = 256
    augmented: bool = True
    """By DSA, one operation for each batch, each image with parameters of its own."""
    drops: tuple[Positive, ...] = ()
    """After how many epochs the learning rate is multiplied by `decay`; the momentum stays."""
    decay: Annotated[float, Meta(gt=0, le=1)] = 0.1
    cutmix: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The probability with which a batch is mixed by CutMix."""
    gsam: Gsam | None = None
    schedule: Schedule | None = None
    seed: Seed = 0
    """Seed of the experts: not that of the run, so that runs of several seeds share them."""

    @property
    def protocol(self) -> Protocol:
        budget = Budget(epochs=self.epochs, drops=self.drops)
        return Protocol(
            name="expert",
            decay=self.decay,
            keeps_momentum=bool(self.drops),
            mixing="cutmix" if self.cutmix else "none",
            mixing_probability=self.cutmix if self.cutmix else 1.0,
            synthetic=budget,
            whole=budget,
            batch=self.batch,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            augmentation=DSA if self.augmented else (),
        )


MTT = ExpertTraining()
FTD = ExpertTraining(epochs=100, gsam=Gsam())
"""And DATM's."""
PAD = ExpertTraining(epochs=100, gsam=Gsam(), schedule=Schedule())


def expert_protocol(epochs: int) -> Protocol:
    """How one network is trained: SGD with momentum, no augmentation; the step size falls to a tenth half-way."""
    budget = Budget(epochs=epochs, drops=(epochs // 2,) if epochs > 1 else ())
    return Protocol(name="expert", synthetic=budget, whole=budget, keeps_momentum=True)


def check(network: Network) -> None:
    """Whether trajectories of this network can be matched.

    Raises:
        BadInput: it has running statistics, which are no weights.
    """
    if any(True for _ in network.buffers()):
        raise BadInput(
            "Trajectories are of weights, and this network has running statistics beside them (BatchNorm): "
            "match on one without, such as its InstanceNorm form (-in)."
        )


class Curriculum:
    """Which images each epoch sees, by a schedule and the images' difficulty.

    Args:
        scores: (N,), the harder the higher; images are sorted by class.
        counts: images of each class.
    """

    def __init__(self, schedule: Schedule, scores: Tensor, counts: Sequence[int]) -> None:
        self._schedule, self._counts = schedule, counts
        sizes = torch.tensor(counts)
        labels = torch.arange(len(counts)).repeat_interleave(sizes)
        order = scores.argsort(stable=True)
        self._order = order[labels[order].argsort(stable=True)]
        """Class by class, from the easiest to the hardest."""
        self._labels, self._ranks = labels, torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels]

    def indices(self, epoch: int) -> Tensor:
        """Give the indices of the images that the epoch 0, 1, … uses: (n,) int64 on the CPU."""
        bounds = torch.tensor([self._schedule.kept(count, epoch) for count in self._counts])[self._labels]
        return self._order[(self._ranks >= bounds[:, 0]) & (self._ranks < bounds[:, 1])]


class Trajectories:
    """Experts' weights after each epoch.

    Args:
        key: of all that they depend on.
        weights: of each expert, (epochs + 1, L) float32 on the CPU.
        network: one of their architecture.
        use: what keeps others from deleting them, as long as this is needed.
    """

    def __init__(
        self, key: str, weights: Sequence[Tensor], network: Network, device: torch.device, use: object = None
    ) -> None:
        self.key = key
        self.parameters = tuple((name, parameter.shape) for name, parameter in network.named_parameters())
        """Names and shapes, shallow to deep: in this order the weights lie one after the other."""
        self.epochs = len(weights[0]) - 1
        """There are weights for epochs 0 to this one."""
        self._weights, self._device, self._use = list(weights), device, use
        if device.type == "cuda":
            size = sum(tensor.nbytes for tensor in weights)
            if size <= torch.cuda.mem_get_info(device)[0] // SHARE:
                self._weights = [tensor.to(device) for tensor in weights]
            elif size <= psutil.virtual_memory().available // SHARE:
                self._weights = [tensor.pin_memory() for tensor in weights]  # a copy of it makes nobody wait

    def __len__(self) -> int:
        """How many experts there are."""
        return len(self._weights)

    def weights(self, expert: int, epoch: int) -> Tensor:
        """(L,) float32 on the problem's device, not to be changed."""
        return self._weights[expert][epoch].to(self._device, non_blocking=True)

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Weights (…, L) by parameter, as `functional_call` takes them: views."""
        parts = flat.split([shape.numel() for _, shape in self.parameters], -1)
        pairs = zip(self.parameters, parts, strict=True)
        return {name: part.unflatten(-1, shape) if shape else part.squeeze(-1) for (name, shape), part in pairs}


def trajectories(
    problem: Problem, how: ExpertTraining, count: int, imported: str = ""
) -> Generator[Notice, None, Trajectories]:
    """The first `count` experts that are trained so. Those that are not there yet are trained, and kept one by one.

    Args:
        imported: the key of experts that were trained elsewhere, which are then taken instead.

    Yields:
        How far it is.

    Raises:
        BadInput: the network has running statistics, or the disk has no room for the experts, or imported ones are
            missing or damaged.
    """
    yield PhaseStarted("experts")
    network = problem.build_network()
    check(network)
    shape = (how.epochs + 1, sum(parameter.numel() for parameter in network.parameters()))
    if imported:
        use = expert_files.use(imported)
        weights = [_brought(imported, number, shape) for number in range(count)]
        yield PhaseStarted("distil")
        return Trajectories(imported, weights, network, problem.device, use)
    key = _key(problem, network, "trajectories", identity(how))
    use = expert_files.use(key)
    weights_of = yield from _kept(problem, key, shape, count, {})
    if len(weights_of) < count:
        claim = yield from _claimed(problem, key, count)
        weights_of = yield from _kept(problem, key, shape, count, weights_of)
        missing = [number for number in range(count) if number not in weights_of]
        if missing:
            made = yield from _made(problem, how, key, shape, missing)
            weights_of |= made
        if claim:
            claim.release()
    yield PhaseStarted("distil")
    return Trajectories(key, [weights_of[number] for number in range(count)], network, problem.device, use)


def _kept(
    problem: Problem, key: str, shape: tuple[int, int], count: int, before: dict[int, Tensor]
) -> Generator[Notice, None, dict[int, Tensor]]:
    """The experts that are there, by number, mapped into memory: they are read when they are looked at."""
    loaded = dict(before)
    for number in range(count):
        if number not in loaded and (tensors := (yield from _read(key, f"{number:04d}"))):
            if tensors["weights"].shape == shape:
                loaded[number] = tensors["weights"]
            yield Progressed(phase="experts", done=number + 1, total=count, note="looking at those that are kept")
    return loaded


def _brought(key: str, number: int, shape: tuple[int, int]) -> Tensor:
    """The weights of an expert that was imported, and so cannot be trained again."""
    for path in expert_files.find(key, f"{number:04d}"):
        with suppress(OSError, safetensors.SafetensorError):
            if expert_files.is_intact(path) and (weights := _open(path)["weights"]).shape == shape:
                return weights
    raise BadInput(f"Expert {number} of the imported ones {key[:12]} is missing or damaged: import them again.")


def _made(
    problem: Problem, how: ExpertTraining, key: str, shape: tuple[int, int], missing: list[int]
) -> Generator[Notice, None, dict[int, Tensor]]:
    """Train experts, and keep them."""
    each = 4 * shape[0] * shape[1]
    needed, folder = each * len(missing), files.experts_folder()
    room = files.room(folder)
    experts = f"{len(missing)} experts of {problem.network or 'a network'} on {problem.card.label}"
    if needed > room:
        raise BadInput(
            f"{experts} take {size(needed)} in {str(folder)!r}, where {size(room)} are free: free some space, ask "
            f"for fewer experts or epochs{files.HOME_HINT}."
        )
    yield Warned(
        message=f"{experts} are trained, for {how.epochs} epochs: {size(needed)} in DAMBENCH_HOME, {size(room)} free."
    )
    epoch_indices = None
    if how.schedule is not None:
        difficulty = yield from scores(problem, how.schedule, how.seed)
        epoch_indices = Curriculum(how.schedule, difficulty, problem.real.counts).indices
        yield PhaseStarted("experts")
    weights_of: dict[int, Tensor] = {}
    written = 0
    for event in _trained(problem, how.protocol, missing, Seeds(how.seed), "expert", how.gsam, epoch_indices, each):
        if not isinstance(event, _Trained):
            yield event
            if problem.dry_run:
                return dict.fromkeys(missing, torch.randn(shape[1]).expand(shape))
        else:
            assert event.history is not None
            for number, weights in zip(event.numbers, event.history, strict=True):
                about = _about(problem, "trajectories", how, how.epochs, number)
                path = keep(key, f"{number:04d}", {"weights": weights}, about)
                written += path.stat().st_size
                weights_of[number] = _open(path)["weights"]
    yield Warned(message=f"{experts} are kept: {size(written)}, {size(files.room(folder))} free now.")
    return weights_of


def scores(problem: Problem, how: Schedule, seed: int = 0) -> Generator[Notice, None, Tensor]:
    """How difficult each real image is, the mean over several networks that were trained for a few epochs.

    el2n: ‖softmax(logits) − onehot‖₂. grand: the norm of the gradient of the image's loss in the last layer, weights
    and biases. loss: its cross-entropy.

    Yields:
        How far it is.

    Returns:
        (N,) float32 on the CPU, the harder the higher.
    """
    yield PhaseStarted("experts")
    network = problem.build_network()
    protocol = msgspec.structs.replace(expert_protocol(1), whole=Budget(epochs=how.scored_after))
    key = _key(problem, network, "scores", identity(protocol, but=("name", "source")), how.scored_by, seed)
    use = expert_files.use(key)
    tensors = yield from _read(key, "scores")
    claim = None
    if not tensors:
        claim = yield from _claimed(problem, key, how.scored_by)
        tensors = yield from _read(key, "scores")
    if not tensors:
        sums = {name: torch.zeros(sum(problem.real.counts), dtype=torch.float64) for name in get_args(Score)}
        whole = problem.whole_set()
        batch = problem.policy.test_batch(problem.card.height * problem.card.width)
        found: dict[int, dict[Score, Tensor]] = {}
        for event in _trained(problem, protocol, range(how.scored_by), Seeds(seed), "score"):
            if not isinstance(event, _Trained):
                yield event
                if problem.dry_run:
                    yield PhaseStarted("distil")
                    return sums[how.score].float()
            else:
                for number, trained in zip(event.numbers, event.networks, strict=True):
                    found[number] = difficulty(trained, whole, batch)
        for number in sorted(found):  # in this order, whichever was ready first
            for name, values in found[number].items():
                sums[name] += values.cpu()
        tensors = {name: (total / how.scored_by).float() for name, total in sums.items()}
        about = _about(problem, "scores", how, how.scored_after)
        keep(key, "scores", tensors, about)
    if claim:
        claim.release()
    use.release()
    yield PhaseStarted("distil")
    return tensors[how.score]


@torch.inference_mode()
def difficulty(network: Network, data: SyntheticSet, batch: int) -> dict[Score, Tensor]:
    """Score each image of a labelled set by one network in evaluation mode: (N,) each."""
    network.eval()
    scores_of: dict[Score, list[Tensor]] = {"el2n": [], "grand": [], "loss": []}
    for indices in torch.arange(len(data.images), device=data.images.device).split(batch):
        read = network.embed(data.inputs(indices))
        logits, labels = network.classifier(read), data.hard_labels[indices]
        errors = (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).norm(dim=1)
        scores_of["el2n"].append(errors)
        # Of weights it is the outer product of the errors and what is read, of biases the errors themselves.
        scores_of["grand"].append(errors * (read.square().sum(1) + 1).sqrt())
        scores_of["loss"].append(F.cross_entropy(logits, labels, reduction="none"))
    return {name: torch.cat(parts) for name, parts in scores_of.items()}


# One network, for its features.


def expert(problem: Problem, how: Protocol) -> Generator[Notice, None, Network]:
    """The problem's network, trained on all its real images for the protocol's whole-set budget.

    Yields:
        How far it is, after each step.

    Returns:
        The `Network`, in evaluation mode, its weights frozen: `network = yield from expert(…)`.
    """
    yield PhaseStarted("experts")
    network = problem.build_network().to(problem.device)
    key = _key(problem, network, "network", identity(how, but=("name", "source")), problem.seeds.seed)
    weights = yield from _read(key, "network")
    if weights:
        network.load_state_dict(weights)
    else:
        seeds = problem.seeds.child("expert")
        threads = _threads(problem, how.batch) if problem.device.type == "cpu" else 0
        with sharing(threads):
            for done, total in train(network, problem.whole_set(), how, seeds, mirrors=problem.card.mirrors):
                yield Progressed(phase="experts", done=done, total=total, note="training on the real images")
                if problem.dry_run:
                    break
        if not problem.dry_run:
            kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
            _check_finite([network])
            keep(key, "network", kept, _about(problem, "network", how, how.whole.epochs))
    _check_finite([network], f"dambench experts delete {key}" if weights else "")
    yield PhaseStarted("distil")
    return network.requires_grad_(False).eval()


@torch.inference_mode()
def features_of_each_class(problem: Problem, network: Network) -> Iterator[Tensor]:
    """What the network's classifier reads of each real image, class after class: (n, D) float32, on the device."""
    real = problem.real
    batch = problem.policy.test_batch(problem.card.height * problem.card.width)
    for images in real.images.split(list(real.counts)):
        yield torch.cat([network.embed(real.preprocessing.apply(part)) for part in images.split(batch)])


# What all of them need.


@dataclass(frozen=True)
class _Trained:
    """Networks that were trained side by side."""

    numbers: list[int]
    networks: list[Network]
    history: Tensor
    """(networks, epochs + 1, L) float32 on the CPU; empty where it was not wanted."""


def _trained(
    problem: Problem,
    protocol: Protocol,
    numbers: Sequence[int],
    seeds: Seeds,
    purpose: str,
    gsam: Gsam | None = None,
    epoch_indices: Callable[[int], Tensor] | None = None,
    history_bytes: int = 0,
) -> Iterator[Notice | _Trained]:
    """Train a network for each number, as many at once as the device has room for: on a CPU side by side, each in a
    process of its own, where what ends first comes first.

    Args:
        history_bytes: of the weights of one network after each epoch, which are wanted; 0: they are not.
    """
    room = max(1, psutil.virtual_memory().available // SHARE // history_bytes) if history_bytes else len(numbers)
    if problem.device.type == "cpu" and problem.policy.stack == 1:
        more = gsam, epoch_indices, history_bytes
        for event in _trained_side_by_side(problem, protocol, numbers, seeds, purpose, *more, most=room):
            if isinstance(event, _Trained):
                _check_finite(event.networks)
            yield event
        return
    most = min(room, STACK if problem.device.type == "cuda" else problem.policy.stack)
    whole, left = problem.whole_set(), list(numbers)

    def train_some() -> Generator[Notice, None, _Trained]:
        some, before = left[:most], len(numbers) - len(left)
        last = f"–{before + len(some)}" if len(some) > 1 else ""
        note = f"{purpose} {before + 1}{last}/{len(numbers)}"
        networks = [problem.build_network().to(problem.device) for _ in some]
        history: list[Tensor] = []

        def on_epoch_end(epochs: int) -> None:
            if history_bytes:
                flat = [parameters_to_vector(network.parameters()) for network in networks]
                history.append(torch.stack(flat).detach().cpu())

        own, mirrors = [seeds.child(purpose, number) for number in some], problem.card.mirrors
        steps = train_together(
            networks,
            whole,
            protocol,
            own,
            mirrors=mirrors,
            gsam=gsam,
            epoch_indices=epoch_indices,
            on_epoch_end=on_epoch_end,
        )
        for done, total in steps:
            done, total = before * total + done * len(some), len(numbers) * total
            yield Progressed(phase="experts", done=done, total=total, note=note)
        return _Trained(some, networks, torch.stack(history, 1) if history else torch.empty(0))

    def take_less(reason: str) -> Iterator[Notice]:
        nonlocal most
        together = min(most, len(left))
        most = -(-together // 2)
        yield Warned(message=f"{together} experts at once do not fit the GPU's memory: {most} are trained at once.")

    def stuck() -> bool:
        return min(most, len(left)) == 1

    while left:
        result = yield from until_it_fits(train_some, take_less, stuck)
        _check_finite(result.networks)
        yield result
        left = left[len(result.numbers) :]


def _trained_side_by_side(
    problem: Problem,
    protocol: Protocol,
    numbers: Sequence[int],
    seeds: Seeds,
    purpose: str,
    gsam: Gsam | None,
    epoch_indices: Callable[[int], Tensor] | None,
    history_bytes: int,
    *,
    most: int,
) -> Iterator[Notice | _Trained]:
    """Train a network for each number, each by itself; no more than `most` at once."""
    whole, threads = problem.whole_set(), _threads(problem, protocol.batch, len(numbers))
    rows = protocol.whole.epochs + 1

    def train_one(place: int) -> Generator[tuple[int, int], None, dict[str, Tensor]]:
        network, history = problem.build_network(), histories.get(place)

        def on_epoch_end(epochs: int) -> None:
            if history is not None:
                history[epochs] = parameters_to_vector(network.parameters()).detach()

        own, mirrors = seeds.child(purpose, numbers[place]), problem.card.mirrors
        yield from train_together(
            [network],
            whole,
            protocol,
            [own],
            mirrors=mirrors,
            gsam=gsam,
            epoch_indices=epoch_indices,
            on_epoch_end=on_epoch_end,
        )
        return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    # What a process writes here is seen by this one. Pages that nobody writes take no memory.
    histories = {
        place: shared_memory(rows, history_bytes // 4 // rows) for place in range(len(numbers)) if history_bytes
    }
    works = [Work(partial(train_one, place), threads) for place in range(len(numbers))]
    far: dict[int, int] = {}
    finished = total = 0
    warnings: list[str] = []
    for said in networks_beside(works, problem.policy.cores, most=most, on_warning=warnings.append):
        if isinstance(said, Completed):
            finished += 1
            far.pop(said.place, None)
            network = problem.build_network()
            network.load_state_dict(said.result)
            history = histories.pop(said.place).unsqueeze(0) if history_bytes else torch.empty(0)
            yield _Trained([numbers[said.place]], [network], history)
        elif isinstance(said, Advanced):
            far[said.place], total = said.progress
        for message in warnings:
            yield Warned(message=message)
        warnings.clear()
        if far or isinstance(said, Waited):  # who is asked to stop hears it where something is yielded
            which = ", ".join(str(place + 1) for place in sorted(far))
            done, note = finished * (total or 1) + sum(far.values()), f"{purpose} {which}/{len(numbers)}" if far else ""
            yield Progressed(phase="experts", done=done, total=len(numbers) * (total or 1), note=note)


def _threads(problem: Problem, batch: int, networks: int = 1) -> int:
    """The threads that share an operation of a network that is trained on the real images, among so many."""
    card, images = problem.card, min(batch, sum(problem.real.counts))
    each = multiplications(problem.build_network(), (card.channels, card.height, card.width))
    return choose(each * images, problem.policy.cores, networks if can_fork() else 1)


def _check_finite(trained: Sequence[Network], forget: str = "") -> None:
    """See that networks that were trained on the real images can be used.

    Args:
        forget: the command that makes room for a new one, where one was kept.

    Raises:
        BadInput: one has diverged.
    """
    if not all(bool(tensor.isfinite().all()) for network in trained for tensor in network.state_dict().values()):
        raise BadInput(
            "A network that was trained on the real images diverged: its weights are no numbers, and nothing can be "
            f"chosen or matched by it.{f' `{forget}` forgets it.' if forget else ''}"
        )


def _claimed(problem: Problem, key: str, count: int) -> Generator[Notice, None, expert_files.Lock | None]:
    """Be the only process that trains these, or wait until one is."""
    while (claim := expert_files.claim(key)) is None and not problem.dry_run:
        yield Progressed(phase="experts", done=0, total=count, note="another process trains them")
        time.sleep(POOL_SECONDS)
    return claim


def _key(problem: Problem, network: Network, *parts: object) -> str:
    """A name for all that the weights depend on."""
    real, policy = problem.real, problem.policy
    # What was trained on other images is another: on those that are left where some are held out, too.
    part = "" if list(real.counts) == problem.card.train_counts else files.digest(real.images.cpu().numpy().tobytes())
    products = "fp32" if policy.device.type == "cpu" or policy.precision == "fp32" else "tf32"
    where = [policy.device.type, products]
    part = f"without {problem.held_out}" if problem.held_out else part
    return files.digest(
        repr([FORMAT, *parts, problem.card.sha256, part, real.preprocessing, str(network), *where]).encode()
    )


def _about(problem: Problem, what: str, how: Struct, epochs: int, number: int = 0) -> expert_files.About:
    return expert_files.About(
        what=what,
        dataset=problem.card.label + (" without validation images" if problem.held_out else ""),
        network=problem.network,
        how=msgspec.to_builtins(how),
        epochs=epochs,
        number=number,
    )


def keep(key: str, name: str, tensors: dict[str, Tensor], about: expert_files.About) -> Path:
    """Write what was trained to a file of its own."""
    metadata = msgspec.json.encode(about, order="sorted").decode()
    return expert_files.keep(key, name, safetensors.torch.save(tensors, {"dambench": metadata}))


def _read(key: str, name: str) -> Generator[Notice, None, dict[str, Tensor]]:
    """What is kept under a name; empty: nothing that is intact."""
    for path in expert_files.find(key, name):
        with suppress(OSError, safetensors.SafetensorError):
            if expert_files.is_intact(path):
                return _open(path)
        yield Warned(message=f"{path.name[:17]}… was damaged: what was trained on the real images is trained again.")
        expert_files.remove(path)
    return {}


def _open(path: Path) -> dict[str, Tensor]:
    with safetensors.safe_open(path, "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
