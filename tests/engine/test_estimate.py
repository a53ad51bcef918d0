"""What a run would take, against what it takes."""

import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.config import Request
from dambench.core.errors import NotEnoughMemory
from dambench.core.events import Finished, Progressed, Snapshot
from dambench.engine import estimate as estimating
from dambench.engine.estimate import RunEstimate, estimate
from dambench.engine.job import Job
from dambench.engine.loop import run
from dambench.engine.settle import prepare
from dambench.training import train

SMALL = Request(
    method={"name": "dm", "batch_real": 16, "iterations": 40},
    dataset="digits",
    ipc=2,
    network="convnet-d1-w8",
    device="cpu",
    eval_repeats=1,
    evaluate_every=15,
    evaluate_on=["convnet-d1-w8", "convnet-d1-w4"],
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured for moments: of the seconds only the order of magnitude is looked at."""
    monkeypatch.setattr(estimating, "MEASURED_SECONDS", 0.2)


@pytest.mark.usefixtures("every_epoch")
def test_an_estimate_is_near_what_the_run_takes() -> None:
    job = prepare(SMALL)
    found = estimate(job)
    ending = list(run(job))[-1]
    assert isinstance(ending, Finished)
    spent = {cost.phase: cost.seconds for cost in ending.costs}
    for phase in ("distil", "evaluate"):
        # A busy machine is no reason to fail: what is tested is that nothing was forgotten or counted twice.
        assert spent[phase] / 4 < found.seconds[phase] < 4 * spent[phase], phase
    assert (found.iterations, found.networks) == (40, 6)
    assert list(found.network_seconds) == ["convnet-d1-w8", "convnet-d1-w4"]
    assert all(100e6 < peak < 10e9 for peak in found.peak_memory_bytes.values())


def test_the_disk_has_room_for_each_set_that_is_kept() -> None:
    job = prepare(SMALL)
    sets = sum(event.size_bytes for event in run(job) if isinstance(event, Snapshot))
    assert sets < estimate(job).disk_bytes < sets + 3 * 2**17 + 10**6


def test_a_method_that_does_not_iterate_has_no_iterations() -> None:
    found = estimate(prepare(Request(method="random", dataset="digits", ipc=1, network="convnet-d1-w8", device="cpu")))
    assert (found.iterations, found.first_iteration_seconds, found.iteration_seconds) == (0, 0.0, 0.0)
    assert found.seconds["evaluate"] > 0


def test_what_is_done_before_the_first_step_is_estimated_from_its_beginning() -> None:
    dc = {"name": "dc", "iterations": 1, "updates": 10**5, "batch_real": 8}
    found = estimate(prepare(Request(method=dc, dataset="digits", ipc=1, network="convnet-d1-w8", device="cpu")))
    assert found.seconds["distil"] > 100
    assert found.seconds["evaluate"] > 0


def test_only_a_few_steps_are_taken() -> None:
    found = estimate(
        prepare(Request(method="dm", dataset="digits", ipc=1, iterations=10**7, network="convnet-d1-w8", device="cpu"))
    )
    assert found.seconds["distil"] == pytest.approx(10**7 * found.iteration_seconds, rel=0.01)
    assert found.seconds["distil"] > 1000


def test_experts_that_would_be_trained_are_measured_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "MEASURED_SECONDS", 0.1)
    herding = {"name": "herding", "epochs": 10**5}
    job = prepare(Request(method=herding, dataset="digits", ipc=1, network="convnet-d1-w8", device="cpu"))
    found = estimate(job)
    assert found.seconds["experts"] > 100
    assert found.seconds["distil"] < 10
    assert not list(files.experts_folder().glob("*/*"))


def test_a_hard_label_twin_that_there_will_be_is_part_of_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "MEASURED_SECONDS", 1.0)  # in which a busy machine takes the first step, too
    mtt = {"name": "mtt", "iterations": 2, "experts": 1, "epochs": 3, "max_start": 1, "steps": 1}
    request = Request(method=mtt, dataset="digits", network="convnet-d1-w4", device="cpu", protocol="mtt")
    found = estimate(prepare(request), hard_twin=True)
    # Its twin dsa-dm has as many epochs.
    assert found.seconds["hard twin"] == pytest.approx(found.seconds["evaluate"])
    for protocol, twin in (("mtt", False), ("dsa-dm", True)):
        other = prepare(Request(method=mtt, dataset="digits", network="convnet-d1-w4", device="cpu", protocol=protocol))
        assert "hard twin" not in estimate(other, hard_twin=twin).seconds


def test_each_stage_of_training_experts_is_measured_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "MEASURED_SECONDS", 2.5)
    training = estimating._ExpertTraining(0.0)

    def said(note: str, done: int, total: int, now: float) -> bool:
        return training.measure(Progressed(phase="experts", done=done, total=total, note=note), now)

    assert not said("looking at those that are kept", 1, 9, 1.0)
    assert not said("score 1/2", 1, 50, 2.0)
    assert said("score 1/2", 3, 50, 4.0)
    assert training.seconds == 1 + 50
    assert not said("expert 1/2", 1, 1000, 5.0)
    assert said("expert 1/2", 2, 1000, 7.0)
    assert training.seconds == 1 + 50 + 1500


def test_a_dry_run_touches_no_database_and_no_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"not even a database")
    words = ["run", "--dry-run", "--method", "dm", "--dataset", "digits", "--iterations", "5", "--seeds", "0-2"]
    words += ["--network", "convnet-d1-w4", "--eval-repeats", "1", "--device", "cpu"]
    before = sorted(Path(os.environ["DAMBENCH_HOME"]).rglob("*.safetensors"))
    assert run_cli([*words, "--db", str(tmp_path / "other.db"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == 3
    assert found["iterations"] == 5
    assert not (tmp_path / "other.db").exists()
    assert [p for p in sorted(Path(os.environ["DAMBENCH_HOME"]).rglob("*.safetensors")) if "data" not in p.parts] == [
        p for p in before if "data" not in p.parts
    ]
    assert run_cli([*words, "--db", str(tmp_path / "other.db")]) == 0
    shown = capsys.readouterr().out
    assert "in all" in shown
    assert "3 runs of" in shown
    assert "peak memory" in shown
    assert run_cli([*words, "--db", str(path)]) == 2
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(path).execute("select 1 from runs")


def test_a_dry_run_that_finds_too_little_memory_says_so_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crowded(job: Job, *, hard_twin: bool) -> RunEstimate:
        raise NotEnoughMemory("640 real images do not fit.")

    monkeypatch.setattr(estimating, "estimate", crowded)
    assert run_cli(["run", "--dry-run", "--method", "dm", "--dataset", "digits", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "dambench: 640 real images do not fit."


def test_steps_of_a_large_network_are_measured_on_few_images_and_come_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimating, "MEASURED_SECONDS", 0.3)
    batches: list[int] = []
    step = train._Single.step

    def seen(self: train._Single, chosen: Tensor, *more: Any) -> None:
        batches.append(chosen.shape[1])
        step(self, chosen, *more)

    monkeypatch.setattr(train._Single, "step", seen)
    large = Request(method="random", dataset="digits", ipc=10, evaluate_on=["convnet-d2-w64"], device="cpu")
    job = prepare(large)
    whole = estimate(job).seconds["evaluate"]
    assert {*batches} == {100}
    batches.clear()
    monkeypatch.setattr(estimating, "RATE", 2e8)
    few = estimate(job).seconds["evaluate"]
    assert max(batches) < 60
    assert whole / 8 < few < 8 * whole  # on a busy machine


def test_networks_side_by_side_take_as_many_rounds_as_there_is_no_room_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimating, "can_fork", lambda: True)
    five = prepare(Request(method="random", dataset="digits", ipc=1, device="cpu", eval_repeats=5, threads=2))
    for cores, rounds in ((1, 5), (2, 3), (4, 2), (64, 1)):
        job = replace(five, policy=replace(five.policy, cores=cores))
        assert estimating._share_of_rounds(job) == rounds / 5
    monkeypatch.setattr(estimating, "can_fork", lambda: False)
    assert estimating._share_of_rounds(five) == 1
