"""Charts of our own: thousands of points in about a millisecond, and only lines that changed are repainted.

Every half of a character's width keeps the smallest and the largest of its points, so that a spike of one iteration
is seen however many there are. A character of braille has 2 × 4 dots; in ASCII it has 1 × 2, and series are told apart
by their letters in either.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from dambench.core.sanitize import display

Floats = NDArray[np.float64]

COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BLOCKS = "▁▂▃▄▅▆▇█"
HEIGHTS = "._-=^"
"""Heights of a bar, in ASCII."""

MARGIN = 8
"""Columns left of the plot: a number, and the axis."""

MARKED = 20
"""Columns from one letter on a line to the next."""

LARGEST = 1e300
"""What is further from 0 is drawn as if it were here: a difference of two of them is a number."""

CURSOR_DIGITS = 6
"""Digits of a value at the cursor: what is drawn has about three."""

WHOLE = 4.0
"""Units of the x axis from which on the number in its middle is a whole one."""

BLOCK = 256
"""Values that are averaged at once."""

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""By row and column of a character of braille: a dot's part of its code."""

_BRAILLE = np.array([" ", *(chr(0x2800 + code) for code in range(1, 256))])
_ASCII_DOTS = np.array([[1], [2]])
_ASCII = np.array([" ", "'", ".", ":"])


@dataclass(frozen=True)
class Series:
    """One line of a chart. What is no number is a gap in it, and is said in words."""

    name: str
    x: Floats
    """Ascending."""
    y: Floats
    apart: float = math.inf
    """Points further apart than this are not joined."""

    @property
    def broken(self) -> str:
        """The first value that is no number, and where; empty: there is none."""
        bad = np.flatnonzero(~np.isfinite(self.y))
        if not len(bad):
            return ""
        first = self.y[bad[0]]
        word = "nan" if math.isnan(first) else "inf" if first > 0 else "-inf"
        return f"{word} at {short(float(self.x[bad[0]]))}"

    def smoothed(self, keep: float) -> "Series":
        """Its exponential moving average: each value is `keep` of the ones before, the beginning corrected for."""
        if not keep:
            return self
        averages, good = self.y.astype(np.float64), np.isfinite(self.y)
        averages[good] = _averaged(averages[good], keep)
        return Series(self.name, self.x, averages, self.apart)

    def since(self, x: float) -> "Series":
        """From there on."""
        first = int(np.searchsorted(self.x, x))
        return Series(self.name, self.x[first:], self.y[first:], self.apart)

    def within(self, begin: float, end: float) -> "Series":
        """Between two places; where a line goes in or out there, it has a point on the edge."""
        first, last = int(np.searchsorted(self.x, begin)), int(np.searchsorted(self.x, end, side="right"))
        # Iterations may be whole numbers, edges are not.
        x, y = self.x[first:last].astype(np.float64), self.y[first:last].astype(np.float64)
        for edge, right in ((begin, first), (end, last)):
            left = right - 1
            joined = left >= 0 and right < len(self.x) and self.x[right] - self.x[left] <= self.apart
            if joined and self.x[left] < edge < self.x[right] and np.isfinite(self.y[[left, right]]).all():
                share = (edge - self.x[left]) / (self.x[right] - self.x[left])
                value = self.y[left] + share * (self.y[right] - self.y[left])
                at = 0 if edge == begin else len(x)
                x, y = np.insert(x, at, edge), np.insert(y, at, value)
        return Series(self.name, x, y, self.apart)

    def at(self, x: float) -> float | None:
        """Its value at the nearest point; None: that is before its first or after its last."""
        index = self.nearest(x)
        return None if index is None else float(self.y[index])

    def nearest(self, x: float) -> int | None:
        """The number of its nearest point; None: that is before its first or after its last."""
        if not len(self.x) or not self.x[0] <= x <= self.x[-1]:
            return None
        right = min(int(np.searchsorted(self.x, x)), len(self.x) - 1)
        left = max(0, right - 1)
        return left if x - self.x[left] < self.x[right] - x else right


def _averaged(values: Floats, keep: float) -> Floats:
    """Exponential moving averages, each of all values up to it: block by block, the mean before carried on."""
    rows = -(-len(values) // BLOCK)
    padded = np.zeros(rows * BLOCK)
    # Smaller by more than the powers make them larger: none gets too large to be a number.
    small = keep**BLOCK
    padded[: len(values)] = values * (small * (1 - keep))
    powers = keep ** np.arange(1, BLOCK + 1)
    blocks = np.cumsum(padded.reshape(rows, BLOCK) / powers, axis=1) * powers
    for row in range(1, rows):
        blocks[row] += powers * blocks[row - 1, -1]
    weights = -small * np.expm1(math.log(keep) * np.arange(1, len(values) + 1))
    return np.asarray(blocks.reshape(-1)[: len(values)] / weights)


def exact(value: float, digits: int = 3) -> str:
    """A number with so many digits, rounded once; of one below a million all those before the point: `12346`."""
    if not math.isfinite(value):
        return str(value)
    before = len(str(int(abs(value)))) if 1 <= abs(value) < 1e6 else 0
    if not before:
        return f"{value:.{digits}g}"
    text = f"{value:.{max(0, digits - before)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: float, digits: int = 3) -> str:
    """A number in at most seven characters: `12400`, `0.412`, `1.2e-05`."""
    if abs(value) < 1e6 and (value == int(value) or abs(value) >= 1000):
        return str(round(value))
    texts = (f"{value:.{digits}g}", f"{value:.3g}", f"{value:.1e}", f"{value:.0e}", "…")
    return next(text for text in texts if len(text) <= 7)


@dataclass(frozen=True)
class ChartLook:
    """What of a chart is looked at, and how."""

    log: bool = False
    """The y axis is of base 10."""
    at: float | None = None
    """Where the cursor is; None: there is none."""
    keep: float = 0.0
    """How much of the average that is drawn is of the values before; 0: none is drawn."""
    window: tuple[float, float] | None = None
    """The part of the x axis that is shown; None: all."""
    step: float = math.inf
    """The part that a column stands for."""

    def within(self, one: Series) -> slice:
        """The points of a series that are shown."""
        if self.window is None:
            return slice(None)
        begin, end = self.window
        return slice(int(np.searchsorted(one.x, begin)), int(np.searchsorted(one.x, end, side="right")))


def legend(series: Sequence[Series], look: ChartLook = ChartLook()) -> Text:
    """Explain the letters: the name of each series, its last value that is shown, and what is wrong with it.

    At the cursor it is the value there, as it was logged, with its place where that is a column or more away. What is
    smoothed away is said: from where to where values are.
    """
    line = Text(no_wrap=True)
    for entry in _entries(series, look):
        line.append_text(entry)
    return line


def _entries(series: Sequence[Series], look: ChartLook) -> Iterator[Text]:
    """What a legend says of each series."""
    for index, one in enumerate(series):
        entry = Text(no_wrap=True)
        colour = COLOURS[index % len(COLOURS)]
        entry.append(f"{LETTERS[index % len(LETTERS)]} ", f"bold {colour}")
        entry.append(
            f"{display(one.name, 24)} {_last(one, look) if look.at is None else _there(one, look, look.at)}", colour
        )
        problems = [one.broken]
        if look.log and (one.y[np.isfinite(one.y)] <= 0).any():
            problems.append("0 and less have no logarithm")
        entry.append("".join(f" ({problem})" for problem in problems if problem) + "  ")
        yield entry


def _last(one: Series, look: ChartLook) -> str:
    """The last number of what is shown."""
    there = look.within(one)
    finite = np.isfinite(one.y[there])
    if not finite.any():
        return "–"
    raw, smooth = (series.y[there][finite] for series in (one, one.smoothed(look.keep)))
    spread = f" (raw {exact(float(raw.min()))} to {exact(float(raw.max()))})" if look.keep else ""
    return exact(float(smooth[-1])) + spread


def _there(one: Series, look: ChartLook, cursor: float) -> str:
    """The value at the cursor."""
    point = one.nearest(cursor)
    if point is None:
        return "–"
    value, at = float(one.y[point]), float(one.x[point])
    smooth = f" (smoothed {exact(float(one.smoothed(look.keep).y[point]))})" if look.keep else ""
    return exact(value, CURSOR_DIGITS) + smooth + (f" at {short(at)}" if abs(at - cursor) > look.step else "")


def legend_lines(series: Sequence[Series], width: int, most: int, look: ChartLook = ChartLook()) -> list[Text]:
    """The legend on several lines, each series on one of them whole; where there is no room, how many are left out."""
    lines: list[Text] = [Text(no_wrap=True)]
    for index, entry in enumerate(_entries(series, look)):
        if lines[-1].cell_len and lines[-1].cell_len + entry.cell_len > width + 2:
            if len(lines) == most:
                left = f"+{len(series) - index}"
                lines[-1].truncate(width - len(left) - 1)
                lines[-1].append(f" {left}")
                break
            lines.append(Text(no_wrap=True))
        lines[-1].append_text(entry)
    return lines


def lines(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    log: bool = False,
    ascii: bool = False,
    unit: str = "",
    steady: bool = False,
    nothing: str = "",
    cursor: float | None = None,
    window: tuple[float, float] | None = None,
) -> list[Text]:
    """A chart of so many columns and lines: numbers on the left, the last line the axis below.

    Args:
        log: of base 10, on the y axis; what is not above 0 is a gap then.
        ascii: nothing but ASCII.
        unit: of the x axis.
        steady: the axes end at round numbers, so that a point more does not move all others: what is not moved need
            not be sent.
        nothing: what is said where there is nothing to draw.
        cursor: where on the x axis a line stands; None: there is none.
        window: the part of the x axis that is shown; None: all.
    """
    columns, rows = width - MARGIN - 1, height - 1
    if columns < 4 or rows < 1:
        return []
    whole = series
    if window is not None:
        series = [one.within(*window) for one in series]
    shown = [_on_scale(one, log) for one in series]
    values = np.concatenate([y[np.isfinite(y)] for _, y in shown]) if shown else np.empty(0)
    if not len(values):
        elsewhere = any(np.isfinite(one.y).any() for one in whole) and not any(len(one.x) for one in series)
        why = "nothing in this part" if elsewhere else nothing or "nothing to draw yet"
        return [Text(f" {why}"[:width])] + [Text()] * rows
    low, high = _range(values, log)
    ends_of = [(float(x[0]), float(x[-1])) for x, _ in shown if len(x)]
    begin, end = window or (min(first for first, _ in ends_of), max(last for _, last in ends_of))
    if steady:
        low, high = _rounded(low, high)
        high = min(high, math.log10(LARGEST)) if log else high
        begin, end = window or _rounded(begin, end)
    fine, tall = (1, 2) if ascii else (2, 4)
    codes = np.zeros((rows, columns), dtype=np.int64)
    owner = np.full((rows, columns), -1)
    bad = np.zeros(columns, dtype=bool)
    finals: list[tuple[int, int, int]] = []
    for index, ((x, y), one) in enumerate(zip(shown, series, strict=True)):
        at = _columns(x, begin, end, columns * fine)
        dots = _dots(at, x, (high - y) / (high - low) * (rows * tall - 1), one.apart, columns * fine, rows * tall)
        cells = dots.reshape(rows, tall, columns, fine)
        weights = _ASCII_DOTS if ascii else _DOTS
        codes |= (cells * weights[:, None, :]).sum((1, 3))
        owner[cells.any((1, 3))] = index
        bad[at[~np.isfinite(one.y)] // fine] = True
        good = np.flatnonzero(np.isfinite(y))
        if len(good):
            row = round((high - float(y[good[-1]])) / (high - low) * (rows - 1))
            finals.append((index, int(at[good[-1]]) // fine, row))
    drawn = (_ASCII if ascii else _BRAILLE)[codes]
    if len(series) > 1:
        _mark(drawn, owner, len(series))
    ends = _ends(drawn, owner, finals)
    stands = _stand(drawn, cursor, begin, end, "|" if ascii else "│")
    ticks = _ticks(low, high, rows, log)
    bar = "|" if ascii else "┤"
    plot = []
    for row in range(rows):
        line = Text(f"{ticks.get(row, ''):>{MARGIN - 1}}", "", no_wrap=True)
        line.append(bar, "dim")
        _append(line, drawn[row], owner[row], bad if row == 0 else None, stands)
        if row in ends:
            line.append(LETTERS[ends[row] % len(LETTERS)], f"bold {COLOURS[ends[row] % len(COLOURS)]}")
        plot.append(line)
    plot.append(Text(" " * MARGIN + _axis(begin, end, unit, columns), "dim"))
    return plot


def _range(values: Floats, log: bool) -> tuple[float, float]:
    """The ends of the y axis; around what is all the same there is room."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * abs(high):  # what sums are rounded by is no course
        margin = min(abs(low) / 10, 1.0 if log else math.inf) or 1.0  # a tenth of the smallest number is none
        low, high = low - margin, high + margin
    return low, high


def _stand(drawn: NDArray[np.str_], cursor: float | None, begin: float, end: float, sign: str) -> int | None:
    """Draw the cursor where nothing else is; returns its column; None: there is none, or it is not in sight."""
    if cursor is None or not begin <= cursor <= end:
        return None
    column = int(_columns(np.array([cursor]), begin, end, drawn.shape[1])[0])
    drawn[:, column] = np.where(drawn[:, column] == " ", sign, drawn[:, column])
    return column


def _on_scale(one: Series, log: bool) -> tuple[Floats, Floats]:
    """Its points; infinities and, on a logarithmic axis, what is not above 0 become NaN."""
    good = np.isfinite(one.y) & ((one.y > 0) if log else True)
    y = np.clip(np.where(good, one.y, np.nan), -LARGEST, LARGEST)
    return one.x, np.log10(y, where=good, out=np.full_like(y, np.nan)) if log else y


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Outwards to multiples of 1, 2 or 5 times a power of ten, by at most an eighth of what is between."""
    if high <= low:
        return low, high
    raw = (high - low) / 8
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= raw * (1 + 1e-9))
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _columns(x: Floats, begin: float, end: float, count: int) -> NDArray[np.int64]:
    """The column of each point."""
    if end <= begin:
        return np.zeros(len(x), dtype=np.int64)
    return np.minimum(((x - begin) / (end - begin) * count).astype(np.int64), count - 1)


def _dots(at: NDArray[np.int64], x: Floats, y: Floats, apart: float, width: int, height: int) -> NDArray[np.bool_]:
    """Draw a line as dots, (height, width): in every column from its smallest to its largest value.

    Args:
        at: the column of each point.
        y: rows from above, not rounded; NaN: a gap.
    """
    good = np.isfinite(y)
    if not good.any():
        return np.zeros((height, width), dtype=bool)
    # A gap is between two good points if there is a bad one, or too much of x, between them.
    breaks = np.cumsum(~good)[good]
    at, x, y = at[good], x[good], y[good]
    joined = (np.diff(breaks) == 0) & (np.diff(x) <= apart)
    top, bottom = np.full(width, np.inf), np.full(width, -np.inf)
    np.minimum.at(top, at, y)
    np.maximum.at(bottom, at, y)
    # From the last point of a column to the first of the next: straight through the columns between them.
    onwards = np.diff(at)
    near = np.flatnonzero((onwards == 1) & joined)
    middle = (y[near] + y[near + 1]) / 2
    for column in (at[near], at[near + 1]):
        np.minimum.at(top, column, middle)
        np.maximum.at(bottom, column, middle)
    for step in np.flatnonzero((onwards > 1) & joined).tolist():
        left, right = int(at[step]), int(at[step + 1])
        # Where the line enters and leaves each column.
        edges = np.linspace(y[step], y[step + 1], 2 * (right - left) + 1)
        enters, leaves = np.append(edges[0], edges[1::2]), np.append(edges[1::2], edges[-1])
        some = slice(left, right + 1)
        top[some] = np.minimum(top[some], np.minimum(enters, leaves))
        bottom[some] = np.maximum(bottom[some], np.maximum(enters, leaves))
    rows = np.arange(height)[:, None]
    with np.errstate(invalid="ignore"):
        return (rows >= np.round(top)) & (rows <= np.round(bottom))


def _ticks(low: float, high: float, rows: int, log: bool) -> dict[int, str]:
    """The numbers on the y axis: above, below and, where there is room, between."""
    places = {0, rows - 1} | ({(rows - 1) // 2} if rows >= 5 else set()) if rows > 1 else {0}
    values = {
        row: high - (high - low) * row / (rows - 1) if 0 < row < rows - 1 else low if row else high for row in places
    }
    if log:
        values = {row: 10**value for row, value in values.items()}
    for digits in (3, 4, 5):
        labels = {row: short(float(f"{value:.{digits}g}"), digits) for row, value in values.items()}
        if len(set(labels.values())) == len(labels):
            break
    return labels


def _axis(begin: float, end: float, unit: str, columns: int) -> str:
    """The ends of the x axis and, where there is room, a number that stands where it belongs."""
    left, right = short(begin), f"{short(end)} {unit}".rstrip()
    if len(left) + len(right) + 1 > columns:
        return right[:columns]
    line = left + " " * (columns - len(left) - len(right)) + right
    middle = (begin + end) / 2
    # Of iterations there are whole ones only; seconds may be few.
    number = float(round(middle)) if end - begin >= WHOLE else middle
    text = short(number)
    first = (columns - len(text)) // 2 + round((number - middle) / max(end - begin, 1e-300) * columns)
    fits = len(left) + 3 <= first and first + len(text) + 3 <= columns - len(right)
    return line[:first] + text + line[first + len(text) :] if fits and end > begin else line


def _append(
    line: Text,
    characters: NDArray[np.str_],
    owner: NDArray[np.int64],
    bad: NDArray[np.bool_] | None,
    cursor: int | None,
) -> None:
    """The cells of one line, those of one series after each other as one piece.

    Args:
        cursor: the column that it stands in; None: there is none.
    """
    signs = characters.copy()
    if bad is not None:
        signs[bad] = "!"
        owner = np.where(bad, -2, owner)
    groups = owner if cursor is None else owner * 2 + (np.arange(len(owner)) == cursor)
    begins = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(owner)]
    for begin, end in pairwise(begins):
        of = int(owner[begin])
        style = "bold red" if of == -2 else COLOURS[of % len(COLOURS)] if of >= 0 else ""
        if begin == cursor:
            style = f"{style} reverse".strip() if of >= 0 else "bold"
        line.append("".join(signs[begin:end]), style)


def _ends(drawn: NDArray[np.str_], owner: NDArray[np.int64], finals: Sequence[tuple[int, int, int]]) -> dict[int, int]:
    """Find a place for the letter of each series where it ends: of one that ends long before others in the plot.

    Args:
        finals: each series with the column and the row of its last point.

    Returns:
        By row, the series whose letter stands beside the plot. Each has a line of its own, the nearest that is free.
    """
    (rows, columns), ends = drawn.shape, dict[int, int]()
    for index, column, row in finals:
        early = column < columns * 7 // 8
        free = [r for r in range(rows) if (drawn[r, column + 1] == " " if early else r not in ends)]
        if early and free:
            at = min(free, key=lambda r: abs(r - row)), column + 1
            drawn[at], owner[at] = LETTERS[index % len(LETTERS)], index
        elif free := [r for r in range(rows) if r not in ends]:
            ends[min(free, key=lambda r: abs(r - row))] = index
    return ends


def _mark(drawn: NDArray[np.str_], owner: NDArray[np.int64], count: int) -> None:
    """Write the letter of each series on it, now and then: colours alone tell nothing to those who do not see them."""
    columns = drawn.shape[1]
    period = max(count + 1, min(MARKED, columns // 2))
    for index in range(min(count, len(LETTERS))):
        for column in range(index * period // count + 1, columns, period):
            own = np.flatnonzero(owner[:, column] == index)
            if len(own):
                drawn[own[len(own) // 2], column] = LETTERS[index]


def spark(values: Sequence[float | None], width: int, top: float | None = None, *, ascii: bool = False) -> str:
    """The last so many values as little bars; a space where there is none.

    Args:
        top: what a full bar stands for; None: the largest value.
    """
    signs = HEIGHTS if ascii else BLOCKS
    last = list(values)[-width:]
    finite = [value for value in last if value is not None and math.isfinite(value)]
    most = top if top is not None else max(finite, default=0.0)
    return "".join(
        " "
        if value is None or not math.isfinite(value)
        else signs[min(len(signs) - 1, max(0, int(value / most * len(signs))))]
        if most > 0
        else signs[0]
        for value in last
    )


def bar(share: float, width: int, *, ascii: bool = False) -> Text:
    """A bar of which a share is full."""
    full = min(width, max(0, round(share * width)))
    line = Text(("#" if ascii else "█") * full)
    line.append(("." if ascii else "░") * (width - full), "dim")
    return line
