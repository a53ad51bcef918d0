"""`python -m benchmarks.beyond PAGE DB…`: the tables of a page of docs/ on more than accuracy, from databases of runs.

A table stands between `<!-- EVALUATOR DATASET IPC METRIC… -->` and `<!-- end -->`: what the section `measured` of a
report says there, of these metrics and of those that begin so, of all if none is named. A table that no database has
stays as it is, and that is said.
"""

import re
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from dambench.core.sanitize import markdown
from dambench.report.formats.markdown import SENTENCE, cell, grid
from dambench.report.sections import measured as section
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.measured import MeasuredPlace, measured
from dambench.store.runs import Store

TABLE = re.compile(r"<!-- (?P<what>\w+ [\w-]+ \d+)(?P<metrics>[ \w-]*) -->\n.*?<!-- end -->", re.DOTALL)
UNTOLD = "What each line is says"
"""The beginning of a note that is of the report alone."""


def main() -> int:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path, boards = Path(sys.argv[1]), []
    for database in sys.argv[2:]:
        with closing(Store.open(Path(database))) as store:
            board = leaderboard(store)
            board.measured = measured(store)
            boards.append(board)
    path.write_text(TABLE.sub(lambda found: _table(found, boards), path.read_text()))
    return 0


def _table(found: re.Match[str], boards: Sequence[Leaderboard]) -> str:
    evaluator, dataset, ipc = found["what"].split()
    prefixes = tuple(found["metrics"].split())
    for board in boards:
        if measured_here := with_metrics(board.measured, (evaluator, dataset, int(ipc)), prefixes):
            table = written(replace(board, measured=measured_here))
            return f"<!-- {found['what']}{found['metrics']} -->\n{table}\n<!-- end -->"
    print(f"No database has {found['what']}: its table stays as it is.", file=sys.stderr)
    return found[0]


def with_metrics(
    measured_places: Sequence[MeasuredPlace], where: tuple[str, str, int], prefixes: tuple[str, ...]
) -> list[MeasuredPlace]:
    """What was measured by an evaluator on a dataset at an IPC, with the metrics of a table alone.

    Where the usual options were measured, others are left to the report.

    Args:
        where: evaluator, dataset and IPC.
        prefixes: what the names of the metrics begin with; none: all metrics.
    """
    found: list[MeasuredPlace] = []
    for place in measured_places:
        metrics = [metric for metric in place.metrics if not prefixes or metric.name.startswith(prefixes)]
        if (place.evaluator, place.dataset, place.ipc) == where and metrics:
            found.append(replace(place, metrics=metrics))
    usual = [place for place in found if not place.options]
    return usual or found


def written(board: Leaderboard) -> str:
    """What is measured on a leaderboard, in markdown: a table each, its title in words above, its notes below."""
    lines = []
    for part in section.parts(board, (), ()):
        rows = [[markdown(name), *map(cell, entries)] for name, entries in part.lines]
        table = [grid([[markdown(text) for text in part.head], *rows])] if part.head else []
        notes = [markdown(note.split(f" {UNTOLD}")[0], SENTENCE) for note in part.notes]
        lines += [f"{markdown(part.title, SENTENCE)}:", *table, "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(line for line in lines if line)


if __name__ == "__main__":
    sys.exit(main())
