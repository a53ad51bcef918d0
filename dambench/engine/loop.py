"""run(job) → events: distil, evaluate, and say every step of the way.

The engine is a generator. It knows no database, no screen and no signal: who reads its events keeps them, and
stops a run by throwing `StopRun` into it.
"""

import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec

from dambench.core import events
from dambench.core.config import SetRef
from dambench.core.errors import BadInput, Diverged, NotEnoughMemory, RankLost
from dambench.core.events import (
    SKIPPED,
    Adapted,
    AnyEvent,
    Beginning,
    Checkpointed,
    Environment,
    Failed,
    Finished,
    Measured,
    Metric,
    Progressed,
    Resumed,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from dambench.core.items import Look, measured_nowhere
from dambench.datasets import Parts
from dambench.engine.checkpoints import Checkpoint, Keeper, newest
from dambench.engine.halves import MadeOfHalves, made_of_none, with_halves
from dambench.engine.items import items_of, taken_over
from dambench.engine.job import Job, distilled, evaluation_context, measured, open_parts, open_problem
from dambench.engine.monitors import (
    DivergenceMonitor,
    Meter,
    PhaseTimer,
    PreviewSchedule,
    no_energy,
    stagnation_warning,
)
from dambench.engine.sets import check_set, load_set, save_set
from dambench.engine.sharing import Join, together
from dambench.evaluators import Recall, forget
from dambench.training.environment import environment
from dambench.training.policy import Policy
from dambench.training.problem import PhaseStarted, Problem, State, Step, SyntheticSet

LOGGED_STEPS = 1000
"""About how many of a run's iterations have their losses logged: enough for any screen, and no more waiting."""

ADAPTABLE = ("compiled", "real_chunk", "synthetic_chunk", "kept_steps")
"""Fields of the policy that may change while a set is made."""

DECIDING = ("torch", "cuda", "cudnn", "driver", "device_name", "threads", "tf32_matmul", "tf32_convolution")
"""Fields of the environment that the last bits depend on."""

PROGRESS_SECONDS = 0.5
"""Seconds after which a sign of life is given. A run can be stopped only where it yields."""


class StopRun(Exception):
    """Thrown into `run` to make it stop: the name of the signal, or whatever else asked for it."""


@dataclass
class Progress:
    """Where a run is, and what it has yielded so far."""

    iteration: int = 0
    set_sha256: str = ""
    """The set that was evaluated last."""
    stack: int = 0
    """Evaluation networks to train at once, after the GPU's memory was too small for the policy's; 0: it was not."""
    checkpoint: Callable[[], Checkpoint] | None = None
    """Makes one of where the run is; None: it has not got anywhere."""
    resumed_from: Checkpoint | None = None
    scores: set[tuple[int, str, int]] = field(default_factory=set)
    """Iteration, subject and repeat of those that an earlier attempt measured."""
    sets: set[int] = field(default_factory=set)
    """The iterations whose sets an earlier attempt evaluated."""
    losses: list[Stepped] = field(default_factory=list)
    """All that were logged."""


def run(
    job: Job,
    command_line: str = "",
    keeper: Keeper | None = None,
    beginning: Beginning | None = None,
    meter: Meter = no_energy,
    recall: Recall = forget,
    join: Join | None = None,
    earlier: Look = measured_nowhere,
    made_of_halves: MadeOfHalves = made_of_none,
) -> Generator[AnyEvent, None, None]:
    """Distil a set, train networks on it, test them.

    Ends with Finished, Failed or Stopped, and raises nothing: what goes wrong is an event.

    Args:
        keeper: keeps checkpoints. Without it a run cannot be resumed.
        beginning: the run was begun already; it goes on from its last checkpoint.
        meter: reads the energy of the run's GPU.
        recall: looks accuracies up that other runs have measured.
        join: starts the other ranks of a run that several processes share.
        earlier: looks up what was measured before of the set that is to be evaluated, by this run or by others.
        made_of_halves: looks up the sets that were made anew from halves of the training images.
    """
    progress = Progress(stack=beginning.stack if beginning else 0)
    this = _Run(job, keeper, PhaseTimer(job.policy, meter=meter), progress, recall, join, earlier, made_of_halves)
    timer = this.timer
    try:
        job.policy.apply()
        here = environment(job.policy, command_line, len(job.config.execution.devices))
        if beginning is not None:
            yield from this.resume(here, beginning)
        if beginning is None or beginning.environment is None:
            yield from this.start(here)
        if existing := job.config.evaluates:
            yield from this.evaluate_existing(existing)
        else:
            yield from this.distil_and_evaluate()
    except StopRun as stop:
        phase, costs = timer.phase, timer.costs()
        with suppress(StopRun):
            yield from this.save_checkpoint()
        last: AnyEvent = Stopped(signal=str(stop), phase=phase, iteration=progress.iteration, costs=costs)
    except (Exception, SystemExit) as error:  # a method from outside may try to leave the program
        if isinstance(error, RankLost):  # nothing of this one is wrong
            with suppress(StopRun):
                yield from this.save_checkpoint()
        message = str(error).strip() or "no message"
        explained = isinstance(error, Diverged | BadInput | NotEnoughMemory | RankLost)
        last = Failed(
            error=message if explained else f"{type(error).__name__}: {message}",
            traceback=traceback.format_exc(),
            costs=timer.costs(),
            diverged=error.iteration if isinstance(error, Diverged) else None,
        )
    else:
        last = Finished(set_sha256=progress.set_sha256, costs=timer.costs())
    with suppress(StopRun):  # too late to stop
        yield last
    if keeper is not None and isinstance(last, Finished):
        keeper.sweep(0)


@dataclass
class _Run:
    """A job at work."""

    job: Job
    keeper: Keeper | None
    timer: PhaseTimer
    progress: Progress
    recall: Recall = forget
    join: Join | None = None
    earlier: Look = measured_nowhere
    made_of_halves: MadeOfHalves = made_of_none

    def start(self, here: Environment) -> Iterator[Started | Warned]:
        job, evaluator = self.job, self.job.evaluator
        yield Started(
            config=job.config,
            config_sha256=job.config.sha256,
            data=job.card,
            recipe=job.recipe.source if job.recipe else "",
            overrides=job.overrides,
            environment=here,
            metrics={evaluator.name: evaluator.metrics(job.card, job.evaluator_options)},
        )
        for note in [*job.card.notes, *job.notes]:
            yield Warned(message=note)

    def resume(self, here: Environment, beginning: Beginning) -> Iterator[Resumed | Warned]:
        """Find the last checkpoint that is whole, and be where it is."""
        names, progress, timer = beginning.checkpoints, self.progress, self.timer
        checkpoint, name = None, ""
        if self.keeper is not None:
            checkpoint, name = newest(self.keeper.folder, names, self.job.config.sha256) or (None, "")
        iteration = checkpoint.iteration if checkpoint else -1
        yield Resumed(
            attempt=beginning.attempt,
            iteration=iteration,
            checkpoint=name,
            process=beginning.process,
            environment=here,
        )
        if names and name != names[-1]:
            where = f"the one of iteration {iteration}" if checkpoint else "the beginning"
            yield Warned(message=f"The last checkpoint is missing or damaged: the run goes on from {where}.")
        before = beginning.environment or here
        if changed := [name for name in DECIDING if getattr(here, name) != getattr(before, name)]:
            changes = ", ".join(f"{name} {getattr(before, name)} → {getattr(here, name)}" for name in changed)
            yield Warned(message=f"Resumed in another environment, so the last bits may differ: {changes}.")
        if checkpoint is None:
            return
        progress.resumed_from, progress.iteration = checkpoint, iteration
        progress.scores = {score for score in beginning.scores if score[0] <= iteration}
        progress.sets = {evaluated for evaluated in beginning.sets if evaluated <= iteration}
        progress.losses = [stepped for stepped in beginning.losses if stepped.iteration <= iteration]
        timer.seconds |= checkpoint.seconds
        timer.peaks |= {phase: peaks[0] for phase, peaks in checkpoint.peaks.items()}
        timer.reserved |= {phase: peaks[1] for phase, peaks in checkpoint.peaks.items()}
        timer.go_on_with_energy(checkpoint.seconds, checkpoint.energy)

    def save_checkpoint(self) -> Iterator[Checkpointed | Warned]:
        """Write a checkpoint of where the run is, if it is anywhere and checkpoints are kept."""
        keeper, timer, progress = self.keeper, self.timer, self.progress
        if keeper is None or progress.checkpoint is None:
            return
        timer.close()
        peaks = {phase: [timer.peaks.get(phase, 0), timer.reserved.get(phase, 0)] for phase in timer.seconds}
        try:
            checkpoint = replace(
                progress.checkpoint(), seconds=dict(timer.seconds), peaks=peaks, energy=timer.known_energy()
            )
            if not checkpoint.finite:
                return  # the next iteration will say so
            sha256, size, seconds = keeper.write(checkpoint)
        except (OSError, BadInput) as error:
            why = error.strerror if isinstance(error, OSError) else str(error).removesuffix(".")
            yield Warned(message=f"The checkpoint of iteration {progress.iteration} could not be written: {why}.")
            return
        yield Checkpointed(iteration=checkpoint.iteration, sha256=sha256, size_bytes=size, seconds=seconds)
        keeper.sweep()

    def evaluate_existing(self, existing: SetRef) -> Iterator[AnyEvent]:
        """Evaluate the set that another run has made."""
        parts = open_parts(self.job)
        self.progress.iteration = existing.iteration
        # A run of this kind has no state but its measurements: one that is resumed goes on with what is left.
        checkpoint = Checkpoint(self.job.config.sha256, existing.iteration, {}, existing.sha256)
        self.progress.checkpoint = lambda: checkpoint
        if self.progress.resumed_from is None:
            yield from self.save_checkpoint()
        yield from self.evaluate_set(load_set(existing.sha256, self.job, parts.train), existing.iteration, True, parts)

    def distil_and_evaluate(self) -> Iterator[AnyEvent]:
        """Make a set, and evaluate it at the end and on the way."""
        config = self.job.config
        parts = open_parts(self.job)
        problem = open_problem(self.job, parts.train)
        state: State | None = None
        if checkpoint := self.progress.resumed_from:
            problem.policy = replace(problem.policy, **cast(dict[str, Any], checkpoint.policy))
            self.progress.checkpoint = lambda: checkpoint
            state = checkpoint.state
            final = checkpoint.iteration >= config.iterations
            if checkpoint.set_sha256:  # it was to be evaluated before the run went on
                synthetic = load_set(checkpoint.set_sha256, self.job, parts.train)
                yield from self.evaluate_set(synthetic, checkpoint.iteration, final, parts)
            if final:
                return
        with together(self.join, self.job, problem.policy, state) as problem.ranks:
            step = yield from _Distillation(self, problem, parts).events(state)
        yield from self.evaluate_set(step.synthetic, step.iteration, True, parts)

    def evaluate_set(self, synthetic: SyntheticSet, iteration: int, final: bool, parts: Parts) -> Iterator[AnyEvent]:
        """Write a set to disk, then evaluate it."""
        job, progress = self.job, self.progress
        check_set(synthetic, iteration, job)
        self.timer.start("evaluate")
        # Its tensors are the method's own, and valid until it goes on.
        snapshot = save_set(synthetic, iteration, job.card)
        progress.set_sha256 = snapshot.sha256
        if iteration not in progress.sets:
            yield snapshot
        done = frozenset((subject, repeat) for at, subject, repeat in progress.scores if at == iteration)
        context = evaluation_context(
            job,
            synthetic,
            parts,
            set_sha256=snapshot.sha256,
            iteration=iteration,
            final=final,
            stack=progress.stack,
            recall=self.recall,
        )
        if job.config.evaluates:
            context = with_halves(job, context, self.made_of_halves)
            before = taken_over(items_of(job, context), self.earlier(snapshot.sha256), done)
            yield from before.events
            done, context = done | before.values.keys(), replace(context, known=before.values)
        spoken = time.perf_counter()
        for event in measured(job, context, done):
            if isinstance(event, Progressed):
                if time.perf_counter() - spoken < PROGRESS_SECONDS:
                    continue
                event = msgspec.structs.replace(event, memory_bytes=job.policy.used_bytes())
            elif isinstance(event, Adapted):
                progress.stack = event.value
            elif isinstance(event, Measured):
                self.timer.note_peak(event.peak_memory_bytes)
                yield from _number_warnings(event, job.evaluator.metrics(job.card, job.evaluator_options))
            spoken = time.perf_counter()
            yield event


def _number_warnings(event: Measured, metrics: Mapping[str, Metric]) -> Iterator[Warned]:
    for metric, value in event.values.items():
        never = value == "inf" and metrics[metric].unit == "seconds"  # it did not come to what was waited for
        if isinstance(value, str) and not never:
            yield Warned(message=f"{event.subject} #{event.repeat}: its {metric} on the test set is {value}.")


class _Distillation:
    """A method at work: what it yields, as events of the run."""

    def __init__(self, run: _Run, problem: Problem, parts: Parts) -> None:
        self._run, self._problem, self._parts = run, problem, parts
        self._config, self._policy, self._progress = run.job.config, run.job.policy, run.progress
        self._total = self._config.iterations
        self._step: Step | None = None
        self._due = False
        """Whether the set of this step is to be evaluated before the method goes on."""
        self._stops_between = False
        """Whether the method can be stopped between two steps, when the first one's tensors are valid no more."""
        self._remarks: list[Warned | Adapted] = []
        self._divergence = DivergenceMonitor()
        self._previews = PreviewSchedule(self._total)
        self._spoken = time.perf_counter()

    def events(self, resume: State | None) -> Generator[AnyEvent, None, Step]:
        """Take all steps.

        Returns:
            The last one.

        Raises:
            BadInput: they are too few, or a set cannot be used.
            Diverged: a loss or a set is not finite.
        """
        self._run.timer.start("distil")
        for event in distilled(self._run.job, self._problem, resume):
            match event:
                case Step():
                    yield from self._take(event)
                case Progressed():
                    yield from self._advance(event)
                case PhaseStarted():
                    self._run.timer.start(event.phase)
                case _:  # the method may be in the middle of a step, where a run cannot be stopped
                    self._remarks.append(event)
        yield from self._pending_remarks()
        step = self._checked_end()
        yield from self._run.save_checkpoint()
        if left_out := self._left_out():
            yield Warned(message=f"{left_out:.0f} of {step.iteration} steps were left out: they were not finite.")
        if warning := stagnation_warning(self._progress.losses, self._run.job.options):
            yield Warned(message=warning)
        return step

    def _advance(self, event: Progressed) -> Iterator[AnyEvent]:
        """Go on on the way to a step."""
        self._stops_between = self._stops_between or event.phase == "distil"
        yield from self._pending_remarks()
        if time.perf_counter() - self._spoken > PROGRESS_SECONDS:
            yield msgspec.structs.replace(event, memory_bytes=self._policy.used_bytes())
            self._spoken = time.perf_counter()

    def _take(self, step: Step) -> Iterator[AnyEvent]:
        """Take a step: log it, and keep, show or evaluate its set where that is due."""
        self._check(step)
        first, self._step = self._step is None, step
        self._progress.iteration, self._progress.checkpoint = step.iteration, self._checkpoint
        self._divergence.look(step)
        if first:  # what cannot be used is known now, not after all iterations
            check_set(step.synthetic, step.iteration, self._run.job)
        last, every = step.iteration >= self._total, self._config.evaluate_every
        self._due = bool(every) and step.iteration % every == 0 and not last
        # First of all: a checkpoint of this iteration, from wherever it is asked for, comes after its losses.
        yield from self._log(step, last)
        if self._run.keeper is not None and self._run.keeper.due and not last:
            self._divergence.check()
            yield from self._run.save_checkpoint()
        if not (self._due or last) and self._previews.due(step):
            yield self._previews.take(step)
        if self._due:
            yield from self._run.evaluate_set(step.synthetic, step.iteration, False, self._parts)
            self._due = False
            self._run.timer.start("distil")
            self._spoken = time.perf_counter()
        if self._stops_between and self._run.keeper is not None:
            checkpoint = self._checkpoint()
            self._progress.checkpoint = lambda: checkpoint

    def _log(self, step: Step, last: bool) -> Iterator[AnyEvent]:
        """Yield the losses of some steps, what is to be remarked, and a sign of life."""
        every = max(1, self._total // LOGGED_STEPS)
        if step.losses and (step.iteration % every == 0 or step.iteration == 1 or last):
            self._divergence.check()
            self._progress.losses.append(_stepped(step, self._run.timer.spent("distil"), self._policy))
            yield self._progress.losses[-1]
            self._spoken = time.perf_counter()
        yield from self._pending_remarks()
        if time.perf_counter() - self._spoken > PROGRESS_SECONDS:
            memory = self._policy.used_bytes()
            yield Progressed(phase="distil", done=step.iteration, total=self._total, memory_bytes=memory)
            self._spoken = time.perf_counter()

    def _pending_remarks(self) -> Iterator[Warned | Adapted]:
        while self._remarks:
            yield self._remarks.pop(0)

    def _checkpoint(self) -> Checkpoint:
        """Make a checkpoint of the last step."""
        step = self._step
        assert step is not None
        # To be evaluated before the run goes on, or after its end.
        due = self._due or step.iteration >= self._total
        return Checkpoint(
            config_sha256=self._config.sha256,
            iteration=step.iteration,
            state=step.state(),
            set_sha256=save_set(step.synthetic, step.iteration, self._run.job.card).sha256 if due else "",
            policy={name: int(getattr(self._problem.policy, name)) for name in ADAPTABLE},
        )

    def _check(self, step: Step) -> None:
        """See that a step's iteration is one of those to come.

        Raises:
            BadInput: it is not.
        """
        method, total, before = self._config.method.name, self._total, self._step
        if total and (step.iteration > total or (before and step.iteration <= before.iteration)):
            after = f" after iteration {before.iteration}" if before else ""
            raise BadInput(
                f"The method {method} was asked for {total} iterations, and gave number {step.iteration}{after}."
            )

    def _checked_end(self) -> Step:
        """The last step, if it is the one that was asked for, and finite."""
        step, total, method = self._step, self._total, self._config.method.name
        if step is None:
            raise BadInput(f"The method {method} gave no synthetic set.")
        if step.iteration < total:
            raise BadInput(
                f"The method {method} stopped after {step.iteration} of its {total} iterations, so its set is not the "
                f"one that was asked for. To have it, ask for {step.iteration}."
            )
        self._divergence.check()
        in_a_row = int(step.state().get("in_a_row", 0)) if self._left_out() else 0
        if in_a_row > 1:  # a step may be left out now and then: the next one has other images
            since = step.iteration - in_a_row + 1
            raise Diverged(since, f"The loss or its gradient is not finite from iteration {since} to the end")
        return step

    def _left_out(self) -> float:
        """The number of steps that were left out since they were not finite."""
        losses = self._progress.losses
        return float(losses[-1].losses.get(SKIPPED, 0.0)) if losses else 0.0


def _stepped(step: Step, seconds: float, policy: Policy) -> Stepped:
    # The only place where the host waits for the device.
    losses = {name: events.real(float(value)) for name, value in step.losses.items()}
    used = policy.used_bytes()
    return Stepped(iteration=step.iteration, losses=losses, seconds=seconds, memory_bytes=used, parts=step.parts)
