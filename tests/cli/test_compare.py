import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.cli.app import run_cli
from dambench.store.runs import Store
from tests.ledger import add, config, other_data, stopped

GOOD, POOR = (0.90, 0.92, 0.91), (0.60, 0.63, 0.61)


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Store]:
    """Three seeds of `dm`, which is good, and `random`, which is poor; one of `dc`; the whole set."""
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for seed in range(3):
            add(store, config("random", seed=seed), [POOR[seed]] * 2)
            add(store, config("dm", seed=seed), [GOOD[seed], GOOD[seed] + 0.01])
        add(store, config("dc"), [0.8, 0.8])
        add(store, config("whole"), [0.99, 0.98, 0.985])
        yield store


def _compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(["compare", *arguments]) == 0
    return capsys.readouterr().out


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_compare(capsys, *arguments, "--json"))
    return found


def test_two_rows_that_are_apart_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    text = _compare(capsys, "dm", "random")
    # Differences of set means: 30.5, 29.5 and 30.5 points, of mean 30.167 and standard deviation 0.577.
    assert "dm is 30.2 points above random (95 % interval +28.7 to +31.6, paired over 3 seeds, p < 0.001)." in text
    assert "digits IPC 1, protocol quick#3528, trained network convnet-d1-w8" in text
    assert "10 test images, so that one is worth 10 points." in text
    assert "random is 30.2 points below dm" in _compare(capsys, "random", "dm")


def test_two_rows_that_cannot_be_told_apart_are_said_not_to_be(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, accuracy in enumerate((0.93, 0.90, 0.92)):
        add(store, config("dsa", seed=seed), [accuracy, accuracy])
    text = _compare(capsys, "dsa", "dm")
    assert "dsa and dm cannot be told apart: +0.2 points (95 % interval " in text
    assert "To tell dsa from dm would take " in text
    (place,) = _json(capsys, "dsa", "dm")
    (one,) = place["comparisons"]
    assert not one["told_apart"]
    assert one["interval"][0] < 0 < one["interval"][1]


def test_of_fewer_than_three_sets_nothing_is_claimed_and_the_command_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = _compare(capsys, "dc", "random")
    assert "No claim: the mean of dc is 20.0 points above that of random over seed 0, but dc has 1 set" in text
    (place,) = _json(capsys, "dc", "random")
    (one,) = place["comparisons"]
    assert (one["p"], one["interval"], one["design"], one["told_apart"]) == (None, None, None, False)
    dc, random = place["rows"]
    assert (dc["more_seeds"], random["more_seeds"], random["command"]) == ([1, 2], [], None)
    assert dc["command"] in text
    words = shlex.split(dc["command"])
    assert words[:2] == ["dambench", "run"]
    assert words[words.index("--method") + 1] == "dc"
    assert words[words.index("--seeds") + 1] == "1-2"
    assert words[words.index("--evaluate-on") + 1] == "convnet-d1-w8"


def test_more_than_two_are_compared_with_the_first_by_holm(capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = _json(capsys, "random", "dm", "whole")
    assert [(one["a"], one["b"]) for one in place["comparisons"]] == [("random", "dm"), ("random", "whole")]
    ps = [one["p"] for one in place["comparisons"]]
    smaller, larger = sorted(ps)
    corrected = {smaller: min(1, 2 * smaller), larger: max(2 * smaller, larger)}
    assert [one["p_holm"] for one in place["comparisons"]] == [pytest.approx(corrected[p]) for p in ps]
    assert [one["design"] for one in place["comparisons"]] == ["paired", "Welch"]
    assert _compare(capsys, "random", "dm", "whole").count(" by Holm)") == 2


def test_all_are_compared_with_the_best_if_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = _json(capsys, "random", "dm", "whole", "--best")
    assert {one["a"] for one in place["comparisons"]} == {"whole"}
    (place,) = _json(capsys, "random", "dm", "--best", "--metric", "loss")
    assert place["metric"] == "accuracy.loss"


def test_two_runs_are_two_sets_and_no_methods(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first = add(store, config("dm", ipc=7), [0.90, 0.92, 0.91, 0.90])
    second = add(store, config("dm", ipc=7, seed=1), [0.80, 0.82, 0.81, 0.80])
    text = _compare(capsys, first, second)
    assert f"dm, run {first} is 10.0 points above dm, run {second} (95 % interval " in text
    assert "Welch's test, 4 networks against 4 networks" in text
    assert "This is about these sets, not the methods." in text
    assert "dambench run" not in text


def test_a_run_that_was_repeated_is_compared_with_the_one_that_counts_now(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    old = add(store, config("dm", ipc=7), [0.5, 0.5, 0.6])
    new = add(store, config("dm", ipc=7), [0.9, 0.9, 0.8])
    (place,) = _json(capsys, old, new)
    assert [row["runs"] for row in place["rows"]] == [[old], [new]]
    assert place["comparisons"][0]["difference"] == pytest.approx(-1 / 3)


def test_filters_are_compared_with_each_other(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = _json(capsys, "method:dm seed:0", "method:dm -seed:0")
    assert [row["sets"] for row in place["rows"]] == [1, 2]
    assert place["rows"][0]["name"] == "method:dm seed:0"


def test_each_place_is_compared_for_itself(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("dm", "random"):
        for seed in range(3):
            add(store, config(method, ipc=10, seed=seed), [0.5, 0.5])
    places = _json(capsys, "dm", "random")
    assert [(place["dataset"], place["ipc"]) for place in places] == [("digits", 1), ("digits", 10)]
    (place,) = _json(capsys, "dm", "random", "--filter", "ipc:10")
    assert place["comparisons"][0]["reason"] == "nothing varies, so chance cannot be judged"
    assert [place["ipc"] for place in _json(capsys, "whole", "dm")] == [1, 10]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dm"], "name two rows, runs or filters to compare, such as `dambench compare dm random`"),
        (["dm", "DM"], "'dm' is meant twice, at digits IPC 1"),
        (["dm", "mtt"], "'mtt' is neither a row nor a run, and no filter such as 'method:dm ipc:10'. Rows: dc, dm,"),
        (["dm", ""], "is an empty text"),
        (["dm", "method:mtt"], "The filter 'method:mtt' means no finished run with accuracy.accuracy."),
        (["dm", "colour:red"], "No field is called 'colour'"),
        (["dm", "accuracy>50"], "would choose runs by the test set"),
        (["dm", "dataset:digits"], "'dataset:digits' means 4 rows of digits IPC 1"),
        (["dm", "random", "--metric", "speed"], "No metric is called 'speed'"),
        (["dm", "random", "--db", "none.db"], "There is no database 'none.db' yet"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert run_cli(["compare", *arguments]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""


def test_sides_that_share_runs_are_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = add(store, config("dm", ipc=7), [0.9, 0.8, 0.7])
    for seed in (1, 2, 3):
        add(store, config("dm", ipc=7, seed=seed), [0.5, 0.6, 0.7])
    for other in (run, "method:dm seed<=2"):
        assert run_cli(["compare", "dm", other, "--filter", "ipc:7"]) == 2
        printed = capsys.readouterr()
        assert f"'dm' and '{f'dm, run {run}' if other == run else other}' share " in printed.err
        assert "name two that have none in common" in printed.err
        assert printed.out == ""


def test_equal_means_are_said_to_be_equal(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        add(store, config("dsa", seed=seed), [GOOD[seed], GOOD[seed] + 0.01])
    sentence = "No claim: the mean of dsa is equal to that of dm over seeds 0-2, but nothing varies"
    assert sentence in _compare(capsys, "dsa", "dm")


def test_rows_without_a_place_in_common_are_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store, config("mtt"), [0.9], card=other_data("e", "flowers"))
    run = add(store, config("dsa"), end=stopped())
    assert run_cli(["compare", "dm", "mtt"]) == 2
    assert "in common, so there is nothing to compare. dm: digits IPC 1, quick#3528, convnet-d1-w8; mtt: flowers" in (
        capsys.readouterr().err
    )
    assert run_cli(["compare", "dm", run]) == 2
    assert f"The run {run} is stopped: only finished runs with scores are compared." in capsys.readouterr().err


def test_names_from_elsewhere_are_harmless(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.db.conn.execute("update runs set dataset = ?", ["x\x1b[2J\u202e<b>"])
    text = _compare(capsys, "dm", "random")
    assert "\x1b" not in text
    assert "\u202e" not in text
