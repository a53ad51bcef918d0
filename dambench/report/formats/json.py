"""The leaderboard as JSON: everything that the other formats print, unrounded. The same runs give the same bytes."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from dambench import __version__
from dambench.report import quantities, wording
from dambench.report.quantities import TableView
from dambench.report.sections import SECTIONS
from dambench.report.sections.runs import runs_of
from dambench.report.verdict import remarks, verdict
from dambench.store.cells import Cell, Key
from dambench.store.leaderboard import Leaderboard, Table
from dambench.store.metrics import ACCURACY
from dambench.store.transfer import Transfer

SUFFIXES = (".json",)

KEYS = {"cost": "costs"}
"""Names of sections that are others here."""


def render(board: Leaderboard, rows: Sequence[str], columns: Sequence[str], short: bool = False) -> str:
    """One object, in ASCII. Fractions stay fractions; null: not known, not finite, or for the whole set no IPC.

    It has all sections unless some are asked for: those other than of accuracy as a list of records each.
    """
    chosen = board.sections or tuple(SECTIONS)
    whole: dict[str, Any] = {
        "dambench": __version__,
        "finished": board.finished,
        "left_out": board.left_out,
        "diverged": board.diverged,
        "damaged": board.damaged,
        "repeated": board.repeated,
        "unscored": board.unscored,
        "unmeasured": board.unmeasured,
        "filter": board.only,
        "rows": rows,
        "columns": columns,
    }
    for name in chosen:
        if name == "accuracy":
            whole["tables"] = [_table(board, table, rows, columns) for table in board.tables]
        else:
            key = KEYS.get(name, name.replace("-", "_"))
            whole[key] = SECTIONS[name].records(board, rows, columns).dicts()
    whole["protocols"] = [
        msgspec.to_builtins(protocol) | {"label": protocol.label, "sha256": protocol.sha256}
        for protocol in board.protocols
    ]
    whole["recipes"] = board.recipes
    if board.metric != ACCURACY:
        whole["metric"] = msgspec.structs.asdict(board.metric)
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _table(board: Leaderboard, table: Table, rows: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    view, shows = TableView(board, table, rows, columns), quantities.shown(board)
    return {
        "fixed": _axes(tuple(table.fixed), tuple(table.fixed.values())),
        "rows": [_axes(rows, row) for row in table.rows],
        "columns": [_axes(columns, column) | {"majority": table.majority.get(column)} for column in table.columns],
        "cells": [
            _cell(table.cells[row, column])
            | quantities.records(view, (row, column), shows)
            | {"row": row_number, "column": column_number, "best": (row, column) in table.best}
            for row_number, row in enumerate(table.rows)
            for column_number, column in enumerate(table.columns)
            if (row, column) in table.cells
        ],
        "transfer": [
            {"row": table.rows.index(row), "unseen": result.unseen} | _transfer(transfer)
            for result in table.transfer
            for row, transfer in result.rows.items()
            if row in table.rows
        ],
        "verdict": verdict(table, rows, columns),
        "notes": remarks(board, table),
    }


def _transfer(transfer: Transfer) -> dict[str, Any]:
    fields = asdict(transfer)
    return fields | {"interval": None if transfer.interval is None else list(transfer.interval)}


def _axes(axes: Sequence[str], key: Key) -> dict[str, str | int | None]:
    return dict(zip(axes, key, strict=True))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "mean": _finite(cell.mean),
        "interval": None if cell.interval is None else list(cell.interval),
        "bootstrap": None if cell.bootstrap is None else list(cell.bootstrap),
        "unit": cell.unit,
        "sets": cell.sets,
        "networks": cell.networks,
        "seeds": list(cell.seeds),
        "std_between_sets": cell.spread.between_std,
        "std_within_set": cell.spread.within_std,
        "claim": wording.claim(cell),
        "runs": list(runs_of(cell)),
        "scores": [
            {
                "run": score.run,
                "seed": score.seed,
                "repeat": score.repeat,
                cell.metric.name: _finite(value),
                "set_sha256": score.set_sha256,
                "network": score.network,
                "source": score.source,
            }
            for score, value in zip(cell.scores, cell.values, strict=True)
        ],
    }
