"""`dambench queue`: what waits is carried out, and what somebody changes about it."""

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dambench import __version__
from dambench.cli.app import run_cli
from dambench.core.protocol import PRESETS, Protocol
from dambench.runner import own_worker, processes
from dambench.runner.executors import Wishes
from dambench.runner.worker import Worker
from dambench.store import records
from dambench.store.queue import Queue
from dambench.store.runs import Store
from tests.cli.lab import begun, printed
from tests.ledger import add, config, stopped

__all__ = ["begun"]

RANDOM = [
    *("--method", "random", "--dataset", "digits", "--network", "convnet-d1-w4"),
    *("--eval-repeats", "1", "--device", "cpu"),
]
DM = [*RANDOM[2:], "--method", "dm", "--set", "method.batch_real=8", "--iterations", "2"]


def _list(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = printed(capsys, "queue", "list", "--all")
    return found


def test_what_is_queued_is_carried_out_with_the_id_it_had_and_not_queued_again(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    queued = printed(capsys, "queue", "add", *RANDOM, "--seeds", "0-1", "--threads", "1")["queued"]
    assert len(queued) == 2
    again = printed(capsys, "queue", "add", *RANDOM, "--threads", "1")
    assert (again["queued"], again["there"]) == ([], queued[:1])
    assert [run["threads"] for run in _list(capsys)["runs"]] == [1, 1]
    result = printed(capsys, "queue", "work", "--workers", "1")
    assert (result["finished"], result["failed"]) == (queued, [])
    with closing(Store.open(Path("runs.db"))) as store:  # the second waited while the first was made
        assert [one.seconds is None for one in Queue(store).all()] == [True, False]
    assert sorted(run["id"] for run in printed(capsys, "runs")) == sorted(queued)
    assert len(begun) == 2
    assert printed(capsys, "queue", "add", *RANDOM)["done"] == queued[:1]
    assert run_cli(["queue", "work"]) == 0
    assert len(begun) == 2
    listed = _list(capsys)
    assert listed["counts"] == {"finished": 2}
    assert listed["workers"] == []


def test_what_fails_says_why_and_is_tried_again_with_a_reason(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = printed(capsys, "queue", "add", *RANDOM)["queued"]
    with closing(Store.open(Path("runs.db"), write=True)) as store:
        store.tables.execute("update queue set request = json_set(request, '$.method', 'nothing')")
    assert run_cli(["queue", "work"]) == 1
    assert "No method is called 'nothing'" in capsys.readouterr().err
    (failed,) = _list(capsys)["runs"]
    assert failed["state"] == "failed"
    assert "No method is called 'nothing'" in failed["reason"]
    with closing(Store.open(Path("runs.db"), write=True)) as store:
        store.tables.execute("update queue set request = json_set(request, '$.method', 'random')")
    assert run_cli(["queue", "retry", one, "--reason", "the method is there now"]) == 0
    assert _list(capsys)["runs"][0]["reason"] == "the method is there now"
    assert run_cli(["queue", "work"]) == 0
    assert _list(capsys)["counts"] == {"finished": 1}


def test_runs_are_moved_paused_and_dropped(begun: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = printed(capsys, "queue", "add", *RANDOM, "--seeds", "0-2")["queued"]
    assert run_cli(["queue", "move", c, "--first"]) == 0
    assert run_cli(["queue", "priority", "2", b]) == 0
    assert [run["id"] for run in _list(capsys)["runs"]] == [b, c, a]
    assert run_cli(["queue", "pause", b, "--reason", "later"]) == 0
    assert run_cli(["queue", "drop", c]) == 0
    assert run_cli(["queue", "list"]) == 0
    assert "paused: later" in capsys.readouterr().out
    assert printed(capsys, "queue", "work")["finished"] == [a]
    assert run_cli(["queue", "resume", "--all"]) == 0
    assert printed(capsys, "queue", "work")["finished"] == [b]
    assert run_cli(["queue", "retry", a]) == 2
    assert "is finished: left as it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pause"], "Say which queued runs are meant"),
        (["drop", "zzz"], "No queued run has the id 'zzz'"),
        (["move", "zzz"], "Say where to"),
        (["work", "--executor", "moon"], "No executor is called 'moon'"),
        (["work", "--device", "cuda:77"], "There is no cuda:77 on this machine"),
        (["work", "--device", "gpu"], "is no list of devices"),
        (["work", "--partition", "big"], "is not of the local executor"),
    ],
)
def test_bad_input_to_the_queue_is_one_sentence_and_changes_nothing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Store.open(Path("runs.db"), write=True).close()
    assert run_cli(["queue", *words]) == 2
    assert said in capsys.readouterr().err
    with closing(Store.open(Path("runs.db"))) as store:
        assert store.query("select * from workers") == store.query("select * from queue") == []


def test_a_run_of_data_that_changed_since_it_was_queued_says_so(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def write(seed: int) -> None:
        generator, labels = np.random.default_rng(seed), np.arange(20) % 2
        images = [generator.integers(0, 255, (20, 8, 8), dtype=np.uint8) for _ in range(2)]
        np.savez(tmp_path / "my.npz", x_train=images[0], y_train=labels, x_test=images[1], y_test=labels)

    write(1)
    words = [*RANDOM, "--data", str(tmp_path / "my.npz"), "--threads", "1"]
    words[words.index("digits")] = "arrays"
    assert len(printed(capsys, "queue", "add", *words)["queued"]) == 1
    write(2)
    assert run_cli(["queue", "work"]) == 0
    assert "finished, but on other data than it was queued for" in capsys.readouterr().err
    (run,) = _list(capsys)["runs"]
    assert run["reason"] == "but on other data than it was queued for: they have changed since"
    (again,) = printed(capsys, "queue", "add", *words)["done"]
    assert again == run["id"]


def test_where_every_run_would_fail_none_is_begun(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed(capsys, "queue", "add", *RANDOM, "--seeds", "0-1")
    with monkeypatch.context() as there:
        there.setenv("DAMBENCH_HOOK", "no-such-program --now")
        assert run_cli(["queue", "work"]) == 2
        assert "DAMBENCH_HOOK 'no-such-program --now': there is no program" in capsys.readouterr().err
    with monkeypatch.context() as there:
        there.setattr("dambench.core.files.room", lambda path: 1_000_000)
        assert run_cli(["queue", "work"]) == 1
        said = capsys.readouterr().err
        assert "0 runs finished. The disk of " in said
        assert "is full: no run is begun until there is room. 2 runs wait." in said
    assert begun == []
    assert _list(capsys)["counts"] == {"waiting": 2}
    assert run_cli(["queue", "work"]) == 0


def test_a_queued_run_is_told_from_one_that_is_not_there_and_can_be_waited_for(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = printed(capsys, "queue", "add", *RANDOM, "--seeds", "0-1")["queued"]
    assert run_cli(["show", a[:5]]) == 2
    assert f"{a} is queued (waiting), and has not begun" in capsys.readouterr().err
    assert run_cli(["wait", a, b, "--timeout", "0"]) == 124
    assert run_cli(["queue", "drop", b]) == 0
    assert run_cli(["queue", "work"]) == 0
    capsys.readouterr()
    assert run_cli(["wait", a]) == 0
    assert run_cli(["wait", a, b]) == 143
    assert capsys.readouterr().out.split() == [a, "finished", a, "finished", b, "stopped"]
    assert run_cli(["wait", "nothing"]) == 2
    Path("grid.toml").write_text(
        'name = "two"\n[run]\ndataset = "digits"\nnetwork = "convnet-d1-w4"\n[grid]\nmethod = "random"\nseed = [5]\n'
    )
    assert run_cli(["sweep", "grid.toml", "--queue"]) == 0
    assert run_cli(["wait", "sweep:two", "--timeout", "0"]) == 124
    assert run_cli(["wait", "sweep:three"]) == 2
    mine = printed(capsys, "queue", "add", *RANDOM, "--seeds", "7", "--tag", "mine")["queued"][0]
    for words in (["method:random", "seed>6"], ["tag:mine"], ["state:waiting -sweep:two"], ["random", "age<1h"]):
        assert run_cli(["wait", *words, "--timeout", "0"]) == 124
        assert capsys.readouterr().err.split()[-1] == mine
    assert run_cli(["wait", "method:dm", "--timeout", "0"]) == 2


def test_one_run_that_cannot_be_is_not_told_of_the_rules_of_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["queue", "add", "--method", "nothing", "--dataset", "digits"]) == 2
    said = capsys.readouterr().err
    assert "No method is called 'nothing'" in said
    assert "[[skip]]" not in said


def test_a_worker_of_another_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(Path("runs.db"), write=True)) as store:
        queue = Queue(store)
        queue.see("other", **_here(), dambench="0.0.1", began_at=records.now())
        assert run_cli(["queue", "work"]) == 2
        assert "A worker of dambench 0.0.1 " in capsys.readouterr().err
        queue.see("other", ended_at=records.now())
        queue.add([queue.new({})])
        store.tables.execute("update queue set dambench = '999.0.0'")
        assert run_cli(["queue", "work"]) == 2
        assert f"dambench 999.0.0 has filled this queue, and this is dambench {__version__}" in capsys.readouterr().err
        store.tables.execute("pragma user_version = 999")
    assert run_cli(["queue", "work"]) == 2
    assert "a newer dambench made it" in capsys.readouterr().err


def _here() -> dict[str, str | int]:
    here = processes.this_process()
    return {"host": here.host, "boot": here.boot, "pid": here.pid, "process_started": here.started}


def _worker(queue: Queue, name: str, executor: str = "local") -> None:
    queue.see(name, **_here(), dambench=__version__, executor=executor, slots=1, began_at=records.now())


def test_workers_are_asked_to_finish_what_they_run_and_take_nothing_more(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "queue", "add", *RANDOM)
    assert run_cli(["queue", "stop"]) == 0
    assert "No worker is at this queue" in capsys.readouterr().err
    with closing(Store.open(Path("runs.db"), write=True)) as store:
        queue = Queue(store)
        _worker(queue, "other")
        assert run_cli(["queue", "stop", "99999999"]) == 2
        assert "No worker of this queue is process 99999999" in capsys.readouterr().err
        assert run_cli(["queue", "stop", str(os.getpid())]) == 0
        assert "1 worker asked to finish what they run and take nothing more" in capsys.readouterr().err
        assert run_cli(["queue", "list"]) == 0
        assert "running, takes nothing more" in capsys.readouterr().err
        assert run_cli(["queue", "stop", "--now"]) == 0
        assert _list(capsys)["workers"][0]["asked"] == "stop"
        queue.see("other", ended_at=records.now())


def test_a_worker_that_is_asked_to_drain_finishes_its_run_and_leaves_the_others(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "queue", "add", *RANDOM, "--seeds", "0-2")
    with closing(Store.open(Path("runs.db"), write=True)) as store:

        def say(text: str) -> None:
            if ": finished" not in text:  # it has begun its first
                Queue(store).ask(worker.uid, "drain")

        worker = Worker(store, "local", Wishes(workers=1), say)
        assert len(worker.work().finished) == 1
    assert len(begun) == 1
    assert _list(capsys)["counts"] == {"finished": 1, "waiting": 2}


def test_a_worker_in_the_background_is_there_once(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed(capsys, "queue", "add", *RANDOM)
    held = own_worker.lock(tmp_path / "runs.db")
    assert run_cli(["queue", "work", "--alone"]) == 2
    assert "is at work in the background here" in capsys.readouterr().err
    assert begun == []
    own_worker.lock(tmp_path / "other.db").release()  # that is another queue
    held.release()
    assert run_cli(["queue", "work", "--alone"]) == 0
    assert len(begun) == 1
    own_worker.lock(tmp_path / "runs.db").release()


@pytest.mark.slow
def test_a_worker_goes_on_in_the_background_until_it_is_asked_to_stop(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed(capsys, "queue", "add", *DM[:-1], "100000")
    first = printed(capsys, "queue", "work", "--detach")
    assert run_cli(["queue", "work", "--detach"]) == 2
    assert "is at work in the background here" in capsys.readouterr().err
    assert run_cli(["queue", "stop", "--now", str(first["pid"])]) == 0
    until = time.monotonic() + 120
    while time.monotonic() < until and _list(capsys)["workers"]:
        time.sleep(0.5)
    listed = _list(capsys)
    assert listed["workers"] == []
    assert listed["counts"] == {"waiting": 1}


def test_a_report_queues_what_its_tables_lack_once(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli(["report", "--fill"]) == 2
    assert "There is no database" in capsys.readouterr().err
    for seed in ("0", "1"):
        assert run_cli(["run", "--headless", *DM, "--seed", seed]) == 0
    sgd = ["--set", "method.lr_images=0.5"]
    assert run_cli(["run", "--headless", *DM, *sgd]) == 0
    with closing(Store.open(Path("runs.db"))) as store:
        (protocol,) = store.query("select definition from protocols")
    monkeypatch.setitem(PRESETS, "quick", msgspec.json.decode(protocol["definition"], type=Protocol))
    assert run_cli(["report", "--fill", "--dry-run"]) == 0
    assert "would be queued." in capsys.readouterr().err
    planned = printed(capsys, "report", "--fill", "--dry-run")
    assert 0 < planned["without"] <= len(planned["runs"])
    assert any(run.startswith("dm digits IPC 1 quick") and run.endswith("seed 1") for run in planned["runs"])
    assert _list(capsys)["runs"] == []
    for _ in range(2):
        assert run_cli(["report", "--fill"]) == 0
        said = capsys.readouterr()
        queued = _list(capsys)["runs"]
        assert len(queued) == len(said.out.splitlines()) + (len(queued) if "were there already" in said.err else 0)
    assert len(queued) == len(planned["runs"])
    planned = printed(capsys, "report", "--fill", "--dry-run")
    assert (planned["runs"], planned["queued"]) == ([], len(queued))
    random = [(run["ipc"], run["seed"]) for run in queued if run["method"] == "random"]
    assert random[:5] == [(1, seed) for seed in range(5)]
    assert set(random[5:]) == {(ipc, seed) for ipc in (2, 5, 10, 20, 50) for seed in range(3)}
    assert [run["seed"] for run in queued if run["method"] == "herding"] == [0, 1, 2]
    (other,) = (run for run in queued if run["method"] == "dm")
    assert (other["seed"], other["request"]["method"]["lr_images"]) == (1, 0.5)
    assert run_cli(["queue", "pause", *[run["id"] for run in queued if run["method"] != "dm"]]) == 0
    assert printed(capsys, "queue", "work")["finished"] == [other["id"]]
    assert run_cli(["report"]) == 0
    assert "without seed" not in capsys.readouterr().out


def test_the_set_of_a_queued_run_is_evaluated_once_it_is_made(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (made,) = printed(capsys, "queue", "add", *RANDOM)["queued"]
    assert run_cli(["queue", "evaluate", made, "--evaluate-on", "mlp", "--eval-repeats", "2", "--priority", "1"]) == 0
    evaluation = capsys.readouterr().out.strip()
    assert run_cli(["queue", "list"]) == 0
    assert f"waits for {made} (waiting)" in capsys.readouterr().out
    assert printed(capsys, "queue", "work")["finished"] == [made, evaluation]
    shown = printed(capsys, "show", evaluation)
    assert shown["run"]["evaluates"] == f"{made}'s set"
    assert [(score["network"], score["repeat"]) for score in shown["scores"]] == [("mlp-d2-w128", n) for n in (0, 1)]
    assert run_cli(["queue", "evaluate", made, "--evaluator", "nothing"]) == 2
    assert run_cli(["queue", "evaluate", "zzz"]) == 2


def test_what_waits_for_a_dropped_one_or_has_its_run_in_the_trash_is_said(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    made, other = printed(capsys, "queue", "add", *RANDOM, "--seeds", "0-1")["queued"]
    assert run_cli(["queue", "evaluate", made, "--evaluate-on", "mlp"]) == 0
    evaluation = capsys.readouterr().out.strip()
    assert run_cli(["queue", "drop", made]) == 0
    with closing(Store.open(Path("runs.db"), write=True)) as store:  # begun, and then thrown away
        run = add(store, config("random"), end=stopped())
        store.delete(run)
        store.tables.execute("update queue set run = ? where id = ?", store.run(run).uid, other)
    assert run_cli(["queue", "work"]) == 1
    said = capsys.readouterr().err
    assert f"1 failed; 1 run still waiting for others that failed or were paused or dropped ({evaluation})." in said
    assert f"its run {run} is in the trash" in said
    assert begun == []
    assert run_cli(["queue", "retry", other]) == 0
    assert run_cli(["queue", "retry", made]) == 0
    assert printed(capsys, "queue", "work")["finished"] == [made, other, evaluation]


def test_experts_that_runs_share_are_trained_once_and_before_them(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"experts": 2, "epochs": 2, "max_start": 1, "expert_epochs": 1, "steps": 2, "lr_expert": 0.02}
    words = [word for name, value in options.items() for word in ("--set", f"method.{name}={value}")]
    mtt = ["--method", "mtt", "--iterations", "1", *words]
    queued = printed(capsys, "queue", "add", *RANDOM[2:], *mtt, "--seeds", "0-1")["queued"]
    listed = _list(capsys)["runs"]
    assert [run["command"] for run in listed] == ["experts", "run", "run"]
    assert [run["after"] for run in listed[1:]] == [[listed[0]["uid"]]] * 2
    assert printed(capsys, "queue", "work")["finished"] == queued
    assert [command[0] for command in begun] == ["experts", "run", "run"]
    (pool,) = (pool for pool in printed(capsys, "experts", "list") if pool["about"]["what"] == "trajectories")
    assert pool["count"] == 2
    for run in queued[1:]:  # nothing was left for them to train
        assert not [event for event in printed(capsys, "show", run)["warnings"] if "are kept" in event]
