"""How many threads share an operation, and how many networks are trained beside each other on a CPU.

Threads that share an operation wait for each other at its end. A small network has hundreds of operations of some
microseconds in a step: there a second thread gains nothing on a machine that does nothing else, and where another
program wants its core, each operation waits until that one has had its turn. So a network has a thread of its own, and
several cores train several networks; only in a network whose operations take long do threads share them.

The choice follows from what is asked and from the cores that may be used, never from a measurement when a run begins:
the bits of a result are the same whatever else the machine does. It stands in the run's record (`Execution`).
"""

import mmap
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dambench.core import side_by_side
from dambench.core.cores import granted
from dambench.core.side_by_side import Advanced, Completed, Waited, Work

P = TypeVar("P")
R = TypeVar("R")


class Shared(NamedTuple):
    """How well threads share the operations of networks of some size."""

    multiplications: int
    """The least of a forward pass of a batch for which this holds."""
    alone: float
    """The part of a step that further threads do not make shorter."""


TABLE = (Shared(4_000_000_000, 0.12), Shared(400_000_000, 0.25))
"""By `python -m benchmarks threads`: steps of ConvNets by one thread and by two, on two idle cores. One
took 1.8 times as long as two at 4.8 · 10⁹ multiplications (width 128, 28×28, a batch of 100), 1.6 at 4.8 · 10⁸ (a batch
of 10), 1.5 at 2.5 · 10⁸ (width 32; width 128 on 8×8: less than two networks side by side gain), and 0.95 to 1.15 times
as long below that."""

EACH = 200_000_000
"""Multiplications that each of the threads has at least."""


def choose(multiplications: int, cores: int, networks: int = 1) -> int:
    """The threads that share the operations of a network.

    Args:
        multiplications: of a forward pass of the images that it sees at once.
        cores: that may be used.
        networks: that are trained, side by side where cores are left.

    Returns:
        The power of two with which all are done first by the table; of several the smallest.
    """
    alone = next((row.alone for row in TABLE if multiplications >= row.multiplications), None)
    most = min(cores, multiplications // EACH)
    if alone is None:
        return 1
    best, shortest = 1, float("inf")
    threads = 1
    while threads <= most:
        rounds = -(-networks // (cores // threads))
        takes = rounds * (alone + (1 - alone) / threads)
        if takes < shortest - 1e-9:
            best, shortest = threads, takes
        threads *= 2
    return best


@contextmanager
def sharing(count: int) -> Generator[None]:
    """Let so many threads share an operation that is begun by this thread, until the end; 0: as many as there are."""
    before = torch.get_num_threads()
    if count and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def can_fork() -> bool:
    """Whether networks can be trained in forked processes: torch bears it where it sees no GPU."""
    return side_by_side.possible() and not torch.cuda.is_available()


def networks_beside(
    works: Sequence[Work[P, R]],
    cores: int,
    *,
    most: int | None = None,
    on_warning: Callable[[str], None] = lambda message: None,
) -> Iterator[Advanced[P] | Completed[R] | Waited]:
    """Train networks side by side on a CPU, each with its own number of threads: see `core.side_by_side`.

    Args:
        cores: of the run. Where it goes on with fewer, no more networks are trained at once than those have room for.
    """
    counts = [work.threads or torch.get_num_threads() for work in works]
    shared = [Work(partial(_with_threads, work.do, count), count) for work, count in zip(works, counts, strict=True)]
    room = min(cores, granted()) if can_fork() else 1
    # It takes the lock of torch's own generator, which all threads of this process share.
    probe = torch.get_rng_state
    return side_by_side.side_by_side(shared, room, most=most, on_warning=on_warning, probe=probe)


def _with_threads(do: Callable[[], Generator[P, None, R]], count: int) -> Generator[P, None, R]:
    with sharing(count):
        return (yield from do())


@torch.inference_mode()
def multiplications(network: nn.Module, size: tuple[int, int, int]) -> int:
    """How many multiplications a network makes of one image (C, H, W): of its convolutions and linear layers."""
    counted = 0

    def count(layer: nn.Module, inputs: object, made: Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        counted += made.numel() * layer.weight[0].numel()

    for layer in network.eval().modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(torch.zeros(1, *size))
    return counted


def shared_memory(rows: int, columns: int) -> Tensor:
    """Zeros (rows, columns) float32 in memory that forked processes share, whoever writes there."""
    pages = mmap.mmap(-1, max(1, 4 * rows * columns))
    return torch.frombuffer(pages, dtype=torch.float32)[: rows * columns].view(rows, columns)
