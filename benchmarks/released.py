"""`python -m benchmarks.released DB…`: docs/released.md, from runs of imported sets and what their files claim.

The databases have the runs; the claims lie with the sets in DAMBENCH_HOME. No number is written by hand.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from dambench.core import claims
from dambench.core.sanitize import counted, markdown
from dambench.published.audit import AuditLine
from dambench.report.formats.markdown import grid
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import Store
from dambench.store.statistics import mean, std, t_interval, t_quantile

ORDER = ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")

HEAD = """# Released sets, measured again

Synthetic sets that others have released carry the accuracies of the networks that their authors trained on them. Here
each set was imported (`dambench import`) and evaluated again under the protocol of its paper, on as many networks as
two shared CPU cores allowed. `python -m benchmarks.released` wrote this page from the database of these runs; no
number was typed.

A row is one network on all sets of a file. *published* and *measured*: mean of the set means ± sample standard
deviation over all networks, in %, with sets × networks. *gap*: measured minus published, in points, with half of its
95 % interval, by two units. *By set*: Student's t over the differences of the set means, one for each set. *By
network*: the variance of networks on one set, pooled over both sides and all sets; it says less about other sets of
the method, and more about whether networks are trained and tested here as they were there. *in*: whether the interval
holds 0. One interval in twenty misses by chance.

The rows under `dc-augmented#9d08` are of version 1 of that protocol, whose crop shifted images by up to 4 pixels on
either side. The MLPs, which know nothing of neighbouring pixels, were below the published ones on every set; the
released code shifts by 4 on one side and 3 on the other. Version 2, `dc-augmented#df07`, does so too, and has a table
of its own.
"""

RUNS = """
    select runs.id, runs.dataset, runs.ipc, runs.seed, runs.config, environments.command_line, environments.dambench,
        environments.torch, environments.device_name, environments.threads
    from runs join environments on environments.run = runs.number
    where runs.state = 'finished' and runs.deleted_at = '' and runs.method = 'imported' order by runs.created_at
"""


class SetFileKey(NamedTuple):
    """A file of sets, and how they were evaluated."""

    file: str
    dataset: str
    ipc: int
    protocol: str


Audited = dict[SetFileKey, dict[str, list[AuditLine]]]
"""By network, a line for each set."""


def page(paths: Sequence[Path]) -> str:
    """The whole page.

    Args:
        paths: of databases.
    """
    audited: Audited = {}
    claimed: dict[str, set[str]] = {}
    runs: list[dict[str, Any]] = []
    for path in paths:
        with closing(Store.open(path)) as store:
            _collect(store, audited, claimed)
            runs += [dict(row) for row in store.query(RUNS)]
    parts = [HEAD.strip()]
    for key, networks in sorted(audited.items(), key=lambda item: item[0]):
        ordered = sorted(networks, key=_rank)
        parts.append(f"## {markdown(key.file)}: {markdown(key.dataset)}, IPC {key.ipc}, protocol {key.protocol}")
        head = ["network", "published", "measured", "gap", "by set", "in", "by network", "in"]
        parts.append(grid([head, *(_row(network, networks[network]) for network in ordered)]))
        if missing := _missing(networks, claimed[key.file]):
            parts.append(f"Not measured: {missing}.")
        parts.append("Set by set, mean ± standard deviation (networks), by network:")
        head = ["network", "set", "published", "measured", "gap", "±", "in"]
        parts.append(grid([head, *(row for network in ordered for row in _set_rows(network, networks[network]))]))
    parts += ["## What was run", *_commands(runs)]
    return "\n\n".join(parts) + "\n"


def _collect(store: Store, audited: Audited, claimed: dict[str, set[str]]) -> None:
    """Add the networks that count, set by set, with what is claimed for each."""
    for table in leaderboard(store, ("method",), ("network",)).tables:
        for cell in table.cells.values():
            for sha256, scores in cell.by_set.items() if cell.scores[0].base_method == "imported" else ():
                known, score = claims.find(sha256), scores[0]
                if known is None or score.ipc is None:
                    continue
                claimed.setdefault(known.file, set()).update(known.accuracies)
                if score.network in known.accuracies:
                    key = SetFileKey(known.file, score.dataset, score.ipc, score.protocol)
                    measured = tuple(each.values["accuracy"] for each in scores)
                    line = AuditLine(score.network, score.protocol, tuple(known.accuracies[score.network]), measured)
                    audited.setdefault(key, {}).setdefault(score.network, []).append(line)


def _rank(network: str) -> tuple[int, str]:
    return next((n for n, name in enumerate(ORDER) if network.startswith(name)), len(ORDER)), network


def _row(network: str, lines: Sequence[AuditLine]) -> list[str]:
    gaps = [line.gap for line in lines]
    gap, interval = mean(gaps), t_interval(gaps)
    sides = (_figure([line.claimed for line in lines]), _figure([line.measured for line in lines]))
    units = (interval.half if interval else None, half_by_network(lines))
    return [network, *sides, f"{100 * gap:+.2f}", *(text for half in units for text in _judged(gap, half))]


def half_by_network(lines: Sequence[AuditLine]) -> float | None:
    """Half of the 95 % interval of the mean gap over sets that are the same on both sides.

    The variance of networks on one set is pooled over all sets and both sides. None: there are too few networks.
    """
    groups = [values for line in lines for values in (line.claimed, line.measured)]
    freedom = sum(len(values) - 1 for values in groups)
    if freedom < 1:
        return None
    squares = sum(sum((value - mean(values)) ** 2 for value in values) for values in groups)
    error = sqrt(squares / freedom * sum(1 / len(values) for values in groups)) / len(lines)
    return float(t_quantile(freedom) * error)


def _judged(gap: float, half: float | None) -> tuple[str, str]:
    return ("–", "–") if half is None else (f"± {100 * half:.2f}", "yes" if abs(gap) <= half else "no")


def _figure(sets: Sequence[Sequence[float]]) -> str:
    spread = std([value for values in sets for value in values])
    numbers = sorted({len(values) for values in sets})
    each = "–".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))
    text = f"{100 * mean([mean(values) for values in sets]):.2f}"
    return f"{text}{'' if spread is None else f' ± {100 * spread:.2f}'} ({len(sets)}×{each})"


def _set_rows(network: str, lines: Sequence[AuditLine]) -> list[list[str]]:
    return [
        [
            network,
            str(number),
            *(claims.spread([*values]).replace(" %", "") for values in (line.claimed, line.measured)),
            f"{100 * line.gap:+.2f}",
            *_judged(line.gap, line.half),
        ]
        for number, line in enumerate(lines)
    ]


def _missing(networks: dict[str, list[AuditLine]], claimed: set[str]) -> str:
    """What the file claims and was not measured, in words."""
    sets = max(len(lines) for lines in networks.values())
    parts = [
        f"{network} on {sets - len(networks.get(network, []))} of {counted(sets, 'set')}"
        for network in sorted(claimed, key=_rank)
        if len(networks.get(network, [])) < sets
    ]
    return ", ".join(parts)


def _commands(runs: Sequence[dict[str, Any]]) -> list[str]:
    """A block of the command lines, and a sentence on the machines."""
    commands: dict[str, list[str]] = {}
    machines = set()
    for run in runs:
        config = json.loads(run["config"])
        what = f"{run['dataset']} IPC {run['ipc']}: {config['eval_repeats']} of {', '.join(config['evaluate_on'])}"
        commands.setdefault(f"{run['command_line']}\n        # {what}, seed", []).append(str(run["seed"]))
        machines.add(
            f"dambench {run['dambench']}, torch {run['torch']}, {run['device_name']}, "
            f"{counted(run['threads'], 'thread')}"
        )
    block = "\n".join(f"    {command} {', '.join(seeds)}" for command, seeds in commands.items())
    return [block, f"On {'; '.join(sorted(machines))}."]


if __name__ == "__main__":
    print(page([Path(name) for name in sys.argv[1:]]), end="")
