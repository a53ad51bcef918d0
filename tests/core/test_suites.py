"""The suites that come with dambench, and sweeps of several parts."""

from pathlib import Path

import pytest

from dambench.core import registry, sweep
from dambench.core.errors import BadInput

PARTS = """
[run]
dataset = "digits"
[[part]]
[part.run]
protocol = "dc"
[part.grid]
method = ["dc", "random"]
seed = [0, 1]
[[part]]
[part.grid]
method = "dm"
ipc = [1, 10]
seed = [0, 1]
[[part.skip]]
ipc = 10
seed = 1
"""


def _read(tmp_path: Path, toml: str) -> sweep.Sweep:
    (tmp_path / "grid.toml").write_text(toml)
    return sweep.read(tmp_path / "grid.toml")


def test_parts_are_one_sweep_in_one_order(tmp_path: Path) -> None:
    found = _read(tmp_path, PARTS)
    assert [
        (one.request.choice("method").name, one.request.ipc, one.request.protocol, one.seed) for one in found.points
    ] == [
        ("random", None, "dc", 0),
        ("dc", None, "dc", 0),
        ("dm", 1, None, 0),
        ("dm", 10, None, 0),
        ("random", None, "dc", 1),
        ("dc", None, "dc", 1),
        ("dm", 1, None, 1),
    ]
    assert found.product == 8
    assert {point.request.choice("dataset").name for point in found.points} == {"digits"}
    assert {tuple(point.request.tags or ()) for point in found.points} == {("sweep:grid",)}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[[part.skip]]", "[[part.skp]]", "part 2: No part is called 'skp'"),
        ("[run]", '[grid]\nmethod = "dm"\n[run]', "beside [[part]] there is no [grid]"),
        ("ipc = 10\nseed = 1", 'method = "dm"', "part 2: [[skip]] leaves out all 4 runs"),
        ('method = "dm"', 'method = "dm"\nprotocl = "dc"', "part 2, [grid]: No setting is called 'protocl'"),
        ("seed = [0, 1]\n[[part.skip]]", "seed = {from = 0, to = 9999}\n[[part.skip]]", "20000 are the most"),
    ],
)
def test_what_is_wrong_in_a_part_is_said_with_its_number(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        _read(tmp_path, PARTS.replace(old, new, 1))
    assert sentence in str(caught.value)


def test_each_suite_can_be_read_and_has_random_first() -> None:
    for name in sweep.shipped():
        found = sweep.suite(name, "/images" if name == "mine" else "")
        assert found.idle_rules == ()
        assert found.points[0].request.choice("method").name == "random"
        assert found.points[0].request.tags == [f"suite:{name}"]


def test_the_small_table_has_each_method_under_its_papers_protocol() -> None:
    points = sweep.suite("dc-bench-small").points
    cells = {
        (one.request.choice("method").name, one.request.protocol)
        for one in points
        if one.request.choice("method").name != "random"
    }
    assert cells == {
        *(("herding", "dc"), ("kcenter", "dc"), ("dc", "dc"), ("dsa", "dsa-dm"), ("dm", "dsa-dm")),
        *(("datadam", "datadam"), ("mtt", "mtt")),
    }
    assert {
        (one.request.choice("dataset").name, one.request.ipc)
        for one in points
        if one.request.choice("method").name == "mtt"
    } == {(dataset, ipc) for dataset in ("mnist", "fashionmnist", "cifar10") for ipc in (1, 10, 50)}


def test_the_table_of_today_has_all_methods_but_those_of_others_in_a_useful_order() -> None:
    points = sweep.suite("today").points
    assert {one.request.choice("method").name for one in points} == set(registry.names("methods")) - {"imported"}
    assert [one.seed for one in points] == sorted(one.seed for one in points)
    others = [one.request.choice("dataset").name for one in points if not one.seed and not _is_baseline(one)]
    assert others == sorted(others, reverse=True)  # MNIST before CIFAR-10
    assert {tuple(one.request.evaluate_on or ()) for one in points} == {("convnet-d3-w32",)}
    assert {one.request.protocol for one in points} == {"brief", "soft"}


def _is_baseline(one: sweep.Point) -> bool:
    return one.request.choice("method").name in ("random", "whole")


def test_a_suite_of_own_images_asks_for_them() -> None:
    with pytest.raises(BadInput, match="--data says which folder"):
        sweep.suite("mine")
    assert sweep.suite("mine", "a.npz").points[0].request.choice("dataset").name == "arrays"
    assert sweep.suite("mine", "images").points[0].request.choice("dataset").name == "folder"


def test_an_unknown_suite_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadInput, match=r"Known: .*digits"):
        sweep.suite("digts")
