from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import msgspec
import pytest
from scipy import stats

from dambench.errors import BadInput
from dambench.protocol import PRESETS
from dambench.store.leaderboard import Cell, Score, Table, leaderboard, welch
from dambench.store.runs import Store
from tests import ledger
from tests.ledger import add, config, other_data


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "runs.db", write=True)
    yield store
    store.close()


def _cell(accuracies: list[float]) -> Cell:
    return Cell(tuple(Score("m", "d", 1, "n", "p", a, "m", "{}", "", "s", "d", "r") for a in accuracies))


def _only(store: Store, **axes: Any) -> Table:
    tables = leaderboard(store, **axes).tables
    assert len(tables) == 1
    return tables[0]


LOW, HIGH = [0.60, 0.61, 0.62, 0.60, 0.61], [0.90, 0.91, 0.92, 0.90, 0.91]


def test_a_cell_is_the_mean_and_the_sample_std_of_its_networks(store: Store) -> None:
    add(store, config("dm"), HIGH)
    found = _only(store).cells[("dm",), ("digits", "1")]
    assert found.n == 5
    assert found.sets == 1
    assert found.mean == pytest.approx(mean(HIGH))
    assert found.std == pytest.approx(stdev(HIGH))


def test_one_network_has_no_spread() -> None:
    assert _cell([0.5]).std is None
    assert _cell([0.5]).interval is None


def test_the_confidence_interval_is_scipys() -> None:
    cell = _cell(HIGH)
    low, high = stats.t.interval(0.95, len(HIGH) - 1, loc=mean(HIGH), scale=stats.sem(HIGH))
    assert cell.interval is not None
    assert (cell.mean - cell.interval, cell.mean + cell.interval) == pytest.approx((low, high))


def test_a_loss_that_is_no_number_leaves_a_cell_without_one() -> None:
    (score,) = _cell([0.5]).scores
    losses = [replace(score, loss=loss) for loss in (0.25, 0.75)]
    assert Cell(tuple(losses)).loss == 0.5
    assert Cell((*losses, replace(score, loss=None))).loss is None


def test_welch_is_scipys() -> None:
    for a, b in ((LOW, HIGH), ([0.5, 0.6, 0.7], [0.55, 0.65, 0.7, 0.9]), ([0.1, 0.2], [0.15, 0.25])):
        assert welch(_cell(a), _cell(b)) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_two_cells_without_spread_differ_or_do_not() -> None:
    assert welch(_cell([0.5, 0.5]), _cell([0.5, 0.5])) == 1.0
    assert welch(_cell([0.5, 0.5]), _cell([0.6, 0.6])) == 0.0


def test_running_the_same_command_again_adds_no_evidence(store: Store) -> None:
    for _ in range(3):
        add(store, config("dm"), HIGH)
    assert _only(store).cells[("dm",), ("digits", "1")].n == 5


def test_the_same_command_on_another_machine_adds_no_evidence_though_its_bits_differ(store: Store) -> None:
    add(store, config("dm"), [0.1, 0.2], made="over there")
    add(store, config("dm"), [0.3, 0.5], made="here")
    (cell,) = leaderboard(store).tables[0].cells.values()
    assert (cell.n, cell.sets, cell.mean) == (2, 1, 0.4)


def test_another_network_to_match_on_is_another_run(store: Store) -> None:
    add(store, config("dm"), [0.1], made="one")
    bn = msgspec.structs.replace(config("dm"), network="convnet-d1-w8-bn")
    add(store, bn, [0.3], made="other", overrides={"network": "convnet-d1-w8-bn"})
    assert len(leaderboard(store).tables[0].cells) == 2


def test_another_seed_adds_another_set(store: Store) -> None:
    add(store, config("dm", seed=0), HIGH)
    add(store, config("dm", seed=1), LOW)
    cell = _only(store).cells[("dm",), ("digits", "1")]
    assert (cell.n, cell.sets) == (10, 2)
    assert cell.std == pytest.approx(stdev(HIGH + LOW))


def test_the_whole_set_under_another_seed_is_the_same_set_with_other_networks(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("whole", seed=0), HIGH)
    add(store, config("whole", seed=1), HIGH)
    cell = _only(store).cells[("whole",), ("digits", "1")]
    assert (cell.n, cell.sets) == (10, 1)


def test_the_whole_set_stands_in_every_column_of_its_dataset_and_in_no_other(store: Store) -> None:
    add(store, config("dm", ipc=1), HIGH)
    add(store, config("dm", ipc=10), HIGH)
    add(store, config("whole"), HIGH)
    add(store, config("dm", ipc=1), HIGH, card=other_data("e", "flowers"))
    table = _only(store)
    assert table.columns == [("digits", "1"), ("digits", "10"), ("flowers", "1")]
    assert (("whole",), ("digits", "1")) in table.cells
    assert (("whole",), ("digits", "10")) in table.cells
    assert (("whole",), ("flowers", "1")) not in table.cells


def test_the_whole_set_stands_in_the_table_of_every_ipc(store: Store) -> None:
    add(store, config("whole"), HIGH)
    add(store, config("dm", ipc=10), HIGH)
    add(store, config("dm", ipc=2), HIGH)
    tables = leaderboard(store, columns=("dataset",)).tables
    assert [table.fixed["ipc"] for table in tables] == ["2", "10"]
    assert all(table.rows == [("dm",), ("whole",)] for table in tables)


def test_the_whole_set_alone_has_a_column_of_its_own(store: Store) -> None:
    add(store, config("whole"), HIGH)
    assert _only(store).columns == [("digits", "")]


def test_protocols_and_evaluation_networks_are_never_in_one_table_unless_asked(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("dm", protocol=PRESETS["dc"]), LOW)
    add(store, config("dm", network="convnet-d2-w8"), LOW)
    board = leaderboard(store)
    assert len(board.tables) == 3
    assert {table.cells[("dm",), ("digits", "1")].n for table in board.tables} == {5}
    wide = leaderboard(store, rows=("method", "network"), columns=("protocol", "dataset", "ipc")).tables
    assert len(wide) == 1
    assert len(wide[0].rows) == 2
    assert len(wide[0].columns) == 2


def test_two_datasets_of_one_name_are_told_apart(store: Store) -> None:
    add(store, config("dm"), HIGH, card=other_data("e", "flowers"))
    add(store, config("dm"), LOW, card=other_data("f", "flowers"))
    assert _only(store).columns == [("flowers#eeee", "1"), ("flowers#ffff", "1")]


def test_settings_other_than_the_recipes_make_a_row_of_their_own(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("dm", options={"iterations": 5}), LOW, overrides={"iterations": 5})
    assert _only(store).rows == [("dm",), ("dm (iterations 5)",)]


def test_a_recipe_that_changed_does_not_mix_with_its_older_self(store: Store) -> None:
    add(store, config("dm", options={"lr": 1}), LOW)
    add(store, config("dm", options={"lr": 2}), HIGH)
    table = _only(store)
    assert table.cells[("dm",), ("digits", "1")].mean == pytest.approx(mean(HIGH))
    assert any("5 older scores with other settings are left out" in note for note in table.notes)


def test_random_is_first_whole_is_last_and_ipc_is_a_number(store: Store) -> None:
    for ipc in (10, 2, 1):
        for method in ("whole", "dm", "random"):
            add(store, config(method, ipc=ipc), HIGH)
    table = _only(store)
    assert table.rows == [("random",), ("dm",), ("whole",)]
    assert table.columns == [("digits", "1"), ("digits", "2"), ("digits", "10")]


def test_the_majority_rate_is_that_of_the_test_set(store: Store) -> None:
    add(store, config("dm"), HIGH)
    assert _only(store).majority == {("digits", "1"): 0.6}


def test_best_is_only_what_is_beyond_chance_better(store: Store) -> None:
    add(store, config("random"), LOW)
    add(store, config("dm"), HIGH)
    add(store, config("whole"), [0.99] * 5)
    assert _only(store).best == {(("dm",), ("digits", "1"))}


def test_a_tie_has_no_best(store: Store) -> None:
    add(store, config("random"), HIGH)
    add(store, config("dm"), [a + 0.001 for a in HIGH])
    assert _only(store).best == set()


def test_too_few_networks_have_no_best(store: Store) -> None:
    add(store, config("random"), LOW[:2])
    add(store, config("dm"), HIGH)
    assert _only(store).best == set()


def test_a_method_alone_is_not_the_best_of_anything(store: Store) -> None:
    add(store, config("dm"), HIGH)
    assert _only(store).best == set()


def test_missing_baselines_are_said(store: Store) -> None:
    add(store, config("dm"), HIGH)
    assert _only(store).notes == ["digits IPC 1: random and whole not run under this protocol yet."]
    add(store, config("random"), LOW)
    assert _only(store).notes == ["digits IPC 1: whole not run under this protocol yet."]
    add(store, config("whole"), HIGH)
    assert _only(store).notes == []


def test_runs_that_did_not_finish_are_left_out_and_counted(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("dm", seed=1), LOW, end=ledger.failed())
    add(store, config("dm", seed=2), LOW, end=ledger.stopped())
    store.create(config("dm", seed=3), ledger.CARD)
    board = leaderboard(store)
    assert (board.finished, board.left_out) == (1, 3)
    assert board.tables[0].cells[("dm",), ("digits", "1")].n == 5


def test_costs_are_medians_over_runs(store: Store) -> None:
    for seed, seconds in enumerate((1.0, 2.0, 9.0)):
        add(store, config("dm", seed=seed), HIGH, seconds=seconds)
    (cost,) = leaderboard(store).costs
    assert (cost.method, cost.runs, cost.distil_seconds, cost.evaluate_seconds) == ("dm", 3, 2.0, 2.0)
    assert cost.device == "a CPU, 2 threads"


def test_two_methods_that_made_the_same_set_both_have_it(store: Store) -> None:
    add(store, config("dm"), HIGH, made="the same")
    add(store, config("dm", options={"lr": 0.1}), HIGH, made="the same", overrides={"lr": 0.1})
    assert {cell.n for cell in _only(store).cells.values()} == {5}
    assert len(_only(store).cells) == 2


def test_only_methods_compete_not_ipcs_or_protocols(store: Store) -> None:
    for ipc, accuracies in ((1, LOW), (10, HIGH)):
        add(store, config("random", ipc=ipc), accuracies)
    (table,) = leaderboard(store, rows=("dataset", "ipc"), columns=("method",)).tables
    assert table.best == set()
    add(store, config("dm", ipc=10), [0.5] * 5)
    (table,) = leaderboard(store, rows=("dataset", "ipc"), columns=("method",)).tables
    assert table.best == {(("digits", "10"), ("random",))}
    assert table.notes == ["digits IPC 10: whole not run under this protocol yet."]
    assert all(not t.best for t in leaderboard(store, rows=("dataset",), columns=("ipc",)).tables)


def test_costs_of_different_protocols_networks_and_datasets_are_not_averaged(store: Store) -> None:
    add(store, config("random"), LOW, seconds=1.0)
    add(store, config("random", protocol=PRESETS["dc"]), LOW, seconds=5.0)
    add(store, config("random", network="convnet-d2-w8"), LOW, seconds=7.0)
    add(store, config("random"), LOW, seconds=9.0, card=other_data("e"))
    costs = leaderboard(store).costs
    assert sorted(cost.evaluate_seconds for cost in costs) == [1.0, 5.0, 7.0, 9.0]
    assert {cost.dataset for cost in costs} == {"digits#dddd", "digits#eeee"}


def test_an_unknown_axis_names_the_known_ones(store: Store) -> None:
    with pytest.raises(BadInput, match="Did you mean 'method'"):
        leaderboard(store, rows=("metod",))
