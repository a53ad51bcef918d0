"""Full against condensed: what is lost in accuracy, and what is gained in memory and time, when networks are trained on
a synthetic set. The table of the student project that dambench grew from, with the spread that it lacked."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dambench.core.sanitize import counted, display
from dambench.core.units import duration, size
from dambench.report import names, wording
from dambench.report.parts import Part, Records, Section, finite
from dambench.report.sections.runs import runs_of
from dambench.report.wording import MISSING, TableEntry
from dambench.store.cells import Cell, Score, order
from dambench.store.costs import MethodCost
from dambench.store.leaderboard import Leaderboard
from dambench.store.metrics import ACCURACY, MetricRow

TRAIN = MetricRow("accuracy", "train_accuracy", "fraction", "higher", "Accuracy on the set trained on, not augmented")


class SetLine(NamedTuple):
    """Networks trained on the full set, or on a method's sets of one size."""

    dataset: str
    ipc: int | None
    method: str
    network: str
    protocol: str
    cell: Cell
    cost: MethodCost | None
    """On the device with the most runs."""
    devices: int

    @property
    def gpu_memory(self) -> int | None:
        """Bytes; None: on a CPU, or not measured."""
        return self.cost.evaluate_peak_bytes or None if self.cost is not None and self.cost.on_gpu else None


def set_lines(board: Leaderboard) -> list[SetLine]:
    """All of them, the full set of a dataset before the condensed ones; none if another evaluator is shown."""
    if board.metric.evaluator != ACCURACY.evaluator:
        return []
    groups: dict[tuple[str, str, str, int | None, str], list[Score]] = {}
    for score in board.scores:
        key = score.protocol, score.network, score.dataset, score.ipc, score.method
        groups.setdefault(key, []).append(score)
    lines = []
    for key in sorted(groups, key=lambda k: (*k[:3], k[3] is not None, k[3] or 0, order(("method",), (k[4],)))):
        protocol, network, dataset, ipc, method = key
        cell = Cell(tuple(groups[key]), ACCURACY)
        costs = sorted(board.costs_of(cell), key=lambda cost: -cost.runs)
        lines.append(SetLine(dataset, ipc, method, network, protocol, cell, costs[0] if costs else None, len(costs)))
    return lines


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A table for each protocol and trained network."""
    groups: dict[tuple[str, str], list[SetLine]] = {}
    for line in set_lines(board):
        groups.setdefault((line.protocol, line.network), []).append(line)
    return [
        Part(
            f"Full against condensed, protocol {_of('protocol', protocol)}, trained network {_of('network', network)}",
            [
                names.of_axis("dataset"),
                names.of_axis("method"),
                "test accuracy in %",
                "train accuracy in %",
                "GPU memory",
                "training time",
                "device",
            ],
            [(_name(line), _entries(line)) for line in lines],
            list(_notes(lines)),
        )
        for (protocol, network), lines in groups.items()
    ]


def _name(line: SetLine) -> str:
    size = "full" if line.ipc is None else f"condensed, {names.shown('ipc', line.ipc)}"
    return display(f"{names.of('dataset', line.dataset)} ({size})")


def _of(axis: str, value: str) -> str:
    return display(names.of(axis, value))


def _entries(line: SetLine) -> list[TableEntry]:
    cost = line.cost
    return [
        TableEntry(_of("method", line.method)),
        wording.entry(line.cell),
        wording.entry(line.cell.of(TRAIN)),
        TableEntry(MISSING if line.gpu_memory is None else size(line.gpu_memory)),
        TableEntry(MISSING if cost is None else duration(cost.evaluate_seconds)),
        TableEntry(MISSING if cost is None else display(cost.device)),
    ]


def _notes(lines: Sequence[SetLine]) -> Iterator[str]:
    yield (
        "Train accuracy: on the set trained on, synthetic or full, not augmented. Training time: of one network, with "
        "its test, the median over runs; what it took to make the set is in the section cost."
    )
    on_cpu = [line for line in lines if line.cost is not None and not line.cost.on_gpu]
    if on_cpu:
        peaks = [
            line.cost.evaluate_peak_bytes for line in on_cpu if line.cost is not None and line.cost.evaluate_peak_bytes
        ]
        resident = f" The whole process had up to {size(max(peaks))} resident." if peaks else ""
        yield f"GPU memory {MISSING}: trained on a CPU, where none was used.{resident}"
    for line in lines:
        if line.devices > 1 and line.cost is not None:
            yield (
                f"{_name(line)}, {_of('method', line.method)}: memory and time on {display(line.cost.device)}, "
                f"accuracies on {counted(line.devices, 'device')}."
            )


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each dataset, size, method, network and protocol; bytes and seconds."""
    head = ["dataset", "ipc", "condensed", "method", "network", "protocol", "test_accuracy", "train_accuracy"]
    head += ["sets", "networks", "gpu_memory_bytes", "training_seconds", "device", "runs"]
    lines = []
    for line in set_lines(board):
        cost = line.cost
        lines.append(
            [
                *(line.dataset, line.ipc, int(line.ipc is not None), line.method, line.network, line.protocol),
                *(finite(line.cell.mean), finite(line.cell.of(TRAIN).mean), line.cell.sets, line.cell.networks),
                *(line.gpu_memory, cost and cost.evaluate_seconds, cost and cost.device, " ".join(runs_of(line.cell))),
            ]
        )
    return Records(head, lines)


SECTION = Section(
    "the full set against condensed ones: accuracy, memory and training time", parts, records, usual=False
)
