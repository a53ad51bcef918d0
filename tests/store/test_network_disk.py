"""The commands on a network disk, from end to end (simulated: the disk is said to be one)."""

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

from dambench.cli import doctor
from dambench.cli.app import run_cli
from dambench.cli.store import open_store
from dambench.runner import processes
from dambench.store.runs import Store
from tests.ledger import CARD, config
from tests.mounts import disk_by, table_in

DM = [
    *("run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "1"),
    *("--device", "cpu", "--set", "method.batch_real=8", "--method", "dm", "--iterations", "12"),
    *("--checkpoint-every", "0"),
]


def _answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run_cli([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


KILLED = """
import os, signal, sys
from dambench.cli.app import run_cli
from dambench.cli.store import open_store
from dambench.core.events import Checkpointed
from dambench.store.journal_store import JournalStore

write = JournalStore.write

def last(store, lines, *more):
    write(store, lines, *more)
    if any(isinstance(getattr(line, "event", None), Checkpointed) for line in lines):
        os.kill(os.getpid(), signal.SIGKILL)

JournalStore.write = last
run_cli(sys.argv[1:])
"""
"""A process that is killed once its first checkpoint is known."""


def test_a_killed_run_goes_on_and_gives_what_it_would_have_on_a_local_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "here.db"))
    whole = _answer(capsys, *DM)
    assert run_cli(["report", "--short"]) == 0
    expected = capsys.readouterr().out

    (tmp_path / "net").mkdir()
    path = tmp_path / "net" / "runs.db"
    monkeypatch.setenv("DAMBENCH_DB", str(path))
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    killed = subprocess.run([sys.executable, "-c", KILLED, *DM], stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    (row,) = _answer(capsys, "runs")
    run = row["id"]
    assert row["state"] == "lost"
    assert run_cli(["resume", run, "--headless", "--json"]) == 0
    resumed = capsys.readouterr()
    assert "Runs are written to" in resumed.err
    assert json.loads(resumed.out)["synthetic_sha256"] == whole["synthetic_sha256"]
    assert run_cli(["report", "--short"]) == 0
    assert capsys.readouterr().out == expected
    shown = _answer(capsys, "show", run)
    assert (shown["run"]["state"], shown["run"]["attempt"]) == ("finished", 2)
    assert run_cli(["watch", run]) == 0
    assert run_cli(["logs", run]) == 0
    assert os.listdir(path.parent) == ["runs.db.d"]
    assert sorted(name.partition(".")[2] for name in os.listdir(f"{path}.d")) == ["1.jsonl", "2.jsonl"]


def test_a_run_of_another_host_is_asked_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of a"))
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        with monkeypatch.context() as there:
            there.setattr("socket.gethostname", lambda: "a")
            run = store.create(config(), CARD, process=processes.this_process())
        with monkeypatch.context() as here:
            here.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of b"))
            assert run_cli(["stop", run, "--kill"]) == 2
            assert "is on a: only there can it be killed" in capsys.readouterr().err
            assert run_cli(["stop", run]) == 0
            assert "a notices within 70 s" in capsys.readouterr().err
        asked: list[bool] = []
        monkeypatch.setattr(processes, "BEAT_SECONDS", 0.05)
        with processes.beating(store.path, run, 1, lambda: asked.append(True)):
            until = time.monotonic() + 10
            while not asked and time.monotonic() < until:
                time.sleep(0.02)
        assert asked


def test_the_report_knows_whether_there_is_such_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    assert run_cli(["report"]) == 0
    assert "There is no database" in capsys.readouterr().out
    Store.open(tmp_path / "runs.db", write=True).close()
    assert run_cli(["report"]) == 0
    assert "There is no database" not in capsys.readouterr().out


def test_doctor_says_where_the_data_are_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_in(tmp_path, f"/dev/vda / ext4 rw 0 0\nfiler:/x {tmp_path.resolve()}/net nfs4 rw 0 0\n")
    for module in ("dambench.cli.doctor", "dambench.store.journal"):
        monkeypatch.setattr(f"{module}.disk_of", disk_by(table))
    monkeypatch.delenv("DAMBENCH_DISK")
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "net" / "home"))
    (tmp_path / "net").mkdir()
    told = {what: (state, detail) for what, state, detail in doctor.examine(tmp_path / "net" / "runs.db")}
    state, detail = told["database"]
    assert state == "ok"
    for word in (f"{tmp_path}/net/runs.db.d", f"{tmp_path}/cache/dambench/index", "nfs4 at", "filer:/x"):
        assert word in detail
    assert "a network disk: sets and checkpoints are safe there" in told["files"][1]
    told = {what: (state, detail) for what, state, detail in doctor.examine(tmp_path / "runs.db")}
    assert told["database"] == ("ok", f"{tmp_path}/runs.db, on ext4 at /, of /dev/vda, not made yet")


def test_doctor_says_what_would_end_a_detached_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.ends_of_runs({}, tmp_path) == ["a restart"]
    (tmp_path / ".dockerenv").touch()
    assert doctor.ends_of_runs({"SLURM_JOB_ID": "12"}, tmp_path) == [
        *("a restart", "this Slurm job 12", "this container"),
    ]
    (tmp_path / "run/systemd/users").mkdir(parents=True)
    for answer, said in (("b true\n", "KillUserProcesses is on:"), ("", "does not tell"), ("b false\n", "")):
        monkeypatch.setattr(
            "subprocess.run", lambda *_, answer=answer, **__: subprocess.CompletedProcess([], 0, answer)
        )
        assert said in doctor.logind_kills(tmp_path)
        assert bool(doctor.logind_kills(tmp_path)) == bool(said)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 0, "b true\n"))
    monkeypatch.setattr(doctor, "_user", lambda: "me")
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/me").touch()
    assert doctor.logind_kills(tmp_path) == ""


def test_where_runs_are_written_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_DISK", "network")
    with open_store(tmp_path / "runs.db", write=True):
        pass
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "runs.db.d" in said
    with open_store(tmp_path / "runs.db"):
        pass
    assert capsys.readouterr().err == ""
