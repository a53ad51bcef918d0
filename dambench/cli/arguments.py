"""The parser of all commands: an option that takes one value is given once, so that no value is dropped in silence."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from dambench.core.errors import BadInput

Function = TypeVar("Function", bound=Callable[..., Any])


class _Once:
    """A command that reads its options once before they are parsed."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        given, _, order = self.make_parser(context).parse_args(list(arguments))  # type: ignore[attr-defined]
        for option, times in Counter(each for each in order if isinstance(each, TyperOption)).items():
            # A plain flag says the same each time; --x and --no-x do not.
            repeatable = option.multiple or (option.is_flag and not option.secondary_opts)
            if times > 1 and not repeatable:
                raise BadInput(f"{'/'.join(option.opts + option.secondary_opts)} is given {times} times: say it once.")
        parsed: list[str] = super().parse_args(context, arguments)  # type: ignore[misc]
        for name, value in given.items():
            # An empty name of a file would be the folder that we are in: a variable of a script was not set.
            empty = value == "" and isinstance(context.params.get(name), Path)
            if empty or (isinstance(value, list | tuple) and "" in value):
                raise BadInput(f"{name.rstrip('_').replace('_', '-').upper()} is an empty text, which names nothing.")
        return parsed


class Command(_Once, TyperCommand):
    """One command."""


class Group(_Once, TyperGroup):
    """Commands with a common first word."""


class Commands(typer.Typer):
    """A Typer application with this parser."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        return super().command(name, cls=Command, **settings)
