"""Time: accuracy over seconds of training, seconds to given accuracies, and trainings until distilling has paid.

Networks are trained on the set as for accuracy, one after another, and tested on the way; seconds are of training
alone, by a clock that runs evenly whatever is done to the time of day. They are this machine's, on its number of
threads, under the load that there was.

* `seconds_to_90`: the first check from which on this and the next ones (3 in all, as far as there are) recognise at
  least 90 % of the test images. Where none is, it is infinite: a mean over networks is then not known, and `reached_90`
  says how many there are.
* `break_even`: T_distil / (T_whole − T_set), the trainings from which on distilling the set and training on it takes
  less time than training on all real images each time. T_whole is extrapolated from some steps on the whole set. It
  says nothing of accuracy: both are there.
"""

import math
import time
from collections.abc import Callable, Collection, Generator, Iterator
from statistics import median
from typing import Annotated

import torch
from msgspec import Meta

from dambench import networks
from dambench.core import config
from dambench.core.arms import Arm
from dambench.core.events import Metric, Progressed, Warned
from dambench.core.sanitize import counted
from dambench.evaluators import Context, Finding
from dambench.evaluators._arms import arm_context
from dambench.training.problem import Network
from dambench.training.teachers import load_teacher
from dambench.training.train import predict, train_together

__all__ = ["METRICS", "QUICK", "REPEATABLE", "Options", "evaluate", "metrics_of"]

PERCENTS = (1, 2, 5, 10, 20, 50, 100)
"""Shares of the epochs at which the curve is kept."""

METRICS = {
    "train_seconds": Metric(description="seconds of training a network on the set", unit="seconds", better="lower"),
    "distil_seconds": Metric(
        description="seconds that the set took to make, experts included", unit="seconds", better="lower"
    ),
    "whole_seconds": Metric(
        description="seconds of training a network on all real images under the same protocol, extrapolated from some "
        "steps",
        unit="seconds",
        better="lower",
    ),
    "break_even": Metric(
        description="trainings until making the set and training on it has taken less time than training on all real "
        "images each time",
        unit="",
        better="lower",
    ),
}
for _percent in PERCENTS:
    METRICS[f"accuracy_at_{_percent}"] = Metric(
        description=f"share of the test images that are recognised after {_percent} % of the epochs"
    )
    METRICS[f"seconds_at_{_percent}"] = Metric(
        description=f"seconds of training until {_percent} % of the epochs", unit="seconds", better="lower"
    )

REPEATABLE = False
QUICK = {"checks": 4, "steps": 2}

IN_A_ROW = 3
WARMING = 2
"""Steps on the whole set that are not counted: what is done once is among them."""


class Options(config.Options, frozen=True):
    reach: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=100)], ...],
        Meta(min_length=1, max_length=20, description="accuracies in percent, to which the seconds are taken"),
    ] = (50, 70, 80, 90, 95)
    checks: Annotated[int, Meta(ge=1, le=1000, description="epochs after which a network is tested, at most")] = 50
    steps: Annotated[
        int, Meta(ge=1, le=10_000, description="on the whole set, from which its seconds are extrapolated")
    ] = 20


def metrics_of(options: Options) -> dict[str, Metric]:
    """Seconds to each accuracy, and the share of networks that came to it."""
    found = {}
    for percent in sorted({*options.reach}):
        found[f"seconds_to_{percent}"] = Metric(
            description=f"seconds of training until {percent} % of the test images are recognised, and stay so for "
            f"{IN_A_ROW} checks; not finite: it never came to that",
            unit="seconds",
            better="lower",
        )
        found[f"reached_{percent}"] = Metric(description=f"share of networks that came to {percent} %")
    return found


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train each network on the set, with the clock stopped whenever something else is done."""
    threads = counted(torch.get_num_threads(), "thread")
    on = "the GPU" if context.policy.device.type == "cuda" else f"a CPU, {threads}"
    yield Warned(message=f"Seconds are of this machine ({on}), and of its load while they were taken.")
    everything = len(context.networks) * context.repeats
    whole: dict[str, float | None] = {}
    for number, (name, repeat) in enumerate(
        (name, repeat) for name in context.networks for repeat in range(context.repeats)
    ):
        if (name, repeat) in resume:
            continue

        def progressed(share: float, number: int = number, name: str = name) -> Progressed:
            note = f"{name} {number + 1}/{everything}"
            return Progressed(phase="evaluate", done=round(1000 * (number + share)), total=1000 * everything, note=note)

        context.policy.restart_peak()
        began = time.monotonic()
        curve = yield from _curve(context, options, name, repeat, progressed)
        if curve is None:
            yield Warned(message=f"{name} #{repeat} diverged: its outputs are no numbers, and it has no time.")
            continue
        if name not in whole:
            whole[name] = yield from _whole_seconds(context, options, name, progressed)
        values = figures(curve, options, whole[name], context.made_seconds)
        yield context.measured(name, repeat, values, time.monotonic() - began)


Curve = list[tuple[int, float, float]]
"""Epochs that are done, the seconds of training that they took, and the accuracy then; by epoch, the last one last."""


def figures(
    curve: Curve, options: Options, whole_seconds: float | None, distil_seconds: float | None
) -> dict[str, float]:
    """The metrics of a network.

    Args:
        whole_seconds: T_whole; None: it is not known, or this is the whole set.
        distil_seconds: T_distil; None: it is not known.
    """
    epochs, seconds, _ = curve[-1]
    values: dict[str, float] = {"train_seconds": seconds}
    for percent in PERCENTS:
        at = next(point for point in curve if point[0] >= share_of(percent, epochs))
        values |= {f"accuracy_at_{percent}": at[2], f"seconds_at_{percent}": at[1]}
    for percent in {*options.reach}:
        reached = seconds_to(curve, percent / 100)
        values |= {f"seconds_to_{percent}": reached, f"reached_{percent}": float(math.isfinite(reached))}
    if distil_seconds is not None:
        values["distil_seconds"] = distil_seconds
    if whole_seconds is not None:
        values["whole_seconds"] = whole_seconds
    if distil_seconds is not None and whole_seconds is not None:
        gain = whole_seconds - seconds
        values["break_even"] = distil_seconds / gain if gain > 0 else math.inf
    return values


def seconds_to(curve: Curve, accuracy: float) -> float:
    """The seconds of the first check from which on it and the next two, as far as there are, are no lower; or inf."""
    for index, (_, seconds, _) in enumerate(curve):
        if all(found >= accuracy for _, _, found in curve[index : index + IN_A_ROW]):
            return seconds
    return math.inf


def share_of(percent: int, epochs: int) -> int:
    """The epochs that are that share of all, at least one."""
    return max(1, -(-percent * epochs // 100))


def checked_epochs(epochs: int, checks: int) -> set[int]:
    """After how many epochs a network is tested: spread evenly, and where the curve is kept."""
    spread = {max(1, round(epochs * (index + 1) / checks)) for index in range(checks)}
    return spread | {share_of(percent, epochs) for percent in PERCENTS}


class _Clock:
    """Seconds of training, stopped while something else is done."""

    def __init__(self, synchronise: Callable[[], None]):
        self._synchronise, self._passed, self._since = synchronise, 0.0, 0.0

    def go(self) -> None:
        self._since = time.monotonic()

    def stop(self) -> float:
        """Wait for the device, and stop. Returns all seconds so far."""
        self._synchronise()
        self._passed += time.monotonic() - self._since
        return self._passed

    def pause(self) -> None:
        """Stop without waiting for the device, which goes on with what it was given."""
        self._passed += time.monotonic() - self._since


def _curve(
    context: Context, options: Options, name: str, repeat: int, progressed: Callable[[float], Progressed]
) -> Generator[Progressed, None, Curve | None]:
    """Train one network, and test it on the way; None: it diverged."""
    network, clock, curve = _new(context, name), _Clock(context.policy.synchronise), Curve()
    budget = context.protocol.whole if context.synthetic.whole else context.protocol.synthetic
    due = checked_epochs(budget.epochs, options.checks)
    finite = True

    def check(epochs: int) -> None:
        nonlocal finite
        if epochs not in due:
            return
        seconds = clock.stop()
        logits = predict(network, context.test_set, context.test_batch)
        network.train()
        finite = bool(logits.isfinite().all())
        curve.append((epochs, seconds, float((logits.argmax(1) == context.test.labels).double().mean())))
        clock.go()

    teacher = None
    if context.protocol.labels == "teacher":
        teacher = load_teacher(context.synthetic, lambda name: networks.build(name, context.card))
        teacher = teacher.to(context.policy.device)
    seeds = context.seeds.child(f"evaluation of {name}", repeat)
    clock.go()
    for done, total in train_together(
        [network],
        context.synthetic,
        context.protocol,
        [seeds],
        mirrors=context.card.mirrors,
        on_epoch_end=check,
        teacher=teacher,
    ):
        clock.pause()
        yield progressed(done / total)
        clock.go()
    return curve if finite else None


def _whole_seconds(
    context: Context, options: Options, name: str, progressed: Callable[[float], Progressed]
) -> Generator[Progressed, None, float | None]:
    """Extrapolate the seconds of training on all real images; None: this is them, or they cannot be trained on so."""
    if context.synthetic.whole or context.train is None or context.protocol.labels == "teacher":
        return None
    whole = arm_context(context, Arm("whole", "whole", context.protocol), name)
    times: list[float] = []
    began = time.monotonic()
    seeds = context.seeds.child(f"whole set, {name}")
    steps = 0
    for _, total in train_together(
        [_new(context, name)], whole.synthetic, whole.protocol, [seeds], mirrors=context.card.mirrors
    ):
        steps = total
        context.policy.synchronise()
        times.append(time.monotonic() - began)
        if len(times) == WARMING + options.steps:
            break
        yield progressed(1.0)
        began = time.monotonic()
    counted_steps = times[WARMING:] or times
    return median(counted_steps) * steps


def _new(context: Context, name: str) -> Network:
    return networks.build(name, context.card).to(context.policy.device)
