"""The parser of all commands: an option that takes one value is given once, so that no value is dropped in silence."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from dambench.core.errors import BadInput

Function = TypeVar("Function", bound=Callable[..., Any])


def _given_once(command: TyperCommand | TyperGroup, context: Any, arguments: list[str]) -> dict[str, Any]:
    """The values of a command's options by parameter, each given once at most.

    Raises:
        BadInput: one that takes a single value is repeated.
    """
    given, _, order = command.make_parser(context).parse_args(list(arguments))
    for option, times in Counter(each for each in order if isinstance(each, TyperOption)).items():
        # A plain flag says the same each time; --x and --no-x do not.
        repeatable = option.multiple or (option.is_flag and not option.secondary_opts)
        if times > 1 and not repeatable:
            raise BadInput(f"{'/'.join(option.opts + option.secondary_opts)} is given {times} times: say it once.")
    return given


def _refuse_empty_names(context: Any, given: dict[str, Any]) -> None:
    """Refuse an empty name of a file, which would be the folder that we are in: a script's variable was not set."""
    for name, value in given.items():
        empty = value == "" and isinstance(context.params.get(name), Path)
        if empty or (isinstance(value, list | tuple) and "" in value):
            raise BadInput(f"{name.rstrip('_').replace('_', '-').upper()} is an empty text, which names nothing.")


def _spare(command: TyperCommand | TyperGroup, context: Any) -> None:
    """See that pydantic, which reads values for Typer, is imported only where there is something to read.

    A default is of its type already, and a text for a text is one. The import takes as long as a list of runs.
    """
    for param in command.get_params(context):
        if "process_value" not in vars(param):
            vars(param)["process_value"] = partial(_read, param, param.process_value)


def _read(param: Any, read: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """The value of a parameter, by Typer's own way of reading it where that could change anything."""
    source = context.get_parameter_source(param.name)
    is_default = source is not None and source.name == "DEFAULT" and not param.required
    described: Any = getattr(param, "type_descriptor", None)
    kind = getattr(described, "annotation", None)
    if param.nargs != 1 or getattr(param, "multiple", False):
        if not is_default or value is not None:
            return read(context, value)
        value = ()  # as Typer has what may be given several times, and was not
    elif kind is Path and isinstance(value, str) and _is_any_path(described.parameter_info) and _can_be_read(value):
        value = Path(value)
    elif not (is_default or (kind is str and isinstance(value, str))):
        return read(context, value)
    return value if param.callback is None else param.callback(context, param, value)


def _can_be_read(path: str) -> bool:
    return "\0" not in path and os.access(path, os.R_OK)


def _is_any_path(asked: Any) -> bool:
    """Whether nothing is asked of a path but that what is there can be read."""
    return asked.file_okay and asked.dir_okay and not (asked.writable or asked.resolve_path)


class Command(TyperCommand):
    """One command."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        return _parsed(self, super().parse_args, context, arguments)


class Group(TyperGroup):
    """Commands with a common first word."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        return _parsed(self, super().parse_args, context, arguments)


def _parsed(
    command: Any, parse: Callable[[Any, list[str]], list[str]], context: Any, arguments: list[str]
) -> list[str]:
    _spare(command, context)
    given = _given_once(command, context, arguments)
    parsed = parse(context, arguments)
    _refuse_empty_names(context, given)
    return parsed


class Commands(typer.Typer):
    """A Typer application with this parser."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        return super().command(name, cls=Command, **settings)
