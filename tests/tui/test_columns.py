"""Columns, widths and sparklines, without a terminal."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dambench.core.units import age, countdown
from dambench.store.rows import ListedRun
from dambench.store.statistics import Estimate
from dambench.tui.models import columns
from dambench.tui.models.columns import (
    COLUMNS,
    MIDDLE,
    NARROW,
    WIDE,
    cell,
    heads,
    layout,
    percent,
    plain,
    spark,
)
from tests.tui.screen import stop_clock


def row(**more: Any) -> ListedRun:
    known: dict[str, Any] = {
        "number": 1, "uid": "", "state": "finished", "boot": "", "pid": 0, "process_started": 0, "log": "",
        "attempt": 1, "error": "", "diverged_at": None, "config_sha256": "", "checkpoint": None,
        "id": "ab2cde", "stands": "finished", "name": "", "method": "dm", "overrides": "{}", "dataset": "cifar10",
        "ipc": 10, "network": "convnet-d3-w128", "protocol": "fair#8c1e", "seed": 0, "loss": 0.4123, "phase": "",
        "accuracy": Estimate(0.5391, 0.0031, 5), "iteration": 20000, "iterations": 20000, "rate": 11.23, "done": 5,
        "total": 5, "peak": 38_100_000_000, "seconds": 4321.0, "created_at": "2026-11-01T09:00:00.000+00:00",
        "ended_at": "2026-11-01T11:48:00.000+00:00", "beat_at": "2026-11-01T11:59:30.000+00:00", "tags": [],
        "note": "", "host": "gpu07", "evaluates": "",
    }  # fmt: skip
    return ListedRun(**known | more)


def said(name: str, **more: Any) -> str:
    return COLUMNS[name].value(row(**more))


def test_a_column_says_what_is_known_and_a_dash_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch)
    assert said("accuracy") == "53.9 ± 0.3 (5)"
    assert said("accuracy", accuracy=Estimate(0.5, None, 1)) == "50.0 (1)"
    assert said("accuracy", accuracy=None) == said("ipc", ipc=None) == said("step", iteration=None) == "–"
    assert said("method", overrides='{"lr_images": 0.1}') == "dm (lr_images 0.1)"
    assert (said("loss"), said("loss", loss="nan"), said("loss", loss=None)) == ("0.412", "nan", "–")
    assert said("of") == "20000/20000"
    assert (said("peak"), said("peak", peak=None), said("peak", peak=5_000_000)) == ("38.1 GB", "–", "5 MB")
    assert (said("took"), said("took", seconds=9.87)) == ("1:12:01", "9.9 s")
    assert said("begun") == "2026-11-01 09:00"


def test_the_last_column_says_what_is_left_or_how_long_ago_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch)
    assert said("age") == "12 min ago"
    assert said("age", stands="lost") == "beat 30 s"
    assert said("age", stands="waiting") == "–"
    assert said("age", stands="running", phase="distil", done=1000, total=3000, rate=2.0) == "0:16:40"
    assert said("age", stands="running", phase="evaluate") == "evaluate"
    assert said("age", stands="running", phase="distil", rate=None) == "distil"
    assert said("age", stands="failed", ended_at="2026-11-01T13:00:00.000+00:00") == "0 s ago"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (4.9, "0 s"),
        (59.9, "55 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (86400, "1 d"),
        (13 * 86400, "13 d"),
        (14 * 86400, "2 w"),
    ],
)
def test_past_times_are_short(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_what_is_left_has_seconds() -> None:
    assert [countdown(s) for s in (0, 59.6, 2470, 90061)] == ["0:00:00", "0:01:00", "0:41:10", "1 d 1:01:01"]


@pytest.mark.parametrize(("names", "room"), [(NARROW, 78), (MIDDLE, 98), (WIDE, 138), (WIDE, 158)])
def test_the_usual_columns_fit_and_keep_what_cannot_be_cut(names: list[str], room: int) -> None:
    long = row(method="datadam", overrides='{"lr_images": 0.1, "iterations": 20000}', dataset="tinyimagenet-64")
    found = dict(layout(heads(names, "age", down=True), [long], room)[0])
    assert sum(found.values()) + len(found) - 1 <= room
    for name in ("run", "state", "ipc", "seed", "accuracy", "age"):
        assert found[name] >= cell_len(COLUMNS[name].value(long))
    assert set(NARROW) <= {*found, "step"}


@given(st.integers(0, 200), st.lists(st.sampled_from(sorted(COLUMNS)), unique=True))
def test_no_choice_of_columns_is_wider_than_the_terminal(room: int, names: list[str]) -> None:
    rows = [row(), row(method="m" * 90, tags=["long tag"] * 9, note="a note", name="a name")]
    found, left_out = layout(heads(names, "accuracy", down=True), rows, room, chosen=True)
    assert left_out == len(names) - len(found)
    assert sum(width + 1 for _, width in found) - 1 <= room or not found
    assert [name for name, _ in found] == [name for name in names if name in dict(found)]


def test_the_column_that_runs_are_sorted_by_has_an_arrow_but_newest_first_has_none() -> None:
    assert heads(["accuracy"], "accuracy", down=True) == {"accuracy": "ACC ± STD (N)↓"}
    assert heads(["of"], "step", down=False, ascii_only=True) == {"of": "STEP/OF^"}
    assert heads(["age"], "age", down=True) == {"age": "LEFT/AGE"}


@given(st.text(max_size=30), st.integers(1, 20), st.booleans())
def test_a_cell_is_exactly_as_wide_as_it_should_be(text: str, width: int, right: bool) -> None:
    assert cell_len(cell(text, width, right=right)) == width


def test_what_is_cut_ends_in_an_ellipsis() -> None:
    assert cell("datadam", 4) == "dat…"
    assert cell("datadam", 4, ascii_only=True) == "dat~"
    assert cell("7", 3, right=True) == "  7"


def test_sparklines_go_from_low_to_high_and_a_number_that_is_none_is_said() -> None:
    assert spark([1.0, 2.0, 3.0], 10) == "▁▅█"
    assert spark([8.0, 4.0, 2.0, 1.0], 10, log=True) == "█▆▃▁"
    assert spark([1.0, None, math.nan, 3.0], 10, ascii_only=True) == "_!!@"
    assert spark([1e308, -1e308, 0.0], 10) == "█▁▅"
    assert spark([5e-323, 0.0], 10) == "▁▁"
    spike = [1.0] * 100
    spike[55], spike[77] = 9.0, math.inf
    assert spark(spike, 10) == "▁▁▁▁▁█▁!▁▁"
    assert spark([2.0, 2.0], 10) == "▁▁"
    assert spark([], 10) == ""
    assert len(spark([float(x) for x in range(100)], 10)) == 10
    assert spark([float(x) for x in range(100)], 10)[-1] == "█"


def test_bars_fill_lines_from_below() -> None:
    assert columns.bars([0.0, 1.0, None, 2.0], 10, 2) == [" ▁!█", "▁█!█"]
    assert columns.bars([], 10, 3) == ["", "", ""]


def test_everything_can_be_said_in_ascii() -> None:
    assert plain("53.9 ± 0.3 · é –") == "53.9 +- 0.3 | ? -"
    assert all(plain(percent(e)).isascii() for e in (None, Estimate(0.5, 0.1, 3)))


def test_marked_runs_as_markdown_escape_what_is_markup() -> None:
    assert "a\\|b" in columns.markdown_table(["name"], [row(name="a|b")])
