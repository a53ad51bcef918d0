import pytest

from dambench.matching.recipes import elsewhere, table
from dambench.methods.pad import Options

TABLE = """
dataset   IPC  for    zca  masked  N   T⁺  init
cifar10   1    1      yes  0       80  -   -
cifar10   10   2-20   no   0.25    40  20  real
"""


def test_a_row_is_a_recipe_and_a_dash_the_option_s_default() -> None:
    first, second = table(TABLE, Options, "A paper", "theirs", score="grand")
    assert first.options == {"mask_ratio": 0.0, "steps": 80, "score": "grand"}
    assert second.options == {"mask_ratio": 0.25, "steps": 40, "max_start": 20, "init": "real", "score": "grand"}
    assert [(r.name, r.datasets, r.ipc, r.preprocessing, r.source) for r in (first, second)] == [
        ("theirs", ("cifar10",), (1, 1), "zca", "A paper: CIFAR-10 at IPC 1, ZCA"),
        ("theirs", ("cifar10",), (2, 20), "mean/std", "A paper: CIFAR-10 at IPC 10"),
    ]
    assert [(r.datasets, r.ipc, r.preprocessing, r.source) for r in elsewhere((first, second), "As at", " there")] == [
        ((), (1, 1), "mean/std", "As at 1 there"),
        ((), (2, 20), "mean/std", "As at 10"),
    ]


def test_a_row_with_a_cell_too_few_is_not_read() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table(TABLE + "cifar100 1 1\n", Options, "A paper")
