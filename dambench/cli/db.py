"""`dambench db`: the database whole, copied, merged, up to date, tidy."""

import json
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from typer import Argument, Option

from dambench.cli.arguments import Commands
from dambench.cli.options import Db, Filter, Json
from dambench.cli.output import complain, say, table
from dambench.cli.store import on_a_local_disk, open_store
from dambench.core import files, sanitize
from dambench.core.errors import BadInput
from dambench.core.units import size
from dambench.runner import processes
from dambench.store import filters, journal, upkeep
from dambench.store import runs as stored
from dambench.store.rows import RunRow

app = Commands(rich_markup_mode=None, help="The database: whole, copied, merged, up to date, tidy.")

OTHER_SUFFIXES = (
    *(".tar", ".gz", ".zip", ".xz", ".zst", ".sql", ".json", ".jsonl", ".toml", ".csv", ".md", ".tex", ".html", ".pdf"),
    *(".png", ".svg", ".jpg", ".safetensors", ".pt", ".npz"),
)
"""Suffixes of files that are no databases."""


@app.command("check")
def check(db: Db = None, as_json: Json = False) -> int:
    """Read the database and every file that it names. Exit code 1 if something is damaged."""
    with open_store(db) as store:
        findings = upkeep.check(store)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        table(["what", "", "detail"], [list(finding) for finding in findings])
    return 1 if any(finding.state == "damaged" for finding in findings) else 0


@app.command("backup")
def backup(
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
    if journal.network_disk_reason(path) and file is None:
        raise BadInput(f"The database {str(path)!r} is on a network disk: say which file on a local one is to be made.")
    with open_store(path) as store:
        print(upkeep.back_up(store.file, file, overwrite=overwrite, pictures=pictures))


@app.command("bundle")
def bundle(
    file: Annotated[Path, Argument(metavar="OUT", help="A .tar, or a new folder.")],
    filter_: Filter = "",
    overwrite: Annotated[bool, Option("--overwrite", help="Even if there is such a .tar.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Write runs and the files of their sets, to be merged elsewhere. Exit code 1 if a file is damaged and left out."""
    from dambench.store.bundle import bundle

    files.check_suffix(file, [".tar"], "a bundle")
    with open_store(db) as store:
        only = filters.read(filter_)
        rows = store.newest(only=only.where(processes.states(store)))
        if not rows:
            raise BadInput(f"No run is meant by the filter {filter_!r}." if filter_ else "There are no runs to bundle.")
        made = bundle(store, file, [row.id for row in rows], overwrite=overwrite)
    if as_json:
        print(json.dumps(msgspec.to_builtins(made)))
    else:
        print(made.file)
    sets = sanitize.counted(made.sets, "set")
    say(f"{sanitize.counted(made.runs, 'run')} with {sets}, {size(made.size_bytes)}.")
    for name, runs in made.missing.items():
        say(f"Not on this machine, and left out: {name} of {' '.join(runs)}.")
    for path in made.damaged:
        complain(f"{path} is left out: its content is not that of its name.")
    return 1 if made.damaged else 0


@app.command("merge")
def merge(
    others: Annotated[list[Path], Argument(metavar="OTHER…", help="Databases and bundles. They stay as they are.")],
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Add the runs of other databases and bundles, and the bundles' sets. Exit code 1 if some had to be left alone."""
    from dambench.store import bundle

    path = on_a_local_disk(db or stored.default_path())
    if not stored.exists(path):
        bundle.check(others)
    with open_store(path, write=True) as store:
        merged = bundle.merge_all(store, others)
    if as_json:
        print(json.dumps(msgspec.to_builtins(merged)))
    else:
        print(
            f"{len(merged.added)} runs added, {len(merged.continued)} gone on with, "
            f"{merged.unchanged} were here already; {merged.sets} sets taken in."
        )
        for theirs, ours in merged.renamed.items():
            print(f"{theirs} is {ours} here: its id was that of another run.")
    if merged.missing:
        say(
            f"The sets of {sanitize.counted(len(merged.missing), 'run')} are not here, and cannot be evaluated: "
            f"{' '.join(merged.missing)}. `dambench db bundle`, where they are, brings them."
        )
    for run_id, why in merged.conflicts.items():
        complain(f"{run_id} is left as it is: {why}.")
    for run_id, why in merged.refused.items():
        complain(f"{run_id} is not merged: {why}.")
    for name in merged.damaged:
        complain(f"{name} is not taken in: its content is not that of its name, or it is no set.")
    return 1 if merged.conflicts or merged.refused or merged.damaged else 0


@app.command("migrate")
def migrate(db: Db = None) -> None:
    """Bring the database up to date. Whatever writes to it does so too; reading changes nothing."""
    path = on_a_local_disk(db or stored.default_path())
    old, new, backup = upkeep.migrate(path)
    if old == new:
        print(f"{path} has schema {new}: it is up to date.")
    else:
        print(f"{path} had schema {old} and has schema {new} now; as it was: {backup}")


@app.command("purge")
def purge(
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be removed.")] = False,
    unknown: Annotated[
        bool, Option("--unknown", help="Also what only runs may need that are in no database that can be read.")
    ] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Remove for good: runs in the trash with their sets and logs, checkpoints that no run needs, broken-off files."""

    def goes_on(row: RunRow) -> bool:
        return processes.state(row) in processes.ALIVE

    path = on_a_local_disk(db or stored.default_path())
    with open_store(path, write=not dry_run, make=False) as store:
        waste = (upkeep.waste if dry_run else upkeep.purge)(store, goes_on, unknown=unknown)
    if as_json:
        print(json.dumps(msgspec.to_builtins(waste, enc_hook=str)))
        return
    for run_id in waste.runs:
        print(f"run {run_id}")
    for removed in waste.paths:
        print(removed)
    amount = f"{len(waste.runs)} runs and {len(waste.paths)} files, {size(waste.size_bytes)}"
    print(f"{'Would be removed' if dry_run else 'Removed'}: {amount}.", file=sys.stderr)
    if waste.alive:
        print(f"In the trash, but still running: {' '.join(waste.alive)}.", file=sys.stderr)
    for why, left in waste.kept.items():
        say(f"Kept: {len(left)} files, since {why}.")
    if waste.unread:
        say(f"Cannot be read: {', '.join(repr(str(path)) for path in waste.unread)}.")
    if waste.unknown:
        say(f"Left: {len(waste.unknown)} folders with checkpoints of runs that no known database has (--unknown).")
