"""`dambench figure`: figures for papers."""

import importlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from typer import Argument, Option

from dambench.cli.arguments import Commands
from dambench.cli.options import Db, Filter, NamesFile
from dambench.cli.output import say
from dambench.cli.store import open_store
from dambench.core import files
from dambench.core.config import RunConfig, SetRef
from dambench.core.errors import BadInput, named
from dambench.report import names
from dambench.report.figures import drawing
from dambench.report.figures.drawing import Drawn, Look
from dambench.report.formats.latex import latex
from dambench.report.sections import SECTIONS
from dambench.runner import processes
from dambench.store import filters
from dambench.store.leaderboard import leaderboard
from dambench.store.metrics import ACCURACY, find_metric
from dambench.store.rows import RunRow
from dambench.store.runs import Store

if TYPE_CHECKING:
    from dambench.core.half_blocks import Pixels
    from dambench.report.figures.sheet import SetBlock

app = Commands(no_args_is_help=True, rich_markup_mode=None, help="Figures for papers: PDF, SVG or PNG.")

Output = Annotated[Path, Option("--output", "-o", help="The file: .pdf, .svg or .png.")]
Size = Annotated[
    str, Option("--size", metavar="SIZE", help="column (3.25 in), page (6.75 in), or WIDTH or WIDTHxHEIGHT in inches.")
]
Panels = Annotated[int | None, Option(min=1, max=12, help="Panels side by side [default: as fit].")]
Font = Annotated[str, Option(help="A TrueType font on this machine.")]
Points = Annotated[float, Option("--font-size", min=4, max=24, help="Of the text, in points.")]
Snippet = Annotated[
    Path | None, Option("--latex", metavar="FILE.tex", help="Also a LaTeX figure with caption and label, to \\input.")
]
Metric = Annotated[str, Option(help="What is shown: accuracy, balanced_accuracy, loss, …, or EVALUATOR.METRIC.")]
RunIds = Annotated[list[str] | None, Argument(metavar="[ID…]", help="Runs, or their beginnings; else --filter.")]
MOST_RUNS = 200
"""Runs in a figure of curves."""
MOST_BLOCKS = 12
"""Sets in a sheet."""


def _of_board(kind: str, summary: str) -> None:
    """Add the command that draws a kind of figure from the leaderboard."""

    @app.command(kind, help=summary)
    def draw(
        output: Output,
        metric: Metric = "accuracy",
        size: Size = "page",
        panels: Panels = None,
        font: Font = Look.font,
        points: Points = Look.points,
        names_: NamesFile = None,
        snippet: Snippet = None,
        filter_: Filter = "",
        db: Db = None,
    ) -> None:
        drawer = importlib.import_module(f"dambench.report.figures.{kind}")
        look = _look(size, panels, font, points)
        _check(output, snippet)
        only = filters.read(filter_, to_compare=True)
        with open_store(db) as store, names.using(names_, SECTIONS), drawing.drawing(look):
            shown = find_metric(store, metric)
            board = leaderboard(store, *drawer.AXES, metric=shown, only=only.where(processes.states(store)))
            board.only = only.text.strip()
            if board.only and not board.finished:
                raise BadInput(f"No finished run is meant by the filter {board.only!r}: `dambench runs` lists all.")
            if shown != ACCURACY and not board.tables:
                raise BadInput(f"No finished run has the metric {shown.full_name}: `dambench evaluate` measures one.")
            names.check(board)
            _write(kind, drawer.draw(board, look), output, snippet, look)


_of_board("accuracy", "Accuracy over images per class, with intervals.")
_of_board("transfer", "Bars of each method on each network that was trained on its sets, with intervals.")


@app.command()
def curves(
    output: Output,
    ids: RunIds = None,
    show: Annotated[str, Option(help="loss, accuracy (of sets on the way: --evaluate-every) or both.")] = "loss",
    over: Annotated[str, Option(help="iterations or seconds.")] = "iterations",
    only: Annotated[str, Option(metavar="NAME,…", help="Only these losses or networks [default: all].")] = "",
    log: Annotated[bool, Option("--log", help="Losses on a logarithmic scale.")] = False,
    size: Size = "page",
    panels: Panels = None,
    font: Font = Look.font,
    points: Points = Look.points,
    names_: NamesFile = None,
    snippet: Snippet = None,
    filter_: Filter = "",
    db: Db = None,
) -> None:
    """Losses or accuracies of several runs on the way."""
    from dambench.report.figures import curves as kind

    shown = named("kind of curve", show, ["loss", "accuracy", "both"])
    by = named("axis", over, ["iterations", "seconds"])
    look = _look(size, panels, font, points)
    _check(output, snippet)
    with open_store(db) as store, names.using(names_, SECTIONS), drawing.drawing(look):
        rows = _runs(store, ids, filter_, MOST_RUNS)
        read = kind.read(store, rows, shown, by)
        chosen = [part.strip() for part in only.split(",") if part.strip()]
        _write("curves", kind.draw(read, by, look, only=chosen, log=log), output, snippet, look)


@app.command()
def sheet(
    output: Output,
    ids: RunIds = None,
    classes: Annotated[str, Option(help="Rows, by name or number: 0-4,7 [default: the first 20].")] = "",
    images: Annotated[int | None, Option(min=1, help="Of each class, at the most [default: as fit].")] = None,
    size: Size = "page",
    font: Font = Look.font,
    points: Points = Look.points,
    names_: NamesFile = None,
    snippet: Snippet = None,
    filter_: Filter = "",
    db: Db = None,
) -> None:
    """Synthetic sets of several runs side by side: classes down, methods across."""
    from dambench.report.figures import sheet as kind

    look = _look(size, None, font, points)
    _check(output, snippet)
    with open_store(db) as store, names.using(names_, SECTIONS), drawing.drawing(look):
        rows = _runs(store, ids, filter_, MOST_BLOCKS)
        blocks = kind.read(store, rows)
        chosen = kind.choose(classes, blocks[0].classes)
        blocks = [_in_full(block) if block.lacks(chosen, images) else block for block in blocks]
        _write("sheet", kind.draw(blocks, chosen, images, look), output, snippet, look)


@app.command()
def pairs(
    run: Annotated[str, Argument(metavar="ID", help="A finished run, or its beginning.")],
    output: Output,
    classes: Annotated[str, Option(help="Rows, by name or number: 0-4,7 [default: the first 20].")] = "",
    images: Annotated[int | None, Option(min=1, help="Of each class, at the most [default: as fit].")] = None,
    size: Size = "page",
    font: Font = Look.font,
    points: Points = Look.points,
    names_: NamesFile = None,
    snippet: Snippet = None,
    db: Db = None,
) -> None:
    """Synthetic images beside the real ones nearest to them, and those that they started from."""
    from dambench.report.figures import sheet as kind

    look = _look(size, None, font, points)
    _check(output, snippet)
    with open_store(db) as store, names.using(names_, SECTIONS), drawing.drawing(look):
        row = store.run(run)
        columns = columns_of_pairs(store, row)
        (block,) = kind.read(store, [row])
        blocks = [
            replace(block, label=label, images=shown, total=shown.shape[1], thinned=False)
            for label, shown in columns.items()
        ]
        drawn = kind.draw(blocks, kind.choose(classes, block.classes), images, look)
        title = f"Nearest real images of {block.label} on {names.of('dataset', block.dataset)}"
        caption = f"{title}, a row per class: {', '.join(columns)}."
        _write("pairs", drawn._replace(title=title, caption=caption), output, snippet, look)


def columns_of_pairs(store: Store, row: RunRow) -> dict[str, "Pixels"]:
    """The images of a run's set and the real ones beside them, with three channels.

    Raises:
        BadInput: it has no set, or what it was made of is not here.
    """
    iteration = store.iteration_of(row)
    if row.state != "finished" or row.set_sha256 is None or iteration is None:
        raise BadInput(f"The run {row.id} is {processes.state(row)}: only the set of a finished run has neighbours.")
    from dambench import engine
    from dambench.engine.pairs import pairs as found

    config = msgspec.json.decode(row.config, type=RunConfig)
    overrides = json.loads(row.overrides)
    job = engine.reopen(config, row.dataset_sha256, row.recipe, overrides, None, say, only_its_set=True)
    columns = found(job, SetRef(row.set_sha256, iteration)).columns
    return {label: shown.repeat(3 // shown.shape[-1], -1) for label, shown in columns.items()}


def _look(size: str, panels: int | None, font: str, points: float) -> Look:
    return Look(*drawing.read_size(size), panels, font, points)


def _check(output: Path, snippet: Path | None) -> None:
    """See that what is asked for can be written, before anything is read.

    Raises:
        BadInput: it cannot.
    """
    files.check_suffix(output, drawing.SUFFIXES, "a figure")
    if not output.suffix:
        raise BadInput(f"{str(output)!r} has no suffix: .pdf, .svg or .png says what a figure is to be.")
    files.check_folder(output, "The figure")
    if snippet is None:
        return
    files.check_suffix(snippet, [".tex"], "a LaTeX figure")
    files.check_folder(snippet, "The LaTeX figure")
    if output.suffix.lower() == ".svg":
        raise BadInput("--latex needs a figure in PDF or PNG: LaTeX includes no SVG.")
    if not re.fullmatch("[A-Za-z0-9._-]+", output.name):
        raise BadInput(
            f"--latex needs a figure whose name LaTeX can take: letters, digits, . _ and -, unlike {output.name!r}."
        )


def _runs(store: Store, ids: list[str] | None, filter_: str, most: int) -> list[RunRow]:
    """The runs that are meant, in the order in which they are named, or begun.

    Raises:
        BadInput: there are none, or too many.
    """
    if ids and filter_:
        raise BadInput("Runs are named by their ids or by --filter, not by both.")
    if ids:
        rows = [store.run(run_id) for run_id in ids]
    elif filter_:
        listed = store.newest(most + 1, only=filters.read(filter_).where(processes.states(store)))
        rows = [store.run(row.id) for row in reversed(listed)]
    else:
        raise BadInput("Which runs? Name them by their ids, or with --filter: `dambench runs` lists them.")
    rows = list({row.id: row for row in rows}.values())
    if not rows:
        raise BadInput(f"No run is meant by the filter {filter_!r}: `dambench runs` lists all.")
    if len(rows) > most:
        raise BadInput(f"More than {most} runs are meant, and a figure takes {most} at the most: choose with --filter.")
    return rows


def _in_full(block: "SetBlock") -> "SetBlock":
    """The block with the pixels of its set, where that is on this machine; else as it is."""
    path = files.set_path(block.sha256)
    if not path.is_file() or files.sha256(path) != block.sha256:
        return block
    import numpy as np

    from dambench.engine.exports import pixels_of
    from dambench.training.problem import SyntheticSet

    synthetic = SyntheticSet.read(path)
    pixels = pixels_of(synthetic)[0].permute(0, 2, 3, 1).numpy()
    labels = synthetic.hard_labels.numpy()
    each = min(int((labels == label).sum()) for label in range(len(synthetic.classes)))
    if not each:
        return block  # soft labels of which none is largest for a class
    images = np.stack([pixels[labels == label][:each] for label in range(len(synthetic.classes))])
    return replace(block, images=images.repeat(3 // images.shape[-1], -1), total=each, thinned=False)


def _write(kind: str, drawn: Drawn, output: Path, snippet: Path | None, look: Look) -> None:
    """Write a figure, whole, and what LaTeX needs of it."""
    target = Path(os.path.realpath(output))
    content = drawing.content(drawn, output.suffix.lower())
    with files.writing("The figure", target.parent):
        files.write_whole(target, content)
    caption = names.caption(f"figure-{kind}", drawn.title, drawn.caption)
    if snippet is not None:
        label = names.label("fig", kind)
        lines = [
            r"\begin{figure}",
            r"  \centering",
            f"  \\includegraphics[width={look.width:g}in]{{{output.name}}}",
            f"  \\caption{{{latex(caption)}}}",
            *([f"  \\label{{{label}}}"] if label else []),
            r"\end{figure}",
        ]
        with files.writing("The LaTeX figure", snippet.absolute().parent):
            files.write_whole(Path(os.path.realpath(snippet)), ("\n".join(lines) + "\n").encode())
    for note in drawn.notes:
        say(f"note: {note}")
    say(f"Written: {output}. {caption}")
