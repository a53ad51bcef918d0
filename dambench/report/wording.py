"""The words of a report, before any format: titles, cells and sentences, as harmless plain text.

Every format escapes all of it, our own words too, so that nothing that came from a name can become markup.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dambench import __version__
from dambench.core.protocol import Budget, Protocol
from dambench.core.sanitize import counted, display
from dambench.report import names
from dambench.report.labels import MISSING as MISSING
from dambench.report.labels import label_of
from dambench.store.cells import Cell, Key
from dambench.store.leaderboard import Leaderboard, Table
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.statistics import ENOUGH, Difference, too_few
from dambench.store.transfer import Transfer

SOURCE = "†"
NOTHING = "No finished runs yet. Start one, for example:"
FIRST = "dambench run --headless --method dm --dataset digits --ipc 1 --seeds 0-2"
ONLY = "‡"
TWIN = "¶"
SHORT = "mean ± half of its 95 % confidence interval over sets, by Student's t (sets × networks)"
BRIEF = "mean ± half of its 95 % confidence interval over sets (sets × networks)"
"""As SHORT, for a small screen."""


@dataclass(frozen=True)
class TableEntry:
    """A cell as it is printed."""

    number: str
    """`92.6 ± 1.1`: mean and half of its confidence interval in percent; `92.6 ± –` where one set gives none."""
    n: str = ""
    """From how many sets × networks: `3×5`."""
    bold: bool = False


FEW = 5
"""Runs that are named one by one."""


def made(board: Leaderboard) -> str:
    left_out = "".join(f"; {clause}" for clause in omissions(board))
    runs = f"{board.finished} finished run{'s' if board.finished > 1 else ''}"
    only = f"; only those meant by {display(board.only)}" if board.only else ""
    return f"{runs}{left_out}{only}. Written by dambench {__version__}."


def omissions(board: Leaderboard) -> list[str]:
    """Clauses on what no table holds, and why."""
    clauses = []
    if board.left_out:
        diverged = f", of which diverged: {_few(board.diverged, '; ')}" if board.diverged else ""
        clauses.append(f"unfinished runs left out: {board.left_out}{diverged}")
    if board.damaged:
        clauses.append(
            "left out because their results are not those of their checksum, see `dambench db check`: "
            f"{', '.join(board.damaged)}"
        )
    if board.repeated:
        clauses.append(f"repeated with a newer one, which counts: {_few(board.repeated, ', ')}")
    if board.unscored:
        clauses.append(f"diverged when trained on a set, and without a score: {_few(board.unscored, '; ')}")
    if board.unmeasured and board.metric.evaluator != ACCURACY.evaluator:
        clauses.append(f"measured, but without {display(board.metric.full_name)}: {_few(board.unmeasured, ', ')}")
    elif board.unmeasured:
        clauses.append(
            f"evaluated before {display(board.metric.full_name)} was measured (`dambench evaluate ID --again` adds "
            f"it): {_few(board.unmeasured, ', ')}"
        )
    return clauses


def _few(items: Sequence[str], between: str) -> str:
    more = f" and {len(items) - FEW} more" if len(items) > FEW else ""
    return display(between.join(items[:FEW]), 2000) + more


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names or ("none",)
    return f"{', '.join(first)} and {last}" if first else last


def selection(board: Leaderboard) -> str:
    """Name the filter of the runs, for what stands beside a table; empty: all are meant."""
    return f"; only runs meant by {display(board.only)}" if board.only else ""


def title(table: Table) -> str:
    parts = []
    for axis, value in table.fixed.items():
        if value:
            prefix = {"protocol": "protocol ", "network": "trained network ", "ipc": "IPC "}.get(axis, "")
            parts.append(prefix + display(names.of(axis, value)))
    return f"{metric_label(table.metric)}, {', '.join(reversed(parts)) or 'all'}"


def metric_label(metric: MetricRow) -> str:
    """`Accuracy in %`."""
    return label_of(metric).in_unit


def capitalised(text: str) -> str:
    """The text with its first letter large, and no other small."""
    return text[:1].upper() + text[1:]


def figure(metric: MetricRow, value: float, *, sign: str = "") -> str:
    """A value as tables show it, in the unit of `metric_label`; `sign` as in format strings."""
    return label_of(metric).value(value, sign=sign)


def name(axes: Sequence[str], key: Key) -> str:
    named = (names.shown(axis, value) for axis, value in zip(axes, key, strict=True) if value)
    return display(" ".join(named))


def lines(table: Table, rows: Sequence[str]) -> list[tuple[str, list[TableEntry]]]:
    """A name and the cells of each row; last, where it is known, the accuracy of the majority class."""
    named = []
    for row in table.rows:
        cells = [(table.cells.get((row, column)), (row, column) in table.best) for column in table.columns]
        several = len({score.network for cell, _ in cells if cell is not None for score in cell.scores}) > 1
        entries = [
            TableEntry(MISSING) if cell is None else entry(cell, bold=best, mark=several) for cell, best in cells
        ]
        if table.transfer:
            found = (result.rows[row] for result in table.transfer if row in result.rows)
            entries += unseen(table.metric, next(found, None))
        named.append((_with_epochs(name(rows, row), [cell for cell, _ in cells if cell is not None]), entries))
    if table.strong:
        best = [table.strong.get(column) for column in table.columns]
        entries = [TableEntry(MISSING) if cell is None else entry(cell.of(table.metric)) for cell in best]
        entries += [TableEntry(MISSING)] * (len(UNSEEN) if table.transfer else 0)
        named.append((_with_epochs("whole, strong recipe", [cell for cell in best if cell is not None]), entries))
    if table.majority:
        rates = [table.majority.get(column) for column in table.columns]
        entries = [TableEntry(MISSING if rate is None else f"{100 * rate:.1f}") for rate in rates]
        entries += [TableEntry(MISSING)] * (len(UNSEEN) if table.transfer else 0)
        named.append(("majority class", entries))
    return named


UNSEEN = ["unseen mean", "between sets", "worst unseen", "drop"]
"""Columns beside those of networks."""


def unseen(metric: MetricRow, transfer: Transfer | None) -> list[TableEntry]:
    """How the sets of a row serve unseen networks, for the columns of UNSEEN."""
    if transfer is None:
        return [TableEntry(MISSING)] * len(UNSEEN)
    half = MISSING if transfer.interval is None else figure(metric, transfer.interval.half)
    return [
        TableEntry(f"{figure(metric, transfer.mean)} ± {half}", counted(transfer.sets, "set")),
        TableEntry(MISSING if transfer.std is None else figure(metric, transfer.std)),
        TableEntry(figure(metric, transfer.worst), name(["network"], (transfer.worst_network,))),
        TableEntry(MISSING if transfer.drop is None else figure(metric, transfer.drop, sign="+")),
    ]


def _with_epochs(name: str, cells: Sequence[Cell]) -> str:
    """`whole (50 epochs)`: networks on the whole set have a budget of their own."""
    epochs = sorted({score.epochs for cell in cells for score in cell.scores} - {0})
    return f"{name} ({' or '.join(map(str, epochs))} epochs)" if epochs else name


def entry(cell: Cell, *, bold: bool = False, mark: bool = False) -> TableEntry:
    """A cell in words.

    Args:
        mark: the network that the set was matched on.
    """
    words = label_of(cell.metric).words
    number = in_words(words, cell.values) if words else figure(cell.metric, cell.mean)
    if math.isfinite(cell.mean) and not words:
        number += f" ± {MISSING if cell.interval is None else figure(cell.metric, cell.interval.half)}"
    number += ONLY if cell.unit == "network" else ""
    number += TWIN if any(score.left_out for score in cell.scores) else ""
    number += SOURCE if mark and all(score.source for score in cell.scores) else ""
    return TableEntry(number, networks(cell), bold)


def in_words(words: Mapping[float, str], values: Sequence[float]) -> str:
    """`trained`, `5 trained, 1 cannot be built`: values that stand for words have no mean."""
    counts = Counter(words.get(value, MISSING) for value in values)
    return ", ".join(f"{count} {word}" if len(counts) > 1 else word for word, count in counts.most_common())


def networks(cell: Cell) -> str:
    """Count sets × networks: `3×5`, or `3 sets, 8 networks` where some sets have more than others."""
    each = cell.networks_per_set
    return f"{cell.sets} sets, {cell.networks} networks" if each is None else f"{cell.sets}×{each}"


def claim(cell: Cell) -> str:
    """What a cell's number is about, where that is not the method: `1 set: no claim about the method`, `this set only`;
    else empty."""
    if cell.unit == "set":
        return too_few(cell.sample)
    return "this set only: its networks are the unit" + (f"; {few}" if (few := too_few(cell.sample)) else "")


def spread(cell: Cell) -> str:
    """`between sets 5.6, within a set 1.3`: standard deviations, as the table's metric is shown."""
    between, within = cell.spread.between_std, cell.spread.within_std
    cut = " (estimated below 0)" if cell.spread.truncated else ""
    shown = [MISSING if value is None else figure(cell.metric, value) for value in (between, within)]
    return f"within the set {shown[1]}" if cell.sets == 1 else f"between sets {shown[0]}{cut}, within a set {shown[1]}"


def effect(metric: MetricRow, gap: Difference, *, correction: str = "") -> str:
    """A difference and its test: `+3.2 points (95 %: +1.1 to +5.3; paired over 3 shared seeds, p 0.021)`.

    Args:
        correction: what was done about other comparisons, to stand after p.
    """
    if not math.isfinite(gap.mean):
        return MISSING
    points = " points" if metric.unit == "fraction" else ""
    text = f"{figure(metric, gap.mean, sign='+')}{points}"
    over = f"{len(gap.seeds)} shared seed{'s' if len(gap.seeds) > 1 else ''}" if gap.seeds else ""
    if gap.interval is None or gap.p is None:
        return f"{text}{f' on {over}' if over else ''} ({gap.reason})"
    low, high = (figure(metric, value, sign="+") for value in gap.interval)
    design = f"paired over {over}" if gap.design == "paired" else "Welch"
    return f"{text} (95 %: {low} to {high}; {design}, {' '.join(filter(None, ('p', p_value(gap.p), correction)))})"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def reading(board: Leaderboard) -> list[str]:
    """Tell in sentences how the numbers came about."""
    notes = [
        f"{display(capitalised(board.metric.description), 400)}; nothing was selected on it. A cell is the {SHORT}: "
        "the mean is that of set means.",
        *signs(board.tables, bold="Bold"),
    ]
    for protocol in board.protocols:
        notes.append(f"Protocol {display(names.of('protocol', protocol.label))}: {protocol_in_words(protocol)}")
    for source, methods in board.recipes.items():
        notes.append(f"Settings of {display(', '.join(methods))}: {display(source)}. A row names those that differ.")
    notes.append(
        "Times and peaks are medians over runs: of distilling, then of each network trained and tested. Peak: the "
        "allocator's on a GPU, the whole process's resident memory on a CPU."
    )
    return notes


def signs(tables: Sequence[Table], *, bold: str, brief: bool = False) -> list[str]:
    """Explain each sign and each further column of these tables, those that mislead most first; ± is in SHORT.

    Args:
        bold: how a cell in `best` is shown.
        brief: for a small screen.
    """
    cells = [cell for table in tables for cell in table.cells.values()]
    best = "lowest" if tables and tables[0].metric.better == "lower" else "highest"
    name = label_of(tables[0].metric).text if tables else ""
    name = name if name[1:2].isupper() else name[:1].lower() + name[1:]
    much = "many points" if tables and tables[0].metric.unit == "fraction" else "much"
    several = any(
        len({score.network for cell in table.cells.values() for score in cell.scores}) > 1 for table in tables
    )
    twins = " and ".join(sorted({part for cell in cells for score in cell.scores for part in score.left_out}))
    notes = {
        f"{bold}: the {best} mean, and every row in the same place that is not told from it at 5 %: by the paired "
        f"t-test over shared distillation seeds, by Welch's where fewer than {ENOUGH} are shared, Holm-corrected. Only "
        f"rows with {ENOUGH} sets compete, or with {ENOUGH} networks on a set that no seed changes, that were tested "
        "with the same preprocessing and precision; whole and a single imported set do not.": (
            f"{bold} the {best} mean and all not told from it at 5 %, of ≥ {ENOUGH} sets.",
            any(table.best for table in tables),
        ),
        f"{SOURCE}: on the network that the set was matched on.": (f"{SOURCE} on the network matched on.", several),
        f"unseen mean: over the networks that no row was matched on and all rows have, ± over sets; between sets: the "
        f"standard deviation of that; drop: how {much} the {name} on the network matched on is above it, on the same "
        "sets.": (
            "unseen: networks that no row was matched on; drop: from the one matched on to their mean.",
            any(table.transfer for table in tables),
        ),
        f"{TWIN}: the set carries {twins} that this protocol does not use. With hard labels at the usual rate it is "
        "the hard-label twin of the row under the set's own protocol.": (
            f"{TWIN} without {twins} that the set carries.",
            bool(twins),
        ),
        f"{ONLY}: this set only. No seed changes the set, or it was imported alone: ± is over its networks.": (
            f"{ONLY} this set only: ± over its networks.",
            any(cell.unit == "network" for cell in cells),
        ),
        f"Fewer than {ENOUGH} sets: no claim about the method, never {bold.lower()}; of one set there is no interval "
        f"(± {MISSING}).": (
            f"Under {ENOUGH} sets: no claim about the method.",
            any(cell.unit == "set" and not cell.sample.enough for cell in cells),
        ),
        "(s×n): s sets, made with different seeds, with n networks trained on each. The set is the unit of evidence: "
        "how much networks differ on one set does not say how much another seed would change.": ("", bool(cells)),
    }
    shown = [short if brief else long for long, (short, there) in notes.items() if there]
    return list(filter(None, shown))


def protocol_in_words(protocol: Protocol) -> str:
    return (
        f"{_budget(protocol.synthetic, protocol.decay)} on a synthetic set, "
        f"{_budget(protocol.whole, protocol.decay)} on the whole set; "
        f"{_optimiser(protocol)}, weight decay {protocol.weight_decay}, "
        f"batch {protocol.batch}; labels: {_labels(protocol)}; {augmentation(protocol)}{_held_out(protocol)}. Source: "
        f"{display(protocol.source, 1000)}."
    )


def _optimiser(protocol: Protocol) -> str:
    falling = {"half cosine": ", falling by half a cosine", "cosine": ", falling by a cosine"}.get(
        protocol.schedule, ""
    )
    if protocol.optimiser == "adamw":
        return f"AdamW, rate {protocol.lr}{falling}"
    return f"SGD, rate {protocol.lr}{falling}, momentum {protocol.momentum}"


def _labels(protocol: Protocol) -> str:
    if protocol.labels == "teacher":
        return f"those of the set's teacher for each batch, KL at temperature {protocol.temperature:g}"
    return protocol.labels


def _held_out(protocol: Protocol) -> str:
    rule = protocol.hold_out
    if rule is None:
        return ""
    most = f"{rule.images:,} validation images, as many of each class"
    return f"; {most} and at most {rule.share:.0%} of the smallest, are held out of what sets are made of"


def _budget(budget: Budget, decay: float) -> str:
    """`200 epochs (rate × 0.1 after 100)`, `1801 epochs (rate × 0.5 after every 15)`."""
    drops = budget.drops
    every = drops[0] if drops else 0
    regular = len(drops) > 2 and drops == tuple(range(every, every * len(drops) + 1, every))
    regular = regular and every * (len(drops) + 1) >= budget.epochs
    when = f"every {every}" if regular else ", ".join(map(str, drops))
    return f"{budget.epochs} epochs" + (f" (rate × {decay} after {when})" if drops else "")


def augmentation(protocol: Protocol) -> str:
    """A protocol's augmentation in words: whose, by which operations, drawn how often."""
    mixed = mixing(protocol)
    if not protocol.augmentation:
        return ", ".join(filter(None, ["no augmentation", mixed]))
    own = {operation.startswith("dc-") for operation in protocol.augmentation}
    whose = "DC's" if own == {True} else "DSA" if own == {False} else "augmentation"
    operations = display("/".join(operation.removeprefix("dc-") for operation in protocol.augmentation))
    mirrored = ", without flip where a mirror image is another class" if "flip" in protocol.augmentation else ""
    how = "one of the warps, and each of the others" if protocol.draws == "all at once" else f"one {protocol.draws}"
    return f"{whose} {operations}, {how}{mirrored}" + (f", {mixed}" if mixed else "")


def mixing(protocol: Protocol) -> str:
    """What a protocol mixes batches by, in words; empty: nothing."""
    if protocol.mixing == "none":
        return ""
    name = "CutMix" if protocol.mixing == "cutmix" else "mixup"
    share = protocol.mixing_probability
    return f"{name} of {'every batch' if share == 1 else f'a share of {share:g} of batches'}"
