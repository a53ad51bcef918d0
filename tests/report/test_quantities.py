"""What cells can show besides the metric, the order of rows and columns, and runs in groups."""

import csv
import io
import json
import math
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dambench.cli.app import run_cli
from dambench.core.errors import BadInput
from dambench.core.protocol import PRESETS
from dambench.report import quantities, render
from dambench.report.arrangement import Arrangement, arranged, check
from dambench.report.quantities import METRIC, QUANTITIES, TableView
from dambench.store import grouping
from dambench.store.cells import CellKey
from dambench.store.leaderboard import Leaderboard, Table, leaderboard
from dambench.store.runs import Store
from dambench.store.statistics import difference
from dambench.tui.models.compare_choices import CompareChoices, read
from dambench.tui.models.comparison import cell_text, contents
from tests import ledger

AXES = ("method",), ("dataset", "ipc")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        sets: dict[str, Sequence[Sequence[float]]] = {
            "random": [[0.30, 0.32], [0.34, 0.36], [0.39, 0.41]],
            "dm": [[0.50, 0.52], [0.54, 0.56], [0.58, 0.60]],
            "datadam": [[0.51, 0.51], [0.55, 0.55], [0.59, 0.59]],
            "dc": [[0.70, 0.70]],
        }
        for method, own in sets.items():
            ledger.add_sets(store, ledger.config(method), own)
        ledger.add(store, ledger.config("whole", None), (0.90, 0.91, 0.92))
        ledger.add_sets(store, ledger.config("dm", 10), [[0.8], [0.82]])
        yield store


def _view(store: Store, table: int = 0, **more: Any) -> TableView:
    board = leaderboard(store, *AXES, **more)
    return TableView(board, board.tables[table], *AXES)


def _at(method: str, ipc: int = 1) -> CellKey:
    return (method,), ("digits", ipc)


def _text(view: TableView, name: str, place: CellKey) -> str:
    return cell_text(QUANTITIES[name].entry(view, place))


def test_a_rank_is_among_the_methods_that_compete_and_equal_means_share_it(store: Store) -> None:
    view = _view(store)
    # dm and datadam have the same means; dc has one set, and whole is the ceiling.
    ranks = {method: _text(view, "rank", _at(method)) for method in ("random", "dm", "datadam", "dc", "whole")}
    assert ranks == {"random": "3 (of 3)", "dm": "1 (of 3)", "datadam": "1 (of 3)", "dc": "", "whole": ""}
    assert _text(view, "rank", _at("dm", 10)) == ""  # two sets


def test_where_lower_is_better_the_lowest_is_first(store: Store) -> None:
    metric = leaderboard(store).metric
    lower = msgspec.structs.replace(metric, better="lower")
    view = _view(store, metric=lower)
    assert _text(view, "rank", _at("random")) == "1 (of 3)"
    assert _text(view, "difference", _at("random")) == "best"


def test_the_difference_to_the_best_is_that_of_a_comparison(store: Store) -> None:
    view = _view(store)
    random, best = view.table.cells[_at("random")], next(iter(view.rivals[_at("random")].values()))
    assert difference(random.sample, best.sample).design == "paired"
    # By hand: by seed 20, 20 and 19 points below; 4.30265 · 0.57735 / √3.
    assert _text(view, "difference", _at("random")) == "-19.7 ± 1.4"
    assert _text(view, "difference", _at("dc")).endswith("± –")
    assert _text(view, "difference", _at("whole")) == ""


def test_sets_are_named_by_their_seeds_and_the_interval_has_its_ends(store: Store) -> None:
    view = _view(store)
    assert _text(view, "seeds", _at("dm")) == "0: 51.0, 1: 55.0, 2: 59.0"
    # By hand: 55 ± 4.30265 · 4 / √3.
    assert _text(view, "interval", _at("dm")) == "45.1 to 64.9 (3×2)"
    assert _text(view, "interval", _at("dc")) == "– (1×2)"
    assert _text(view, "interval", _at("whole")).endswith("‡ (1×3)")


def test_all_quantities_of_all_cells_are_the_same_in_compare_in_the_report_and_by_hand_from_its_csv(
    store: Store,
) -> None:
    _check_everything(leaderboard(store, *AXES), *AXES)


@pytest.mark.parametrize("axes", [AXES, pytest.param((("method", "protocol"), ("ipc",)), marks=pytest.mark.slow)])
def test_the_ledgers_numbers_agree_to_the_digit(tmp_path: Path, axes: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    copy = shutil.copy(ROOT / "runs.db", tmp_path / "copy.db")
    with closing(Store.open(Path(copy))) as store:
        board = leaderboard(store, *axes)
        assert sum(len(table.cells) for table in board.tables) > 30
        _check_everything(board, *axes)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_odd_tables_agree_to_the_digit(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    with closing(Store.open(tmp_path / "odd.db", write=True)) as store:
        for method in draw.permutation(["random", "dm", "dc", "datadam", "whole"])[:4]:
            for ipc in (None,) if method == "whole" else draw.permutation([1, 2, 10])[: 1 + draw.integers(3)].tolist():
                for run_seed in range(1 if method == "whole" else int(draw.integers(1, 5))):
                    values = draw.choice([0.0, 1.0, 0.5, math.nan, *draw.random(6)], int(draw.integers(1, 4)))
                    run = ledger.config(str(method), ipc, run_seed, PRESETS[str(draw.choice(["quick", "dc"]))])
                    ledger.add(store, run, [float(value) for value in values], made=f"{method} {draw.integers(3)}")
        _check_everything(leaderboard(store, *AXES), *AXES)


def _check_everything(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Each text of Compare's grid stands in markdown and LaTeX, and is that of the CSV's unrounded numbers."""
    shows = tuple(QUANTITIES)
    for table in board.tables:
        one = _alone(board, table, shows)
        view = TableView(one, table, rows, columns)
        grid = contents(view, shows)
        wanted = [[text or "–" for text in line] for line in grid.cells]
        whole = [line for line in render("markdown", one, rows, columns, short=True).splitlines() if line[:1] == "|"]
        body = [[_unescaped(part) for part in line.strip("|").split(" | ")] for line in whole[2:]]
        assert [line[1 : 1 + len(grid.heads)] for line in body[: len(wanted)]] == wanted
        latex = render("latex", one, rows, columns, short=True)
        for text in {text for line in wanted for text in line}:
            assert _in_latex(text) in latex
        lines = list(csv.DictReader(io.StringIO(render("csv", one, rows, columns))))
        places = [(r, c) for r in table.rows for c in table.columns if (r, c) in table.cells]
        assert len(lines) == len(places)
        for line, place in zip(lines, places, strict=True):
            at = len(shows) * table.columns.index(place[1])
            own = grid.cells[table.rows.index(place[0])][at : at + len(shows)]
            _check_by_hand(line, dict(zip(shows, own, strict=True)))


def _alone(board: Leaderboard, table: Table, shows: tuple[str, ...]) -> Leaderboard:
    return replace(board, tables=[table], shows=shows, sections=("accuracy",))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.strip().replace("**", ""))


def _in_latex(text: str) -> str:
    for sign, command in (("±", r"$\pm$"), ("–", "--"), ("×", r"$\times$"), ("%", r"\%"), ("≠", r"$\neq$")):
        text = text.replace(sign, command)
    text = text.replace("<", r"\textless{}").replace(">", r"\textgreater{}").replace("[", "{[}").replace("]", "{]}")
    return text.partition(" (")[0]


def _check_by_hand(line: dict[str, str], shown: dict[str, str]) -> None:
    """Round what the CSV has, as a reader would."""

    def percent(name: str, sign: str = "") -> str:
        return f"{100 * float(line[name]):{sign}.1f}" if line[name] else "–"

    mean = shown[METRIC].rstrip("‡¶†") if METRIC in shown else ""
    assert mean.partition(" ")[0].rstrip("‡¶†") == percent("accuracy")
    if line["low"]:
        half = 100 * (float(line["high"]) - float(line["low"])) / 2
        assert abs(float(re.split(r" ± |[‡¶† ]", mean)[1]) - half) < 0.0501
        assert shown["interval"].partition(" (")[0].rstrip("‡") == f"{percent('low')} to {percent('high')}"
    else:
        assert shown["interval"].partition(" (")[0] == "–"
    assert shown["rank"] == (f"{line['rank']} (of {line['rank_of']})" if line["rank"] else "")
    assert shown["gap"].rstrip("≠") == (percent("gap", "+") if line["gap"] else "")
    assert shown["relative"].partition(" ")[0] == (percent("relative_accuracy") if line["relative_accuracy"] else "")
    assert shown["recovered"].partition(" ")[0] == (percent("recovered_gap") if line["recovered_gap"] else "")
    assert shown["loss"].partition(" ")[0] == f"{float(line['loss']):.3f}"
    if shown["difference"] not in ("", "best"):
        assert shown["difference"].partition(" ")[0] == percent("to_best", "+")
    between, _, within = shown["spread"].partition(" (")[0].partition("; ")
    assert [between, within] == [percent("between_sets_std"), percent("within_sets_std")]
    means = [f"{100 * float(one):.1f}" if one != "nan" else "–" for one in line["means_by_seed"].split()]
    assert re.findall(r": ([\d.–]+)", shown["seeds"]) == means[: quantities.MOST_SEEDS]
    assert (shown["published"] != "") == (line["published"] != "")


def test_a_report_shows_what_is_asked_for_and_says_what_it_is(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(store.path)
    assert run_cli(["report", "--db", path, "--short", "--show", "metric,rank"]) == 0
    text = capsys.readouterr().out
    assert "digits IPC 1 mean | digits IPC 1 rank |" in re.sub(" +", " ", text)
    assert "Rank: place by the mean among the methods that compete" in text
    assert run_cli(["report", "--db", path, "--short", "--show", "rank"]) == 0
    text = capsys.readouterr().out
    assert "## Rank, protocol quick" in text
    assert "majority" not in text
    assert "confidence interval" not in text
    assert run_cli(["report", "--db", path, "--format", "json", "--show", "gap,rank"]) == 0
    cells = json.loads(capsys.readouterr().out)["tables"][0]["cells"]
    assert {cell["rank"] for cell in cells} == {None, 1, 3}
    for words, said in (
        (["--show", "rnak"], "rank"),
        (["--show", "rank,rank"], "each is named once"),
        (["--order", "worst"], "best:COLUMN"),
        (["--hide", "nobody"], "row or column"),
        (["--hide", "dm", "--hide", "d*", "--hide", "random", "--hide", "whole"], "hides all rows"),
        (["--group", "method,method"], "name each key once"),
        (["--group", "colour"], "key"),
    ):
        assert run_cli(["report", "--db", path, *words]) == 2
        assert said in capsys.readouterr().err


def test_what_is_hidden_still_counts_and_is_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report", "--db", str(store.path), "--short", "--show", "metric,rank"]) == 0
    before = capsys.readouterr().out
    words = ["report", "--db", str(store.path), "--short", "--show", "metric,rank", "--hide", "DM", "--hide", "dc"]
    assert run_cli([*words, "--first", "whole", "--order", "best:digits IPC 1"]) == 0
    after = capsys.readouterr().out

    def rows(text: str) -> dict[str, str]:
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        return {line.split("|")[1].strip(): re.sub(" +", " ", line) for line in lines}

    assert "Hidden, and still counted: dc, dm." in after
    assert list(rows(after))[2:5] == ["whole (50 epochs)", "datadam", "random"]
    for name in ("random", "datadam"):
        assert rows(after)[name] == rows(before)[name]
    verdict = next(line for line in before.splitlines() if "Verdict" in line)
    assert verdict in after


def test_rows_come_as_they_are_ordered(store: Store) -> None:
    board = leaderboard(store, *AXES)

    def order(**choice: Any) -> list[str]:
        return [str(row[0]) for row in arranged(board, *AXES, Arrangement(**choice)).tables[0].rows]

    usual = order()
    assert order(order="name") == sorted(usual)
    for name in ("best", "best:digits IPC 1"):
        own = [board.tables[0].cells[(method,), ("digits", 1)].mean for method in order(order=name)]
        assert all(one >= other for one, other in pairwise(own))
    by_ten = order(order="best:digits IPC 10")
    assert by_ten[:2] == ["whole", "dm"]  # the others have none, and stay as they were
    assert by_ten[2:] == [name for name in usual if name not in ("whole", "dm")]
    assert order(first=("dm", "dc"))[:2] == ["dm", "dc"]
    columns = arranged(board, *AXES, Arrangement(first=("digits IPC 10",))).tables[0].columns
    assert columns == [("digits", 10), ("digits", 1)]
    assert arranged(board, *AXES, Arrangement(hide=("gone",))).tables[0].rows == board.tables[0].rows
    with pytest.raises(BadInput, match="best:COLUMN"):
        check(Arrangement(order="name:x"))


def test_a_group_has_a_mean_only_where_its_runs_differ_in_the_seed_alone(store: Store) -> None:
    board = leaderboard(store, *AXES)
    known = grouping.values(store, [score.run for score in board.scores])
    (digits,) = grouping.group(board, ("dataset", "ipc", "method"), known)
    assert digits.mixed == "5 methods, 3 IPCs"
    assert digits.cell is None
    by_ipc = {group.value: group for group in digits.children}
    assert list(by_ipc) == ["1", "10", "–"]
    dm = next(group for group in by_ipc["1"].children if group.value == "dm")
    assert dm.cell is not None
    # The sets are the units, as in the table.
    cell = board.tables[0].cells[_at("dm")]
    assert (dm.cell.mean, dm.cell.interval, dm.cell.sets) == (cell.mean, cell.interval, 3)
    assert len(dm.runs) == 3


def test_settings_that_differ_are_never_pooled_in_a_group(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "lr.db", write=True)) as store:
        for rate in (0.1, 1.0):
            for seed in range(3):
                run = ledger.config("dm", seed=seed, options={"lr_images": rate})
                ledger.add(store, run, [rate / 2, rate / 3], overrides={"lr_images": rate}, made=f"{rate} {seed}")
        board = leaderboard(store, *AXES)
        known = grouping.values(store, [score.run for score in board.scores])
        assert "method.lr_images" in grouping.keys(known)
        (dm,) = grouping.group(board, ("dataset", "method.lr_images"), known)
        assert dm.cell is None
        assert dm.mixed == "2 methods"
        assert [(one.value, one.cell and one.cell.sets) for one in dm.children] == [("0.1", 3), ("1.0", 3)]
        (by_seed, *_) = grouping.group(board, ("seed", "run"), known)
        assert by_seed.cell is None
        assert all(child.cell is not None and child.cell.sets == 1 for child in by_seed.children)


def test_the_report_has_the_groups_of_the_keys_that_are_asked_for(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", "--db", str(store.path), "--group", "ipc,method"]
    assert run_cli(words) == 0
    text = re.sub(" +", " ", capsys.readouterr().out)
    assert "## Accuracy in % of runs by ipc, method" in text
    assert "| 1 | – (4 methods) | – | 10 |" in text
    assert "| 1 / dm | 55.0 ± 9.9 (3×2) | between sets" in text
    assert run_cli([*words, "--format", "csv"]) == 0
    lines = {line["group"]: line for line in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert math.isclose(float(lines["1 / dm"]["accuracy"]), 0.55)
    assert (lines["1"]["accuracy"], lines["1"]["mixed"]) == ("", "4 methods")


def test_what_is_chosen_is_kept_and_is_the_command_that_prints_the_same(store: Store) -> None:
    choices = CompareChoices(
        shows=("metric", "rank"),
        hide=("dm",),
        first=("dc",),
        order="best:digits IPC 1",
        only="-method:whole",
        heat=True,
    )
    assert read(json.loads(json.dumps(choices.kept()))) == choices
    command = choices.document({"dm", "dc", "digits IPC 1"}).command()
    assert shlex.split(command)[:2] == ["dambench", "report"]
    assert "--show metric,rank --hide dm --first dc --order 'best:digits IPC 1'" in command
    assert "--filter=-method:whole" in command
    assert choices.document({"dc"}).hide == ()
    # Runs that were picked one by one are not meant for another day; what makes no sense is forgotten.
    assert read(choices._replace(only="id=a|b").kept()).only == ""
    assert (
        read({"rows": ["ipc"], "columns": ["ipc"], "shows": ["none"], "order": "x", "only": "(", "heat": 3}).heat
        is False
    )
    assert read({"rows": 3, "format": "pdf"}) == CompareChoices()
