"""What several commands take. The options of a run are flags made from the fields of `Request`."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import msgspec
import typer
from typer import Argument, Option

from dambench.core import config, files, listed
from dambench.core.config import OptionSpec, Request
from dambench.core.errors import BadInput
from dambench.core.sweep import Sweep

Result = TypeVar("Result")


def _database_option(context: typer.Context, path: Path | None) -> Path | None:
    """Let `dambench --db FILE runs` be `dambench runs --db FILE`."""
    before: Path | None = context.find_root().params.get("db")
    if path is not None and before is not None:
        raise BadInput(f"--db was said twice, {str(before)!r} and {str(path)!r}: which one is meant?")
    return path or before


RunId = Annotated[str, Argument(metavar="ID", help="Or the beginning of one.")]
Db = Annotated[
    Path | None,
    Option("--db", help="The database [default: DAMBENCH_DB, else ./runs.db].", callback=_database_option),
]
Filter = Annotated[
    str, Option("--filter", metavar="FILTER", help="Only such runs: 'method:dm|datadam ipc<=10 -tag:old state:done'.")
]
Settings = Annotated[
    list[str] | None, Option("--set", metavar="NAME=VALUE", help="method.lr_images=0.1, dataset.size=32, …")
]
DatasetSettings = Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="dataset.size=32, …")]
EvaluatorSettings = Annotated[
    list[str] | None, Option("--set", metavar="NAME=VALUE", help="evaluator.NAME=VALUE, an option of the evaluator.")
]
NamesFile = Annotated[
    Path | None,
    Option("--names", metavar="FILE.toml", help="What rows, columns, captions and labels are called: docs/names.md."),
]
DryRun = Annotated[bool, Option("--dry-run", help="Only the plan; nothing is prepared, run or kept.")]
OnlyQueue = Annotated[bool, Option("--queue", help="Only queue them: `dambench queue work` carries them out.")]
Retry = Annotated[bool, Option("--retry", help="Also runs that have failed before.")]
Budget = Annotated[
    str | None,
    Option("--budget", metavar="TIME", help="Only what fits, by its estimates: 45m, 8h, 1d12h. docs/sweeps.md"),
]
Devices = Annotated[str, Option("--device", help="cuda:0,1 or cpu [default: all GPUs, or the processors].")]
Again = Annotated[bool, Option("--again", help="Also what a finished run has done already.")]
Hook = Annotated[
    str,
    Option("--hook", metavar="COMMAND", help="Run this at the end of each run: docs/hooks.md [also: DAMBENCH_HOOK]."),
]
Json = Annotated[bool, Option("--json", help="JSON on stdout.")]


def data_path(given: str | None) -> Path | None:
    """The folder or file with raw data, of a command that makes no run."""
    place = given or os.environ.get("DAMBENCH_DATA")
    return files.user_path(place) if place else None


def parameter_name(option: OptionSpec) -> str:
    """The name of an option's flag as a parameter."""
    return option.flag.removeprefix("--").replace("-", "_")


def given_options(values: Mapping[str, Any], *, lists: bool = False) -> dict[str, Any]:
    """The options of a run by field, from the values of their flags; None: not given.

    Args:
        lists: whether a setting may have several values, which is a list then.
    """
    given = {option.name: values.get(parameter_name(option)) for option in config.options()}
    for option in config.options():
        if option.kind == "list" and isinstance(value := given[option.name], str):
            given[option.name] = [part.strip() for part in value.split(",")]
        elif lists and option.name in listed.AXES and isinstance(value := given[option.name], str):
            given[option.name] = _one_or_more(option, value)
    return given


def _one_or_more(option: OptionSpec, text: str) -> Any:
    """The value of a flag, or the several that stand between commas."""
    parts = [part.strip() for part in text.split(",")] if "," in text else [text]
    if not all(parts) and len(parts) > 1:
        raise BadInput(f"{option.flag} {text!r} has nothing between two commas, or at an end.", field=option.name)
    if option.kind == "integer":
        for part in parts:
            if not re.fullmatch(r"[+-]?[0-9]{1,30}", part.strip()):
                raise BadInput(
                    f"Invalid value for {option.flag!r}: {part!r} is not a valid integer.", field=option.name
                )
        numbers = [int(part) for part in parts]
        return numbers if len(parts) > 1 else numbers[0]
    return parts if len(parts) > 1 else text


def requests_of(file: Path | None, given: Mapping[str, Any], settings: list[str] | None) -> list[Request]:
    """The requests of one command, one per seed.

    Args:
        file: TOML, which flags go over.
        given: by field, from flags.
        settings: pairs of `--set`.
    """
    if file is not None:
        listed.refuse(config.toml_in(file), f"{str(file)!r}")
    listed.refuse(given, "the command")
    fields = config.read_toml(file) if file else {}
    fields = config.overlay(fields, {"data": os.environ.get("DAMBENCH_DATA") or None})
    options = config.settings(settings or [])
    config.check_said_once({**given, **options}, "the command")
    fields = config.overlay(config.overlay(fields, given), options)
    return config.read(Request, fields, "the request").each_seed()


def asked_of(
    file: Path | None, given: Mapping[str, Any], settings: list[str] | None
) -> tuple[list[Request], Sweep | None]:
    """The requests of one command, one per seed; or the sweep that it is, where a setting has several values.

    Args:
        file, given, settings: as `requests_of`.
    """
    grid = listed.read(file, given, settings or [], os.environ.get("DAMBENCH_DATA"))
    return ([], grid) if grid else (requests_of(file, given, settings), None)


def field_of(parameter: Any) -> str:
    """The option of a run that a parameter of a command is for; empty: none."""
    names = {parameter_name(option): option.name for option in config.options()}
    return names.get(getattr(parameter, "name", ""), "")


def request_options(
    *, lists: bool = False, **defaults: str
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Give a command flags for options of a run, in the place of its parameter `given`: their values by field.

    Args:
        lists: whether an option may have several values, which make a sweep.
        defaults: which options; what their help says is the default, where it is not that of a run. None: all.
    """
    options = [
        msgspec.structs.replace(option, default=defaults.get(option.name) or option.default)
        for option in config.options()
        if not defaults or option.name in defaults
    ]
    flags = [
        inspect.Parameter(
            parameter_name(option),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=cast(Any, Annotated)[_type(option, lists=lists) | None, _flag(option, lists=lists)],
        )
        for option in options
    ]

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        @wraps(command)
        def with_flags(**values: Any) -> Result:
            given = given_options({flag.name: values.pop(flag.name) for flag in flags}, lists=lists)
            return command(**values, given=given)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command).parameters.values():
            parameters += flags if own.name == "given" else [own.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        cast(Any, with_flags).__signature__ = inspect.Signature(parameters)
        with_flags.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_flags

    return decorate


def _type(option: OptionSpec, *, lists: bool) -> Any:
    if option.kind == "list":
        return list[str] if option.repeated else str
    if lists and option.name in listed.AXES:
        return str
    return {"text": str, "integer": int, "number": float, "boolean": bool}[option.kind]


def _flag(option: OptionSpec, *, lists: bool) -> Any:
    spelling = f"{option.flag}/--no-{option.flag[2:]}" if option.kind == "boolean" else option.flag
    metavar = "|".join(option.choices) or ("INTEGER" if option.kind == "integer" and lists else None)
    return Option(spelling, help=option.help, metavar=metavar)
