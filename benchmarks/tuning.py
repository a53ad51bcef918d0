"""`python -m benchmarks.tuning [NAME…|all]`: how the settings of our own recipes were chosen, and the record of it.

Each line of `tuning.jsonl` is a grid that was tried by `dambench tune`: on validation images, which networks and
sets have not seen, with the mean validation accuracy of every seed and combination. What was on the test set is neither
printed nor kept there. A recipe keeps its settings unless others are clearly better: by the interval of the paired
difference over the seeds.

Runs are kept in a database of their own, so that an interrupted grid goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dambench import __version__
from dambench.cli.output import table

RECORDS = Path(__file__).with_name("tuning.jsonl")


@dataclass(frozen=True)
class Search:
    """A grid for one recipe."""

    name: str
    recipe: str
    method: str
    dataset: str
    protocol: str
    grid: tuple[str, ...]
    keeps: dict[str, Any]
    """What the recipe has."""
    more: tuple[str, ...] = ()
    """Further options of `dambench tune`."""
    seeds: str = "0-2"


def _digits(method: str, values: str, lr: float, *, more: str = "", seeds: str = "0-2") -> Search:
    grid, name = (f"method.lr_images={values}",), f"{method}-digits{more}"
    return Search(name, "default", method, "digits", "fair-quick", grid, {"method.lr_images": lr}, seeds=seeds)


def _factor(method: str, keeps: int) -> Search:
    """Mosaics of 2 × 2, as the papers have them, or images as they are: those of digits have 8 × 8 pixels."""
    settings = {"method.factor": keeps}
    return Search(
        f"{method}-digits-factor", "default", method, "digits", "fair-quick", ("method.factor=1,2",), settings
    )


def _brief(method: str, values: str, lr: float) -> Search:
    grid, more = (f"method.lr_images={values}",), ("--recipe", "brief")
    return Search(f"{method}-brief", "brief", method, "mnist", "fair-brief", grid, {"method.lr_images": lr}, more)


SEARCHES = (
    _digits("dm", "0.1,1.0,10.0", 1.0),
    _digits("datadam", "0.1,1.0,10.0", 1.0),
    _digits("dc", "0.01,0.1,1.0", 0.1),
    _digits("dsa", "0.01,0.1,1.0", 0.1),
    _digits("mtt", "1.0,10.0,100.0", 10.0),
    _digits("datm", "0.1,1.0,10.0", 10.0),
    _digits("pad", "0.1,1.0,10.0", 10.0),
    _digits("atom", "0.1,1.0,10.0", 1.0),
    _digits("idm", "0.002,0.02,0.2", 0.002),
    _digits("dance", "0.001,0.01,0.1", 0.01),
    _digits("tgdd", "0.001,0.01,0.1", 0.01),
    _digits("ncfm", "0.001,0.01,0.1", 0.01),
    _digits("dsdm", "0.001,0.01,0.1", 0.01),
    _digits("m3d", "0.01,0.1,1.0", 0.1),
    _digits("sre2l", "0.025,0.25,2.5", 0.25),
    _digits("ftd", "1.0,10.0,100.0", 10.0),
    *(_factor(method, 1) for method in ("dsdm", "ncfm", "m3d", "dance", "tgdd", "idm")),
    # With the whole images that those recipes have since: the step sizes above were chosen with mosaics.
    _digits("dsdm", "0.001,0.01,0.1", 0.01, more="-whole-images"),
    _digits("ncfm", "0.001,0.01,0.1", 0.01, more="-whole-images"),
    _digits("m3d", "0.01,0.1,1.0", 0.1, more="-whole-images"),
    _digits("dance", "0.001,0.01,0.1", 0.01, more="-whole-images"),
    _digits("tgdd", "0.001,0.01,0.1", 0.01, more="-whole-images"),
    _digits("idm", "0.0002,0.002,0.02", 0.002, more="-whole-images"),
    _digits("datm", "1.0,10.0", 10.0, more="-six-seeds", seeds="0-5"),
    _digits("pad", "1.0,10.0", 10.0, more="-six-seeds", seeds="0-5"),
    _brief("dm", "0.3,1.0,3.0", 1.0),
    _brief("datadam", "0.3,1.0,3.0", 1.0),
    _brief("dc", "0.03,0.1,0.3", 0.1),
    _brief("dsa", "0.03,0.1,0.3", 0.1),
    _brief("mtt", "100.0,300.0,1000.0", 300.0),
    _brief("datm", "100.0,300.0,1000.0", 300.0),
    _brief("pad", "100.0,300.0,1000.0", 300.0),
    _brief("ftd", "100.0,300.0,1000.0", 300.0),
    _brief("atom", "0.3,1.0,3.0", 1.0),
    _brief("idm", "0.02,0.2,2.0", 0.2),
    _brief("dance", "0.003,0.01,0.03", 0.01),
    _brief("tgdd", "0.003,0.01,0.03", 0.01),
    _brief("ncfm", "0.003,0.01,0.03", 0.01),
    _brief("dsdm", "0.003,0.01,0.03", 0.01),
    _brief("m3d", "0.03,0.1,0.3", 0.1),
    _brief("sre2l", "0.08,0.25,0.8", 0.25),
)
"""At IPC 1, two networks for each set: what a small machine can do. Three seeds; six where three did not decide."""


def main() -> int:
    names = "\n".join(f"  {search.name}" for search in SEARCHES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning",
        description=f"Grids for our own recipes, on validation images; without a name: which are recorded.\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="which ones, or all")
    parser.add_argument("--db", default="tuning.db", help="where the runs are kept [default: tuning.db]")
    parser.add_argument("--show", action="store_true", help="run nothing: print the record")
    given = parser.parse_args()
    by_name = {search.name: search for search in SEARCHES}
    given.names = list(by_name) if given.names == ["all"] else given.names
    if unknown := [name for name in given.names if name not in by_name]:
        parser.error(f"there is no search {unknown[0]!r}")
    if given.show:
        show(read())
    elif not given.names:
        listed(read())
    for name in given.names:
        keep(_record(by_name[name], given.db))
    return 0


def listed(records: list[dict[str, Any]]) -> None:
    """Print all searches, and which of them are in the record."""
    made = {record["search"]: record["at"][:10] for record in records}
    lines = [
        [
            search.name,
            search.recipe,
            search.dataset,
            ", ".join(search.grid),
            search.seeds,
            made.get(search.name, "to do"),
        ]
        for search in SEARCHES
    ]
    table(["search", "recipe", "dataset", "grid", "seeds", "made"], lines)


def _record(search: Search, db: str) -> dict[str, Any]:
    command = ["tune", "--method", search.method, "--dataset", search.dataset, "--ipc", "1", "--seeds", search.seeds]
    command += ["--protocol", search.protocol, "--eval-repeats", "2", "--device", "cpu", *search.more]
    command += [part for pair in search.grid for part in ("--grid", pair)]
    done = subprocess.run(
        [sys.executable, "-m", "dambench", *command, "--db", db, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if not done.stdout:
        sys.exit(f"{search.name}: dambench tune ended with {done.returncode}, and without a result.")
    result = json.loads(done.stdout)
    chosen = [trial["settings"] for trial in result["trials"] if trial["chosen"]]
    return {
        "search": search.name,
        "recipe": search.recipe,
        "method": search.method,
        "dataset": search.dataset,
        "ipc": 1,
        "protocol": search.protocol,
        "networks": 2,
        "keeps": search.keeps,
        "best": chosen[0] if chosen else None,
        "trials": [
            {key: trial[key] for key in ("settings", "validation_accuracy", "mean", "std")}
            for trial in result["trials"]
        ],
        "command": " ".join(["dambench", *command]),
        "dambench": __version__,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read(path: Path = RECORDS) -> list[dict[str, Any]]:
    """The record, a search a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(record: dict[str, Any], path: Path = RECORDS) -> None:
    """Add a search, in place of an older one of its name."""
    rest = [other for other in read(path) if other["search"] != record["search"]]
    path.write_text("".join(f"{json.dumps(one, sort_keys=True)}\n" for one in [*rest, record]))


def show(records: list[dict[str, Any]]) -> None:
    """Print what was tried, and what the recipe keeps."""
    lines = []
    for record in records:
        for trial in record["trials"]:
            kept, best = record["keeps"] == trial["settings"], record["best"] == trial["settings"]
            mean = "diverged" if trial["mean"] is None else f"{100 * trial['mean']:.1f}"
            spread = "" if trial["std"] is None else f" ± {100 * trial['std']:.1f}"
            settings = ", ".join(f"{name} {value}" for name, value in trial["settings"].items())
            marks = ", ".join(word for word, there in (("kept", kept), ("best", best)) if there)
            lines.append([record["search"], settings, mean + spread, len(trial["validation_accuracy"]), marks])
    table(["search", "settings", "validation %", "seeds", ""], lines)


if __name__ == "__main__":
    sys.exit(main())
