"""`dambench evaluate`: other networks on a set that there is."""

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from dambench import engine
from dambench.cli.app import run_cli
from dambench.core import files, registry
from dambench.core.events import Checkpointed, Stopped
from dambench.runner import processes
from dambench.store.runs import Store
from tests.cli.lab import killed_after, printed

RUN = [
    *("run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2"),
    *("--device", "cpu"),
]
DM = [*RUN, "--method", "dm", "--set", "method.batch_real=8", "--iterations", "3"]


def _scores(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(s["network"], s["repeat"], s["accuracy"], s["loss"]) for s in result["scores"]]


def test_a_set_is_evaluated_on_other_networks_as_if_its_run_had_done_so(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, *DM)
    both = printed(capsys, *DM, "--evaluate-on", "mlp,convnet-d1-w8", "--seed", "0")
    found = printed(capsys, "evaluate", made["run"], "--evaluate-on", "mlp,convnet-d1-w8", "--again")
    assert found["synthetic_sha256"] == made["synthetic_sha256"]
    assert _scores(found) == _scores(both)
    assert {s["network"] for s in found["scores"]} == {"mlp-d2-w128", "convnet-d1-w8"}
    assert (found["n"], len(found["scores"])) == (2, 4)  # two of the first network
    assert "distil" not in found["seconds"]
    assert found["method"] == "dm"


def test_the_cross_architecture_table_marks_the_source_and_tells_mean_and_drop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for method in (DM, [*RUN, "--method", "random"], [*RUN, "--method", "whole"]):
        made = printed(capsys, *method)
        if method is not RUN:
            printed(capsys, "evaluate", made["run"], "--evaluate-on", "mlp")
    capsys.readouterr()
    assert run_cli(["report", "--rows", "method", "--columns", "network", "--short"]) == 0
    head, _, *rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    titles = [title.strip() for title in head.strip("|").split("|")]
    assert titles[0] == "method"
    assert titles[-4:] == ["unseen mean", "between sets", "worst unseen", "drop"]
    dm = next(row for row in rows if row.startswith("| dm"))
    cells = [cell.strip() for cell in dm.strip("|").split("|")]
    assert [("†" in cell) for cell in cells[1:]] == [name.startswith("convnet") for name in titles[1:]]
    board = _board(capsys)
    (table,) = board["tables"]
    (transfer,) = [found for found in table["transfer"] if table["rows"][found["row"]]["method"].startswith("dm")]
    means = {
        table["columns"][cell["column"]]["network"]: cell["mean"]
        for cell in table["cells"]
        if cell["row"] == transfer["row"]
    }
    source = means.pop("convnet-d1-w4")
    assert transfer["mean"] == pytest.approx(sum(means.values()) / len(means))
    assert transfer["drop"] == pytest.approx(source - sum(means.values()) / len(means))
    # A coreset was matched on nothing.
    assert [found["drop"] for found in table["transfer"] if found is not transfer] == [None, None]


def _board(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run_cli(["report", "--rows", "method", "--columns", "network", "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_evaluation_that_is_killed_goes_on_network_by_network_and_makes_nothing_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *DM)
    expected = printed(capsys, "evaluate", made["run"], "--evaluate-on", "convnet-d1-w8,mlp")
    with killed_after(1) as words:
        run_cli(["evaluate", made["run"], "--evaluate-on", "convnet-d1-w8,mlp", "--again"])
    assert any(isinstance(event, Checkpointed) for event in words)
    with closing(Store.open(tmp_path / "runs.db")) as store:
        run = store.query("select id from runs order by number desc limit 1")[0]["id"]
    monkeypatch.setattr("dambench.runner.processes._started", lambda pid: 0)
    monkeypatch.setattr(registry.load("methods", "dm"), "distill", None)
    resumed = printed(capsys, "resume", run, "--headless")
    assert _scores(resumed) == _scores(expected)


def test_what_is_not_finished_or_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, *DM)
    for arguments, said in (
        (["zzzzzz"], "No run has the id"),
        ([made["run"], "--evaluate-on", "resnext"], "resnext"),
        ([made["run"], "--evaluate-on", "mlp,mlp"], "twice"),
        ([made["run"], "--eval-repeats", "0"], "eval_repeats"),
    ):
        capsys.readouterr()
        assert run_cli(["evaluate", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_set_that_is_not_here_or_damaged_is_said_before_anything_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *DM)
    (path,) = (files.home() / "sets").iterdir()
    content = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(
            engine, "run", lambda *given: iter([Stopped(signal="SIGTERM", phase="", iteration=0, costs=[])])
        )
        assert run_cli(["evaluate", made["run"], "--evaluate-on", "mlp"]) == 143
    with closing(Store.open(tmp_path / "runs.db")) as store:
        stopped, _ = (row.id for row in store.newest())
        before = store.query("select * from runs"), store.query("select * from events")
        for change, said in (
            (
                path.unlink,
                f"The set {path.stem[:12]} of the run {made['run']} is not on this machine; the run was made",
            ),
            (lambda: path.write_bytes(content[:-1]), "is damaged: its content is not that of its name"),
        ):
            change()
            for command in (["evaluate", made["run"], "--evaluate-on", "mlp"], ["resume", stopped, "--headless"]):
                capsys.readouterr()
                assert run_cli(command) == 2
                assert said.replace(made["run"], command[1]) in capsys.readouterr().err
        assert (store.query("select * from runs"), store.query("select * from events")) == before


def test_what_was_evaluated_already_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, *DM)
    first = printed(capsys, "evaluate", made["run"], "--evaluate-on", "mlp")
    same = printed(capsys, "evaluate", made["run"], "--evaluate-on", "MLP")
    assert same == first | {"existing": True}
    # Nothing new was asked for, and a run that would do all of it has its scores.
    assert printed(capsys, "evaluate", made["run"])["run"] == made["run"]
    assert printed(capsys, *DM, "--evaluate-on", "mlp")["run"] == first["run"]
    again = printed(capsys, "evaluate", made["run"], "--evaluate-on", "mlp", "--again")
    assert again["run"] not in (first["run"], made["run"])
    assert _scores(again) == _scores(first)


def test_more_networks_of_the_same_kind_are_more_evidence_and_the_first_are_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = printed(capsys, *DM)
    more = printed(capsys, "evaluate", made["run"], "--eval-repeats", "3")
    assert _scores(more)[:2] == _scores(made)
    (table,) = _board(capsys)["tables"]
    assert [cell["networks"] for cell in table["cells"]] == [3]


TOP_TWO = """
import torch
from dambench.core import config
from dambench.core.events import Metric
from dambench.evaluators import measure_networks
from dambench.training.train import predict

METRICS = {"top2": Metric(description="share of the test images whose class is among the two that are likeliest")}

class Options(config.Options, frozen=True):
    guesses: int = 2

def evaluate(context, options, resume=()):
    def measure(network):
        logits = predict(network, context.test_set, context.test_batch)
        hits = (logits.topk(options.guesses).indices == context.test_set.labels.unsqueeze(1)).any(1)
        return {"top2": hits.float().mean().item()}
    return measure_networks(context, measure, resume)
"""


@pytest.fixture
def top_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An evaluator of another package."""
    (tmp_path / "two_guesses.py").write_text(TOP_TWO)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("two-guesses", "two_guesses", "dambench.evaluators")
    monkeypatch.setattr(registry, "entries", lambda kind: (entry,) if kind == "evaluators" else ())
    for cached in (registry.names, registry._loaded):
        cached.cache_clear()
    yield
    for cached in (registry.names, registry._loaded):
        cached.cache_clear()


def test_what_an_evaluator_from_outside_measures_is_told_and_kept_with_what_it_means(
    top_two: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *DM)
    two = printed(capsys, "evaluate", made["run"], "--evaluator", "two-guesses")
    assert two["run"] != made["run"]
    assert two["accuracy"] is None
    for score, single in zip(two["scores"], made["scores"], strict=True):
        assert (score["network"], score["repeat"]) == (single["network"], single["repeat"])
        assert single["accuracy"] < score["top2"] <= 1
    assert printed(capsys, "evaluate", made["run"], "--evaluator", "two-guesses")["run"] == two["run"]
    with closing(Store.open(tmp_path / "runs.db")) as store:
        kept = store.query("select subject, repeat, value from measurements where metric = 'top2' order by repeat")
        (metric,) = store.query("select * from metrics where evaluator = 'two-guesses'")
    assert [row["value"] for row in kept] == [score["top2"] for score in two["scores"]]
    assert metric["description"].startswith("share of the test images")
    three = printed(capsys, "evaluate", made["run"], "--evaluator", "two-guesses", "--set", "evaluator.guesses=3")
    assert three["run"] != two["run"]
    assert [score["top2"] for score in three["scores"]] > [score["top2"] for score in two["scores"]]
    capsys.readouterr()
    assert run_cli(["report", "--metric", "top2", "--format", "json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [cell["networks"] for cell in table["cells"]] == [2, 2], "never in one mean"
    capsys.readouterr()
    for wrong, said in (
        (["--evaluator", "three-guesses"], "two-guesses"),
        (["--evaluator", "two-guesses", "--set", "evaluator.guess=3"], "guesses"),
        (["--set", "method.iterations=3"], "not of the form evaluator.NAME=VALUE"),
    ):
        assert run_cli(["evaluate", made["run"], *wrong]) == 2
        assert said in capsys.readouterr().err


def test_an_evaluator_from_outside_goes_on_with_the_networks_that_are_left(
    top_two: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *DM)
    expected = printed(capsys, "evaluate", made["run"], "--evaluator", "two-guesses")
    with killed_after(1):
        run_cli(["evaluate", made["run"], "--evaluator", "two-guesses", "--again"])
    with closing(Store.open(tmp_path / "runs.db")) as store:
        run = store.query("select id from runs order by number desc limit 1")[0]["id"]
    monkeypatch.setattr("dambench.runner.processes._started", lambda pid: 0)
    resumed = printed(capsys, "resume", run, "--headless")
    assert [score["top2"] for score in resumed["scores"]] == [score["top2"] for score in expected["scores"]]


def test_in_the_background_a_run_that_only_comes_before_is_said_to_be_that(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *DM)["run"]
    evaluation = printed(capsys, "evaluate", made, "--evaluate-on", "mlp")["run"]
    monkeypatch.setattr(processes, "start", lambda words, say: (made, 0))  # an arm of another set
    assert printed(capsys, "evaluate", made, "--detach") == {
        "run": made,
        "existing": True,
        "comes_before": "evaluation",
    }
    monkeypatch.setattr(processes, "start", lambda words, say: (evaluation, 0))
    assert printed(capsys, "evaluate", made, "--detach") == {"run": evaluation, "existing": True}
