"""What is measured on a synthetic set, a file each.

An evaluator has `Options`, `METRICS` and `evaluate(context, options, resume)`. Most train networks on the set first:
`measure_networks` does that for them.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import NamedTuple

from torch import Tensor

from dambench import networks
from dambench.core.errors import BadInput, Diverged
from dambench.core.events import Adapted, DataCard, Measured, Progressed, Real, Warned, real
from dambench.core.items import Item
from dambench.core.protocol import Protocol
from dambench.core.side_by_side import Advanced, Completed, Waited, Work
from dambench.training.policy import Policy, until_it_fits
from dambench.training.problem import Network, RealSet, Seeds, SyntheticSet
from dambench.training.teachers import load_teacher
from dambench.training.threads import networks_beside
from dambench.training.train import DEFAULT_LR, train_together

__all__ = ["Context", "Finding", "Half", "Halves", "Item", "Measure", "measure_networks"]

Finding = Progressed | Measured | Warned | Adapted
"""What an evaluator may yield."""

Values = dict[str, float] | None
"""Metrics by name; None: the network's outputs are no numbers."""

Measure = Callable[[Network], Values | Generator[float, None, Values]]
"""A trained network → its metrics by name. What takes longer than moments yields on the way how much of it is done,
from 0 to 1: a run can be stopped there."""


Recall = Callable[[str, str, str, int], float | None]
"""The SHA-256 of a set, that of a protocol, a network and a repeat of the run's seed → the accuracy; None: it is not
known."""


def forget(set_sha256: str, protocol_sha256: str, network: str, repeat: int) -> float | None:
    """Know no accuracy."""
    return None


class Half(NamedTuple):
    """A set that was made anew from a random half of the training images."""

    synthetic: SyntheticSet
    name: str
    """What tells it from others: the digests of the set, and of the images that it was made without."""
    inside: Tensor
    """(N,) bool: which training images it was made of."""
    start: Tensor | None
    """The places among all training images of those that its own started from, as `Context.start`."""


class Halves(NamedTuple):
    """Sets that were made anew, by the method and with the settings of the set that is measured."""

    real: RealSet
    """All training images, (N, …)."""
    sets: tuple[Half, ...]


def no_halves() -> Halves:
    """Have none.

    Raises:
        BadInput: always.
    """
    raise BadInput("No sets were made anew from halves of the training images.")


@dataclass(frozen=True)
class Context:
    """A set to be measured, and all that it is measured with."""

    evaluator: str
    """The name that measurements are kept under."""
    synthetic: SyntheticSet
    set_sha256: str
    iteration: int
    """After which the set is as it is."""
    final: bool
    """Whether it is the method's result, not a set on the way."""
    test: RealSet
    """The real images that nothing was distilled from."""
    card: DataCard
    networks: tuple[str, ...]
    """The networks to be trained on the set, in full."""
    repeats: int
    """How many of each."""
    protocol: Protocol
    seeds: Seeds
    policy: Policy
    validation: RealSet | None = None
    """Training images that the set was made without, as the protocol wants it; None: there are none."""
    train: RealSet | None = None
    """The real images that the set was made of; None: they are not at hand."""
    apart: RealSet | None = None
    """Training images that the set was made without, for whatever reason; None: there are none."""
    start: Tensor | None = None
    """The places in `train` of the images that those of the set started from, one for each, (N,) int64; None: that is
    not known, or it started from none."""
    not_anew: str = "no run of it is at hand"
    """The reason why the set cannot be made anew from halves of the training images, as a clause; empty: it can."""
    halves: Callable[[], Halves] = no_halves
    """Opens the sets that were made anew from halves, as many as the evaluator's `halves` says."""
    recall: Recall = forget
    """Looks accuracies up that other runs have measured."""
    known: Mapping[tuple[str, int], Mapping[str, Real]] = field(default_factory=dict)
    """By subject and repeat, the values of what was measured before: of all that `resume` names."""
    made_seconds: float | None = None
    """What making the set took on this machine, experts included; None: that is not known."""
    dry_run: bool = False
    """Whether an item is measured for its time alone: nothing is to be kept of it."""

    @property
    def test_set(self) -> SyntheticSet:
        """The test images and their labels, to be looked at as a network sees them that was trained on the set."""
        synthetic = self.synthetic
        return SyntheticSet(self.test.images, self.test.labels, synthetic.preprocessing, synthetic.classes)

    @property
    def validation_set(self) -> SyntheticSet | None:
        """The validation images and their labels, to be looked at as the test images."""
        validation, like = self.validation, self.test_set
        return None if validation is None else replace(like, images=validation.images, labels=validation.labels)

    def measured(
        self,
        subject: str,
        repeat: int,
        values: Mapping[str, float],
        seconds: float,
        peak_memory_bytes: int | None = None,
    ) -> Measured:
        """Make the measurement of one item of this set.

        Args:
            subject, repeat: the item.
            values: by metric.
            seconds: it took.
            peak_memory_bytes: None: what the device has used at most.
        """
        return Measured(
            evaluator=self.evaluator,
            subject=subject,
            repeat=repeat,
            iteration=self.iteration,
            final=self.final,
            set_sha256=self.set_sha256,
            protocol_sha256=self.protocol.sha256,
            seconds=seconds,
            peak_memory_bytes=self.policy.peak_bytes() if peak_memory_bytes is None else peak_memory_bytes,
            values={metric: real(value) for metric, value in values.items()},
        )

    @property
    def test_batch(self) -> int:
        """The number of images that a network is shown at once when it is not trained."""
        return self.policy.test_batch(self.card.height * self.card.width)


def measure_networks(
    context: Context, measure: Measure, done: Collection[tuple[str, int]] = (), *, measuring: float = 0.0
) -> Iterator[Finding]:
    """Train `repeats` networks of each name on the set, and measure each once, after its last epoch.

    Repeat r of a network has the same initial weights whatever set it is trained on, so two methods of one run
    seed are compared on the same networks.

    A network whose outputs are not finite has diverged. It has no accuracy, not that of the class whose output comes
    first: it is warned of, and not measured.

    On a CPU as many are trained and measured side by side, each in a process of its own, as its cores have room for;
    what ends first is yielded first, and each has the bits that it would have alone.

    On a GPU as many networks of one name as the policy's `stack` says are trained together: repeats 0 to stack - 1,
    then the next, the last ones fewer; half as many from where the GPU's memory was too small for them. Their seconds
    are shared out evenly, and the peak of memory is that of all of them.

    Args:
        measure: may be called in another process: what it changes but the network is lost.
        done: names and repeats that were measured before. They are not yielded again; but where another one is to
            be trained together with them on a GPU, they are too, so that its bits are those of a run never interrupted.
        measuring: how much longer than its training it takes to measure a network, about: for `Progressed`.

    Raises:
        Diverged: the set is final, and of no network all repeats could be measured: a mean over those that are left
            would be of networks that the set chose, not chance.
    """
    if context.final and not done and isinstance(context.protocol.lr, str) and context.synthetic.lr is None:
        yield Warned(
            message=f"The set carries no learning rate, which {context.protocol.name} would train at: its networks are "
            f"trained at {DEFAULT_LR}."
        )
    measured = set(done)
    together = context.policy.device.type == "cuda" or context.policy.stack > 1
    found = _measured_together if together else _measured_side_by_side
    for finding in found(context, measure, done, measuring):
        if isinstance(finding, Measured):
            measured.add((finding.subject, finding.repeat))
            if (finding.subject, finding.repeat) in done:
                continue
        yield finding
    whole = [all((name, repeat) in measured for repeat in range(context.repeats)) for name in context.networks]
    if context.final and not any(whole):
        few = f"Of {'each network' if len(whole) > 1 else context.networks[0]} some diverged when they were"
        all_ = "Every network diverged when it was"
        raise Diverged(
            context.iteration,
            f"{few if measured else all_} trained on the set of iteration {context.iteration}, so that it has no "
            f"{context.evaluator}",
            "Its values, or its learning rate, may be too large for this protocol.",
        )


def _measured_side_by_side(
    context: Context, measure: Measure, done: Collection[tuple[str, int]], measuring: float
) -> Iterator[Finding]:
    """Train and measure networks on a CPU, each by itself."""
    policy, everything = context.policy, len(context.networks) * context.repeats
    todo = [
        (position, repeat)
        for position, name in enumerate(context.networks)
        for repeat in range(context.repeats)
        if (name, repeat) not in done
    ]

    def work(position: int, repeat: int) -> Work[Progressed, list[Measured | Warned]]:
        name = context.networks[position]
        one = partial(_measure_stack, context, measure, name, position, range(repeat, repeat + 1), measuring)
        return Work(one, policy.threads_of(name))

    finished, each = everything - len(todo), 0
    under_way: dict[int, int] = {}
    warnings: list[str] = []
    works = [work(position, repeat) for position, repeat in todo]
    for said in networks_beside(works, policy.cores, on_warning=warnings.append):
        if isinstance(said, Completed):
            finished += 1
            under_way.pop(said.place, None)
            yield from said.result
        elif isinstance(said, Advanced):
            position, repeat = todo[said.place]
            each = said.progress.total // everything
            under_way[said.place] = said.progress.done - (position * context.repeats + repeat) * each
        while warnings:
            yield Warned(message=warnings.pop())
        places = [todo[place] for place in sorted(under_way)]
        names = dict.fromkeys(context.networks[position] for position, _ in places)
        numbers = ", ".join(str(position * context.repeats + repeat + 1) for position, repeat in places)
        if places or isinstance(said, Waited):  # who is asked to stop hears it where something is yielded
            yield Progressed(
                phase="evaluate",
                done=finished * (each or 1) + sum(under_way.values()),
                total=everything * (each or 1),
                note=f"{', '.join(names)} {numbers}/{everything}" if places else "",
            )


def _measured_together(
    context: Context, measure: Measure, done: Collection[tuple[str, int]], measuring: float
) -> Iterator[Finding]:
    """Train networks of a name together, and measure one after the other."""
    stack, repeats = context.policy.stack, range(0)

    def measure_some(name: str, position: int, first: int) -> Generator[Finding, None, list[Measured | Warned]]:
        nonlocal repeats
        repeats = range(first, min(first + stack, context.repeats))
        if all((name, repeat) in done for repeat in repeats):
            return []
        return (yield from _measure_stack(context, measure, name, position, repeats, measuring))

    def take_less(reason: str) -> Iterator[Finding]:
        nonlocal stack
        stack = -(-len(repeats) // 2)
        yield Adapted(iteration=context.iteration, what="stack", value=stack, reason=reason)

    def stuck() -> bool:
        return len(repeats) == 1

    for position, name in enumerate(context.networks):
        first = 0
        while first < context.repeats:
            results = yield from until_it_fits(partial(measure_some, name, position, first), take_less, stuck)
            first = repeats.stop
            yield from results


def _values(
    found: Values | Generator[float, None, Values], progressed: Callable[[float], Progressed]
) -> Generator[Progressed, None, Values]:
    """What a `Measure` comes to, with its signs of life."""
    if not isinstance(found, Generator):
        return found
    while True:
        try:
            share = next(found)
        except StopIteration as end:
            values: Values = end.value
            return values
        yield progressed(share)


def _measure_stack(
    context: Context, measure: Measure, name: str, position: int, repeats: range, measuring: float
) -> Generator[Progressed, None, list[Measured | Warned]]:
    """Train some repeats of one network side by side, and measure them.

    Args:
        position: of the network among all that are trained.

    Raises:
        torch.OutOfMemoryError: they do not fit together.
    """
    together, everything = len(repeats), len(context.networks) * context.repeats
    before = position * context.repeats + repeats.start
    last = f"–{before + together}" if together > 1 else ""
    note = f"{name} {before + 1}{last}/{everything}"
    context.policy.restart_peak()
    context.policy.synchronise()
    began = perf_counter()
    own = [context.seeds.child(f"evaluation of {name}", repeat) for repeat in repeats]
    warnings: list[str] = []
    device = context.policy.device
    teacher = None
    if context.protocol.labels == "teacher":
        teacher = load_teacher(context.synthetic, lambda name: networks.build(name, context.card)).to(device)
    trained = [networks.build(name, context.card).to(device) for _ in repeats]
    steps = after = each = 0
    for done, steps in train_together(
        trained,
        context.synthetic,
        context.protocol,
        own,
        mirrors=context.card.mirrors,
        on_warning=warnings.append,
        teacher=teacher,
    ):
        after = round(steps * measuring)
        each = steps + after
        yield Progressed(phase="evaluate", done=before * each + done * together, total=everything * each, note=note)
    values: list[Values] = []
    for network in trained:
        so_far = before * each + steps * together + len(values) * after

        def progressed(share: float, so_far: int = so_far, each: int = each, after: int = after) -> Progressed:
            return Progressed(phase="evaluate", done=so_far + round(share * after), total=everything * each, note=note)

        values.append((yield from _values(measure(network), progressed)))
    seconds, peak = (perf_counter() - began) / together, context.policy.peak_bytes()
    results: list[Measured | Warned] = [Warned(message=message) for message in warnings]
    for repeat, metrics in zip(repeats, values, strict=True):
        if metrics is None:
            results.append(
                Warned(
                    message=f"{name} #{repeat} diverged when it was trained on the set of iteration "
                    f"{context.iteration}: its outputs are no numbers, and it has no {context.evaluator}."
                )
            )
            continue
        results.append(context.measured(name, repeat, metrics, seconds, peak))
    return results
