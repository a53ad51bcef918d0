"""What several commands take. The options of a run are flags made from the fields of `Request`."""

import inspect
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import msgspec
import typer
from typer import Argument, Option

from dambench.core import config, files
from dambench.core.config import OptionSpec, Request
from dambench.core.errors import BadInput

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


def given_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run by field, from the values of their flags; None: not given."""
    given = {option.name: values.get(parameter_name(option)) for option in config.options()}
    for option in config.options():
        if option.kind == "list" and isinstance(value := given[option.name], str):
            given[option.name] = [part.strip() for part in value.split(",")]
    return given


def requests_of(file: Path | None, given: Mapping[str, Any], settings: list[str] | None) -> list[Request]:
    """The requests of one command, one per seed.

    Args:
        file: TOML, which flags go over.
        given: by field, from flags.
        settings: pairs of `--set`.
    """
    fields = config.read_toml(file) if file else {}
    fields = config.overlay(fields, {"data": os.environ.get("DAMBENCH_DATA") or None})
    options = config.settings(settings or [])
    config.check_said_once({**given, **options}, "the command")
    fields = config.overlay(config.overlay(fields, given), options)
    return config.read(Request, fields, "the request").each_seed()


def field_of(parameter: Any) -> str:
    """The option of a run that a parameter of a command is for; empty: none."""
    names = {parameter_name(option): option.name for option in config.options()}
    return names.get(getattr(parameter, "name", ""), "")


def request_options(**defaults: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Give a command flags for options of a run, in the place of its parameter `given`: their values by field.

    Args:
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
            annotation=cast(Any, Annotated)[_type(option) | None, _flag(option)],
        )
        for option in options
    ]

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        @wraps(command)
        def with_flags(**values: Any) -> Result:
            given = given_options({flag.name: values.pop(flag.name) for flag in flags})
            return command(**values, given=given)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command).parameters.values():
            parameters += flags if own.name == "given" else [own.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        cast(Any, with_flags).__signature__ = inspect.Signature(parameters)
        with_flags.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_flags

    return decorate


def _type(option: OptionSpec) -> Any:
    if option.kind == "list":
        return list[str] if option.repeated else str
    return {"text": str, "integer": int, "number": float, "boolean": bool}[option.kind]


def _flag(option: OptionSpec) -> Any:
    spelling = f"{option.flag}/--no-{option.flag[2:]}" if option.kind == "boolean" else option.flag
    return Option(spelling, help=option.help, metavar="|".join(option.choices) or None)
