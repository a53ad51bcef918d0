import math
from statistics import mean
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dambench.cli.record import result
from dambench.core.config import Choice, Execution, HeldOut, Plugin, RunConfig
from dambench.core.errors import BadInput
from dambench.core.events import Measured
from dambench.core.protocol import PRESETS, HoldOut
from dambench.report.wording import made
from dambench.store import filters, metrics
from dambench.store.cells import Cell, Score
from dambench.store.leaderboard import Table, leaderboard
from dambench.store.metrics import MetricRow
from dambench.store.runs import Store
from tests import ledger
from tests.ledger import add, add_sets, config, other_data


def _cell(accuracies: list[float]) -> Cell:
    return Cell(tuple(Score("m", "d", 1, "n", "p", {"accuracy": a}, "m", "{}", "", "s", "d", "r") for a in accuracies))


def _only(store: Store, **axes: Any) -> Table:
    tables = leaderboard(store, **axes).tables
    assert len(tables) == 1
    return tables[0]


def _three(around: float) -> list[list[float]]:
    """Three sets with two networks each, spread by about 2 points, by other ones around each mean."""
    shifts = (-0.02, 0.0, 0.022 + around / 100)
    return [[around + shift - 0.005, around + shift + 0.005] for shift in shifts]


LOSS = MetricRow("accuracy", "loss", "", "lower", "")

LOW, HIGH = [0.60, 0.61, 0.62, 0.60, 0.61], [0.90, 0.91, 0.92, 0.90, 0.91]


def test_a_cell_of_one_set_has_a_mean_and_no_interval_for_its_networks_are_no_evidence(store: Store) -> None:
    add(store, config("dm"), HIGH)
    found = _only(store).cells[("dm",), ("digits", 1)]
    assert (found.networks, found.sets, found.unit, found.seeds) == (5, 1, "set", (0,))
    assert found.mean == pytest.approx(mean(HIGH))
    assert found.interval is None


def test_a_cell_of_several_sets_has_student_s_interval_of_their_means(store: Store) -> None:
    add_sets(store, config("dm"), [[0.5, 0.6], [0.6, 0.6], [0.7, 0.8]])
    (cell,) = _only(store).cells.values()
    assert cell.mean == pytest.approx(0.6333333)
    assert cell.interval is not None
    # By hand: means 0.55, 0.6, 0.75; their standard deviation 0.1040833; t(2) at 97.5 % is 4.302653.
    assert cell.interval.half == pytest.approx(4.302653 * 0.1040833 / 3**0.5, rel=1e-5)


def test_the_mean_of_unequal_sets_is_that_of_their_means(store: Store) -> None:
    add_sets(store, config("dm"), [[0.5], [0.6, 0.6, 0.6]])
    (cell,) = _only(store).cells.values()
    assert cell.mean == pytest.approx(0.55)
    assert (cell.sets, cell.networks, cell.networks_per_set) == (2, 4, None)


def test_a_loss_that_is_no_number_leaves_a_cell_without_one() -> None:
    (score,) = _cell([0.5]).scores
    losses = [replace(score, values={"loss": loss}) for loss in (0.25, 0.75)]
    assert Cell(tuple(losses), LOSS).mean == 0.5
    assert math.isnan(Cell((*losses, replace(score, values={"loss": math.nan})), LOSS).mean)


def test_running_the_same_command_again_adds_no_evidence(store: Store) -> None:
    for _ in range(3):
        add(store, config("dm"), HIGH)
    assert _only(store).cells[("dm",), ("digits", 1)].networks == 5


PLUGIN = Plugin(kind="methods", name="dm", package="theirs", version="1.0", sha256="a" * 64)

IN_THE_ROW: dict[str, Any] = {
    "method": Choice("dm", {"lr": 2}),
    "network": "convnet-d2-w8",
    "precision": "bf16",
    "preprocessing": "zca",
    "method_version": 2,
    "evaluator": Choice("accuracy", {"crops": 10}),
    "evaluator_version": 2,
    "held_out": HeldOut(rule=HoldOut(), of_each_class=26, sha256="0" * 64),
    "plugins": (PLUGIN,),
}
"""Fields of RunConfig that make a row of their own, with another value for each."""

ON_AN_AXIS: dict[str, Any] = {
    "dataset": Choice("flowers"),
    "ipc": 2,
    "protocol": PRESETS["dc"],
    "evaluate_on": ("convnet-d2-w8",),
}

THE_NEWEST_COUNTS: dict[str, Any] = {
    "eval_repeats": 2,  # how many networks there are, not what they are
    "evaluate_every": 5,  # scores on the way; the set is the same
    "deterministic": True,  # changes last bits; said where it is mixed
    "execution": Execution(device="cuda:0", threads=7, compiled=True),  # as above
}
"""Fields that change no more than the last bits of a number: the newer run takes the older one's place, and that is
said."""


@pytest.mark.parametrize("field", RunConfig.__struct_fields__)
def test_two_runs_that_differ_in_one_field_both_count_or_it_is_said_why_not(store: Store, field: str) -> None:
    base = config("dm", options={"lr": 1})
    fields = IN_THE_ROW | ON_AN_AXIS | THE_NEWEST_COUNTS | {"seed": 1}
    other = msgspec.structs.replace(base, **{field: fields[field]})
    first = add(store, base, LOW)
    add(store, other, HIGH, card=other_data("e", "flowers") if field == "dataset" else ledger.CARD)
    board = leaderboard(store)
    cells = [cell for table in board.tables for cell in table.cells.values()]
    means = sorted(cell.mean for cell in cells)
    if field == "seed":
        assert means == pytest.approx([mean(LOW + HIGH)])
    elif field in THE_NEWEST_COUNTS:
        assert means == pytest.approx([mean(HIGH)])
        assert board.repeated == [first]
        assert f"repeated with a newer one, which counts: {first}." in made(board)
    else:
        assert means == pytest.approx([mean(LOW), mean(HIGH)])
        assert board.repeated == []
        rows = [row for table in board.tables for row in table.rows]
        assert len({*rows}) == (2 if field in IN_THE_ROW else 1)
        assert len(board.costs) == 2


def test_a_run_that_another_evaluator_measured_lacks_no_accuracy(store: Store) -> None:
    add(store, config("dm"), LOW)
    add(store, msgspec.structs.replace(config("dm"), evaluator=Choice("distance")))
    assert leaderboard(store).unscored == []


def test_runs_of_a_beginner_have_five_rows_and_mean_and_zca_are_not_compared(store: Store) -> None:
    zca = {"preprocessing": "zca"}
    for method, fields, around in (
        ("random", {}, 0.6),
        ("dm", {}, 0.71),
        ("dm", zca, 0.9),
        ("random", zca, 0.51),
        ("dm", {"precision": "bf16"}, 0.7),
    ):
        of_method = msgspec.structs.replace(config(method), **fields)
        sets = [_three(around)[i] for i in ((0, 2, 1) if "precision" in fields else (0, 1, 2))]
        add_sets(store, of_method, sets, overrides=dict(fields))
    table = _only(store)
    assert table.rows == [
        *(("random",), ("random (preprocessing zca)",), ("dm",)),
        *(("dm (precision bf16)",), ("dm (preprocessing zca)",)),
    ]
    # Of those with mean and std dm and dm with bf16 are not told apart; with ZCA dm is better than random.
    bold = ("dm", "dm (precision bf16)", "dm (preprocessing zca)")
    assert table.best == {((name,), ("digits", 1)) for name in bold}
    add(store, config("whole"), HIGH)
    assert _only(store).notes == ["digits IPC 1 preprocessing zca: whole not run under this protocol yet."]


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("precision", "tf32", ["dm", "dm (precision tf32)"]),
        ("method_version", 2, ["dm (version 1)", "dm (version 2)"]),
        ("plugins", (PLUGIN,), ["dm", "dm (theirs 1.0 aaaaaaaa)"]),
    ],
)
def test_what_sets_rows_apart_is_in_their_names_in_every_column(
    store: Store, field: str, value: object, names: list[str]
) -> None:
    add(store, config("dm", 1), LOW)
    add(store, msgspec.structs.replace(config("dm", 10), **{field: value}), HIGH)
    assert _only(store).rows == [(name,) for name in names]


def test_two_plugins_whose_code_differs_have_a_row_each(store: Store) -> None:
    for letter, accuracies in (("a", LOW), ("b", HIGH)):
        plugin = msgspec.structs.replace(PLUGIN, sha256=letter * 64)
        add(store, msgspec.structs.replace(config("dm"), plugins=(plugin,)), accuracies)
    assert _only(store).rows == [("dm (theirs 1.0 aaaaaaaa)",), ("dm (theirs 1.0 bbbbbbbb)",)]


def test_settings_that_no_name_tells_apart_have_a_hash(store: Store) -> None:
    for letter in "ab":
        name = "0123abcd" + letter * 56
        add(store, config("imported", options={"set": name}), LOW, overrides={"set": name})
    rows = [row for (row,) in _only(store).rows]
    assert all(str(row).startswith("imported (set 0123abcd) #") for row in rows)
    assert len({*rows}) == 2


def test_the_same_settings_are_one_row_however_they_were_asked_for(store: Store) -> None:
    add(store, config("dm", options={"lr": 2}), LOW, overrides={"lr": 2})
    add(store, config("dm", options={"lr": 2}, seed=1), HIGH, overrides={"recipe": "brief"})
    (cell,) = _only(store).cells.values()
    assert (cell.networks, cell.sets) == (10, 2)


def test_of_a_seed_the_newest_run_counts_as_a_whole_and_repeats_are_never_mixed(store: Store) -> None:
    add(store, config("dm", seed=0), [0.1] * 5)
    add(store, config("dm", seed=1), [0.4, 0.6])
    add(store, config("dm", seed=0), [0.2, 0.3])
    (cell,) = _only(store).cells.values()
    assert sorted(cell.values) == [0.2, 0.3, 0.4, 0.6]
    assert cell.mean == pytest.approx(0.375)
    assert cell.sets == 2
    assert [(score.seed, score.repeat) for score in cell.scores] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_what_is_pooled_within_a_cell_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, config("dm", seed=0), LOW)
    newer = msgspec.structs.replace(ledger.ENVIRONMENT, torch="2.16.0", dambench="0.2.0")
    monkeypatch.setattr(ledger, "ENVIRONMENT", newer)
    on_gpu = Execution(device="cuda:1")
    add(store, msgspec.structs.replace(config("dm", seed=1), execution=on_gpu, deterministic=True), HIGH)
    notes = [note for note in _only(store).notes if "pooled" in note]
    assert notes == [
        f"Scores of {what} are pooled: dm digits IPC 1."
        for what in (
            "dambench 0.1.0 and 0.2.0",
            "torch 2.15.0 and 2.16.0",
            "kind of device cpu and cuda",
            "kind of operations any and deterministic",
        )
    ]


def test_an_evaluation_of_a_set_is_of_the_settings_that_made_it_and_says_how_it_was_tested(store: Store) -> None:
    add(store, config("dm"), LOW)
    (sha256,) = (row["set_sha256"] for row in store.query("select set_sha256 from runs"))
    where = Execution(device="cuda:0", made=sha256)
    elsewhere = msgspec.structs.replace(config("dm", evaluate_on="other"), precision="tf32", execution=where)
    add(store, elsewhere, HIGH)
    (table,) = leaderboard(store, columns=("network",)).tables
    assert table.rows == [("dm",), ("dm (tested in tf32)",)]


def test_a_network_that_diverged_has_no_score_in_any_table_and_it_is_said(store: Store) -> None:
    run = msgspec.structs.replace(config("dm"), eval_repeats=6, evaluate_on=("convnet-d1-w8", "vgg11"))
    add(store, run, HIGH)
    board = leaderboard(store)
    assert board.tables == []
    assert board.unscored == [
        "convnet-d1-w8 on the set of dm on digits at IPC 1, seed 0 (1 of 6)",
        "vgg11 on the set of dm on digits at IPC 1, seed 0 (6 of 6)",
    ]
    assert f"without a score: {'; '.join(board.unscored)}." in made(board)


@pytest.mark.parametrize(("repeats", "accuracy"), [(2, 0.6), (3, None)])
def test_a_run_s_accuracy_is_that_of_its_first_network_and_none_where_some_diverged(
    store: Store, repeats: int, accuracy: float | None
) -> None:
    """In the list of runs, in the console's, in a filter, and in what `run --json` prints."""
    run = msgspec.structs.replace(config("dm"), evaluate_on=("convnet-d1-w8", "vgg11"), eval_repeats=repeats)
    run_id = store.create(run, ledger.CARD)
    *words, end = ledger.words(run, [0.5, 0.7])
    other = [msgspec.structs.replace(word, subject="vgg11") for word in words if isinstance(word, Measured)]
    list(store.record(run_id, [*words, *other, end]))
    (row,) = store.newest()
    printed = result(store, run_id)
    seen = metrics.accuracies(store, [store.run(run_id).number])
    assert row.accuracy == pytest.approx(accuracy)
    assert printed["accuracy"] == pytest.approx(accuracy)
    assert [estimate.mean for estimate in seen.values()] == ([] if accuracy is None else [pytest.approx(accuracy)])
    assert len(store.newest(only=filters.read("accuracy>50").where({}))) == (0 if accuracy is None else 1)


def test_what_experts_took_and_that_a_set_was_only_evaluated_are_among_the_costs(store: Store) -> None:
    for seed, seconds in enumerate((60.0, 0.5)):
        run_id = add(store, config("mtt", seed=seed), HIGH)
        number = store.run(run_id).number
        store.db.conn.execute(
            "insert into costs (run, phase, seconds, peak_memory_bytes) values (?, 'experts', ?, 0)", [number, seconds]
        )
    add(store, config("mtt", evaluate_on="vgg11"), HIGH)
    store.db.conn.execute("delete from costs where phase = 'distil' and run = (select max(number) from runs)")
    costs = leaderboard(store).costs
    assert [(cost.network, cost.experts_seconds, cost.distil_seconds) for cost in costs] == [
        ("convnet-d1-w8", 60.0, 1.0),
        ("vgg11", 0.0, None),
    ]


def test_the_same_command_on_another_machine_adds_no_evidence_though_its_bits_differ(store: Store) -> None:
    add(store, config("dm"), [0.1, 0.2], made="over there")
    add(store, config("dm"), [0.3, 0.5], made="here")
    (cell,) = leaderboard(store).tables[0].cells.values()
    assert (cell.networks, cell.sets, cell.mean) == (2, 1, 0.4)


def test_another_network_to_match_on_is_another_run(store: Store) -> None:
    add(store, config("dm"), [0.1], made="one")
    bn = msgspec.structs.replace(config("dm"), network="convnet-d1-w8-bn")
    add(store, bn, [0.3], made="other", overrides={"network": "convnet-d1-w8-bn"})
    assert len(leaderboard(store).tables[0].cells) == 2


def test_another_seed_adds_another_set(store: Store) -> None:
    add(store, config("dm", seed=0), HIGH)
    add(store, config("dm", seed=1), LOW)
    cell = _only(store).cells[("dm",), ("digits", 1)]
    assert (cell.networks, cell.sets) == (10, 2)
    assert cell.seeds == (0, 1)


def test_the_whole_set_under_another_seed_is_the_same_set_with_other_networks(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("whole", seed=0), HIGH)
    add(store, config("whole", seed=1), HIGH)
    cell = _only(store).cells[("whole",), ("digits", 1)]
    assert (cell.networks, cell.sets, cell.unit, cell.seeds) == (10, 1, "network", ())


def test_the_whole_set_stands_in_every_column_of_its_dataset_and_in_no_other(store: Store) -> None:
    add(store, config("dm", ipc=1), HIGH)
    add(store, config("dm", ipc=10), HIGH)
    add(store, config("whole"), HIGH)
    add(store, config("dm", ipc=1), HIGH, card=other_data("e", "flowers"))
    table = _only(store)
    assert table.columns == [("digits", 1), ("digits", 10), ("flowers", 1)]
    assert (("whole",), ("digits", 1)) in table.cells
    assert (("whole",), ("digits", 10)) in table.cells
    assert (("whole",), ("flowers", 1)) not in table.cells


def test_the_whole_set_stands_in_the_table_of_every_ipc(store: Store) -> None:
    add(store, config("whole"), HIGH)
    add(store, config("dm", ipc=10), HIGH)
    add(store, config("dm", ipc=2), HIGH)
    tables = leaderboard(store, columns=("dataset",)).tables
    assert [table.fixed["ipc"] for table in tables] == [2, 10]
    assert all(table.rows == [("dm",), ("whole",)] for table in tables)


def test_the_whole_set_alone_has_a_column_of_its_own(store: Store) -> None:
    add(store, config("whole"), HIGH)
    assert _only(store).columns == [("digits", None)]


def test_protocols_and_evaluation_networks_are_never_in_one_table_unless_asked(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("dm", protocol=PRESETS["dc"]), LOW)
    add(store, config("dm", evaluate_on="convnet-d2-w8"), LOW)
    board = leaderboard(store)
    assert len(board.tables) == 3
    assert {table.cells[("dm",), ("digits", 1)].networks for table in board.tables} == {5}
    wide = leaderboard(store, rows=("method", "network"), columns=("protocol", "dataset", "ipc")).tables
    assert len(wide) == 1
    assert len(wide[0].rows) == 2
    assert len(wide[0].columns) == 2


def test_two_datasets_of_one_name_are_told_apart(store: Store) -> None:
    add(store, config("dm"), HIGH, card=other_data("e", "flowers"))
    add(store, config("dm"), LOW, card=other_data("f", "flowers"))
    assert _only(store).columns == [("flowers#eeee", 1), ("flowers#ffff", 1)]


def test_settings_other_than_the_recipes_make_a_row_of_their_own(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("dm", options={"iterations": 5}), LOW, overrides={"iterations": 5})
    assert _only(store).rows == [("dm",), ("dm (iterations 5)",)]


def test_a_recipe_that_changed_does_not_mix_with_its_older_self(store: Store) -> None:
    add(store, config("dm", options={"lr": 1}), LOW)
    add(store, config("dm", options={"lr": 2, "new": "x"}), HIGH)
    cells = _only(store).cells
    assert {row: cell.mean for ((row,), _), cell in cells.items()} == {
        "dm": pytest.approx(mean(HIGH)),
        "dm (lr 1, new not known)": pytest.approx(mean(LOW)),
    }


def test_random_is_first_whole_is_last_and_ipc_is_a_number(store: Store) -> None:
    for ipc in (10, 2, 1):
        for method in ("whole", "dm", "random"):
            add(store, config(method, ipc=ipc), HIGH)
    table = _only(store)
    assert table.rows == [("random",), ("dm",), ("whole",)]
    assert table.columns == [("digits", 1), ("digits", 2), ("digits", 10)]


def test_the_majority_rate_is_that_of_the_test_set(store: Store) -> None:
    add(store, config("dm"), HIGH)
    assert _only(store).majority == {("digits", 1): 0.6}


def test_the_best_is_bold_and_what_is_not_told_from_it(store: Store) -> None:
    add_sets(store, config("random"), _three(0.6))
    add_sets(store, config("dm"), _three(0.9))
    add_sets(store, config("dc"), [_three(0.9)[2], *_three(0.89)[:2]])
    add(store, config("whole"), [0.99, 0.98, 0.97])
    assert _only(store).best == {((method,), ("digits", 1)) for method in ("dm", "dc")}


def test_rows_of_fewer_than_three_sets_neither_compete_nor_stop_the_others(store: Store) -> None:
    add_sets(store, config("random"), _three(0.6))
    add_sets(store, config("dm"), _three(0.9))
    add_sets(store, config("dc"), _three(0.95)[:2])
    assert _only(store).best == {(("dm",), ("digits", 1))}


def test_networks_of_one_set_are_no_claim_however_many_and_have_no_best(store: Store) -> None:
    add(store, config("random"), LOW)
    add(store, config("dm"), HIGH)
    assert _only(store).best == set()


def test_a_set_that_no_seed_changes_competes_by_its_networks(store: Store) -> None:
    add_sets(store, config("dm"), _three(0.6))
    add_sets(store, config("herding"), [[0.9], [0.91], [0.92]], made="one and the same")
    table = _only(store)
    cell = table.cells[("herding",), ("digits", 1)]
    assert (cell.unit, cell.sets, cell.networks, cell.seeds) == ("network", 1, 3, ())
    assert table.best == {(("herding",), ("digits", 1))}


def test_equal_sets_of_some_seeds_are_one_and_are_not_paired(store: Store) -> None:
    for seed, letter in enumerate("aab"):
        add(store, config("kmeans", seed=seed), [0.5, 0.6], made=letter)
    (cell,) = _only(store).cells.values()
    assert (cell.unit, cell.sets, cell.networks, cell.seeds) == ("set", 2, 6, ())
    assert cell.sample.sets == ((0.5, 0.6, 0.5, 0.6), (0.5, 0.6))


def test_one_imported_set_is_that_set_only_and_several_are_sets_without_seeds(store: Store) -> None:
    add(store, config("imported", options={"set": "a"}), HIGH)
    add_sets(store, config("imported", options={"set": "b,c"}), [HIGH, LOW])
    cells = sorted(_only(store).cells.values(), key=lambda cell: cell.sets)
    assert [(cell.unit, cell.sets, cell.seeds) for cell in cells] == [("network", 1, ()), ("set", 2, ())]


def test_a_single_imported_set_is_never_bold(store: Store) -> None:
    add_sets(store, config("random"), _three(0.6))
    add_sets(store, config("dm"), _three(0.8))
    add(store, config("imported", options={"set": "a"}), HIGH)
    assert _only(store).best == {(("dm",), ("digits", 1))}


def test_rows_are_compared_on_the_seeds_they_share_and_the_missing_ones_are_said(store: Store) -> None:
    """dc has a fourth, lucky seed: its mean is the highest, but where dm has the same seeds dm is better."""
    shifts = (-0.1, 0.0, 0.1)
    add_sets(store, config("dm"), [[0.71 + shift + noise] for shift, noise in zip(shifts, (0, 0.001, 0), strict=True)])
    add_sets(store, config("dc"), [[0.7 + shift] for shift in (*shifts, 0.2)])
    table = _only(store)
    assert table.best == {((method,), ("digits", 1)) for method in ("dm", "dc")}
    add_sets(store, config("dm", 10), _three(0.7))
    add_sets(store, config("dc", 10), [*_three(0.6), [0.6]])
    add_sets(store, config("dc", 2), [[0.6]])
    add_sets(store, config("random", 2), _three(0.5))
    notes = [note for note in _only(store).notes if "seed" in note]
    assert notes == [
        "digits IPC 1, digits IPC 10: dm without seed 3, which others have: compared on shared seeds (3 or more; else "
        "Welch).",
        "digits IPC 2: dc without seeds 1, 2, which others have: compared on shared seeds (3 or more; else Welch).",
    ]


def test_a_method_alone_is_not_the_best_of_anything(store: Store) -> None:
    add_sets(store, config("dm"), _three(0.9))
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
    assert board.tables[0].cells[("dm",), ("digits", 1)].networks == 5


def test_costs_are_medians_over_runs(store: Store) -> None:
    for seed, seconds in enumerate((1.0, 2.0, 9.0)):
        add(store, config("dm", seed=seed), HIGH, seconds=seconds)
    (cost,) = leaderboard(store).costs
    assert (cost.method, cost.runs, cost.distil_seconds, cost.evaluate_seconds) == ("dm", 3, 2.0, 2.0)
    assert cost.device == "a CPU, 2 threads"


def test_two_methods_that_made_the_same_set_both_have_it(store: Store) -> None:
    add(store, config("dm"), HIGH, made="the same")
    add(store, config("dm", options={"lr": 0.1}), HIGH, made="the same", overrides={"lr": 0.1})
    assert {cell.networks for cell in _only(store).cells.values()} == {5}
    assert len(_only(store).cells) == 2


def test_only_methods_compete_not_ipcs_or_protocols(store: Store) -> None:
    for ipc, around in ((1, 0.6), (10, 0.9)):
        add_sets(store, config("random", ipc=ipc), _three(around))
    (table,) = leaderboard(store, rows=("dataset", "ipc"), columns=("method",)).tables
    assert table.best == set()
    add_sets(store, config("dm", ipc=10), _three(0.5))
    (table,) = leaderboard(store, rows=("dataset", "ipc"), columns=("method",)).tables
    assert table.best == {(("digits", 10), ("random",))}
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
