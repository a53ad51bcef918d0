"""Tables of runs that are not as one would plan them, against numpy and scipy alone."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from dambench.cli.app import run_cli
from dambench.core.protocol import PRESETS
from dambench.store.runs import Store
from tests.ledger import add, config

exact = pytest.approx
Sets = Mapping[int, Sequence[float]]
"""By seed, the accuracies of its networks."""

GENERATOR = np.random.default_rng(3)


def _sets(centre: float, sizes: Mapping[int, int]) -> dict[int, list[float]]:
    """Set means differ by 2 points, networks by half of one."""
    return {
        seed: (centre + GENERATOR.normal(0, 0.02) + GENERATOR.normal(0, 0.005, size)).tolist()
        for seed, size in sizes.items()
    }


def _add(path: Path, method: str, sets: Sets, **more: Any) -> list[str]:
    with closing(Store.open(path, write=True)) as store:
        repeats = {name: more.pop(name) for name in ("ipc", "protocol", "options") if name in more}
        return [
            add(store, replace(config(method, seed=seed, **repeats), eval_repeats=len(values)), values, **more)
            for seed, values in sets.items()
        ]


def _report(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run_cli(["report", "--format", "json", "--sections", "all", "--db", str(path)]) == 0
    return dict(json.loads(capsys.readouterr().out))


def _cells(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By row and protocol."""
    found = {}
    for table in report["tables"]:
        for cell in table["cells"]:
            row = table["rows"][cell["row"]]["method"]
            found[f"{row} {table['fixed'].get('protocol', '').partition('#')[0]}".strip()] = cell
    return found


def _check(cell: dict[str, Any], sets: Sets) -> None:
    means = np.array([np.mean(values) for values in sets.values()])
    assert cell["mean"] == exact(means.mean(), rel=1e-12)
    assert (cell["sets"], cell["networks"]) == (len(sets), sum(map(len, sets.values())))
    if len(means) > 1:
        half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
        assert cell["interval"] == exact([means.mean() - half, means.mean() + half], rel=1e-9)
    else:
        assert cell["interval"] is None
        assert not cell["best"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "odd.db"


def test_unequal_seeds_and_networks(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dm, random, dc = (
        _sets(0.80, {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}),
        _sets(0.70, {2: 3, 3: 1, 4: 3, 5: 2, 6: 3}),
        _sets(0.79, {7: 2, 8: 3, 9: 1}),
    )
    for method, sets in (("dm", dm), ("random", random), ("dc", dc)):
        _add(path, method, sets)
    cells = _cells(_report(path, capsys))
    for method, sets in (("dm", dm), ("random", random), ("dc", dc)):
        _check(cells[f"{method} quick"], sets)
    one_way = stats.f_oneway(*dm.values()) if min(map(len, dm.values())) > 1 else None
    assert one_way is None  # a set of one network has no spread of its own, and counts in the others'
    n = np.array([len(v) for v in dm.values()])
    within = sum(np.var(v) * len(v) for v in dm.values()) / (n.sum() - len(n))
    grand = np.mean([value for values in dm.values() for value in values])
    between = sum(len(v) * (np.mean(v) - grand) ** 2 for v in dm.values()) / (len(n) - 1)
    usual = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 1)
    assert cells["dm quick"]["std_within_set"] == exact(math.sqrt(within), rel=1e-9)
    assert cells["dm quick"]["std_between_sets"] == exact(math.sqrt(max(0, (between - within) / usual)), rel=1e-9)
    capsys.readouterr()
    assert run_cli(["compare", "dm", "random", "dc", "--json", "--db", str(path)]) == 0
    against_random, against_dc = json.loads(capsys.readouterr().out)[0]["comparisons"]
    # Seeds 2, 3 and 4 are shared, with 3, 1 and 3 networks that both have.
    pairs = [(np.mean(dm[s][:k]), np.mean(random[s][:k])) for s, k in ((2, 3), (3, 1), (4, 3))]
    paired = stats.ttest_rel(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    assert against_random["difference"] == exact(np.mean([a - b for a, b in pairs]), rel=1e-9)
    assert against_random["interval"] == exact(list(paired.confidence_interval()), rel=1e-9)
    assert (against_random["design"], against_random["p"]) == ("paired", exact(paired.pvalue, rel=1e-9))
    assert (against_random["seeds"], against_random["networks"]) == ([2, 3, 4], [7, 7])
    a, b = (np.array([np.mean(values) for values in sets.values()]) for sets in (dm, dc))
    error = math.hypot(stats.sem(a), stats.sem(b))
    v, w, f, g = stats.sem(a) ** 2, stats.sem(b) ** 2, len(a) - 1, len(b) - 1
    freedom = (v + w) ** 2 / (v**2 / f + w**2 / g + v * w * abs(1 / f - 1 / g))
    assert against_dc["design"] == "Welch"
    assert against_dc["p"] == exact(2 * stats.t.sf(abs(a.mean() - b.mean()) / error, freedom), rel=1e-9)
    assert against_dc["p"] > stats.ttest_ind(a, b, equal_var=False).pvalue
    small, large = sorted([against_random, against_dc], key=lambda one: one["p"])
    assert small["p_holm"] == exact(min(1, 2 * small["p"]))
    assert large["p_holm"] == exact(max(small["p_holm"], large["p"]))


def test_one_seed_makes_no_claim(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, centre in (("dm", 0.9), ("random", 0.5)):
        sets = _sets(centre, {0: 5})
        _add(path, method, sets)
        _check(_cells(_report(path, capsys))[f"{method} quick"], sets)
    assert "no method can be called better" in _report(path, capsys)["tables"][0]["verdict"]


def test_a_seed_whose_network_diverged_is_left_out_and_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = _sets(0.8, {0: 3, 1: 3, 2: 3, 3: 3})
    others = {seed: values for seed, values in sets.items() if seed != 2}
    _add(path, "dm", others)
    with closing(Store.open(path, write=True)) as store:  # its third network has no accuracy
        run = add(store, replace(config("dm", seed=2), eval_repeats=3), sets[2][:2])
    report = _report(path, capsys)
    _check(cell := _cells(report)["dm quick"], others)
    assert run not in cell["runs"]
    assert [text for text in report["unscored"] if "seed 2 (1 of 3)" in text]


def test_a_value_that_is_no_number_leaves_no_number(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _add(path, "dm", {0: [0.8, 0.81], 1: [0.79, math.nan], 2: [0.8, 0.8]})
    cell = _cells(_report(path, capsys))["dm quick"]
    assert (cell["mean"], cell["interval"], cell["best"]) == (None, None, False)


def test_the_same_run_counts_once_however_often_it_came(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = _sets(0.8, {0: 3, 1: 3, 2: 3})
    _add(path, "dm", sets)
    other = path.with_name("other.db")
    _add(other, "dm", _sets(0.6, {2: 3}))  # another's of seed 2: the newer one counts
    again = _sets(0.7, {1: 3})
    for _ in range(2):
        assert run_cli(["db", "merge", str(other), "--db", str(path)]) == 0
    newest = _cells(_report(path, capsys))["dm quick"]
    assert (newest["sets"], newest["networks"], len(newest["runs"])) == (3, 9, 3)
    (run,) = _add(path, "dm", again)
    report = _report(path, capsys)
    cell = _cells(report)["dm quick"]
    assert (cell["sets"], cell["networks"], len(cell["runs"])) == (3, 9, 3)
    assert run in cell["runs"]
    assert len(report["repeated"]) == 2


def test_protocols_and_versions_are_never_in_one_cell(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick, strong, newer = (_sets(0.8, {0: 3, 1: 3, 2: 3}) for _ in range(3))
    _add(path, "dm", quick)
    _add(path, "dm", strong, protocol=PRESETS["dsa-dm"])
    with closing(Store.open(path, write=True)) as store:
        for seed, values in newer.items():
            add(store, replace(config("dm", seed=seed), eval_repeats=3, method_version=2), values, made=f"v2 {seed}")
    cells = _cells(_report(path, capsys))
    assert len(cells) == 3
    for sets in (quick, strong, newer):
        (own,) = [one for one in cells.values() if one["mean"] == exact(np.mean([np.mean(v) for v in sets.values()]))]
        _check(own, sets)


def test_sets_that_some_seeds_made_alike_are_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = _sets(0.8, {0: 3, 1: 3, 2: 3, 3: 3})
    _add(path, "herding", {seed: values[seed] for seed in (0, 1)}, made="one")
    _add(path, "herding", {seed: values[seed] for seed in (2, 3)})
    cell = _cells(_report(path, capsys))["herding quick"]
    means = np.array([np.mean([*values[0], *values[1]]), np.mean(values[2]), np.mean(values[3])])
    assert (cell["sets"], cell["networks"], cell["mean"]) == (3, 12, exact(means.mean()))
    half = stats.t.ppf(0.975, 2) * stats.sem(means)
    assert cell["interval"] == exact([means.mean() - half, means.mean() + half])
