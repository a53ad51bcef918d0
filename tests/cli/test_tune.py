"""`dambench tune`: settings chosen by validation images alone."""

import json
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import replace

from dambench.cli.app import run_cli
from dambench.core.protocol import PRESETS, Budget, Protocol
from tests.cli.lab import printed

SMALL = [
    *("tune", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "1", "--device", "cpu"),
    *("--iterations", "3"),
]
DM = [*SMALL, "--seeds", "0-1", "--method", "dm", "--set", "method.batch_real=8", "--grid", "method.lr_images=0.1,1"]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(name: str) -> Protocol:
        return replace(PRESETS[name], synthetic=Budget(epochs=1), whole=Budget(epochs=1))

    monkeypatch.setattr("dambench.engine.settle.preset", few)


def test_a_grid_is_run_and_chosen_by_validation_and_again_computes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = printed(capsys, *DM, "-o", str(tmp_path / "chosen"))
    assert result["objective"] == "validation_accuracy"
    assert [trial["settings"] for trial in result["trials"]] == [{"method.lr_images": 0.1}, {"method.lr_images": 1}]
    runs = [run for trial in result["trials"] for run in trial["runs"]]
    assert len(set(runs)) == 4
    for trial in result["trials"]:
        for run, accuracy in zip(trial["runs"], trial["validation_accuracy"].values(), strict=True):
            (score,) = printed(capsys, "show", run)["scores"]
            assert accuracy == score["validation_accuracy"]
    best = max(result["trials"], key=lambda trial: trial["mean"])
    assert [trial["chosen"] for trial in result["trials"]] == [trial is best for trial in result["trials"]]
    assert printed(capsys, *DM) == result, "all of it is there already"
    assert len(printed(capsys, "runs")) == 4
    chosen = tomllib.loads((tmp_path / "chosen" / "dm.toml").read_text())
    assert chosen["method"] == {"name": "dm", "batch_real": 8, **_option(best)}
    assert chosen["protocol"] == "fair-quick"
    again = printed(capsys, "run", str(tmp_path / "chosen" / "dm.toml"), "--headless", "--device", "cpu")
    assert again["run"] not in runs, "a run that was made to choose is no evidence, and is made anew"
    assert "existing" not in again


def _option(trial: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name.removeprefix("method."): value for name, value in trial["settings"].items()}


def test_no_report_counts_its_runs_unless_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, *SMALL, "--method", "random", "--seeds", "0")
    assert run_cli(["report"]) == 0
    assert "No finished runs yet" in capsys.readouterr().out
    assert run_cli(["report", "--filter", "purpose:tuning"]) == 0
    assert "random" in capsys.readouterr().out


def test_nothing_of_the_test_set_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*SMALL, "--method", "random", "--seeds", "0"]) == 0
    shown = capsys.readouterr()
    (run,) = {row["id"] for row in printed(capsys, "runs") if row["method"] == "random" and row["seed"] == 0}
    (score,) = printed(capsys, "show", run)["scores"]
    assert f"validation {100 * score['validation_accuracy']:.2f} %" in shown.err
    assert f"accuracy {100 * score['accuracy']:.2f} %" not in shown.err
    assert f"{100 * score['accuracy']:.2f}" not in shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "dm", "--objective", "accuracy"], "the test set may choose nothing"),
        (["--method", "dm", "--protocol", "quick"], "holds none out"),
        (["--arms", "dm,random", "--grid", "method.lr_images=1,2"], "The arm random with lr_images 1"),
        (["--arms", "dm,dm"], "each must be there once"),
        (["--method", "dm", "--grid", "ipc=1,10"], "not a setting to be chosen"),
        (["--arms", "dm", "--grid", "method.batch_real=8,9", "--seeds", "0-900"], "at most 1000"),
    ],
)
def test_what_cannot_be_tuned_is_one_sentence_and_leaves_no_database(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["tune", "--dataset", "digits", "--device", "cpu", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.removeprefix("Preparing digits: this is done once.\n").count("\n") == 1
    assert not shown.out
    assert not Path("runs.db").exists()


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*SMALL, "--method", "random", "--seeds", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]["random"]["method"]["name"] == "random"
