"""Event: everything a run can say.

The engine yields events, the store keeps them, and every screen, table and report is a view of them. In JSON
each is an object whose `kind` is its name in lower case.
"""

import math
from typing import Any, Literal

from msgspec import Struct

from dambench.config import RunConfig

Real = float | Literal["nan", "inf", "-inf"]
"""A number that may have gone wrong. JSON and SQLite would both turn a NaN into NULL, which says «unknown»."""


def real(value: float) -> Real:
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


class Environment(Struct, frozen=True, kw_only=True):
    """What a number may depend on besides its configuration."""

    dambench: str
    python: str
    torch: str
    torchvision: str
    cuda: str
    cudnn: str
    driver: str
    """Of the GPU; empty where there is none."""
    device: str
    device_name: str
    host: str
    platform: str
    cpus: int
    threads: int
    deterministic_algorithms: bool
    cudnn_benchmark: bool
    tf32_matmul: bool
    tf32_convolution: bool
    matmul_precision: str
    cublas_workspace: str
    sqlite: str
    git_commit: str
    """Of the checkout that dambench runs from; empty for an installed package."""
    git_dirty: bool
    command_line: str


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
    """Of the tensor file."""
    size_bytes: int

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


class Progressed(Event, frozen=True, kw_only=True):
    """How far a phase has come. Only the latest is kept."""

    phase: str
    done: int
    total: int
    note: str = ""
    memory_bytes: int = 0
    """In use now: by the allocator on a GPU, by the process on a CPU."""


class Stepped(Event, frozen=True, kw_only=True):
    """The method took an iteration whose losses were logged."""

    iteration: int
    losses: dict[str, Real]
    seconds: float
    """Since the method began, evaluations left out."""
    memory_bytes: int = 0


class Snapshot(Event, frozen=True, kw_only=True):
    """The synthetic set as it was after an iteration is on disk."""

    iteration: int
    sha256: str
    """Of the file, which is named by it."""
    size_bytes: int
    shape: list[int]
    dtype: str
    preview: bytes = b""
    """A small PNG: a row per class, at most ten images each."""


class Evaluated(Event, frozen=True, kw_only=True):
    """One network was trained on the synthetic set and tested on the real test set."""

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
    peak_memory_bytes: int


class Warned(Event, frozen=True, kw_only=True):
    """Something a reader of the result should know."""

    message: str


class Finished(Event, frozen=True, kw_only=True):
    """The run did all it was asked."""

    set_sha256: str
    costs: list[Cost]


class Failed(Event, frozen=True, kw_only=True):
    """The run came to an end that nobody asked for."""

    error: str
    traceback: str
    costs: list[Cost]


class Stopped(Event, frozen=True, kw_only=True):
    """The run was told to stop, and did."""

    signal: str
    phase: str
    iteration: int
    costs: list[Cost]


AnyEvent = Started | Progressed | Stepped | Snapshot | Evaluated | Warned | Finished | Failed | Stopped
