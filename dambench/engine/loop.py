"""run(job) → events: distil, evaluate, and say every step of the way.

The engine is a generator. It knows no database, no screen and no signal: who reads its events keeps them, and
stops a run by throwing `StopRun` into it.
"""

import time
import traceback
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any, cast

import msgspec
import torch

from dambench import datasets, networks
from dambench.core import events, files
from dambench.core.config import (
    Options,
)
from dambench.core.errors import BadInput, Diverged, NotEnoughMemory
from dambench.core.events import (
    SKIPPED,
    Adapted,
    AnyEvent,
    Beginning,
    Checkpointed,
    Cost,
    DataCard,
    Environment,
    Failed,
    Finished,
    Measured,
    Previewed,
    Progressed,
    Resumed,
    Snapshot,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from dambench.engine.checkpoints import Checkpoint, Keeper, newest
from dambench.engine.preview import preview
from dambench.engine.settle import Job
from dambench.evaluators import Context, Finding
from dambench.training.environment import environment
from dambench.training.policy import Policy
from dambench.training.problem import Notice, PhaseStarted, Problem, RealSet, Seeds, State, Step, SyntheticSet

LOGGED_STEPS = 1000
"""About how many of a run's iterations have their losses logged: enough for any screen, and no more waiting."""

ADAPTABLE = ("compiled", "real_chunk", "synthetic_chunk", "kept_steps")
"""Fields of the policy that may change while a set is made."""

DECIDING = ("torch", "cuda", "cudnn", "driver", "device_name", "threads", "tf32_matmul", "tf32_convolution")
"""Of the environment, what the last bits depend on."""

SILENCE = 0.5
"""Seconds after which a sign of life is given. A run can be stopped only where it yields."""


PREVIEW_SECONDS = 5.0
"""Between two previews of the set on its way, at least."""

PREVIEWS = 200
"""Of a run, at most about."""

PREVIEW_SHARE = 0.005
"""Of a run's time that previews may take."""

PREVIEW_BYTES = 40_000


class StopRun(Exception):
    """Thrown into `run` to make it stop: the name of the signal, or whatever else asked for it."""


@dataclass
class _Clock:
    """Seconds and peak memory of each phase, in the order in which the phases began."""

    policy: Policy
    phase: str = "prepare"
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def enter(self, phase: str) -> None:
        """End the current phase and begin, or go on with, another."""
        self.close()
        self.phase = phase
        self.policy.restart_peak()
        self._since = time.perf_counter()

    def note_peak(self, peak: int) -> None:
        """A peak of the current phase that was measured by someone who will begin a new measurement."""
        self.peaks[self.phase] = max(peak, self.peaks.get(self.phase, 0))
        self.reserved[self.phase] = max(self.policy.peak_reserved_bytes(), self.reserved.get(self.phase, 0))

    def close(self) -> None:
        self.policy.synchronise()
        now = time.perf_counter()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self._since = now
        self.note_peak(self.policy.peak_bytes())

    def spent(self, phase: str) -> float:
        running = time.perf_counter() - self._since if phase == self.phase else 0.0
        return self.seconds.get(phase, 0.0) + running

    def costs(self) -> list[Cost]:
        # After an error of the device it may not answer any more.
        with suppress(RuntimeError):
            self.close()
        return [
            Cost(
                phase=phase,
                seconds=seconds,
                peak_memory_bytes=self.peaks.get(phase, 0),
                peak_reserved_bytes=self.reserved.get(phase, 0),
            )
            for phase, seconds in self.seconds.items()
        ]


def run(
    job: Job, command_line: str = "", keeper: Keeper | None = None, beginning: Beginning | None = None
) -> Generator[AnyEvent, None, None]:
    """Distil a set, train networks on it, test them.

    Ends with Finished, Failed or Stopped, and raises nothing: what goes wrong is an event.

    Args:
        keeper: keeps checkpoints. Without it a run cannot be resumed.
        beginning: the run was begun already; it goes on from its last checkpoint.
    """
    clock = _Clock(job.policy)
    position = _Position(stack=beginning.stack if beginning else 0)
    try:
        job.policy.apply()
        here = environment(job.policy, command_line)
        if beginning is not None:
            yield from _resumed(job, here, keeper, beginning, clock, position)
        if beginning is None or beginning.environment is None:
            yield Started(
                config=job.config,
                config_sha256=job.config.sha256,
                data=job.card,
                recipe=job.recipe.source if job.recipe else "",
                overrides=job.overrides,
                environment=here,
                metrics={} if job.evaluator.name == "accuracy" else {job.evaluator.name: job.evaluator.METRICS},
            )
            for note in [*job.card.notes, *job.notes]:
                yield Warned(message=note)
        yield from _distil_and_evaluate(job, clock, position, keeper)
    except StopRun as stop:
        phase, costs = clock.phase, clock.costs()
        if keeper is not None:
            with suppress(StopRun):
                yield from _checkpointed(keeper, clock, position)
        last: AnyEvent = Stopped(signal=str(stop), phase=phase, iteration=position.iteration, costs=costs)
    except (Exception, SystemExit) as error:  # a method from outside may try to leave the program
        said = str(error).strip() or "no message"
        told = isinstance(error, Diverged | BadInput | NotEnoughMemory)
        last = Failed(
            error=said if told else f"{type(error).__name__}: {said}",
            traceback=traceback.format_exc(),
            costs=clock.costs(),
            diverged=error.iteration if isinstance(error, Diverged) else None,
        )
    else:
        last = Finished(set_sha256=position.set_sha256, costs=clock.costs())
    with suppress(StopRun):  # too late to stop
        yield last
    if keeper is not None and isinstance(last, Finished):
        keeper.sweep(0)


@dataclass
class _Position:
    iteration: int = 0
    set_sha256: str = ""
    stack: int = 0
    """Of the evaluation networks, after the GPU's memory was too small for the policy's; 0: it was not."""
    checkpoint: Callable[[], Checkpoint] | None = None
    """Makes one of where the run is; None: it has not got anywhere."""
    from_: Checkpoint | None = None
    """That the run goes on from."""
    scores: set[tuple[int, str, int]] = field(default_factory=set)
    """Iteration, network and repeat of those that are known already."""
    sets: set[int] = field(default_factory=set)
    """The iterations whose sets are."""
    losses: list[Stepped] = field(default_factory=list)
    """All that were logged."""


def _resumed(
    job: Job, here: Environment, keeper: Keeper | None, beginning: Beginning, clock: _Clock, position: _Position
) -> Iterator[AnyEvent]:
    """Find the last checkpoint that is whole, and be where it is."""
    names = beginning.checkpoints
    found = newest(keeper.folder, names, job.config.sha256) if keeper else None
    iteration = found[0].iteration if found else -1
    yield Resumed(
        attempt=beginning.attempt,
        iteration=iteration,
        checkpoint=found[1] if found else "",
        process=beginning.process,
        environment=here,
    )
    if names and (found is None or found[1] != names[-1]):
        where = f"the one of iteration {iteration}" if found else "the beginning"
        yield Warned(message=f"The last checkpoint is missing or damaged: the run goes on from {where}.")
    before = beginning.environment or here
    if others := [name for name in DECIDING if getattr(here, name) != getattr(before, name)]:
        changes = ", ".join(f"{name} {getattr(before, name)} → {getattr(here, name)}" for name in others)
        yield Warned(message=f"Resumed in another environment, so the last bits may differ: {changes}.")
    if found is None:
        return
    position.from_, position.iteration = found[0], iteration
    position.scores = {score for score in beginning.scores if score[0] <= iteration}
    position.sets = {known for known in beginning.sets if known <= iteration}
    position.losses = [stepped for stepped in beginning.losses if stepped.iteration <= iteration]
    clock.seconds |= found[0].seconds
    clock.peaks |= {phase: peaks[0] for phase, peaks in found[0].peaks.items()}
    clock.reserved |= {phase: peaks[1] for phase, peaks in found[0].peaks.items()}


def _checkpointed(keeper: Keeper, clock: _Clock, position: _Position) -> Iterator[Checkpointed | Warned]:
    """Write a checkpoint of where the run is, if it is anywhere."""
    if position.checkpoint is None:
        return
    clock.close()
    peaks = {phase: [clock.peaks.get(phase, 0), clock.reserved.get(phase, 0)] for phase in clock.seconds}
    try:
        now = replace(position.checkpoint(), seconds=dict(clock.seconds), peaks=peaks)
        if not now.finite:
            return  # the next iteration will say so
        sha256, size, seconds = keeper.write(now)
    except (OSError, BadInput) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        yield Warned(message=f"The checkpoint of iteration {position.iteration} could not be written: {why}.")
        return
    yield Checkpointed(iteration=now.iteration, sha256=sha256, size_bytes=size, seconds=seconds)
    keeper.sweep()


def open_problem(job: Job, real: RealSet) -> Problem:
    """What the job's method is given."""
    return Problem(
        real=real,
        card=job.card,
        ipc=job.config.ipc or 0,
        seeds=Seeds(job.config.seed),
        build_network=lambda: networks.build(job.config.network, job.card),
        network=job.config.network,
        policy=job.policy,
    )


def distilled(job: Job, problem: Problem, resume: State | None = None) -> Iterator[Step | Notice]:
    """What the job's method says.

    Raises:
        BadInput: it is from outside, and says something else.
    """
    for told in job.method.distill(problem, job.options, resume):
        if not isinstance(told, Step | Notice):
            what = f"gave a {type(told).__name__} where a Step or Progressed is due"
            raise BadInput(f"The method {job.config.method.name} {what}.")
        yield told


def _distil_and_evaluate(job: Job, clock: _Clock, position: _Position, keeper: Keeper | None) -> Iterator[AnyEvent]:
    config, policy = job.config, job.policy
    real, test = datasets.open_sets(job.card, policy.device, config.preprocessing)
    remarks: list[Warned | Adapted] = []
    problem = open_problem(job, real)
    total = config.iterations
    logged = max(1, total // LOGGED_STEPS)
    begun = position.from_
    if config.execution.made:
        begun = Checkpoint(config.sha256, config.execution.made_after, {}, config.execution.made)
        position.iteration = begun.iteration
    if begun is not None:
        problem.policy = replace(policy, **cast(dict[str, Any], begun.policy))
        position.checkpoint = partial(_same, begun)
        if keeper is not None and position.from_ is None:
            yield from _checkpointed(keeper, clock, position)
        if begun.set_sha256:
            made = _kept(begun.set_sha256, job, real)
            yield from _judge(job, made, begun.iteration, begun.iteration >= total, test, clock, position)
        if begun.iteration >= total:
            return  # it was made, and is evaluated

    step: Step | None = None
    due = between = False

    def checkpoint() -> Checkpoint:
        assert step is not None
        return Checkpoint(
            config_sha256=config.sha256,
            iteration=step.iteration,
            state=step.state(),
            # To be evaluated before the run goes on, or after its end.
            set_sha256=_keep(step.synthetic, step.iteration, job.card).sha256 if due or step.iteration >= total else "",
            policy={name: int(getattr(problem.policy, name)) for name in ADAPTABLE},
        )

    heard = time.perf_counter()
    finite = _Finite()
    photographer = _Photographer(total)
    clock.enter("distil")
    for told in distilled(job, problem, begun.state if begun else None):
        if isinstance(told, PhaseStarted):
            clock.enter(told.phase)
            continue
        if isinstance(told, Warned | Adapted):
            remarks.append(told)  # a run can be stopped where it yields, and the method may be in the middle of a step
            continue
        if isinstance(told, Progressed):  # on the way to a step
            between = between or told.phase == "distil"
            while remarks:
                yield remarks.pop(0)
            if time.perf_counter() - heard > SILENCE:
                yield msgspec.structs.replace(told, memory_bytes=policy.used_bytes())
                heard = time.perf_counter()
            continue
        _check_step(told, step, total, job)
        first, step = step is None, told
        position.iteration, position.checkpoint = step.iteration, checkpoint
        finite.look(step)
        if first:  # what cannot be used is known now, not after all iterations
            _check_set(step.synthetic, step.iteration, job)
        last = step.iteration >= total
        due = bool(config.evaluate_every) and step.iteration % config.evaluate_every == 0 and not last
        # First of all: a checkpoint of this iteration, from wherever it is asked for, comes after its losses.
        if step.losses and (step.iteration % logged == 0 or step.iteration == 1 or last):
            finite.check()
            position.losses.append(_stepped(step, clock.spent("distil"), policy))
            yield position.losses[-1]
            heard = time.perf_counter()
        while remarks:
            yield remarks.pop(0)
        if time.perf_counter() - heard > SILENCE:
            yield Progressed(phase="distil", done=step.iteration, total=total, memory_bytes=policy.used_bytes())
            heard = time.perf_counter()
        if keeper is not None and keeper.due and not last:
            finite.check()
            yield from _checkpointed(keeper, clock, position)
        if not (due or last) and photographer.due(step):
            yield photographer.take(step)
        if due:
            yield from _judge(job, step.synthetic, step.iteration, False, test, clock, position)
            due = False
            clock.enter("distil")
            heard = time.perf_counter()
        if between and keeper is not None:
            # It can be stopped before its next step, when this one's tensors are valid no more.
            position.checkpoint = partial(_same, checkpoint())
    if step is None:
        raise BadInput(f"The method {config.method.name} gave no synthetic set.")
    if step.iteration < total:
        raise BadInput(
            f"The method {config.method.name} stopped after {step.iteration} of its {total} iterations, so its set is "
            f"not the one that was asked for. To have it, ask for {step.iteration}."
        )
    finite.check()
    left_out = position.losses[-1].losses.get(SKIPPED, 0.0) if position.losses else 0.0
    in_a_row = int(step.state().get("in_a_row", 0)) if left_out else 0
    if in_a_row > 1:  # a step may be left out now and then: the next one has other images
        since = step.iteration - in_a_row + 1
        raise Diverged(since, f"The loss or its gradient is not finite from iteration {since} to the end")
    if keeper is not None:
        yield from _checkpointed(keeper, clock, position)
    if left_out:
        yield Warned(message=f"{left_out:.0f} of {step.iteration} steps were left out: they were not finite.")
    if warning := _not_fallen(position.losses, job.options):
        yield Warned(message=warning)
    yield from _judge(job, step.synthetic, step.iteration, True, test, clock, position)


def _check_step(step: Step, before: Step | None, total: int, job: Job) -> None:
    """See that a step's iteration is one of those to come.

    Raises:
        BadInput: it is not.
    """
    method = job.config.method.name
    if total and (step.iteration > total or (before and step.iteration <= before.iteration)):
        after = f" after iteration {before.iteration}" if before else ""
        raise BadInput(
            f"The method {method} was asked for {total} iterations, and gave number {step.iteration}{after}."
        )


def _check_set(synthetic: SyntheticSet, iteration: int, job: Job) -> None:
    """See that a set can be trained on and kept, and is what was asked for.

    Raises:
        BadInput: its shape, type, labels or number of images are not.
        Diverged: its images, its labels or its learning rate are not finite.
    """
    rate = torch.as_tensor(0.0 if synthetic.lr is None else synthetic.lr)
    for what, values in (("images", synthetic.images), ("labels", synthetic.labels), ("learning rates", rate)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise Diverged(iteration, f"The {what} after iteration {iteration} are not finite")
    try:
        if job.config.ipc is None or synthetic.whole:
            if job.config.ipc is not None or not synthetic.whole:
                raise BadInput(f"It is {'' if synthetic.whole else 'not '}the whole dataset.")
            return
        if why := synthetic.wrong():
            raise BadInput(f"{why[:1].upper()}{why[1:]}.")
        if synthetic.preprocessing != job.config.preprocessing:
            raise BadInput(
                f"Its images are as {synthetic.preprocessing} leaves them, the run is of {job.config.preprocessing}."
            )
        if (ipc := synthetic.ipc_on(job.card)) != job.config.ipc:
            raise BadInput(f"It has {ipc} images per class, and {job.config.ipc} were asked for.")
    except BadInput as error:
        which = f"after iteration {iteration}" if iteration else "that it chose"
        raise BadInput(f"The set of the method {job.config.method.name} {which} cannot be used. {error}") from None


def _same(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint


class _Photographer:
    """Takes pictures of the set on its way: not too many, and not more often than they are worth.

    Args:
        total: iterations of the run.
    """

    def __init__(self, total: int) -> None:
        self._least = total / PREVIEWS
        """Iterations between two."""
        self._last = -total
        self._next = time.perf_counter() + SILENCE

    def due(self, step: Step) -> bool:
        return time.perf_counter() >= self._next and step.iteration - self._last >= self._least

    def take(self, step: Step) -> Previewed:
        began = time.perf_counter()
        taken = Previewed(iteration=step.iteration, preview=preview(step.synthetic, PREVIEW_BYTES))
        now = time.perf_counter()
        self._last, self._next = step.iteration, now + max(PREVIEW_SECONDS, (now - began) / PREVIEW_SHARE)
        return taken


class _Finite:
    """Sees the first iteration whose loss is no number, without making a GPU wait for each."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._first = torch.empty(0)
        """By loss, its last value, and the iteration since which it is no number: (2, losses); -1: it is one."""

    def look(self, step: Step) -> None:
        if not step.losses:
            return
        values = torch.stack([loss.detach().double() for loss in step.losses.values()])
        if list(step.losses) != self._names:
            self._names = list(step.losses)
            self._first = torch.stack([values, torch.full_like(values, -1)])
        value, since = self._first
        fine = since < 0
        since = torch.where(fine & ~values.isfinite(), step.iteration, since)
        self._first = torch.stack([torch.where(fine, values, value), since])
        if values.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raises Diverged if there was one. Here the host waits for the device."""
        for name, value, since in zip(self._names, *self._first.tolist(), strict=True) if self._names else ():
            if since >= 0:
                raise Diverged(int(since), f"The {name} loss is {value} at iteration {since:.0f}")


def _kept(sha256: str, job: Job, real: RealSet) -> SyntheticSet:
    """A set that was kept, on the run's device."""
    if sha256 == job.card.sha256:
        return open_problem(job, real).whole_set()
    path = files.set_path(sha256)
    if not path.is_file() or files.sha256(path) != sha256:
        raise BadInput(f"The set {sha256[:8]}… that is to be evaluated is missing or damaged in {str(path.parent)!r}.")
    made = SyntheticSet.read(path)
    device = job.policy.device
    return replace(made, images=made.images.to(device), labels=made.labels.to(device))


def _not_fallen(logged: list[Stepped], options: Options) -> str:
    """What to say where the matching loss is no lower at the end of a whole run than at its beginning; else nothing.

    Each iteration may have a network of its own, and their losses differ: medians are compared. The first iteration
    counts by itself, too, for a step that is far too large makes the loss jump at once, and then fall.
    """
    losses = [float(event.losses["matching"]) for event in logged if "matching" in event.losses]
    few = len(losses) // 10
    if few < 5 or logged[0].iteration > 1:
        return ""
    first, last = min(losses[0], median(losses[:few])), median(losses[-few:])
    if last < first:
        return ""
    smaller = getattr(options, "lr_images", 1.0) / 10
    return (
        f"The matching loss has not fallen: it began at {first:.3g} and is {last:.3g} over the last tenth of the run. "
        f"A smaller step may help (--set method.lr_images={smaller:g}), or matching on the ConvNet (--network convnet)."
    )


def _stepped(step: Step, seconds: float, policy: Policy) -> Stepped:
    # The only place where the host waits for the device.
    losses = {name: events.real(float(value)) for name, value in step.losses.items()}
    used = policy.used_bytes()
    return Stepped(iteration=step.iteration, losses=losses, seconds=seconds, memory_bytes=used, parts=step.parts)


def _judge(
    job: Job,
    synthetic: SyntheticSet,
    iteration: int,
    final: bool,
    test: RealSet,
    clock: _Clock,
    position: _Position,
) -> Iterator[AnyEvent]:
    """Keep the set, then evaluate it."""
    _check_set(synthetic, iteration, job)
    clock.enter("evaluate")
    # Its tensors are the method's own, and valid until it goes on.
    snapshot = _keep(synthetic, iteration, job.card)
    position.set_sha256 = snapshot.sha256
    if iteration not in position.sets:
        yield snapshot
    heard = time.perf_counter()
    done = frozenset((subject, repeat) for at, subject, repeat in position.scores if at == iteration)
    context = evaluation_context(
        job, synthetic, test, set_sha256=snapshot.sha256, iteration=iteration, final=final, stack=position.stack
    )
    for event in measured(job, context, done):
        if isinstance(event, Adapted):
            position.stack = event.value
        if isinstance(event, Progressed):
            if time.perf_counter() - heard < SILENCE:
                continue
            event = msgspec.structs.replace(event, memory_bytes=job.policy.used_bytes())
        heard = time.perf_counter()
        if isinstance(event, Measured):
            clock.note_peak(event.peak_memory_bytes)
            for metric, value in event.values.items():
                if isinstance(value, str):
                    warning = f"{event.subject} #{event.repeat}: its {metric} on the test set is {value}."
                    yield Warned(message=warning)
        yield event


def measured(job: Job, context: Context, done: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """What the job's evaluator finds.

    Raises:
        BadInput: it is from outside, and gives something else.
    """
    name, metrics = job.evaluator.name, job.evaluator.METRICS
    for event in job.evaluator.evaluate(context, job.evaluator_options, done):
        if not isinstance(event, Finding):
            kind = type(event).__name__
            raise BadInput(f"The evaluator {name} gave a {kind} where a Measured or Progressed is due.")
        if isinstance(event, Measured) and (unnamed := event.values.keys() - metrics.keys()):
            raise BadInput(f"The evaluator {name} measured {', '.join(sorted(unnamed))}, which its METRICS lack.")
        yield event


def evaluation_context(
    job: Job,
    synthetic: SyntheticSet,
    test: RealSet,
    *,
    set_sha256: str,
    iteration: int,
    final: bool,
    stack: int = 0,
) -> Context:
    """What the job's evaluator is given.

    Args:
        stack: networks to be trained at once; 0: as many as the policy says.
    """
    config = job.config
    return Context(
        evaluator=job.evaluator.name,
        synthetic=synthetic,
        set_sha256=set_sha256,
        iteration=iteration,
        final=final,
        test=test,
        card=job.card,
        networks=config.evaluate_on,
        repeats=config.eval_repeats,
        protocol=config.protocol,
        seeds=Seeds(config.seed),
        policy=replace(job.policy, stack=stack or job.policy.stack),
    )


def _keep(synthetic: SyntheticSet, iteration: int, card: DataCard) -> Snapshot:
    """Write the set to its file, unless it is the prepared dataset itself."""
    if synthetic.whole:
        path = datasets.path_of(card)
        digest, size = card.sha256, path.stat().st_size
    else:
        content = synthetic.to_bytes()
        digest, size = files.digest(content), len(content)
        path = files.set_path(digest)
        if not path.exists():
            with files.writing("The synthetic set", path.parent, files.HOME_HINT):
                files.write_whole(path, content)
    return Snapshot(
        iteration=iteration,
        sha256=digest,
        size_bytes=size,
        shape=list(synthetic.images.shape),
        dtype=str(synthetic.images.dtype).removeprefix("torch."),
        preview=preview(synthetic),
    )
