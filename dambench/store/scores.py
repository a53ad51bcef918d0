"""Reading of scores: those that count, each with its run, seed, set and repeat."""

import json
from collections.abc import Container, Mapping, Sequence

import msgspec

from dambench.store.cells import Score
from dambench.store.final_scores import FinalScore, FinalScores, as_number
from dambench.store.metrics import ACCURACY, MetricRow
from dambench.store.row_names import EvaluatedRun, SeedMates
from dambench.store.runs import Store


def counted_scores(
    store: Store, entries: Sequence[EvaluatedRun], found: Mapping[int, FinalScores], metric: MetricRow
) -> tuple[list[Score], list[str], list[str], list[str]]:
    """The scores that count, newest run first, then which runs were repeated since, which networks diverged, and which
    runs lack the metric.

    A run of the same settings and seed as another adds no evidence, on this machine or on another whose last bits
    differ: the newest counts, with all its networks, and none of the others'.

    Args:
        found: all final scores, by number of the run.
    """
    labels = _protocol_labels(store)
    final_ones, lacking = _final_scores(store, found, metric, labels)
    fixed = _fixed_sets(entries, final_ones)
    counted: list[Score] = []
    is_repeated: dict[str, bool] = {}
    unscored, unmeasured = [], []
    having = {number for number, _ in final_ones}
    counted_kinds = set()
    is_of_accuracy = metric.evaluator == ACCURACY.evaluator
    for run, mates in entries:
        final = final_ones.get((run.number, mates.network), [])
        if not final and (run.number, mates.network) in lacking:
            # Of an evaluator whose items are of several kinds each has metrics of its own.
            if metric.evaluator == ACCURACY.evaluator or run.number not in having:
                unmeasured.append(run.id)
            continue
        evaluator = mates.config.get("evaluator", {}).get("name", ACCURACY.evaluator)
        is_due = mates.network in mates.config["evaluate_on"] and metric.evaluator == ACCURACY.evaluator == evaluator
        if not final and not is_due:
            continue
        due = mates.due if is_of_accuracy else 1
        if len(final) < due:
            unscored.append(
                f"{mates.network} on the set of {mates.label} on {mates.dataset}{_at(run.ipc)}, seed {run.seed} "
                f"({due - len(final)} of {due})"
            )
            continue
        kind = (mates.kind, run.seed, mates.network, final[0].protocol_sha256)
        is_repeated[run.id] = is_repeated.get(run.id, True) and kind in counted_kinds
        if kind in counted_kinds:
            continue
        counted_kinds.add(kind)
        from_seed, data_name = mates.kind not in fixed, mates.config["dataset"]["name"]
        epochs = _epochs(mates) if run.method == "whole" else 0
        for network in final:
            score = Score(
                method=mates.label,
                dataset=mates.dataset,
                ipc=run.ipc,
                network=mates.network,
                protocol=labels[network.protocol_sha256],
                values=network.values,
                base_method=run.method,
                settings=mates.settings,
                recipe=run.recipe,
                set_sha256=network.set_sha256,
                dataset_sha256=run.dataset_sha256,
                run=run.id,
                source=mates.on_source,
                tested=mates.tested,
                computed=mates.computed,
                data_name=data_name,
                seed=run.seed,
                repeat=network.repeat,
                from_seed=from_seed,
                epochs=epochs,
                repeats=mates.due,
                teacher=mates.teacher,
                words=mates.words,
            )
            counted.append(score)
    repeated = [run for run, is_repeated_one in is_repeated.items() if is_repeated_one]
    return counted, repeated, unscored, list(dict.fromkeys(unmeasured))


def _epochs(mates: SeedMates) -> int:
    """For how many epochs their protocol trains on the whole set."""
    return int(mates.config.get("protocol", {}).get("whole", {}).get("epochs", 0))


def _protocol_labels(store: Store) -> dict[str, str]:
    rows = store.query("select sha256, name from protocols")
    return {row["sha256"]: f"{row['name']}#{row['sha256'][:4]}" for row in rows}


def _fixed_sets(
    entries: Sequence[EvaluatedRun], scores: Mapping[tuple[int, str], Sequence[FinalScore]]
) -> set[tuple[str, str, int | None]]:
    """The kinds of runs whose set does not depend on the seed: the whole set, and where several seeds made one."""
    made: dict[tuple[str, str, int | None], dict[int, set[str]]] = {}
    fixed = set()
    for run, mates in entries:
        if run.method == "whole":
            fixed.add(mates.kind)
        if final := scores.get((run.number, mates.network)):
            # Of a seed the newest run counts.
            by_seed = made.setdefault(mates.kind, {})
            if run.seed not in by_seed:
                by_seed[run.seed] = {score.set_sha256 for score in final}
    return fixed | {kind for kind, by in made.items() if len(by) > 1 and len(set().union(*by.values())) == 1}


def _final_scores(
    store: Store, found: Mapping[int, FinalScores], metric: MetricRow, protocols: Container[str]
) -> tuple[dict[tuple[int, str], list[FinalScore]], set[tuple[int, str]]]:
    """The scores of results by the run's number and the network, in the order of repeats; then those that lack the
    metric."""
    of_class = _of_class(store, found, metric) if metric.name.startswith("class_") else {}
    scores: dict[tuple[int, str], list[FinalScore]] = {}
    lacking = set()
    for number, all_of in found.items():
        for score in all_of.scores.get(metric.evaluator, ()):
            key = number, score.subject
            if of_class:
                value = of_class.get((*key, score.repeat))
                finite = score.finite if value is None else dict(sorted({**score.finite, metric.name: value}.items()))
                score = msgspec.structs.replace(score, finite=finite)
            if score.protocol_sha256 not in protocols:
                continue
            if metric.name in score.finite or metric.name in score.others:
                scores.setdefault(key, []).append(score)
            else:
                lacking.add(key)
    return scores, lacking


def _of_class(store: Store, found: Mapping[int, FinalScores], metric: MetricRow) -> dict[tuple[int, str, int], float]:
    """The accuracies of one class, which are in no copy, by run, network and repeat."""
    rows = store.query(
        """
        select run, subject, repeat, value, state
        from measurements join evaluations using (run, iteration, evaluator, subject, repeat)
        where final = 1 and evaluator = ? and metric = ? and run in (select value from json_each(?))
        """,
        metric.evaluator,
        metric.name,
        json.dumps(sorted(found)),
    )
    return {
        (row["run"], row["subject"], row["repeat"]): as_number(row["state"]) if row["value"] is None else row["value"]
        for row in rows
    }


def _at(ipc: int | None) -> str:
    return "" if ipc is None else f" at IPC {ipc}"
