"""Reading of scores: those that count, each with its run, seed, set and repeat."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dambench.store.baselines import teacher_of, words_of
from dambench.store.cells import Score
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.row_names import EvaluatedRun
from dambench.store.runs import Store


def counted_scores(
    store: Store, entries: Sequence[EvaluatedRun], metric: MetricRow
) -> tuple[list[Score], list[str], list[str], list[str]]:
    """The scores that count, newest run first, then which runs were repeated since, which networks diverged, and which
    runs lack the metric.

    A run of the same settings and seed as another adds no evidence, on this machine or on another whose last bits
    differ: the newest counts, with all its networks, and none of the others'.
    """
    final_ones, lacking = _final_scores(store, entries, metric)
    fixed = _fixed_sets(entries, final_ones)
    counted: list[Score] = []
    is_repeated: dict[str, bool] = {}
    unscored, unmeasured = [], []
    counted_kinds = set()
    for entry in entries:
        run = entry.run
        final = final_ones.get((run.number, entry.network), [])
        if not final and (run.number, entry.network) in lacking:
            unmeasured.append(run.id)
            continue
        evaluator = entry.config.get("evaluator", {}).get("name", ACCURACY.evaluator)
        is_due = entry.network in entry.config["evaluate_on"] and metric.evaluator == ACCURACY.evaluator == evaluator
        if not final and not is_due:
            continue
        due = entry.config.get("eval_repeats", 1) if metric.evaluator == ACCURACY.evaluator else 1
        if len(final) < due:
            unscored.append(
                f"{entry.network} on the set of {entry.label} on {entry.dataset}{_at(run.ipc)}, seed {run.seed} "
                f"({due - len(final)} of {due})"
            )
            continue
        kind = (entry.settings, entry.place, run.seed, entry.network, final[0].protocol_sha256)
        is_repeated[run.id] = is_repeated.get(run.id, True) and kind in counted_kinds
        if kind in counted_kinds:
            continue
        counted_kinds.add(kind)
        words = words_of(entry.config)
        counted += [
            Score(
                method=entry.label,
                dataset=entry.dataset,
                ipc=run.ipc,
                network=entry.network,
                protocol=f"{network.protocol}#{network.protocol_sha256[:4]}",
                values=network.values,
                base_method=run.method,
                settings=entry.settings,
                recipe=run.recipe,
                set_sha256=network.set_sha256,
                dataset_sha256=run.dataset_sha256,
                run=run.id,
                source=entry.on_source,
                tested=entry.tested,
                computed=entry.computed,
                data_name=entry.config["dataset"]["name"],
                seed=run.seed,
                repeat=network.repeat,
                from_seed=entry.kind not in fixed,
                epochs=_epochs(entry) if run.method == "whole" else 0,
                repeats=int(entry.config.get("eval_repeats", 1)),
                teacher=teacher_of(entry.config),
                words=words,
            )
            for network in final
        ]
    repeated = [run for run, is_repeated_one in is_repeated.items() if is_repeated_one]
    return counted, repeated, unscored, list(dict.fromkeys(unmeasured))


def _epochs(entry: EvaluatedRun) -> int:
    """For how many epochs its protocol trains on the whole set."""
    return int(entry.config.get("protocol", {}).get("whole", {}).get("epochs", 0))


def _fixed_sets(
    entries: Sequence[EvaluatedRun], scores: Mapping[tuple[int, str], Sequence["_FinalScore"]]
) -> set[tuple[str, str, int | None]]:
    """The kinds of runs whose set does not depend on the seed: the whole set, and where several seeds made one."""
    made: dict[tuple[str, str, int | None], dict[int, set[str]]] = {}
    fixed = set()
    for entry in entries:
        if entry.run.method == "whole":
            fixed.add(entry.kind)
        if final := scores.get((entry.run.number, entry.network)):
            # Of a seed the newest run counts.
            made.setdefault(entry.kind, {}).setdefault(entry.run.seed, {score.set_sha256 for score in final})
    return fixed | {kind for kind, by in made.items() if len(by) > 1 and len(set().union(*by.values())) == 1}


class _FinalScore(NamedTuple):
    """A network trained on the result of a run."""

    protocol: str
    protocol_sha256: str
    set_sha256: str
    repeat: int
    values: dict[str, float]


def _final_scores(
    store: Store, entries: Sequence[EvaluatedRun], metric: MetricRow
) -> tuple[dict[tuple[int, str], list[_FinalScore]], set[tuple[int, str]]]:
    """Read the scores of results by the run's number and the network, in the order of repeats; then those that lack
    the metric."""
    numbers = json.dumps(sorted({entry.run.number for entry in entries}))
    values: dict[tuple[int, str, int], dict[str, float]] = {}
    for row in store.query(
        """
        select run, subject, repeat, metric, value, state
        from measurements join evaluations using (run, iteration, evaluator, subject, repeat)
        where final = 1 and evaluator = ? and run in (select value from json_each(?))
            and (metric not glob 'class_*' or metric = ?)
        """,
        metric.evaluator,
        numbers,
        metric.name,
    ):
        infinite = row["state"] in ("inf", "-inf")
        value = row["value"] if row["value"] is not None else float(row["state"]) if infinite else math.nan
        values.setdefault((row["run"], row["subject"], row["repeat"]), {})[row["metric"]] = value
    scores: dict[tuple[int, str], list[_FinalScore]] = {}
    lacking = set()
    for row in store.query(
        """
        select run, subject, repeat, protocol_sha256, set_sha256, protocols.name as protocol from evaluations
            join protocols on protocols.sha256 = evaluations.protocol_sha256
        where final = 1 and evaluator = ? and run in (select value from json_each(?))
        order by repeat
        """,
        metric.evaluator,
        numbers,
    ):
        mine = values.get((row["run"], row["subject"], row["repeat"]), {})
        if metric.name in mine:
            score = _FinalScore(row["protocol"], row["protocol_sha256"], row["set_sha256"], row["repeat"], mine)
            scores.setdefault((row["run"], row["subject"]), []).append(score)
        else:
            lacking.add((row["run"], row["subject"]))
    return scores, lacking


def _at(ipc: int | None) -> str:
    return "" if ipc is None else f" at IPC {ipc}"
