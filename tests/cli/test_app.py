import hashlib
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
from msgspec.structs import replace
from PIL import Image

from dambench import datasets
from dambench.__main__ import main as program
from dambench.cli import app as cli
from dambench.cli.app import app, run_cli
from dambench.cli.arguments import Commands
from dambench.cli.options import request_options
from dambench.cli.record import run_until_signal
from dambench.core import registry
from dambench.core.config import Choice, Count, Request, option, options, read
from dambench.core.events import AnyEvent, Measured
from dambench.core.protocol import PRESETS, Budget
from dambench.engine.loop import StopRun
from dambench.runner import processes
from dambench.store import database
from dambench.store.records import EventLogged
from dambench.store.runs import Store
from dambench.store.schema import VERSION
from dambench.store.tables import Tables
from tests.ledger import CARD, add, config, failed, older

SMALL = [
    *("run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2"),
    *("--device", "cpu", "--set", "method.batch_real=8", "--iterations", "3"),
]
DM = [*SMALL, "--method", "dm"]
BARE = ["run", "--headless", "--dataset", "digits", "--method", "dm"]


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run_cli([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add(store, config("dm", ipc=1), [0.90, 0.91, 0.92])
        add(store, config("random", ipc=1), [0.60, 0.61, 0.62])
        add(store, config("whole"), [0.98, 0.99, 0.98])
    return tmp_path / "runs.db"


def test_run_prints_one_object_and_stores_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    result = _json(capsys, *DM)
    assert set(result) == {
        *("run", "state", "method", "dataset", "ipc", "network", "protocol", "seed", "accuracy", "std", "n", "scores"),
        *("seconds", "peak_memory_bytes", "synthetic_sha256", "warnings"),
    }
    assert (result["state"], result["method"], result["ipc"], result["n"]) == ("finished", "dm", 1, 2)
    assert 0 <= result["accuracy"] <= 1
    assert result["accuracy"] == pytest.approx(sum(s["accuracy"] for s in result["scores"]) / 2)
    shown = _json(capsys, "show", result["run"][:4])
    assert [s["accuracy"] for s in shown["scores"]] == [s["accuracy"] for s in result["scores"]]
    assert shown["sets"][0]["sha256"] == result["synthetic_sha256"]
    assert Path(shown["sets"][0]["file"]).name == f"{result['synthetic_sha256']}.safetensors"
    assert shown["run"]["config"]["method"]["options"]["iterations"] == 3


def test_the_same_command_twice_gives_the_same_set_and_scores(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _json(capsys, *DM), _json(capsys, *DM, "--again")
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
    by_file = _json(capsys, "run", "run.toml", "--headless", "--iterations", "3")
    assert _json(capsys, *DM) == by_file | {"existing": True}
    assert [row["name"] for row in _json(capsys, "runs")] == ["from a file"]


def test_several_seeds_are_several_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*DM, "--seeds", "0-2", "--tag", "sweep", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert len({line["synthetic_sha256"] for line in lines}) == 3
    assert _json(capsys, *DM, "--seed", "2", "--again")["synthetic_sha256"] == lines[2]["synthetic_sha256"]
    assert _json(capsys, "show", lines[0]["run"])["tags"] == ["sweep"]


def test_what_a_finished_run_has_done_is_pointed_out_and_only_the_rest_is_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = replace(PRESETS["quick"], synthetic=Budget(epochs=1))
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: brief)
    random = ["run", "--headless", "--dataset", "digits", "--method", "random", "--eval-repeats", "1"]
    random += ["--evaluate-on", "convnet-d1-w1"]
    first = _json(capsys, *random, "--seed", "1")
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
    assert "existing" not in _json(capsys, *random, "--ipc", "2")
    assert run_cli(["delete", lines[0]["run"]]) == 0
    third = _json(capsys, *random)
    assert third["run"] != lines[0]["run"]
    capsys.readouterr()
    assert run_cli([*random, "--check"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["existing"] == [third["run"]]
    assert f"The run {third['run']} has done this already" in checked["notes"][0]
    assert _json(capsys, *random, "--again")["run"] != third["run"]
    assert len(_json(capsys, "runs")) == 5


@pytest.mark.slow
def test_a_detached_run_that_was_done_already_is_named_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    random = ["--dataset", "digits", "--method", "random", "--eval-repeats", "1", "--evaluate-on", "convnet-d1-w1"]
    run = _json(capsys, "run", "--headless", *random)["run"]
    assert run_cli(["run", "--detach", *random]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{run}\n"
    assert f"run {run} has done this already: it is not run again" in shown.err
    assert _json(capsys, "run", "--detach", *random) == {"run": run, "existing": True}


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
    result = _json(capsys, *arguments, *small)
    assert result["dataset"] == "flowers"
    assert any("with replacement" in warning for warning in result["warnings"])


BAD = [
    ([], "The console needs a terminal, and this is none. `dambench run --headless` runs"),
    (["run", "--method", "dm", "--dataset", "digits"], "needs a terminal, and this is none: --headless or --detach"),
    (["rum"], "Did you mean 'run'"),
    (["run", "--headless"], "say --method NAME"),
    ([*DM, "--ipcs", "3"], "--ipcs"),
    ([*DM, "--ipc", "three"], "--ipc"),
    ([*DM, "--ipc", "0"], "ipc = 0 is not allowed: expected `int` >= 1"),
    ([*DM, "--ipc", "9" * 30], "ipc = 999"),
    ([*BARE, "--iterations", "9" * 25], "iterations = 999"),
    ([*DM, "--threads", "-1"], "threads = -1 is not allowed"),
    ([*DM, "--threads", "99999999999"], "threads = 99999999999 is not allowed"),
    ([*DM, "--seeds", "0-99999999999999999999"], "more than 1000 runs"),
    ([*BARE, "--device", "cuda:" + "9" * 5000], "is not a device"),
    ([*BARE, "--network", "convnet-d" + "9" * 5000], "no part is called"),
    ([*DM, "--set", "method.lr_images=" + "[" * 3000], "lr_images"),
    ([*DM, "--set", "method.lr_images=" + "9" * 5000], "lr_images"),
    ([*DM, "--protocol", ""], "No protocol is called ''"),
    ([*DM, "--recipe", ""], "No recipe of dm is called ''"),
    ([*BARE, "--device", ""], "--device '' is not a device"),
    ([*DM, "--name", "\udcff"], "is not valid UTF-8"),
    ([*DM, "--data", "a\0b"], "is not a path that can be kept"),
    ([*DM, "--db", "x" * 300], "File name too long"),
    (["run", "deep.toml", "--headless"], "not valid TOML"),
    (["show", "\udcff"], "is not valid UTF-8"),
    (["report", "--rows", "method,method"], "none may be there twice"),
    ([*DM, "--set", "method.lr_image=1"], "Did you mean 'lr_images'"),
    ([*DM, "--set", "method.lr_images=nan"], "not a finite number"),
    ([*DM, "--set", "method.lr_images=-1"], "lr_images = -1"),
    ([*DM, "--set", "lr_images=1"], "is not of the form"),
    ([*DM, "--seeds", "4-2"], "seeds"),
    ([*DM, "--seed", "1", "--seeds", "0-2"], "exclude each other"),
    ([*DM, "--method", "random"], "--method is given 2 times: say it once"),
    ([*DM, "--ipc", "1", "--ipc=1"], "--ipc is given 2 times"),
    ([*DM, "--deterministic", "--no-deterministic"], "--deterministic/--no-deterministic is given 2 times"),
    (["--db", "a.db", "--db", "b.db", "runs"], "--db is given 2 times"),
    (["report", "-o", "a.md", "--output", "b.md"], "--output/-o is given 2 times"),
    (["experts", "train", "--dataset", "digits", "--count", "1", "--count", "2"], "--count is given 2 times"),
    ([*DM, "--set", "method.lr_images=1", "--set", "method.lr_images=2"], "--set method.lr_images is given more than"),
    ([*DM, "--set", "method.iterations=4"], "iterations and method.iterations are the same setting"),
    (["run", "twice.toml", "--headless"], "'twice.toml': iterations and method.iterations are the same setting"),
    ([*DM, "--set", "method.name=random"], "say --method random"),
    (["experts", "train", "--dataset", "digits", "--set", "epochs=2"], "is not how that is said: --epochs N"),
    (["experts", "train", "--dataset", "digits", "--precision", "BF16"], "experts have fp32, or tf32"),
    ([*DM, "--method="], "--method is given 2 times"),
    ([*DM, "--db", ""], "DB is an empty text"),
    (["run", "", "--headless"], "FILE is an empty text"),
    (["runs", "--db", "."], "it is a folder"),
    (["report", "-o", ""], "OUTPUT is an empty text"),
    (["db", "merge", "a.db", ""], "OTHERS is an empty text"),
    (["run", "--headless", "--dataset", "digits", "--method", " "], "No method is called ' '"),
    ([*DM, "--data", ""], "data = '' is not allowed"),
    ([*DM, "--tag", ""], "TAG is an empty text"),
    ([*DM, "--name", "x" * 201], "of length <= 200"),
    ([*DM, "--detach"], "--headless and --detach exclude each other"),
    ([*DM, "--dry-run", "--check"], "--detach, --dry-run and --check exclude each other"),
    (["report", "-o", "fig.pdf"], "a report has the suffix .md"),
    (["report", "-o", "a.csv", "--format", "latex"], "a report in latex has the suffix .tex, not .csv"),
    (["show", "zzzzzz", "--preview", "set.pdf"], "a preview has the suffix .png, not .pdf"),
    (["shot", "runs", "-o", "runs.png"], "a picture of the console has the suffix .svg, not .png"),
    (["db", "backup", "runs.tar"], "a backup is one database"),
    ([*DM, "--db", "no/such/folder/runs.db"], "there is no folder"),
    (["run", "none.toml", "--headless"], "No such file"),
    (["run", "bad.toml", "--headless"], "not valid TOML"),
    (["show", "zzzzzz"], "No run has the id 'zzzzzz'"),
    (["report", "--rows", "metod"], "Did you mean 'method'"),
    (["report", "--rows", "method", "--columns", "method"], "none may be there twice"),
    (["report", "-o", "no/such/folder/report.md"], "no such folder"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[ascii(" ".join(a))[-40:] or "nothing" for a, _ in BAD])
@pytest.mark.parametrize("exists", [False, True])
def test_bad_input_is_one_sentence_exit_code_2_and_an_untouched_database(
    arguments: list[str], said: str, exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("ipc = ")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 3000)
    (tmp_path / "twice.toml").write_text("iterations = 3\n[method]\nname = 'dm'\niterations = 4\n")
    path = tmp_path / "runs.db"
    if exists:
        Store.open(path, write=True).close()
    before = hashlib.sha256(path.read_bytes()).hexdigest() if exists else None
    if arguments == ["show", "zzzzzz"] and not exists:
        said = "There is no database"
    if arguments[:2] == ["report", "--rows"] and not exists and said.startswith("Did"):
        said = ""  # nothing to report on: the sentence about that comes first
    code = run_cli(arguments)
    captured = capsys.readouterr()
    if said:
        assert code == 2
        assert said in captured.err
        assert captured.err.startswith("dambench: ")
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    assert (hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None) == before


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("phase", ["distil", "evaluate"])
def test_a_signal_ends_a_run_cleanly_and_is_recorded(
    number: signal.Signals, code: int, phase: str, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "dambench", *DM]
    words[words.index("--iterations" if phase == "distil" else "--eval-repeats") + 1] = "1000000"
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("iteration" if phase == "distil" else "convnet"):
                break
        process.send_signal(number)
        assert process.wait(30) == code
        assert "stopped by" in process.stderr.read()
    with closing(Store.open(tmp_path / "runs.db")) as store:
        (row,) = store.query("select state, error, ended_at from runs")
        assert (row["state"], row["error"]) == ("stopped", f"stopped by {number.name}")
        assert store.query("select seconds from costs where phase = 'distil'")[0]["seconds"] > 0


@contextmanager
def _stuck(where: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs dambench and never comes back from a function of it; entered once it is there."""
    module, _, function = where.rpartition(".")
    code = (
        "import sys, time, importlib; from dambench.cli.app import run_cli\n"
        f"module = importlib.import_module({module!r})\n"
        "def stuck(*arguments):\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    while True: time.sleep(0.01)\n"
        f"setattr(module, {function!r}, stuck); sys.exit(run_cli({DM!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line == "begun\n" for line in process.stderr)
        yield process


def test_a_second_signal_does_not_wait_for_the_run_and_is_recorded_all_the_same(tmp_path: Path) -> None:
    with _stuck("dambench.methods.dm.distill") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    with closing(Store.open(tmp_path / "runs.db")) as store:
        assert store.query("select state, error from runs") == [{"state": "stopped", "error": "stopped by SIGINT"}]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_a_run_begins_leaves_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with _stuck("dambench.datasets.digits.load") as process:
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr is not None
        assert process.stderr.read() == f"dambench: stopped by {number.name}, before a run began.\n"
    assert not (tmp_path / "runs.db").exists()
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


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
    (row,) = _json(capsys, "runs")
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
    result = _json(capsys, *dm, "--set", "method.iterations=2", "--seed", "3")
    assert result["seed"] == 3
    assert _json(capsys, "show", result["run"])["run"]["config"]["method"]["options"]["iterations"] == 2


def test_a_reason_to_stop_is_thrown_into_the_run_once() -> None:
    heard = []

    def run() -> Generator[Any, None, None]:
        try:
            yield from range(100)
        except StopRun as stop:
            heard.append(str(stop))
            yield "stopping"
            yield "stopped"

    told = iter(["", "", "SIGINT", "SIGINT", "SIGINT"])
    assert list(run_until_signal(run(), lambda: next(told), StopRun)) == [0, 1, 2, "stopping", "stopped"]
    assert heard == ["SIGINT"]


def test_the_report_is_written_to_stdout_or_to_a_file(
    ledger_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["report"]) == 0
    text = capsys.readouterr().out
    assert "| dm " in text
    assert run_cli(["report", "-o", "report.md"]) == 0
    assert (tmp_path / "report.md").read_text() == text
    assert capsys.readouterr().out == ""
    assert run_cli(["report", "--rows", "dataset,ipc", "--columns", "method"]) == 0
    assert "| dataset, ipc " in capsys.readouterr().out


def test_a_report_leaves_links_and_permissions_as_they_are(ledger_path: Path, tmp_path: Path) -> None:
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "real.md").chmod(0o600)
    (tmp_path / "link.md").symlink_to("real.md")
    assert run_cli(["report", "-o", "link.md"]) == 0
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").read_text().startswith("# Dataset")
    assert (tmp_path / "real.md").stat().st_mode & 0o777 == 0o600
    assert run_cli(["report", "-o", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()


def test_output_that_cannot_be_written_is_a_sentence(ledger_path: Path) -> None:
    for command in ("report >/dev/full", "runs >&-"):
        done = subprocess.run(
            ["bash", "-c", f"{shlex.quote(sys.executable)} -m dambench {command}"], capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == (1 if "full" in command else 0)


def test_a_terminal_that_knows_only_ascii_is_no_error(ledger_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dambench", "report"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "| dm " in done.stdout


def test_no_runs_yet_is_a_friendly_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report"]) == 0
    assert "There is no database" in capsys.readouterr().out
    assert not (tmp_path / "runs.db").exists()
    Store.open(tmp_path / "runs.db", write=True).close()
    assert run_cli(["report"]) == 0
    assert "No finished runs yet" in capsys.readouterr().out
    assert run_cli(["runs"]) == 0
    assert "No runs yet" in capsys.readouterr().out


def test_runs_lists_the_newest_first_with_mean_accuracy(ledger_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "runs")
    assert [row["method"] for row in found] == ["whole", "random", "dm"]
    assert found[2]["accuracy"] == pytest.approx(0.91)
    assert run_cli(["runs"]) == 0
    assert "91.00 %" in capsys.readouterr().out


def test_runs_lists_the_newest_and_all_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dambench.cli.runs.NEWEST", 3)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        made = [store.create(config("dm", seed=seed), CARD) for seed in range(3)]
        assert [row["id"] for row in _json(capsys, "runs")] == made[::-1]
        made.append(add(store, config("dm", seed=3), [0.5, 0.75]))
    assert run_cli(["runs", "--json"]) == 0
    shown = capsys.readouterr()
    assert [(row["id"], row["n"]) for row in json.loads(shown.out)] == [(made[3], 2), (made[2], 0), (made[1], 0)]
    assert "The newest 3; --all lists" in shown.err
    assert [row["id"] for row in _json(capsys, "runs", "--all")] == made[::-1]


def test_what_is_deleted_is_in_the_trash_until_it_is_restored_or_purged(
    ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (row["id"] for row in _json(capsys, "runs"))
    assert run_cli(["delete", first, second]) == 0
    assert [row["id"] for row in _json(capsys, "runs")] == [third]
    assert [row["id"] for row in _json(capsys, "runs", "--deleted")] == [first, second]
    assert run_cli(["show", first]) == 0
    assert "in the trash since" in capsys.readouterr().out
    assert run_cli(["restore", first]) == 0
    assert len(_json(capsys, "runs")) == 2
    assert _json(capsys, "db", "purge", "--dry-run")["runs"] == [second]
    assert _json(capsys, "runs", "--deleted")
    assert _json(capsys, "db", "purge")["runs"] == [second]
    assert _json(capsys, "runs", "--deleted") == []
    assert run_cli(["show", second]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["delete", "HALTED", "zzzzzz"], "No run has the id 'zzzzzz'"),
        (["delete", "HALTED", "ALIVE"], "goes on: `dambench stop"),
        (["delete", "GONE"], "is in the trash already"),
        (["restore", "HALTED"], "is not in the trash"),
        (["resume", "GONE"], "is in the trash: `dambench restore"),
    ],
)
def test_what_cannot_be_deleted_or_restored_changes_nothing(
    command: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        ids = {"HALTED": add(store, config("dm"), end=failed()), "GONE": add(store, config("dm"), end=failed())}
        ids["ALIVE"] = store.create(config("dm", seed=1), CARD, process=processes.this_process())
        store.delete(ids["GONE"])
        before = store.query("select id, deleted_at from runs")
        assert run_cli([ids.get(word, word) for word in command]) == 2
        assert said in capsys.readouterr().err
        assert store.query("select id, deleted_at from runs") == before


def test_a_lost_run_can_be_deleted(tmp_path: Path) -> None:
    lost = replace(processes.this_process(), started=1)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run_id = store.create(config("dm"), CARD, process=lost)
        assert run_cli(["delete", run_id]) == 0
        assert store.run(run_id)["deleted_at"]


def test_the_database_is_checked_copied_and_merged_from_the_command_line(
    ledger_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["db", "check"]) == 0
    assert "missing" in capsys.readouterr().out
    assert run_cli(["db", "backup"]) == 0
    copy = Path(capsys.readouterr().out.strip())
    assert run_cli(["db", "backup", str(copy)]) == 2
    assert run_cli(["db", "backup", str(copy), "--overwrite"]) == 0
    assert run_cli(["db", "migrate"]) == 0
    assert "it is up to date" in capsys.readouterr().out
    with closing(Store.open(copy, write=True)) as store:
        new = add(store, config("dm", seed=1))
        other = store.query("select id from runs order by number")[0]["id"]
        store.db.conn.execute("update events set body = replace(body, 'a note', 'another') where run = 1")
    assert run_cli(["db", "merge", str(copy), "--json"]) == 1
    shown = capsys.readouterr()
    merged = json.loads(shown.out)
    assert (merged["added"], merged["unchanged"], list(merged["conflicts"])) == ([new], 2, [other])
    assert f"{other} is left as it is: it says something else there from its event 2 (warned) on" in shown.err
    assert run_cli(["db", "merge", str(copy)]) == 1
    assert "0 runs added, 0 gone on with, 3 were here already" in capsys.readouterr().out
    with closing(Store.open(ledger_path, write=True)) as store:
        store.db.conn.execute("update measurements set value = 1.0 where metric = 'accuracy'")
    assert run_cli(["db", "check", "--json"]) == 1
    assert [f["state"] for f in json.loads(capsys.readouterr().out)].count("damaged") == 4


def test_an_older_database_is_brought_up_to_date_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older(tmp_path / "old.db", 2)
    assert run_cli(["db", "migrate", "--db", "old.db"]) == 0
    assert f"had schema 2 and has schema {VERSION} now; as it was: old.db.schema2" in capsys.readouterr().out
    assert run_cli(["db", "migrate", "--db", "none.db"]) == 2


def test_hostile_names_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]52;c;aGk=\x07[red]x[/] \u202e\x9b31m"
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run_id = store.create(config(), CARD, name=hostile, tags=[hostile])
        # Even where something else wrote them into the database.
        store.db.conn.execute("update runs set name = ?, dataset = ?, error = ?", [hostile] * 3)
    for command in (["runs"], ["show", run_id], ["report"]):
        assert run_cli(command) == 0
        out = capsys.readouterr().out
        assert not set("\x1b\x07\x9b\u202e") & set(out)
    assert run_cli(["show", hostile]) == 2
    assert not set("\x1b\x07\x9b\u202e") & set(capsys.readouterr().err)


def test_a_set_that_is_not_on_this_machine_is_said_to_be_missing(
    ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(capsys, "runs")
    assert run_cli(["show", found[0]["id"]]) == 0
    assert "its tensors are not on this machine" in capsys.readouterr().out


def test_a_set_that_is_not_on_this_machine_is_shown_by_its_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _json(capsys, *DM)["run"]
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "another machine"))
    assert run_cli(["show", run, "--preview", str(tmp_path / "set.png")]) == 0
    assert "its tensors are not on this machine" in capsys.readouterr().out
    with Image.open(tmp_path / "set.png") as picture:
        assert picture.size == (9, 90)
    for wrong in ([run, "--preview", str(tmp_path / "no" / "set.png")], ["none", "--preview", "set.png"]):
        assert run_cli(["show", *wrong]) == 2
    assert not (tmp_path / "no").exists()


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands by their words."""
    for name, member in getattr(command, "commands", {}).items():
        yield from _commands(member, (*words, name))
    if not hasattr(command, "commands"):
        yield words, command


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("shot",)], ids=" ".join)
def test_what_is_said_before_a_command_is_taken_notice_of_or_refused(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "usual.db"))
    (tmp_path / "their.db").write_text("not a database of ours")
    needed = [param for param in COMMANDS[words].params if param.required]
    rest = [word for param in needed for word in ([param.opts[0], "x.svg"] if param.opts[0][0] == "-" else ["runs"])]
    rest += ["--check", "--method", "dm", "--dataset", "digits"] if words == ("run",) else []
    assert run_cli(["--db", str(tmp_path / "their.db"), *words, *rest]) in (1, 2)
    told = capsys.readouterr()
    assert "their.db" in told.err + told.out, "the database that was named is not the one that was used"
    assert run_cli(["--ascii", *words, *rest]) == 2
    assert "--ascii is for the console" in capsys.readouterr().err


def test_a_database_may_be_named_before_a_command_and_only_once(
    ledger_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DB", "nowhere.db")
    for words in (["--db", str(ledger_path), "runs"], ["runs", "--db", str(ledger_path)]):
        assert run_cli(words) == 0
        assert "whole" in capsys.readouterr().out
    assert run_cli(["--db", str(ledger_path), "runs", "--db", "other.db"]) == 2
    assert "--db was said twice" in capsys.readouterr().err
    assert run_cli(["--version", "runs"]) == 0
    assert capsys.readouterr().out.startswith("dambench ")
    started: list[list[str]] = []

    def start(arguments: list[str], say: object) -> tuple[str, int]:
        started.append(arguments)
        return "", 1

    monkeypatch.setattr(processes, "start", start)
    run_cli(["--db", "run", "run", "--detach", "--method", "dm", "--dataset", "digits"])
    assert started == [["run", "--method", "dm", "--dataset", "digits", "--db", "run", "--headless"]]


def test_a_note_that_is_replaced_is_told_and_one_that_is_too_long_is_not_cut(
    ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(ledger_path)) as store:
        run = store.newest(1)[0]["id"]
    assert [run_cli(["note", run, text]) for text in ("first", "second", "x" * 2001)] == [0, 0, 2]
    assert capsys.readouterr().err == (
        "Replaced: first\ndambench: The note has 2001 characters: it can have 2000 at most.\n"
    )
    with closing(Store.open(ledger_path)) as store:
        assert store.run(run)["note"] == "second"


def test_a_run_without_a_set_has_no_preview(ledger_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(ledger_path, write=True)) as store:
        run = store.create(config("dm", seed=77), CARD)
    assert run_cli(["show", run]) == 0
    assert run_cli(["show", run, "--preview", "set.png"]) == 2
    assert "no set yet" in capsys.readouterr().err


def test_methods_name_the_recipes_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["methods"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("datadam")]
    assert line.endswith("paper (any), seed (mnist, mhist), brief (mnist, fashionmnist)")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone knows these settings")
def test_only_the_program_run_starts_anew_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda path, words, environment: begun.append((words, environment)))
    monkeypatch.setattr(cli, "run_cli", lambda arguments: 0)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "dambench", "run", "x y"])
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)

    def start(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["dambench", *arguments])
        with pytest.raises(SystemExit):
            program()

    start("report")
    assert begun == []
    start("run", "x y")
    ((words, environment),) = begun
    assert words == [sys.executable, "-m", "dambench", "run", "x y"]
    assert environment.items() > os.environ.items()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")  # somebody has an opinion
    start("run", "x y")
    assert len(begun) == 1


def test_the_file_of_the_whole_set_is_the_prepared_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    result = _json(capsys, *SMALL[:2], "--dataset", "digits", "--method", "whole", "--eval-repeats", "1")
    (made,) = _json(capsys, "show", result["run"])["sets"]
    assert Path(made["file"]).parent.name == "data"


def test_methods_tell_their_options_as_json_schema_and_their_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    found = {entry["name"]: entry for entry in _json(capsys, "methods")}
    assert {"dm", "random", "whole"} <= set(found)
    schema = found["dm"]["options"]
    options = schema["$defs"]["Options"]["properties"]
    assert options["iterations"] == {
        "description": "updates of the synthetic images",
        "type": "integer",
        "minimum": 1,
        "maximum": 10**9,
        "default": 20_000,
    }
    assert found["dm"]["paper"].startswith("https://")
    assert all(recipe["source"] for recipe in found["dm"]["recipes"])


@pytest.mark.parametrize("command", [["methods"], ["networks"], ["protocols"], ["data", "list"], ["doctor"]])
def test_every_list_can_be_read_by_people_and_programs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(command) == 0
    assert capsys.readouterr().out.strip()
    assert _json(capsys, *command)


def test_networks_are_listed_with_the_parts_of_their_names_and_the_pools(capsys: pytest.CaptureFixture[str]) -> None:
    found = {entry["name"]: entry for entry in _json(capsys, "networks")}
    assert found["resnet"]["parts"] == {"depth": "18|34|50", "norm": "in|bn|ln|gn|nn", "halving": "sc|ap"}
    assert found["vit"]["parts"]["patch"] == "pN"
    assert found["pool-w"]["members"] == ["convnet-w32", "convnet-w64", "convnet-w128", "convnet-w256"]
    assert run_cli(["networks"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in found)


def test_doctor_says_what_is_wrong_and_has_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.db").write_text("no " * 100)
    assert run_cli(["doctor", "--json"]) == 1
    states = {check["what"]: check["state"] for check in json.loads(capsys.readouterr().out)}
    assert states["database"] == "wrong"
    assert states["torch"] == "ok"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dambench 0.")
    assert run_cli(["run", "--help"]) == 0
    assert "--evaluate-on" in capsys.readouterr().out


@pytest.mark.parametrize("reader", ["true", "head -1", "sleep 1"])
def test_a_reader_that_leaves_early_is_no_error(ledger_path: Path, reader: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m dambench report | {reader}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


FIELDS = {
    "--method dmm": "method",
    "--dataset digit": "dataset",
    "--ipc x": "ipc",
    "--ipc 500": "ipc",
    "--set method.lr_images=-1": "method.lr_images",
    "--set method.rate=1": "method.rate",
    "--iterations 0": "iterations",
    "--set dataset.size=1": "dataset.size",
    "--dataset folder": "data",
    "--dataset arrays --data none.npz": "data",
    "--network convnet-d9": "network",
    "--network convnett": "network",
    "--evaluate-on convnet,convnet": "evaluate_on",
    "--evaluate-on pool-x": "evaluate_on",
    "--protocol quik": "protocol",
    "--recipe x": "recipe",
    "--device cuda:99": "device",
    "--precision fp8": "precision",
    "--compile maybe": "compile",
    "--preprocessing pca": "preprocessing",
    "--seeds 4-": "seeds",
    "--seed 1 --seeds 1-2": "seeds",
    "--threads -1": "threads",
    "--db no/such/folder/runs.db": "",
}
"""What the form marks, by what is wrong."""


def test_what_is_wrong_with_a_request_names_its_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets.prepare(Choice("digits"), None, print)
    usual = {"--method": "dm", "--dataset": "digits"}
    lines = [[*(f"{k}={v}" for k, v in usual.items() if k not in words), *words.split()] for words in FIELDS]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    capsys.readouterr()
    assert run_cli(["checks"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(answer["error"] for answer in answers)
    assert dict(zip(FIELDS, (answer["field"] for answer in answers), strict=True)) == FIELDS


def test_a_new_option_is_a_field_of_the_request_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Extended(Request, frozen=True):
        warmup: Annotated[Count | None, option("Warm-up", "Iterations before the first step", default="0")] = None

    stated = options(Extended)
    monkeypatch.setattr("dambench.core.config.options", lambda: stated)
    values = {}

    @request_options()
    def begin(given: dict[str, Any]) -> None:
        values.update(given)

    program = Commands(rich_markup_mode=None)
    program.command()(begin)
    typer.main.get_command(program)(["--warmup", "3"], standalone_mode=False)
    assert values["warmup"] == 3
    assert read(Extended, {"warmup": 3}, "the request").warmup == 3
    typer.main.get_command(program)(["--help"], standalone_mode=False)
    assert "Iterations before the first step [default: 0]." in " ".join(capsys.readouterr().out.split())


FLAGS = (
    "--again --check --checkpoint-every --compile --data --dataset --db --detach --deterministic --device --dry-run "
    "--eval-repeats --evaluate-every --evaluate-on --headless --help --ipc --iterations --json --method --name "
    "--network --no-deterministic --precision --preprocessing --protocol --recipe --seed --seeds --set --tag --threads"
)


def test_run_has_the_flags_that_it_always_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "--help"]) == 0
    assert sorted(set(re.findall(r"(?<=\s)--[a-z-]+", capsys.readouterr().out))) == FLAGS.split()


def test_a_reader_says_that_another_program_has_locked_the_database(
    ledger_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dambench.store.database.SPEAK_SECONDS", 0.02)
    monkeypatch.setattr("dambench.store.database.WAIT_SECONDS", 0.3)
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        for command in ("runs", "report"):
            assert run_cli([command]) == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 2
            assert lines[0].startswith("waiting for another program that has locked the database")
            assert "database is locked" in lines[1]
    assert run_cli(["runs"]) == 0
    assert capsys.readouterr().err == ""


def test_a_shell_completes_commands_and_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_DAMBENCH_COMPLETE", "complete_bash")
    for words, completions in (
        ("dambench ru", "run runs"),
        ("dambench run --evaluate-", "--evaluate-on --evaluate-every"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        with pytest.raises(SystemExit) as end:
            run_cli([])
        assert not end.value.code
        assert capsys.readouterr().out.split() == completions.split()
