"""`dambench report`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from dambench.cli.options import Db, Filter, NamesFile
from dambench.cli.output import say
from dambench.cli.store import open_store
from dambench.core import collection
from dambench.core.errors import BadInput, named
from dambench.report import format_of, names, quantities, read_sections, render, write
from dambench.report.arrangement import check
from dambench.report.document import DocumentQuery, arrange, read_board
from dambench.report.sections import SECTIONS, usual
from dambench.store import filters, grouping
from dambench.store import runs as stored
from dambench.store.leaderboard import AXES

Show = Annotated[
    str, Option(metavar="LIST", help=f"What cells show, of {', '.join(quantities.QUANTITIES)} [default: metric].")
]
Hide = Annotated[
    list[str] | None, Option(metavar="NAME", help="A row or a column to leave out; it still counts. Several times.")
]
First = Annotated[
    list[str] | None, Option(metavar="NAME", help="A row or a column to come first. Several times: in that order.")
]
Order = Annotated[str, Option(help="Of rows: name, best (of the first column) or best:COLUMN.", metavar="ORDER")]
GroupKeys = Annotated[
    str, Option(metavar="KEYS", help="Runs in groups by these, as dataset,ipc,method.lr_images: section groups.")
]


@collection.paused()
def report(
    rows: Annotated[str, Option(help="What rows stand for: method, dataset, ipc, network, protocol.")] = "method",
    columns: Annotated[str, Option(help="What columns stand for.")] = "dataset,ipc",
    format_: Annotated[
        str | None,
        Option("--format", help="markdown, latex, csv, html or json [default: by the file's suffix, else markdown]."),
    ] = None,
    metric: Annotated[
        str, Option(help="What cells show: accuracy, balanced_accuracy, loss, …, or EVALUATOR.METRIC.")
    ] = "accuracy",
    sections: Annotated[
        str, Option(help=f"Which parts, of {', '.join(SECTIONS)}; all [default: {', '.join(usual())}].", metavar="LIST")
    ] = "",
    short: Annotated[bool, Option("--short", help="Only the tables of accuracy, and what their signs say.")] = False,
    show: Show = "",
    hide: Hide = None,
    first: First = None,
    order: Order = "",
    group: GroupKeys = "",
    names_: NamesFile = None,
    filter_: Filter = "",
    output: Annotated[Path | None, Option("--output", "-o", help="A file instead of stdout.")] = None,
    filled: Annotated[
        bool, Option("--fill", help="Print nothing, but queue what the tables lack: baselines, and seeds others have.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Of --fill: only say what would be queued, and what it takes.")
    ] = False,
    db: Db = None,
    as_json: Annotated[bool, Option("--json", help="Of --fill --dry-run: JSON on stdout.")] = False,
) -> int | None:
    """Compare all finished runs, in markdown, LaTeX, CSV, HTML or JSON."""
    axes = [tuple(named("axis", part, AXES) for part in text.split(",") if part.strip()) for text in (rows, columns)]
    if len({*axes[0], *axes[1]}) < len(axes[0]) + len(axes[1]) or not all(axes):
        raise BadInput(f"--rows {rows} and --columns {columns}: each needs an axis, and none may be there twice.")
    chosen = format_of(format_, output, short=short)
    parts = read_sections(sections, chosen, short=short)
    if (dry_run and not filled) or (as_json and not dry_run):
        raise BadInput("--dry-run is of --fill, and --json of both; --format json is the report as JSON.")
    by = grouping.read(group) if group else ()
    if by and (short or "groups" not in (parts or ("groups",))):
        raise BadInput("--group is of the section groups: leave --short and --sections out, or name groups there.")
    parts = parts or ("groups",) if by else parts
    filters.read(filter_, to_compare=True)
    query = DocumentQuery(
        axes[0], axes[1], metric, parts, short, filter_, chosen,
        quantities.read(show), tuple(hide or ()), tuple(first or ()), order, by,
    )  # fmt: skip
    check(query.arrangement)
    path = db or stored.default_path()
    if filled and not stored.exists(path):
        raise BadInput(f"There is no database {str(path)!r} yet: a table lacks nothing before there is one.")
    if stored.exists(path) or chosen != "markdown":
        with open_store(path) as store, names.using(names_, SECTIONS):
            board = read_board(store, query)
            if filled:
                from dambench.cli.fill import missing_requests, queue_missing  # which needs all that runs need

                requests = missing_requests(store, board, *axes)
                without = [one for one in board.baselines.missing if not one.words]
                return queue_missing(path, requests, without, dry_run=dry_run, as_json=as_json)
            names.check(board)
            text = render(chosen, arrange(board, query), *axes, short=short)
    else:
        text = (
            f"There is no database {str(path)!r} yet. A first run makes it:\n\n"
            "    dambench run --headless --method dm --dataset digits --ipc 1 --seeds 0-2\n"
        )
    if output is None:
        print(text, end="")
        return None
    write(output, text)
    say(f"Written: {output}")
    return None
