"""Networks of different architectures, trained on several sets and tested on the same held-out training images.

On a CPU as many are trained side by side as the run has cores, each in a process and by one thread of its own: what a
network comes to does not depend on how many there are, nor on what was trained beside it.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from msgspec.structs import replace as changed

from dambench import networks
from dambench.core import files, ranking_files
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.protocol import Budget, HoldOut, Protocol
from dambench.core.ranking_files import TrainedNetwork
from dambench.core.side_by_side import Advanced, Completed, Work
from dambench.datasets._hold_out import indices
from dambench.evaluators import Context
from dambench.training.policy import Policy
from dambench.training.problem import Network, RealSet, Seeds, SyntheticSet, Whitening
from dambench.training.threads import networks_beside
from dambench.training.train import predict, train

FORMAT = 1
"""Raised when a network of the same identity comes to something else."""

WAIT_SECONDS = 0.2


class HeldSplit(NamedTuple):
    """Training images, in two parts of which networks see only one."""

    kept: RealSet
    """What reference networks and random subsets are made of."""
    held: RealSet
    """What all networks are scored on."""


def split(context: Context, rule: HoldOut) -> HeldSplit:
    """Those that the protocol held out before the set was made, or, where it held none out, those of a rule.

    Raises:
        BadInput: the training images are not at hand, or a class has none to spare.
    """
    train, validation = context.train, context.validation
    if train is None:
        raise BadInput(f"The evaluator {context.evaluator} needs the real training images, which are not at hand.")
    if validation is not None:
        return HeldSplit(train, validation)
    places = torch.from_numpy(indices(train.counts, rule)).to(train.images.device)
    if not len(places):
        raise BadInput(
            f"The evaluator {context.evaluator} scores networks on training images that it holds out, and the smallest "
            f"class of {context.card.label} has {min(train.counts)}, too few to hold any out."
        )
    each = len(places) // train.classes
    kept = torch.ones(len(train.images), dtype=torch.bool, device=train.images.device)
    kept[places] = False
    counts = tuple(count - each for count in train.counts)
    return HeldSplit(
        RealSet(train.images[kept], counts, train.preprocessing),
        RealSet(train.images[places], (each,) * train.classes, train.preprocessing),
    )


def is_new(held: RealSet, synthetic: SyntheticSet) -> list[bool]:
    """Tell of each held-out image whether it is none of those of a set, to the pixel: a set of real images has some."""
    images = synthetic.images
    pixels = images if images.dtype == torch.uint8 else synthetic.preprocessing.invert(images)
    own = {image.tobytes() for image in pixels.cpu().numpy()}
    return [image.tobytes() not in own for image in held.images.cpu().numpy()]


def with_epochs(protocol: Protocol, synthetic: int, whole: int) -> Protocol:
    """A protocol with other numbers of epochs, where they are not 0; the learning rate drops after the same shares."""

    def shortened(budget: Budget, epochs: int) -> Budget:
        if not epochs or epochs == budget.epochs:
            return budget
        drops = {max(1, round(drop * epochs / budget.epochs)) for drop in budget.drops}
        return Budget(epochs=epochs, drops=tuple(sorted(drop for drop in drops if drop < epochs)))

    return changed(protocol, synthetic=shortened(protocol.synthetic, synthetic), whole=shortened(protocol.whole, whole))


@dataclass(frozen=True)
class TrainingArm:
    """A set that every network is trained on, and how."""

    name: str
    data: SyntheticSet
    protocol: Protocol
    seeds: Seeds
    about: dict[str, object]
    """All that what a network comes to depends on, but its architecture."""
    steps: int
    """After which training stops, though the protocol's end may be later."""
    teacher: Network | None = None

    @property
    def key(self) -> str:
        return ranking_files.key_of(self.about)

    @property
    def images_seen(self) -> int:
        """Images that a network is trained on, each as often as it is shown, augmented or not."""
        size = len(self.data.images) * self.data.factor**2
        passes, rest = divmod(self.steps, -(-size // self.protocol.batch))
        return passes * size + min(size, rest * self.protocol.batch)


def training_arm(
    name: str,
    context: Context,
    data: SyntheticSet,
    protocol: Protocol,
    held: RealSet,
    seed: int,
    teacher: Network | None = None,
) -> TrainingArm:
    """An arm that is trained to its protocol's end.

    Args:
        held: what its networks are scored on.
        seed: of weights, batches and augmentations; what the arm is called counts, too.
    """
    budget = protocol.whole if data.whole else protocol.synthetic
    steps = budget.epochs * -(-len(data.images) * data.factor**2 // protocol.batch)
    policy = context.policy
    about: dict[str, object] = {
        "format": FORMAT,
        "arm": name,
        "dataset": context.card.label,
        "set": files.digest(data.to_bytes()),
        "whole": data.whole,
        "held_out": files.digest(held.images.cpu().numpy().tobytes()),
        "preprocessing": _preprocessing(held),
        "mirrors": context.card.mirrors,
        "protocol": protocol.sha256,
        "protocol_name": protocol.name,
        "steps": steps,
        "seed": seed,
        "device": policy.device.type,
        "precision": "fp32" if policy.device.type == "cpu" or policy.precision == "fp32" else "tf32",
    }
    return TrainingArm(name, data, protocol, Seeds(seed).child(f"nas {name}"), about, steps, teacher)


def stopped_after(arm: TrainingArm, images: int, name: str) -> TrainingArm:
    """The same training, of other weights, stopped at the step up to which about so many images were shown."""
    size = len(arm.data.images)
    per_epoch = -(-size // arm.protocol.batch)
    passes, rest = divmod(images, size)
    steps = min(arm.steps, max(1, passes * per_epoch + rest // arm.protocol.batch))
    about = arm.about | {"arm": name, "steps": steps}
    seed = arm.about["seed"]
    assert isinstance(seed, int)
    return replace(arm, name=name, seeds=Seeds(seed).child(f"nas {name}"), about=about, steps=steps)


def _preprocessing(real: RealSet) -> object:
    how = real.preprocessing
    return how.sha256 if isinstance(how, Whitening) else [list(how.mean), list(how.std)]


def can_be_built(name: str, card: DataCard) -> bool:
    """Whether there can be such a network for the images: pooling may leave nothing of them."""
    try:
        networks.settle(name, card)
    except BadInput:
        return False
    return True


def training_cost(arm: TrainingArm, name: str, card: DataCard) -> float:
    """About the milliseconds that a thread of a CPU takes to train a network: each step and each image cost something.

    Fitted to a dozen ConvNets on digits; on images of 28×28 they take about twice as long. Where an item is measured,
    only ratios matter.
    """
    macs, outputs, depth = _workload(name, card.channels, card.height, card.width, len(card.classes))
    per_image = 0.2 * card.height * card.width / 1e3 + 0.06 * macs / 1e6 + 0.006 * outputs / 1e3
    return arm.steps * (1 + 0.3 * depth) + arm.images_seen * per_image


@lru_cache(maxsize=2048)
def _workload(name: str, channels: int, height: int, width: int, classes: int) -> tuple[int, int, int]:
    """Count for one image the multiplications of the convolutions, the numbers in all maps, and the convolutions."""
    module, options = networks.parse(name)
    with torch.device("meta"):
        network: Network = module.build(channels, (height, width), classes, module.fit(options, (height, width)))
        maps = [
            one
            for one, _ in zip(
                network.iter_feature_maps(torch.zeros(1, channels, height, width)), network.stages, strict=False
            )
        ]
    macs = sum(
        stage.convolution.weight.numel() * one.shape[-1] * one.shape[-2]
        for stage, one in zip(network.stages, maps, strict=True)
    )
    return macs, sum(one.numel() for one in maps), len(maps)


class TrainingTask(NamedTuple):
    """A network to be trained in one arm."""

    network: str
    arm: TrainingArm
    cost: float


class Worked(NamedTuple):
    """A task and what it came to."""

    task: TrainingTask
    trained: TrainedNetwork


@dataclass
class TrainingCrew:
    """Trains networks, several at once on a CPU; what is on record is taken from there.

    Args:
        keeps: whether results are recorded; False: everything is forgotten.
    """

    held: SyntheticSet
    card: DataCard
    policy: Policy
    keeps: bool
    test_batch: int

    def work(self, tasks: Sequence[TrainingTask]) -> Iterator[float | Worked]:
        """Carry out all tasks.

        Yields:
            The cost of what is done, time and again; and each task when it is done, in their order.
        """
        done = 0.0
        if self.policy.device.type != "cpu":
            for task in tasks:
                steps = self._steps(task, self._build(task.network))
                try:
                    while True:
                        yield done + task.cost * next(steps)
                except StopIteration as end:
                    done += task.cost
                    yield Worked(task, end.value)
            return
        works = [Work(partial(self._run, task)) for task in tasks]
        far: dict[int, float] = {}
        ready: dict[int, TrainedNetwork] = {}
        told = 0
        for said in networks_beside(works, self.policy.cores):
            if isinstance(said, Advanced):
                far[said.place] = tasks[said.place].cost * said.progress
            elif isinstance(said, Completed):
                far.pop(said.place, None)
                ready[said.place], done = said.result, done + tasks[said.place].cost
            yield done + sum(far.values())
            while told in ready:
                yield Worked(tasks[told], ready.pop(told))
                told += 1

    def _build(self, network: str) -> Network:
        return networks.build(network, self.card).to(self.policy.device)

    def _run(self, task: TrainingTask) -> Generator[float, None, TrainedNetwork]:
        return (yield from self._steps(task, self._build(task.network)))

    def _steps(self, task: TrainingTask, network: Network) -> Generator[float, None, TrainedNetwork]:
        """Train a network, unless it is on record or another process trains it: then wait for that."""
        key, lock = task.arm.key, None
        while True:
            if found := ranking_files.find(key, task.network):
                return found
            if not self.keeps:
                break
            lock = ranking_files.claim(key, task.network)
            if lock is not None:
                if found := ranking_files.find(key, task.network):
                    lock.release()
                    return found
                break
            time.sleep(WAIT_SECONDS)
            yield 0.0
        try:
            trained = yield from self._trained(task.arm, network)
            if self.keeps:
                ranking_files.keep(key, task.network, trained, task.arm.about)
            return trained
        finally:
            if lock is not None:
                lock.release()

    def _trained(self, arm: TrainingArm, network: Network) -> Generator[float, None, TrainedNetwork]:
        clock = time.thread_time if self.policy.device.type == "cpu" else time.perf_counter
        began = clock()
        training = train(network, arm.data, arm.protocol, arm.seeds, mirrors=self.card.mirrors, teacher=arm.teacher)
        for done, _ in training:
            yield done / (arm.steps + 1)
            if done >= arm.steps:
                break
        logits = predict(network, self.held, self.test_batch)
        diverged = not bool(logits.isfinite().all())
        recognised = [] if diverged else (logits.argmax(1) == self.held.labels).tolist()
        return TrainedNetwork(
            diverged=diverged,
            images=len(self.held.images),
            hits=ranking_files.as_hits(recognised),
            seconds=clock() - began,
            device=self.policy.device.type,
        )
