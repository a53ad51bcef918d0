"""Whatever an evaluator measures is a row per metric; accuracy is the first of them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dambench.core.events import AnyEvent, Evaluated, Finished, Measured, Metric, Real, Resumed, Started
from dambench.store.merge import merge
from dambench.store.runs import NO_PROCESS, Store
from dambench.store.upkeep import check
from tests.ledger import CARD, ENVIRONMENT, add, config, costs, words

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
            event = msgspec.structs.replace(event, metrics={"robustness": ROBUSTNESS})
        if isinstance(event, Finished):
            yield from events
        yield event


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        yield store


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
    list(
        store.record(
            run, (msgspec.structs.replace(e, metrics=wrong) if isinstance(e, Started) else e for e in robust())
        )
    )
    (known,) = store.query("select better, description from metrics where name = 'accuracy'")
    assert known == {"better": "higher", "description": "Accuracy on the real test set after the last epoch"}


def test_a_score_that_an_older_run_logged_is_the_same_rows(store: Store, tmp_path: Path) -> None:
    add(store, config(), [0.25, 0.75])
    with closing(Store.open(tmp_path / "other.db", write=True)) as other:
        run = other.create(config(), CARD)
        new: Iterator[AnyEvent] = (e.measured if isinstance(e, Evaluated) else e for e in words(config(), [0.25, 0.75]))
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
    list(store.record(run, iter([msgspec.structs.replace(resumed, iteration=1)]), attempt=2))
    assert store.query("select count(*) n from evaluations where run = 2") == [{"n": 0}]
    assert store.query("select count(*) n from measurements where run = 2") == [{"n": 0}]
