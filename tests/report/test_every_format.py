import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.report.formats.csv import text
from dambench.report.formats.latex import latex
from dambench.store.runs import Store
from tests.ledger import add, add_sets, config

LOW, HIGH = [0.60, 0.61, 0.62, 0.60, 0.61], [0.90, 0.91, 0.92, 0.90, 0.91]
LOW_SETS, HIGH_SETS = [[0.60, 0.62], [0.63, 0.65], [0.59, 0.57]], [[0.90, 0.92], [0.94, 0.92], [0.89, 0.89]]
"""Means 61, 64, 58 and 91, 93, 89: ± 2.4841 · 3 and 2, in percent."""


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Store]:
    """`dm` is better than `random` at IPC 1; at IPC 10 there is `dm` alone, with one set."""
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add_sets(store, config("random", ipc=1), LOW_SETS)
        add_sets(store, config("dm", ipc=1), HIGH_SETS, recipe="the paper")
        add(store, config("dm", ipc=10), HIGH, recipe="the paper")
        add(store, config("whole"), [0.99] * 5)
        yield store


def _report(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(["report", *arguments]) == 0
    return capsys.readouterr().out


def test_latex_is_a_booktabs_tabular(capsys: pytest.CaptureFixture[str]) -> None:
    printed = _report(capsys, "--format", "latex")
    assert (
        r"""
  \begin{tabular}{lrr}
    \toprule
    method & digits IPC 1 & digits IPC 10 \\
    \midrule
    random & 61.0 $\pm$ 7.5 (3$\times$2) & -- \\
    dm & \textbf{91.0 $\pm$ 5.0} (3$\times$2) & 90.8 $\pm$ -- (1$\times$5) \\
    whole (50 epochs) & 99.0 $\pm$ 0.0‡ (1$\times$5) & 99.0 $\pm$ 0.0‡ (1$\times$5) \\
    majority class & 60.0 & 60.0 \\
    \bottomrule
  \end{tabular}
"""
        in printed
    )
    assert r"\caption{Accuracy in \%, protocol quick\#3528, trained network convnet-d1-w8;" in printed
    assert r"{\footnotesize IPC 10" not in printed
    assert "random not run under this protocol yet." in printed
    assert r"\item Settings of dm on digits: the paper." in printed


def test_latex_of_commands_is_their_letters() -> None:
    assert latex("\\input{x}") == r"\textbackslash{}input\{x\}"
    assert latex("50% & a_b^c~$1 #2") == r"50\% \& a\_b\textasciicircum{}c\textasciitilde{}\$1 \#2"
    assert latex("[2cm]*") == "{[}2cm{]}{*}"


def test_csv_has_fractions_without_rounding(capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(csv.DictReader(io.StringIO(_report(capsys, "--format", "csv"))))
    assert [(line["method"], line["dataset"], line["ipc"]) for line in lines] == [
        *(("random", "digits", "1"), ("dm", "digits", "1"), ("dm", "digits", "10")),
        *(("whole", "digits", "1"), ("whole", "digits", "10")),
    ]
    assert float(lines[2]["accuracy"]) == sum(HIGH) / 5
    assert [lines[2][key] for key in ("low", "high", "std_between_sets", "best")] == ["", "", "", "0"]
    assert float(lines[2]["std_within_set"]) == pytest.approx(0.0083666, rel=1e-4)
    assert [float(lines[1][key]) for key in ("low", "high")] == pytest.approx([0.91 - 0.049683, 0.91 + 0.049683])
    # By hand: within (0.0002 + 0.0002 + 0) / 3, means' variance 0.0004 less half of that.
    assert float(lines[1]["std_within_set"]) == pytest.approx((0.0004 / 3) ** 0.5)
    assert float(lines[1]["std_between_sets"]) == pytest.approx((0.0004 - 0.0002 / 3) ** 0.5)
    assert [lines[1][key] for key in ("sets", "networks", "unit", "best")] == ["3", "6", "set", "1"]
    assert [lines[3][key] for key in ("sets", "networks", "unit", "best")] == ["1", "5", "network", "0"]
    assert lines[1]["protocol"] == f"quick#{lines[1]['protocol_sha256'][:4]}"
    assert lines[1]["network"] == "convnet-d1-w8"
    assert float(lines[1]["majority"]) == 0.6


@pytest.mark.parametrize("name", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "＝1"])
def test_a_name_that_a_spreadsheet_would_calculate_is_a_text(name: str) -> None:
    assert text(name).startswith("'")
    assert text(f"a{name}")[0] == "a"


def test_a_single_network_has_no_spread(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store, config("dm", ipc=7), [0.5])
    lines = csv.DictReader(io.StringIO(_report(capsys, "--format", "csv")))
    (line,) = (line for line in lines if (line["method"], line["ipc"]) == ("dm", "7"))
    assert (line["std_within_set"], line["networks"]) == ("", "1")
    board = json.loads(_report(capsys, "--format", "json"))
    assert None in [cell["std_within_set"] for table in board["tables"] for cell in table["cells"]]


def test_json_holds_what_the_tables_print(capsys: pytest.CaptureFixture[str]) -> None:
    board = json.loads(_report(capsys, "--format", "json"))
    (table,) = board["tables"]
    assert table["fixed"] == {"network": "convnet-d1-w8", "protocol": "quick#3528"}
    assert table["rows"] == [{"method": name} for name in ("random", "dm", "whole")]
    assert table["columns"] == [{"dataset": "digits", "ipc": ipc, "majority": 0.6} for ipc in (1, 10)]
    (best,) = (cell for cell in table["cells"] if cell["best"])
    assert (table["rows"][best["row"]]["method"], best["column"], best["sets"], best["networks"]) == ("dm", 0, 3, 6)
    scores = sorted((score["seed"], score["repeat"], score["accuracy"]) for score in best["scores"])
    assert scores == [(seed, k, value) for seed, both in enumerate(HIGH_SETS) for k, value in enumerate(both)]
    assert best["interval"] == pytest.approx([0.91 - 0.049683, 0.91 + 0.049683])
    assert (best["unit"], best["seeds"], best["claim"], best["bootstrap"]) == ("set", [0, 1, 2], "", None)
    claims = {cell["claim"] for cell in table["cells"]}
    assert claims == {"", "1 set: no claim about the method", "this set only: its networks are the unit"}
    assert board["protocols"][0]["label"] == "quick#3528"
    assert board["recipes"] == {"the paper": ["dm on digits"]}
    assert board["finished"] == 8


def test_html_is_a_page_with_the_same_cells(capsys: pytest.CaptureFixture[str]) -> None:
    printed = _report(capsys, "--format", "html")
    assert printed.startswith("<!doctype html>")
    assert "<tr><td>dm</td><td><strong>91.0 ± 5.0</strong> <small>(3×2)</small></td>" in printed
    assert "<td>random</td><td>61.0 ± 7.5 <small>(3×2)</small></td><td>–</td>" in printed
    assert "<h2>What it took</h2>" in printed
    assert "<h2>What it took</h2>" not in _report(capsys, "--format", "html", "--short")
    assert "<script" not in printed


def test_protocols_are_never_in_one_table(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from dambench.core.protocol import PRESETS

    add(store, config("dm", protocol=PRESETS["dc"]), LOW)
    assert _report(capsys, "--format", "latex", "--short").count(r"\begin{tabular}") == 2
    assert _report(capsys, "--format", "html", "--short").count("<table>") == 2
    assert len(json.loads(_report(capsys, "--format", "json"))["tables"]) == 2
    lines = list(csv.DictReader(io.StringIO(_report(capsys, "--format", "csv"))))
    assert len({line["protocol_sha256"] for line in lines}) == 2


@pytest.mark.parametrize("form", registry.names("formats"))
def test_the_same_database_gives_the_same_bytes_in_a_file_and_on_stdout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    printed = _report(capsys, "--format", form)
    assert _report(capsys, "--format", form, "-o", "report") == ""
    assert (tmp_path / "report").read_text() == printed


@pytest.mark.parametrize("form", registry.names("formats"))
def test_every_format_says_by_which_filter_its_runs_were_chosen(capsys: pytest.CaptureFixture[str], form: str) -> None:
    printed = _report(capsys, "--format", form, "--filter", "method:dm|random")
    assert "method:dm|random" in printed.replace("\\", "").replace("textbar{}", "|")
    if form == "latex":
        assert r"\caption{Accuracy" in printed.partition("only runs meant by method:dm")[0].splitlines()[-1]
    if form == "json":
        assert json.loads(printed)["filter"] == "method:dm|random"
    if form == "csv":
        assert {line["filter"] for line in csv.DictReader(io.StringIO(printed))} == {"method:dm|random"}


@pytest.mark.parametrize("chosen", ["accuracy>50", "method:dm -accuracy<50%", "method:dm | ACCURACY>=1"])
def test_a_report_is_not_chosen_by_what_it_compares(capsys: pytest.CaptureFixture[str], chosen: str) -> None:
    assert run_cli(["report", "--filter", chosen]) == 2
    assert "would choose runs by the test set" in capsys.readouterr().err
    assert run_cli(["runs", "--filter", chosen]) == 0


@pytest.mark.parametrize("form", registry.names("formats"))
def test_a_copy_of_the_database_gives_the_same_bytes(
    store: Store, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    store.db.conn.execute("vacuum into 'copy.db'")
    assert _report(capsys, "--format", form, "--db", "copy.db") == _report(capsys, "--format", form)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.md", "markdown"),
        ("a.tex", "latex"),
        ("a.CSV", "csv"),
        ("a.html", "html"),
        ("a.json", "json"),
        ("a", "markdown"),
    ],
)
def test_the_suffix_says_the_format(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, form: str) -> None:
    _report(capsys, "-o", name)
    assert (tmp_path / name).read_text() == _report(capsys, "--format", form)


@pytest.mark.parametrize("name", ["fig.pdf", "a.mdx", "a.v2"])
def test_a_suffix_of_something_else_is_refused_unless_the_format_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    assert run_cli(["report", "-o", name]) == 2
    assert "a report has the suffix .md or .markdown or .csv or" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
    _report(capsys, "-o", name, "--format", "CSV")
    assert (tmp_path / name).read_text() == _report(capsys, "--format", "csv")
    assert run_cli(["report", "-o", "a.tex", "--format", "csv"]) == 2
    assert "a report in csv has the suffix .csv, not .tex" in capsys.readouterr().err
    assert not (tmp_path / "a.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "xls"], "No format is called 'xls'. Known: csv, html, json, latex, markdown."),
        (["--format", "latx"], "Did you mean 'latex'?"),
        (["--format", "csv", "--short"], "--short is for html, latex, markdown"),
        (["--format", "csv", "--db", "none.db"], "There is no database 'none.db' yet"),
    ],
)
def test_what_cannot_be_printed_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run_cli(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("form", registry.names("formats"))
def test_without_finished_runs_every_format_is_still_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    Store.open(tmp_path / "empty.db", write=True).close()
    printed = _report(capsys, "--format", form, "--db", "empty.db")
    readers: dict[str, Any] = {"json": json.loads, "csv": lambda t: list(csv.reader(io.StringIO(t)))}
    if form in readers:
        assert readers[form](printed)
    else:
        assert "No finished runs yet" in printed


@pytest.mark.parametrize("form", [name for name in registry.names("formats") if registry.load("formats", name).SHORT])
def test_what_a_sign_says_stands_where_the_sign_does_also_in_a_short_report(
    store: Store, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    for method, sets in (("random", LOW_SETS), ("dm", HIGH_SETS)):
        for seed, accuracies in enumerate(sets):
            run = msgspec.structs.replace(config(method, seed=seed), evaluate_on=("resnet18",))
            add(store, run, accuracies, made=f"{method} {seed}")
    for short in ([], ["--short"]):
        printed = _report(capsys, "--format", form, "--columns", "network", *short)
        for sign, sentence in {
            "†": "on the network that the set was matched on",
            "(3×2)": "s sets, made with different seeds",
            "91.0": "the highest mean, and every row in the same place that is not told from it",
            "drop": "how many points the accuracy on the network matched on",
            "(1×5)": "no claim about the method",
            "‡": "this set only",
        }.items():
            assert printed.count(sign.replace("×", r"$\times$") if form == "latex" else sign)
            assert sentence in printed, sign
