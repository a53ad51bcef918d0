"""What a run would take, from its first iterations and the first steps of its evaluation. Nothing of it is kept."""

import statistics
import time
from dataclasses import replace

import msgspec
import torch
from msgspec import Struct

from dambench import networks
from dambench.core.errors import BadInput
from dambench.core.events import Measured, Progressed, Warned
from dambench.core.hard_labels import hard_twin as twin_of
from dambench.core.hard_labels import used
from dambench.datasets import Parts
from dambench.engine.job import Job, distilled, evaluation_context, measured, open_parts, open_problem
from dambench.engine.loop import LOGGED_STEPS
from dambench.engine.sets import bytes_of
from dambench.training.problem import Seeds, Step, SyntheticSet
from dambench.training.threads import can_fork, sharing
from dambench.training.train import DEFAULT_LR, predict

MEASURED_SECONDS = 8.0
"""About how long each phase is measured, after its first step."""

TESTED_IMAGES = 2_000
"""Test images of which one pass is timed, at most."""

RATE = 10e9
"""Multiplications that a CPU makes in a second, at least: by it steps and passes are kept short enough to be measured.
(One thread of a Zen 4: 28 · 10⁹ in a step of a ConvNet.)"""

STEP = 3
"""Forward passes that a step takes as long as."""

EVENT_BYTES = 500
"""Size of a logged iteration or a sample in the database, indices included."""


class RunEstimate(Struct, frozen=True, kw_only=True):
    """Time, memory and disk space that a run would take."""

    seconds: dict[str, float]
    """By phase: `distil`, `evaluate`, `experts` where they are not there yet, and `hard twin`."""
    peak_memory_bytes: dict[str, int]
    """By phase, over the measured steps: the allocator's on a GPU, resident memory of the process on a CPU."""
    disk_bytes: int
    """Synthetic sets, and about what the database grows by."""
    first_iteration_seconds: float
    """With all that is done once: compiling, recording a graph. 0: the method has no iterations."""
    iteration_seconds: float
    """Median of the others."""
    iterations: int
    network_seconds: dict[str, float]
    """By evaluation network: to train and test one."""
    networks: int
    """How many would be trained and tested in all."""
    notes: list[str] = []
    """Warnings of the method."""


def estimate(job: Job, *, hard_twin: bool = False, longest: float | None = None) -> RunEstimate:
    """Take a few steps of a run, and say what all of them would take.

    Args:
        hard_twin: whether its set is to have its hard-label twin, if it carries what its protocol uses.
        longest: seconds that each phase is measured, after its first step; None: as usual.

    Raises:
        BadInput, NotEnoughMemory: as the run would fail.
    """
    longest = MEASURED_SECONDS if longest is None else longest
    config, policy = job.config, job.policy
    policy.apply()
    parts = open_parts(job)
    problem = open_problem(job, parts.train)
    notes: list[str] = []
    iterations = config.iterations
    policy.restart_peak()
    times: list[float] = []
    synthetic: SyntheticSet | None = None
    begun = last = time.perf_counter()
    training = _ExpertTraining(begun, longest)
    for event in distilled(job, problem):
        if isinstance(event, Warned):
            notes.append(event.message)
        if not isinstance(event, Step | Progressed):
            continue
        policy.synchronise()
        now = time.perf_counter()
        if isinstance(event, Progressed) and event.phase == "experts":
            problem.dry_run = training.measure(event, now)
            begun = last = time.perf_counter()
            continue
        if isinstance(event, Progressed):
            if not times and now - begun > longest:  # the first step alone takes long
                times = [(now - begun) / event.done * event.total / max(1, iterations)] * 2
                synthetic = problem.synthetic_set(problem.random_subset())
                if isinstance(config.protocol.lr, str):  # which the method's set will carry
                    synthetic = replace(synthetic, lr=torch.tensor(DEFAULT_LR))
                break
            continue
        synthetic = event.synthetic
        times.append(now - last)
        last = time.perf_counter()
        if len(times) > 1 and last - begun - times[0] > longest:
            break
    if synthetic is None:
        raise BadInput(f"The method {config.method.name} gave no synthetic set.")
    each = statistics.median(times[1:] or [0.0])
    distil = times[0] + each * max(0, iterations - 1)
    peaks = {"distil": policy.peak_bytes()}
    policy.restart_peak()
    per_network = {name: _network_seconds(job, name, synthetic, parts, longest) for name in config.evaluate_on}
    peaks["evaluate"] = policy.peak_bytes()
    on_the_way = (iterations - 1) // config.evaluate_every if config.evaluate_every and iterations else 0
    evaluations = 1 + on_the_way
    evaluated = config.eval_repeats * evaluations
    trained_once = sum(per_network.values()) * _share_of_rounds(job)
    seconds = {"distil": distil, "evaluate": evaluated * trained_once}
    if training.seconds:
        seconds = {"experts": training.seconds} | seconds
    if hard_twin and used(config.protocol, bytes_of(synthetic)) and (twin := twin_of(config.protocol)):
        longer = twin.synthetic.epochs / config.protocol.synthetic.epochs
        seconds["hard twin"] = config.eval_repeats * trained_once * longer
    sets = 0 if synthetic.whole else evaluations * len(synthetic.to_bytes())
    events = min(iterations, LOGGED_STEPS) + sum(seconds.values()) + evaluated * len(per_network)
    return RunEstimate(
        seconds=seconds,
        peak_memory_bytes=peaks,
        disk_bytes=int(sets + evaluations * 2**16 + events * EVENT_BYTES),
        first_iteration_seconds=times[0] if iterations else 0.0,
        iteration_seconds=each,
        iterations=iterations,
        network_seconds=per_network,
        networks=evaluated * len(per_network),
        notes=notes,
    )


class _ExpertTraining:
    """Time that each stage of training experts would take. Stages differ in how much there is to do.

    Args:
        now: when the first one began.
        longest: seconds that each is measured; None: as usual.
    """

    def __init__(self, now: float, longest: float | None = None) -> None:
        self._longest = MEASURED_SECONDS if longest is None else longest
        self.seconds = self._before = 0.0
        self._begun = self._last = now
        self._stage = "", 0

    def measure(self, event: Progressed, now: float) -> bool:
        """Take note of how far it is. Returns whether this stage was measured for long enough."""
        stage = event.note.partition(" ")[0], event.total
        if stage != self._stage:
            self._stage, self._before, self._begun = stage, self.seconds, self._last
        self._last, spent = now, now - self._begun
        enough = spent > self._longest
        self.seconds = self._before + (spent / event.done * event.total if enough and event.done else spent)
        return enough


def _share_of_rounds(job: Job) -> float:
    """The part of the time of all networks, one after another, that they take side by side, where each has cores."""
    config, policy = job.config, job.policy
    networks_in_all = config.eval_repeats * len(config.evaluate_on)
    if policy.device.type != "cpu" or not can_fork():
        return 1.0
    most = max(1, policy.cores // max(1, *(policy.threads_of(name) for name in config.evaluate_on)))
    return -(-networks_in_all // most) / networks_in_all


def _network_seconds(job: Job, name: str, synthetic: SyntheticSet, parts: Parts, longest: float) -> float:
    """To train and test one network of this name, as many at once as the run would.

    Where a step of a large one would take too long on a CPU, those of smaller batches are measured, of which there are
    more.
    """
    config, policy = job.config, job.policy
    together = min(policy.stack, config.eval_repeats)
    test, patience = parts.test, longest / len(config.evaluate_on)
    context = evaluation_context(job, synthetic, parts, set_sha256="", iteration=0, final=True)
    affordable = TESTED_IMAGES
    if policy.device.type == "cpu":
        affordable = max(2, int(patience * RATE / max(1, networks.multiplications(name, job.card))))
        if affordable // STEP < config.protocol.batch:
            smaller = msgspec.structs.replace(context.protocol, batch=max(2, affordable // STEP))
            context = replace(context, protocol=smaller)
    events = measured(job, replace(context, networks=(name,), repeats=together))
    first: tuple[float, int] | None = None
    training = begun = time.perf_counter()
    for event in events:
        if isinstance(event, Measured):
            break
        if not isinstance(event, Progressed):
            continue
        policy.synchronise()
        now = time.perf_counter()
        if first is None:  # what is done once for all steps is no measure of them
            first = now, event.done
            training = (now - begun) / event.done * event.total
        elif event.done > first[1]:
            training = (now - first[0]) / (event.done - first[1]) * event.total
        if now - first[0] > patience:
            break
    network = networks.build(name, job.card).to(policy.device)
    network.reset(Seeds(config.seed).generator("estimate", device=policy.device))
    some = min(TESTED_IMAGES, affordable, len(test.images))
    few = SyntheticSet(test.images[:some], test.labels[:some], synthetic.preprocessing, synthetic.classes)
    begun = time.perf_counter()
    with sharing(policy.threads_of(name) if policy.device.type == "cpu" else 0):
        predict(network, few, policy.test_batch(job.card.height * job.card.width))
    policy.synchronise()
    return training / together + (time.perf_counter() - begun) * len(test.images) / some
