"""Grids of settings, as `dambench tune` takes them."""

import pytest

from dambench.core import grid
from dambench.core.errors import BadInput


def test_values_are_read_as_toml_or_as_texts_and_all_combinations_are_made() -> None:
    parsed = grid.parse(["method.lr_images=0.1,1", "recipe=default,brief", 'method.mask=["a,b"]'])
    assert parsed == {"method.lr_images": [0.1, 1], "recipe": ["default", "brief"], "method.mask": ["a,b"]}
    points = grid.points(parsed)
    assert [(point["method.lr_images"], point["recipe"]) for point in points] == [
        (0.1, "default"),
        (0.1, "brief"),
        (1, "default"),
        (1, "brief"),
    ]
    assert grid.fields(points[1]) == {"recipe": "brief", "method": {"lr_images": 0.1, "mask": "a,b"}}


def test_an_empty_grid_has_one_point() -> None:
    assert grid.points(grid.parse([])) == [{}]


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("method.lr_images", "not of the form"),
        ("method.=1", "not of the form"),
        ("dataset.size=32", "not of the form"),
        ("iterations=", "not of the form"),
        ("ipc=1,10", "not a setting to be chosen"),
        ("seed=0,1", "not a setting to be chosen"),
        ("iterations=10,10", "a value twice"),
    ],
)
def test_what_is_no_grid_is_one_sentence(pair: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        grid.parse([pair])


def test_a_setting_twice_and_a_grid_without_end_are_refused() -> None:
    with pytest.raises(BadInput, match="more than once"):
        grid.parse(["iterations=1", "iterations=2"])
    numbers = ",".join(map(str, range(40)))
    with pytest.raises(BadInput, match="more than 1000 combinations"):
        grid.parse([f"iterations={numbers}", f"method.batch_real={numbers}"])
