"""Several ranks make the set that one makes, whatever the method, the number and who has which class."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dambench import networks
from dambench.core import registry
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import CopiedStep, quick_options, watch
from dambench.training.problem import Network, Normalisation, Problem, State
from dambench.training.ranks import Ranks, share_of

METHODS = [name for name in registry.names("methods") if registry.load("methods", name).SUMS_OVER_CLASSES]
CARD = data_card((5, 6, 7, 8, 9))

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Of a pixel of normalised images, as a share of the largest one, after some steps."""


class Room:
    """Where the ranks of a test lay things down for each other."""

    def __init__(self, size: int):
        self.size, self.barrier, self.board = size, threading.Barrier(size, timeout=60), dict[int, Any]()

    def exchange(self, rank: int, mine: Any) -> dict[int, Any]:
        self.barrier.wait()
        self.board[rank] = mine
        self.barrier.wait()
        return dict(self.board)


class ThreadRanks(Ranks):
    """Ranks that are threads of this process."""

    def __init__(self, rank: int, room: Room):
        self.rank, self.size, self.device, self._room = rank, room.size, torch.device("cpu"), room

    def _spread(self, parts: Sequence[Tensor]) -> None:
        given = self._room.exchange(self.rank, parts[self.rank].clone())
        for rank, part in enumerate(parts):
            part.copy_(given[rank])

    def follow_first(self, tensors: Sequence[Tensor]) -> None:
        given = self._room.exchange(self.rank, [tensor.detach().clone() for tensor in tensors])[0]
        for tensor, first in zip(tensors, given, strict=True):
            tensor.detach().copy_(first)


def problem_of(dtype: torch.dtype = torch.float32, network: str = "convnet-d2-w8") -> Problem:
    def build() -> Network:
        return networks.build(network, CARD).to(dtype)

    problem = tiny_problem(card=CARD, network=network)
    problem.build_network = build
    return problem


def together(size: int, work: Callable[[int, Ranks], Any]) -> list[Any]:
    """What each of so many ranks gives."""
    room, results, errors = Room(size), dict[int, Any](), list[BaseException]()

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank, ThreadRanks(rank, room))
        except BaseException as error:
            errors.append(error)
            room.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [results[rank] for rank in range(size)]


def distilled(
    name: str, size: int, resume: State | None = None, dtype: torch.dtype = torch.float32, **settings: Any
) -> list[list[CopiedStep]]:
    """The steps of each of so many ranks; of one, without any."""
    method = registry.load("methods", name)
    options = quick_options(method, **settings)
    if size == 1:
        return [watch(method, problem_of(dtype), options, resume)]

    def work(rank: int, ranks: Ranks) -> list[CopiedStep]:
        problem = problem_of(dtype)
        problem.ranks = ranks
        return watch(method, problem, options, resume)

    return together(size, work)


def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = Normalisation.apply
    monkeypatch.setattr(Normalisation, "apply", lambda self, pixels: applied(self, pixels).double())


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def same_state(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) if isinstance(value, Tensor) else value == theirs[name]
        for name, value in ours.items()
    )


@pytest.mark.parametrize("name", METHODS)
def test_several_ranks_make_the_set_that_one_makes(name: str) -> None:
    settings: dict[str, Any] = (
        {"memory_after": 1} if name == "dsdm" else {"updates": 2, "epochs": 1} if name in ("dc", "dsa") else {}
    )
    (alone,) = distilled(name, 1, iterations=3, **settings)
    begun = alone[0].images
    for size in (2, 3):
        ranks = distilled(name, size, iterations=3, **settings)
        for steps in ranks[1:]:  # to the bit the same on all
            assert same_state(steps[-1].state, ranks[0][-1].state)
            assert steps[-1].losses == ranks[0][-1].losses
        last = ranks[0][-1]
        assert apart(last.images, alone[-1].images) < TOLERANCE[torch.float32]
        assert last.losses == pytest.approx(alone[-1].losses, rel=1e-4)
        assert last.state.keys() == alone[-1].state.keys()
    assert apart(begun, alone[-1].images) > 10 * TOLERANCE[torch.float32]  # it has moved by more than that


@pytest.mark.parametrize("name", ["dm", "datadam", "dsa"])
def test_in_double_precision_they_agree_to_its_last_digits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_double(monkeypatch)
    settings: dict[str, Any] = {"updates": 2, "epochs": 1} if name == "dsa" else {}
    (alone,) = distilled(name, 1, dtype=torch.float64, iterations=3, **settings)
    assert alone[-1].images.dtype == torch.float64
    ranks = distilled(name, 3, dtype=torch.float64, iterations=3, **settings)
    assert apart(ranks[0][-1].images, alone[-1].images) < TOLERANCE[torch.float64]


def test_a_state_does_not_know_how_many_ranks_there_were() -> None:
    """What two ranks have begun one goes on with, and the other way round: the end is the same."""
    (alone,) = distilled("dsdm", 1, iterations=4, memory_after=1)
    begun_by_two = distilled("dsdm", 2, iterations=4, memory_after=1)[0][1]
    (ended_alone,) = distilled("dsdm", 1, begun_by_two.state, iterations=4, memory_after=1)
    ended_by_two = distilled("dsdm", 2, alone[1].state, iterations=4, memory_after=1)[1]
    for ended in (ended_alone, ended_by_two):
        assert ended[-1].iteration == 4
        assert apart(ended[-1].images, alone[-1].images) < TOLERANCE[torch.float32]


def test_a_rank_that_keeps_the_gradients_of_others_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadRanks, "complete", lambda self, tensor, classes: None)
    (alone,) = distilled("dm", 1, iterations=2)
    assert apart(distilled("dm", 2, iterations=2)[0][-1].images, alone[-1].images) > TOLERANCE[torch.float32]


@pytest.mark.parametrize(("size", "classes"), [(1, 3), (2, 10), (3, 10), (8, 9), (5, 5)])
def test_every_class_has_one_rank_and_no_rank_much_more_than_another(size: int, classes: int) -> None:
    parts = [share_of(rank, size, classes) for rank in range(size)]
    assert [c for part in parts for c in range(part.start, part.stop)] == list(range(classes))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1


def test_ranks_share_what_ncfm_s_sampling_network_learns() -> None:
    settings: dict[str, Any] = {"iterations": 3, "sampled_by": "network", "lr_sampling": 0.1}
    (alone,), ranks = distilled("ncfm", 1, **settings), distilled("ncfm", 2, **settings)
    assert same_state(ranks[0][-1].state, ranks[1][-1].state)
    ours, theirs = (steps[-1].state["sampling network"] for steps in (ranks[0], alone))
    assert apart(ours, theirs) < TOLERANCE[torch.float32]
    assert apart(alone[0].state["sampling network"], theirs) > 10 * TOLERANCE[torch.float32]
