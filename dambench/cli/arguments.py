"""The parser of all commands: an option that takes one value is given once, so that no value is dropped in silence."""

from collections import Counter
from collections.abc import Callable
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


class Command(TyperCommand):
    """One command."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        given = _given_once(self, context, arguments)
        parsed = super().parse_args(context, arguments)
        _refuse_empty_names(context, given)
        return parsed


class Group(TyperGroup):
    """Commands with a common first word."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        given = _given_once(self, context, arguments)
        parsed = super().parse_args(context, arguments)
        _refuse_empty_names(context, given)
        return parsed


class Commands(typer.Typer):
    """A Typer application with this parser."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        return super().command(name, cls=Command, **settings)
