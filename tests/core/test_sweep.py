from pathlib import Path
from typing import Any

import pytest
import tomli_w

from dambench.core import config, sweep
from dambench.core.config import Request
from dambench.core.errors import BadInput


def _read(tmp_path: Path, toml: str) -> sweep.Sweep:
    (tmp_path / "grid.toml").write_text(toml)
    return sweep.read(tmp_path / "grid.toml")


def _runs(found: sweep.Sweep) -> list[tuple[Any, int | None, int]]:
    """Method, IPC and seed of each."""
    return [(point.request.choice("method").name, point.request.ipc, point.seed) for point in found.points]


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    found = _read(tmp_path, '[run]\ndataset = "digits"\n[grid]\nmethod = ["dm", "dc"]\nipc = [1, 10]\nseed = [0, 1]')
    assert (found.name, found.axes, found.product) == ("grid", ("method", "ipc", "seed"), 8)
    assert len(found.points) == 8
    assert {point.request.dataset for point in found.points} == {"digits"}
    assert all(point.request.tags == ["sweep:grid"] for point in found.points)


def test_one_seed_of_everything_comes_first_and_baselines_before_the_others(tmp_path: Path) -> None:
    found = _read(tmp_path, '[grid]\nseed = [3, 1]\nmethod = ["dm", "random"]\nipc = [1, 2]')
    assert _runs(found) == [
        *(("random", 1, 3), ("random", 2, 3), ("dm", 1, 3), ("dm", 2, 3)),
        *(("random", 1, 1), ("random", 2, 1), ("dm", 1, 1), ("dm", 2, 1)),
    ]


def test_the_whole_set_has_no_ipc_and_is_there_once(tmp_path: Path) -> None:
    found = _read(tmp_path, '[grid]\nmethod = ["whole", "dm"]\nipc = [1, 10]')
    assert _runs(found) == [("whole", None, 0), ("dm", 1, 0), ("dm", 10, 0)]
    assert found.points[0].settings == {"method": "whole", "ipc": None}


RANGES: list[tuple[str, list[float]]] = [
    ("{from = 0, to = 4}", [0, 1, 2, 3, 4]),
    ("{from = 1, to = 6, step = 2}", [1, 3, 5]),
    ("{from = 5, to = 5}", [5]),
    ("[7, 9]", [7, 9]),
    ("3", [3]),
]


@pytest.mark.parametrize(("text", "values"), RANGES)
def test_an_axis_is_a_list_a_range_or_one_value(tmp_path: Path, text: str, values: list[float]) -> None:
    assert [point.seed for point in _read(tmp_path, f'[grid]\nmethod = "dm"\nseed = {text}').points] == values


def test_a_range_of_fractions_ends_where_it_says(tmp_path: Path) -> None:
    found = _read(tmp_path, '[grid]\n"method.lr" = {from = 0.1, to = 0.3, step = 0.1}\nmethod = "dm"')
    assert [point.settings["method.lr"] for point in found.points] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("grid", ['"method.lr" = [1, 2]', "method.lr = [1, 2]"])
def test_settings_of_the_method_are_axes_too(tmp_path: Path, grid: str) -> None:
    found = _read(tmp_path, f'[run]\nmethod = {{name = "dm", iterations = 5}}\n[grid]\n{grid}')
    assert [point.request.method for point in found.points] == [
        {"name": "dm", "iterations": 5, "lr": 1},
        {"name": "dm", "iterations": 5, "lr": 2},
    ]


def test_methods_with_settings_stand_beside_each_other(tmp_path: Path) -> None:
    found = _read(tmp_path, '[grid]\nmethod = ["dm", {name = "dm", iterations = 5}]\n[[skip]]\nmethod = "dm"')
    assert [point.request.method for point in found.points] == [{"name": "dm", "iterations": 5}]


def test_a_rule_leaves_out_what_meets_all_of_it(tmp_path: Path) -> None:
    grid = '[run]\ndataset = "mnist"\n[grid]\nmethod = ["dm", "K-Center"]\nipc = [1, 10, 50]\n'
    rules = '[[skip]]\nmethod = "kcenter"\nipc = [10, 50]\n[[skip]]\nipc = 50\ndataset = "MNIST"\n[[skip]]\nipc = 7'
    found = _read(tmp_path, grid + rules)
    assert _runs(found) == [("dm", 1, 0), ("dm", 10, 0), ("K-Center", 1, 0)]
    assert (found.product, found.idle_rules) == (6, (3,))


def test_networks_that_are_evaluated_on_are_one_value(tmp_path: Path) -> None:
    found = _read(tmp_path, '[grid]\nmethod = ["dm"]\nevaluate_on = ["lenet", "vgg11"]')
    assert [point.request.evaluate_on for point in found.points] == [["lenet", "vgg11"]]
    found = _read(tmp_path, '[grid]\nmethod = ["dm"]\nevaluate_on = [["lenet"], ["vgg11"]]')
    assert [point.request.evaluate_on for point in found.points] == [["lenet"], ["vgg11"]]


def test_tags_and_seeds_of_all_runs_are_kept(tmp_path: Path) -> None:
    found = _read(tmp_path, 'name = "x.1"\n[run]\nseeds = "0-2"\ntags = ["a"]\n[grid]\nmethod = ["dm"]')
    assert [point.seed for point in found.points] == [0, 1, 2]
    assert found.points[0].request.tags == ["a", "sweep:x.1"]


def test_the_file_of_a_run_gives_its_request_again(tmp_path: Path) -> None:
    (point,) = _read(
        tmp_path, '[run]\ndataset = "digits"\n[grid]\nmethod = [{name = "dm", lr = 0.1}]\nseed = [4]'
    ).points
    (tmp_path / "run.toml").write_text(tomli_w.dumps(sweep.file_of(point.request)))
    fields = config.read_toml(tmp_path / "run.toml")
    assert config.read(Request, fields, "it") == point.request


def test_what_is_measured_of_each_set_stands_above_the_grid_or_in_a_part(tmp_path: Path) -> None:
    toml = """
evaluators = ["Robustness", {name = "continual", steps = 10, eval_repeats = 1, evaluate_on = ["mlp"]}]
[[part]]
[part.grid]
method = ["random"]
[[part]]
evaluators = ["robustness", "nas"]
[part.grid]
method = ["dm"]
"""
    first, second = _read(tmp_path, toml).points
    assert [one.called for one in first.evaluators] == [
        "robustness",
        'continual (steps 10, eval_repeats 1, evaluate_on ["mlp"])',
    ]
    assert [one.choice.name for one in second.evaluators] == ["robustness", "continual", "nas"]
    assert first.evaluators[1].words == [
        *("--evaluator", "continual", "--set", "evaluator.steps=10"),
        *("--eval-repeats", "1", "--evaluate-on", "mlp"),
    ]
    assert first.evaluators[1].request == Request(eval_repeats=1, evaluate_on=["mlp"])


WRONG = {
    "[girds]": "No part is called 'girds'. Did you mean 'grid'",
    "grid = 3": "in \\[grid\\]|a table is needed",
    "[grid]\nipcs = [1]": "No setting is called 'ipcs'",
    "[grid]\nseeds = [1]": "the seeds are the axis seed",
    '[grid]\nname = ["a"]': "name is no setting of a run",
    "[grid]\nipc = []": "ipc has no value",
    "[grid]\nipc = [1, 1]": "ipc has a value twice",
    '[grid]\nmethod = ["dm", "D-M"]': "method has a value twice",
    "[grid]\nipc = {from = 3, to = 1}": "ipc is no range",
    "[grid]\nipc = {from = 1, to = 3, step = 0}": "ipc is no range",
    "[grid]\nipc = {from = 1, to = 3, by = 1}": "ipc is no range",
    "[grid]\nipc = {from = 1, to = inf}": "ipc is no range",
    "[grid]\nipc = {from = nan, to = 3}": "ipc is no range",
    "[grid]\nipc = {from = 1, to = 3, step = inf}": "ipc is no range",
    f"[grid]\nipc = {{from = 1, to = 1{400 * '0'}}}": "ipc is no range",
    "[grid]\nipc = {from = 1, to = 3, step = 1e-320}": "the range of ipc has endlessly many values",
    '[grid]\nipc = {from = "a", to = 3}': "ipc is no range",
    "[grid]\nipc = {from = 1, to = 1000000000}": "the range of ipc has 1000000000 values",
    "[grid]\nipc = {from = 1, to = 1000}\nseed = {from = 0, to = 999}": "1000 ipc × 1000 seed are 1000000 runs",
    "[run]\nipc = 1\n[grid]\nipc = [1]": "ipc is in \\[run\\] and in \\[grid\\]",
    "[grid]\nipc = [0]": "ipc",
    '[grid]\nipc = ["many"]': "ipc",
    '[grid]\nipc = [1]\nseed = [1, "x"]': "seed x is no whole number",
    "[grid]\nipc = [1]\nseed = [0, -1]": "seed -1 is no whole number",
    "[run]\nseeds = '0-2'\n[grid]\nmethod = ['dm']\nseed = [1]": "seed is in \\[run\\] and in \\[grid\\]",
    "[grid]\nipc = [1]\n[[skip]]\nipc = 1": "leaves out all 1 runs of the grid",
    "[grid]\nipc = [1]\n[[skip]]\nnetwork = 1": "rule 1 of \\[\\[skip\\]\\]: No axis is called 'network'",
    "[grid]\nipc = [1]\n[[skip]]": "it says nothing",
    "[grid]\nipc = [1]\n[skip]\nipc = 1": "skip is a list of rules",
    'name = "a/b"\n[grid]\nipc = [1]': "name = 'a/b' may have letters",
    "[grid": "is not valid TOML",
    'evaluators = "nas"\n[grid]\nipc = [1]': "evaluators is a list, as",
    'evaluators = ["nsa"]\n[grid]\nipc = [1]': "No evaluator in .* is called 'nsa'. Did you mean 'nas'",
    "evaluators = [{steps = 3}]\n[grid]\nipc = [1]": "is neither a name nor a table with one",
    'evaluators = ["nas", {name = "NAS"}]\n[grid]\nipc = [1]': "the evaluator nas is there twice",
    'evaluators = [{name = "nas", eval_repeats = 0}]\n[grid]\nipc = [1]': "eval_repeats",
}


@pytest.mark.parametrize(("toml", "said"), WRONG.items())
def test_what_is_no_sweep_is_said(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        _read(tmp_path, toml)


def test_ten_thousand_runs_are_read_at_once(tmp_path: Path) -> None:
    found = _read(tmp_path, '[grid]\nmethod = "dm"\nipc = {from = 1, to = 100}\nseed = {from = 0, to = 99}')
    assert len(found.points) == 10_000
