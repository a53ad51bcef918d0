"""`dambench compare`."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Option

from dambench.cli.options import Db, Filter, Json
from dambench.cli.output import table
from dambench.cli.store import open_store
from dambench.core.errors import BadInput
from dambench.report import compared, wording
from dambench.report.compared import Contestant, PairComparison, PlaceComparison
from dambench.report.parts import finite
from dambench.report.sections.runs import runs_of
from dambench.report.verdict import coarse
from dambench.runner import processes
from dambench.store import filters
from dambench.store.metrics import find_metric
from dambench.store.runs import Store
from dambench.tui.models import request

Command = Callable[[Contestant, tuple[int, ...]], str]
"""What runs these seeds of a side."""


def compare(
    which: Annotated[
        list[str],
        Argument(metavar="A B…", help="Rows by their names, runs by their ids, or filters: 'method:dm tag:new'."),
    ],
    best: Annotated[bool, Option("--best", help="Each with the best mean, not with the first that is named.")] = False,
    metric: Annotated[
        str, Option(help="What is compared: accuracy, balanced_accuracy, loss, …, or EVALUATOR.METRIC.")
    ] = "accuracy",
    filter_: Filter = "",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Say in words how far rows or runs are apart, and whether that can be told from chance."""
    if len(which) < 2:
        raise BadInput(
            f"{which[0]!r} alone: name two rows, runs or filters to compare, such as `dambench compare dm random`."
        )
    only = filters.read(filter_, to_compare=True)
    with open_store(db) as store:
        states = processes.states(store)
        whole, sides = compared.find(
            store,
            which,
            find_metric(store, metric),
            only.where(states),
            lambda text: filters.read(text, to_compare=True).where(states),
        )
        found = compared.matches(whole, sides, best=best)

        def command(side: Contestant, seeds: tuple[int, ...]) -> str:
            return more_seeds(store, side, seeds)

        if as_json:
            print(json.dumps([_record(match, command) for match in found], allow_nan=False))
            return
        for number, match in enumerate(found):
            if number:
                print()
            _print(match, command)


def more_seeds(store: Store, side: Contestant, seeds: tuple[int, ...]) -> str:
    """The command that makes more sets of a method, and trains the same network on them."""
    score = side.cell.scores[0]
    evaluated = store.run(score.run)
    maker = store.maker(evaluated.id)
    form = request.of_run(store.run(maker) if maker else evaluated)
    own = request.of_run(evaluated)
    form |= {"evaluate_on": score.network, "seeds": compared.spans(seeds)}
    form |= {name: own[name] for name in ("protocol", "eval_repeats")}
    return request.command(form)


def _print(match: PlaceComparison, command: Command) -> None:
    print(match.place.title)
    label = wording.metric_label(match.contestants[0].cell.metric)
    shown = [(side, wording.entry(side.cell)) for side in match.contestants]
    table(["", label, "sets × networks"], [[side.name, entry.number, entry.n] for side, entry in shown])
    for one in match.comparisons:
        print(compared.sentence(one))
    for line in compared.advice(match, command):
        print(line)


def _record(match: PlaceComparison, command: Command) -> dict[str, Any]:
    """A place as JSON has it: fractions stay fractions, null is not known."""
    seeds = compared.missing_seeds(match)
    return {
        **{name: value for name, value in match.place._asdict().items() if name != "tested"},
        "tested": list(match.place.tested),
        "metric": match.contestants[0].cell.metric.full_name,
        "test_images": match.test_images or None,
        "note": coarse(match.test_images),
        "rows": [_side(side, seeds.get(side.name, ()), command) for side in match.contestants],
        "comparisons": [_comparison(one) for one in match.comparisons],
    }


def _side(side: Contestant, seeds: tuple[int, ...], command: Command) -> dict[str, Any]:
    cell = side.cell
    return {
        "name": side.name,
        "method": cell.scores[0].method,
        "mean": finite(cell.mean),
        "interval": None if cell.interval is None else list(cell.interval),
        "unit": side.sample.unit,
        "sets": cell.sets,
        "networks": cell.networks,
        "runs": list(runs_of(cell)),
        "more_seeds": list(seeds),
        "command": command(side, seeds) if seeds else None,
    }


def _comparison(one: PairComparison) -> dict[str, Any]:
    gap = one.gap
    return {
        "a": one.a.name,
        "b": one.b.name,
        "difference": finite(gap.mean),
        "interval": None if gap.interval is None else list(gap.interval),
        "p": gap.p,
        "p_holm": one.p if one.corrected else None,
        "design": gap.design,
        "seeds": list(gap.seeds),
        "sets": list(gap.sets),
        "networks": list(gap.networks),
        "told_apart": one.told,
        "reason": gap.reason,
        "seeds_needed": one.needed,
        "sentence": compared.sentence(one),
    }
