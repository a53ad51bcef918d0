"""The record of how our own recipes were chosen, and what the recipes say of it."""

import pytest

from benchmarks.tuning import SEARCHES, listed, read, show
from dambench.core import registry
from dambench.core.config import CHECKED, Recipe
from dambench.store.tuning import Trial, lead

RECORD = read()


def _recipe(method: str, name: str, dataset: str) -> Recipe:
    return next(
        recipe for recipe in registry.load("methods", method).RECIPES if recipe.name == name and recipe.fits(dataset, 1)
    )


def test_each_line_is_a_search_of_the_script_on_validation_images() -> None:
    by_name = {search.name: search for search in SEARCHES}
    assert len({record["search"] for record in RECORD}) == len(RECORD)
    for record in RECORD:
        search = by_name[record["search"]]
        assert (record["method"], record["dataset"], record["protocol"]) == (
            search.method,
            search.dataset,
            search.protocol,
        )
        assert record["protocol"].startswith("fair")
        assert "accuracy" not in {key for trial in record["trials"] for key in trial} - {"validation_accuracy"}


@pytest.mark.parametrize("record", RECORD, ids=[record["search"] for record in RECORD])
def test_a_recipe_has_what_its_search_kept_and_nothing_is_clearly_better(record: dict[str, object]) -> None:
    recipe = _recipe(str(record["method"]), str(record["recipe"]), str(record["dataset"]))
    options = registry.load("methods", str(record["method"])).Options(**recipe.options)
    keeps: dict[str, float] = record["keeps"]  # type: ignore[assignment]
    assert {name: getattr(options, name.removeprefix("method.")) for name in keeps} == keeps
    trials = []
    for one in record["trials"]:  # type: ignore[attr-defined]
        seeds = {int(seed): value for seed, value in one["validation_accuracy"].items()}
        trials.append(Trial(str(record["method"]), one["settings"], dict.fromkeys(seeds, "a run"), seeds))
    kept = next(trial for trial in trials if trial.point == keeps)
    for trial in trials:
        if trial is not kept and trial.complete:
            over = lead([kept, trial], trial)
            assert over is not None
            assert not over.clear, f"{trial.point} is clearly better"


def test_recipes_of_our_own_say_whether_there_is_a_search_for_them() -> None:
    searched = {(record["method"], record["recipe"], record["dataset"]) for record in RECORD}
    for name in registry.names("methods"):
        for recipe in registry.load("methods", name).RECIPES:
            if recipe.source.startswith("ours"):
                checked = any((name, recipe.name, dataset) in searched for dataset in recipe.datasets)
                assert checked == recipe.source.endswith(CHECKED), (name, recipe.source)


def test_each_search_is_listed_once_with_whether_it_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    listed(RECORD)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "method." in line}
    assert lines.keys() == {search.name for search in SEARCHES}
    made = {record["search"] for record in RECORD}
    assert all(("to do" in line) == (name not in made) for name, line in lines.items())


def test_the_record_is_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show(RECORD)
    assert "kept" in capsys.readouterr().out
