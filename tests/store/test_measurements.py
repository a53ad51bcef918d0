"""Whatever an evaluator measures is a row per metric; accuracy is the first of them."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.errors import BadInput
from dambench.core.events import AnyEvent, Finished, Measured, Metric, Real, Resumed, Started
from dambench.report.wording import made
from dambench.store import filters
from dambench.store.leaderboard import leaderboard
from dambench.store.merge import merge
from dambench.store.metrics import find_metric
from dambench.store.runs import NO_PROCESS, Store
from dambench.store.upkeep import check
from tests.ledger import CARD, ENVIRONMENT, add, as_logged_before, config, costs, words

ROBUSTNESS = {
    "worst": Metric(description="Accuracy under the worst corruption"),
    "calls": Metric(description="Seconds per attack", unit="seconds", better="lower"),
}


def measured(repeat: int = 0, **values: Real) -> Measured:
    return Measured(
        evaluator="robustness",
        subject="vgg11",
        repeat=repeat,
        iteration=2,
        final=True,
        set_sha256="a" * 64,
        protocol_sha256=config().protocol.sha256,
        seconds=1.5,
        peak_memory_bytes=7,
        values=values,
    )


def robust(*events: AnyEvent) -> Iterator[AnyEvent]:
    """The words of a run that another evaluator measures, too."""
    for event in words(config()):
        if isinstance(event, Started):
            event = replace(event, metrics={"robustness": ROBUSTNESS})
        if isinstance(event, Finished):
            yield from events
        yield event


def _rows(store: Store) -> list[tuple[object, ...]]:
    sql = "select subject, repeat, metric, value, state from measurements where evaluator = 'robustness'"
    return [tuple(row.values()) for row in store.query(f"{sql} order by repeat, metric")]


def test_all_that_is_measured_is_kept_with_what_it_means(store: Store, tmp_path: Path) -> None:
    run = store.create(config(), CARD)
    list(store.record(run, robust(measured(worst=0.25, calls=2.0), measured(1, worst="nan"))))
    rows = [
        *[("vgg11", 0, "calls", 2.0, "finite"), ("vgg11", 0, "worst", 0.25, "finite")],
        ("vgg11", 1, "worst", None, "nan"),
    ]
    assert _rows(store) == rows
    assert store.query("select * from metrics where name = 'calls'") == [
        {
            "evaluator": "robustness",
            "name": "calls",
            "unit": "seconds",
            "better": "lower",
            "description": "Seconds per attack",
        }
    ]
    assert store.query("select network, accuracy from scores") == [{"network": "convnet-d1-w8", "accuracy": 0.5}]
    with closing(Store.open(tmp_path / "other.db", write=True)) as other:
        assert merge(other, store.path).added == [run]
        assert _rows(other) == rows
        assert other.query("select * from metrics") == store.query("select * from metrics")
    assert "damaged" not in {finding.state for finding in check(store)}
    store.db.conn.execute("update measurements set value = 3 where metric = 'calls'")
    assert "damaged" in {finding.state for finding in check(store)}


def test_what_is_known_of_a_metric_is_not_for_another_run_to_say(store: Store) -> None:
    wrong = {"accuracy": {"accuracy": Metric(description="mine", better="lower")}}
    run = store.create(config(), CARD)
    list(store.record(run, (replace(e, metrics=wrong) if isinstance(e, Started) else e for e in robust())))
    (known,) = store.query("select better, description from metrics where name = 'accuracy'")
    assert known == {"better": "higher", "description": "Accuracy on the real test set after the last epoch"}


def test_a_score_that_an_older_run_logged_is_the_same_rows(store: Store, tmp_path: Path) -> None:
    add(store, config(), [0.25, 0.75])
    with closing(Store.open(tmp_path / "other.db", write=True)) as other:
        run = other.create(config(), CARD)
        new: Iterator[AnyEvent] = (
            as_logged_before(e) if isinstance(e, Measured) else e for e in words(config(), [0.25, 0.75])
        )
        list(other.record(run, new))
        for sql in (
            *("select * from evaluations", "select * from measurements", "select * from scores"),
            "select results_sha256 from runs",
        ):
            assert other.query(sql) == store.query(sql)


def test_what_is_measured_again_after_an_interruption_counts_once(store: Store) -> None:
    run = store.create(config(), CARD)
    said = [event for event in robust(measured(worst=0.25, calls=2.0)) if not isinstance(event, Finished)]
    list(store.record(run, iter(said)))
    resumed = Resumed(attempt=2, iteration=2, checkpoint="", process=NO_PROCESS, environment=ENVIRONMENT)
    again: list[AnyEvent] = [resumed, measured(worst=0.5), Finished(set_sha256="a" * 64, costs=costs())]
    list(store.record(run, iter(again), attempt=2))
    assert _rows(store) == [("vgg11", 0, "worst", 0.5, "finite")]
    run = store.create(config(seed=1), CARD)
    list(store.record(run, iter(said)))
    list(store.record(run, iter([replace(resumed, iteration=1)]), attempt=2))
    assert store.query("select count(*) n from evaluations where run = 2") == [{"n": 0}]
    assert store.query("select count(*) n from measurements where run = 2") == [{"n": 0}]


@pytest.fixture
def robust_runs(store: Store) -> Store:
    """Two methods that are the same by accuracy: the one is attacked faster, the other is better in the worst case."""
    for method, worst, calls in (("dm", (0.2, 0.3, 0.25), 2.0), ("random", (0.6, 0.69, 0.66), 5.0)):
        for seed, value in enumerate(worst):
            asked = config(method, seed=seed)
            run = store.create(asked, CARD)
            extra = replace(measured(worst=value, calls=calls * (1 + seed / 100)), set_sha256=f"{seed}" * 64)
            events = (
                replace(e, config=asked, config_sha256=asked.sha256) if isinstance(e, Started) else e
                for e in robust(extra)
            )
            list(store.record(run, events))
    add(store, config("whole"), [0.9] * 3)
    return store


@pytest.mark.parametrize(("name", "best", "first"), [("worst", "random", 0.65), ("robustness.calls", "dm", 5.05)])
def test_a_report_shows_any_metric_and_which_is_best_is_its_own(
    name: str, best: str, first: float, robust_runs: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = find_metric(robust_runs, name)
    board = leaderboard(robust_runs, metric=metric)
    (table,) = board.tables
    assert table.rows == [("random",), ("dm",)]  # what no evaluator has measured is in no table
    assert table.best == {((best,), ("digits", 1))}
    assert table.cells[("random",), ("digits", 1)].mean == pytest.approx(first)
    assert (table.majority, board.finished, {score.network for c in table.cells.values() for score in c.scores}) == (
        *({}, 6),
        {"vgg11"},
    )
    for format_ in registry.names("formats"):
        assert run_cli(["report", "--metric", name, "--format", format_, "--db", str(robust_runs.path)]) == 0
        shown = capsys.readouterr().out
        assert ("Worst" if name == "worst" else "Calls in s") in shown or format_ in ("csv", "json")
        if format_ == "csv":
            line = next(csv.DictReader(io.StringIO(shown)))
            assert float(line[metric.name]) == pytest.approx(first)
            assert line["majority"] == ""
        if format_ == "json":
            found = json.loads(shown)
            assert found["metric"]["better"] == metric.better
            assert found["tables"][0]["cells"][0]["scores"][0]["worst" if name == "worst" else "calls"] > 0


def test_the_loss_of_a_network_that_was_not_finite_has_no_mean(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store.create(config(), CARD)
    list(
        store.record(
            run,
            (replace(e, values=e.values | {"loss": "nan"}) if isinstance(e, Measured) else e for e in words(config())),
        )
    )
    for format_ in registry.names("formats"):
        assert run_cli(["report", "--metric", "loss", "--format", format_, "--db", str(store.path)]) == 0
        assert "nan" not in capsys.readouterr().out.lower()


def test_a_metric_that_is_not_known_and_one_that_nothing_has_measured_are_sentences(
    robust_runs: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["report", "--metric", "wors", "--db", str(robust_runs.path)]) == 2
    assert "No metric is called 'wors'. Did you mean 'worst'?" in capsys.readouterr().err
    Store.open(tmp_path / "new.db", write=True).close()
    assert run_cli(["report", "--metric", "loss", "--db", str(tmp_path / "new.db")]) == 2
    assert "No finished run has the metric accuracy.loss" in capsys.readouterr().err


def test_runs_are_filtered_by_any_metric_but_not_those_that_are_compared(robust_runs: Store) -> None:
    robust_runs.db.conn.execute("update runs set config = json_set(config, '$.evaluate_on', json_array('vgg11'))")

    def meant(text: str) -> set[str]:
        return {row.method for row in robust_runs.newest(only=filters.read(text).where({}))}

    assert meant("robustness.worst>50") == {"random"}  # percent, as it is shown
    assert meant("robustness.calls<3") == {"dm"}
    assert meant("-robustness.calls<3 robustness.calls>=0") == {"random"}
    assert meant("accuracy.nothing>0") == set()
    with pytest.raises(BadInput, match="would choose runs by the test set"):
        filters.read("robustness.worst>50", to_compare=True)
    with pytest.raises(BadInput, match="needs a number"):
        filters.read("robustness.worst>many")


def test_runs_from_before_a_metric_are_left_out_of_its_table_and_named(store: Store) -> None:
    old = store.create(config(), CARD)
    list(store.record(old, words(config())))
    new_config = config(seed=1)
    new = store.create(new_config, CARD)

    def newer() -> Iterator[AnyEvent]:
        for event in words(new_config):
            if isinstance(event, Started):
                further = {"macro_f1": Metric(description="F1"), "class_cat": Metric(description="of cats")}
                event = replace(event, metrics={"accuracy": further})
            if isinstance(event, Measured):
                event = replace(event, values=event.values | {"macro_f1": 0.25, "class_cat": 0.75})
            yield event

    list(store.record(new, newer()))
    assert "damaged" not in {finding.state for finding in check(store)}
    board = leaderboard(store, metric=find_metric(store, "macro_f1"))
    (cell,) = (cell for table in board.tables for cell in table.cells.values())
    assert {score.run for score in cell.scores} == {new}
    assert cell.mean == 0.25
    assert (board.unmeasured, board.unscored) == ([old], [])
    assert f"evaluated before accuracy.macro_f1 was measured (`dambench evaluate ID --again` adds it): {old}" in made(
        board
    )
    of_class = leaderboard(store, metric=find_metric(store, "class_cat"))
    assert [cell.mean for table in of_class.tables for cell in table.cells.values()] == [0.75]
    (plain,) = leaderboard(store).tables[0].cells.values()
    assert {score.run for score in plain.scores} == {old, new}


def test_a_metric_that_there_is_none_of_is_refused_without_the_names_of_all_classes(store: Store) -> None:
    further = {f"class_{n}": Metric(description="of one class") for n in range(50)}
    run = store.create(config(), CARD)
    started = (replace(e, metrics={"accuracy": further}) if isinstance(e, Started) else e for e in words(config()))
    list(store.record(run, started))
    with pytest.raises(BadInput) as refused:
        find_metric(store, "macro_f2")
    assert "class_7" not in str(refused.value)
    with pytest.raises(BadInput, match="class_7"):
        find_metric(store, "class_x")
