"""What comes of many items, computed again from the stored rows of each by numpy and scipy, and nothing of ours."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dambench.cli.app import run_cli

pytestmark = pytest.mark.slow
exact = pytest.approx
K = 4

RUN = ["run", "--headless", "--dataset", "digits", "--method", "random", "--ipc", "2", "--device", "cpu"]
RUN += ["--protocol", "fair-quick", "--network", "convnet-d1-w8", "--eval-repeats", "2"]

Rows = dict[str, dict[int, dict[str, float]]]
"""Values by subject, repeat and metric."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Rows]]:
    """A small set of random images, measured by each evaluator that makes something of several items."""
    folder = tmp_path_factory.mktemp("recomputed")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("DAMBENCH_DB", str(folder / "runs.db"))
        patched.setenv("DAMBENCH_HOME", str(folder / "home"))
        assert run_cli(RUN) == 0
        with closing(sqlite3.connect(folder / "runs.db")) as store:
            (run,) = (row[0] for row in store.execute("select id from runs"))
        for evaluator, *settings in (
            ["nas", "networks=10", "max_width=32", f"top={K}", "epochs=20", "reference_epochs=4"],
            ["continual", "orders=2", "steps=3"],
            ["time", "checks=20"],
            ["privacy", "halves=6"],
        ):
            words = [word for setting in settings for word in ("--set", f"evaluator.{setting}")]
            assert run_cli(["evaluate", run, "--evaluator", evaluator, *words]) == 0
        yield _rows(folder / "runs.db")


def _rows(path: Path) -> dict[str, Rows]:
    found: dict[str, Rows] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    with closing(sqlite3.connect(path)) as store:
        for evaluator, subject, repeat, metric, value, state in store.execute(
            "select evaluator, subject, repeat, metric, value, measurements.state from measurements "
            "join runs on number = run where purpose = ''"
        ):
            found[evaluator][subject][repeat][metric] = float(state) if value is None else value
    return found


def test_rankings_are_compared_as_scipy_compares_them(measured: dict[str, Rows]) -> None:
    rows = measured["nas"]
    networks = {name: by[0] for name, by in rows.items() if name.startswith("convnet")}
    assert len(networks) == 10
    ranked = [one for one in networks.values() if one["status"] != 4]
    assert 5 <= len(ranked) <= 10
    reference = np.array([one.get("reference_accuracy", 0.0) for one in ranked])
    seconds = sum(one["reference_seconds"] for one in ranked)
    best = np.sort(reference)[::-1]
    for arm in ("set", "random", "early", "ceiling"):
        found = rows[arm][0]
        proxy = np.array([one.get(f"{arm}_accuracy", 0.0) for one in ranked])
        assert (found["ranked"], found["k"]) == (len(ranked), K)
        assert found["tau_b"] == exact(stats.kendalltau(proxy, reference).statistic)
        assert found["spearman"] == exact(stats.spearmanr(proxy, reference).statistic)
        if "spearman_low" in found:
            assert found["spearman_low"] <= found["spearman"] <= found["spearman_high"]
        assert found["seconds"] == exact(sum(one[f"{arm}_seconds"] for one in ranked))
        assert found["speedup"] == exact(seconds / found["seconds"])
        # Of equal scores either may be the first: what is compared is what any such choice could give.
        sure = [
            place for place in range(len(ranked)) if (proxy > proxy[place]).sum() + (proxy == proxy[place]).sum() <= K
        ]
        able = [place for place in range(len(ranked)) if (proxy > proxy[place]).sum() < K]
        good = reference >= best[K - 1]
        least, most = (
            good[sure].sum(),
            good[sure].sum() + min(K - len(sure), good[[p for p in able if p not in sure]].sum()),
        )
        assert least - 1e-9 <= found["precision_at_k"] * K <= most + 1e-9
        regrets = [best[0] - reference[place] for place in able]
        assert min(regrets) - 1e-9 <= found["regret_at_k"] <= max(regrets) + 1e-9
        if len(sure) == K:
            assert found["regret_at_k"] == exact(best[0] - reference[sure].max())
            assert found["spearman_own_top"] == exact(stats.spearmanr(proxy[sure], reference[sure]).statistic)
        assert found["chosen_accuracy"] in reference[proxy == proxy.max()]


def test_forgetting_and_means_are_those_of_the_steps(measured: dict[str, Rows]) -> None:
    rows = measured["continual"]
    name = next(subject for subject in rows if " step " not in subject)
    assert sorted(rows[name]) == [0, 1, 2, 3], "two networks in each of two orders"
    for repeat, found in rows[name].items():
        steps = [rows[f"{name} step {step}/3"][repeat] for step in (1, 2, 3)]
        a = np.array([[step.get(f"accuracy_step_{j}", np.nan) for j in (1, 2, 3)] for step in steps])
        assert np.isnan(a[0, 1:]).all()
        assert np.isnan(a[1, 2])
        assert found["accuracy_final"] == steps[-1]["accuracy_seen"]
        assert found["accuracy_mean"] == exact(np.mean([step["accuracy_seen"] for step in steps]))
        drops = [np.nanmax(a[:2, j]) - a[2, j] for j in (0, 1)]
        assert found["forgetting"] == exact(np.mean(drops))
        assert [step["memory_images"] for step in steps] == [8, 14, 20], "classes come 4, 3, 3, two images each"
        assert [step["memory_bytes"] for step in steps] == [n * (8 * 8 + 8) for n in (8, 14, 20)]


def test_break_even_is_what_making_costs_over_what_a_training_saves(measured: dict[str, Rows]) -> None:
    (by_repeat,) = measured["time"].values()
    assert sorted(by_repeat) == [0, 1]
    for found in by_repeat.values():
        saved = found["whole_seconds"] - found["train_seconds"]
        assert found["break_even"] == (exact(found["distil_seconds"] / saved) if saved > 0 else np.inf)
        shares = [1, 2, 5, 10, 20, 50, 100]
        at = [found[f"seconds_at_{share}"] for share in shares if f"seconds_at_{share}" in found]
        assert at == sorted(at)
        assert at[-1] == exact(found["train_seconds"])
        for reach in (50, 70, 80, 90, 95):
            assert (found[f"seconds_to_{reach}"] < np.inf) == bool(found[f"reached_{reach}"])


def test_intervals_of_areas_are_those_of_their_papers(measured: dict[str, Rows]) -> None:
    rows = measured["privacy"]
    name = next(subject for subject in rows if subject.startswith("convnet") and " " not in subject)
    for found in rows[name].values():
        m, n = found["members"], found["non_members"]
        for attack, members in (("loss", m), ("own", found["own_images"])):
            auc, size = found[f"{attack}_auc"], (members + n) / 2 - 1
            for end in ("low", "high"):
                theta = found[f"{attack}_auc_{end}"]
                spread = 1 + size * (1 - theta) / (2 - theta) + size * theta / (1 + theta)
                error = np.sqrt(theta * (1 - theta) * spread / (members * n))
                assert abs(theta - auc) == exact(stats.norm.ppf(0.975) * error, abs=1e-6), "Newcombe's method 5"
        assert "loss_tpr_1" not in found, "fewer than 1,000 non-members"
    halves = rows[f"{name} halves"]
    assert sorted(halves) == list(range(6))
    lira = rows[f"{name} LiRA"][0]
    assert lira["attacked"] == 6
    fewest = min(one["members"] for one in halves.values())
    assert 0.8 * fewest < lira["members"] <= fewest, "but for images whose kind only the attacked network is"
    width = (lira["lira_auc_high"] - lira["lira_auc_low"]) / 2
    assert lira["lira_auc"] == exact((lira["lira_auc_high"] + lira["lira_auc_low"]) / 2)
    assert 0 < width < stats.t.ppf(0.975, 5) * 0.5, "Student's t over six attacks"
