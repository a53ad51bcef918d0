"""Ranks: the processes that share one distillation. Each takes some of the classes, and all take the same steps.

Where a loss is a sum over classes, so is its gradient, and that of a class needs the images of that class alone. Every
rank has all synthetic images and their optimiser, and draws all that is random for all classes, as one process would:
what is drawn does not depend on who looks at it. It computes the gradients of its own classes; those of the others come
from the others, and the step that follows is the same everywhere. So the state of a run is whole on each rank, and a
checkpoint does not know how many there were.

Tensors on a CPU travel by gloo, those on a GPU by NCCL.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from dambench.core.errors import RankLost

PATIENCE = timedelta(days=365)
"""For which ranks wait for each other: one may train experts, or evaluate. That one has died is seen by other means: a
connection that closes, or a process that has ended."""

SPIN_SECONDS, PAUSE_SECONDS, LONG_SECONDS = 0.005, 0.0002, 0.01
"""Who waits looks often at first, then with pauses, and in the end with longer ones: signals are seen in between."""


def share_of(rank: int, size: int, classes: int) -> slice:
    """The classes of a rank: as many as of any other, or one more or less, one after the other."""
    return slice(rank * classes // size, (rank + 1) * classes // size)


class Ranks:
    """The ranks of a run, as one of them sees it. What it gives and gets is on the run's device.

    Args:
        store: what the ranks find each other by; of this run alone.
        lost: why there is no use in waiting any more; empty: there is.
    """

    def __init__(self, store: Any, rank: int, size: int, device: torch.device, lost: Callable[[], str] = lambda: ""):
        self.rank, self.size, self.device, self._lost = rank, size, device, lost
        self._on_close: Callable[[], None] = lambda: None
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        store.set(f"ready {rank}", "yes")
        for other in range(size):
            self._until(partial(store.check, [f"ready {other}"]))
        hook = sys.excepthook
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        sys.excepthook = hook  # torch's writes the rank before each line, once more for each group

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that keeps the record."""
        return self.rank == 0

    def own(self, classes: int) -> slice:
        """The classes of this rank."""
        return share_of(self.rank, self.size, classes)

    def complete(self, tensor: Tensor, classes: int) -> None:
        """Fill in the rows of the others' classes, in place.

        Args:
            tensor: (classes * n, …), sorted by class, contiguous; the rows of this rank's classes are right.
        """
        each = len(tensor) // classes
        parts = [share_of(rank, self.size, classes) for rank in range(self.size)]
        self._spread([tensor[part.start * each : part.stop * each] for part in parts])

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in their order, so that it is the same on each."""
        table = values.new_zeros(self.size, *values.shape)
        table[self.rank] = values
        self._spread(list(table))
        return table.sum(0)

    def follow_first(self, tensors: Sequence[Tensor]) -> None:
        """Make tensors those of the first rank, in place."""
        for tensor in tensors:
            self._finish([self._broadcast(tensor.detach(), 0)])

    def from_first(self, content: bytes) -> bytes:
        """The bytes of the first rank, on every one.

        Args:
            content: what they are; of no use on another.
        """
        length = torch.tensor([len(content)])
        self.follow_first([length])
        size = int(length)
        tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_first and size else None
        if tensor is None:
            tensor = torch.empty(size, dtype=torch.uint8)
        if size:
            self.follow_first([tensor])
        return tensor.numpy().tobytes()

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.total(torch.zeros(1))

    def on_close(self, then: Callable[[], None]) -> None:
        """Have this called when this rank leaves."""
        self._on_close = then

    def close(self) -> None:
        """Leave: whoever still waits for this rank is told that it is gone."""
        self._on_close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _spread(self, parts: Sequence[Tensor]) -> None:
        """Give every rank the part of each, in place."""
        self._finish([self._broadcast(part, rank) for rank, part in enumerate(parts) if part.numel()])

    def _broadcast(self, tensor: Tensor, source: int) -> "dist.Work":
        try:
            work = dist.broadcast(tensor, source, async_op=True)
        except RuntimeError as error:
            raise self._gone(error) from None
        assert work is not None
        return work

    def _finish(self, works: Sequence["dist.Work"]) -> None:
        for work in works:
            try:
                self._until(work.is_completed)
                work.wait()
            except RuntimeError as error:
                raise error if isinstance(error, RankLost) else self._gone(error) from None

    def _until(self, done: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not done():
            if why := self._lost():
                raise RankLost(why)
            waited = time.monotonic() - began
            if waited > SPIN_SECONDS:
                time.sleep(PAUSE_SECONDS if waited < 1.0 else LONG_SECONDS)

    def _gone(self, error: RuntimeError) -> RankLost:
        """What to say of a connection that broke: why, where whoever watches the processes knows it a moment later."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            if why := self._lost():
                return RankLost(why)
            time.sleep(0.02)
        first = str(error).strip().partition("\n")[0]
        return RankLost(f"Another rank is gone, or cannot be reached: {first[:200]}.")


def ranks_here(size: int) -> int:
    """How many of so many ranks are on one machine: all, unless torchrun says otherwise."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size)) if os.environ.get("WORLD_SIZE") == str(size) else size


def prefixed(place: Any, run: int) -> Any:
    """The part of a meeting place that is of one run alone."""
    return c10d.PrefixStore(f"run {run}", place)


def meeting_place() -> Any:
    """What the ranks of this process's run find each other by: a file of `dambench run`'s own, or torchrun's store."""
    if path := os.environ.get("DAMBENCH_RANKS"):
        # Public and documented, but torch's stubs do not name it.
        return dist.FileStore(path, int(os.environ["WORLD_SIZE"]))  # type: ignore[attr-defined]
    return _of_torchrun()


@cache
def _of_torchrun() -> Any:
    store, _, _ = next(iter(rendezvous("env://", timeout=PATIENCE)))
    return store
