"""`python -m benchmarks [NAME…]`: hold the contests, print what they found, and add it to the records."""

import argparse
import os
import sys
from functools import partial

import torch

from benchmarks.contest import NAMES, ON_GPU, Scene, Workers, headline, hold, load
from benchmarks.records import append, read, record, show


def main() -> None:
    names = "\n".join(f"  {name:<12}{headline(name)}" for name in NAMES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Side-by-side measurements, on a GPU where torch sees one:\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help=f"which ones [default: all; on a GPU {', '.join(ON_GPU)}]"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each form [default: 5]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round, no record: does it work?")
    parser.add_argument("--no-record", action="store_true", help="add nothing to the records")
    parser.add_argument("--note", default="", help="a text that goes into the records")
    parser.add_argument("--show", action="store_true", help="measure nothing: print the records")
    said = parser.parse_args()
    unknown = [name for name in said.names if name not in NAMES]
    if unknown or said.rounds < 1:
        parser.error(f"there is no benchmark {unknown[0]!r}" if unknown else "--rounds must be at least 1")
    if said.show:
        return show(read(), said.names)
    scene = Scene("cuda:0" if torch.cuda.is_available() else "cpu", said.quick)
    before = os.getloadavg()[0]
    if before > 0.5 and not said.quick:
        print(f"The load average is {before:.1f}: something else runs here, and the times will show it.")
    for name in said.names or (ON_GPU if scene.cuda else NAMES):
        contest = load(name, scene)
        with Workers(name, scene) as workers:
            results = hold(contest, workers.ask, 1 if said.quick else said.rounds, partial(_say, name))
            machine = workers.machine
        _say()
        one = record(name, contest, scene, results, machine, before, said.note)
        show([one])
        if not (said.quick or said.no_record):
            append(one)
    return None


def _say(*texts: str) -> None:
    """How far it is: in one line of a terminal that is written over, or a line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{': '.join(texts)[:100]}", end="", file=sys.stderr, flush=True)
    elif texts:
        print(": ".join(texts), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
