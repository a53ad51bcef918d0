import math

import msgspec
import pytest

from dambench.core.config import RunConfig
from dambench.core.events import Measured, Real, Started
from dambench.core.protocol import PRESETS
from dambench.report.changes import Change, changes_since, nearest_earlier, sections, since_nearest, text, title
from dambench.store.runs import Store
from tests import ledger


def _config(lr: float = 1.0, seed: int = 0, ipc: int = 1) -> RunConfig:
    return ledger.config(ipc=ipc, seed=seed, options={"lr_images": lr})


def _nearest(store: Store, run: str) -> str | None:
    found = nearest_earlier(store, store.run(run))
    return found.id if found else None


def test_the_nearest_is_the_earlier_run_that_differs_least(store: Store) -> None:
    first = ledger.add(store, _config(1.0, 0))
    second = ledger.add(store, _config(1.0, 1))
    other_size = ledger.add(store, _config(1.0, 0, ipc=10))
    ledger.add(store, ledger.config("random"))
    assert _nearest(store, first) is None
    assert "No earlier run" in title(since_nearest(store, store.run(first)))
    assert _nearest(store, second) == first
    # Another step size and the same seed: the run of that seed before, though others are newer.
    assert _nearest(store, ledger.add(store, _config(2.0, 0))) == first
    # A further seed of the same settings: the seed before it, not the same seed at another size.
    assert _nearest(store, ledger.add(store, _config(2.0, 1))) == second
    assert _nearest(store, ledger.add(store, _config(1.0, 1, ipc=10))) == other_size


def test_runs_that_failed_are_in_the_trash_or_were_made_to_tune_are_not_the_nearest(store: Store) -> None:
    kept = ledger.add(store, _config(3.0))
    ledger.add(store, _config(1.0), end=ledger.failed())
    store.delete(ledger.add(store, _config(1.0)))
    tuned = store.create(_config(1.0), ledger.CARD, purpose="tuning")
    for _ in store.record(tuned, ledger.words(_config(1.0))):
        pass
    assert _nearest(store, ledger.add(store, _config(1.0, 1))) == kept


def test_what_changed_is_settings_versions_data_and_the_result(store: Store) -> None:
    before = ledger.add(store, _config(1.0), [0.70, 0.74])
    now = _config(0.5)
    run = store.create(now, ledger.other_data("e"))
    for event in ledger.words(now, [0.78, 0.80], card=ledger.other_data("e")):
        if isinstance(event, Started):
            newer = msgspec.structs.replace(event.environment, torch="2.16.0", git_commit="0123456789", git_dirty=True)
            event = msgspec.structs.replace(event, environment=newer)
        for _ in store.record(run, [event]):
            pass
    since = since_nearest(store, store.run(run))
    assert since is not None
    assert since.before == before
    assert set(since.changes) == {
        Change("settings", "method.lr_images", "1.0", "0.5"),
        Change("versions", "torch", "2.15.0", "2.16.0"),
        Change("versions", "commit", "–", "0123456 with changes"),
        Change("data", "images, by hash", "dddddddd", "eeeeeeee"),
    }
    (result,) = since.results
    # By hand: (.70 + .74) / 2 = .72, (.78 + .80) / 2 = .79; of two values the deviation is their distance / √2.
    assert result.before == pytest.approx(0.72)
    assert result.now == pytest.approx(0.79)
    assert (result.n_before, result.n_now) == (2, 2)
    assert result.std_before == pytest.approx(0.04 / math.sqrt(2))
    assert result.gap == pytest.approx(0.07)
    words = "\n".join(text(since))
    assert f"since {before}, the nearest earlier run" in words
    assert "Accuracy in %, convnet-d1-w8  72.00 ± 2.83 (2) → 79.00 ± 1.41 (2), +7.00 points" in words
    assert "not measured on the same test set" in words
    assert "one set of each run" in words


def test_a_run_of_an_older_dambench_does_not_differ_in_what_that_did_not_know(store: Store) -> None:
    old, new = ledger.add(store, _config(1.0, 0)), ledger.add(store, _config(1.0, 1))
    with store.db.conn:
        store.db.conn.execute(
            "update runs set config = json_remove(config, '$.evaluator', '$.method_version', '$.protocol.mixing') "
            "where id = ?",
            [old],
        )
    since = since_nearest(store, store.run(new))
    assert since is not None
    assert since.changes == (Change("settings", "seed", "0", "1"),)


def test_another_protocol_is_said_field_by_field_and_the_figures_are_not_called_comparable(store: Store) -> None:
    before = ledger.add(store, ledger.config())
    after = ledger.add(store, ledger.config(protocol=PRESETS["brief"]))
    since = changes_since(store, store.run(after), store.run(before))
    settings = dict(sections(since))["settings"]
    assert settings[0].startswith("protocol  quick#")
    assert "→ brief#" in settings[0]
    assert any(line.startswith("protocol.whole.epochs") for line in settings)
    assert any("protocols differ" in note for note in since.notes)


def test_a_network_that_diverged_leaves_no_mean_and_other_machines_no_comparison_of_time(store: Store) -> None:
    before = ledger.add(store, _config(1.0), [0.7, 0.7])
    config = _config(2.0)
    run = store.create(config, ledger.CARD)
    nan: dict[str, Real] = {"accuracy": "nan", "balanced_accuracy": "nan", "loss": "nan", "train_accuracy": "nan"}
    for event in ledger.words(config, [0.7, 0.7]):
        match event:
            case Started():
                event = msgspec.structs.replace(
                    event, environment=msgspec.structs.replace(event.environment, threads=64, host="gpu07")
                )
            case Measured(repeat=1):
                event = msgspec.structs.replace(event, values=nan)
        for _ in store.record(run, [event]):
            pass
    since = since_nearest(store, store.run(run))
    assert since is not None
    assert since.before == before
    (result,) = since.results
    assert result.now is None
    assert result.gap is None
    assert result.n_before == 2
    assert "→ –" in dict(sections(since))["result"][0]
    assert since.costs == ()
    assert any("not compared" in note for note in since.notes)
    assert "threads  2 → 64" in dict(sections(since))["machine"]


def test_names_from_a_file_do_not_reach_the_terminal_as_they_are(store: Store) -> None:
    ledger.add(store, _config(1.0, 0))
    run = ledger.add(store, _config(1.0, 1))
    evil = '{"name": "dm", "options": {"lr\\u001b[31m": "\\u001b]52;c;\\u0007"}}'
    with store.db.conn:
        store.db.conn.execute(
            "update runs set config = json_set(config, '$.method', json(?)) where id = ?", [evil, run]
        )
    since = since_nearest(store, store.run(run))
    assert since is not None
    assert all(line.isprintable() for line in text(since))
