"""`--budget`: what of a table fits, which rows are shortened, and what is left out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dambench.cli.app import run_cli
from dambench.cli.budget import Fitting, fit, patience_of, seconds_of
from dambench.cli.estimates import MeasuredCost
from dambench.cli.plans import PlannedRun, Standing
from dambench.cli.shared_work import SharedWork
from dambench.core.config import Request
from dambench.core.errors import BadInput
from dambench.core.sweep import Point
from tests.cli.lab import begun, printed

__all__ = ["begun"]

TO_MAKE = ("new", "to resume")


def _run(method: str, seed: int, seconds: float | None, standing: Standing = "new", recipe: str = "") -> PlannedRun:
    settings = {"method": method} | ({"recipe": recipe} if recipe else {})
    request = Request(method=method, seed=seed, recipe=recipe or None)
    return PlannedRun(Point(settings, request), standing, kind=method, seconds=seconds)


def _table(*rows: tuple[str, float | None], seeds: int = 2) -> list[PlannedRun]:
    return [_run(method, seed, seconds) for seed in range(seeds) for method, seconds in rows]


def _taken(found: Fitting) -> list[tuple[str, int, str]]:
    return [(str(one.point.request.method), one.point.seed, one.point.request.recipe or "") for one in found.taken]


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("8h", 28800), ("1d12h", 129600), ("1.5h", 5400), ("90 s", 90), ("2min", 120)]
)
def test_a_budget_is_a_time_as_people_write_it(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "-8h", "0h", "8 hours", "8h later"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="45m, 8h or 1d12h are"):
        seconds_of(text)


def test_one_seed_of_everything_comes_before_the_second_of_anything() -> None:
    found = fit(_table(("random", 10), ("dm", 100), ("dc", 50)), TO_MAKE, 275, 1, lambda one: [])
    # 160 s of first seeds, then random (170), dm (270); dc's second would end at 320.
    assert _taken(found) == [("random", 0, ""), ("dm", 0, ""), ("dc", 0, ""), ("random", 1, ""), ("dm", 1, "")]
    assert found.seconds == 270
    assert [(one.point.request.method, one.point.seed) for one in found.too_long] == [("dc", 1)]
    assert found.sentences() == [
        "Budget 4 min 35 s: 5 runs fit, in about 4 min 30 s by their estimates.",
        "Left out: 1 run that do not fit: method dc (seed 1).",
    ]


@pytest.mark.parametrize(
    ("budget", "patience"), [(1, 0.25), (60, 15), (240, 60), (1200, 60), (3600, 180), (86400, 600)]
)
def test_measuring_leaves_most_of_a_short_budget_to_the_runs(budget: float, patience: float) -> None:
    assert patience_of(budget) == patience


def test_what_the_plan_itself_took_is_of_the_budget_no_more() -> None:
    table = _table(("random", 10), ("dm", 40), seeds=1)
    found = fit(table, TO_MAKE, 60, 1, lambda one: [], lambda: 15.0)
    assert _taken(found) == [("random", 0, "")]
    assert found.sentences()[0] == (
        "Budget 1 min 0 s, 15 s spent already: 1 run fit, in about 10 s by their estimates."
    )
    assert len(fit(table, TO_MAKE, 60, 1, lambda one: []).taken) == 2


def test_what_has_no_estimate_is_left_out_and_named() -> None:
    found = fit(_table(("random", 10), ("dm", None)), TO_MAKE, 1000, 1, lambda one: [])
    assert _taken(found) == [("random", 0, ""), ("random", 1, "")]
    assert len(found.unknown) == 2
    assert "2 runs that have no estimate, and nothing is guessed: method dm (seed 0, 1)." in found.sentences()[-1]
    nothing = fit(_table(("random", 400), ("dm", None), ("kcenter", 300)), TO_MAKE, 100, 1, lambda one: [])
    assert nothing.sentences()[-1] == "Nothing can be begun: the shortest takes 5 min 0 s, method kcenter."


def test_rows_are_shortened_by_named_recipes_only_and_only_as_many_as_must_be() -> None:
    def variants(one: PlannedRun) -> list[PlannedRun]:
        seconds = {"dm": 20.0, "datadam": 30.0}.get(str(one.point.request.method))
        return [] if seconds is None else [_run(str(one.point.request.method), one.point.seed, seconds, recipe="brief")]

    table = _table(("random", 10), ("dm", 200), ("datadam", 1000), ("dc", 50))
    found = fit(table, TO_MAKE, 300, 1, variants)  # datadam saves most: 10 + 200 + 30 + 50 fit
    assert _taken(found) == [
        *(("random", 0, ""), ("dm", 0, ""), ("datadam", 0, "brief"), ("dc", 0, "")),
        ("random", 1, ""),
    ]
    assert found.sentences()[1] == ("Shortened: method datadam by its recipe brief, 30 s for 16 min 40 s a seed.")
    enough = fit(table, TO_MAKE, 2600, 1, variants)
    assert not enough.shortened
    assert len(enough.taken) == 8
    # Where even that is not enough, dm is shortened, too; dc has no such recipe.
    least = fit(table, TO_MAKE, 60, 1, variants)
    assert sorted(least.shortened) == ["method datadam", "method dm"]
    assert _taken(least) == [("random", 0, ""), ("dm", 0, "brief"), ("datadam", 0, "brief")]


def test_a_row_that_has_begun_is_not_shortened_and_its_next_seed_waits() -> None:
    table = _table(("random", 10), ("dm", 200), ("dc", 50))
    table[1] = _run("dm", 0, None, "done")

    def variants(one: PlannedRun) -> list[PlannedRun]:
        return [_run(str(one.point.request.method), one.point.seed, 1.0, recipe="brief")]

    found = fit(table, TO_MAKE, 70, 1, variants)
    assert _taken(found) == [("random", 0, ""), ("dc", 0, ""), ("random", 1, "")]
    assert not found.shortened


def test_several_at_once_take_less_time_and_shared_work_is_counted_once() -> None:
    table = _table(("random", 50), ("dm", 50), ("dc", 50), ("dsa", 50), seeds=1)
    assert len(fit(table, TO_MAKE, 100, 1, lambda one: []).taken) == 2
    both = fit(table, TO_MAKE, 100, 2, lambda one: [])
    assert (len(both.taken), both.seconds) == (4, 100)
    work = SharedWork("key", 5, "convnet", "digits", seconds=100.0)
    shared = [replace(one, work=work) for one in _table(("mtt", 10), ("tgdd", 10), seeds=2)]
    found = fit(shared, TO_MAKE, 1000, 1, lambda one: [])
    assert (len(found.taken), found.seconds) == (4, 140)
    work.seconds = None
    assert len(fit(shared, TO_MAKE, 1000, 1, lambda one: []).unknown) == 4


GRID = """
name = "tiny"
[run]
dataset = "digits"
network = "convnet-d1-w4"
eval_repeats = 1
[grid]
method = ["random", {name = "dm", iterations = 2, batch_real = 8}]
seed = {from = 0, to = 1}
"""


def test_a_sweep_takes_what_fits_and_the_same_command_takes_the_rest(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dambench.cli.estimates.measure", lambda requests, patience: [])
    Path("tiny.toml").write_text(GRID)
    assert run_cli(["sweep", "tiny.toml", "--budget", "1h"]) == 0
    said = capsys.readouterr().err
    assert "4 runs that have no estimate, and nothing is guessed: method random (seed 0, 1)" in said
    assert "a longer budget has more time for it" in said
    assert begun == []
    random = ["--dataset", "digits", "--method", "random", "--network", "convnet-d1-w4", "--eval-repeats", "1"]
    assert run_cli(["run", "--headless", *random, "--seed", "7"]) == 0
    plan = printed(capsys, "sweep", "tiny.toml", "--budget", "1h", "--dry-run", "--workers", "1")
    assert plan["budget"][0].startswith("Budget 1 h 0 min: 2 runs fit")
    assert run_cli(["sweep", "tiny.toml", "--budget", "1h"]) == 0
    assert len(begun) == 2
    assert run_cli(["sweep", "tiny.toml", "--budget", "8"]) == 2
    assert run_cli(["sweep", "tiny.toml", "--budget", ""]) == 2
    # Where time is left after what had an estimate, what had none is measured, and made.
    known = MeasuredCost(1.0, None, 0, 0)
    Path("tiny.toml").write_text(GRID.replace("iterations = 2", "iterations = 3").replace("to = 1", "to = 2"))
    monkeypatch.setattr(
        "dambench.cli.estimates.measure", lambda requests, patience: [known] * (len(begun) > 2 and len(requests))
    )
    assert run_cli(["sweep", "tiny.toml", "--budget", "1h"]) == 0
    assert len(begun) == 6
    assert "Time is left: what had no estimate is measured now." in capsys.readouterr().err
    monkeypatch.setattr("dambench.cli.estimates.measure", lambda requests, patience: [])
    # When the time is over, what has not begun is left, and the same command goes on.
    Path("tiny.toml").write_text(GRID)
    assert run_cli(["sweep", "tiny.toml"]) == 0
    Path("tiny.toml").write_text(GRID.replace("to = 1", "to = 4"))
    with monkeypatch.context() as late:

        def slowly(*arguments: Any) -> Fitting:
            found = fit(*arguments)
            late.setattr("dambench.cli.sweep.time.monotonic", lambda: 1e9)
            return found

        late.setattr("dambench.cli.sweep.fit", slowly)
        assert run_cli(["sweep", "tiny.toml", "--budget", "1h"]) == 1
    assert "The budget was over before 5 runs could begin" in capsys.readouterr().err
    assert printed(capsys, "queue", "list")["counts"] == {"dropped": 5, "finished": 8}


def _images(folder: Path, part: str, count: int) -> None:
    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        place = folder / part / name
        place.mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(random.integers(0, 256, (9, 11, 3), dtype=np.uint8))
            image.save(place / f"{number}.png")


def test_the_suite_of_own_images_leaves_out_what_they_are_too_few_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _images(tmp_path / "pets", "train", 4)
    _images(tmp_path / "pets", "test", 2)
    queued = printed(capsys, "suite", "mine", "--data", "pets", "--dry-run")
    assert {run["standing"] for run in queued["runs"]} == {"data not prepared"}
    budget = printed(capsys, "suite", "mine", "--data", "pets", "--dry-run", "--budget", "8h")["budget"]
    assert "Not estimated: 49 runs whose data are not prepared." in budget[-1]
    assert run_cli(["suite", "mine", "--data", "pets", "--queue"]) == 0
    said = capsys.readouterr().err
    assert "note: left out: --ipc 10 is too many: class 'cats' of pets has 4 training images." in said
    assert "25 runs queued" in said
    _images(tmp_path / "flat", "", 5)
    assert run_cli(["suite", "mine", "--data", "flat", "--queue"]) == 2
    said = capsys.readouterr().err
    assert "--set dataset.split=0.2" in said
    assert "[[skip]]" not in said
    assert run_cli(["suite", "mine", "--data", "flat", "--set", "dataset.split=0.2", "--queue"]) == 0
    assert run_cli(["suite", "digits", "--set", "dataset.split=0.2", "--dry-run"]) == 2
    assert "digits has its own data" in capsys.readouterr().err


def test_evaluations_of_a_sweep_fit_its_budget_and_the_same_command_takes_the_rest(
    begun: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dambench.cli.estimates.measure", lambda requests, patience: [])
    grid = GRID.replace(', {name = "dm", iterations = 2, batch_real = 8}', "")
    Path("tiny.toml").write_text(grid.replace("to = 1", "to = 0"))
    assert run_cli(["sweep", "tiny.toml"]) == 0
    Path("tiny.toml").write_text('evaluators = [{name = "continual", steps = 2, orders = 1}]' + grid)

    def made() -> tuple[list[str], str]:
        begun.clear()
        capsys.readouterr()
        assert run_cli(["sweep", "tiny.toml", "--budget", "1h", "--workers", "1"]) == 0
        return [words[0] for words in begun], capsys.readouterr().err

    commands, said = made()
    assert commands == ["run"]
    assert "Left out: 2 evaluations that do not fit after the runs, or have no estimate." in said
    monkeypatch.setattr("dambench.cli.measuring._past_seconds", lambda store, job: 2000.0)
    commands, said = made()  # 4000 seconds are more than an hour
    assert commands == ["evaluate"]
    assert "Left out: 1 evaluation that" in said
    commands, said = made()
    assert commands == ["evaluate"]
    assert "Left out" not in said
    assert made()[0] == []
