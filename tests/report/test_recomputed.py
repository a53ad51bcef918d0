"""The ledger's report, computed again from the tables of `runs.db` with numpy and scipy, and nothing of ours."""

import json
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import optimize, stats

pytestmark = pytest.mark.slow
LEDGER = Path(__file__).parents[2] / "runs.db"
exact = pytest.approx

Row = dict[str, Any]


class Place(NamedTuple):
    """What the networks of a cell share."""

    method: str
    dataset: str
    ipc: int | None
    network: str
    protocol: str

    def beside(self, method: str, ipc: int | None) -> "Place":
        return self._replace(method=method, ipc=ipc)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("ledger") / "runs.db"
    path.write_bytes(LEDGER.read_bytes())
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def report(database: sqlite3.Connection) -> dict[str, Any]:
    """As a user gets it, in all its sections."""
    path = database.execute("pragma database_list").fetchone()["file"]
    command = [sys.executable, "-m", "dambench", "report", "--format", "json", "--sections", "all", "--db", path]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


@pytest.fixture(scope="module")
def cells(database: sqlite3.Connection) -> dict[str, dict[Place, dict[int, dict[int, float]]]]:
    """The values of each metric, cell, seed and repeat. In the ledger each seed made a set of its own."""
    found: dict[str, dict[Place, dict[int, dict[int, float]]]] = defaultdict(lambda: defaultdict(dict))
    for row in database.execute(
        """
        select r.method, r.dataset, r.ipc, e.subject, p.name || '#' || substr(p.sha256, 1, 4) as protocol, r.seed,
            e.repeat, m.metric, m.value, m.state
        from measurements m
            join evaluations e on e.run = m.run and e.iteration = m.iteration and e.evaluator = m.evaluator
                and e.subject = m.subject and e.repeat = m.repeat
            join runs r on r.number = m.run join protocols p on p.sha256 = e.protocol_sha256
        where e.final = 1 and r.state = 'finished' and r.deleted_at = '' and r.purpose = ''
            and e.evaluator = 'accuracy'
        """
    ):
        place = Place(row["method"], row["dataset"], row["ipc"], row["subject"], row["protocol"])
        seed = found[row["metric"]][place].setdefault(row["seed"], {})
        assert row["state"] == "finite"
        assert row["repeat"] not in seed, "the ledger has no run twice"
        seed[row["repeat"]] = row["value"]
    return found


def by_set(cell: dict[int, dict[int, float]]) -> list[np.ndarray[Any, Any]]:
    return [np.array([networks[repeat] for repeat in sorted(networks)]) for _, networks in sorted(cell.items())]


def independent(place: Place, cell: dict[int, dict[int, float]]) -> np.ndarray[Any, Any]:
    """Set means; the values of all networks of the whole set."""
    return np.concatenate(by_set(cell)) if place.method == "whole" else np.array([one.mean() for one in by_set(cell)])


def student(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def place_of(row: Row) -> Place:
    return Place(row["method"].partition(" ")[0], row["dataset"], row["ipc"], row["network"], row["protocol"])


def table_cells(report: dict[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    for table in report["tables"]:
        for cell in table["cells"]:
            row, column = table["rows"][cell["row"]], table["columns"][cell["column"]]
            yield place_of({**table["fixed"], **column, **row}), cell


def test_each_cell(report: dict[str, Any], cells: dict[str, Any]) -> None:
    shown = dict(table_cells(report))
    accuracy = cells["accuracy"]
    assert {place for place in shown if place.method != "whole"} == {p for p in accuracy if p.method != "whole"}
    for place, cell in shown.items():
        own = accuracy[place if place.method != "whole" else place.beside("whole", None)]
        sets, values = by_set(own), independent(place, own)
        assert cell["mean"] == exact(values.mean(), rel=1e-12)
        assert (cell["sets"], cell["networks"]) == (len(sets), sum(map(len, sets)))
        if len(values) > 1:
            assert cell["interval"] == exact(student(values), rel=1e-9)
        else:
            assert cell["interval"] is None
        within, between = spreads(sets)
        assert cell["std_within_set"] == (None if within is None else exact(within, rel=1e-9, abs=1e-12))
        assert cell["std_between_sets"] == (None if between is None else exact(between, rel=1e-9, abs=1e-12))


def spreads(sets: Sequence[np.ndarray[Any, Any]]) -> tuple[float | None, float | None]:
    """Of networks within a set, and between sets, by the F statistic of the analysis of variance; equal sizes."""
    if len(sets[0]) < 2:
        return None, None
    within = float(np.mean([one.var(ddof=1) for one in sets]))
    if len(sets) < 2:
        return within**0.5, None
    return within**0.5, (max(0.0, (stats.f_oneway(*sets).statistic - 1) * within / len(sets[0]))) ** 0.5


def ranked(own: dict[Place, Any]) -> tuple[Place, set[Place]]:
    """The best of some methods, and those not told from it: paired t-tests over shared seeds, corrected by Holm."""
    means = {place: independent(place, cell).mean() for place, cell in own.items()}
    best = max(means, key=lambda place: float(means[place]))
    ps = {}
    for place, cell in own.items():
        if place != best:
            seeds = sorted(cell.keys() & own[best].keys())
            assert len(seeds) >= 3, "no pair of the ledger's methods has fewer"
            ours, theirs = (
                [float(np.mean([one[seed][repeat] for repeat in one[seed] if repeat in other[seed]])) for seed in seeds]
                for one, other in ((own[best], cell), (cell, own[best]))
            )
            test = stats.ttest_rel(np.array(ours), np.array(theirs))
            # A method that is better on the shared seeds is not worse.
            ps[place] = float(test.pvalue) if test.statistic > 0 else 1.0
            if test.statistic <= 0:
                assert test.pvalue >= 0.05, "no such comparison of the ledger counts in the correction"
    told, order = set(), sorted(ps, key=lambda place: ps[place])
    for step, place in enumerate(order):
        if ps[place] * (len(order) - step) >= 0.05:
            break
        told.add(place)
    return best, set(own) - told


def test_what_is_bold_and_the_words_of_the_verdicts(report: dict[str, Any], cells: dict[str, Any]) -> None:
    bold = {place for place, cell in table_cells(report) if cell["best"]}
    verdicts = " ".join(table["verdict"] for table in report["tables"])
    expected: set[Place] = set()
    for column in {place.beside("", place.ipc) for place in cells["accuracy"] if place.method != "whole"}:
        own = {p: c for p, c in cells["accuracy"].items() if p.beside("", p.ipc) == column and len(c) >= 3}
        where = f"{column.dataset} IPC {column.ipc}"
        if len(own) < 2:
            assert f"at {where}, " not in verdicts or f"at {where}, no method can be called better" in verdicts
            continue
        best, level = ranked(own)
        expected |= level
        words = verdicts.partition(f"at {where}, ")[2].partition(";")[0].partition(". ")[0]
        assert words.startswith(best.method)
        if len(level) == 1:
            assert "is best, told from" in words
        else:
            assert "has the best mean, and" in words
            assert {place.method for place in level} == {m for m in named(report) if m in words}
    assert bold == expected


def named(report: dict[str, Any]) -> set[str]:
    return {place.method for place, _ in table_cells(report)}


def freedom(parts: Sequence[tuple[float, int]]) -> float:
    """Satterthwaite's, and what docs/statistics.md says is added where the counts differ."""
    divisor = sum(v * v / f for v, f in parts)
    for i, (v, f) in enumerate(parts):
        divisor += sum(v * w * abs(1 / f - 1 / g) for w, g in parts[i + 1 :])
    return sum(v for v, _ in parts) ** 2 / divisor


def fieller(samples: Sequence[np.ndarray[Any, Any]], top: Sequence[int], bottom: Sequence[int]) -> tuple[float, ...]:
    """The ratio, and where (N − ρ D)² / V(ρ) is the square of t's quantile, found numerically."""
    means = np.array([one.mean() for one in samples])
    variances = np.array([one.var(ddof=1) / len(one) for one in samples])
    n, d = np.array(top), np.array(bottom)
    ratio = float(n @ means / (d @ means))
    parts = list(zip((n - ratio * d) ** 2 * variances, [len(one) - 1 for one in samples], strict=True))
    quantile = stats.t.ppf(0.975, freedom(parts))

    def excess(rho: float) -> float:
        weights = n - rho * d
        return float(abs(weights @ means) - quantile * np.sqrt(weights**2 @ variances))

    edges = []
    for sign in (-1, 1):
        step = 1e-3
        while excess(ratio + sign * step) < 0:
            step *= 2
        edges.append(optimize.brentq(excess, ratio, ratio + sign * step, xtol=1e-15))
    return ratio, *edges


def test_ratios_and_the_size_of_a_random_subset_as_good(report: dict[str, Any], cells: dict[str, Any]) -> None:
    rows = [row for row in report["baselines"] if row["method"]]
    accuracy = cells["accuracy"]
    assert {place_of(r) for r in rows} == {p for p in accuracy if p.method not in ("random", "whole")}
    generator = np.random.default_rng(0)
    for row in rows:
        place = place_of(row)
        own, whole, random = (
            independent(at, accuracy[at])
            for at in (place, place.beside("whole", None), place.beside("random", place.ipc))
        )
        enough = [len(one) >= 3 for one in (own, random, whole)]
        assert row["relative_accuracy"] == exact(own.mean() / whole.mean(), rel=1e-12)
        limits = (row["relative_low"], row["relative_high"])
        expected = fieller([own, whole], [1, 0], [0, 1])[1:] if enough[0] and enough[2] else (None, None)
        assert limits == (expected if None in expected else exact(expected, rel=1e-8))
        recovered = (row["recovered_gap"], row["recovered_low"], row["recovered_high"])
        if enough[1] and enough[2]:
            assert recovered == exact(fieller([own, random, whole], [1, -1, 0], [0, -1, 1]), rel=1e-8)
        else:
            assert recovered == (None, None, None)
        curve = {at.ipc: independent(at, accuracy[at]) for at in accuracy if at == place.beside("random", at.ipc)}
        check_size(row, own, dict(sorted(curve.items())), generator)


def check_size(row: Row, own: Any, curve: dict[Any, Any], generator: np.random.Generator) -> None:
    assert row["curve"] == " ".join(map(str, curve))
    value, low, high = (as_number(row[f"random_size{end}"]) for end in ("", "_low", "_high"))
    assert value == exact(read([one.mean() for one in curve.values()], curve, own.mean()), rel=1e-9)
    samples = [own, *curve.values()]
    if min(map(len, samples)) < 3:
        assert low is high is None
        return
    draws = np.array([one.mean() + stats.sem(one) * generator.standard_t(len(one) - 1, 10_000) for one in samples])
    sizes = np.array([read(list(draw[1:]), curve, draw[0]) for draw in draws.T])
    # 2,000 draws have the quantiles somewhere between these.
    assert max((sizes < low).mean(), (sizes > high).mean()) <= 0.036
    assert min((sizes <= low).mean(), (sizes >= high).mean()) >= 0.015


def as_number(value: float | str | None) -> Any:
    """Below the curve 0, above it infinite."""
    return {"<": 0.0, ">": float("inf")}[value[0]] if isinstance(value, str) else value


def read(means: Sequence[float], curve: dict[Any, Any], height: float) -> float:
    """The IPC at which the rising curve of random subsets has a height, in log IPC."""
    logs = np.log(list(curve))
    rising = optimize.isotonic_regression(means).x
    if height < rising[0]:
        return 0.0
    if height > rising[-1]:
        return float("inf")
    return float(np.exp(np.interp(height, rising, logs)))


def test_every_score_and_the_runs_of_each_cell(database: sqlite3.Connection, report: dict[str, Any]) -> None:
    rows = database.execute(
        """
        select id, subject, repeat, metric, value from measurements join runs on runs.number = run
        where metric not glob 'class_*'
        """
    )
    stored = {(row["id"], row["subject"], row["repeat"], row["metric"]): row["value"] for row in rows}
    shown = {(row["run"], row["network"], row["repeat"], row["metric"]): row["value"] for row in report["scores"]}
    assert shown == stored
    assert len(report["scores"]) == len(stored)
    networks = database.execute("select id, seed, count(*) as n from evaluations join runs on number = run group by 1")
    assert {row["run"]: (row["seed"], row["networks"]) for row in report["runs"]} == {
        row["id"]: (row["seed"], row["n"]) for row in networks
    }


@pytest.mark.parametrize("metric", ["balanced_accuracy", "loss", "train_accuracy", "macro_f1"])
def test_each_cell_of_another_metric(database: sqlite3.Connection, cells: dict[str, Any], metric: str) -> None:
    path = database.execute("pragma database_list").fetchone()["file"]
    words = ["report", "--format", "json", "--metric", metric, "--db", path]
    shown = json.loads(
        subprocess.run([sys.executable, "-m", "dambench", *words], check=True, capture_output=True).stdout
    )
    places = dict(table_cells(shown))
    assert places
    for place, cell in places.items():
        own = cells[metric][place if place.method != "whole" else place.beside("whole", None)]
        values = independent(place, own)
        assert cell["mean"] == exact(values.mean(), rel=1e-12)
        assert cell["interval"] == (exact(student(values), rel=1e-9, abs=1e-12) if len(values) > 1 else None)


def test_what_it_took(database: sqlite3.Connection, report: dict[str, Any]) -> None:
    runs: dict[Any, list[sqlite3.Row]] = defaultdict(list)
    for row in database.execute(
        """
        select r.method, r.dataset, r.ipc, e.subject, p.name || '#' || substr(p.sha256, 1, 4) as protocol,
            device_name || ', ' || threads || ' thread' || iif(threads > 1, 's', '') as device,
            c.seconds as distil, c.peak_memory_bytes as peak, avg(e.seconds) as each, max(e.peak_memory_bytes) as most,
            (select seconds from costs where run = r.number and phase = 'experts') as experts
        from runs r join evaluations e on e.run = r.number join protocols p on p.sha256 = e.protocol_sha256
            join environments v on v.run = r.number join costs c on c.run = r.number and c.phase = 'distil'
        group by r.number, e.subject
        """
    ):
        place = Place(row["method"], row["dataset"], row["ipc"], row["subject"], row["protocol"])
        runs[place, row["device"]].append(row)
    assert {(place_of(row), row["device"]) for row in report["costs"]} == runs.keys()
    for row in report["costs"]:
        own = runs[place_of(row), row["device"]]
        assert row["runs"] == len(own)
        for shown, stored in (("distil_seconds", "distil"), ("evaluate_seconds", "each")):
            assert row[shown] == exact(np.median([one[stored] for one in own]), rel=1e-12)
        for shown, stored in (("distil_peak_bytes", "peak"), ("evaluate_peak_bytes", "most")):
            assert row[shown] == int(np.median([one[stored] for one in own]))
        assert row["experts_seconds"] == max(one["experts"] or 0 for one in own)
        assert row["distil_joules"] is row["evaluate_joules"] is None


def test_bytes_and_published_gaps(database: sqlite3.Connection, report: dict[str, Any], cells: dict[str, Any]) -> None:
    """The ledger's sets are images of uint8 or float32 with a label of 8 bytes each; the real ones are uint8."""
    for row in report["size"]:
        images, channels, height, width = (
            database.execute(
                "select train_images, channels, height, width from datasets where name = ?", (row["dataset"],)
            )
        ).fetchone()
        pixels = channels * height * width
        real = images * (pixels + 8)
        stored = database.execute(
            "select shape, dtype from artifacts where sha256 = ?", (row["set_sha256"],)
        ).fetchone()
        if stored is None:
            assert row["method"] == "whole"
            assert row["bytes"] == real
        else:
            count = json.loads(stored["shape"])[0]
            assert row["bytes"] == count * (pixels * {"uint8": 1, "float32": 4}[stored["dtype"]] + 8)
        assert row["real_bytes"] == real
        assert row["share"] == exact(row["bytes"] / real, rel=1e-12)
    for row in report["published"]:
        if row["mean"] is not None and row["published"] is not None:
            place = place_of(row)
            mean = independent(place, cells["accuracy"][place]).mean()
            assert row["mean"] == exact(mean, rel=1e-12)
            assert row["gap"] == exact(mean - row["published"], rel=1e-9)
