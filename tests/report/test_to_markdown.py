from dambench.report.formats.markdown import cell, grid
from dambench.report.formats.markdown import render as to_markdown
from dambench.report.wording import entry
from dambench.store.cells import Cell, Score
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import Store
from tests.ledger import add, add_sets, config, other_data

ROWS, COLUMNS = ("method",), ("dataset", "ipc")
LOW, HIGH = [0.60, 0.61, 0.62, 0.60, 0.61], [0.90, 0.91, 0.92, 0.90, 0.91]
LOW_SETS, HIGH_SETS = [[0.60, 0.62], [0.63, 0.65], [0.59, 0.57]], [[0.90, 0.92], [0.94, 0.92], [0.89, 0.89]]


def _report(store: Store) -> str:
    return to_markdown(leaderboard(store, ROWS, COLUMNS), ROWS, COLUMNS)


def _cell(sets: int, each: int) -> Cell:
    names = [str(s) for s in range(sets) for _ in range(each)]
    return Cell(tuple(Score("m", "d", 1, "n", "p", {"accuracy": 0.5}, "m", "{}", "", name, "d", "r") for name in names))


def test_an_empty_database_gives_one_friendly_sentence_and_a_command(store: Store) -> None:
    assert _report(store).startswith("No finished runs yet.")
    assert "dambench run --headless --method dm --dataset digits" in _report(store)


def test_the_table_reads_as_it_should(store: Store) -> None:
    for ipc in (1, 10):
        add_sets(store, config("random", ipc=ipc), LOW_SETS)
        add_sets(store, config("dm", ipc=ipc), HIGH_SETS, recipe="the paper")
    add(store, config("herding", ipc=1), HIGH)
    add(store, config("whole"), [0.99] * 5)
    assert """
## Accuracy in %, protocol quick\\#3528, trained network convnet-d1-w8

| method            |         digits IPC 1 |        digits IPC 10 |
| ----------------- | -------------------: | -------------------: |
| random            |     61.0 ± 7.5 (3×2) |     61.0 ± 7.5 (3×2) |
| dm                | **91.0 ± 5.0** (3×2) | **91.0 ± 5.0** (3×2) |
| herding           |       90.8 ± – (1×5) |                    – |
| whole (50 epochs) |    99.0 ± 0.0‡ (1×5) |    99.0 ± 0.0‡ (1×5) |
| majority class    |                 60.0 |                 60.0 |
""" in _report(store)


def test_a_short_report_is_the_tables_and_what_their_signs_say(store: Store) -> None:
    add(store, config("dm"), HIGH)
    board = leaderboard(store, ROWS, COLUMNS)
    text = to_markdown(board, ROWS, COLUMNS, short=True)
    assert text.startswith("## Accuracy in %")
    assert "| dm " in text
    assert "random and whole not run" in text
    assert "What it took" not in text
    assert "(sets × networks); 1 finished run. Written by dambench 0.1.0.\n" in text
    assert (
        "- Fewer than 3 sets: no claim about the method, never bold; of one set there is no interval (± –).\n" in text
    )
    assert text.endswith("on one set does not say how much another seed would change.\n")


def test_every_protocol_and_recipe_has_a_footnote(store: Store) -> None:
    add(store, config("dm"), HIGH, recipe="DM, Table 1")
    text = _report(store)
    assert "Protocol quick\\#3528: 200 epochs (rate × 0.1 after 100) on a synthetic set, 50 epochs" in text
    assert "Settings of dm on digits: DM, Table 1." in text
    assert "dsa-dm" not in text.partition("Protocol")[2].replace("as dsa-dm", "")
    assert "digits IPC 1: random and whole not run under this protocol yet." in text


def test_seconds_peaks_and_device_of_each_method_are_there(store: Store) -> None:
    add(store, config("dm"), HIGH, seconds=12.0)
    line = next(line for line in _report(store).splitlines() if "a CPU, 2 threads" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "dm",
        "digits IPC 1",
        "1",
        "12 s",
        "1 MB",
        "convnet-d1-w8",
        "quick\\#3528",
        "12 s",
        "1 MB",
        "a CPU, 2 threads",
    ]


def test_the_same_runs_give_the_same_bytes(store: Store) -> None:
    add(store, config("dm"), HIGH)
    assert _report(store) == _report(store)


def test_small_n_is_shown_as_small_n() -> None:
    assert cell(entry(_cell(1, 1))) == "50.0 ± – (1×1)"
    assert cell(entry(_cell(1, 2))) == "50.0 ± – (1×2)"
    assert cell(entry(_cell(3, 5))) == "50.0 ± 0.0 (3×5)"
    uneven = Cell((*_cell(1, 5).scores, *_cell(2, 3).scores[3:]))
    assert cell(entry(uneven)) == "50.0 ± 0.0 (2 sets, 8 networks)"


def test_a_hostile_dataset_name_forges_no_row(store: Store) -> None:
    add(store, config("dm"), HIGH)
    honest = len(_report(store).splitlines())
    store.db.conn.execute("update runs set dataset = ?", ["x |\n| dm | **100.0** (5) |\n<img src=y> [a](b) \x1b[2J"])
    text = _report(store)
    assert len(text.splitlines()) == honest
    assert "\x1b" not in text
    assert "<img" not in text.replace("\\<", "")


def test_a_dataset_of_ones_own_has_a_column_of_its_own(store: Store) -> None:
    add(store, config("dm"), HIGH)
    add(store, config("dm"), LOW, card=other_data("e", "flowers"))
    assert "|   digits IPC 1 |  flowers IPC 1 |" in _report(store)


def test_columns_line_up_in_a_terminal() -> None:
    lines = grid([["a", "bb"], ["ccc", "d"]]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_each_dataset_has_the_recipe_that_was_used_on_it(store: Store) -> None:
    add(store, config("dm"), HIGH, recipe="ours, for digits")
    add(store, config("dm"), HIGH, recipe="the paper's", card=other_data("e", "flowers"))
    text = _report(store)
    assert "Settings of dm on digits: ours, for digits." in text
    assert "Settings of dm on flowers: the paper's." in text


def test_each_cell_has_its_spread_between_sets_and_within_a_set(store: Store) -> None:
    add_sets(store, config("dm"), HIGH_SETS)
    add(store, config("random"), LOW)
    appendix = _report(store).partition("## Runs of each cell")[2]
    # By hand: within √((0.0002 + 0.0002 + 0) / 3) = 1.2 %, between √(0.0004 − 0.0002 / 3) = 1.8 %.
    assert "(seed 2); between sets 1.8, within a set 1.2.\n" in appendix
    assert "(seed 0); within the set 0.8.\n" in appendix
