"""The threads of a run: chosen when it is settled, recorded, and the same when it goes on."""

from typing import Any

import msgspec
import pytest

from dambench.core import cores
from dambench.core.config import Execution
from dambench.core.events import Environment
from dambench.engine import Job, prepare
from dambench.engine.settle import reopen
from dambench.training.environment import environment
from tests.lab import small_request


def _prepared(**changes: Any) -> Job:
    return prepare(small_request(**changes))


def _reopened(job: Job, where: Execution, before: Environment) -> Job:
    config = msgspec.structs.replace(job.config, execution=where)
    # As it comes from the database.
    config = msgspec.json.decode(msgspec.json.encode(config), type=type(config))
    return reopen(config, job.card.sha256, "", {}, before, print)


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable", lambda: 8)


@pytest.mark.usefixtures("many_cores")
def test_small_networks_have_one_thread_each_and_all_cores_are_used() -> None:
    job = _prepared(evaluate_on=["convnet-d1-w4", "mlp"])
    where = job.config.execution
    assert (where.threads, where.cores, where.shared_by) == (0, 8, 1)
    assert [*where.network_threads.values()] == [1, 1]
    assert (job.policy.threads, job.policy.cores, job.policy.workers) == (1, 8, 8)
    assert environment(job.policy, "").threads == 8


@pytest.mark.usefixtures("many_cores")
def test_only_a_large_network_shares_threads_and_never_more_than_were_asked_for() -> None:
    large = "convnet-d3-w256"
    job = _prepared(method="whole", network=None, iterations=None, evaluate_on=[large, "mlp"], ipc=None)
    assert job.policy.threads_of(large) > 1 == job.policy.threads_of("mlp")
    assert (job.config.execution.shared_by, job.policy.threads_of("another")) == (1, 1)
    fewer = _prepared(method="whole", network=None, iterations=None, evaluate_on=[large], ipc=None, threads=1)
    assert (fewer.policy.threads_of(large), fewer.policy.cores) == (1, 1)


@pytest.mark.usefixtures("many_cores")
def test_a_run_that_goes_on_has_the_threads_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    job = _prepared()
    before = environment(job.policy, "")
    monkeypatch.setattr(cores, "usable", lambda: 3)
    assert _reopened(job, job.config.execution, before).policy == job.policy
    recorded = msgspec.structs.replace(job.config.execution, shared_by=2, network_threads={"convnet-d1-w4": 4})
    later = _reopened(job, recorded, before).policy
    assert (later.threads, later.threads_of("convnet-d1-w4"), later.cores) == (2, 4, 8)
    # From before the choice was recorded: all threads shared every operation.
    old = msgspec.structs.replace(job.config.execution, cores=0, shared_by=0, network_threads={})
    policy = _reopened(job, old, msgspec.structs.replace(before, threads=5)).policy
    assert (policy.threads, policy.threads_of("convnet-d1-w4"), policy.workers, policy.cores) == (5, 5, 5, 5)


@pytest.mark.usefixtures("many_cores")
def test_processes_that_share_a_run_share_the_cores() -> None:
    assert _prepared(ranks=3, ipc=1).policy.cores == 2
    assert _prepared(ranks=2, threads=3).policy.cores == 3
    assert _prepared(ranks=2).config.execution.shared_by == 1
