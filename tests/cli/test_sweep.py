"""`dambench sweep`: plans, and the runs that are missing."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.cli import estimates
from dambench.cli.app import run_cli
from dambench.cli.estimates import MeasuredCost
from dambench.core.config import Request
from dambench.core.units import duration
from dambench.store.runs import Store
from tests.cli.lab import begun, printed

__all__ = ["begun"]

GRID = """
name = "tiny"
[run]
dataset = "digits"
network = "convnet-d1-w4"
eval_repeats = 1
[grid]
method = [{name = "dm", iterations = 2, batch_real = 8}, "random"]
seed = {from = 0, to = 1}
"""


def _plan(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    plan: dict[str, Any] = printed(capsys, "sweep", "tiny.toml", "--dry-run")
    return plan


def test_what_is_missing_is_made_and_nothing_twice(begun: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.toml").write_text(GRID.replace("to = 1", "to = 0"))
    other = ["--method", "random", "--network", "convnet-d1-w4", "--seed", "9", "--eval-repeats", "1"]
    assert run_cli(["run", "--headless", "--dataset", "digits", *other]) == 0
    plan = _plan(capsys)
    assert [(run["settings"]["method"], run["standing"]) for run in plan["runs"]] == [
        ("random", "new"),
        ({"name": "dm", "iterations": 2, "batch_real": 8}, "new"),
    ]
    assert run_cli(["sweep", "tiny.toml"]) == 0
    assert len(begun) == 2
    said = capsys.readouterr().err
    assert "Sweep tiny: 2 runs, 0 done already, 2 to do." in said
    assert "2 runs finished: dambench report --filter sweep:tiny" in said

    assert run_cli(["sweep", "tiny.toml"]) == 0
    assert len(begun) == 2
    Path("tiny.toml").write_text(GRID)  # extended
    plan = _plan(capsys)
    assert [run["standing"] for run in plan["runs"]] == ["done", "done", "new", "new"]
    assert all(run["seconds"] > 0 for run in plan["runs"] if run["standing"] == "new")
    assert run_cli(["sweep", "tiny.toml", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (len(result["runs"]), result["failed"]) == (4, [])
    rows = printed(capsys, "runs", "--filter", "sweep:tiny")
    assert sorted(row["id"] for row in rows) == sorted(result["runs"])
    assert printed(capsys, "runs", "--filter", "sweep:tin") == []
    assert run_cli(["report", "--filter", "sweep:tiny"]) == 0
    assert "4 finished runs" in capsys.readouterr().out


def test_what_stopped_is_resumed_and_what_failed_is_tried_again_on_request_only(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def now(state: str) -> None:
        with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
            store.tables.execute("update runs set state = ? where method = 'dm'", state)

    Path("tiny.toml").write_text(GRID.replace("to = 1", "to = 0"))
    assert run_cli(["sweep", "tiny.toml"]) == 0
    now("stopped")
    assert run_cli(["sweep", "tiny.toml"]) == 0
    assert [command[0] for command in begun] == ["run", "run", "resume"]
    now("failed")
    assert run_cli(["sweep", "tiny.toml"]) == 1
    assert len(begun) == 3
    assert "has failed before; --retry tries it again" in capsys.readouterr().err
    assert run_cli(["sweep", "tiny.toml", "--retry"]) == 0
    assert len(begun) == 4

    # Runs that were there before belong to another sweep that means them, too.
    Path("tiny.toml").write_text(GRID.replace("to = 1", "to = 0").replace('"tiny"', '"other"'))
    assert run_cli(["sweep", "tiny.toml"]) == 0
    assert len(begun) == 4
    assert len(printed(capsys, "runs", "--filter", "sweep:other")) == 2


def test_evaluators_measure_each_set_once_it_is_made_and_nothing_twice(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    measured = 'evaluators = [{name = "continual", steps = 2, orders = 1}, "lrs"]'
    Path("tiny.toml").write_text(measured + GRID.replace('"random"', '"random", "whole"').replace("to = 1", "to = 0"))
    assert run_cli(["sweep", "tiny.toml", "--dry-run"]) == 0
    assert "continual (steps 2, orders 1); for 3 runs the data are not prepared yet." in capsys.readouterr().out
    assert run_cli(["sweep", "tiny.toml", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert (len(result["runs"]), len(result["evaluations"]), result["failed"]) == (3, 5, []), "the whole set has no LRS"
    assert "3 runs and 5 evaluations finished" in captured.err
    commands = [words[0] for words in begun]
    assert commands.index("evaluate") > commands.index("run"), "runs come first"
    assert commands.count("evaluate") == 5

    begun.clear()
    assert run_cli(["sweep", "tiny.toml"]) == 0
    assert begun == []
    assert "continual (steps 2, orders 1), 3 evaluations, 3 done already." in capsys.readouterr().err
    assert run_cli(["report", "--filter", "sweep:tiny", "--sections", "measured"]) == 0
    assert "Continual: digits" in capsys.readouterr().out

    Path("tiny.toml").write_text(measured + GRID.replace('"random"', '"random", "whole"'))  # one seed more
    plan = _plan(capsys)
    new = [one for one in plan["evaluations"] if one["standing"] == "new"]
    assert [one["evaluator"] for one in new] == ["continual", "lrs", "continual", "continual", "lrs"]
    assert {one["seed"] for one in new} == {1}
    assert all(one["seconds"] is not None for one in new if one["evaluator"] == "continual")

    Path("tiny.toml").write_text(measured.replace("steps = 2", "stepps = 2") + GRID)
    assert run_cli(["sweep", "tiny.toml"]) == 2
    assert begun == []
    assert "The evaluation by continual (stepps 2, orders 1) of the run with method random cannot be" in (
        capsys.readouterr().err
    )


def test_a_sweep_that_ends_before_its_evaluations_are_queued_queues_them_when_it_is_repeated(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begun == []
    measured = 'evaluators = [{name = "continual", steps = 2, orders = 1}]'
    Path("tiny.toml").write_text(measured + GRID.replace("to = 1", "to = 0"))

    def killed(*arguments: object) -> list[str]:
        raise SystemExit(9)

    with monkeypatch.context() as ending:
        ending.setattr("dambench.cli.measuring.queue_evaluations", killed)
        with pytest.raises(SystemExit):
            run_cli(["sweep", "tiny.toml", "--queue"])
    runs = printed(capsys, "queue", "list")["counts"]["waiting"]
    for _ in range(2):
        assert run_cli(["sweep", "tiny.toml", "--queue"]) == 0
        assert printed(capsys, "queue", "list")["counts"] == {"waiting": 2 * runs}


def test_a_plan_keeps_and_prepares_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.toml").write_text(GRID)
    before = sorted(tmp_path.iterdir())
    plan = _plan(capsys)
    assert [run["standing"] for run in plan["runs"]] == ["data not prepared"] * 4
    assert run_cli(["sweep", "tiny.toml", "--dry-run"]) == 0
    assert "4 data not prepared" not in capsys.readouterr().out  # two on each line
    assert [path for path in sorted(tmp_path.iterdir()) if path not in before and path.name != "home"] == []
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_sweep_may_only_be_queued_and_a_worker_or_the_same_command_carries_it_out(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tiny.toml").write_text(GRID)
    for _ in range(2):
        assert run_cli(["sweep", "tiny.toml", "--queue"]) == 0
        assert "4 runs queued: `dambench queue work` carries them out." in capsys.readouterr().err
    listed = printed(capsys, "queue", "list")["runs"]
    assert [(run["method"], run["seed"]) for run in listed] == [("random", 0), ("dm", 0), ("random", 1), ("dm", 1)]
    assert {run["tag"] for run in listed} == {"sweep:tiny"}
    assert listed[1]["settings"] == {"method": {"name": "dm", "iterations": 2, "batch_real": 8}}
    assert begun == []
    assert run_cli(["queue", "drop", listed[3]["id"]]) == 0
    assert printed(capsys, "queue", "work")["finished"] == [run["id"] for run in listed[:3]]
    assert len(begun) == 3
    assert run_cli(["sweep", "tiny.toml"]) == 0
    assert len(begun) == 4


def test_one_run_that_cannot_be_begins_none(begun: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.toml").write_text(GRID.replace('"random"', '"random", "nothing"'))
    assert run_cli(["sweep", "tiny.toml"]) == 2
    said = capsys.readouterr().err
    assert "The run with method nothing cannot be: No method is called 'nothing'" in said
    assert "A rule under [[skip]] of a sweep's file leaves it out." in said
    assert begun == []


@pytest.mark.slow
def test_interrupted_a_sweep_stops_its_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    grid = GRID.replace("iterations = 2", "iterations = 1500").replace('"random"', "").replace("to = 1", "to = 0")
    (tmp_path / "tiny.toml").write_text(grid)
    command = [sys.executable, "-m", "dambench", "sweep", "tiny.toml"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            time.sleep(0.5)
            if (tmp_path / "runs.db").exists():
                with closing(Store.open(tmp_path / "runs.db")) as store:
                    if any(row["done"] > 10 for row in store.query("select done from runs where phase = 'distil'")):
                        break
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=120)
    finally:
        first.kill()
    assert first.returncode == 130, said
    assert "Stopped; the same command goes on, with run " in said
    second = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert second.returncode == 0, second.stderr
    with closing(Store.open(tmp_path / "runs.db")) as store:
        (row,) = store.query("select state, attempt from runs")
    assert (row["state"], row["attempt"]) == ("finished", 2)


ROW = ["--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "1"]


def test_several_values_in_flags_are_a_sweep_that_can_be_repeated_and_extended(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--headless", "--method", "random", *ROW, "--ipc", "1,2", "--name", "both"]
    assert run_cli([*command[:1], "--dry-run", *command[2:]]) == 0
    assert "Sweep both: 2 runs, 0 done already, 2 to do." in capsys.readouterr().out
    assert run_cli(command) == 0
    assert "2 runs finished: dambench report --filter sweep:both" in capsys.readouterr().err
    assert run_cli(command) == 0
    assert len(begun) == 2
    assert sorted(row["ipc"] for row in printed(capsys, "runs", "--filter", "sweep:both")) == [1, 2]
    queued = printed(capsys, "queue", "add", *command[2:], "--seeds", "0,1")
    assert (len(queued["queued"]), len(queued["done"])) == (2, 2)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--check"], "--check is not for a sweep, which this is by several values of ipc"),
        (["--headless", "--again"], "--again is not for a sweep"),
        (["--detach"], "`dambench queue add` takes the same words"),
        (["--headless", "--recipe", "a,"], "--recipe 'a,' has nothing between two commas"),
    ],
)
def test_a_sweep_of_flags_is_refused_where_one_run_is_meant(
    more: list[str], why: str, begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["run", "--method", "random", *ROW, "--ipc", "1,2", *more]) == 2
    assert why in capsys.readouterr().err
    assert not Path("runs.db").exists()


def test_a_script_that_was_interrupted_goes_on_with_its_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = ["run", "--headless", "--method", "random", *ROW]
    first = printed(capsys, *run)["run"]
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        store.tables.execute("update runs set state = 'stopped'")
    assert run_cli([*run, "--tag", "a", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["run"] == first
    assert f"run {first}, resumed: it was stopped, and --again begins a new one" in shown.err
    assert "--name and --tag are of new runs." in shown.err
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        store.tables.execute("update runs set state = 'failed'")
    assert printed(capsys, *run)["run"] != first  # it would fail again, as far as is known
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        store.tables.execute("update runs set state = 'stopped'")
    assert printed(capsys, *run, "--again")["run"] != first


def test_a_run_that_another_process_carries_out_is_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dambench.cli.follow_up.POLL_SECONDS", 0.0)
    run = ["run", "--headless", "--method", "random", *ROW]
    first = printed(capsys, *run)["run"]

    def alive(then: str) -> None:
        states = iter(["running", "running", then])
        monkeypatch.setattr("dambench.cli.follow_up.processes.state", lambda row: next(states, then))
        with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
            store.tables.execute("update runs set state = 'running'")

    alive("stopped")
    assert run_cli(run) == 2
    said = capsys.readouterr().err
    assert f"run {first} does this now" in said
    assert f"The run {first}, which was waited for, is stopped: `dambench resume {first}`." in said


def test_a_plan_counts_what_runs_share_once_and_measures_what_no_past_run_tells(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Request]] = []

    def measure(requests: list[Request], patience: float) -> list[MeasuredCost | str]:
        asked.append(list(requests))
        return [MeasuredCost(10.0, 60.0, 0, 1000), "too large"]

    monkeypatch.setattr("dambench.cli.estimates.measure", measure)
    grid = GRID.replace('{name = "dm", iterations = 2, batch_real = 8}', '"tgdd", "dm"').replace("to = 1", "to = 2")
    Path("tiny.toml").write_text(grid)
    assert run_cli(["run", "--headless", "--method", "random", *ROW]) == 0
    plan = _plan(capsys)
    assert [request.choice("method").name for request in asked[0]] == ["tgdd", "dm"]
    of_tgdd = [run for run in plan["runs"] if run["settings"]["method"] == "tgdd"]
    assert [(run["seconds"], run["measured"], run["shared"]) for run in of_tgdd] == [
        (10.0, True, "2 trained networks convnet-d1-w4 on digits")
    ] * 3
    assert plan["shared"] == [{"what": "2 trained networks convnet-d1-w4 on digits", "seconds": 60.0, "kept": False}]
    assert [run["seconds"] for run in plan["runs"] if run["settings"]["method"] == "dm"] == [None] * 3
    assert run_cli(["sweep", "tiny.toml", "--dry-run"]) == 0
    printed_plan = capsys.readouterr().out
    share = "First, kept for the 3 runs that share it: 2 trained networks convnet-d1-w4 on digits, 1 min 0 s."
    assert share in printed_plan
    assert "– for 3 runs: too large." in printed_plan
    assert "for 5 of 8 runs." in printed_plan
    seconds = sum(run["seconds"] for run in plan["runs"] if run["seconds"] and run["standing"] == "new")
    assert f"{duration(seconds + 60)} one after another" in printed_plan


@pytest.mark.slow
def test_steps_are_measured_in_a_process_of_its_own_that_ends_with_patience(tmp_path: Path) -> None:
    assert run_cli(["run", "--headless", "--method", "random", *ROW]) == 0
    requests = [
        Request(method=name, dataset="digits", network="convnet-d1-w4", eval_repeats=1)
        for name in ("dm", "tgdd", "nothing")
    ]
    dm, tgdd, nothing = estimates.measure(requests, 120.0)
    assert isinstance(dm, MeasuredCost)
    assert isinstance(tgdd, MeasuredCost)
    assert dm.seconds > 0
    assert dm.shared_seconds is None
    assert (tgdd.shared_seconds or 0) > 0
    assert "No method is called 'nothing'" in str(nothing)
    began = time.monotonic()
    assert estimates.measure(requests * 30, 1.0) == []
    assert time.monotonic() - began < 10
