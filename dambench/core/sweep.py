"""Sweeps: the cartesian product of settings, as a TOML file describes it, and the requests that it stands for.

    name = "digits"                  # else the file's own

    [run]                            # what all runs share: a request, as in the file of a single run
    dataset = "digits"
    eval_repeats = 3

    [grid]                           # each list is an axis
    method = ["random", "dm", {name = "dm", iterations = 1000}]
    ipc = [1, 10]
    seed = {from = 0, to = 4}        # a range, both ends included; step = 2 leaves every other out
    "method.lr_images" = [0.1, 1]    # a setting of the method or dataset, or a field of the protocol

    [[skip]]                         # combinations that are left out: all that a rule says must hold
    method = "random"
    "method.lr_images" = [1]

    evaluators = ["robustness"]      # above the first table: what is measured of each run's set, too

Several grids are several [[part]], each with [part.run], [part.grid] and [[part.skip]]; [run] is what all share.
Runs of the whole training set have no images per class: those that differ in `ipc` alone are one run.
"""

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from dambench.core import config, registry, sweep_evaluators
from dambench.core.config import Request
from dambench.core.errors import BadInput, folded, unknown
from dambench.core.sanitize import display
from dambench.core.sweep_evaluators import SweepEvaluator

MOST_RUNS = 20_000
"""Runs of one sweep."""
_LARGEST = 1e18
"""Number that a range may have."""
PARTS = ("name", "evaluators", "run", "grid", "skip", "part")
PARTS_OF_PART = ("evaluators", "run", "grid", "skip")
FIRST = ("random", "whole")
"""Methods whose runs come first: without them no other can be read."""
WITHOUT_IPC = ("whole",)
TAG = "sweep:"
"""What the tag of a sweep's runs begins with."""
SUITE_TAG = "suite:"
"""What the tag of a suite's runs begins with."""
NAME = "[A-Za-z0-9._-]{1,60}"
"""What a sweep may be called."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    settings: Mapping[str, Any]
    """What the grid says of it, by axis; without the seed."""
    request: Request
    evaluators: tuple[SweepEvaluator, ...] = ()
    """What is measured of its set."""

    @property
    def seed(self) -> int:
        return self.request.seed or 0


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, in the order in which they are made."""

    name: str
    axes: tuple[str, ...]
    """In the file's order; the seed last, if it is one."""
    points: tuple[Point, ...]
    product: int
    """Combinations of the grid, those that are skipped too."""
    idle_rules: tuple[int, ...]
    """Numbers of the rules, from 1 through all parts, that leave nothing out."""
    prefix: str = TAG
    """What its tag begins with."""

    @property
    def tag(self) -> str:
        return f"{self.prefix}{self.name}"


def read(path: Path) -> Sweep:
    """The sweep in a TOML file.

    Raises:
        BadInput: the file cannot be read, has an unknown part or setting, or stands for no run or for too many.
    """
    whose = f"{str(path)!r}"
    fields = config.toml_in(path)
    for key in fields:
        if key not in PARTS:
            raise BadInput(f"In {whose}: {unknown('part', key, PARTS)}")
    name = fields.get("name", path.stem)
    return of_fields(fields, name, whose)


def of_fields(fields: Mapping[str, Any], name: object, whose: str) -> Sweep:
    """The sweep that the parts of a file, or of a command, stand for.

    Raises:
        BadInput: as `read`.
    """
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise BadInput(f"In {whose}: name = {display(str(name), 60)!r} may have letters, digits, . _ and -, up to 60.")
    return _sweep_of(fields, name, whose, TAG)


def _sweep_of(fields: Mapping[str, Any], name: str, whose: str, prefix: str) -> Sweep:
    """The sweep that the parts of a file stand for: one grid, or the grids of all its parts."""
    parts = fields.get("part", [])
    if not isinstance(parts, list) or ("part" in fields and not parts):
        raise BadInput(f"In {whose}: part is a list of grids, each under [[part]].")
    if parts and ("grid" in fields or "skip" in fields):
        raise BadInput(f"In {whose}: beside [[part]] there is no [grid] and no [[skip]]: they are in each part.")
    common = _table(fields.get("run", {}), f"{whose}, [run]")
    of_all = _evaluators(fields, whose)
    axes_of_all: dict[str, None] = {}
    points: list[Point] = []
    product, idle, rules_before = 0, [], 0
    for number, part in enumerate(parts or [fields], 1):
        where = f"{whose}, part {number}" if parts else whose
        if parts:
            for key in _table(part, where):
                if key not in PARTS_OF_PART:
                    raise BadInput(f"In {where}: {unknown('part', key, PARTS_OF_PART)}")
        shared = common | _table(part.get("run", {}), f"{where}, [run]") if parts else common
        axes = _axes(_table(part.get("grid", {}), f"{where}, [grid]"), shared, f"{where}, [grid]")
        size = prod(map(len, axes.values()))
        product += size
        if product > MOST_RUNS:
            sizes = " × ".join(f"{len(values)} {axis}" for axis, values in axes.items())
            raise BadInput(f"In {where}: {sizes} are {size} runs, and {MOST_RUNS} are the most of one sweep.")
        rules = _rules(part.get("skip", []), axes, shared, where)
        found, used = _points(axes, shared, rules, f"{prefix}{name}", where)
        if not found:
            raise BadInput(f"In {where}: [[skip]] leaves out all {size} runs of the grid.")
        idle += [rules_before + rule for rule in range(1, len(rules) + 1) if rule not in used]
        rules_before += len(rules)
        axes_of_all |= dict.fromkeys(axes)
        own = _evaluators(part, where) if parts else ()
        evaluators = (*of_all, *(one for one in own if one not in of_all))
        points += [replace(point, evaluators=evaluators) for point in found] if evaluators else found
    return Sweep(name, tuple(axes_of_all), tuple(_ordered(points)), product, tuple(idle), prefix)


def _evaluators(fields: Mapping[str, Any], where: str) -> tuple[SweepEvaluator, ...]:
    return (
        sweep_evaluators.read(fields["evaluators"], registry.names("evaluators"), where)
        if "evaluators" in fields
        else ()
    )


def _ordered(points: Sequence[Point]) -> list[Point]:
    """One seed of everything before the second of anything, baselines first."""
    places = {seed: place for place, seed in enumerate(dict.fromkeys(point.seed for point in points))}
    return sorted(points, key=lambda point: (places[point.seed], _method(point.request) not in FIRST))


def shipped() -> dict[str, str]:
    """The suites that come with dambench: what each is, by name."""
    found = {}
    for entry in sorted(resources.files("dambench.suites").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            found[entry.name.removesuffix(".toml")] = str(tomllib.loads(entry.read_text("utf-8"))["what"])
    return found


def suite(name: str, data: str = "", options: Mapping[str, Any] | None = None) -> Sweep:
    """A suite that comes with dambench: the runs of a whole table.

    Args:
        data: the user's own folder or .npz file, for the suite `mine`.
        options: of the dataset, as `split`, for the suite `mine`.

    Raises:
        BadInput: there is none of that name, or it needs data of the user's, or has its own.
    """
    if name not in (known := shipped()):
        raise unknown("suite", name, known)
    text = (resources.files("dambench.suites") / f"{name}.toml").read_text("utf-8")
    fields = tomllib.loads(text)
    if fields.pop("own_data", False):
        if not data:
            raise BadInput(f"The suite {name} is of your own images: --data says which folder or .npz file.")
        kind = "arrays" if data.lower().endswith(".npz") else "folder"
        fields["run"]["dataset"] = {"name": kind} | dict(options or {})
    elif options:
        raise BadInput(f"--set is for the suite of your own images; {name} has its own data.")
    if data:
        fields["run"]["data"] = data
    fields.pop("what")
    return _sweep_of(fields, name, f"the suite {name}", SUITE_TAG)


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"In {where}: it is {display(repr(value), 60)}, and a table is needed.")
    return value


def _axes(grid: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    """The values of each axis."""
    flat: dict[str, Any] = {}
    for key, value in grid.items():
        if key in ("method", "dataset") and isinstance(value, dict) and "from" not in value:
            flat |= {f"{key}.{option}": values for option, values in value.items()}
        else:
            flat[key] = value
    axes = {}
    for key, value in flat.items():
        _check_setting(key, where)
        if key in shared or (key == "seed" and "seeds" in shared):
            raise BadInput(f"{key} is in [run] and in [grid] of {where.partition(',')[0]}: say it in one of them.")
        axes[key] = _values(key, value, where)
    if "seed" in axes:
        axes["seed"] = axes.pop("seed")
    return axes


def _check_setting(key: str, where: str) -> None:
    """See that a setting is one of a run's, or of its method's, dataset's or protocol's."""
    kind, dot, option = key.partition(".")
    if dot and kind in config.OF_REQUEST and option:
        return
    if key == "seeds":
        raise BadInput(f"In {where}: the seeds are the axis seed, as seed = [0, 1] or {{from = 0, to = 4}}.")
    if key not in Request.__struct_fields__:
        raise BadInput(f"In {where}: {unknown('setting', key, Request.__struct_fields__)}")
    if key in ("tags", "name"):
        raise BadInput(f"In {where}: {key} is no setting of a run, and cannot be an axis: put it into [run].")


def _values(key: str, value: object, where: str) -> list[Any]:
    """The values of an axis: a list, a range, or one value."""
    if isinstance(value, dict) and "from" in value:
        values = _range(key, value, where)
    else:
        values = list(value) if isinstance(value, list) else [value]
        if key == "evaluate_on" and values and not isinstance(values[0], list):
            values = [values]  # one list of networks, not an axis of single ones
    if not values:
        raise BadInput(f"In {where}: {key} has no value.")
    if key == "seed" and (wrong := [one for one in values if type(one) is not int or not 0 <= one <= config.MAX_SEED]):
        raise BadInput(f"In {where}: seed {display(str(wrong[0]), 40)} is no whole number from 0 to {config.MAX_SEED}.")
    if len({repr(_comparable(one)) for one in values}) < len(values):
        raise BadInput(f"In {where}: {key} has a value twice.")
    return values


def _range(key: str, value: Mapping[str, Any], where: str) -> list[Any]:
    parts = [value.get("from"), value.get("to"), value.get("step", 1)]
    numbers: list[Any] = [one for one in parts if isinstance(one, int | float) and not isinstance(one, bool)]
    first, last, step = numbers if len(numbers) == 3 else (0, -1, 1)
    finite = all(-_LARGEST <= one <= _LARGEST for one in (first, last, step))  # not so is what is no number
    if set(value) - {"from", "to", "step"} or not finite or not step > 0 or not first <= last:
        raise BadInput(
            f"In {where}: {key} is no range: {{from = 0, to = 4}}, or with step = 2; both ends are numbers, the first "
            "not above the last, and are included."
        )
    steps = (last - first) / step + 1e-9
    if steps >= MOST_RUNS:
        number = f"{int(steps) + 1}" if steps <= _LARGEST else "endlessly many"
        raise BadInput(f"In {where}: the range of {key} has {number} values, and {MOST_RUNS} are the most.")
    count = int(steps) + 1
    return [first + number * step for number in range(count)]


def _rules(
    given: object, axes: Mapping[str, Sequence[Any]], shared: Mapping[str, Any], whose: str
) -> list[dict[str, list[Any]]]:
    if not isinstance(given, list):
        raise BadInput(f"In {whose}: skip is a list of rules, each under [[skip]].")
    rules = []
    for number, rule in enumerate(given, 1):
        where = f"{whose}, rule {number} of [[skip]]"
        flat: dict[str, Any] = {}
        for key, value in _table(rule, where).items():
            nested = isinstance(value, dict) and key in ("method", "dataset")
            flat |= {f"{key}.{option}": one for option, one in value.items()} if nested else {key: value}
        if not flat:
            raise BadInput(f"In {where}: it says nothing, and would leave out everything.")
        known = (*axes, *(key for key in shared if key not in axes))
        for key in flat:
            if key not in known:
                raise BadInput(f"In {where}: {unknown('axis', key, known)}")
        rules.append({key: value if isinstance(value, list) else [value] for key, value in flat.items()})
    return rules


def _points(
    axes: Mapping[str, Sequence[Any]],
    shared: Mapping[str, Any],
    rules: Sequence[Mapping[str, Sequence[Any]]],
    tag: str,
    whose: str,
) -> tuple[list[Point], set[int]]:
    """The runs that are left, one seed of everything before the second of anything, baselines first."""
    found: dict[tuple[str, int], Point] = {}
    used: set[int] = set()
    seeds = axes.get("seed", [None])
    others = {axis: values for axis, values in axes.items() if axis != "seed"}
    for combination in itertools.product(*others.values()):
        settings = dict(zip(others, combination, strict=True))
        request: Request | None = None
        for seed in seeds:
            chosen = settings if seed is None else settings | {"seed": seed}
            matching = [number for number, rule in enumerate(rules, 1) if _matches(rule, chosen, shared)]
            used.update(matching)
            if matching:
                continue
            if request is None:
                request = _request(chosen, shared, tag, whose)
                without_seed = msgspec.json.encode(msgspec.structs.replace(request, seed=None, seeds=None)).decode()
            shown = settings | ({"ipc": None} if "ipc" in settings and request.ipc is None else {})
            seeded = request if seed is None else msgspec.structs.replace(request, seed=seed)
            for each in seeded.each_seed():
                found.setdefault((without_seed, each.seed or 0), Point(shown, each))
    points = _ordered(list(found.values()))
    if len(points) > MOST_RUNS:
        raise BadInput(f"In {whose}: it stands for {len(points)} runs, and {MOST_RUNS} are the most of one sweep.")
    return points, used


def _request(chosen: Mapping[str, Any], shared: Mapping[str, Any], tag: str, whose: str) -> Request:
    fields = dict(shared)
    fields = config.overlay(fields, {axis: value for axis, value in chosen.items() if "." not in axis})
    options: dict[str, dict[str, Any]] = {}
    for axis, value in chosen.items():
        kind, dot, option = axis.partition(".")
        if dot:
            options.setdefault(kind, {})[option] = value
    fields = config.overlay(fields, options)
    tags = fields.get("tags", [])
    fields["tags"] = [*(tags if isinstance(tags, list) else [tags]), tag]
    request = config.read(Request, fields, f"the sweep {whose}")
    if _method(request) in WITHOUT_IPC and request.ipc is not None:
        request = msgspec.structs.replace(request, ipc=None)
    return request


def _method(request: Request) -> str:
    method = request.method
    name = method.get("name", "") if isinstance(method, dict) else method
    return folded(str(name or ""))


def _matches(rule: Mapping[str, Sequence[Any]], chosen: Mapping[str, Any], shared: Mapping[str, Any]) -> bool:
    """Tell whether all that a rule says holds for a combination."""
    for key, values in rule.items():
        here = _comparable(chosen[key] if key in chosen else shared.get(key))
        if here not in [_comparable(value) for value in values]:
            return False
    return True


def _comparable(value: Any) -> Any:
    """A value as it is compared: names by their letters alone, a method with settings only as a whole."""
    if isinstance(value, str):
        return folded(value)
    if isinstance(value, dict) and set(value) == {"name"}:
        return folded(str(value["name"]))
    return value


def file_of(request: Request) -> dict[str, Any]:
    """The fields of a request as its own TOML file has them."""
    return {key: value for key, value in msgspec.structs.asdict(request).items() if value is not None}
