"""Remote runs: the real program on another host, which here is another home, killed and gone on with elsewhere."""

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from dambench.cli.app import run_cli
from dambench.runner import processes, remote
from dambench.runner.remote import Ended, HostVersions, Order, carry_out
from dambench.store.runs import Store
from dambench.store.spool import Unreachable
from tests.store.hosts import Line, at

UID = "cd" * 16
TOML: dict[str, Any] = {
    **{"dataset": "digits", "network": "convnet-d1-w4", "iterations": 8, "eval_repeats": 2},
    **{"device": "cpu", "threads": 1, "checkpoint_every": 0.0, "method": {"name": "dm", "batch_real": 8}},
}


def order(**more: Any) -> Order:
    environment = {processes.QUEUED: f"{UID}:abc234", "OMP_NUM_THREADS": "1"}
    facts: dict[str, Any] = {"command": "run", "request": TOML, "of": "", "environment": environment}
    return Order(run=UID, about=remote.about_here(), **(facts | more))


@pytest.fixture
def head(tmp_path: Path) -> Path:
    (tmp_path / "head").mkdir()
    return tmp_path / "head"


def outcome(path: Path, home: Path) -> dict[str, Any]:
    with at(home), closing(Store.open(path)) as store:
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        row = store.query("select * from runs where method = 'dm'")[0]
        found = {
            "set": row["set_sha256"],
            "state": row["state"],
            "scores": store.query("select repeat, accuracy, loss from scores where run = ? order by 1", row["number"]),
            "losses": store.query(
                "select json_extract(body, '$.iteration') i, json_extract(body, '$.losses') losses from events "
                "where run = ? and kind = 'stepped' order by sequence",
                row["number"],
            ),
        }
        assert [step["i"] for step in found["losses"]] == list(range(1, len(found["losses"]) + 1))
        return found


def local(tmp_path: Path, iterations: int = 8) -> dict[str, Any]:
    """What the same run is that nobody interrupts, on the head itself."""
    words = ["run", "--headless", "--dataset", "digits", "--method", "dm", "--network", "convnet-d1-w4"]
    words += ["--iterations", str(iterations), "--eval-repeats", "2", "--device", "cpu", "--threads", "1"]
    with at(tmp_path / "local"):
        assert run_cli([*words, "--set", "method.batch_real=8", "--db", str(tmp_path / "local.db")]) == 0
    return outcome(tmp_path / "local.db", tmp_path / "local")


@pytest.mark.slow
def test_a_run_on_another_host_is_in_the_database_as_if_it_had_been_made_there(head: Path, tmp_path: Path) -> None:
    line, node = Line(head), tmp_path / "node"
    with at(node):
        assert carry_out(order(), line) == Ended("finished")
    assert outcome(head / "runs.db", head) == local(tmp_path)
    with at(head), closing(Store.open(head / "runs.db")) as store:
        row = store.run("abc234")
        assert (row.uid, row.attempt, row.state) == (UID, 1, "finished")
        assert (head / "sets" / f"{row.set_sha256}.safetensors").is_file()
    assert not list((node / "spool").iterdir())
    assert not list((tmp_path / "cache" / "dambench" / "index").iterdir())
    with at(node):  # and once more there is nothing to do
        assert carry_out(order(), line) == Ended("finished")


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (HostVersions("0.0.1", "x", "3.11"), "has dambench .* and this host 0.0.1: install the same"),
        (remote.about_here()._replace(code="x"), "another source of dambench"),
        (remote.about_here()._replace(python="3.99"), "has Python 3.1.*, and this host 3.99: install the same"),
    ],
)
def test_a_host_with_another_dambench_or_python_makes_nothing(about: HostVersions, words: str, head: Path) -> None:
    ended = carry_out(order()._replace(about=about), Line(head))
    assert ended.state == "failed"
    assert re.search(words, ended.reason)
    assert not (head / "runs.db").exists()


@pytest.mark.slow
def test_what_is_wrong_with_a_request_is_said_where_it_was_queued(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at(tmp_path / "node"):
        ended = carry_out(order(request={"dataset": "digits", "method": "dmm"}), Line(head))
    assert ended.state == "failed"
    assert ended.reason.startswith("No method is called 'dmm'. Did you mean 'dm'?")


def test_experts_are_not_trained_where_nobody_would_find_them(head: Path, tmp_path: Path) -> None:
    with at(tmp_path / "node"):
        ended = carry_out(order(command="experts", request={"words": []}), Line(head))
    assert ended.state == "failed"
    assert "DAMBENCH_HOME" in ended.reason


def _pid(home: Path) -> int:
    for path in (home / "spool").glob("*/process.json"):
        with suppress(ValueError):
            return int(json.loads(path.read_text())[2])
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("chain", range(4))
def test_killed_again_and_again_and_gone_on_with_elsewhere_a_run_is_the_same(
    chain: int, head: Path, tmp_path: Path
) -> None:
    """Processes are killed, answers are lost, the writer begins anew; the run changes between two hosts."""
    chance = random.Random(chain)

    def fault(name: str, when: str) -> None:
        if chance.random() < 0.1:
            raise Unreachable(when)

    line, hosts, kills = Line(head), [tmp_path / "a", tmp_path / "b"], 0
    request = TOML | {"iterations": 60}
    for _ in range(60):
        host = chance.choice(hosts)
        over = threading.Event()

        def kill(host: Path = host, over: threading.Event = over) -> None:
            nonlocal kills
            time.sleep(2.0 + 3.0 * chance.random())
            if not over.is_set() and (pid := _pid(host)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1

        killer = threading.Thread(target=kill)
        if kills < 5:
            killer.start()
        line.fault = fault
        with at(host):
            ended = carry_out(order(request=request), line)
        over.set()
        if killer.ident:
            killer.join()
        line.restart()
        if ended.state == "finished":
            break
        assert ended.state == "lost", ended
    assert ended == Ended("finished")
    assert kills >= 1
    assert outcome(head / "runs.db", head) == local(tmp_path, 60)


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_run_with_it_and_the_next_one_sends_what_it_left(
    head: Path, tmp_path: Path
) -> None:
    node, line = tmp_path / "node", Line(head)
    request = TOML | {"iterations": 400}
    pid = os.fork()
    if not pid:  # the worker
        with at(node):
            carry_out(order(request=request), line)
        os._exit(0)
    _until(lambda: (head / "runs.db").exists() and _done(head) > 20)
    child = _pid(node)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())
    line.restart()
    with at(node):
        assert carry_out(order(request=request), line) == Ended("finished")
    with at(head), closing(Store.open(head / "runs.db")) as store:
        kinds = [row["kind"] for row in store.query("select kind from events order by sequence")]
        # It had saved its state when its worker was gone, and that was sent by the next one.
        assert kinds.count("stopped") == 1
        assert kinds.index("resumed") == kinds.index("stopped") + 1
    assert outcome(head / "runs.db", head) == local(tmp_path, 400)


def _until(happens: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def _done(head: Path) -> int:
    with at(head), closing(Store.open(head / "runs.db")) as store:
        rows = store.query("select done from runs where phase = 'distil'")
        return int(rows[0]["done"]) if rows else 0


@pytest.mark.slow
def test_asked_to_stop_a_run_saves_its_state_and_is_gone_on_with_on_another_host(head: Path, tmp_path: Path) -> None:
    line, asked = Line(head), threading.Event()
    request = TOML | {"iterations": 400}

    def ask() -> None:
        _until(lambda: (head / "runs.db").exists() and _done(head) > 20)
        asked.set()

    threading.Thread(target=ask).start()
    with at(tmp_path / "a"):
        assert carry_out(order(request=request), line, asked.is_set).state == "stopped"
    with at(tmp_path / "b"):
        assert carry_out(order(request=request), line) == Ended("finished")
    assert outcome(head / "runs.db", head) == local(tmp_path, 400)
