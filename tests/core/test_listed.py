"""Settings with several values, in flags and in a run's file: which sweep they stand for."""

from pathlib import Path
from typing import Any

import pytest

from dambench.core import listed
from dambench.core.errors import BadInput
from dambench.core.sweep import Sweep


def _read(given: dict[str, Any], pairs: tuple[str, ...] = (), toml: str = "", name: str = "a.toml") -> Sweep | None:
    file = None
    if toml:
        file = Path(name)
        file.write_text(toml)
    return listed.read(file, given, pairs, None)


def _settings(grid: Sweep | None) -> list[dict[str, Any]]:
    assert grid is not None
    return [dict(point.settings) | {"seed": point.seed} for point in grid.points]


def test_one_value_of_each_is_no_sweep() -> None:
    assert _read({"method": "dm", "ipc": 1, "seeds": "0-2", "device": "cuda:0,1"}) is None
    assert _read({}, toml='method = "dm"\nevaluate_on = ["convnet", "mlp"]\nseeds = [0, 1]\ntags = ["a", "b"]') is None


def test_lists_are_axes_one_seed_of_everything_first_and_baselines_before_others() -> None:
    grid = _read({"method": ["dm", "random"], "dataset": "digits", "ipc": [1, 10], "seeds": "0,3"})
    assert [(s["method"], s["ipc"], s["seed"]) for s in _settings(grid)] == [
        *(("random", 1, 0), ("random", 10, 0), ("dm", 1, 0), ("dm", 10, 0)),
        *(("random", 1, 3), ("random", 10, 3), ("dm", 1, 3), ("dm", 10, 3)),
    ]
    assert grid is not None
    assert {point.request.tags[-1] for point in grid.points if point.request.tags} == {grid.tag}


def test_a_name_stays_whatever_the_seeds_and_device_and_changes_with_everything_else() -> None:
    def name(**more: Any) -> str:
        grid = _read({"method": "dm", "dataset": "digits", "ipc": [1, 10]} | more)
        assert grid is not None
        return grid.name

    assert name() == name(seeds="0-2") == name(seed=[0, 1, 2]) == name(device="cpu") == name(tags=["a"])
    assert len({name(), name(ipc=[1, 50]), name(network="mlp"), name(dataset="mnist")}) == 4
    assert name(name="table-1") == "table-1"
    with pytest.raises(BadInput, match="may have letters, digits"):
        name(name="table 1")


def test_a_file_gives_its_name_and_flags_go_over_its_lists() -> None:
    toml = 'method = ["dm", "dc"]\ndataset = "digits"\nipc = [1, 10]\nseed = {from = 0, to = 2}'
    assert len(_settings(_read({}, toml=toml))) == 12
    grid = _read({"method": "random", "ipc": [5]}, toml=toml)
    assert grid is not None
    assert grid.name == "a"
    assert all((point.request.method, point.request.ipc) == ({"name": "random"}, 5) for point in grid.points)
    assert [point.seed for point in grid.points] == [0, 1, 2]
    assert [s["seed"] for s in _settings(_read({"seeds": "7", "method": "dm", "ipc": [1]}, toml=toml))] == [7]
    grid = _read({"dataset": ["digits", "mnist"], "method": "dm", "ipc": 1, "seed": 0}, toml=toml)
    assert [s["dataset"] for s in _settings(grid)] == ["digits", "mnist"]


def test_options_of_a_method_have_several_values_by_commas_or_in_brackets() -> None:
    for pair in ("method.lr_images=0.1,1", "method.lr_images=[0.1, 1]"):
        grid = _read({"method": "dm", "dataset": "digits"}, (pair,))
        assert [s["method.lr_images"] for s in _settings(grid)] == [0.1, 1]
        assert grid is not None
        assert [point.request.method for point in grid.points] == [
            {"name": "dm", "lr_images": 0.1},
            {"name": "dm", "lr_images": 1},
        ]
    grid = _read({"method": ["dm", "dc"], "dataset": "digits"}, ("method.lr_images=0.5",))
    assert grid is not None
    assert [point.request.method for point in grid.points] == [
        {"name": "dm", "lr_images": 0.5},
        {"name": "dc", "lr_images": 0.5},
    ]


def test_an_option_that_takes_a_list_or_a_text_has_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"layers": {list}, "words": {str}, "rate": {float}}
    monkeypatch.setattr("dambench.core.listed._taken", lambda kind, name, option: kinds[option])
    given = {"method": "dm", "dataset": "digits"}
    assert _read(given, ("method.layers=[1, 2]",)) is None
    assert _read(given, ("method.words=a,b",)) is None
    grid = _read(given, ("method.layers=[[1, 2], [3]]", "method.rate=1,2"))
    assert [(s["method.layers"], s["method.rate"]) for s in _settings(grid)] == [
        *(([1, 2], 1), ([1, 2], 2), ([3], 1), ([3], 2)),
    ]


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ('device = ["cuda:0", "cuda:1"]', '"cuda:0,1" is one run on both'),
        ('data = ["a", "b"]', "the data of one dataset"),
        ("threads = [1, 2]", "says how runs are carried out"),
        ("ipc = []", "ipc has no value"),
        ("ipc = [1, 1]", "ipc has a value twice"),
        ("ipc = [1, 'x']", "ipc = 'x' is not allowed"),
        ('seed = [0, 1]\nseeds = "0-2"', "seed and seeds exclude each other"),
        ("ipcs = [1, 2]", "No setting is called 'ipcs'"),
        ("ipc = {from = 1, to = 30_000}", "30000 values"),
    ],
)
def test_a_list_that_cannot_be_is_said_in_one_sentence(toml: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        _read({}, toml=f'method = "dm"\ndataset = "digits"\n{toml}')
