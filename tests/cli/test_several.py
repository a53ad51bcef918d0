"""Commands about several runs: by ids or a filter; waiting for them, and a command of the user's at their end."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from dambench.cli.app import run_cli
from dambench.runner import hooks, processes
from dambench.store.runs import Store
from tests.cli.lab import DM, printed
from tests.ledger import CARD, add, config, failed, stopped


def _lost(store: Store, method: str, seed: int = 0) -> str:
    return store.create(config(method, seed=seed), CARD, process=replace(processes.this_process(), started=1))


@pytest.fixture
def standings(tmp_path: Path) -> dict[str, str]:
    """One run of each standing."""
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        return {
            "finished": add(store, config("dm"), [0.9, 0.9, 0.9]),
            "failed": add(store, config("dm", seed=1), end=failed()),
            "stopped": add(store, config("dm", seed=2), end=stopped()),
            "lost": _lost(store, "dm", 3),
            "alive": store.create(config("dm", seed=4), CARD, process=processes.this_process()),
        }


def test_a_filter_deletes_what_can_be_deleted_and_says_what_is_left_alone(
    standings: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["delete", "method:dm -state:finished"]) == 0
    assert f"1 run left alone. The first: The run {standings['alive']} goes on" in capsys.readouterr().err
    assert {row["id"] for row in printed(capsys, "runs")} == {standings["finished"], standings["alive"]}
    assert run_cli(["restore", "state:failed"]) == 0
    assert {row["id"] for row in printed(capsys, "runs", "--deleted")} == {standings["stopped"], standings["lost"]}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["stop", "state:lost"], "is lost: there is no process to stop"),
        (["stop", "method:dm -state:waiting"], "None of the 4 runs is fit for that. The first: The run"),
        (["stop", "method:mtt"], "No run is meant by 'method:mtt'"),
        (["stop", "ALIVE", "state:failed"], "is a run and the other words are a filter: say either of them"),
        (["stop", "ALIVE", "FAILED"], "is failed: there is nothing to stop"),
        (["resume", "STOPPED", "FINISHED"], "is finished: there is nothing to go on with"),
        (["evaluate", "state:stopped"], "only the set of a finished run is evaluated"),
        (["wait", "tag:none"], "No run is meant by 'tag:none'"),
        (["wait", "FINISHED", "--timeout", "-1"], "is no time to wait"),
        (["stop", "stat:lost"], "No field is called 'stat'. Did you mean 'state'?"),
    ],
)
def test_runs_that_are_not_meant_or_not_fit_are_refused_before_anything_is_done(
    command: list[str], said: str, standings: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(tmp_path / "runs.db")) as store:
        before = store.query("select id, deleted_at, stop_asked, attempt from runs")
        assert run_cli([standings.get(word.lower(), word) for word in command]) == 2
        assert said in capsys.readouterr().err
        store.refresh()
        assert store.query("select id, deleted_at, stop_asked, attempt from runs") == before


@pytest.mark.parametrize(
    ("which", "code"),
    [
        (["finished"], 0),
        (["finished", "stopped"], 143),
        (["finished", "stopped", "failed"], 1),
        (["finished", "lost"], 1),
    ],
)
def test_waiting_ends_with_how_the_runs_ended(
    which: list[str], code: int, standings: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["wait", *(standings[name] for name in which)]) == code
    assert capsys.readouterr().out.split() == [word for name in which for word in (standings[name], name)]


def test_waiting_gives_up_in_time_and_sees_a_run_that_ends_meanwhile(
    standings: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alive = standings["alive"]
    assert run_cli(["wait", alive, "--timeout", "0", "--json"]) == 124
    told = capsys.readouterr()
    assert json.loads(told.out) == {"runs": {alive: "waiting"}, "timed_out": True}
    assert f"1 run not ended after 0 s: {alive}" in told.err

    def end() -> None:
        time.sleep(0.3)
        with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
            store.db.conn.execute("update runs set state = 'finished' where id = ?", [alive])
            store.db.conn.commit()

    thread = threading.Thread(target=end)
    thread.start()
    try:
        assert run_cli(["wait", alive, "--timeout", "60"]) == 0
    finally:
        thread.join()


def test_all_lost_runs_go_on_at_once_in_the_background(
    standings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        second = _lost(store, "random", 5)
    begun: list[list[str]] = []

    def start(words: list[str], path: Path, as_json: bool) -> int:
        begun.append(words)
        return 0

    monkeypatch.setattr("dambench.cli.run.detach", start)
    assert run_cli(["resume", "state:lost", "--hard-twin", "off"]) == 0
    more = ["--headless", "--db", str(tmp_path / "runs.db"), "--hard-twin", "off"]
    assert begun == [["resume", run, *more] for run in (standings["lost"], second)]


def test_several_sets_are_evaluated_by_one_command_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    made = [printed(capsys, *DM, "--seed", seed)["run"] for seed in ("0", "1")]
    assert run_cli(["evaluate", "method:dm", "--evaluate-on", "convnet-d1-w8", "--eval-repeats", "1", "--json"]) == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["seed"], one["scores"][0]["network"]) for one in first] == [(0, "convnet-d1-w8"), (1, "convnet-d1-w8")]
    # Now four runs are meant, of two sets.
    assert run_cli(["evaluate", "method:dm", "--evaluate-on", "convnet-d1-w8", "--eval-repeats", "1", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["run"], one["existing"]) for one in again] == [(one["run"], True) for one in first]
    assert len(printed(capsys, "runs")) == len(made) + len(first)


def _hook(tmp_path: Path, body: str) -> str:
    script = tmp_path / "a hook.py"
    script.write_text(f"import json, os, sys\nfacts = json.load(sys.stdin)\n{body}\n")
    return shlex.join([sys.executable, str(script), str(tmp_path / "heard.txt")])


def test_a_hook_hears_how_a_run_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(hooks.VARIABLE, raising=False)
    monkeypatch.setenv("DAMBENCH_DB", str(tmp_path / "runs.db"))
    heard = "print(os.environ['DAMBENCH_ENDED_STATE'], os.environ['DAMBENCH_ENDED_NAME'], facts['kind'], facts['n'],"
    own = "facts['db'] == os.environ['DAMBENCH_DB'], bool(os.environ['DAMBENCH_HOOK'])"
    body = f"{heard} {own}, file=open(sys.argv[1], 'a'))"
    made = printed(capsys, *DM, "--hook", _hook(tmp_path, body))
    assert (tmp_path / "heard.txt").read_text() == f"finished {made['run']} run 2 True False\n"
    shown = printed(capsys, "show", made["run"])
    assert "heard.txt" not in json.dumps(shown["run"])  # no setting of the run


def test_a_hook_that_fails_is_said_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hooks.VARIABLE, "unused")
    monkeypatch.setattr(hooks, "SECONDS", 1.0)
    said: list[str] = []
    for body, why in (
        ("print('no mail\\x1b[31m today'); sys.exit(3)", "exit code 3: no mail�[31m today; the run is not affected"),
        ("import time; time.sleep(60)", "was not done after 1 s and was killed; the run is not affected"),
    ):
        hooks.use(_hook(tmp_path, body))
        hooks.ended("run", "abc", "failed", tmp_path / "runs.db", {}, said.append)
        assert why in said[-1]
    hooks.use(sys.executable)
    monkeypatch.setenv(hooks.VARIABLE, str(tmp_path))
    hooks.ended("run", "abc", "failed", tmp_path / "runs.db", {}, said.append)
    assert "the hook could not be run: " in said[-1]


@pytest.mark.parametrize(
    ("script", "seconds", "said"),
    [
        ("sleep 30 & exit 0", 20.0, ""),  # what it leaves behind is its own affair
        ("(sleep 30; echo late) & echo gone; exit 4", 20.0, "exit code 4: gone"),
        ("yes; true", 0.7, "was killed"),
        ("sleep 30; true", 0.7, "was killed"),
        ("exec <&-; sleep 0.1; exit 5", 20.0, "exit code 5"),
    ],
)
def test_a_hook_holds_nobody_up_and_leaves_nothing_when_it_is_killed(
    script: str, seconds: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS", seconds)
    heard: list[str] = []
    (tmp_path / "hook.sh").write_text(f"echo $$ > '{tmp_path}/pid'\n{script}\n")
    monkeypatch.setenv(hooks.VARIABLE, f"sh '{tmp_path}/hook.sh'")
    began = time.monotonic()
    hooks.ended("run", "abc", "failed", tmp_path / "runs.db", {"much": "x" * 300_000}, heard.append)
    assert time.monotonic() - began < 15
    assert said in "".join(heard)
    assert bool(heard) == bool(said)
    group = int((tmp_path / "pid").read_text())
    if "&" in script.replace("<&-", ""):
        assert _are_left(group)
        os.killpg(group, signal.SIGKILL)
    until = time.monotonic() + 10  # what was killed takes a moment to be gone
    while _are_left(group) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _are_left(group)


def _are_left(group: int) -> bool:
    """Whether a process of a group goes on."""
    for one in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(one.pid) == group and one.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("no-such-program x", "there is no program 'no-such-program'"),
        ("'a", "is no command line"),
        (" ", "no program ''"),
    ],
)
def test_a_hook_that_cannot_be_run_is_refused_before_the_run(
    hook: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli([*DM, "--hook", hook]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs.db").exists()
