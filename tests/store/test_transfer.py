import random

import pytest
from scipy import stats

from dambench.store.cells import Cell, Key, Score
from dambench.store.metrics import MetricRow
from dambench.store.transfer import CrossArchitecture, cross_architecture, kendall, spearman

NETWORKS = ["convnet", "resnet18", "vgg11"]

Values = dict[str, dict[str, list[float]]]
"""Of a method: by network and set, of each network trained on it."""


def _cell(method: str, network: str, sets: dict[str, list[float]], better: str = "higher") -> Cell:
    scores = [
        Score(
            *(method, "digits", 1, network, "p", {"accuracy": value}, method, "{}", "", f"{method} {name}", "d", name),
            source=network == "convnet" and method != "random",
            seed=seed,
            repeat=repeat,
        )
        for seed, (name, values) in enumerate(sets.items())
        for repeat, value in enumerate(values)
    ]
    return Cell(tuple(scores), MetricRow("accuracy", "accuracy", "fraction", better, ""))


def _over(methods: dict[str, Values], better: str = "higher") -> CrossArchitecture:
    rows: dict[Key, dict[str, Cell]] = {
        (method,): {network: _cell(method, network, sets, better) for network, sets in values.items()}
        for method, values in methods.items()
    }
    return cross_architecture(rows, NETWORKS)


DM: Values = {
    "convnet": {"a": [0.80, 0.84], "b": [0.90]},
    "resnet18": {"a": [0.60, 0.62], "b": [0.65]},
    "vgg11": {"a": [0.50], "b": [0.55]},
}


def test_the_network_that_was_matched_on_is_not_in_the_mean() -> None:
    row = _over({"dm": DM}).rows["dm",]
    # Set a: (0.61 + 0.50) / 2 = 0.555, set b: (0.65 + 0.55) / 2 = 0.60.
    assert row.mean == pytest.approx(0.5775)
    assert row.std == pytest.approx(0.045 / 2**0.5)
    assert row.worst_network == "vgg11"
    assert row.worst == pytest.approx(0.525)
    # (0.82 − 0.555 + 0.90 − 0.60) / 2
    assert row.drop == pytest.approx(0.2825)
    assert (row.source, row.sets, row.missing_sets) == ("convnet", 2, 0)
    assert row.interval is not None
    assert row.interval.half == pytest.approx(stats.t.ppf(0.975, 1) * 0.045 / 2**0.5 / 2**0.5)


def test_no_row_has_easier_networks_than_another() -> None:
    """`random` was matched on none, and has its mean over the same networks as `dm`."""
    result = _over({"random": {name: {"r": [0.3]} for name in NETWORKS}, "dm": DM})
    assert result.sources == ("convnet",)
    assert result.unseen == ("resnet18", "vgg11")
    assert result.rows["random",].mean == pytest.approx(0.3)
    assert result.rows["random",].drop is None
    result = _over({"random": {name: {"r": [0.3]} for name in NETWORKS[:2]}, "dm": DM})
    assert result.unseen == ("resnet18",)
    assert result.lacking == {"vgg11": (("random",),)}
    assert result.rows["dm",].mean == pytest.approx(0.63)


def test_a_row_of_the_matched_network_alone_keeps_no_other_from_its_mean() -> None:
    result = _over({"dc": {"convnet": {"a": [0.7]}}, "dm": DM})
    assert result.unseen == ("resnet18", "vgg11")
    assert result.rows.keys() == {("dm",)}


def test_all_figures_are_of_the_sets_that_were_tried_on_all_networks() -> None:
    row = _over({"dm": DM | {"vgg11": {"b": [0.55]}}}).rows["dm",]
    assert [row.mean, row.worst, row.drop] == pytest.approx([0.60, 0.55, 0.30])
    assert (row.sets, row.missing_sets, row.std, row.interval) == (1, 1, None, None)


def test_the_worst_of_what_should_be_low_is_the_highest() -> None:
    assert _over({"dm": DM}, better="lower").rows["dm",].worst_network == "resnet18"


def test_a_score_that_is_no_number_has_no_mean() -> None:
    broken = DM | {"vgg11": {"a": [float("nan")], "b": [0.55]}}
    assert _over({"dm": broken}).rows == {}


def test_rank_correlations_need_four_methods_and_leave_out_the_whole_set() -> None:
    order = [0.5, 0.6, 0.7, 0.8]
    methods: dict[str, Values] = {
        f"m{i}": {"resnet18": {"s": [order[i]]}, "vgg11": {"s": [order[i] if i < 2 else order[5 - i]]}}
        for i in range(4)
    }
    result = _over(methods)
    one = result.correlations["resnet18", "vgg11"]
    # Orders 1 2 3 4 and 1 2 4 3: 1 − 6 · 2 / (4 · 15) = 0.8; 5 of 6 pairs are concordant, 1 is not.
    assert [one.spearman, one.kendall, one.methods] == pytest.approx([0.8, 2 / 3, 4])
    whole = {"whole": {"resnet18": {"s": [0.9]}, "vgg11": {"s": [0.1]}}}
    assert _over(methods | whole).correlations["resnet18", "vgg11"] == one
    three = dict(list(methods.items())[:3])
    assert _over(three | whole).correlations["resnet18", "vgg11"] == type(one)(None, None, 3)


def test_rank_correlations_are_scipy_s_also_with_ties() -> None:
    generator = random.Random(0)
    for size in (4, 5, 9, 20):
        for _ in range(20):
            first = [generator.randrange(size) / 10 for _ in range(size)]
            second = [generator.randrange(size) / 10 for _ in range(size)]
            if len({*first}) == 1 or len({*second}) == 1:
                continue
            assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
            assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)
    assert spearman([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert kendall([1, 2, 3, 4], [2, 2, 2, 2]) is None
