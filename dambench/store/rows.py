"""Rows of runs, as queries give them."""

from typing import Any

from msgspec import Struct

from dambench.store.statistics import Estimate

SqlRow = dict[str, Any]
"""A row as SQLite gives it, which in a file from elsewhere may hold any value: column → value."""


class RunRow(Struct, frozen=True, kw_only=True):
    """A row of `runs`."""

    number: int
    id: str
    name: str
    state: str
    """By its own word: its process may be gone."""
    method: str
    dataset: str
    ipc: int | None
    network: str
    protocol: str
    seed: int
    overrides: str
    recipe: str
    phase: str
    done: int
    total: int
    set_sha256: str | None
    error: str
    traceback: str
    created_at: str
    ended_at: str | None
    config: str
    config_sha256: str
    dataset_sha256: str
    protocol_sha256: str
    uid: str
    attempt: int
    host: str
    boot: str
    pid: int
    process_started: int
    log: str
    beat_at: str
    stop_asked: int
    deleted_at: str
    note: str
    diverged_at: int | None
    results_sha256: str
    age: str
    """A later one is of a newer run, on whichever machine it was entered."""
    purpose: str
    """Empty, or `tuning`: it was made to choose settings by, and is no evidence."""


class RunSummary(Struct, frozen=True, kw_only=True):
    """A line of the list of runs."""

    id: str
    name: str
    state: str
    method: str
    overrides: str
    dataset: str
    ipc: int | None
    protocol: str
    seed: int
    phase: str
    done: int
    total: int
    created_at: str
    host: str
    boot: str
    pid: int
    process_started: int
    attempt: int
    beat_at: str
    log: str
    deleted_at: str
    evaluates: str
    """The set that it evaluates, if it does nothing else, as `ab2cde's set`."""
    accuracy: float | None
    n: int


class ListedRun(Struct, frozen=True, kw_only=True):
    """A run as a table of runs shows it."""

    number: int
    uid: str
    id: str
    name: str
    state: str
    method: str
    overrides: str
    dataset: str
    ipc: int | None
    network: str
    """Matched on; of a method that matches on none, the first that is trained on the set."""
    protocol: str
    seed: int
    phase: str
    done: int
    total: int
    iteration: int | None
    iterations: int | None
    """The number that the method is to take."""
    created_at: str
    ended_at: str | None
    beat_at: str
    host: str
    boot: str
    pid: int
    process_started: int
    log: str
    attempt: int
    error: str
    diverged_at: int | None
    note: str
    config_sha256: str
    evaluates: str
    tags: list[str]
    checkpoint: int | None
    """The iteration that it can go on from."""
    peak: int | None
    """Bytes."""
    seconds: float | None
    accuracy: Estimate | None
    loss: float | str | None
    """The last one that it logged."""
    rate: float | None
    """Iterations per second."""
    stands: str
    """How it really stands, as far as that was looked up."""
    validated: Estimate | None = None
    """The test accuracy of the set that validation chose; None: there was nothing to choose, or no validation."""


RUN_COLUMNS = ", ".join(f"runs.{name}" for name in RunRow.__struct_fields__)
