"""Scores that are made of several accuracies measure the missing ones first, by runs that others can use."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core.config import RunConfig
from dambench.store.recall import recall
from dambench.store.runs import Store
from tests.cli.lab import DM, SMALL, killed_after, printed


def runs(path: Path) -> list[tuple[str, str]]:
    with closing(Store.open(path)) as store:
        rows = store.query(
            "select method, coalesce(json_extract(config, '$.evaluator.name'), 'accuracy') as evaluator from runs "
            "order by number"
        )
        return [(row["method"], row["evaluator"]) for row in rows]


def test_shared_arms_are_ordinary_runs_that_are_made_once_and_serve_all_methods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *DM)
    capsys.readouterr()
    first = printed(capsys, "evaluate", made["run"], "--evaluator", "lrs")
    path = tmp_path / "runs.db"
    plain = "accuracy"
    assert runs(path) == [("dm", plain), ("random", plain), ("whole", plain), ("dm", "lrs")]
    for score, own in zip(first["scores"], made["scores"], strict=True):
        assert score["set_own"] == score["set_hard"] == own["accuracy"]
        assert score["hlr"] == pytest.approx(score["real_hard"] - own["accuracy"])
    other = printed(capsys, *SMALL[:-4], "--method", "herding")
    second = printed(capsys, "evaluate", other["run"], "--evaluator", "lrs")
    assert runs(path)[4:] == [("herding", plain), ("herding", "lrs")]
    for name in ("random_own", "real_hard"):
        assert [score[name] for score in first["scores"]] == [score[name] for score in second["scores"]]
    capsys.readouterr()
    assert run_cli(["report", "--metric", "lrs", "--short"]) == 0
    assert "LRS in %" in capsys.readouterr().out
    assert printed(capsys, "evaluate", made["run"], "--evaluator", "lrs")["run"] == first["run"]


def test_the_plain_arms_of_ars_are_under_a_protocol_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *DM)
    printed(capsys, "evaluate", made["run"], "--evaluator", "ars")
    with closing(Store.open(tmp_path / "runs.db")) as store:
        rows = store.query("select method, protocol from runs order by number")
    assert [(row["method"], row["protocol"].partition("#")[0]) for row in rows] == [
        *[("dm", "quick"), ("random", "quick"), ("dm", "quick-plain"), ("random", "quick-plain"), ("dm", "quick")]
    ]


def test_only_accuracies_of_the_same_seed_and_way_that_are_undamaged_are_recalled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *DM)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        row = store.run(made["run"])
        config = store.run(made["run"]).config
        asked = msgspec.json.decode(config, type=RunConfig)

        def known(**changes: Any) -> float | None:
            look = recall(store, msgspec.structs.replace(asked, **changes), row.dataset_sha256)
            return look(made["synthetic_sha256"], row.protocol_sha256, "convnet-d1-w4", 1)

        assert known() == made["scores"][1]["accuracy"]
        assert known(precision="bf16") == known()
        assert (known(seed=1), known(preprocessing="zca"), known(precision="tf32")) == (None, None, None)
        cuda = msgspec.structs.replace(asked.execution, device="cuda:0")
        assert known(execution=cuda) is None
        store.delete(made["run"])
        assert known() is None
        store.restore(made["run"])
        store.db.conn.execute("update measurements set value = 0.99 where metric = 'accuracy' and repeat = 1")
        assert known() is None


def test_the_whole_set_has_no_such_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = printed(capsys, *SMALL[:-4], "--method", "whole")
    before = runs(tmp_path / "runs.db")
    assert run_cli(["evaluate", whole["run"], "--evaluator", "lrs"]) == 2
    assert "compares a synthetic set with all real images" in capsys.readouterr().err
    assert runs(tmp_path / "runs.db") == before


def test_an_evaluation_that_is_killed_goes_on_with_the_arm_and_the_network_it_was_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *DM)
    expected = printed(capsys, "evaluate", made["run"], "--evaluator", "lrs")
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for run in store.ids():
            if run != made["run"]:
                store.delete(run)
    with killed_after(3):  # the first network of the second arm
        run_cli(["evaluate", made["run"], "--evaluator", "lrs"])
    monkeypatch.setattr("dambench.runner.processes._started", lambda pid: 0)
    capsys.readouterr()
    assert run_cli(["evaluate", made["run"], "--evaluator", "lrs", "--json"]) == 0
    shown = capsys.readouterr()
    assert [score["lrs"] for score in json.loads(shown.out)["scores"]] == [s["lrs"] for s in expected["scores"]]
    assert "resumed: an arm of lrs" in " ".join(shown.err.split())
    with closing(Store.open(tmp_path / "runs.db")) as store:
        assert store.count_by_state() == {"finished": 4}
        attempts = [row["attempt"] for row in store.query("select attempt from runs where deleted_at = ''")]
    assert sorted(attempts) == [1, 1, 1, 2]
