import json
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.events import AnyEvent, Measured
from dambench.store import database
from dambench.store.records import EventLogged
from dambench.store.runs import Store
from dambench.store.tables import Tables
from tests.cli.lab import DM, SMALL, printed


def test_run_prints_one_object_and_stores_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, *DM)
    assert set(result) == {
        *("run", "state", "method", "dataset", "ipc", "network", "protocol", "seed", "accuracy", "std", "n", "scores"),
        *("seconds", "peak_memory_bytes", "joules", "joules_shared", "synthetic_sha256", "warnings", "hard_twin"),
    }
    assert result["hard_twin"] is None
    assert (result["state"], result["method"], result["ipc"], result["n"]) == ("finished", "dm", 1, 2)
    assert 0 <= result["accuracy"] <= 1
    assert result["accuracy"] == pytest.approx(sum(s["accuracy"] for s in result["scores"]) / 2)
    shown = printed(capsys, "show", result["run"][:4])
    assert [s["accuracy"] for s in shown["scores"]] == [s["accuracy"] for s in result["scores"]]
    assert shown["sets"][0]["sha256"] == result["synthetic_sha256"]
    assert Path(shown["sets"][0]["file"]).name == f"{result['synthetic_sha256']}.safetensors"
    assert shown["run"]["config"]["method"]["options"]["iterations"] == 3


def test_the_same_command_twice_gives_the_same_set_and_scores(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = printed(capsys, *DM), printed(capsys, *DM, "--again")
    assert first["run"] != second["run"]
    assert first["synthetic_sha256"] == second["synthetic_sha256"]
    for a, b in zip(first["scores"], second["scores"], strict=True):
        assert {k: v for k, v in a.items() if k not in ("seconds", "peak_memory_bytes")} == {
            k: v for k, v in b.items() if k not in ("seconds", "peak_memory_bytes")
        }


def test_a_toml_file_gives_the_same_run_as_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'dataset = "digits"\nnetwork = "convnet-d1-w4"\neval_repeats = 2\ndevice = "cpu"\nname = "from a file"\n'
        '[method]\nname = "dm"\nbatch_real = 8\niterations = 99\n'
    )
    by_file = printed(capsys, "run", "run.toml", "--headless", "--iterations", "3")
    assert printed(capsys, *DM) == by_file | {"existing": True}
    assert [row["name"] for row in printed(capsys, "runs")] == ["from a file"]


def test_several_seeds_are_several_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*DM, "--seeds", "0-2", "--tag", "sweep", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert len({line["synthetic_sha256"] for line in lines}) == 3
    assert printed(capsys, *DM, "--seed", "2", "--again")["synthetic_sha256"] == lines[2]["synthetic_sha256"]
    assert printed(capsys, "show", lines[0]["run"])["tags"] == ["sweep"]


def test_what_a_finished_run_has_done_is_pointed_out_and_only_the_rest_is_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = ["run", "--headless", "--dataset", "digits", "--method", "random", "--eval-repeats", "1"]
    random += ["--evaluate-on", "convnet-d1-w1"]
    first = printed(capsys, *random, "--seed", "1")
    assert run_cli([*random, "--seeds", "0-2", "--json"]) == 0
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert [line.get("existing") for line in lines] == [None, True, None]
    assert lines[1] == first | {"existing": True}
    assert f"run {first['run']} has done this already" in shown.err
    assert run_cli([*random, "--seed", "1", "--iterations", "3"]) == 0
    assert "--iterations has no effect" in capsys.readouterr().err
    # Anything that could change the result is another run; a failed one, or one in the trash, is none.
    assert "existing" not in printed(capsys, *random, "--ipc", "2")
    assert run_cli(["delete", lines[0]["run"]]) == 0
    third = printed(capsys, *random)
    assert third["run"] != lines[0]["run"]
    capsys.readouterr()
    assert run_cli([*random, "--check"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["existing"] == [third["run"]]
    assert f"The run {third['run']} has done this already" in checked["notes"][0]
    assert printed(capsys, *random, "--again")["run"] != third["run"]
    assert len(printed(capsys, "runs")) == 5


@pytest.mark.slow
def test_a_detached_run_that_was_done_already_is_named_on_stdout_and_all_else_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 11, 9, 3), dtype=np.uint8)
    labels = np.repeat([0, 1, 2], 3)
    np.savez(tmp_path / "twice.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    random = ["--dataset", "arrays", "--data", "twice.npz", "--ipc", "1", "--method", "random"]
    random += ["--eval-repeats", "1", "--evaluate-on", "convnet-d1-w1"]
    run = printed(capsys, "run", "--headless", *random)["run"]
    assert run_cli(["run", "--detach", *random]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{run}\n"
    assert shown.err.count(f"run {run} has done this already on ") == shown.err.count("it is not run again") == 1
    assert "note: Test images that are copies of training images: 9 of 9." in shown.err
    assert printed(capsys, "run", "--detach", *random) == {"run": run, "existing": True}


def test_narration_goes_to_stderr_and_only_data_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(DM) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "dm of digits at IPC 1 on convnet-d1-w4, seed 0, cpu" in captured.err
    assert "iteration 1/3" in captured.err
    assert "finished: prepare" in captured.err
    assert "\x1b" not in captured.err


def test_ones_own_arrays_run_from_end_to_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "flowers.npz",
        x_train=draw.integers(0, 256, (30, 11, 9, 3), dtype=np.uint8),
        y_train=np.repeat([0, 1, 2], [20, 7, 3]),
        x_test=draw.integers(0, 256, (9, 11, 9, 3), dtype=np.uint8),
        y_test=np.repeat([0, 1, 2], 3),
    )
    arguments = ["run", "--headless", "--method", "dm", "--dataset", "arrays", "--data", "flowers.npz", "--ipc", "3"]
    small = ["--iterations", "2", "--network", "convnet-d1-w4", "--eval-repeats", "1", "--set", "method.batch_real=8"]
    result = printed(capsys, *arguments, *small)
    assert result["dataset"] == "flowers"
    assert any("with replacement" in warning for warning in result["warnings"])


def test_a_foreign_database_stops_a_run_before_anything_is_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.db").write_text("mine " * 100)
    assert run_cli(DM) == 2
    assert "is not a database of dambench" in capsys.readouterr().err
    assert (tmp_path / "runs.db").read_text() == "mine " * 100
    assert not (tmp_path / "home").exists()


def test_a_run_that_fails_has_exit_code_1_and_is_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> Iterator[object]:
        raise RuntimeError("it \x1b[2J broke")
        yield

    monkeypatch.setattr(registry.load("methods", "dm"), "distill", broken)
    assert run_cli([*DM, "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["state"] == "failed"
    assert result["n"] == 0
    assert "it \ufffd[2J broke" in result["error"]
    assert "\x1b" not in captured.err
    assert run_cli(["show", result["run"]]) == 0
    assert "Traceback" in capsys.readouterr().out


def test_a_database_that_cannot_be_written_ends_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Tables, said: EventLogged) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Tables, "_insert_event", full)
    assert run_cli(DM) == 1
    said = capsys.readouterr().err
    assert "could not be written: database or disk is full. What was kept stays; `dambench resume" in said


def test_a_run_outlives_its_screen(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m dambench {' '.join(DM)} 2>&1 >/dev/null | head -1"
    subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    with closing(Store.open(tmp_path / "runs.db")) as store:
        assert store.query("select state, count(*) as n from runs, scores") == [{"state": "finished", "n": 2}]


def test_a_fault_outside_the_engine_is_recorded_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Tables._apply_event

    def faulty(self: Tables, number: int, said: EventLogged, event: AnyEvent) -> None:
        if isinstance(event, Measured):
            raise KeyError("ours")
        real(self, number, said, event)

    monkeypatch.setattr(Tables, "_apply_event", faulty)
    assert run_cli(DM) == 1
    (row,) = printed(capsys, "runs")
    assert row["state"] == "failed"


def test_a_locked_database_is_said_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store.open(tmp_path / "runs.db", write=True).close()
    monkeypatch.setattr("dambench.store.database.WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        assert run_cli(DM) == 1
    assert "does not come to an end" in capsys.readouterr().err
    with database.locked(tmp_path / "runs.db"):
        assert run_cli(DM) == 1
    assert "Another process has been writing" in capsys.readouterr().err


def test_later_words_win(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("iterations = 5\nseeds = [1, 2]\n")
    dm = [*DM[:1], "run.toml", *DM[1:-4], "--method", "dm"]
    result = printed(capsys, *dm, "--set", "method.iterations=2", "--seed", "3")
    assert result["seed"] == 3
    assert printed(capsys, "show", result["run"])["run"]["config"]["method"]["options"]["iterations"] == 2


def test_the_file_of_the_whole_set_is_the_prepared_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(capsys, *SMALL[:2], "--dataset", "digits", "--method", "whole", "--eval-repeats", "1")
    (made,) = printed(capsys, "show", result["run"])["sets"]
    assert Path(made["file"]).parent.name == "data"


def test_one_set_makes_no_claim_and_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    claim = "set{} of these settings: no claim about the method. --seeds 0-2 makes three"
    random = ["run", "--headless", "--dataset", "digits", "--method", "random", "--evaluate-on", "convnet-d1-w4"]
    random += ["--eval-repeats", "1", "--protocol", "brief"]
    assert run_cli(random) == 0
    assert f"1 {claim.format('')}" in capsys.readouterr().err
    assert run_cli([*random, "--seed", "2"]) == 0
    assert f"2 {claim.format('s')}" in capsys.readouterr().err
    assert run_cli([*random, "--seeds", "0-2"]) == 0
    assert "no claim" not in capsys.readouterr().err
    assert run_cli(random) == 0
    assert "no claim" not in capsys.readouterr().err
