"""Sections that the ledger has no rows for, computed again from a database of random rows, by SQL, numpy and scipy."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from dambench.cli.app import run_cli
from dambench.core.config import HeldOut
from dambench.core.events import AnyEvent, Cost, Finished, Measured
from dambench.core.files import digest
from dambench.core.protocol import PRESETS, HoldOut, preset
from dambench.store.runs import Store
from tests.ledger import CARD, add, config, costs, words

pytestmark = pytest.mark.slow
SOURCE = "convnet-d1-w8"
UNSEEN = ("convnet-d2-w8", "lenet", "mlp")
METHODS = ("random", "dm", "dc", "dsa", "datadam", "mtt")
exact = pytest.approx

Row = dict[str, Any]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six methods with three sets each, on four networks; one set of dc was not tried on the MLP."""
    path = tmp_path_factory.mktemp("random") / "runs.db"
    draw = np.random.default_rng(7)
    with closing(Store.open(path, write=True)) as store:
        for place, method in enumerate(METHODS):
            for seed in range(3):
                of_set = 0.3 + 0.08 * place + 0.03 * draw.standard_normal()
                for network in (SOURCE, *UNSEEN):
                    if (method, seed, network) == ("dc", 2, "mlp"):
                        continue
                    run = config(method, seed=seed, evaluate_on=network)
                    values = (of_set + 0.05 * draw.standard_normal(2)).tolist()
                    seconds, joules = draw.uniform(1, 9, 2).tolist()
                    spent = [
                        Cost(phase="distil", seconds=2 * seconds, peak_memory_bytes=10**6, joules=3 * joules),
                        Cost(phase="evaluate", seconds=2 * seconds, peak_memory_bytes=10**6, joules=joules),
                    ]
                    made = f"{method} {seed}"
                    end = Finished(set_sha256=_set_of(made), costs=spent)
                    add(store, run, values, made=made, seconds=seconds, end=end)
        for seed in range(3):
            whole = config("whole", seed=seed)
            add(store, whole, draw.uniform(0.9, 1, 2).tolist(), seconds=float(draw.uniform(10, 20)))
    return path


def _set_of(made: str) -> str:
    return digest(made.encode())


@pytest.fixture
def report(path: Path, capsys: pytest.CaptureFixture[str]) -> Row:
    assert run_cli(["report", "--db", str(path), "--format", "json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.fixture(scope="module")
def rows(path: Path) -> list[Row]:
    """What is stored of each network: its method, seed, network, repeat, metric, value and seconds."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute(
            "select r.id, r.method, r.seed, r.set_sha256, e.subject, e.repeat, e.seconds, m.metric, m.value "
            "from measurements m join evaluations e using (run, iteration, evaluator, subject, repeat) "
            "join runs r on r.number = m.run where e.final = 1 and e.evaluator = 'accuracy'"
        )
        return [dict(row) for row in found]


def _set_means(rows: list[Row], metric: str = "accuracy") -> dict[str, dict[str, dict[int, float]]]:
    """By method, network and seed."""
    values: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        if row["metric"] == metric:
            values[row["method"]][row["subject"]][row["seed"]].append(row["value"])
    return {
        method: {n: {seed: float(np.mean(v)) for seed, v in of.items()} for n, of in by_network.items()}
        for method, by_network in values.items()
    }


def _lines(report: Row, name: str) -> Iterator[Row]:
    assert report[name]
    yield from report[name]


def test_means_over_unseen_networks(report: Row, rows: list[Row]) -> None:
    means = _set_means(rows)
    for line in _lines(report, "cross_architecture"):
        own = means[line["method"]]
        assert line["unseen"] == (line["network"] in UNSEEN)
        assert line["accuracy"] == exact(np.mean(list(own[line["network"]].values())), rel=1e-12)
        if line["method"] == "whole":
            continue
        seeds = sorted(set.intersection(*(set(own[network]) for network in UNSEEN)))
        assert len(seeds) == (2 if line["method"] == "dc" else 3) == line["unseen_sets"]
        values = np.array([np.mean([own[network][seed] for network in UNSEEN]) for seed in seeds])
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        assert line["unseen_mean"] == exact(values.mean(), rel=1e-12)
        assert (line["unseen_low"], line["unseen_high"]) == exact(
            (values.mean() - half, values.mean() + half), rel=1e-9
        )
        assert line["unseen_std_between_sets"] == exact(values.std(ddof=1), rel=1e-9)
        by_network = {network: np.mean([own[network][seed] for seed in seeds]) for network in UNSEEN}
        assert line["worst_network"] == min(by_network, key=lambda network: float(by_network[network]))
        assert line["worst"] == exact(min(by_network.values()), rel=1e-12)
        if line["method"] == "random":
            assert line["drop"] is None, "it was matched on no network"
        else:
            of_source = np.array([own[SOURCE][seed] for seed in seeds])
            assert line["drop"] == exact((of_source - values).mean(), rel=1e-9)


def test_orders_of_methods_between_networks(report: Row, rows: list[Row]) -> None:
    means = _set_means(rows)
    pairs = list(_lines(report, "rank_correlation"))
    assert len(pairs) == 6
    for line in pairs:
        first, second = (
            [float(np.mean(list(means[method][network].values()))) for method in METHODS]
            for network in (line["network"], line["other_network"])
        )
        assert line["methods"] == len(METHODS)
        assert line["spearman"] == exact(stats.spearmanr(first, second).statistic, rel=1e-12)
        assert line["kendall"] == exact(stats.kendalltau(first, second).statistic, rel=1e-12)


def test_the_full_set_against_condensed_ones(report: Row, rows: list[Row]) -> None:
    lines = list(_lines(report, "condensed"))
    assert len(lines) == len(METHODS) * 4 + 1
    for line in lines:
        own = [row for row in rows if (row["method"], row["subject"]) == (line["method"], line["network"])]
        for metric, shown in (("accuracy", "test_accuracy"), ("train_accuracy", "train_accuracy")):
            means = _set_means(own, metric)[line["method"]][line["network"]]
            assert line[shown] == exact(np.mean(list(means.values())), rel=1e-12)
        seconds = {row["id"]: row["seconds"] for row in own}
        assert line["training_seconds"] == exact(np.median(list(seconds.values())), rel=1e-12)
        assert line["condensed"] == (line["method"] != "whole")
        assert line["gpu_memory_bytes"] is None, "it was on a CPU"


def test_joules_of_distilling_and_of_each_network(report: Row, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "select r.method, e.subject, e.networks, d.joules, c.joules from runs r "
            "join (select run, subject, count(distinct repeat) networks from evaluations group by run, subject) e "
            "on e.run = r.number join costs d on d.run = r.number and d.phase = 'distil' "
            "join costs c on c.run = r.number and c.phase = 'evaluate' where r.method != 'whole'"
        ).fetchall()
    assert len(found) == len(METHODS) * 12 - 1
    metered = [line for line in _lines(report, "costs") if line["method"] != "whole"]
    assert len(metered) == len(METHODS) * 4
    for line in metered:
        own = [one for one in found if one[:2] == (line["method"], line["network"])]
        assert line["distil_joules"] == exact(np.median([joules for *_, joules, _ in own]), rel=1e-12)
        assert line["evaluate_joules"] == exact(np.median([joules / networks for _, _, networks, _, joules in own]))
    assert all(line["distil_joules"] is None for line in _lines(report, "costs") if line["method"] == "whole")


def _course(store: Store, seed: int, course: dict[int, Any]) -> None:
    """A run with test and validation accuracies of three networks at four iterations."""
    base = config("dm", seed=seed, protocol=PRESETS["fair-quick"])
    held = HeldOut(rule=HoldOut(), of_each_class=26, sha256="a" * 64)
    method = msgspec.structs.replace(base.method, options={"iterations": 40})
    run = msgspec.structs.replace(base, method=method, held_out=held, eval_repeats=3, evaluate_every=10)
    spoken: list[AnyEvent] = [event for event in words(run) if not isinstance(event, Measured | Finished)]
    for iteration, networks in course.items():
        for repeat, (test, validation) in enumerate(networks):
            measured = Measured(
                evaluator="accuracy",
                subject=SOURCE,
                repeat=repeat,
                iteration=iteration,
                final=iteration == 40,
                set_sha256=f"{seed:032d}{iteration:032d}",
                protocol_sha256=run.protocol.sha256,
                seconds=1.0,
                peak_memory_bytes=10**6,
                values={
                    **{"accuracy": test, "balanced_accuracy": test, "loss": 0.5, "train_accuracy": 1.0},
                    "validation_accuracy": validation,
                },
            )
            spoken.append(measured)
    spoken.append(Finished(set_sha256=f"{seed:032d}{40:032d}", costs=costs()))
    for _ in store.record(store.create(run, CARD), iter(spoken)):
        pass


def test_selected_iterations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(3)
    accuracies = draw.uniform(0.4, 0.9, (5, 4, 3, 2))  # by seed, iteration, network; test and validation
    with closing(Store.open(tmp_path / "courses.db", write=True)) as store:
        for seed, of_seed in enumerate(accuracies.tolist()):
            _course(store, seed, {10 * (at + 1): networks for at, networks in enumerate(of_seed)})
    assert run_cli(["report", "--db", str(tmp_path / "courses.db"), "--format", "json"]) == 0
    lines = {line["selection"]: line for line in json.loads(capsys.readouterr().out)["selection"]}
    test, validation = accuracies[..., 0], accuracies[..., 1]
    expected: dict[str, list[float]] = defaultdict(list)
    for of_test, of_validation in zip(test, validation, strict=True):
        expected["final"].append(of_test[-1].mean())
        expected["validation-selected"].append(of_test[of_validation.mean(1).argmax()].mean())
        expected["test-selected"].append(of_test[of_test.mean(1).argmax()].mean())
        others = [np.delete(of_validation, network, 1).mean(1).argmax() for network in range(3)]
        expected["cross-fitted"].append(np.mean([of_test[at, network] for network, at in enumerate(others)]))
    assert lines.keys() == expected.keys()
    for rule, values in expected.items():
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        line = lines[rule]
        assert line["accuracy"] == exact(np.mean(values), rel=1e-12), rule
        assert (line["low"], line["high"]) == exact((np.mean(values) - half, np.mean(values) + half), rel=1e-9)
        assert (line["sets"], line["networks"]) == (5, 15)


def test_scores_of_labels_and_of_augmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real runs under a changed protocol: what their arms have in the database gives what the evaluators say."""
    database = str(tmp_path / "scores.db")
    protocol = "quick+synthetic.epochs=3+whole.epochs=1+lr=0.2"
    common = ["--dataset", "digits", "--network", "convnet-d1-w4", "--device", "cpu", "--db", database]
    common += ["--protocol", protocol, "--eval-repeats", "2", "--json"]
    assert run_cli(["run", "--headless", "--method", "dm", "--iterations", "2", *common]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    for evaluator in ("lrs", "ars"):
        assert run_cli(["evaluate", run, "--evaluator", evaluator, "--device", "cpu", "--db", database]) == 0
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "select e.evaluator, r.method, p.name, e.repeat, m.metric, m.value from measurements m "
            "join evaluations e using (run, iteration, evaluator, subject, repeat) join runs r on r.number = m.run "
            "join protocols p on p.sha256 = e.protocol_sha256"
        ).fetchall()
    assert {name for evaluator, _, name, *_ in found if evaluator == "lrs"} == {preset(protocol).name}
    accuracy = {
        tuple(key[1:4]): value for *key, metric, value in found if key[0] == "accuracy" and metric == "accuracy"
    }
    plain = next(name for _, name, _ in accuracy if name != preset(protocol).name)
    said = {(key[0], key[3], metric): value for *key, metric, value in found if key[0] != "accuracy"}

    def score(gain: float) -> float:
        return float((np.exp(gain) - np.exp(-1)) / (np.e - np.exp(-1)))

    for repeat in range(2):
        ours, random, whole = (accuracy[method, preset(protocol).name, repeat] for method in ("dm", "random", "whole"))
        assert said["lrs", repeat, "hlr"] == exact(whole - ours)
        assert said["lrs", repeat, "ior"] == exact(ours - random)
        assert said["lrs", repeat, "lrs"] == exact(score(0.5 * (ours - random) - 0.5 * (whole - ours)), rel=1e-12)
        bare = accuracy["dm", plain, repeat] - accuracy["random", plain, repeat]
        assert said["ars", repeat, "gain_plain"] == exact(bare)
        assert said["ars", repeat, "ars"] == exact(score(0.5 * (ours - random) + 0.5 * bare), rel=1e-12)
    assert len({value for (_, name, _), value in accuracy.items() if name == preset(protocol).name}) > 2
