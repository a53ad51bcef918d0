"""Networks that are trained side by side on a CPU come to what each comes to alone."""

import os
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch

from dambench import evaluators
from dambench.core import cores
from dambench.core.config import Request, read
from dambench.core.events import AnyEvent, Beginning, Failed, Measured, Progressed
from dambench.core.protocol import Budget
from dambench.core.side_by_side import Completed, Waited, Work
from dambench.engine import Job, prepare, run
from dambench.engine.loop import StopRun
from dambench.training.threads import can_fork, networks_beside

pytestmark = pytest.mark.skipif(not can_fork(), reason="networks are trained one after another here")


def _job(monkeypatch: pytest.MonkeyPatch, usable: int) -> Job:
    monkeypatch.setattr(cores, "usable", lambda: usable)
    settings: dict[str, Any] = {
        "method": "random",
        "dataset": "digits",
        "ipc": 1,
        "protocol": "quick",
        "evaluate_on": ["convnet-d1-w4", "mlp"],
        "eval_repeats": 2,
        "device": "cpu",
    }
    job = prepare(read(Request, settings, "the request"))
    short = msgspec.structs.replace(job.config.protocol, synthetic=Budget(epochs=20))
    return replace(job, config=msgspec.structs.replace(job.config, protocol=short))


def _values(events: list[AnyEvent]) -> dict[tuple[str, int], object]:
    assert not [event for event in events if isinstance(event, Failed)]
    return {(event.subject, event.repeat): event.values for event in events if isinstance(event, Measured)}


def test_bits_are_the_same_whatever_is_trained_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(run(_job(monkeypatch, 1)))
    beside = list(run(_job(monkeypatch, 3)))
    assert len(_values(alone)) == 4
    assert _values(alone) == _values(beside)
    for events in (alone, beside):
        shares = [event.done / event.total for event in events if isinstance(event, Progressed)]
        assert all(0 <= share <= 1 for share in shares)


def _until(events: Generator[AnyEvent, None, None], measured: int) -> list[AnyEvent]:
    """The events of a run that is stopped as soon as it has measured so many networks."""
    seen: list[AnyEvent] = []
    for event in events:
        seen.append(event)
        if len([one for one in seen if isinstance(one, Measured)]) == measured:
            seen.append(events.throw(StopRun("SIGTERM")))
            seen += events
    return seen


def test_a_run_that_is_stopped_among_several_keeps_those_that_were_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from dambench.engine.checkpoints import Keeper

    whole = _values(list(run(_job(monkeypatch, 1))))
    job = _job(monkeypatch, 3)
    before = _until(run(job, keeper=Keeper(tmp_path, 0.0)), 2)
    kept = _values(before)
    assert len(kept) == 2
    named = [event.sha256 for event in before if type(event).__name__ == "Checkpointed"]  # type: ignore[union-attr]
    beginning = Beginning(
        attempt=2,
        process=_process(),
        environment=next(event.environment for event in before if type(event).__name__ == "Started"),  # type: ignore[union-attr]
        checkpoints=named,
        scores=[(0, subject, repeat) for subject, repeat in kept],
        sets=[0],
        losses=[],
    )
    after = _values(list(run(job, keeper=Keeper(tmp_path, 0.0, named), beginning=beginning)))
    assert not kept.keys() & after.keys()
    assert kept | after == whole


def test_who_waits_for_the_first_word_of_a_network_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(*works: object, **how: object) -> Generator[Waited, None, None]:
        for _wait in range(200):
            time.sleep(0.02)
            yield Waited()
        pytest.fail("nobody could have been heard")

    monkeypatch.setattr(evaluators, "networks_beside", waiting)
    events = run(_job(monkeypatch, 3))
    first = next(event for event in events if isinstance(event, Progressed) and event.phase == "evaluate")
    assert (first.done, first.total) == (0, 4)
    events.throw(StopRun("SIGTERM"))


def _process() -> Any:
    from dambench.runner.processes import this_process

    return this_process("")


def _product(threads: int) -> Generator[int, None, tuple[int, float, bool]]:
    first = torch.rand(300, 300, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (first @ first).square().sum().backward()
    yield 1
    assert first.grad is not None
    return torch.get_num_threads(), float(first.grad.sum()), os.getpid() != parent


parent = os.getpid()


def test_no_more_are_trained_at_once_than_the_cores_that_are_left_have_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for left, beside in ((1, False), (2, True)):
        monkeypatch.setattr("dambench.training.threads.granted", lambda count=left: count)
        works = [Work(lambda: _product(1)) for _ in range(3)]
        ended = [one.result for one in networks_beside(works, 8) if isinstance(one, Completed)]
        assert [forked for _, _, forked in ended] == [beside] * 3


def test_each_process_has_its_own_number_of_threads_though_ours_have_been_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dambench.training.threads.granted", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _ = torch.rand(500, 500) @ torch.rand(500, 500)
        for threads in (1, 2):
            works = [Work(lambda count=threads: _product(count), threads) for _ in range(3)]  # type: ignore[misc]
            ended = [one.result for one in networks_beside(works, 4) if isinstance(one, Completed)]
            assert len({sums for _, sums, _ in ended}) == 1
            assert [(count, beside) for count, _, beside in ended] == [(threads, True)] * 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
