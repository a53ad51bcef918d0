"""The commands. Data goes to stdout, narration to stderr.

Exit codes: 0 done, 1 the run failed, 2 bad input; stopped: 129 by HUP, 130 by INT, 143 by TERM, USR1, USR2 or on
request.
"""

import io
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
import typer.main
from rich.console import Console
from typer import Argument, Option

from dambench import __version__
from dambench.cli import experts
from dambench.cli.arguments import Commands, Group
from dambench.cli.output import Watch, describe, draw, has_room, shown, table
from dambench.cli.record import EXIT_CODES, PATIENCE, Signals, Told, record, result
from dambench.core import allocator, config, files, registry, sanitize
from dambench.core.contracts import Contract, Method
from dambench.core.errors import BadInput, NotEnoughMemory, NotKept, named
from dambench.core.events import (
    AnyEvent,
    Progressed,
    Stopped,
)
from dambench.core.narration import summary
from dambench.core.protocol import PRESETS
from dambench.core.registry import P, Plugins
from dambench.core.units import duration, size
from dambench.report import FORMATS, format_of, write
from dambench.report.wording import augmentation
from dambench.runner import processes
from dambench.store import contents, database, filters, journal, upkeep
from dambench.store import runs as stored
from dambench.store.leaderboard import AXES, leaderboard, method_label
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.engine.settle import Job
    from dambench.tui.app import ConsoleOptions

# Commands that need torch import the engine themselves: `dambench runs` must answer at once.

app = Commands(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = Commands(rich_markup_mode=None, help="Real datasets.")
app.add_typer(data_app, name="data")
db_app = Commands(rich_markup_mode=None, help="The database: whole, copied, merged, up to date, tidy.")
app.add_typer(db_app, name="db")
app.add_typer(experts.app, name="experts")

POLL_SECONDS = 0.25
"""Between two looks at a run that is watched."""

ALIVE = ("waiting", "running", "silent")
"""States of a run that has a process, as far as is known."""

AGAIN = "it is not run again (--again does so)."

OTHER_SUFFIXES = (
    *(".tar", ".gz", ".zip", ".xz", ".zst", ".sql", ".json", ".jsonl", ".toml", ".csv", ".md", ".tex", ".html", ".pdf"),
    *(".png", ".svg", ".jpg", ".safetensors", ".pt", ".npz"),
)
"""Suffixes of files that are no databases."""

MOST_KEYS = 100
"""Keys that may be pressed for a picture of the console."""

NEWEST = 100
"""Runs that are listed, unless all are asked for."""

RunId = Annotated[str, Argument(metavar="ID", help="Or the beginning of one.")]


def _database_option(context: typer.Context, path: Path | None) -> Path | None:
    """`dambench --db FILE runs` is `dambench runs --db FILE`."""
    before: Path | None = context.find_root().params.get("db")
    if path is not None and before is not None:
        raise BadInput(f"--db was said twice, {str(before)!r} and {str(path)!r}: which one is meant?")
    return path or before


Db = Annotated[
    Path | None,
    Option("--db", help="The database [default: DAMBENCH_DB, else ./runs.db].", callback=_database_option),
]
Chosen = Annotated[
    str, Option("--filter", metavar="FILTER", help="Only such runs: 'method:dm|datadam ipc<=10 -tag:old state:done'.")
]
Again = Annotated[bool, Option("--again", help="Also what a finished run has done already.")]
Json = Annotated[bool, Option("--json", help="JSON on stdout.")]


def main() -> NoReturn:
    """Run the command that the program was started with."""
    _stand_in()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no × shows a question mark
    sys.exit(run_cli(sys.argv[1:]))


def _stand_in() -> None:
    """See that 0, 1 and 2 are open, whatever whoever started us has closed: no file of ours may take their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or io.StringIO()
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()


@cache
def _command() -> Callable[..., Any]:
    """All commands. To put them together takes 10 ms, and the console's child answers many times."""
    return typer.main.get_command(app)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command; what is wrong with the request becomes one sentence on stderr and exit code 2."""
    try:
        for argument in arguments:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise BadInput(f"The argument {sanitize.display(argument)!r} is not valid UTF-8.")
        result = _command()(list(arguments), prog_name="dambench", standalone_mode=False, obj=list(arguments))
        sys.stdout.flush()
        return int(result or 0)
    except BadInput as error:
        return _complain(str(error))
    except Told as told:
        _complain(f"stopped by {told}, before a run began.")
        return EXIT_CODES[str(told)]
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        return _complain(f"{error.format_message()} Try: dambench --help")
    except NotKept as error:
        return _complain(str(error), 1)
    except MemoryError:
        return _complain("There is not enough memory for what was asked.", 1)
    except sqlite3.Error as error:
        return _complain(f"The database cannot be used: {error}.")
    except OSError as error:
        if error.filename:
            return _complain(f"{error.filename!r} cannot be used: {error.strerror}.")
        if not _has_a_place():
            return _complain("The folder in which this was started is no longer there: change into another.")
        # It was stdout. What is still in its buffer would fail once more when Python ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader that has gone (`dambench runs | head`) knows it.
        return 1 if isinstance(error, BrokenPipeError) else _complain(f"The output cannot be written: {error}.", 1)
    except Exception:
        # A fault of ours, unless what was read is no dambench's work.
        if not (wrong := _wrong_contents()):
            raise
        return _complain(wrong)
    finally:
        _last_opened.set(None)


_last_opened: ContextVar[Path | None] = ContextVar("last opened", default=None)
"""The database that this command is about."""


def _wrong_contents() -> str:
    """What is in the command's database that no dambench wrote; empty: nothing."""
    path = _last_opened.get()
    try:
        if path is not None and stored.exists(path):
            with closing(Store.open(path)) as store:
                fault = next(contents.faults(store), "")
                return f"The database {str(path)!r} is not as a dambench wrote it: {fault}." if fault else ""
    except (BadInput, NotKept, sqlite3.Error) as error:
        return str(error)
    return ""


def _say(line: str) -> None:
    print(sanitize.display(line, 1000), file=sys.stderr)


def _complain(sentence: str, code: int = 2) -> int:
    with suppress(OSError, ValueError):  # the code says it, too
        print(f"dambench: {sanitize.display(sentence, 1000)}", file=sys.stderr)
    return code


def _has_a_place() -> bool:
    with suppress(OSError):
        return bool(os.getcwd())
    return False


@app.callback(invoke_without_command=True)
def console(
    context: typer.Context,
    readonly: Annotated[
        bool, Option("--readonly", help="The console only looks: nothing is started or stopped.")
    ] = False,
    ascii_: Annotated[bool, Option("--ascii", help="The console draws with ASCII only.")] = False,
    no_color: Annotated[bool, Option("--no-color", help="The console sends no colours [also: NO_COLOR].")] = False,
    db: Db = None,
    version: Annotated[bool, Option("--version", help="Say the version and stop.")] = False,
) -> None:
    """Benchmark dataset distillation: run the methods, store every run, compare them. Alone: the console."""
    if version:
        print(f"dambench {__version__}")
        raise typer.Exit
    if no_color:
        os.environ["NO_COLOR"] = "1"  # for whatever draws
    command = context.invoked_subcommand
    if command is None:
        _open_console(db or stored.default_path(), "", context)
        return
    if db is not None and not _takes(_subcommand(context, command), "db"):
        raise BadInput(f"--db {str(db)!r}: `dambench {command}` uses no database.")
    if command not in ("run", "shot"):
        _opens_no_console(context, f"dambench {command}")


def _subcommand(context: typer.Context, name: str) -> Any:
    """The command of that name."""
    assert isinstance(context.command, Group)
    return context.command.commands[name]


def _takes(command: Any, option: str) -> bool:
    """Whether a command, or one of a group, has an option of that name."""
    members = getattr(command, "commands", {}).values()
    return any(_takes(member, option) for member in members) or option in [param.name for param in command.params]


def _opens_no_console(context: typer.Context, what: str) -> None:
    """Refuse what was asked of the console by whoever did not ask for it."""
    for name, flag in (("readonly", "--readonly"), ("ascii_", "--ascii")):
        if context.find_root().params.get(name):
            raise BadInput(f"{flag} is for the console, and `{what}` opens none: leave it out.")


def _in_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _look(context: typer.Context) -> "ConsoleOptions":
    """How the console is to look, and what it may do; before textual is imported."""
    colour = not os.environ.get("NO_COLOR")
    from dambench.tui.app import ConsoleOptions

    asked = context.find_root().params
    return ConsoleOptions(readonly=bool(asked.get("readonly")), ascii=bool(asked.get("ascii_")), colour=colour)


def _open_console(path: Path, run_id: str, context: typer.Context) -> None:
    if not _in_terminal():
        raise BadInput(
            "The console needs a terminal, and this is none. `dambench run --headless` runs, `dambench runs` lists, "
            "`dambench report` compares."
        )
    # Read when textual is imported: few bytes per second, for lines that are slow.
    os.environ.setdefault("TEXTUAL_FPS", "30")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    # Exported by some shells, and wrong once the terminal has another size.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    files.home()
    look = _look(context)
    from dambench.tui.app import DambenchApp

    if path.exists():
        database.identify(path)
    # Every move of one would cost kilobytes, and a terminal that comes back sends moves from nowhere.
    DambenchApp(path, run_id, look).run(mouse=False)


@app.command()
def run(
    context: typer.Context,
    file: Annotated[Path | None, Argument(metavar="[FILE.toml]", help="Settings; flags go over them.")] = None,
    headless: Annotated[bool, Option("--headless", help="Run here, in the foreground.")] = False,
    detach: Annotated[
        bool, Option("--detach", help="Run in the background, where a lost terminal ends nothing.")
    ] = False,
    method: Annotated[str | None, Option(help="See `dambench methods`.")] = None,
    dataset: Annotated[str | None, Option(help="See `dambench data list`.")] = None,
    ipc: Annotated[int | None, Option(help="Images per class [default: 1].")] = None,
    network: Annotated[str | None, Option(help="The network to match on, such as convnet-d3-w128.")] = None,
    evaluate_on: Annotated[
        str | None,
        Option(help="Networks or pools to train on the set, with commas [default: the ConvNet matched on]."),
    ] = None,
    eval_repeats: Annotated[int | None, Option(help="How many of each [default: 5].")] = None,
    evaluate_every: Annotated[int | None, Option(help="Also evaluate each N iterations.")] = None,
    protocol: Annotated[str | None, Option(help="See `dambench protocols` [default: quick].")] = None,
    recipe: Annotated[str | None, Option(help="Another of the method's recipes.")] = None,
    iterations: Annotated[int | None, Option(help="Short for --set method.iterations=N.")] = None,
    seed: Annotated[int | None, Option(help="Everything random follows from it [default: 0].")] = None,
    seeds: Annotated[str | None, Option(help="Several runs, one per seed: 0-4 or 0,3,7.")] = None,
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="method.lr_images=0.1, dataset.size=32, …"),
    ] = None,
    data: Annotated[str | None, Option(help="Where raw data are [default: DAMBENCH_DATA].")] = None,
    device: Annotated[str | None, Option(help="auto, cpu or cuda:N [default: auto].")] = None,
    threads: Annotated[int | None, Option(help="CPU threads [default: torch's choice].")] = None,
    precision: Annotated[
        str | None, Option(help="auto, fp32, tf32 (GPU) or bf16 (real images) [default: auto].")
    ] = None,
    compile_: Annotated[
        str | None, Option("--compile", metavar="auto|on|off", help="Compile the networks [default: auto, long runs].")
    ] = None,
    preprocessing: Annotated[
        str | None, Option(help="mean/std or zca, whitening [default: the recipe's, mostly mean/std].")
    ] = None,
    deterministic: Annotated[bool | None, Option(help="Deterministic operations only, also on CUDA.")] = None,
    checkpoint_every: Annotated[
        float | None, Option(help="Seconds between two checkpoints, at least [default: 30].")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Measure a few steps, say what the run would take, and keep nothing.")
    ] = False,
    check: Annotated[
        bool, Option("--check", help="Say what the run would be, as JSON; nothing is prepared, run or kept.")
    ] = False,
    name: Annotated[str | None, Option(help="What to call the run.")] = None,
    tag: Annotated[list[str] | None, Option(help="A tag; may be repeated.")] = None,
    again: Again = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Distil a dataset, train networks on the result, test them, store everything. In a terminal: in the console."""
    in_console = not (headless or detach or dry_run or check)
    if not in_console:
        _opens_no_console(
            context,
            "dambench run "
            + next(
                f
                for f, said in {
                    "--headless": headless,
                    "--detach": detach,
                    "--dry-run": dry_run,
                    "--check": check,
                }.items()
                if said
            ),
        )
    if in_console and not _in_terminal():
        raise BadInput("A run opens in the console, which needs a terminal, and this is none: --headless or --detach.")
    if headless and detach:
        raise BadInput("--headless and --detach exclude each other: in the foreground, or in the background.")
    if (detach + dry_run + check) > 1:
        raise BadInput("--detach, --dry-run and --check exclude each other: begin a run, measure it, or look at it.")
    fields = config.read_toml(file) if file else {}
    fields = config.overlay(fields, {"data": os.environ.get("DAMBENCH_DATA") or None})
    flags = {
        "method": method,
        "dataset": dataset,
        "ipc": ipc,
        "network": network,
        "evaluate_on": None if evaluate_on is None else [n.strip() for n in evaluate_on.split(",")],
        "eval_repeats": eval_repeats,
        "evaluate_every": evaluate_every,
        "protocol": protocol,
        "recipe": recipe,
        "iterations": iterations,
        "seed": seed,
        "data": data,
        "device": device,
        "threads": threads,
        "precision": precision,
        "compile": compile_,
        "preprocessing": preprocessing,
        "deterministic": deterministic,
        "checkpoint_every": checkpoint_every,
        "seeds": seeds,
        "name": name,
        "tags": tag or None,
    }
    options = config.settings(set_ or [])
    config.check_said_once(flags | options, "the command")
    fields = config.overlay(config.overlay(fields, flags), options)
    requests = config.read(config.Request, fields, "the request").each_seed()
    path = db or stored.default_path()
    stored.check(path)
    if (detach or in_console) and not (dry_run or check):
        words = _after_command(context)
        arguments = ["run", *(word for word in words if word != "--detach"), "--headless"]
        return _detach(arguments, path, as_json) if detach else _shown(arguments, path, context)
    watch = Watch(Console(stderr=True, highlight=False))
    launcher = processes.detached()
    os.environ.setdefault("GOMP_SPINCOUNT", allocator.SPINS)  # read when torch is imported
    with Signals(detached=launcher is not None, say=watch.say) as signals:
        from dambench import engine

        if check:
            return _checked(requests, None if again else path)
        job = engine.prepare(requests[0], watch.say)
        if dry_run:
            watch.say("measuring a few steps …")
            return _estimated(job, len(requests), as_json)
        with _opened(path, write=True) as store:
            code, begun, there = 0, False, ""
            for request in requests:
                if signals.heard:
                    return EXIT_CODES[signals.heard]
                job = job.with_seed(request.seed or 0)
                if not again and (there := store.finished(job.config, job.card) or ""):
                    _point_out(store, there, request, watch, as_json)
                    continue
                here = processes.this_process(launcher.log if launcher else "")
                recipe = job.recipe.source if job.recipe else ""
                run_id = store.create(
                    job.config, job.card, request.name or "", request.tags or [], here, recipe, job.overrides
                )
                watch.say(f"run {run_id}" + (f", settings: {job.recipe.source}" if job.recipe else ""))
                if launcher and not begun:
                    launcher.announce(run_id)
                begun = True
                code = max(code, record(store, run_id, job, signals, watch.console, as_json))
            if launcher and not begun:
                launcher.announce(there)
            return code


@app.command()
def resume(
    context: typer.Context,
    run_id: Annotated[str, Argument(metavar="ID", help="Of a run that stopped, failed or was lost.")],
    headless: Annotated[bool, Option("--headless", help="Here, in the foreground, not in the background.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Go on with a run from its last checkpoint, as if it had never been interrupted."""
    path = db or stored.default_path()
    stored.check(path)
    with _opened(path) as store:
        row = store.run(run_id)
    _can_resume(row)
    if not headless:
        return _detach([*context.obj, "--headless"], path, as_json)
    watch = Watch(Console(stderr=True, highlight=False))
    launcher = processes.detached()
    os.environ.setdefault("GOMP_SPINCOUNT", allocator.SPINS)
    with Signals(detached=launcher is not None, say=watch.say) as signals:
        from dambench import engine

        with _opened(path, write=True) as store:
            row = store.run(run_id)
            _can_resume(row)
            begun = store.beginning(row["id"], processes.this_process(launcher.log if launcher else ""))
            job = engine.reopen(
                msgspec.json.decode(row["config"], type=config.RunConfig),
                row["dataset_sha256"],
                row["recipe"],
                json.loads(row["overrides"]),
                begun.environment,
                watch.say,
            )
            watch.say(f"run {row['id']}, resumed")
            return record(store, row["id"], job, signals, watch.console, as_json, begun, launcher)


@app.command()
def evaluate(
    context: typer.Context,
    run_id: RunId,
    evaluate_on: Annotated[
        str | None, Option(help="Networks or pools, with commas: resnet18,vgg11 [default: those of the run].")
    ] = None,
    eval_repeats: Annotated[int | None, Option(help="How many of each [default: as the run].")] = None,
    protocol: Annotated[str | None, Option(help="See `dambench protocols` [default: the run's].")] = None,
    device: Annotated[str | None, Option(help="auto, cpu or cuda:N [default: the run's].")] = None,
    threads: Annotated[int | None, Option(help="CPU threads [default: torch's choice].")] = None,
    detach: Annotated[bool, Option("--detach", help="In the background.")] = False,
    name: Annotated[str | None, Option(help="What to call the run that evaluates.")] = None,
    tag: Annotated[list[str] | None, Option(help="A tag; may be repeated.")] = None,
    again: Again = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Train other networks on the set of a finished run, and test them: cross-architecture evaluation."""
    fields = {
        "evaluate_on": None if evaluate_on is None else [each.strip() for each in evaluate_on.split(",")],
        "eval_repeats": eval_repeats,
        "protocol": protocol,
        "device": device,
        "threads": threads,
        "name": name,
        "tags": tag,
    }
    request = config.read(config.Request, config.overlay({}, fields), "the request")
    path = db or stored.default_path()
    stored.check(path)
    with _opened(path) as store:
        row = store.run(run_id)
        made = store.query(
            "select iteration from artifacts where run = ? and sha256 = ?", row["number"], row["set_sha256"]
        )
    if row["state"] != "finished" or not made:
        raise BadInput(f"The run {row['id']} is {processes.state(row)}: only the set of a finished run is evaluated.")
    _check_set(row, row["set_sha256"])
    if detach:
        return _detach([word for word in context.obj if word != "--detach"], path, as_json)
    watch = Watch(Console(stderr=True, highlight=False))
    launcher = processes.detached()
    os.environ.setdefault("GOMP_SPINCOUNT", allocator.SPINS)
    with Signals(detached=launcher is not None, say=watch.say) as signals:
        from dambench import engine

        with _opened(path, write=True) as store:
            overrides = json.loads(row["overrides"])
            job = engine.reopen(
                msgspec.json.decode(row["config"], type=config.RunConfig),
                row["dataset_sha256"],
                row["recipe"],
                overrides,
                None,
                watch.say,
                only_its_set=True,
            )
            job = engine.evaluation(job, request, row["set_sha256"], made[-1]["iteration"])
            if not again and (there := store.finished(job.config, job.card, row["set_sha256"])):
                _point_out(store, there, request, watch, as_json)
                if launcher:
                    launcher.announce(there)
                return 0
            here = processes.this_process(launcher.log if launcher else "")
            new = store.create(job.config, job.card, name or "", tag or [], here, row["recipe"], overrides)
            watch.say(f"run {new}, of the set of {row['id']}")
            if launcher:
                launcher.announce(new)
            return record(store, new, job, signals, watch.console, as_json)


def _point_out(store: Store, run_id: str, request: config.Request, watch: Watch, as_json: bool) -> None:
    """Say that a run is not begun, because this finished one did what was requested."""
    row = store.run(run_id)
    where, when = sanitize.display(row["host"], 60), row["ended_at"][:16].replace("T", " ")
    watch.say(f"run {run_id} has done this already{f' on {where}' if where else ''} ({when} UTC): {AGAIN}")
    if request.name or request.tags:
        watch.say(f"--name and --tag are of new runs. `dambench tag {run_id}` and `note {run_id}` change this one.")
    if as_json:
        print(json.dumps(result(store, run_id) | {"existing": True}), flush=True)


def _check_set(row: dict[str, Any], sha256: str) -> None:
    """See that a set which is to be evaluated is here, before anything is recorded.

    Args:
        row: of a run that has it.

    Raises:
        BadInput: it is missing, or its content is not that of its name.
    """
    if sha256 == row["dataset_sha256"]:
        return  # the prepared dataset itself, which is looked at when it is opened
    path = files.set_path(sha256)
    if not path.is_file():
        raise BadInput(
            f"The set {sha256[:12]} of the run {row['id']} is not on this machine; the run was made on "
            f"{sanitize.display(row['host'], 60) or 'another'}. `dambench db bundle` there and `dambench db merge` "
            "here bring it."
        )
    if files.sha256(path) != sha256:
        raise BadInput(f"The set {str(path)!r} of the run {row['id']} is damaged: its content is not that of its name.")


def _can_resume(row: dict[str, Any]) -> None:
    if row["deleted_at"]:
        raise BadInput(f"The run {row['id']} is in the trash: `dambench restore {row['id']}` takes it out.")
    now = processes.state(row)
    if now == "finished":
        raise BadInput(f"The run {row['id']} is finished: there is nothing to go on with.")
    if now in ("waiting", "running", "silent"):
        quiet = f", silent for {duration(processes.silence(row))}" if now == "silent" else ""
        raise BadInput(
            f"The run {row['id']} goes on, as process {row['pid']} on {row['host']}{quiet}: "
            f"`dambench watch {row['id']}` shows it."
        )
    if made := json.loads(row["config"]).get("where", {}).get("made"):
        _check_set(row, made)
    if row["diverged_at"] is not None:
        raise BadInput(
            f"The run {row['id']} diverged at iteration {row['diverged_at']}, and would again: begin a new one, with "
            "a smaller step size."
        )


def _after_command(context: typer.Context) -> list[str]:
    """What was said to a command, and to the program of what it takes notice of, too."""
    said: list[str] = list(context.obj)
    at = 0
    while said[at].startswith("-"):
        at += 2 if said[at] == "--db" else 1
    before = context.find_root().params.get("db")
    return said[at + 1 :] + (["--db", str(before)] if before is not None else [])


def _detach(arguments: list[str], path: Path, as_json: bool) -> int:
    stderr, began = Watch(Console(stderr=True, highlight=False)), datetime.now(UTC)
    run_id, code = processes.start(arguments, stderr.say)
    if not run_id:
        return code
    existing = _was_there(path, run_id, began)
    print(json.dumps({"run": run_id} | ({"existing": True} if existing else {})) if as_json else run_id, flush=True)
    if existing:
        stderr.say(f"run {run_id} has done this already: {AGAIN}")
        return 0
    stderr.say(f"It goes on without this terminal: dambench watch {run_id}, logs {run_id}, stop {run_id}.")
    return 0


def _shown(arguments: list[str], path: Path, context: typer.Context) -> int:
    """Start a run of its own, and open the console where it is."""
    began = datetime.now(UTC)
    run_id, code = processes.start(arguments, _say)
    if not run_id:
        return code
    if _was_there(path, run_id, began):
        _say(f"run {run_id} has done this already: {AGAIN}")
    _open_console(path, run_id, context)
    return 0


def _was_there(path: Path, run_id: str, began: datetime) -> bool:
    """Whether a run that a process which was started then has named had ended before."""
    with _opened(path) as store:
        row = store.run(run_id)
        return row["state"] == "finished" and datetime.fromisoformat(row["ended_at"]) < began


class _TakesLong(Exception):
    """What has to be done before more can be said."""


def _checked(requests: Sequence[config.Request], path: Path | None) -> int:
    """What a run would be, or what of it can be told while its data are not prepared.

    Args:
        path: the database, whose finished runs would not be run again; None: they would.
    """
    from dambench import engine

    def stop(text: str) -> NoReturn:
        raise _TakesLong(text)

    found: dict[str, Any] = {"runs": len(requests)}
    try:
        job = engine.prepare(requests[0], stop)
    except _TakesLong as what:
        print(json.dumps(found | {"first": str(what)}))
        return 0
    jobs = [job.with_seed(request.seed or 0) for request in requests]
    standard = config.read(job.method.Options, job.recipe.options if job.recipe else {}, "the recipe")
    existing: dict[int, str] = {}
    if path is not None and stored.exists(path):
        with _opened(path) as store:
            there = {each.config.seed: store.finished(each.config, each.card) for each in jobs}
        existing = {seed: run_id for seed, run_id in there.items() if run_id}
        job.notes.extend(
            f"The run {run_id} has done this already{f' for seed {seed}' if len(jobs) > 1 else ''}: {AGAIN}"
            for seed, run_id in existing.items()
        )
    found |= {
        "existing": list(existing.values()),
        "seeds": [each.config.seed for each in jobs],
        "config_sha256": [each.config.sha256 for each in jobs],
        "config": msgspec.to_builtins(job.config),
        "data": msgspec.to_builtins(job.card),
        "recipe": msgspec.to_builtins(job.recipe),
        "standard": msgspec.to_builtins(standard),
        "overrides": job.overrides,
        "notes": [*job.card.notes, *job.notes],
    }
    print(json.dumps(found))
    return 0


@app.command(hidden=True)
def checks() -> None:
    """Answer what `run … --check` would, many times: each line is a JSON list of arguments of `run`.

    For the console, which has no torch and asks again with every letter that is typed.
    """
    for line in sys.stdin:
        said, complaint = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(complaint):
                code = run_cli(["run", *json.loads(line), "--check"])
            sentence = complaint.getvalue().strip().rpartition("\n")[2].removeprefix("dambench: ")
            answer = json.loads(said.getvalue()) if code == 0 else {"error": sentence}
        except Exception as error:  # a fault of ours, or of a method from outside: the next request may be better
            answer = {"error": f"{type(error).__name__}: {sanitize.display(str(error))}"}
        print(json.dumps(answer), flush=True)


@app.command("watch")
def watch_run(run_id: RunId, db: Db = None) -> int:
    """Show a run as it goes on, or went. Leave with Ctrl+C: the run does not notice."""
    screen = Console(stderr=True, highlight=False)
    last: AnyEvent | None = None
    try:
        with _opened(db) as store:
            row = store.run(run_id)
            total = json.loads(row["config"])["method"].get("options", {}).get("iterations", 0)
            heard = 0
            with Watch(screen, total) as shown:
                while True:
                    store.refresh()
                    row = store.run(row["id"])
                    for number, event in store.tail(row["id"], heard):
                        shown.hear(event)
                        heard, last = number, event
                    if row["state"] == "running" and row["phase"]:
                        shown.hear(Progressed(phase=row["phase"], done=row["done"], total=row["total"]))
                    now = processes.state(row)
                    if now not in ("waiting", "running", "silent"):
                        break
                    time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        screen.print("The run goes on.")
        return 0
    if now == "lost":
        screen.print(f"lost: its process is gone. `dambench resume {row['id']}` goes on from its last checkpoint.")
        return 1
    return EXIT_CODES.get(last.signal, 143) if isinstance(last, Stopped) else int(now == "failed")


@app.command()
def logs(
    run_id: RunId,
    follow: Annotated[bool, Option("--follow", "-f", help="Go on as more is written.")] = False,
    db: Db = None,
) -> None:
    """What a run has written; of one in the foreground, what it has said."""
    with _opened(db) as store:
        row = store.run(run_id)
        log = files.own_log(row["log"])
        # One that was merged may name any file.
        here = row["host"] == socket.gethostname() and log is not None and log.is_file()
        if log is None or not here:
            if row["log"]:
                _say(
                    f"Its log {row['log']!r} on {row['host'] or 'an unknown machine'} is no log of a run that is here; "
                    "this is what it said."
                )
            for _, event in store.tail(row["id"]):
                if line := summary(event):
                    print(line)
            return
        with log.open("rb") as file, suppress(KeyboardInterrupt):
            rest = b""
            while True:
                store.refresh()
                alive = processes.state(store.run(row["id"])) in ("waiting", "running", "silent")
                *lines, rest = (rest + file.read()).split(b"\n")
                for text in lines:
                    print(sanitize.display(text.decode(errors="replace"), 1000))
                sys.stdout.flush()
                if not (follow and alive):
                    break
                time.sleep(POLL_SECONDS)
            if rest:
                print(sanitize.display(rest.decode(errors="replace"), 1000))


@app.command()
def stop(
    run_id: RunId,
    kill: Annotated[bool, Option("--kill", help="With SIGKILL: it goes back to its last checkpoint.")] = False,
    db: Db = None,
) -> int:
    """Ask a run to stop. It writes a checkpoint first, and can be resumed."""
    with _opened(db) as store:
        row = store.run(run_id)
        now = processes.state(row)
        if now == "lost":
            raise BadInput(
                f"The run {row['id']} is lost: there is no process to stop. `dambench resume` goes on with it."
            )
        if now not in ("waiting", "running", "silent"):
            raise BadInput(f"The run {row['id']} is {now}: there is nothing to stop.")
    if not processes.is_here(row):
        if kill:
            raise BadInput(f"The run {row['id']} is on {row['host']}: only there can it be killed.")
        with _opened(db, write=True) as store:
            store.edit(row["id"], "stop_asked", row["attempt"])
        _say(f"Asked. {row['host']} notices within {processes.BEAT_SECONDS + store.late_seconds:.0f} s.")
        return 0
    processes.send(row, signal.SIGKILL if kill else signal.SIGTERM)
    until = time.monotonic() + PATIENCE + 5
    with _opened(db) as store:
        while time.monotonic() < until:
            store.refresh()
            row = store.run(row["id"])
            now = processes.state(row)
            if now not in ("waiting", "running"):
                where = f" at iteration {row['done']}" if row["phase"] == "distil" else ""
                print(f"{'Killed' if now == 'lost' else now.capitalize()}{where}.", file=sys.stderr)
                return 0
            time.sleep(0.1)
    print("It has been asked, and has not come to the end of an iteration yet.", file=sys.stderr)
    return 0


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
def tag(
    run_id: RunId,
    tags: Annotated[list[str], Argument(metavar="TAG…", help="To give it; with a - in front, to take from it.")],
    db: Db = None,
) -> None:
    """Tag a run: filters find it by its tags."""
    if wrong := [name for name in tags if not name.strip("- ")]:
        raise BadInput(f"{wrong[0]!r} is no tag: a tag is a word, with a - in front to take it away.")
    with _opened(db, write=True) as store:
        run = store.run(run_id)["id"]
        for name in tags:
            store.edit(run, "untag" if name.startswith("-") else "tag", name.removeprefix("-").strip())
        print(" ".join(store.describe(run)["tags"]))


@app.command()
def note(
    run_id: RunId,
    text: Annotated[str, Argument(metavar="TEXT", help="In place of what was written before; '' takes it away.")],
    db: Db = None,
) -> None:
    """Write a note to a run."""
    with _opened(db, write=True) as store:
        row = store.run(run_id)
        store.edit(row["id"], "note", text)
    if row["note"]:
        _say(f"Replaced: {row['note']}")


def _estimated(job: "Job", runs: int, as_json: bool) -> int:
    from dambench.engine.estimate import estimate

    try:
        with registry.aside(), registry.foreign("methods", job.config.method.name):
            found = estimate(job)
    except NotEnoughMemory as error:
        return _complain(str(error), 1)
    if as_json:
        print(json.dumps({"runs": runs} | msgspec.to_builtins(found)))
        return 0
    each = f", {found.iteration_seconds:.3g} s each after the first ({found.first_iteration_seconds:.3g} s)"
    total = sum(found.seconds.values())
    training = found.seconds.get("experts", 0.0)
    rows = [
        *([["experts", duration(training), "kept for the next run that needs them"]] if training else []),
        [
            "distil",
            duration(found.seconds["distil"]),
            f"{found.iterations} iterations{each}" if found.iterations else "",
        ],
        [
            "evaluate",
            duration(found.seconds["evaluate"]),
            f"{found.networks} networks: "
            + ", ".join(f"{name} {seconds:.3g} s each" for name, seconds in found.network_seconds.items()),
        ],
        ["in all", duration(total * runs), f"{runs} runs of {duration(total)}" if runs > 1 else ""],
        [
            "peak memory",
            size(max(found.peak_memory_bytes.values())),
            ", ".join(f"{phase} {size(peak)}" for phase, peak in found.peak_memory_bytes.items()),
        ],
        ["disk", size(found.disk_bytes * runs), "synthetic sets, and about what the database grows by"],
        *(["", "", note] for note in found.notes),
    ]
    table(["", "estimate", "from a few measured steps; nothing was kept"], rows)
    return 0


@contextmanager
def _opened(db: Path | None, *, write: bool = False) -> Iterator[Store]:
    database.voice.set(_say)
    _last_opened.set(db or stored.default_path())
    store = Store.open(db or stored.default_path(), write=write)
    try:
        for note in store.notes:
            print(sanitize.display(note, 1000), file=sys.stderr)
        yield store
    finally:
        store.close()


@app.command()
def shot(
    context: typer.Context,
    place: Annotated[str, Argument(metavar="PLACE", help="Of the console: runs, live, compare or new.")],
    output: Annotated[Path, Option("--output", "-o", help="The SVG file.")],
    run_id: Annotated[str, Option("--run", metavar="ID", help="A run to show, or the beginning of its id.")] = "",
    size_: Annotated[str, Option("--size", metavar="COLUMNSxLINES")] = "160x48",
    keys: Annotated[str, Option(help="To press first, with commas: i,comma.")] = "",
    theme: Annotated[str, Option(help="Of the console [default: the one that was chosen in it].")] = "",
    db: Db = None,
) -> None:
    """A picture of the console, as SVG: for documents, and for reports of what looks wrong."""
    parts = size_.split("x")
    if len(parts) != 2 or not all(re.fullmatch("[0-9]{1,3}", part) and 1 <= int(part) <= 500 for part in parts):
        raise BadInput(f"--size {size_} is no size: 160x48 would be one, columns and lines.")
    files.check_suffix(output, [".svg"], "a picture of the console")
    columns, lines = map(int, parts)
    files.check_folder(output, "The picture")
    pressed = [key for key in keys.split(",") if key]
    if len(pressed) > MOST_KEYS:
        raise BadInput(f"--keys has {len(pressed)} keys: {MOST_KEYS} are the most that are pressed for a picture.")
    path = db or stored.default_path()
    if run_id:
        with _opened(path) as store:
            run_id = store.run(run_id)["id"]
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    from dambench.tui.shot import shoot

    picture = shoot(path, place, run_id, (columns, lines), pressed, _look(context), theme)
    with files.writing("The picture", output.absolute().parent):
        files.write_whole(output, picture.encode())
    print(f"Written: {output}", file=sys.stderr)


@app.command()
def report(
    rows: Annotated[str, Option(help="What rows stand for: method, dataset, ipc, network, protocol.")] = "method",
    columns: Annotated[str, Option(help="What columns stand for.")] = "dataset,ipc",
    format_: Annotated[
        str | None,
        Option("--format", help="markdown, latex, csv, html or json [default: by the file's suffix, else markdown]."),
    ] = None,
    short: Annotated[bool, Option("--short", help="Only the tables of accuracy, and what their signs say.")] = False,
    filter_: Chosen = "",
    output: Annotated[Path | None, Option("--output", "-o", help="A file instead of stdout.")] = None,
    db: Db = None,
) -> None:
    """Compare all finished runs, in markdown, LaTeX, CSV, HTML or JSON."""
    axes = [tuple(named("axis", part, AXES) for part in text.split(",") if part.strip()) for text in (rows, columns)]
    if len({*axes[0], *axes[1]}) < len(axes[0]) + len(axes[1]) or not all(axes):
        raise BadInput(f"--rows {rows} and --columns {columns}: each needs an axis, and none may be there twice.")
    chosen = format_of(format_, output, short=short)
    only = filters.read(filter_, to_compare=True)
    path = db or stored.default_path()
    if stored.exists(path) or chosen != "markdown":
        with _opened(path) as store:
            board = leaderboard(store, *axes, only=only.where(processes.states(store)))
            board.only = only.text.strip()
            if board.only and not board.finished:
                raise BadInput(f"No finished run is meant by the filter {board.only!r}: `dambench runs` lists all.")
            text = FORMATS[chosen](board, *axes, **({"short": True} if short else {}))
    else:
        text = (
            f"There is no database {str(path)!r} yet. A first run makes it:\n\n"
            "    dambench run --headless --method dm --dataset digits --ipc 1\n"
        )
    if output is None:
        print(text, end="")
        return
    write(output, text)
    _say(f"Written: {output}")


@app.command()
def runs(
    all_: Annotated[bool, Option("--all", help=f"Not the newest {NEWEST} only.")] = False,
    deleted: Annotated[bool, Option("--deleted", help="Those in the trash.")] = False,
    filter_: Chosen = "",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List the runs, newest first."""
    with _opened(db) as store:
        only = filters.read(filter_).where(processes.states(store))
        found = store.newest(-1 if all_ else NEWEST + 1, deleted=deleted, only=only)
    if not all_ and len(found) > NEWEST:
        found.pop()
        print(f"The newest {NEWEST}; --all lists the others too.", file=sys.stderr)
    for row in found:
        row["state"] = processes.state(row)
    if as_json:
        print(json.dumps([row | {"overrides": json.loads(row["overrides"])} for row in found]))
        return
    if not found and filter_:
        print("No run is meant by this filter.")
        return
    if not found and deleted:
        print("The trash is empty.")
        return
    if not found:
        print("No runs yet: dambench run --headless --method dm --dataset digits --ipc 1")
        return
    head = ["id", "state", "method", "dataset", "ipc", "seed", "accuracy", "n", "name"]
    lines = [
        [
            row["id"],
            row["state"] if row["state"] != "running" else f"{row['phase']} {row['done']}/{row['total']}",
            (f"{row['evaluates']}: " if row["evaluates"] else "") + method_label(row["method"], row["overrides"]),
            row["dataset"],
            row["ipc"],
            row["seed"],
            None if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %",
            row["n"],
            row["name"],
        ]
        for row in found
    ]
    if has_room():
        head += ["protocol", "begun (UTC)"]
        for line, row in zip(lines, found, strict=True):
            line += [row["protocol"], row["created_at"][:16].replace("T", " ")]
    table(head, lines)


@app.command()
def show(
    run_id: RunId,
    preview: Annotated[Path | None, Option(help="Write the picture of its latest set to this PNG file.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Everything that is known of one run."""
    if preview is not None:
        files.check_suffix(preview, [".png"], "a preview")
    with _opened(db) as store:
        details = store.describe(run_id)
        details["run"]["state"] = processes.state(details["run"])
        png = store.preview(run_id)
        part = shown(png, details["sets"][-1]["shape"], store.extent(run_id)) if png else ""
    if preview is not None:
        if not png:
            raise BadInput(f"The run {details['run']['id']} has no set yet, and so no preview.")
        with files.writing("The preview", preview.absolute().parent):
            files.check_folder(preview, "The preview")
            files.write_whole(preview, png)
        _say(f"Written: {preview}" + (f" ({part})" if part else ""))
    if as_json:
        print(json.dumps(details))
        return
    describe(details)
    if png and sys.stdout.isatty():
        draw(png, details["sets"][-1]["shape"])
        if part:
            print(part)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        Argument(metavar="FILE", help="A synthetic set, a folder of CLASS/*.png, or images_best.pt beside its labels."),
    ],
    dataset: Annotated[str, Option(help="What it was made from. See `dambench data list`.")],
    format_: Annotated[
        str, Option("--format", metavar="FORMAT", help="auto (by the suffix), safetensors, npz, pt or images.")
    ] = "auto",
    pixels: Annotated[
        str | None,
        Option(help="What floats are: normalised, or plain: unit (0 to 1), bytes (0 to 255), symmetric (-1 to 1)."),
    ] = None,
    preprocessing: Annotated[
        str | None,
        Option(help="Of its images: mean/std, or zca, as MTT, DATM and PAD have it [default: mean/std]."),
    ] = None,
    experiment: Annotated[
        int | None, Option(help="Of a file with several sets, only this one, from 0 [default: all].")
    ] = None,
    lr: Annotated[
        float | None, Option(help="The learning rate that was distilled with it, where the file does not say it.")
    ] = None,
    set_: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="dataset.size=32, …")] = None,
    data: Annotated[str | None, Option(help="Where the dataset's raw data are [default: DAMBENCH_DATA].")] = None,
    as_json: Json = False,
) -> None:
    """Keep a synthetic set that was made elsewhere, so that it can be evaluated."""
    from dambench import datasets
    from dambench.engine import imports

    said = config.settings(set_ or [])
    if "method" in said:
        raise BadInput("A set is imported for a dataset: --set takes dataset.NAME=VALUE only.")
    place = data or os.environ.get("DAMBENCH_DATA")
    files.can_keep_sets()
    card = datasets.prepare(
        config.Choice(dataset, said.get("dataset", {})), files.user_path(place) if place else None, _say
    )
    found = imports.read(file, card, format_, pixels, preprocessing, experiment, lr, _say)
    hashes, first = [imports.keep(one) for one in found.sets], found.sets[0]
    several = len(hashes) > 1
    for note in [*card.notes, *found.notes]:
        _say(f"note: {note}")
    if several:
        _say(f"{len(hashes)} sets, all that it has: seed 0 takes the first, and so on. --experiment N imports one.")
    elif found.total > 1:
        _say(f"1 of its {found.total} sets: experiment {found.experiments[0]}.")
    words = ["dambench", "run", "--headless", "--method", "imported", "--dataset", dataset, "--ipc", str(found.ipc)]
    words += ["--protocol", imports.protocol_for(first)]
    words += ["--seeds", f"0-{len(hashes) - 1}"] if several else []
    words += [word for pair in set_ or [] for word in ("--set", pair)] + (["--data", data] if data else [])
    named = ",".join(sha256[:12] for sha256 in hashes) if several else hashes[0]
    command = shlex.join([*words, "--set", f"method.set={named}"])
    facts = {
        "sha256": None if several else hashes[0],
        "sets": hashes,
        "experiments": list(found.experiments),
        "dataset": card.label,
        "ipc": found.ipc,
        "shape": list(first.images.shape),
        "dtype": str(first.images.dtype).removeprefix("torch."),
        "preprocessing": first.preprocessing,
        "labels": "hard" if first.labels.dim() == 1 else "soft",
        "lr": first.lr,
        "file": None if several else str(files.set_path(hashes[0])),
        "notes": [*card.notes, *found.notes],
        "command": command,
    }
    if as_json:
        print(json.dumps(facts))
        return
    if several:
        for number, sha256 in zip(found.experiments, hashes, strict=True):
            print(f"{f'set {number}':14}{sha256}")
    for key in ("sha256", "dataset", "ipc", "shape", "dtype", "preprocessing", "labels", "lr", "file"):
        if facts[key] is not None:
            value = f"{first.lr:.6g}" if key == "lr" else str(facts[key])
            print(f"{key:14}{sanitize.display(value, 1000)}")
    print(f"\n{sanitize.display(command, 3000)}")


@app.command()
def delete(ids: Annotated[list[str], Argument(metavar="ID…", help="Or their beginnings.")], db: Db = None) -> None:
    """Put runs into the trash: no table shows them any more. `dambench restore` takes them out again."""
    with _opened(db, write=True) as store:
        rows = [store.run(run_id) for run_id in ids]
        for row in rows:
            if row["deleted_at"]:
                raise BadInput(f"The run {row['id']} is in the trash already.")
            if processes.state(row) in ALIVE:
                raise BadInput(f"The run {row['id']} goes on: `dambench stop {row['id']}` first.")
        for row in rows:
            store.delete(row["id"])
    which = " ".join(row["id"] for row in rows)
    print(f"In the trash: {which}. `dambench restore` brings them back, `dambench db purge` does not.", file=sys.stderr)


@app.command()
def restore(ids: Annotated[list[str], Argument(metavar="ID…", help="Or their beginnings.")], db: Db = None) -> None:
    """Take runs out of the trash."""
    with _opened(db, write=True) as store:
        rows = [store.run(run_id) for run_id in ids]
        for row in rows:
            if not row["deleted_at"]:
                raise BadInput(f"The run {row['id']} is not in the trash: `dambench runs --deleted` lists those.")
        for row in rows:
            store.restore(row["id"])
    print(f"Restored: {' '.join(row['id'] for row in rows)}.", file=sys.stderr)


def _on_a_local_disk(path: Path) -> Path:
    """The path of a database that is one file.

    Raises:
        BadInput: it is on a network disk, where the truth is the files of its runs.
    """
    if journal.why(path):
        raise BadInput(
            f"The database {str(path)!r} is on a network disk, where each run has a file of its own: "
            "this command needs a database on a local disk."
        )
    return path


@db_app.command("check")
def db_check(db: Db = None, as_json: Json = False) -> int:
    """Read the database and every file that it names. Exit code 1 if something is damaged."""
    with _opened(db) as store:
        found = upkeep.check(store)
    if as_json:
        print(json.dumps([finding._asdict() for finding in found]))
    else:
        table(["what", "", "detail"], [list(finding) for finding in found])
    return 1 if any(finding.state == "damaged" for finding in found) else 0


@db_app.command("backup")
def db_backup(
    file: Annotated[Path | None, Argument(metavar="[FILE]", help="[default: beside the database]")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Even if there is such a file.")] = False,
    pictures: Annotated[bool, Option(help="With the pictures that show sets on their way.")] = True,
    db: Db = None,
) -> None:
    """Copy the database into one file, while runs go on. Only so: its file alone may lack what came last."""
    path = db or stored.default_path()
    if file is not None and file.suffix.lower() in OTHER_SUFFIXES:
        raise BadInput(
            f"{sanitize.display(file.name, 60)!r} cannot be written: a backup is one database, such as runs.backup.db. "
            "`dambench db bundle` writes a .tar, with the sets."
        )
    if journal.why(path) and file is None:
        raise BadInput(f"The database {str(path)!r} is on a network disk: say which file on a local one is to be made.")
    with _opened(path) as store:
        print(upkeep.back_up(store.file, file, overwrite=overwrite, pictures=pictures))


@db_app.command("bundle")
def db_bundle(
    file: Annotated[Path, Argument(metavar="OUT", help="A .tar, or a new folder.")],
    filter_: Chosen = "",
    overwrite: Annotated[bool, Option("--overwrite", help="Even if there is such a .tar.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Write runs and the files of their sets, to be merged elsewhere. Exit code 1 if a file is damaged and left out."""
    from dambench.store.bundle import bundle

    files.check_suffix(file, [".tar"], "a bundle")
    with _opened(db) as store:
        only = filters.read(filter_)
        rows = store.newest(only=only.where(processes.states(store)))
        if not rows:
            raise BadInput(f"No run is meant by the filter {filter_!r}." if filter_ else "There are no runs to bundle.")
        made = bundle(store, file, [row["id"] for row in rows], overwrite=overwrite)
    if as_json:
        print(json.dumps(msgspec.to_builtins(made)))
    else:
        print(made.file)
    sets = sanitize.counted(made.sets, "set")
    _say(f"{sanitize.counted(made.runs, 'run')} with {sets}, {size(made.size_bytes)}.")
    for name, runs in made.missing.items():
        _say(f"Not on this machine, and left out: {name} of {' '.join(runs)}.")
    for path in made.damaged:
        _complain(f"{path} is left out: its content is not that of its name.")
    return 1 if made.damaged else 0


@db_app.command("merge")
def db_merge(
    others: Annotated[list[Path], Argument(metavar="OTHER…", help="Databases and bundles. They stay as they are.")],
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Add the runs of other databases and bundles, and the bundles' sets. Exit code 1 if some had to be left alone."""
    from dambench.store.bundle import merge_all

    with _opened(_on_a_local_disk(db or stored.default_path()), write=True) as store:
        found = merge_all(store, others)
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
    else:
        print(
            f"{len(found.added)} runs added, {len(found.continued)} gone on with, {found.unchanged} were here already; "
            f"{found.sets} sets taken in."
        )
        for theirs, ours in found.renamed.items():
            print(f"{theirs} is {ours} here: its id was that of another run.")
    if found.missing:
        _say(
            f"The sets of {sanitize.counted(len(found.missing), 'run')} are not here, and cannot be evaluated: "
            f"{' '.join(found.missing)}. `dambench db bundle`, where they are, brings them."
        )
    for run_id, why in found.conflicts.items():
        _complain(f"{run_id} is left as it is: {why}.")
    for run_id, why in found.refused.items():
        _complain(f"{run_id} is not merged: {why}.")
    for name in found.damaged:
        _complain(f"{name} is not taken in: its content is not that of its name, or it is no set.")
    return 1 if found.conflicts or found.refused or found.damaged else 0


@db_app.command("migrate")
def db_migrate(db: Db = None) -> None:
    """Bring the database up to date. Whatever writes to it does so too; reading changes nothing."""
    path = _on_a_local_disk(db or stored.default_path())
    old, new, backup = upkeep.migrate(path)
    if old == new:
        print(f"{path} has schema {new}: it is up to date.")
    else:
        print(f"{path} had schema {old} and has schema {new} now; as it was: {backup}")


@db_app.command("purge")
def db_purge(
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be removed.")] = False,
    unknown: Annotated[
        bool, Option("--unknown", help="Also what only runs may need that are in no database that can be read.")
    ] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Remove for good: runs in the trash with their sets and logs, checkpoints that no run needs, broken-off files."""

    def goes_on(row: dict[str, Any]) -> bool:
        return processes.state(row) in ALIVE

    path = _on_a_local_disk(db or stored.default_path())
    with _opened(path, write=not dry_run) as store:
        found = (upkeep.waste if dry_run else upkeep.purge)(store, goes_on, unknown=unknown)
    if as_json:
        print(json.dumps(msgspec.to_builtins(found, enc_hook=str)))
        return
    for run_id in found.runs:
        print(f"run {run_id}")
    for removed in found.paths:
        print(removed)
    what = f"{len(found.runs)} runs and {len(found.paths)} files, {size(found.size_bytes)}"
    print(f"{'Would be removed' if dry_run else 'Removed'}: {what}.", file=sys.stderr)
    if found.alive:
        print(f"In the trash, but still running: {' '.join(found.alive)}.", file=sys.stderr)
    for why, left in found.kept.items():
        _say(f"Kept: {len(left)} files, since {why}.")
    if found.unread:
        _say(f"Cannot be read: {', '.join(repr(str(path)) for path in found.unread)}.")
    if found.unknown:
        _say(f"Left: {len(found.unknown)} folders with checkpoints of runs that no known database has (--unknown).")


@app.command()
def methods(as_json: Json = False) -> None:
    """The methods, their options and recipes."""
    known = _noting(registry.load_all("methods"))
    if as_json:
        found = [
            {
                "name": name,
                "what": module.headline,
                "paper": module.PAPER,
                "matches_on_network": module.MATCHES_ON_NETWORK,
                "options": msgspec.json.schema(module.Options),
                "recipes": [msgspec.to_builtins(recipe) for recipe in module.RECIPES],
                "fault": "",
            }
            for name, module in known.usable.items()
        ]
        nothing = {"paper": "", "matches_on_network": False, "options": {}, "recipes": []}
        print(json.dumps(found + _unusable(known, nothing)))
        return
    table(
        ["method", "what", "paper", "options and their defaults", "--recipe"],
        [[name, m.headline, m.PAPER, _options(m), _recipes(m)] for name, m in known.usable.items()]
        + [[name, fault, "", "", ""] for name, fault in known.faults.items()],
    )


@app.command()
def networks(as_json: Json = False) -> None:
    """The networks, and how their names are made."""
    from dambench.networks import POOLS, parts

    known = _noting(registry.load_all("networks"))
    if as_json:
        rows = [
            {
                "name": n,
                "what": m.headline,
                "parts": parts(m),
                "options": msgspec.json.schema(m.Options),
                "members": [],
                "fault": "",
            }
            for n, m in known.usable.items()
        ]
        pools = [
            {"name": name, "what": what, "parts": {}, "options": {}, "members": members.split(), "fault": ""}
            for name, (what, members) in POOLS.items()
        ]
        print(json.dumps(rows + _unusable(known, {"parts": {}, "options": {}, "members": []}) + pools))
        return
    table(
        ["network", "what", "parts of a name, in any order"],
        [[name, module.headline, " ".join(parts(module).values())] for name, module in known.usable.items()]
        + [[name, fault, ""] for name, fault in known.faults.items()],
    )
    print()
    table(
        ["--evaluate-on", "the papers' pools", "networks"],
        [[name, what, members.replace(" ", ", ")] for name, (what, members) in POOLS.items()],
    )


@app.command()
def protocols(as_json: Json = False) -> None:
    """The protocols: how networks are trained and tested."""
    if as_json:
        print(json.dumps([msgspec.to_builtins(p) | {"sha256": p.sha256} for p in PRESETS.values()]))
        return
    table(
        ["protocol", "epochs", "whole", "batch", "rate", "augmentation", "source"],
        [
            [
                p.label,
                p.synthetic.epochs,
                p.whole.epochs,
                p.batch,
                p.lr,
                "none" if not p.augmentation else augmentation(p).partition(",")[0],
                p.source,
            ]
            for p in PRESETS.values()
        ],
    )


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The datasets, and which are prepared."""
    from dambench import datasets

    cards = datasets.prepared()
    known = _noting(registry.load_all("datasets"))
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "what": module.headline,
            "source": module.SOURCE,
            "options": msgspec.json.schema(module.Options),
            "files": list(module.FILES),
            "instead": module.INSTEAD,
            "prepared": [msgspec.to_builtins(card) for card in cards if card.name == name],
            "fault": "",
        }
        for name, module in known.usable.items()
    ]
    found += _unusable(known, {"source": "", "options": {}, "files": [], "instead": "", "prepared": []})
    if as_json:
        print(json.dumps(found))
        return
    rows = []
    for entry in found:
        ready = []
        for c in entry["prepared"]:
            ready.append(
                f"{c['label']}: {sum(c['train_counts'])} + {sum(c['test_counts'])} images, "
                f"{c['channels']}×{c['height']}×{c['width']}, {len(c['classes'])} classes"
            )
            ready += [f"  note: {note}" for note in c["notes"]]
        missing = "" if entry["fault"] else "not yet"
        rows += [[entry["name"], entry["what"], (ready or [missing])[0]], *(["", "", more] for more in ready[1:])]
    table(["dataset", "what", "prepared"], rows)


@app.command()
def doctor(as_json: Json = False, db: Db = None) -> int:
    """What this machine has, and where things lie. Exit code 1 if something is wrong."""
    from dambench.cli.doctor import examine

    checks = examine(db or stored.default_path())
    if as_json:
        print(json.dumps([{"what": what, "state": state, "detail": detail} for what, state, detail in checks]))
    else:
        table(["what", "", "detail"], [list(check) for check in checks])
    return 1 if any(state == "wrong" for _, state, _ in checks) else 0


def _noting(plugins: Plugins[P]) -> Plugins[P]:
    """The same plug-ins; what is from outside and is not used is told of."""
    for sentence in plugins.unused:
        _say(f"note: {sentence}")
    return plugins


def _unusable(known: Plugins[Contract], nothing: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries for those that cannot be used, with a sentence in the place of what they are."""
    return [{"name": name, "what": fault} | nothing | {"fault": fault} for name, fault in known.faults.items()]


def _recipes(module: Method) -> str:
    """The recipes that have to be asked for, and their datasets."""
    called: dict[str, list[str]] = {}
    for recipe in module.RECIPES:
        if recipe.name != "default":
            called.setdefault(recipe.name, []).extend(recipe.datasets or ["any"])
    return ", ".join(f"{name} ({'any' if 'any' in of else ', '.join(of)})" for name, of in called.items())


def _options(module: Method) -> str:
    usual = module.Options()
    return ", ".join(f"{name} {getattr(usual, name)}" for name in module.Options.__struct_fields__)
