"""Event: everything a run can say.

The engine yields events, the store keeps them, and every screen, table and report is a view of them. In JSON
each is an object whose `kind` is its name in lower case.
"""

import math
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict, replace

from dambench.core.config import RunConfig
from dambench.core.sanitize import display, display_lines

# What plug-ins may import: see docs/plugins.md.
__all__ = ["Adapted", "DataCard", "Measured", "Metric", "Progressed", "Warned"]

Real = float | Literal["nan", "inf", "-inf"]
"""A number that may have gone wrong. JSON and SQLite would both turn a NaN into NULL, which says «unknown»."""


def real(value: float) -> Real:
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


PHASES = ("prepare", "experts", "distil", "evaluate")
"""The phases of a run, in their order."""


class Environment(Struct, frozen=True, kw_only=True):
    """What a number may depend on besides its configuration."""

    dambench: str
    python: str
    torch: str
    torchvision: str
    cuda: str
    cudnn: str
    driver: str
    """The GPU's driver; empty without a GPU."""
    device: str
    device_name: str
    device_uuid: str = ""
    """The GPU's UUID as torch gives it: unlike its number, CUDA_VISIBLE_DEVICES does not change it. Empty on a CPU."""
    host: str
    platform: str
    cpus: int
    threads: int
    """Those that compute at once. How many of them share an operation is in the configuration's `where`."""
    deterministic_algorithms: bool
    cudnn_benchmark: bool
    tf32_matmul: bool
    tf32_convolution: bool
    matmul_precision: str
    cublas_workspace: str
    allocator: str = ""
    """How the C library hands out memory, where the environment says so."""
    compiler: str = ""
    """With which torch compiled; empty: it did not."""
    sqlite: str
    git_commit: str
    """Commit of the checkout that dambench runs from; empty for an installed package."""
    git_dirty: bool
    command_line: str


class Process(Struct, frozen=True, kw_only=True):
    """Which process a run is, or was: enough to tell it from any other, also after a restart of the machine."""

    host: str
    boot: str
    """Boot of the machine, and the container: pids are comparable only where both are the same."""
    pid: int
    started: int
    """When, as the machine counts: a pid that is used again has another."""
    log: str = ""
    """The file that its output goes to; empty: a terminal, or whatever it was started with."""


class DataCard(Struct, frozen=True, kw_only=True):
    """What is known of a prepared dataset without opening its tensors: the JSON that lies beside it."""

    name: str
    label: str
    """How tables call it: the name, or the name of the user's own folder or file."""
    version: int = 1
    train_counts: list[int]
    """Images of each class."""
    test_counts: list[int]
    classes: list[str]
    channels: int
    height: int
    width: int
    mean: list[float]
    """Per channel, of pixels in [0, 1]: what is subtracted before a network sees an image."""
    std: list[float]
    mirrors: bool
    """Whether a mirror image belongs to the same class: False for digits and letters."""
    source: str
    """SHA-256 of what it was prepared from."""
    sha256: str
    """SHA-256 of the tensor file."""
    size_bytes: int
    notes: list[str] = []
    """What a reader of a result on it should know: files that were passed over, images that were changed."""

    @property
    def majority(self) -> float:
        """Accuracy on the test set of always answering its most frequent class, in [0, 1]."""
        return max(self.test_counts) / sum(self.test_counts)


class Cost(Struct, frozen=True, kw_only=True):
    """What one phase of a run took."""

    phase: str
    seconds: float
    peak_memory_bytes: int
    """The allocator's peak on a GPU, the process's peak resident memory on a CPU; 0: unknown."""
    peak_reserved_bytes: int = 0
    """What the allocator had taken from the GPU at most, whether in use or kept for later; 0 on a CPU."""
    joules: float | None = None
    """Energy of the GPU's whole board; None: not known, or there was no GPU."""
    shared: bool | None = None
    """Whether another process computed on the GPU, so that the energy is not this run's alone; None: not known."""


class Energy(NamedTuple):
    """A reading of an energy meter."""

    joules: float
    """The energy of the GPU's whole board, since the meter was opened."""
    shared: bool | None
    """Whether another process computed on the GPU since the reading before; None: not known."""


class Metric(Struct, frozen=True, kw_only=True):
    """What a number means that an evaluator takes."""

    description: str
    unit: Literal["", "fraction", "seconds", "bytes"] = "fraction"
    """How it is shown: a fraction as percent; empty: as the number that it is."""
    better: Literal["higher", "lower"] = "higher"


class Event(Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Base of all events."""


class Started(Event, frozen=True, kw_only=True):
    """The run has begun: its data are ready and its configuration holds."""

    config: RunConfig
    config_sha256: str
    data: DataCard
    recipe: str
    """The source of the recipe whose settings were the defaults; empty: the method has none."""
    overrides: dict[str, Any]
    """The method's settings that differ from the recipe's."""
    environment: Environment
    metrics: dict[str, dict[str, Metric]] = {}
    """By evaluator and name, what will be measured. Older runs leave out those of accuracy."""


class Resumed(Event, frozen=True, kw_only=True):
    """The run goes on from a checkpoint. Whatever it had said of later iterations no longer holds."""

    attempt: int
    """2: the first time that it was resumed. Each attempt is a process of its own, and only the last one may speak."""
    iteration: int
    """How many iterations the checkpoint holds; -1: there was none, and the run begins anew."""
    checkpoint: str
    """SHA-256 of its file; empty: there was none."""
    process: Process
    environment: Environment


class Checkpointed(Event, frozen=True, kw_only=True):
    """All that is needed to go on bit for bit after an iteration is on disk."""

    iteration: int
    sha256: str
    """SHA-256 of the file, which is named by it."""
    size_bytes: int
    seconds: float
    """Time that writing it took."""


class Progressed(Event, frozen=True, kw_only=True):
    """How far a phase has come. Only the latest is kept."""

    phase: str
    done: int
    total: int
    note: str = ""
    memory_bytes: int = 0
    """In use now: by the allocator on a GPU, by the process on a CPU."""


SKIPPED = "skipped"
"""Among the losses: how many steps were left out so far, since they were not finite."""


class Stepped(Event, frozen=True, kw_only=True):
    """The method took an iteration whose losses were logged."""

    iteration: int
    losses: dict[str, Real]
    seconds: float
    """Since the method began, evaluations left out."""
    memory_bytes: int = 0
    parts: dict[str, float] = {}
    """What this iteration spent its time on, seconds, in the method's words; empty: not measured. On a GPU it is not:
    the host would have to wait for the device."""


class Previewed(Event, frozen=True, kw_only=True):
    """What the synthetic set looked like after an iteration. Of a run some are kept, spread over it."""

    iteration: int
    preview: bytes
    """A small PNG: a row per class, at most ten images each."""


class Neighbour(Struct, frozen=True, kw_only=True):
    """Another process that computes on the run's GPU."""

    pid: int
    """As the host counts them: in a container not as `ps` there does."""
    name: str
    """Empty: it may not be read from here."""
    memory_bytes: int | None


class Sampled(Event, frozen=True, kw_only=True):
    """What the run's machine was doing at one moment. None: not known, or not supported by the GPU.

    Several samples may come at once, after the engine was silent; `seconds` says when they were taken.
    """

    seconds: float
    """Since the run said Started. The same clock for another event: its `at` less that of Started."""
    gpu_memory_used_bytes: int | None = None
    """Memory of the card in use by all processes, driver and contexts included; under MIG that of the instance."""
    gpu_memory_total_bytes: int | None = None
    gpu_busy_percent: int | None = None
    """Share of the last moments in which a kernel ran on the GPU. Under MIG there is no such figure."""
    gpu_watts: float | None = None
    """Power of the board; on Ampere (except GA100) and newer a mean over one second."""
    gpu_celsius: int | None = None
    gpu_millijoules: int | None = None
    """The board's counter, since the driver was loaded: a difference of two is energy."""
    gpu_neighbours: list[Neighbour] | None = None
    process_memory_bytes: int | None = None
    """Resident, of this process; and what processes that work for it have for themselves."""
    process_cpu_percent: float | None = None
    """Since the sample before; 100: one core."""
    host_memory_used_bytes: int | None = None
    """All that could not be had by a new process."""
    host_memory_total_bytes: int | None = None


class Snapshot(Event, frozen=True, kw_only=True):
    """The synthetic set as it was after an iteration is on disk."""

    iteration: int
    sha256: str
    """SHA-256 of the file, which is named by it."""
    size_bytes: int
    shape: list[int]
    dtype: str
    preview: bytes = b""
    """A small PNG: a row per class, at most ten images each."""
    parts: dict[str, int] = {}
    """Bytes of all that is needed to train on it, by part: `images`, `labels` or `soft labels`, `learning rate`,
    `whitening`. Older runs leave them out."""


class Measured(Event, frozen=True, kw_only=True):
    """One network trained on the synthetic set, and the metrics that an evaluator took of it."""

    evaluator: str
    subject: str
    """The network, in full."""
    repeat: int
    """Which of the networks trained on this set: 0, 1, …; the seeds are derived from it and the run's seed."""
    iteration: int
    """After which the set was as it is."""
    final: bool
    """Whether the set is the method's result, not one on the way."""
    set_sha256: str
    protocol_sha256: str
    seconds: float
    """Time of training and testing; for networks trained together, the share of each."""
    peak_memory_bytes: int
    """Peak of memory; for networks trained together, that of all of them."""
    values: dict[str, Real]
    """By metric; their units are in the evaluator's `METRICS`."""


class Evaluated(Event, frozen=True, kw_only=True):
    """An accuracy as runs logged it before there was `Measured`; `measured` gives it as that."""

    iteration: int
    final: bool
    """Whether the set is the method's result, not one on the way."""
    set_sha256: str
    network: str
    protocol_sha256: str
    repeat: int
    """Which of the networks trained on this set: 0, 1, …; the seeds are derived from it and the run's seed."""
    accuracy: float
    """On the test set after the last epoch, in [0, 1]."""
    balanced_accuracy: float
    """Mean over classes of the share of their test images that were recognised."""
    loss: Real
    """Mean cross-entropy on the test set, nats."""
    train_accuracy: float
    """On the set it was trained on, not augmented."""
    seconds: float
    """Time of training and testing; for networks trained together, the share of each."""
    peak_memory_bytes: int
    """Peak of memory; for networks trained together, that of all of them."""

    @property
    def measured(self) -> Measured:
        """The same score as the accuracy evaluator gives it now."""
        values = {name: getattr(self, name) for name in ("accuracy", "balanced_accuracy", "loss", "train_accuracy")}
        rest = {name: getattr(self, name) for name in Measured.__struct_fields__ if hasattr(self, name)}
        return Measured(**rest, evaluator="accuracy", subject=self.network, values=values)


class Warned(Event, frozen=True, kw_only=True):
    """Something a reader of the result should know."""

    message: str


class Adapted(Event, frozen=True, kw_only=True):
    """How the run computes was changed while it ran. The maths is the same; last bits may differ."""

    iteration: int
    """The first that was computed so."""
    what: str
    """`real_chunk`, `synthetic_chunk`, `kept_steps`, `stack` or `compiled`."""
    value: int
    reason: str


def remark(event: Warned | Adapted) -> str:
    """What a reader of the result should know, in a sentence."""
    if isinstance(event, Warned):
        return event.message
    return f"From iteration {event.iteration} on with {event.what} {event.value}: {event.reason}"


class Finished(Event, frozen=True, kw_only=True):
    """The run did all it was asked."""

    set_sha256: str
    costs: list[Cost]


class Failed(Event, frozen=True, kw_only=True):
    """The run came to an end that nobody asked for."""

    error: str
    traceback: str
    costs: list[Cost]
    diverged: int | None = None
    """The iteration whose loss was the first that is no number, where that is what went wrong."""


class Stopped(Event, frozen=True, kw_only=True):
    """The run was told to stop, and did."""

    signal: str
    phase: str
    iteration: int
    costs: list[Cost]


class Beginning(Struct, frozen=True, kw_only=True):
    """What is known of a run that is resumed."""

    attempt: int
    """Number of the attempt that begins now."""
    process: Process
    environment: Environment | None
    """In which it was begun; None: it was killed before it could say so."""
    checkpoints: list[str]
    """Their files, by SHA-256, oldest first."""
    scores: list[tuple[int, str, int]]
    """Iteration, network and repeat of those that there are."""
    sets: list[int]
    """The iterations whose sets are known."""
    losses: list[Stepped]
    """As they were logged."""
    stack: int = 0
    """Evaluation networks trained at once, after GPU memory was too small for the policy's number; 0: it was not."""


AnyEvent = (
    Started
    | Resumed
    | Progressed
    | Previewed
    | Stepped
    | Sampled
    | Snapshot
    | Measured
    | Evaluated
    | Checkpointed
    | Warned
    | Adapted
    | Finished
    | Failed
    | Stopped
)


def harmless(event: AnyEvent) -> AnyEvent:
    """The event with its texts as `display` shows them: they come from packages, libraries, drivers and files.

    Of Started the configuration and the card stay as they are: a run is made again from them, to the letter.
    """
    if isinstance(event, Started):
        return replace(
            event,
            recipe=display(event.recipe, 400),
            overrides=shown(event.overrides),
            environment=replace(event.environment, **shown(asdict(event.environment))),
            metrics={
                display(evaluator): {
                    display(name): replace(metric, description=display(metric.description, 400))
                    for name, metric in metrics.items()
                }
                for evaluator, metrics in event.metrics.items()
            },
        )
    if isinstance(event, Resumed):
        return replace(event, environment=replace(event.environment, **shown(asdict(event.environment))))
    if isinstance(event, Failed):
        return replace(event, error=display(event.error, 2000), traceback=display_lines(event.traceback))
    if isinstance(event, Measured):
        values = {display(name): value for name, value in event.values.items()}
        return replace(event, evaluator=display(event.evaluator), subject=display(event.subject), values=values)
    if isinstance(event, Stepped):
        return replace(event, losses={display(name): value for name, value in event.losses.items()})
    if isinstance(event, Progressed | Warned | Adapted | Stopped):
        return replace(event, **{key: shown(value) for key, value in asdict(event).items() if isinstance(value, str)})
    if isinstance(event, Sampled) and event.gpu_neighbours:
        return replace(event, gpu_neighbours=[replace(n, name=display(n.name)) for n in event.gpu_neighbours])
    return event


def shown(value: Any) -> Any:
    """A value with every text in it, names of fields too, as `display` shows it."""
    if isinstance(value, str):
        return display(value, 1000)
    if isinstance(value, dict):
        return {display(key): shown(inner) for key, inner in value.items()}
    return [shown(inner) for inner in value] if isinstance(value, list | tuple) else value
