import math
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dambench.tui.models.chart import MARGIN, ChartLook, Series, bar, exact, legend, lines, short, spark

FINITE = st.floats(-1e6, 1e6)


def _series(y: list[float], name: str = "matching", apart: float = math.inf) -> Series:
    return Series(name, np.arange(len(y), dtype=np.float64), np.array(y), apart)


def _dots(drawn: list[str], width: int) -> list[list[bool]]:
    """Which dots of a braille chart are there, by row and column: four rows and two columns to a character."""
    bits = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]]
    rows = []
    for line in drawn[:-1]:
        cells = line[MARGIN : width - 1].ljust(width - 1 - MARGIN)
        codes = [ord(cell) - 0x2800 if cell >= "\u2800" else 0 for cell in cells]
        rows += [[bool(code & bit[side]) for code in codes for side in (0, 1)] for bit in bits]
    return rows


def _plain(series: list[Series], width: int, height: int, *, log: bool = False, steady: bool = False) -> list[str]:
    return [line.plain for line in lines(series, width, height, log=log, steady=steady)]


@given(st.lists(FINITE, min_size=2, max_size=60))
def test_every_point_has_its_dot(y: list[float]) -> None:
    width, height = 50, 9
    dots = _dots(_plain([_series(y)], width, height), width)
    low, high = min(y), max(y)
    if high == low:
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    columns, rows = len(dots[0]), len(dots)
    for x, value in enumerate(y):
        column = min(columns - 1, int(x / (len(y) - 1) * columns))
        row = (high - value) / (high - low) * (rows - 1)
        assert any(dots[at][column] for at in {math.floor(row), math.ceil(row)})


@given(st.lists(FINITE | st.floats(), max_size=40), st.integers(1, 60), st.integers(1, 12), st.booleans())
@example([math.nan, 5e-324, math.nan], 13, 2, False)
@example([1.7e308, -1.7e308], 80, 9, True)
@example([1e300, 1e300], 80, 9, False)
def test_a_chart_fits_whatever_there_is_to_draw(y: list[float], width: int, height: int, ascii_: bool) -> None:
    drawn = lines([_series(y)], width, height, ascii=ascii_, log=len(y) % 2 == 0)
    assert len(drawn) in (0, height)
    assert all(line.cell_len <= width for line in drawn)
    if ascii_:
        assert all(line.plain.isascii() for line in drawn)


def test_a_spike_of_one_iteration_among_twenty_thousand_is_seen() -> None:
    y = [1.0] * 20_000
    y[12_345] = 9.0
    dots = _dots(_plain([_series(y)], 60, 10), 60)
    column = int(12_345 / 19_999 * len(dots[0]))
    assert all(row[column] for row in dots)
    assert sum(dots[0]) == 1


def test_neighbours_are_joined_without_a_hole() -> None:
    dots = np.array(_dots(_plain([_series([0, 5, 0, 5, 1])], 40, 8), 40))
    for left, right in zip(dots.T, dots.T[1:], strict=False):
        rows, next_rows = np.flatnonzero(left), np.flatnonzero(right)
        assert rows.max() + 1 >= next_rows.min()
        assert next_rows.max() + 1 >= rows.min()


def test_what_is_no_number_is_a_gap_a_mark_and_a_word() -> None:
    y = [1.0, 2.0] * 10 + [math.nan] * 10 + [1.0, 2.0] * 10
    (drawn, said) = _plain([_series(y)], 59, 7), legend([_series(y)]).plain
    columns = 50
    first, last = int(20 / 49 * columns), int(29 / 49 * columns)
    assert "!" in drawn[0][MARGIN + first : MARGIN + last + 1]
    assert not any(cell.strip(" !") for line in drawn[:-1] for cell in line[MARGIN + first + 1 : MARGIN + last])
    assert said == "a matching 2 (nan at 20)  "
    assert legend([_series([1.0, math.inf])]).plain == "a matching 1 (inf at 1)  "


def test_points_too_far_apart_are_not_joined() -> None:
    x, y = np.array([0.0, 1, 2, 50, 51, 52]), np.ones(6)
    joined = _plain([Series("busy", x, y)], 40, 4)
    apart = _plain([Series("busy", x, y, apart=5)], 40, 4)
    assert " " not in "".join(joined[:-1])[MARGIN:38].strip()
    assert max(len(gap) for gap in "".join(line[MARGIN:38] for line in apart[:-1]).split("⠤")) > 20


def test_a_logarithmic_axis_has_the_values_of_its_ends_and_says_what_has_none() -> None:
    y = [100.0, 10.0, 1.0, 0.1, 0.01]
    drawn = _plain([_series(y)], 50, 10, log=True)
    assert [line[: MARGIN - 1].strip() for line in drawn if line[: MARGIN - 1].strip()] == ["100", "1", "0.01"]
    dots = np.array(_dots(drawn, 50))
    assert [int(np.flatnonzero(column).min()) for column in dots.T[[0, -1]]] == [0, len(dots) - 1]
    assert legend([_series([1.0, 0.0])], ChartLook(log=True)).plain == "a matching 0 (0 and less have no logarithm)  "
    assert "nothing to draw yet" in _plain([_series([0.0])], 50, 5, log=True)[0]


def test_series_are_told_apart_by_letters_at_their_ends() -> None:
    series = [_series([1, 2, 3], "one"), _series([3, 2, 1], "two"), _series([2, 3, 3], "three")]
    drawn = _plain(series, 40, 8)
    assert [line[39:] for line in drawn if line[39:].strip()] == ["a", "c", "b"]
    assert legend(series).plain == "a one 3  b two 1  c three 3  "
    # Where there are more series than lines, there are only as many letters.
    assert len("".join(line[39:] for line in _plain(series, 40, 3)).strip()) == 2


def test_a_point_more_moves_nothing_to_its_left_while_a_run_goes_on() -> None:
    y = [3.0 + math.sin(index) for index in range(513)]
    before, after = (_plain([_series(y[:count])], 80, 12, steady=True) for count in (510, 513))
    assert before != after
    assert sum(a != b for a, b in zip("".join(before), "".join(after), strict=True)) <= 30
    assert _plain([_series(y[:510])], 80, 12) != before


@given(st.lists(FINITE, min_size=1, max_size=30), st.sampled_from([0.9, 0.99]))
def test_smoothing_is_a_mean_that_forgets(y: list[float], keep: float) -> None:
    found = _series(y).smoothed(keep).y
    for index in range(len(y)):
        weights = [keep ** (index - before) for before in range(index + 1)]
        literal = sum(w * value for w, value in zip(weights, y, strict=False)) / sum(weights)
        assert found[index] == pytest.approx(literal, rel=1e-6, abs=1e-3)
    assert _series(y).smoothed(0).y.tolist() == y


def test_a_window_keeps_what_is_young() -> None:
    assert _series([5, 6, 7, 8]).since(2).y.tolist() == [7, 8]


def test_twenty_thousand_points_take_about_a_millisecond() -> None:
    y = np.random.default_rng(0).random(20_000)
    series = [Series("matching", np.arange(20_000.0), y)]

    def once() -> float:
        begun = time.perf_counter()
        lines(series, 54, 11)
        return time.perf_counter() - begun

    assert min(once() for _ in range(30)) < 0.01  # one, on a machine that does nothing else


@pytest.mark.parametrize(
    ("value", "text"),
    [(12400, "12400"), (261625.1, "261625"), (0.4123, "0.412"), (1e-5, "1e-05"), (1.0, "1"), (0, "0")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_little_bars_have_a_hole_where_nothing_is_known() -> None:
    assert spark([0, 50, None, 100], 10, 100) == "▁▅ █"
    assert spark([1, 2, 3], 2) == "▆█"
    assert spark([0, 50, None, 100], 10, 100, ascii=True) == ".- ^"
    assert bar(0.5, 4).plain == "██░░"
    assert bar(1.7, 4, ascii=True).plain == "####"


@pytest.mark.parametrize(
    ("begin", "end", "number", "unit"),
    [(1, 200, "100", "iteration"), (0, 128_000, "64000", "real images"), (0, 3.5, "1.75", "s"), (1, 10, "6", "s")],
)
def test_the_number_in_the_middle_of_an_axis_stands_where_it_belongs(
    begin: float, end: float, number: str, unit: str
) -> None:
    width = 71
    axis = lines([Series("matching", np.array([begin, end]), np.ones(2))], width, 6, unit=unit)[-1].plain
    at = axis.index(f" {number} ") + 1 + (len(number) - 1) / 2
    place = MARGIN + (float(number) - begin) / (end - begin) * (width - 1 - MARGIN)
    assert abs(at + 0.5 - place) <= 1


@given(st.floats(-1e307, 1e307), st.integers(1, 9))
@example(0.99949, 3)
@example(12345.6, 4)
def test_a_number_is_rounded_once(value: float, digits: int) -> None:
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1) if abs(value) > 1e-290 else 1e-290
    unit = min(unit, 1.0) if abs(value) < 1e6 else unit
    assert abs(float(exact(value, digits)) / unit - value / unit) <= 0.5 + 1e-6


def test_at_the_cursor_is_what_was_logged_and_where_if_it_is_not_there() -> None:
    logged = Series("matching", np.arange(1.0, 5), np.array([2.946372747, 12345.67, math.nan, 0.25]))
    some = Series("accuracy", np.array([0.0, 500.0]), np.array([93.4567, 10.0]))
    assert (
        legend([logged, some], ChartLook(at=1, step=2)).plain == "a matching 2.94637 (nan at 3)  b accuracy 93.4567  "
    )
    assert (
        legend([logged, some], ChartLook(at=2, step=1)).plain
        == "a matching 12345.7 (nan at 3)  b accuracy 93.4567 at 0  "
    )
    assert legend([logged], ChartLook(at=3, keep=0.9)).plain.startswith("a matching nan (smoothed nan)")


def test_what_smoothing_takes_away_is_said_of_the_part_that_is_shown() -> None:
    y = [1.0] * 400
    y[200], y[390] = 50.0, 0.5
    assert legend([_series(y)], ChartLook(keep=0.99)).plain == "a matching 1.06 (raw 0.5 to 50)  "
    assert legend([_series(y)], ChartLook(keep=0.99, window=(0, 199))).plain == "a matching 1 (raw 1 to 1)  "
    assert legend([_series(y)], ChartLook(at=200, keep=0.99)).plain == "a matching 50 (smoothed 1.56)  "
    assert legend([_series(y)], ChartLook(window=(0, 200))).plain == "a matching 50  "
    assert lines([_series(y)], 60, 5, window=(500, 600))[0].plain == " nothing in this part"


def test_a_line_that_ends_long_before_the_others_has_its_letter_where_it_ends() -> None:
    long, brief = _series([1.0] * 101, "long"), Series("brief", np.arange(11.0), np.full(11, 2.0))
    drawn = _plain([long, brief], 109, 6)
    assert [line[MARGIN:].index("b") for line in drawn[:-1] if "b" in line[MARGIN + 6 :]] == [11]
    assert [line[108:] for line in drawn[:-1] if line[108:].strip()] == ["a"]
