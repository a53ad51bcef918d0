"""The leaderboard as markdown. The same runs give the same bytes."""

from collections.abc import Sequence

from dambench import __version__
from dambench.display import display, markdown
from dambench.protocol import Budget, Protocol
from dambench.store.leaderboard import Cell, Cost, Key, Leaderboard, Table

MISSING = "–"


def to_markdown(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], *, short: bool = False) -> str:
    """A report: tables of accuracy, what each method took, and how the numbers came about.

    Args:
        short: the tables of accuracy alone.
    """
    only = f", only those that meet `{display(board.only).replace('`', '')}`" if board.only else ""
    if not board.finished and only:
        return f"No finished runs{only}.\n"
    if not board.finished:
        return (
            "No finished runs yet. Start one, for example:\n\n"
            "    dambench run --headless --method dm --dataset digits --ipc 1\n"
        )
    left_out = f"; unfinished runs left out: {board.left_out}" if board.left_out else ""
    runs = f"{board.finished} finished run{'s' if board.finished > 1 else ''}{only}"
    parts = ["# Dataset distillation benchmark", f"{runs}{left_out}. Written by dambench {__version__}."]
    for table in board.tables:
        parts += [_heading(table), _accuracy(table, rows, columns)]
        if table.notes:
            parts.append("\n".join(f"- {markdown(note)}" for note in table.notes))
    if short:
        return "\n\n".join([*parts[2:], f"mean ± sample standard deviation (n networks); {parts[1]}"]) + "\n"
    parts += ["## What it took", _costs(board.costs), _reading(board)]
    return "\n\n".join(parts) + "\n"


def _heading(table: Table) -> str:
    said = []
    for axis, value in table.fixed.items():
        if value:
            prefix = {"protocol": "protocol ", "network": "trained network ", "ipc": "IPC "}.get(axis, "")
            said.append(prefix + markdown(value))
    title = ", ".join(reversed(said)) or "all"
    return f"## Accuracy in %, {title}"


def _accuracy(table: Table, rows: Sequence[str], columns: Sequence[str]) -> str:
    lines = [[", ".join(rows), *(_name(columns, column) for column in table.columns)]]
    for row in table.rows:
        line = [_name(rows, row)]
        for column in table.columns:
            cell = table.cells.get((row, column))
            line.append(MISSING if cell is None else value(cell, bold=(row, column) in table.best))
        lines.append(line)
    if table.majority:
        rates = (table.majority.get(column) for column in table.columns)
        lines.append(["majority class", *(MISSING if rate is None else f"{100 * rate:.1f}" for rate in rates)])
    return grid(lines)


def _name(axes: Sequence[str], key: Key) -> str:
    named = (f"IPC {v}" if axis == "ipc" else v for axis, v in zip(axes, key, strict=True) if v)
    return markdown(" ".join(named))


def value(cell: Cell, *, bold: bool = False) -> str:
    """`92.6 ± 1.1 (5)`: mean ± sample standard deviation in percent, and from how many networks.

    `(3×5)` where they were trained on 3 different sets.
    """
    spread = "" if cell.std is None else f" ± {100 * cell.std:.1f}"
    number = f"{100 * cell.mean:.1f}{spread}"
    n = str(cell.n)
    if cell.sets > 1:
        n = f"{cell.n}, {cell.sets} sets" if cell.networks_per_set is None else f"{cell.sets}×{cell.networks_per_set}"
    return f"**{number}** ({n})" if bold else f"{number} ({n})"


def grid(lines: list[list[str]]) -> str:
    """A markdown table whose columns line up in a terminal too. The first line is the head."""
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _costs(costs: list[Cost]) -> str:
    head = ["method", "dataset", "runs", "distil, s", "peak", "trained network", "protocol", "s each", "peak", "device"]
    lines = [head]
    for cost in costs:
        ipc = "" if cost.ipc is None else f" IPC {cost.ipc}"
        lines.append(
            [
                markdown(cost.method),
                markdown(f"{cost.dataset}{ipc}"),
                str(cost.runs),
                seconds(cost.distil_seconds),
                megabytes(cost.distil_peak_bytes),
                markdown(cost.network),
                markdown(cost.protocol),
                seconds(cost.evaluate_seconds),
                megabytes(cost.evaluate_peak_bytes),
                markdown(cost.device),
            ]
        )
    return grid(lines)


def seconds(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.0f}"


def megabytes(number: int) -> str:
    return f"{number / 1e6:.0f} MB" if number else MISSING


def _reading(board: Leaderboard) -> str:
    cells = [cell for table in board.tables for cell in table.cells.values()]
    notes = [
        "Accuracy on the real test set after the last epoch; nothing was selected on it. Mean ± sample standard "
        "deviation (n) over n networks trained from different initial weights.",
    ]
    if any(cell.sets > 1 for cell in cells):
        notes.append("(s×n): s sets, made with different seeds, with n networks each.")
    if any(cell.sets == 1 for cell in cells):
        notes.append(
            "(n): the networks were trained on one set. ± then does not say how much another distillation seed "
            "would change."
        )
    notes.append(
        "Bold: the highest mean, where Welch's t-test tells it from every other method in the same place at 5 % "
        "(Holm-corrected, n ≥ 3 each, networks taken as independent); whole does not compete."
    )
    for protocol in board.protocols:
        notes.append(f"Protocol {markdown(protocol.label)}: {_protocol(protocol)}")
    for source, what in board.recipes.items():
        notes.append(f"Settings of {markdown(', '.join(what))}: {markdown(source)}. A row names those that differ.")
    notes.append(
        "Seconds and peaks are medians over runs: of distilling, then of each network trained and tested. Peak: the "
        "allocator's on a GPU, the whole process's resident memory on a CPU."
    )
    return "## How to read this\n\n" + "\n".join(f"- {note}" for note in notes)


def _protocol(protocol: Protocol) -> str:
    def budget(part: Budget) -> str:
        drops = ", ".join(map(str, part.drops))
        return f"{part.epochs} epochs" + (f" (rate × {protocol.decay} after {drops})" if drops else "")

    operations = "/".join(protocol.augmentation)
    augmentation = (
        f"DSA {operations}, one per batch, without flip where a mirror image is another class"
        if operations
        else "no augmentation"
    )
    return (
        f"{budget(protocol.synthetic)} on a synthetic set, {budget(protocol.whole)} on the whole set; "
        f"SGD, rate {protocol.lr}, momentum {protocol.momentum}, weight decay {protocol.weight_decay}, "
        f"batch {protocol.batch}; labels: {protocol.labels}; {augmentation}. Source: {markdown(protocol.source)}."
    )
