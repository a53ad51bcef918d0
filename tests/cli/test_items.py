"""Items of an evaluation: said before it begins, measured once, gone on with after an interruption."""

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from dambench import engine
from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.events import Stopped
from dambench.store.leaderboard import leaderboard
from dambench.store.metrics import metrics
from dambench.store.runs import Store
from dambench.tui.models.comparison import about
from dambench.tui.models.live_panes import accuracy_lines
from dambench.tui.models.run_reader import RunReader, RunSnapshot
from tests.cli.lab import DM, SMALL, killed_after, printed

RUN = ["run", "--headless", "--dataset", "digits", "--method", "random", "--eval-repeats", "1", "--device", "cpu"]

COUNTED = """
from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.events import Measured, Metric, Progressed, Warned
from dambench.evaluators import Item

METRICS = {"half": Metric(description="the number of the repeat, halved", unit="")}
CALLS = []

class Options(config.Options, frozen=True):
    deep: int = 2
    refuse: bool = False

def metrics_of(options):
    return {f"depth_{options.deep}": Metric(description="a figure of all items before", unit="")}

def items(context, options):
    if options.refuse:
        raise BadInput("Nothing of the kind can be counted here.")
    each = [Item(name, r, "plain", 2.0) for name in context.networks for r in range(context.repeats)]
    return [*each, Item("all", 0, "sum", 1.0, summary=True)]

def evaluate(context, options, resume=()):
    wanted = items(context, options)
    values = {key: dict(known) for key, known in context.known.items()}
    for at, item in enumerate(wanted):
        if (item.subject, item.repeat) in resume:
            continue
        CALLS.append((item.subject, item.repeat, context.dry_run))
        yield Progressed(phase="evaluate", done=at, total=len(wanted))
        if item.summary and not values:
            yield Warned(message="Nothing was measured of it.")
        found = {"half": item.repeat / 2} if item.subject != "all" else {
            f"depth_{options.deep}": sum(float(one["half"]) for one in values.values())}
        values[item.subject, item.repeat] = found
        yield Measured(
            evaluator=context.evaluator, subject=item.subject, repeat=item.repeat, iteration=context.iteration,
            final=context.final, set_sha256=context.set_sha256, protocol_sha256=context.protocol.sha256,
            seconds=1.0, peak_memory_bytes=5, values=found)
"""


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, bool]]]:
    """What an evaluator of another package was asked to measure."""
    (tmp_path / "counted_items.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "counted_items", raising=False)
    entry = EntryPoint("counted", "counted_items", "dambench.evaluators")
    monkeypatch.setattr(registry, "entries", lambda kind: (entry,) if kind == "evaluators" else ())
    for cached in (registry.names, registry._loaded):
        cached.cache_clear()
    yield registry.load("evaluators", "counted").module.CALLS
    for cached in (registry.names, registry._loaded):
        cached.cache_clear()


def evaluate(run: str, *words: str) -> list[str]:
    return ["evaluate", run, "--evaluator", "counted", *words]


def everything(path: Path) -> list[tuple[Any, ...]]:
    with closing(Store.open(path)) as store:
        tables = ("runs", "events", "evaluations", "measurements", "artifacts", "costs")
        return [tuple(store.query(f"select * from {table}")) for table in tables]


def test_a_dry_run_says_items_time_and_memory_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: list[Any]
) -> None:
    made = printed(capsys, *DM)
    before = everything(tmp_path / "runs.db")
    found = printed(capsys, *evaluate(made["run"], "--dry-run"))
    assert (found["items"], found["known"], found["kinds"]) == (3, 0, {"plain": 2, "sum": 1})
    assert found["seconds"] == pytest.approx(sum(found["item_seconds"][k] * n for k, n in found["kinds"].items()))
    assert found["peak_memory_bytes"] > 0
    assert found["notes"] == [], "a summary of items that were not measured has nothing to say"
    assert found["total_seconds"] >= found["seconds"] > 0
    assert calls == [("convnet-d1-w4", 0, True), ("all", 0, True)], "one of each kind"
    assert run_cli(evaluate(made["run"], "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "plain" in said
    assert "peak memory" in said
    assert everything(tmp_path / "runs.db") == before


def test_what_cannot_be_is_refused_before_anything_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: list[Any]
) -> None:
    made = printed(capsys, *DM)
    before = everything(tmp_path / "runs.db")
    for more in (["--dry-run"], []):
        assert run_cli(evaluate(made["run"], "--set", "evaluator.refuse=true", *more)) == 2
        assert "Nothing of the kind can be counted here." in capsys.readouterr().err
    assert run_cli(evaluate(made["run"], "--dry-run", "--detach")) == 2
    assert everything(tmp_path / "runs.db") == before
    assert calls == []


@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_killed_evaluation_goes_on_with_the_items_that_are_left_and_knows_the_others(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    calls: list[Any],
) -> None:
    made = printed(capsys, *DM)
    with killed_after(2):
        run_cli(evaluate(made["run"]))
    with closing(Store.open(tmp_path / "runs.db")) as store:
        run = store.newest()[0].id
    calls.clear()
    monkeypatch.setattr("dambench.runner.processes._started", lambda pid: 0)
    words = evaluate(made["run"]) if command == "evaluate" else ["resume", run, "--headless"]
    resumed = printed(capsys, *words)
    assert resumed["run"] == run
    assert [call for call in calls if not call[2]] == [("all", 0, False)]
    assert [(score["network"], score["repeat"]) for score in resumed["scores"]] == [
        *[("convnet-d1-w4", 0), ("convnet-d1-w4", 1), ("all", 0)]
    ]
    assert resumed["scores"][-1]["depth_2"] == 0.5, "of what was measured before the kill"


def test_items_that_another_run_has_measured_in_the_same_way_are_taken_over_and_that_is_said(
    capsys: pytest.CaptureFixture[str], calls: list[Any]
) -> None:
    made = printed(capsys, *DM)
    first = printed(capsys, *evaluate(made["run"]))
    calls.clear()
    more = printed(capsys, *evaluate(made["run"], "--eval-repeats", "3"))
    assert more["run"] != first["run"]
    assert [call for call in calls if not call[2]] == [("convnet-d1-w4", 2, False), ("all", 0, False)]
    assert [score.get("depth_2") for score in more["scores"]] == [None, None, None, 1.5], "of all three"
    (said,) = [text for text in more["warnings"] if "taken over" in text]
    assert said.startswith(f"2 of 4 items were measured before in the same way, by the run {first['run']}")
    for other in (["--set", "evaluator.deep=3"], ["--again"]):
        calls.clear()
        printed(capsys, *evaluate(made["run"], *other))
        assert len([call for call in calls if not call[2]]) == 3, other


def test_how_long_it_takes_is_said_before_it_begins_from_runs_of_the_past_where_there_are_some(
    capsys: pytest.CaptureFixture[str], calls: list[Any]
) -> None:
    made, other = printed(capsys, *DM), printed(capsys, *DM, "--seed", "1")
    capsys.readouterr()
    assert run_cli(evaluate(made["run"])) == 0
    assert "counted measures 3 items: about" in capsys.readouterr().err
    calls.clear()
    assert run_cli(evaluate(other["run"])) == 0
    assert "counted measures 3 items: about 3 s" in capsys.readouterr().err, "each took a second, it said"
    assert not any(dry for _, _, dry in calls)


def test_a_report_has_a_section_of_it_drawn_from_its_metrics_with_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [printed(capsys, *DM, "--seed", str(seed))["run"] for seed in range(3)]
    random = printed(capsys, *SMALL[:-4], "--method", "random")["run"]
    for run in runs[:2]:
        printed(capsys, *evaluate(run))
    sections = ["report", "--sections", "measured"]
    capsys.readouterr()
    assert run_cli([*sections, "--format", "json"]) == 0
    lines = json.loads(capsys.readouterr().out)["measured"]
    (half,) = [line for line in lines if line["metric"] == "half"]
    assert (half["mean"], half["sets"], half["networks"], half["subject"]) == (0.25, 2, 4, "convnet-d1-w4")
    assert [line["subject"] for line in lines] == ["all", "convnet-d1-w4"]
    assert half["runs"].split() != runs[:2], "the runs that measured it"
    assert run_cli(sections) == 0
    said = capsys.readouterr().out
    assert "## Counted: digits IPC 1" in said
    assert "| Half" in said
    assert "0.250" in said
    assert "Fewer than 3 sets make no claim: dm" in said
    assert "Whole is missing: there is no such run" in said
    assert f"dambench evaluate {runs[2]} --evaluator counted" in said
    assert f"dambench evaluate {random} --evaluator counted" in said
    for form in ("html", "latex", "csv"):
        assert run_cli([*sections, "--format", form]) == 0
        found = capsys.readouterr().out
        assert "counted" in found.lower()
        assert "0.25" in found
    assert run_cli(["report"]) == 0
    assert "## Counted" in capsys.readouterr().out, "a report has it unless others are asked for"


def test_the_console_and_show_have_its_figures_in_a_place_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *DM)
    run = printed(capsys, *evaluate(made["run"]))["run"]
    with closing(Store.open(tmp_path / "runs.db")) as store:
        snapshot = RunReader(run).read(store)
        assert isinstance(snapshot, RunSnapshot)
        lines = [str(line) for line in accuracy_lines(snapshot, 60, ascii=False)]
        assert [line.split() for line in lines] == [
            ["all"],
            *[["Depth", "2", "0.500", "1"], ["convnet-d1-w4"], ["Half", "0.250", "±", "0.354", "2"]],
        ]
        metric = next(one for one in metrics(store) if one.name == "half")
        board = leaderboard(store, ("method",), ("network",), metric=metric)
        (table,) = board.tables
        said = about(board, table, ("method",), ("network",), (table.rows[0], ("convnet-d1-w4",)), metrics(store))
        assert said[0].startswith("dm (")
        assert "0.250 ± –" in said[0]
    assert run_cli(["show", run]) == 0
    shown = capsys.readouterr().out
    assert "counted" in shown
    assert "Depth 2" in shown


def test_a_screen_of_an_evaluation_that_has_measured_nothing_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *DM)
    with monkeypatch.context() as patched:
        patched.setattr(
            engine, "run", lambda *given: iter([Stopped(signal="SIGTERM", phase="", iteration=0, costs=[])])
        )
        assert run_cli(evaluate(made["run"])) == 143
    with closing(Store.open(tmp_path / "runs.db")) as store:
        snapshot = RunReader(store.newest()[0].id).read(store)
        assert isinstance(snapshot, RunSnapshot)
        assert [str(line) for line in accuracy_lines(snapshot, 60, ascii=True)] == ["Nothing is measured yet."]
