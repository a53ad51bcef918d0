"""Requests in which a setting has several values, as `--ipc 1,10` or `ipc = [1, 10]`: they stand for a sweep."""

import hashlib
import json
import re
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from dambench.core import config, registry
from dambench.core import sweep as grids
from dambench.core.config import Request
from dambench.core.errors import BadInput, unknown
from dambench.core.grid import values_in
from dambench.core.sanitize import display
from dambench.core.sweep import Sweep

AXES = (
    *("method", "dataset", "ipc", "network", "recipe", "iterations", "seed", "protocol", "eval_repeats"),
    *("evaluate_every", "preprocessing", "precision"),
)
"""Settings that may have several values."""
ONE_VALUE = {
    "device": '"cuda:0,1" is one run on both; `dambench queue work --device cuda:0,1` is a run on each',
    "data": "one folder or file is the data of one dataset; a sweep's file may have several (docs/sweeps.md)",
    "name": "it is what all these runs, and their sweep, are called",
}
"""Settings that are no axes, and why a list of them is none."""


class Listed(NamedTuple):
    """A request, apart from what has several values."""

    single: dict[str, Any]
    axes: dict[str, Any]
    """By setting, `ipc` or `method.lr_images`: a list, or a range."""


def apart(fields: Mapping[str, Any], whose: str) -> Listed:
    """Take a request apart.

    Raises:
        BadInput: a setting has several values that can have only one.
    """
    single: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    for key, value in fields.items():
        networks = key == "evaluate_on" and isinstance(value, list) and value and isinstance(value[0], list)
        if key in ("method", "dataset") and isinstance(value, dict) and "from" not in value:
            single[key] = dict(value)
        elif networks or (key in AXES and _is_several(value)):
            axes[key] = value
        elif key not in ("tags", "seeds", "evaluate_on") and isinstance(value, list):
            why = ONE_VALUE.get(key, "it says how runs are carried out, and is the same for all")
            raise BadInput(f"In {whose}: {key} = {display(repr(value), 60)}: it has one value: {why}.", field=key)
        else:
            single[key] = value
    return Listed(single, axes)


def _is_several(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and "from" in value)


def over(below: Listed, above: Listed) -> Listed:
    """One request with what another says on top: what has one value in the one may have several in the other."""
    given = {key for key, value in above.single.items() if value is not None and not _is_only_options(key, value)}
    given |= above.axes.keys()
    if given & {"seed", "seeds"}:
        given |= {"seed", "seeds"}
    several = {"seed", "seeds"} if "seed" in above.axes else set()
    kept = {key: value for key, value in below.single.items() if key not in above.axes.keys() | several}
    axes = {key: values for key, values in below.axes.items() if key not in given}
    return Listed(config.overlay(kept, above.single), axes | above.axes)


def _is_only_options(key: str, value: object) -> bool:
    return key in config.OF_REQUEST and isinstance(value, dict) and "name" not in value


def _options_apart(asked: Listed) -> Listed:
    """Options of methods and datasets with several values become axes, too; one that takes a list keeps it."""
    single, axes = dict(asked.single), dict(asked.axes)
    for kind in ("method", "dataset"):
        options = single.get(kind)
        if not isinstance(options, dict):
            continue
        names = [options["name"]] if "name" in options else _names(axes.get(kind))
        several = {}
        for key, value in options.items():
            if key != "name" and (values := _several(kind, names, key, value)) is not None:
                several[f"{kind}.{key}"] = values
        options = {key: value for key, value in options.items() if f"{kind}.{key}" not in several}
        if kind in axes:  # one value each, for all of them
            several |= {f"{kind}.{key}": [value] for key, value in options.items()}
            del single[kind]
        else:
            single[kind] = options
        axes |= several
    return Listed(single, axes)


def _fields_apart(options: Mapping[str, Any], *, several: bool) -> Listed:
    """What `--set` says, with fields of protocols that have several values as axes.

    Args:
        several: there are several protocols, so that what is changed of all of them is an axis, too.
    """
    single, fields = dict(options), dict(options.get("protocol", {}))
    for name, value in fields.items():
        if isinstance(value, str) and "," in value:
            fields[name] = values_in(value)
    if not fields or not (several or any(map(_is_several, fields.values()))):
        return Listed(single, {})
    del single["protocol"]
    return Listed(single, {f"protocol.{name}": value for name, value in fields.items()})


def _names(values: object) -> list[str]:
    each = values if isinstance(values, list) else []
    return [name for one in each if isinstance(name := one.get("name") if isinstance(one, dict) else one, str)]


def _several(kind: Literal["method", "dataset"], names: Sequence[str], option: str, value: Any) -> Any | None:
    """The values of an option; None: it has one, which may be a list.

    A text with commas is several values where the option takes no text; several texts are a TOML list.
    """
    if not (_is_several(value) or (isinstance(value, str) and "," in value)):
        return None
    takes = {wanted for name in names for wanted in _taken(kind, name, option)}
    if isinstance(value, str):
        return None if not takes or str in takes else values_in(value)
    if isinstance(value, list) and takes & {list, tuple}:
        return value if value and all(isinstance(one, list) for one in value) else None
    if isinstance(value, dict) and dict in takes:
        return None
    return value


def _taken(kind: Literal["method", "dataset"], name: str, option: str) -> set[Any]:
    """The kinds of values that an option takes; none: there is no such option, or no such plug-in."""
    with suppress(BadInput):  # which is said where the request is read
        plugin = registry.load("methods", name) if kind == "method" else registry.load("datasets", name)
        hint = get_type_hints(plugin.Options).get(option)
        found, pending = set(), [] if hint is None else [hint]
        while pending:
            one = pending.pop()
            if get_origin(one) in (Union, types.UnionType):
                pending += get_args(one)
            elif get_origin(one) is Literal:
                found |= {type(word) for word in get_args(one)}
            else:
                found.add(get_origin(one) or one)
        return found
    return set()


def read(file: Path | None, given: Mapping[str, Any], pairs: Sequence[str], data: str | None) -> Sweep | None:
    """The sweep that a command asks for; None: nothing that it says has several values.

    Args:
        file: TOML of a run, which flags go over.
        given: by field, from flags.
        pairs: of `--set`.
        data: where raw data are, if nothing else is said.

    Raises:
        BadInput: a setting has several values that can have only one, or the sweep stands for no run or for too many.
    """
    asked = Listed({}, {})
    if file is not None:
        whose = f"{str(file)!r}"
        fields = config.toml_in(file)
        for key in fields:
            if key not in Request.__struct_fields__:
                raise BadInput(f"In {whose}: {unknown('setting', key, Request.__struct_fields__)}")
        config.check_said_once(fields, whose)
        asked = apart(fields, whose)
    options = config.settings(list(pairs))
    config.check_said_once({**given, **options}, "the command")
    if data:
        asked = over(asked, Listed({"data": data}, {}))
    asked = over(asked, apart({key: value for key, value in given.items() if value is not None}, "the command"))
    asked = _options_apart(over(asked, _fields_apart(options, several="protocol" in asked.axes)))
    if not asked.axes:
        return None
    name = asked.single.get("name") or (file.stem if file is not None and re.fullmatch(grids.NAME, file.stem) else "")
    fields = {"run": asked.single, "grid": asked.axes}
    return grids.of_fields(fields, str(name) or _name_of(asked), "the command" if file is None else f"{str(file)!r}")


def _name_of(asked: Listed) -> str:
    """A name that the same settings always get, whatever their seeds: `dataset-ipc-1f0a92cd`."""
    but = ("seed", "seeds", "tags", "device", "threads", "data", "checkpoint_every", "ranks", "compile")
    given = {key: value for key, value in [*asked.single.items(), *asked.axes.items()] if key not in but}
    digest = hashlib.sha256(json.dumps(msgspec.to_builtins(given), sort_keys=True).encode()).hexdigest()[:8]
    axes = "-".join(re.sub("[^A-Za-z0-9]+", "-", axis) for axis in asked.axes if axis != "seed")
    return f"{axes[:48]}-{digest}".lstrip("-")


def refuse(fields: Mapping[str, Any], whose: str) -> None:
    """See that no setting has several values, for who makes one run.

    Raises:
        BadInput: one has.
    """
    for key, value in fields.items():
        if key in AXES and _is_several(value) and not (key in ("method", "dataset") and isinstance(value, dict)):
            raise BadInput(
                f"In {whose}: {key} has several values, which is a sweep: `dambench run` and `queue add` make its "
                "runs, each with one.",
                field=key,
            )
