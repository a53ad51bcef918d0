"""Evaluations whose process is killed, or interrupted by Ctrl+C, in the middle: the same command ends as one that ran
undisturbed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.store.runs import Store
from tests.cli.lab import printed

RUN = ["run", "--headless", "--dataset", "digits", "--method", "random", "--eval-repeats", "1", "--device", "cpu"]

NAS = ["networks=6", "max_width=32", "epochs=3", "reference_epochs=1", "reference_images=100"]
ROBUSTNESS = ["linf=[8]", "l2=[0.5]", "steps=3", "queries=5", 'transfer_from=["mlp-d1-w8"]']
PRIVACY = ["halves=4"]


class Lab:
    """A database and a home of its own, and the real program."""

    def __init__(self, folder: Path):
        self.path, self.home = folder / "real.db", folder / "real home"
        self._environ = os.environ | {"DAMBENCH_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def _child(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "dambench", *words, "--db", str(self.path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environ)

    def answer(self, *words: str) -> dict[str, Any]:
        with self._child(*words, "--json") as child:
            out, said = child.communicate()
        assert child.returncode == 0, said
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def interrupted(self, words: list[str], at: str, number: int) -> int:
        """Send a signal when something is said, which is never all. Returns the exit code."""
        with self._child(*words) as child:
            assert child.stderr is not None
            for line in child.stderr:
                if at in line:
                    child.send_signal(number)
                    break
            else:
                raise AssertionError(f"{at!r} was never said")
            child.stderr.read()
        return child.returncode

    def measured(self, run: str) -> dict[tuple[str, int, str], Any]:
        """What a run has measured, but for seconds."""
        with closing(Store.open(self.path)) as store:
            rows = store.query(
                "select subject, repeat, metric, value, state from measurements where run = "
                "(select number from runs where id = ?)",
                run,
            )
        values = {
            (row["subject"], row["repeat"], row["metric"]): (row["value"], row["state"])
            for row in rows
            if not row["metric"].endswith(("seconds", "speedup"))
        }
        assert values
        return values

    def attempts(self, run: str) -> int:
        with closing(Store.open(self.path)) as store:
            return int(store.query("select attempt from runs where id = ?", run)[0]["attempt"])


def _words(run: str, evaluator: str, options: list[str], *more: str) -> list[str]:
    return [
        "evaluate",
        run,
        "--evaluator",
        evaluator,
        *more,
        *(w for o in options for w in ("--set", f"evaluator.{o}")),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    ("evaluator", "options", "more", "at"),
    [
        ("robustness", ROBUSTNESS, ["--eval-repeats", "4"], "#1: clean"),
        ("continual", ["orders=2"], [], "step 3/5 #0: "),
        ("nas", NAS, ["--protocol", "fair-quick"], "reference_accuracy"),
        ("privacy", PRIVACY, [], "halves #1: "),
    ],
)
def test_an_evaluation_that_is_ended_in_the_middle_ends_as_one_that_never_was(
    evaluator: str, options: list[str], more: list[str], at: str, number: int, tmp_path: Path
) -> None:
    lab = Lab(tmp_path)
    made = lab.answer(*RUN, *(more if evaluator == "nas" else []))
    words = _words(made["run"], evaluator, options, *more)
    assert lab.interrupted(words, at, number) == (-number if number == signal.SIGKILL else 130)
    resumed = lab.answer(*words)
    assert lab.attempts(resumed["run"]) == 2, "the run that was ended goes on"
    shutil.rmtree(lab.home / "nas", ignore_errors=True)  # else the other would find everything there
    fresh = lab.answer(*words, "--again")
    assert resumed["run"] != fresh["run"]
    assert lab.measured(resumed["run"]) == lab.measured(fresh["run"])


@pytest.mark.slow
def test_a_nas_that_is_killed_goes_on_with_the_networks_that_are_left(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    made = lab.answer(*RUN, "--protocol", "fair-quick")
    words = _words(made["run"], "nas", NAS)
    assert lab.interrupted(words, "reference_accuracy", signal.SIGKILL) == -signal.SIGKILL
    files = [path for path in (lab.home / "nas").rglob("*") if path.is_file() and not path.name.startswith(".")]
    kept = {path: path.stat().st_mtime_ns for path in files}
    assert kept
    resumed = lab.answer(*words)
    assert lab.attempts(resumed["run"]) == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was trained is not trained again"
    ranked = {subject for subject, _, metric in lab.measured(resumed["run"]) if metric == "tau_b"}
    assert ranked == {"set", "random", "early", "ceiling"}


def test_a_continual_evaluation_whose_process_is_killed_goes_on_with_the_steps_that_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path)
    monkeypatch.setenv("DAMBENCH_HOME", str(lab.home))
    database = ["--db", str(lab.path)]
    small = ["--network", "convnet-d1-w4"]
    made = printed(capsys, *RUN, *small, *database)
    words = _words(made["run"], "continual", ["orders=1"])
    assert lab.interrupted(words, "step 2/5 #0: ", signal.SIGKILL) == -signal.SIGKILL
    with closing(Store.open(lab.path)) as store:
        before = store.query("select subject, seconds from evaluations where evaluator = 'continual'")
    assert 2 <= len(before) < 6
    resumed = printed(capsys, *words, *database)
    assert lab.attempts(resumed["run"]) == 2
    with closing(Store.open(lab.path)) as store:
        after = store.query("select subject, seconds from evaluations where evaluator = 'continual'")
    assert all(row in after for row in before), "what was measured is not measured again"
    assert len(after) == 6
    found = lab.measured(resumed["run"])
    assert found["convnet-d1-w4", 0, "accuracy_final"] == found["convnet-d1-w4 step 5/5", 0, "accuracy_seen"]
