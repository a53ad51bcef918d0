"""A set that carries soft labels or a rate is evaluated with hard labels at the usual rate, too."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dambench import engine
from dambench.cli.app import run_cli
from dambench.core import protocol as protocols
from dambench.core.config import RunConfig
from dambench.core.events import Stopped
from dambench.core.protocol import PRESETS, Budget
from dambench.store import history
from dambench.store.runs import Store
from tests.cli.lab import printed

MTT = [
    *("run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2"),
    *("--device", "cpu", "--method", "mtt", "--iterations", "2", "--set", "method.experts=1"),
    *("--set", "method.epochs=3", "--set", "method.max_start=1", "--set", "method.steps=1"),
    *("--set", "method.expert_epochs=1", "--protocol", "mtt"),
]


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Budget(epochs=2)
    brief = {name: replace(PRESETS[name], synthetic=few, whole=few) for name in ("mtt", "dsa-dm")}
    monkeypatch.setattr(protocols, "PRESETS", PRESETS | brief)
    monkeypatch.setattr("dambench.core.hard_labels.PRESETS", PRESETS | brief)


def runs(path: Path) -> list[dict[str, Any]]:
    with closing(Store.open(path)) as store:
        return store.query("select id, protocol, set_sha256, state from runs order by number")


def test_the_twin_is_a_run_that_evaluates_the_set_under_the_usual_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *MTT, "--tag", "fair")
    first, twin = runs(tmp_path / "runs.db")
    assert (first["id"], twin["id"]) == (made["run"], made["hard_twin"]["run"])
    assert first["set_sha256"] == twin["set_sha256"]
    assert [row["protocol"].partition("#")[0] for row in (first, twin)] == ["mtt", "dsa-dm"]
    expected = printed(capsys, "evaluate", made["run"], "--protocol", "dsa-dm", "--again")
    scores = [[(score["repeat"], score["loss"]) for score in each["scores"]] for each in (expected, made["hard_twin"])]
    assert scores[0] == scores[1]
    assert expected["hard_twin"] is None  # a twin has none
    assert printed(capsys, "show", twin["id"])["tags"] == ["fair"]


def test_it_is_announced_with_its_cost_made_once_and_left_out_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = printed(capsys, *MTT, "--hard-twin", "off")
    assert alone["hard_twin"] is None
    assert len(runs(tmp_path / "runs.db")) == 1
    capsys.readouterr()
    assert run_cli([*MTT, "--json"]) == 0
    shown = capsys.readouterr()
    again = json.loads(shown.out)
    assert (again["run"], again["existing"]) == (alone["run"], True)
    said = " ".join(shown.err.split())
    assert "The set carries a learning rate, which mtt uses: it is evaluated with hard labels at the usual rate" in said
    assert "(--hard-twin off leaves it out)" in said
    third = printed(capsys, *MTT)
    assert third["hard_twin"] == again["hard_twin"] | {"existing": True}
    assert len(runs(tmp_path / "runs.db")) == 2
    for command in ("run", "evaluate", "resume"):
        target = [alone["run"]] if command != "run" else MTT[1:]
        assert run_cli([command, *target, "--hard-twin", "perhaps"]) == 2
    assert len(runs(tmp_path / "runs.db")) == 2


def test_what_past_runs_tell_of_the_next_one_has_its_twin_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *MTT, "--hard-twin", "off")
    with closing(Store.open(tmp_path / "runs.db")) as store:
        row = store.run(made["run"])
        config = msgspec.json.decode(row.config, type=RunConfig)
        (often,) = history.expected(store, replace(config, evaluate_every=1), row.dataset_sha256)
        (past,) = history.expected(store, config, row.dataset_sha256)
    assert past.evaluate_seconds
    assert past.twin_seconds == past.evaluate_seconds
    assert (often.evaluate_seconds, often.twin_seconds) == (2 * past.evaluate_seconds, past.twin_seconds)
    assert past.phases(hard_twin=True) == {
        "distil": past.distil_seconds,
        "evaluate": past.evaluate_seconds,
        "hard twin": past.twin_seconds,
    }
    assert past.phases(hard_twin=False) == {"distil": past.distil_seconds, "evaluate": past.evaluate_seconds}
    planned = printed(capsys, "sweep", str(grid(tmp_path)), "--dry-run", "--json")
    assert planned["runs"][0]["seconds"] == pytest.approx(past.distil_seconds + 2 * past.evaluate_seconds)


def grid(folder: Path) -> Path:
    """The run of `MTT` under another seed."""
    path = folder / "grid.toml"
    path.write_text(
        """
        [grid]
        seed = [1]
        [run]
        dataset = "digits"
        network = "convnet-d1-w4"
        eval_repeats = 2
        device = "cpu"
        method = {name = "mtt", experts = 1, epochs = 3, max_start = 1, steps = 1, expert_epochs = 1}
        iterations = 2
        protocol = "mtt"
        """
    )
    return path


def test_a_set_that_carries_nothing_and_a_protocol_that_takes_nothing_have_no_twin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2"]
    assert printed(capsys, *command, "--device", "cpu", "--method", "random", "--protocol", "mtt")["hard_twin"] is None
    made = printed(capsys, *MTT[:-1], "dsa-dm")
    assert made["hard_twin"] is None
    assert {row["protocol"].partition("#")[0] for row in runs(tmp_path / "runs.db")} == {"mtt", "dsa-dm"}


def test_a_run_that_was_stopped_has_its_twin_once_it_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stopped = Stopped(signal="SIGTERM", phase="", iteration=0, costs=[])
        patched.setattr(engine, "run", lambda *given: iter([stopped]))
        assert run_cli([*MTT, "--json"]) == 143
    (row,) = runs(tmp_path / "runs.db")
    capsys.readouterr()
    resumed = printed(capsys, "resume", row["id"], "--headless")
    assert resumed["run"] == row["id"]
    assert resumed["hard_twin"]["state"] == "finished"
