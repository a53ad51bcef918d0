import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.store.runs import Store
from tests.ledger import add, config

LOW, HIGH = [0.60, 0.61, 0.62, 0.60, 0.61], [0.90, 0.91, 0.92, 0.90, 0.91]
PRINTED = ("markdown", "html", "latex")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add(store, config("random"), LOW)
        add(store, config("dm"), HIGH, recipe="the paper")
        add(store, config("whole"), [0.99] * 5)
        yield store


def _report(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(["report", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("form", PRINTED)
def test_a_report_has_the_sections_that_are_asked_for(capsys: pytest.CaptureFixture[str], form: str) -> None:
    both = _report(capsys, "--format", form)
    assert "What it took" in both
    assert "90.8" in both
    cost = _report(capsys, "--format", form, "--sections", "COST")
    assert "What it took" in cost
    assert "90.8" not in cost


def test_json_has_every_section_unless_some_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"tables", "costs"} <= json.loads(_report(capsys, "--format", "json")).keys()
    cost = json.loads(_report(capsys, "--format", "json", "--sections", "cost"))
    assert "tables" not in cost
    assert {line["method"] for line in cost["costs"]} == {"random", "dm", "whole"}


def test_csv_has_one_section(capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(csv.DictReader(io.StringIO(_report(capsys, "--format", "csv", "--sections", "cost"))))
    assert {(line["method"], line["device"], line["runs"]) for line in lines} == {
        (method, "a CPU, 2 threads", "1") for method in ("random", "dm", "whole")
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sections", "costs"], "No section is called 'costs'. Did you mean 'cost'?"),
        (["--sections", "cost,cost"], "each is named once, of accuracy,"),
        (["--sections", ","], "each is named once, of accuracy,"),
        (["--sections", "cost", "--short"], "--short is the tables of accuracy, and --sections asks for cost"),
        (["--sections", "all", "--format", "csv"], "and csv is one table: ask for one of accuracy,"),
    ],
)
def test_sections_that_cannot_be_had_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert run_cli(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""


def test_each_cell_has_the_runs_that_it_is_made_of(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    ids = sorted([*(row["id"] for row in store.query("select id from runs where method = 'dm'"))])
    ids = sorted([*ids, add(store, config("dm", seed=1), HIGH)])
    lines = csv.DictReader(io.StringIO(_report(capsys, "--format", "csv")))
    assert {line["method"]: line["runs"] for line in lines}["dm"] == " ".join(ids)
    (table,) = json.loads(_report(capsys, "--format", "json"))["tables"]
    assert ids in [cell["runs"] for cell in table["cells"]]


@pytest.mark.parametrize("form", registry.names("formats"))
def test_all_sections_twice_are_the_same_bytes(capsys: pytest.CaptureFixture[str], form: str) -> None:
    which = ["--sections", "cost" if form == "csv" else "all", "--format", form]
    assert _report(capsys, *which) == _report(capsys, *which)
