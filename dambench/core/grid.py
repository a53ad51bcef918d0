"""A grid of settings: every combination of a few values, the same for every arm of a comparison."""

import tomllib
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from dambench.core import config
from dambench.core.config import MAX_RUNS, MOST_VALUE
from dambench.core.errors import BadInput
from dambench.core.sanitize import display

TUNABLE = ("iterations", "network", "precision", "preprocessing", "protocol", "recipe")
"""Fields of a request that a grid may have, besides the options of methods and fields of protocols."""
GROUPS = ("method", "protocol")

Grid = dict[str, list[Any]]
"""By setting, `iterations` or `method.lr_images`, its values."""

Point = dict[str, Any]
"""One value of each setting of a grid."""


def parse(pairs: Sequence[str]) -> Grid:
    """Read `["method.lr_images=0.1,1", "iterations=100,200"]`.

    A value that has commas itself is written in a TOML list: `recipe=["a", "b"]`.

    Raises:
        BadInput: a pair is not of that form, or its setting is none to choose by validation images or there twice.
    """
    grid: Grid = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        group, dot, option = name.partition(".")
        if not equals or not text or (dot and not (group in GROUPS and option)):
            raise BadInput(
                f"--grid {display(pair, 100)!r} is not of the form method.NAME=A,B, protocol.NAME=A,B or NAME=A,B."
            )
        if not dot and name not in TUNABLE:
            raise BadInput(
                f"--grid {display(name, 60)!r} is not a setting to be chosen: it takes method.NAME, protocol.NAME, "
                f"{', '.join(TUNABLE[:-1])} or {TUNABLE[-1]}."
            )
        if name in grid:
            raise BadInput(f"--grid {display(name, 60)!r} is there more than once: give all its values at once.")
        values = values_in(text)
        if len({repr(value) for value in values}) < len(values):
            raise BadInput(f"--grid {display(pair, 100)!r} has a value twice.")
        grid[name] = values
    if prod(map(len, grid.values())) > MAX_RUNS:
        raise BadInput(f"The grid has more than {MAX_RUNS} combinations.")
    return grid


def values_in(text: str) -> list[Any]:
    """The values of a text: a TOML list, or parts between commas, each as TOML has it, else a text."""
    whole = _value(text)
    if isinstance(whole, list) and whole:
        return whole
    return [_value(part.strip()) for part in text.split(",")]


def _value(text: str) -> Any:
    """What TOML makes of a text, else the text."""
    try:
        parsed = tomllib.loads(f"value = {text[:MOST_VALUE]}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def points(grid: Grid) -> list[Point]:
    """All combinations, the last setting changing fastest; one without any setting for an empty grid."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def fields(point: Point) -> dict[str, Any]:
    """The same as fields of a request."""
    rest = {name: value for name, value in point.items() if "." not in name}
    options: dict[str, dict[str, Any]] = {}
    for name, value in point.items():
        group, dot, option = name.partition(".")
        if dot:
            options.setdefault(group, {})[option] = value
    return config.overlay(rest, options)
