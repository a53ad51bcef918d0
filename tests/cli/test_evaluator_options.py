"""Options of evaluators in reports: what is measured by others is told apart, and asked for again by commands."""

import json

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.protocol import PRESETS, Budget
from dambench.store.measured import USUAL
from tests.cli.lab import SMALL, printed

FEW = msgspec.structs.replace(PRESETS["quick"], synthetic=Budget(epochs=2), whole=Budget(epochs=1))


def test_what_is_measured_by_other_options_is_in_a_table_of_its_own_and_missing_rows_are_asked_for_by_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: FEW)
    first, second = (printed(capsys, *SMALL[:-4], "--method", method)["run"] for method in ("random", "whole"))
    for run, options in ((first, ["--set", "evaluator.steps=3", "--set", "evaluator.reach=[50, 60]"]), (second, [])):
        assert run_cli(["evaluate", run, "--evaluator", "time", "--eval-repeats", "1", *options]) == 0
    capsys.readouterr()
    assert run_cli(["report", "--sections", "measured"]) == 0
    parts = {part.split("\n")[0]: part for part in capsys.readouterr().out.split("## ") if part.startswith("Time")}
    (given,) = [part for title, part in parts.items() if title.endswith(r", reach \[50, 60\], steps 3")]
    assert "whole |" not in given
    assert f"evaluate {second} --evaluator time --set 'evaluator.reach=[50, 60]' --set evaluator.steps=3" in given
    (usual,) = [part for part in parts.values() if part != given]
    assert "random |" not in usual


def test_usual_options_are_those_that_evaluators_have() -> None:
    for name, options in USUAL.items():
        assert json.loads(msgspec.json.encode(registry.load("evaluators", name).Options())) == options, name
