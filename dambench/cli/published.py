"""`dambench published`: the figures that papers print."""

import json
from typing import Annotated, Any

import msgspec
from typer import Argument, Option

from dambench import published
from dambench.cli.options import Json
from dambench.cli.output import say, table
from dambench.core.errors import folded, named


def published_(
    method: Annotated[str | None, Argument(metavar="[METHOD]", help="Only of this one, as `dm` or `FRePo`.")] = None,
    dataset: Annotated[str | None, Option(help="Only on this one.")] = None,
    as_json: Json = False,
) -> None:
    """List the figures that papers print, with where they were read and how they were measured."""
    values = published.load()
    if dataset is not None:
        dataset = named("dataset with published figures", dataset, {value.dataset for value in values})
    if method is not None:
        called = {folded(value.name): value.method for value in values}
        method = called.get(folded(method)) or named(
            "method with published figures", method, {value.method for value in values}
        )
    values = tuple(v for v in values if dataset in (None, v.dataset) and method in (None, v.method))
    values = tuple(sorted(values, key=_order))
    if as_json:
        print(json.dumps([_facts(value) for value in values]))
        return
    table(
        ["dataset", "method", "IPC", "value", "network", "protocol", "sets×networks", "source"],
        [_line(value) for value in values],
    )
    recalled = sum(value.recalled for value in values)
    say(f"{len(values)} figures, {recalled} of them recalled and not checked. --json has all that is known of each.")


def _order(value: published.PublishedValue) -> tuple[Any, ...]:
    """A key that puts what can be compared together, accuracies first."""
    measured_on = (value.ipc is None, value.ipc or 0, value.network, value.paper, value.table)
    return value.dataset, value.name.lower(), value.quantity != published.ACCURACY, value.quantity, *measured_on


def _line(value: published.PublishedValue) -> list[Any]:
    variant = f" ({value.variant})" if value.variant else ""
    return [
        value.dataset,
        f"{value.name}{variant}",
        "whole" if value.ipc is None else value.ipc,
        f"{'' if value.quantity == published.ACCURACY else value.quantity} {value.text} {value.unit}".strip(),
        value.network or None,
        value.protocol or None,
        value.n or None,
        f"{value.source}. {value.note}".rstrip(". ") if value.note else value.source,
    ]


def _facts(value: published.PublishedValue) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(value)
    return facts | {"unit": value.unit, "n": value.n}
