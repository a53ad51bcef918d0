"""`dambench suite`: a whole table as one command, from a file that comes with dambench."""

import json
from typing import Annotated

from typer import Argument, Option

from dambench.cli.executors import Chosen, executor_options
from dambench.cli.options import Budget, DatasetSettings, Db, Devices, DryRun, Hook, Json, OnlyQueue, Retry, data_path
from dambench.cli.output import table
from dambench.cli.sweep import Asked, make
from dambench.core import config
from dambench.core import sweep as grids
from dambench.core.errors import BadInput
from dambench.runner import hooks
from dambench.store import runs as stored


@executor_options
def suite(
    name: Annotated[str | None, Argument(metavar="[NAME]", help="Alone: which there are.")] = None,
    data: Annotated[str | None, Option("--data", help="Your folder or .npz file, for the suite mine.")] = None,
    settings: DatasetSettings = None,
    dry_run: DryRun = False,
    queue: OnlyQueue = False,
    retry: Retry = False,
    budget: Budget = None,
    *,
    where: Chosen,
    device: Devices = "",
    hook: Hook = "",
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Make a whole table: all runs of a suite that are missing, in an order that makes it useful at any time."""
    hooks.use(hook)
    path = db or stored.default_path()
    stored.check(path)
    if name is None:
        known = grids.shipped()
        if as_json:
            print(json.dumps(known))
        else:
            table(["suite", "what"], [[each, what] for each, what in known.items()])
        return 0
    place = data_path(data)
    if data is not None and place is not None and not place.exists():
        raise BadInput(f"--data {data!r}: there is no such folder or file.", field="data")
    options = config.settings(settings or [], ("dataset",)).get("dataset", {})
    grid = grids.suite(name, "" if place is None else str(place), options)
    return make(grid, path, Asked(dry_run, queue, retry, where, device, budget), as_json)
