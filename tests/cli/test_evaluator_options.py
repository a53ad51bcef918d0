"""Options of evaluators in reports: what is measured by others is told apart, and asked for again by commands."""

import json
import re

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.cli.output import table_in_blocks
from dambench.core import registry
from dambench.report.formats.latex import latex
from dambench.report.wording import figure
from dambench.store.measured import USUAL
from dambench.store.metrics import MetricRow
from tests.cli.lab import SMALL, printed


def test_what_is_measured_by_other_options_is_in_a_table_of_its_own_and_missing_rows_are_asked_for_by_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = printed(capsys, *SMALL, "--method", "dm")["run"]
    second = printed(capsys, *SMALL[:-4], "--method", "whole")["run"]
    for run, options in ((first, ["--set", "evaluator.steps=3", "--set", "evaluator.reach=[50, 60]"]), (second, [])):
        assert run_cli(["evaluate", run, "--evaluator", "time", "--eval-repeats", "1", *options]) == 0
    capsys.readouterr()
    assert run_cli(["report", "--sections", "measured"]) == 0
    parts = {part.split("\n")[0]: part for part in capsys.readouterr().out.split("## ") if part.startswith("Time")}
    (given,) = [part for title, part in parts.items() if title.endswith(", reach 50 and 60, steps 3")]
    assert "whole |" not in given
    assert (
        f"evaluate {second} --evaluator time --eval-repeats 1 --set 'evaluator.reach=[50, 60]' --set evaluator.steps=3"
        in given
    )
    (usual,) = [part for part in parts.values() if part != given]
    assert "dm |" not in usual
    for metric in ("time.train_seconds", "time.whole_seconds"):  # the whole set has no whole_seconds
        assert run_cli(["report", "--metric", metric]) == 0
        said = capsys.readouterr().out.replace("\\", "")
        assert "not run under this protocol" not in said
        assert "adds it" not in said
    assert "digits IPC 1: no time.whole_seconds of random and whole under this protocol." in said
    assert f"measured, but without time.whole_seconds: {second}" not in said  # its evaluation, not the run that made it
    assert "measured, but without time.whole_seconds: " in said
    assert run_cli(["runs"]) == 0
    said = capsys.readouterr().out
    assert f"{first}'s set (time): dm" in said, "what a run has measured is told in the list"


def test_usual_options_are_those_that_evaluators_have() -> None:
    for name, options in USUAL.items():
        assert json.loads(msgspec.json.encode(registry.load("evaluators", name).Options())) == options, name


def test_more_columns_than_a_terminal_is_wide_are_one_under_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = ["nas", "network", *(f"convnet-d{depth}-w64-leakyrelu" for depth in range(9))]
    rows = [["accuracy", "all", *range(9)]]
    monkeypatch.setenv("COLUMNS", "80")
    table_in_blocks(head, rows, 2)
    assert len(capsys.readouterr().out.splitlines()) == 3, "where it is no terminal, a row is a line"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    table_in_blocks(head, rows, 2)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines if "convnet" in line] == [["nas", "network"]] * 5
    assert sorted(int(digit) for line in lines if "accuracy" in line for digit in line.split()[2:]) == [*range(9)]


def test_counts_are_whole_and_other_numbers_have_three_places() -> None:
    metric = MetricRow("theirs", "size", "", "higher", "")
    numbers = (10.0, 26400.0, 12345.67, 1.0, -0.5, 0.0, 27.839)
    assert [figure(metric, one) for one in numbers] == ["10", "26,400", "12,346", "1.000", "-0.500", "0.000", "27.839"]


def test_two_hyphens_of_an_option_are_no_dash_in_latex() -> None:
    assert latex("dambench evaluate ID --again, 1–2") == "dambench evaluate ID -{}-again, 1--2"
    assert latex("1 \N{MINUS SIGN} cosine") == "1 $-$ cosine"
