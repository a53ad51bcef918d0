"""docs/today.md: differences by seed, and what is not run or not enough is said."""

from pathlib import Path

import pytest

from benchmarks.today import PLACES, Question, Row, accuracy, answer, page
from dambench.core import sweep

DM, DSDM = Row("dm", "quick"), Row("dsdm (factor 1)", "quick")
QUESTION = Question("DSDM over DM", DSDM, DM)


def test_a_difference_is_paired_by_seed_with_students_interval() -> None:
    sets = {DM: {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.1}, DSDM: {0: 0.61, 1: 0.70, 2: 0.79}}
    _, ours, theirs, difference, seeds, verdict = answer(QUESTION, sets)
    assert (ours, theirs) == ("70.0 ± 22.4", "47.5 ± 41.8")
    assert (difference, seeds, verdict) == ("+10.0 ± 2.5", "3", "told apart")  # t(2) 4.3027 · 1 / √3 = 2.48
    flat = {DM: {0: 0.5, 1: 0.6, 2: 0.7}, DSDM: {0: 0.4, 1: 0.6, 2: 0.8}}
    assert answer(QUESTION, flat)[3:] == ["+0.0 ± 24.8", "3", "not told apart"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({DM: {0: 0.5}}, ["–", "0", "not run"]),
        ({DM: {0: 0.5}, DSDM: {1: 0.6}}, ["–", "0", "not run"]),
        ({DM: {0: 0.5}, DSDM: {0: 0.6}}, ["+10.0", "1", "too few seeds"]),
        ({DM: {0: 0.5, 1: 0.5}, DSDM: {0: 0.6, 1: 0.7}}, ["+15.0", "2", "too few seeds"]),
    ],
)
def test_fewer_than_three_seeds_decide_nothing(sets: dict[Row, dict[int, float]], said: list[str]) -> None:
    assert answer(QUESTION, sets)[3:] == said


def test_one_set_has_no_interval() -> None:
    assert accuracy({}) == "–"
    assert accuracy({4: 0.9}) == "90.0"


def test_every_row_of_a_question_is_a_run_of_a_suite_and_stands_on_the_page() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "today.md").read_text()
    made = "\n".join(page({}))
    assert text.startswith(made[: made.index("\n### ")])
    for place, suite in zip(PLACES, ("today-digits", "today"), strict=True):
        methods = {point.request.choice("method").name for point in sweep.suite(suite).points}
        asked = {row for some in place.questions.values() for one in some for row in (one.row, one.over)}
        assert {row.method.partition(" ")[0] for row in asked} <= methods
        part = text[text.index(f"## {place.title}\n") :].partition("\n## ")[0]
        assert place.what in part
        for title, questions in place.questions.items():
            assert f"### {title}" in part
            assert all(f"\n| {question.what} " in part for question in questions)
        assert "not run" not in part or place.dataset == "mnist", "which is as far as there was time"
