"""Results between random and whole, by hand-computed cases; and what they lack, with the commands that make it."""

import csv
import math
import shlex
from collections.abc import Sequence

import numpy as np
import pytest

from dambench.core.config import Choice, Execution, Plugin, RunConfig
from dambench.core.protocol import PRESETS, strong
from dambench.report import render
from dambench.report.wording import lines
from dambench.store.baselines import (
    Baselines,
    Missing,
    place_of,
    random_size,
    read_curve,
    read_curves,
    rising,
    words_of,
)
from dambench.store.cells import Cell, Score
from dambench.store.leaderboard import Leaderboard, leaderboard, missing_beside
from dambench.store.runs import Store
from dambench.store.statistics import Sample, t_quantile
from tests.ledger import add, config


def _add(store: Store, method: str, accuracies: Sequence[float], ipc: int | None = 1, **more: object) -> None:
    """One run each, of one network, by seed."""
    for seed, accuracy in enumerate(accuracies):
        add(store, config(method, ipc, seed, **more), [accuracy])  # type: ignore[arg-type]


def _cell(board: Leaderboard, method: str, ipc: int = 1) -> Cell:
    return next(t.cells[(method,), ("digits", ipc)] for t in board.tables if ((method,), ("digits", ipc)) in t.cells)


def _lacking(board: Leaderboard) -> dict[str, Missing]:
    return {
        one.what.partition(" by its")[0] + " strong" * ("strong" in one.what): one for one in board.baselines.missing
    }


DM, RANDOM, WHOLE = [0.88, 0.90, 0.92], [0.58, 0.60, 0.62], [0.97, 0.98, 0.99]


def test_a_result_is_placed_between_random_and_whole_by_the_formulas_of_the_field(store: Store) -> None:
    _add(store, "dm", DM)
    _add(store, "random", RANDOM)
    add(store, config("whole"), WHOLE)
    board = leaderboard(store)
    found = board.baselines.standing(_cell(board, "dm"))
    assert found is not None
    assert found.relative.value == pytest.approx(0.90 / 0.98)
    assert found.recovered.value == pytest.approx((0.90 - 0.60) / (0.98 - 0.60))
    # Fieller by hand, for the ratio of two means: the roots of (b² − t² v_b) ρ² − 2 a b ρ + (a² − t² v_a).
    a, b, v_a, v_b = 0.90, 0.98, 0.02**2 / 3, 0.01**2 / 3
    rho = a / b
    parts = v_a, rho**2 * v_b
    t2 = t_quantile(sum(parts) ** 2 / sum(part**2 / 2 for part in parts)) ** 2
    two, one, none = b * b - t2 * v_b, a * b, a * a - t2 * v_a
    root = math.sqrt(one * one - two * none)
    assert found.relative.interval == pytest.approx(((one - root) / two, (one + root) / two))
    low, high = found.recovered.interval or (0.0, 0.0)
    assert low < 0.30 / 0.38 < high
    assert found.size.value is None
    assert found.size.reason == "the random curve is missing"


def test_baselines_have_no_place_between_baselines(store: Store) -> None:
    _add(store, "random", RANDOM)
    add(store, config("whole"), WHOLE)
    board = leaderboard(store)
    assert board.baselines.standing(_cell(board, "random")) is None
    assert board.baselines.standing(_cell(board, "whole")) is None
    assert board.baselines.missing == []


@pytest.mark.parametrize(
    ("random", "whole", "why"),
    [
        ([], WHOLE, "random is missing"),
        (RANDOM, [], "whole is missing"),
        ([], [], "random and whole are missing"),
        ([0.6], WHOLE, "cannot be told apart: 1 set: no claim"),
        (RANDOM, [0.98], "cannot be told apart: 1 network: no claim"),
        ([0.95, 0.98, 1.0], WHOLE, "are not told apart, or whole is below"),
        ([0.9, 0.91, 0.92], [0.58, 0.60, 0.62], "are not told apart, or whole is below"),
    ],
)
def test_no_gap_is_recovered_where_random_and_whole_are_not_known_to_differ(
    store: Store, random: list[float], whole: list[float], why: str
) -> None:
    _add(store, "dm", DM)
    _add(store, "random", random)
    if whole:
        add(store, config("whole"), whole)
    board = leaderboard(store)
    found = board.baselines.standing(_cell(board, "dm"))
    assert found is not None
    assert found.recovered.value is None
    assert why in found.recovered.reason


def test_one_set_has_a_ratio_and_no_interval(store: Store) -> None:
    _add(store, "dm", [0.9])
    _add(store, "random", RANDOM)
    add(store, config("whole"), WHOLE)
    board = leaderboard(store)
    found = board.baselines.standing(_cell(board, "dm"))
    assert found is not None
    assert (found.relative.interval, found.recovered.interval) == (None, None)
    assert found.relative.value == pytest.approx(0.9 / 0.98)
    assert found.recovered.value == pytest.approx(0.3 / 0.38)
    assert found.recovered.reason == found.relative.reason == "no interval: 1 set: no claim about the method"


def test_baselines_of_another_preprocessing_protocol_code_or_hold_out_do_not_count(store: Store) -> None:
    _add(store, "dm", DM)
    _add(store, "random", RANDOM, protocol=PRESETS["dc"])
    own = config("random")
    for fields in (
        {"preprocessing": "zca"},
        {"precision": "tf32"},
        {"plugins": (Plugin(kind="datasets", name="digits", sha256="a" * 64),)},
        {"method": Choice("random", {"factor": 2})},
    ):
        add(store, RunConfig(**{f: getattr(own, f) for f in own.__struct_fields__} | fields), [0.6])
    board = leaderboard(store)
    assert _lacking(board)["5 random draws"].there == 0
    held = Score(*("dm", "digits", 1, "n", "p", {}, "dm", '["dm", {}, {"held out": "validation"}]', "", "s", "d", "r"))
    assert place_of(held).held_out == "validation"
    assert [one.command for one in Baselines([held]).missing if "strong" not in one.what] == [""] * 4


def test_what_is_missing_is_named_with_a_command_that_makes_it(store: Store) -> None:
    _add(store, "dm", DM)
    _add(store, "random", [0.6, 0.61])
    add(store, config("whole"), [0.98])
    board = leaderboard(store)
    found = _lacking(board)
    common = "dambench run --headless --dataset digits --protocol"
    where = "--evaluate-on convnet-d1-w8"
    assert {what: (one.at, one.there, one.command) for what, one in found.items()} == {
        "5 random draws": (
            *("digits IPC 1", 2),
            f"{common} quick --method random --ipc 1 --seeds 0-4 --eval-repeats 1 {where}",
        ),
        "herding": (
            *("digits IPC 1", 0),
            f"{common} quick --method herding --ipc 1 --seeds 0-2 --eval-repeats 1 {where}",
        ),
        "3 networks on the whole set": (
            *("digits", 1),
            f"{common} quick --method whole --eval-repeats 3 {where}",
        ),
        "3 networks on the whole set strong": (
            *("digits", 0),
            f"{common} strong --method whole --eval-repeats 3 {where}",
        ),
        "the random curve": (
            *("digits IPC 2,5", 1),  # its smallest class has 5 images
            "for ipc in 2 5; do dambench run --headless --dataset digits --protocol quick --method random "
            f"--ipc $ipc --seeds 0-2 --eval-repeats 1 {where}; done",
        ),
    }


def test_nothing_is_missing_once_it_was_made_and_several_networks_share_a_command(store: Store) -> None:
    for network in ("convnet-d1-w8", "convnet-d1-w16"):
        _add(store, "dm", DM, evaluate_on=network)
    commands = [one.command for one in leaderboard(store).baselines.missing]
    assert len(commands) == len(set(commands)) == 5
    assert all("--evaluate-on convnet-d1-w16,convnet-d1-w8" in command for command in commands)
    for network in ("convnet-d1-w8", "convnet-d1-w16"):
        for ipc in (1, 2, 5):
            _add(store, "random", [0.6, 0.61, 0.62, 0.63, 0.64], ipc, evaluate_on=network)
        _add(store, "herding", DM, evaluate_on=network)
        add(store, config("whole", evaluate_on=network), WHOLE)
        add(store, config("whole", evaluate_on=network, protocol=strong("digits")), WHOLE)
    assert leaderboard(store).baselines.missing == []


def test_the_commands_of_a_run_s_page_are_those_of_its_own_result(store: Store) -> None:
    _add(store, "dm", DM)
    _add(store, "dm", DM, 2)
    rows = store.runs("method = 'dm' and ipc = 2")
    assert {one.at for one in missing_beside(store, rows[0])} == {"digits IPC 2", "digits", "digits IPC 5"}
    assert missing_beside(store, store.run(add(store, config("random"), [0.5]))) == []


def test_data_settings_and_preprocessing_are_in_the_command() -> None:
    config = {
        "dataset": {"name": "folder", "options": {"size": 32, "background": "white; rm -rf ~"}},
        "preprocessing": "zca",
        "precision": "tf32",
        "where": {"data": "/my images"},
    }
    assert shlex.join(words_of(config)) == (
        "--dataset folder --set 'dataset.background=white; rm -rf ~' --set dataset.size=32 --data '/my images' "
        "--preprocessing zca --precision tf32"
    )
    assert words_of({"dataset": {"name": "digits"}, "where": Execution().data}.copy() | {"where": {}}) == (
        *("--dataset", "digits"),
    )


def test_a_curve_that_falls_is_pooled_to_one_that_does_not() -> None:
    assert rising([0.1, 0.3, 0.2, 0.4]) == pytest.approx([0.1, 0.25, 0.25, 0.4])
    assert rising([0.3, 0.2, 0.1]) == pytest.approx([0.2, 0.2, 0.2])
    assert rising([0.1, 0.2]) == [0.1, 0.2]


def test_a_curve_is_read_on_lines_over_log_ipc_and_not_beyond_its_ends() -> None:
    ipcs, heights = (1, 10, 50), [0.5, 0.7, 0.9]
    assert read_curve(ipcs, heights, 0.6) == pytest.approx(math.sqrt(10))
    assert read_curve(ipcs, heights, 0.8) == pytest.approx(math.sqrt(500))
    assert [read_curve(ipcs, heights, at) for at in (0.5, 0.7)] == pytest.approx([1, 10])
    assert read_curve(ipcs, heights, 0.9) == pytest.approx(50)
    assert (read_curve(ipcs, heights, 0.49), read_curve(ipcs, heights, 0.91)) == (0.0, math.inf)
    assert read_curve((1, 2, 5), [0.5, 0.6, 0.6], 0.6) == pytest.approx(2), "of a flat part the smallest"


def test_many_curves_are_read_at_once_as_each_alone() -> None:
    generator = np.random.default_rng(0)
    ipcs = (1, 2, 5, 10, 50)
    heights = generator.integers(0, 9, (300, 5)) / 8 + np.linspace(0, 0.5, 5)
    at = generator.integers(0, 12, 300) / 8
    alone = [read_curve(ipcs, rising(list(row)), height) for row, height in zip(heights, at, strict=True)]
    found = read_curves(ipcs, heights, at)
    heights[0], at[0] = [0.5, 0.5, 0.5, 0.5, 0.5 + 1e-15], 9.0  # far above what is nearly flat
    alone[0] = math.inf
    found = read_curves(ipcs, heights, at)
    assert {0.0, math.inf} < set(alone)
    assert found == pytest.approx(alone, rel=1e-9)


def _sample(*means: float) -> Sample:
    return Sample(tuple((value,) for value in means))


def test_the_equivalent_random_size_has_an_interval_that_widens_with_the_spread() -> None:
    narrow = {ipc: _sample(at - 0.001, at, at + 0.001) for ipc, at in ((1, 0.5), (10, 0.7), (50, 0.9))}
    wide = {ipc: _sample(at - 0.02, at, at + 0.02) for ipc, at in ((1, 0.5), (10, 0.7), (50, 0.9))}
    some = [
        random_size(_sample(0.6 - width, 0.6, 0.6 + width), curve) for width, curve in ((1e-3, narrow), (2e-2, wide))
    ]
    assert [one.value for one in some] == pytest.approx([math.sqrt(10)] * 2)
    (low, high), (lower, higher) = [(one.low or 0.0, one.high or 0.0) for one in some]
    assert lower < low < math.sqrt(10) < high < higher
    assert random_size(_sample(0.6 - 1e-3, 0.6, 0.6 + 1e-3), narrow) == some[0], "the same each time"
    beyond = random_size(_sample(0.94, 0.95, 0.96), narrow)
    assert (beyond.value, beyond.high) == (math.inf, math.inf)
    assert random_size(_sample(0.6), narrow).low is None


def test_the_whole_set_is_named_with_its_epochs_and_stands_beside_its_strong_recipe(store: Store) -> None:
    _add(store, "dm", DM)
    add(store, config("whole"), WHOLE)
    add(store, config("whole", protocol=strong("digits")), [0.99, 0.99, 0.991])
    (quick,) = [table for table in leaderboard(store).tables if ("dm",) in table.rows]
    named = dict(lines(quick, ("method",)))
    assert "whole (50 epochs)" in named
    assert [entry.number for entry in named["whole, strong recipe (200 epochs)"]] == ["99.0 ± 0.1‡"]
    (own,) = [table for table in leaderboard(store).tables if ("dm",) not in table.rows]
    assert list(dict(lines(own, ("method",)))) == ["whole (200 epochs)", "majority class"]


def test_the_section_of_a_report_has_the_ratios_and_commands_that_can_be_copied(store: Store) -> None:
    _add(store, "dm", DM)
    _add(store, "random", RANDOM)
    add(store, config("whole"), WHOLE)
    board = leaderboard(store)
    board.sections = ("baselines",)
    axes = ("method",), ("dataset", "ipc")
    markdown, html, latex, table = (render(name, board, *axes) for name in ("markdown", "html", "latex", "csv"))
    # The intervals by search: all ratios ρ with (N − ρ D)² ≤ t² V at t(2.81), on a grid of a millionth.
    assert "91.8 (87.6 to 96.2) | 78.9 (67.8 to 90.0) |" in markdown
    command = (
        "dambench run --headless --dataset digits --protocol quick --method random --ipc 1 --seeds 0-4 "
        "--eval-repeats 1 --evaluate-on convnet-d1-w8"
    )
    assert f"\n\n    {command}\n\n" in markdown
    assert f"<pre>{command}</pre>" in html
    # Some typewriter fonts make a dash of two hyphens, which no shell takes.
    apart = command.replace("--", "-{}-")
    assert f"\\texttt{{{apart}}}" in latex
    (result, *missing) = csv.DictReader(table.splitlines())
    assert (result["method"], result["missing"]) == ("dm", "")
    assert float(result["recovered_gap"]) == pytest.approx(0.3 / 0.38)
    assert command in [line["command"] for line in missing]
    board.sections = ()
    short = render("markdown", board, *axes, short=True)
    assert (
        "Missing: 5 random draws (digits IPC 1); herding (digits IPC 1); 3 networks on the whole set by its strong"
        in short
    )
    assert "--sections baselines" in short


def test_what_is_far_above_a_nearly_level_curve_is_endless_and_overflows_nothing() -> None:
    heights = np.array([[0.5, 0.5 + 1e-9], [0.5, 0.6]])
    assert read_curves([1, 10], heights, np.array([0.9, 0.55])) == pytest.approx([math.inf, math.sqrt(10)])


def test_beside_labels_of_a_teacher_belong_random_images_with_those_of_one_like_it(store: Store) -> None:
    soft, network = PRESETS["soft"], "convnet-d1-w8"

    def made(method: str, seed: int, **options: object) -> None:
        run = config(method, 1, seed, soft, network, options)
        fields = {name: getattr(run, name) for name in run.__struct_fields__}
        add(store, RunConfig(**fields | {"network": network}), [0.5 + seed / 10])

    for seed in range(3):
        made("rded", seed, epochs=20)
    found = _lacking(leaderboard(store))
    assert {what.partition(" with its")[0] for what in found if "strong" not in what} == {
        "5 random draws",
        "the random curve",
    }
    draws = found["5 random draws with its labels"]
    assert draws.command.startswith("dambench run --headless --dataset digits --protocol soft --method random")
    assert f"--network {network} --set method.teacher_epochs=20 --ipc 1" in draws.command
    assert f"teacher {network}, 20 epochs" in draws.where
    for seed in range(5):
        made("random", seed, teacher_epochs=10)  # another teacher's
    assert _lacking(leaderboard(store))["5 random draws with its labels"].there == 0
    for seed in range(4):
        made("random", seed, teacher_epochs=20)
    board = leaderboard(store)
    assert _lacking(board)["5 random draws with its labels"].there == 4
    made("random", 4, teacher_epochs=20)
    assert "5 random draws with its labels" not in _lacking(leaderboard(store))
    add(store, config("random", options={"teacher_epochs": 20}), [0.6])
    add(store, config("dm"), [0.6])
    assert _lacking(leaderboard(store))["5 random draws"].there == 0, "it is of no use without its teacher's labels"
