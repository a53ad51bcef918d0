"""Runs that are recorded: list and show them, write to them, throw them away."""

import json
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from typer import Argument, Option

from dambench.cli.chosen import Chosen, chosen, fitting
from dambench.cli.options import Db, Filter, Json, RunId
from dambench.cli.output import has_room, say, table
from dambench.cli.show import describe, draw, preview_note
from dambench.cli.store import open_store
from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.published.audit import audit, sentence
from dambench.report import changes
from dambench.runner import processes
from dambench.store import filters, selection
from dambench.store.baselines import NO_COMMAND
from dambench.store.leaderboard import missing_beside
from dambench.store.row_names import method_label
from dambench.store.rows import RunRow

NEWEST = 100
"""Runs that are listed, unless all are asked for."""
MOST_ELSEWHERE = 6
"""Runs that are named of those that measured a set, too."""


def runs(
    all_: Annotated[bool, Option("--all", help=f"Not the newest {NEWEST} only.")] = False,
    deleted: Annotated[bool, Option("--deleted", help="Those in the trash.")] = False,
    filter_: Filter = "",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List the runs, newest first."""
    with open_store(db) as store:
        only = filters.read(filter_).where(processes.states(store))
        rows = store.newest(-1 if all_ else NEWEST + 1, deleted=deleted, only=only)
    if not all_ and len(rows) > NEWEST:
        rows.pop()
        print(f"The newest {NEWEST}; --all lists the others too.", file=sys.stderr)
    rows = [msgspec.structs.replace(row, state=processes.state(row)) for row in rows]
    if as_json:
        print(json.dumps([msgspec.structs.asdict(row) | {"overrides": json.loads(row.overrides)} for row in rows]))
        return
    if not rows and filter_:
        print("No run is meant by this filter.")
        return
    if not rows and deleted:
        print("The trash is empty.")
        return
    if not rows:
        print("No runs yet: dambench run --headless --method dm --dataset digits --ipc 1 --seeds 0-2")
        return
    head = ["id", "state", "method", "dataset", "ipc", "seed", "accuracy", "n", "name"]
    lines = [
        [
            row.id,
            row.state if row.state != "running" else f"{row.phase} {row.done}/{row.total}",
            (f"{row.evaluates}: " if row.evaluates else "") + method_label(row.method, row.overrides),
            row.dataset,
            row.ipc,
            row.seed,
            None if row.accuracy is None else f"{100 * row.accuracy:.2f} %",
            row.n,
            row.name,
        ]
        for row in rows
    ]
    if has_room():
        head += ["protocol", "begun (UTC)"]
        for line, row in zip(lines, rows, strict=True):
            line += [row.protocol, row.created_at[:16].replace("T", " ")]
    table(head, lines)


def show(
    run_id: RunId,
    preview: Annotated[Path | None, Option(help="Write the picture of its latest set to this PNG file.")] = None,
    decoded: Annotated[
        bool, Option("--decoded", help="Of mosaics, what networks are trained on, not what is kept (for --preview).")
    ] = False,
    nearest: Annotated[
        Path | None,
        Option(help="Write the training images nearest to those of its set, by pixels, to this PNG file."),
    ] = None,
    against: Annotated[
        str, Option(metavar="ID", help="Tell what changed since this run, not since the nearest earlier one.")
    ] = "",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Everything that is known of one run, and what changed since the nearest earlier one."""
    if preview is not None:
        files.check_suffix(preview, [".png"], "a preview")
    elif decoded:
        raise BadInput("--decoded says which picture --preview FILE.png writes: it needs that.")
    if nearest is not None:
        files.check_suffix(nearest, [".png"], "a picture of the nearest images")
        _write_nearest(nearest, run_id, db)
    with open_store(db) as store:
        details = store.describe(run_id)
        details["selection"] = selection.by_rule(store, details["run"]["id"])
        lines = audit(details["scores"], details["run"]["protocol"])
        details["audit"] = [line.facts for line in lines]
        row = store.run(run_id)
        elsewhere = store.measured_elsewhere(row)
        details["measured_elsewhere"] = [dict(one) for one in elsewhere]
        since = changes.changes_since(store, row, store.run(against)) if against else changes.since_nearest(store, row)
        details["changes"] = msgspec.to_builtins(since)
        details["run"]["state"] = processes.state(row)
        png = store.preview(run_id)
        missing = [] if preview or as_json else missing_beside(store, row)
        is_seen = preview is not None or (not as_json and sys.stdout.isatty())
        part = preview_note(png, details["sets"][-1]["shape"], store.extent(run_id)) if png and is_seen else ""
    if preview is not None:
        if not png:
            raise BadInput(f"The run {details['run']['id']} has no set yet, and so no preview.")
        if decoded:
            png = _decoded_preview(details["sets"][-1]["file"])
        with files.writing("The preview", preview.absolute().parent):
            files.check_folder(preview, "The preview")
            files.write_whole(preview, png)
        say(f"Written: {preview}" + (f" ({part})" if part else ""))
    if as_json:
        print(json.dumps(details))
        return
    describe(details)
    if elsewhere:
        named = [f"{one['run']} ({display(one['evaluator'])})" for one in elsewhere[:MOST_ELSEWHERE]]
        rest = f" and {len(elsewhere) - len(named)} more" if len(elsewhere) > len(named) else ""
        print(f"Its set was also measured by {', '.join(named)}{rest}.")
    print("\n".join(changes.text(since)))
    if lines:
        print(sentence(lines))
    for one in missing:
        print(f"missing beside it: {display(one.what)} ({display(one.where, 300)})")
        print(f"  {display(one.command, 2000) or NO_COMMAND}")
    if png and is_seen:
        draw(png, details["sets"][-1]["shape"])
        if part:
            print(part)


def _write_nearest(path: Path, run_id: str, db: Path | None) -> None:
    """Write the training images nearest to those of a run's set, in the order of its preview."""
    from dambench.cli.figure import columns_of_pairs
    from dambench.core.half_blocks import sheet_png

    with open_store(db) as store:
        images = columns_of_pairs(store, store.run(run_id))["nearest by pixels"]
    with files.writing("The picture", path.absolute().parent):
        files.check_folder(path, "The picture")
        files.write_whole(path, sheet_png(images))
    say(f"Written: {path}")


def _decoded_preview(path: str) -> bytes:
    from dambench.engine.preview import preview
    from dambench.training.problem import SyntheticSet

    if not path:
        raise BadInput("--decoded needs the tensors of the set, which are not on this machine.")
    return preview(SyntheticSet.read(Path(path)).decoded())


def tag(
    words: Annotated[
        list[str],
        Argument(
            metavar="ID… TAG…",
            help="A run, more by their whole ids, then tags to give; with a - in front, to take away.",
        ),
    ],
    filter_: Annotated[
        str, Option("--filter", metavar="FILTER", help="Instead of ids: tag all such runs: 'method:dm state:done'.")
    ] = "",
    db: Db = None,
) -> None:
    """Tag runs: filters find them by their tags."""
    with open_store(db) as store:
        at = (
            0 if filter_ else next((n for n, word in enumerate(words) if n and store.with_id(word) is None), len(words))
        )
        tags = words[at:]
        if wrong := [name for name in tags if not name.strip("- ")]:
            raise BadInput(f"{wrong[0]!r} is no tag: a tag is a word, with a - in front to take it away.")
        rows = chosen(store, [filter_] if filter_ else words[:at]).rows
        if not tags:
            raise BadInput(f"No tag was said: `dambench tag {' '.join(words)} TAG`.")
    with open_store(db, write=True, make=False) as store:
        for row in rows:
            for name in tags:
                store.edit(row.id, "untag" if name.startswith("-") else "tag", name.removeprefix("-").strip())
        if len(rows) == 1:
            print(" ".join(store.describe(rows[0].id)["tags"]))
    if len(rows) > 1:
        say(f"{counted(len(rows), 'run')} tagged: {display(' '.join(tags), 200)}.")


def note(
    run_id: RunId,
    text: Annotated[str, Argument(metavar="TEXT", help="In place of what was written before; '' takes it away.")],
    db: Db = None,
) -> None:
    """Write a note to a run."""
    with open_store(db, write=True, make=False) as store:
        row = store.run(run_id)
        store.edit(row.id, "note", text)
    if row.note:
        say(f"Replaced: {row.note}")


def delete(runs: Chosen, db: Db = None) -> None:
    """Put runs into the trash: no table shows them any more. `dambench restore` takes them out again."""
    with open_store(db, write=True, make=False) as store:
        rows = fitting(chosen(store, runs), _can_delete)
        for row in rows:
            store.delete(row.id)
    which = " ".join(row.id for row in rows)
    print(f"In the trash: {which}. `dambench restore` brings them back, `dambench db purge` does not.", file=sys.stderr)


def _can_delete(row: RunRow) -> None:
    if row.deleted_at:
        raise BadInput(f"The run {row.id} is in the trash already.")
    if processes.state(row) in processes.ALIVE:
        raise BadInput(f"The run {row.id} goes on: `dambench stop {row.id}` first.")


def restore(runs: Chosen, db: Db = None) -> None:
    """Take runs out of the trash."""
    with open_store(db, write=True, make=False) as store:
        rows = fitting(chosen(store, runs, deleted=True), _can_restore)
        for row in rows:
            store.restore(row.id)
    print(f"Restored: {' '.join(row.id for row in rows)}.", file=sys.stderr)


def _can_restore(row: RunRow) -> None:
    if not row.deleted_at:
        raise BadInput(f"The run {row.id} is not in the trash: `dambench runs --deleted` lists those.")
