"""The real program, killed and stopped and resumed. `make test-slow` does the same far more often."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.events import Failed, Started, Stepped
from dambench.engine.checkpoints import Checkpoint, Keeper, newest
from dambench.runner import processes
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from tests.cli.lab import printed
from tests.ledger import CARD, config, costs, words

ROOT = Path(__file__).parents[1]

DM = [
    *("run", "--dataset", "digits", "--method", "dm", "--network", "convnet-d1-w4", "--eval-repeats", "2"),
    *("--device", "cpu", "--set", "method.batch_real=8"),
]


def _dambench(*arguments: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "dambench", *arguments], text=True, **how)


def _outcome(path: Path, run: str) -> dict[str, Any]:
    with closing(Store.open(path)) as store:
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        row = store.run(run)
        return {
            "set": row.set_sha256,
            "state": row.state,
            "scores": store.query(
                "select network, repeat, accuracy, loss, train_accuracy from scores where run = ? order by repeat",
                row.number,
            ),
            "losses": [(e.iteration, e.losses) for _, e in store.tail(run) if isinstance(e, Stepped)],
        }


def _wait(for_: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not for_():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def _row(path: Path, run: str) -> RunRow:
    with closing(Store.open(path)) as store:
        row = store.run(run)
        return msgspec.structs.replace(row, state=processes.state(row))


# Killed.


@pytest.mark.parametrize(
    ("chains", "kills"), [(1, 3), pytest.param(20, 10, marks=pytest.mark.slow)], ids=["3 kills", "200 kills"]
)
@pytest.mark.usefixtures("every_epoch")
def test_a_run_killed_again_and_again_ends_as_one_never_interrupted(
    chains: int, kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, draw = tmp_path / "runs.db", random.Random(7)
    # Long enough that few attempts get through; every attempt gets on.
    dm = [*DM, "--iterations", "300", "--checkpoint-every", "0.05"]
    expected = None
    for _ in range(chains):
        with _dambench(*dm, "--headless", stderr=subprocess.PIPE) as first:
            assert first.stderr is not None
            run = next(line.split()[1].rstrip(",") for line in first.stderr if line.startswith("run "))
            time.sleep(draw.uniform(0.0, 0.6))
            first.kill()
        for _ in range(kills - 1):
            row = _row(path, run)
            if row.state == "finished":
                break
            assert row.state == "lost"
            again = _dambench("resume", run, "--headless", stderr=subprocess.DEVNULL)
            # From before torch is imported until after the first iterations.
            time.sleep(draw.uniform(0.2, 4.0))
            again.kill()
            again.wait()
        if _row(path, run).state != "finished":
            assert run_cli(["resume", run, "--headless"]) == 0
        if expected is None:
            expected = _outcome(path, printed(capsys, *dm, "--headless", "--again")["run"])
        assert _outcome(path, run) == expected
    assert expected is not None
    assert expected["state"] == "finished"


TALKER = """
import sys
from contextlib import closing
from pathlib import Path
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from tests.ledger import speech
with closing(Store.open(Path(sys.argv[1]), write=True)) as store:
    for event in store.record(sys.argv[2], speech()):
        print(type(event).__name__, flush=True)
"""


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_what_was_acknowledged_before_a_kill_is_there_and_nothing_by_halves(kills: int, tmp_path: Path) -> None:
    path, draw = tmp_path / "runs.db", random.Random(11)
    for _ in range(kills):
        with closing(Store.open(path, write=True)) as store:
            run = store.create(config(), CARD)
        arguments = [sys.executable, "-c", TALKER, str(path), run]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as talker:
            assert talker.stdout is not None
            heard = [talker.stdout.readline().strip()]
            time.sleep(draw.uniform(0.0, 0.15))
            talker.kill()
            heard += talker.stdout.read().splitlines()
        with closing(Store.open(path)) as store:
            assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
            told = [type(event).__name__ for _, event in store.tail(run)]
            scores = store.query("select count(*) n from scores where run = ?", store.run(run).number)[0]["n"]
        assert heard[0] == "Started"
        # All that was handed on up to the last result is on disk, what came with it too.
        acknowledged = [name for name in heard if name in ("Started", "Stepped", "Measured")]
        while acknowledged[-1] == "Stepped":
            acknowledged.pop()
        assert told[: len(acknowledged)] == acknowledged
        assert scores == told.count("Measured")
        # A batch is there whole: no loss stands after the last result.
        assert told[-1] != "Stepped"


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_while_it_is_saved_a_checkpoint_is_there_whole_or_the_one_before_is(kills: int, tmp_path: Path) -> None:
    draw = random.Random(13)
    for kill in range(kills):
        folder = tmp_path / f"{kill}"
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            keeper, iteration = Keeper(folder, 0.0), 0
            images = torch.randn(500, 3, 32, 32)  # 6 MB, as CIFAR at IPC 50
            while True:
                iteration += 1
                state = {"images": images + iteration, "iteration": iteration}
                sha256, _, _ = keeper.write(Checkpoint("c", iteration, state, ""))
                os.write(theirs, f"{sha256}\n".encode())
                keeper.sweep()
        os.close(theirs)
        with os.fdopen(ours) as said:
            names = [said.readline().strip()]
            time.sleep(draw.uniform(0.0, 0.2))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            names += said.read().splitlines()
        found = newest(folder, names, "c")
        assert found is not None
        assert found[1] == names[-1]
        assert found[0].state["iteration"] == found[0].iteration == len(names)
        # What was left half written is swept by the next one.
        Keeper(folder, 0.0, names).sweep()
        assert len(list(folder.iterdir())) <= 2


# Stopped.


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 143, marks=pytest.mark.slow),
        (signal.SIGUSR2, 143),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_a_checkpoint_of_the_iteration_that_was_being_done(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with _dambench(*DM, "--headless", "--iterations", "1000000", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert any(line.startswith("iteration") for line in process.stderr)
        process.send_signal(number)
        assert process.wait(30) == code
    with closing(Store.open(tmp_path / "runs.db")) as store:
        (row,) = store.query("select * from runs")
        (checkpoint,) = store.query("select iteration, sha256 from checkpoints")
    assert (row["state"], row["error"]) == ("stopped", f"stopped by {number.name}")
    assert checkpoint["iteration"] == row["done"] > 0
    assert newest(files.run_folder(row["uid"]), [checkpoint["sha256"]], row["config_sha256"]) is not None


@pytest.mark.slow
def test_of_the_signals_of_a_batch_system_only_the_first_counts(tmp_path: Path) -> None:
    command = [*DM, "--headless", "--iterations", "1000000"]
    with _dambench(*command, stderr=subprocess.PIPE, env=os.environ | {processes.BATCH: "1"}) as process:
        assert process.stderr is not None
        assert any(line.startswith("iteration") for line in process.stderr)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
            process.send_signal(number)
        assert process.wait(30) == 143
    with closing(Store.open(tmp_path / "runs.db")) as store:
        (row,) = store.query("select * from runs")
        (checkpoint,) = store.query("select iteration from checkpoints")
    assert row["state"] == "stopped"
    assert checkpoint["iteration"] == row["done"] > 0


def test_a_signal_that_whoever_started_us_ignores_stays_ignored(tmp_path: Path) -> None:
    ignoring = (
        "import signal, sys, os; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGHUP, signal.SIGINT)]; "
        "os.execv(sys.executable, [sys.executable, '-m', 'dambench', *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, *DM, "--headless", "--iterations", "200"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert any(line.startswith("iteration") for line in process.stderr)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


# Detached.


def test_a_detached_run_goes_on_without_its_terminal_and_can_be_seen_stopped_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.db"
    dm = [*DM, "--iterations", "5000", "--checkpoint-every", "0.1"]
    # The terminal: a session that is hung up as soon as the command has come back.
    starter = _dambench(*dm, "--detach", stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    out, err = starter.communicate(timeout=60)
    run = out.strip()
    assert starter.returncode == 0
    assert f"dambench watch {run}" in err
    row = _row(path, run)
    try:
        assert os.getsid(row.pid) == row.pid
        assert os.readlink(f"/proc/{row.pid}/fd/0") == os.devnull
        assert os.readlink(f"/proc/{row.pid}/fd/1") == row.log
        os.kill(row.pid, signal.SIGHUP)
        _wait(lambda: _row(path, run).done > 20)
        assert _row(path, run).state == "running"
        assert run_cli(["resume", run]) == 2
        assert "goes on, as process" in capsys.readouterr().err
        (listed,) = printed(capsys, "runs")
        assert (listed["state"], listed["pid"]) == ("running", row.pid)
        assert run_cli(["stop", run]) == 0
        assert "Stopped at iteration" in capsys.readouterr().err
        assert run_cli(["watch", run]) == 143
        assert "stopped by SIGTERM" in capsys.readouterr().err
        assert run_cli(["logs", run]) == 0
        log = capsys.readouterr().out
        assert f"run {run}, settings" in log
        assert "stopped by SIGTERM" in log
        assert run_cli(["stop", run]) == 2
        # And on, in the background again, until it is killed.
        assert run_cli(["resume", run]) == 0
        assert capsys.readouterr().out.strip() == run
        again = _row(path, run)
        assert (again.attempt, again.state) == (2, "running")
        assert again.pid != row.pid
        assert run_cli(["stop", run, "--kill"]) == 0
        assert _row(path, run).state == "lost"
        assert run_cli(["watch", run]) == 1
        assert "dambench resume" in capsys.readouterr().err
        assert run_cli(["runs"]) == 0
        assert "lost" in capsys.readouterr().out
    finally:
        processes.send(_row(path, run), signal.SIGKILL)


def test_what_is_wrong_with_a_detached_run_is_said_where_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli([*DM, "--detach", "--ipc", "100000"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "dambench: --ipc 100000 is too many" in said.err
    assert not (tmp_path / "runs.db").exists()
    assert list(files.log_folder().iterdir()) == []
    # What needs no look at the data is said without a process.
    assert run_cli([*DM, "--detach", "--ipc", "0"]) == 2
    assert run_cli([*DM, "--detach", "--headless"]) == 2


def test_a_run_that_is_not_there_any_more_is_lost_on_this_machine_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    here = processes.this_process()
    with closing(Store.open(path, write=True)) as store:
        run = store.create(config(), CARD, process=here)
        list(store.record(run, (event for event in words(config()) if isinstance(event, Started | Stepped))))
        assert processes.state(store.run(run)) == "running"
        number = store.run(run).number

        def shown(**changes: Any) -> str:
            return processes.state(msgspec.structs.replace(store.run(run), **changes))

        assert shown(process_started=here.started + 1) == "lost"  # the pid was given to another
        assert shown(pid=2**22 + 1) == "lost"
        boot, space = here.boot.split(" ")
        assert shown(boot=f"another {space}") == "lost"  # restarted since
        # In another container, or on another machine, the pid says nothing: only its silence does.
        for elsewhere in ({"boot": f"{boot} pid:[1]"}, {"host": "elsewhere"}):
            assert shown(**elsewhere) == "running"
            for seconds, state in ((59, "running"), (61, "silent"), (601, "lost")):
                then = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - seconds))
                assert shown(beat_at=then, pid=here.pid + seconds, **elsewhere) == state
        # Unless somebody knows that there is nothing left of it: of this process, and of no other there.
        elsewhere = {"host": "elsewhere"}
        gone = processes.identity(msgspec.structs.replace(store.run(run), **elsewhere))
        monkeypatch.setenv(processes.ENDED, gone)
        assert shown(**elsewhere) == "lost"
        assert [shown(**elsewhere, pid=here.pid + 1), shown()] == ["running", "running"]
        monkeypatch.setenv(processes.ENDED, "nonsense")
        assert shown(**elsewhere) == "running"
        assert number == 1
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    _wait(lambda: Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert processes._started(zombie.pid) == 0
    zombie.wait()


def test_a_run_on_another_machine_is_asked_through_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "BEAT_SECONDS", 0.05)
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        elsewhere = processes.this_process().__class__(host="elsewhere", boot="b", pid=1, started=1)
        run = store.create(config(), CARD, process=elsewhere)
        list(store.record(run, (event for event in words(config()) if isinstance(event, Started | Stepped))))
        before = store.run(run).beat_at
        asked: list[bool] = []
        with processes.beating(path, run, 1, lambda: asked.append(True)):
            _wait(lambda: store.run(run).beat_at > before)
            assert not asked
            assert run_cli(["stop", run]) == 0
            assert "elsewhere notices within" in capsys.readouterr().err
            _wait(lambda: bool(asked))
        assert run_cli(["stop", run, "--kill"]) == 2


def test_a_run_that_is_asked_through_the_database_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "BEAT_SECONDS", 0.05)
    real = Store.create

    def asked(self: Store, *arguments: Any, **more: Any) -> str:
        run = real(self, *arguments, **more)
        self.edit(run, "stop_asked", 1)
        return run

    monkeypatch.setattr(Store, "create", asked)
    assert run_cli([*DM, "--headless", "--iterations", "1000000"]) == 143
    (row,) = printed(capsys, "runs")
    assert row["state"] == "stopped"


def test_runs_that_cannot_be_resumed_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        finished = store.create(config(), CARD)
        list(store.record(finished, words(config())))
        diverged = store.create(config(seed=1), CARD)
        end = Failed(error="no number", traceback="", costs=costs(), diverged=12)
        list(store.record(diverged, words(config(seed=1), end=end)))
    before = path.read_bytes()
    for run, said in (
        (finished, "is finished"),
        (diverged, "diverged at iteration 12"),
        ("zzzzzz", "No run has the id"),
    ):
        assert run_cli(["resume", run, "--headless"]) == 2
        assert said in capsys.readouterr().err
    assert path.read_bytes() == before


def test_the_database_is_unharmed_by_plain_sqlite_beside_it(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run = store.create(config(), CARD)
        list(store.record(run, words(config())))
    with closing(sqlite3.connect(tmp_path / "runs.db")) as plain:
        assert plain.execute("select count(*) from results").fetchone() == (1,)
