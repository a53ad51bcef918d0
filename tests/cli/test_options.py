import io
import json
import re
from typing import Annotated, Any

import pytest
import typer

from dambench import datasets
from dambench.cli.app import run_cli
from dambench.cli.arguments import Commands
from dambench.cli.options import request_options
from dambench.core.config import Choice, Count, Request, option, options, read

FIELDS = {
    "--method dmm": "method",
    "--dataset digit": "dataset",
    "--ipc x": "ipc",
    "--ipc 500": "ipc",
    "--set method.lr_images=-1": "method.lr_images",
    "--set method.rate=1": "method.rate",
    "--iterations 0": "iterations",
    "--set dataset.size=1": "dataset.size",
    "--dataset folder": "data",
    "--dataset arrays --data none.npz": "data",
    "--network convnet-d9": "network",
    "--network convnett": "network",
    "--evaluate-on convnet,convnet": "evaluate_on",
    "--evaluate-on pool-x": "evaluate_on",
    "--protocol quik": "protocol",
    "--recipe x": "recipe",
    "--device cuda:99": "device",
    "--precision fp8": "precision",
    "--compile maybe": "compile",
    "--preprocessing pca": "preprocessing",
    "--seeds 4-": "seeds",
    "--seed 1 --seeds 1-2": "seeds",
    "--threads -1": "threads",
    "--db no/such/folder/runs.db": "",
}
"""What the form marks, by what is wrong."""


def test_what_is_wrong_with_a_request_names_its_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets.prepare(Choice("digits"), None, print)
    usual = {"--method": "dm", "--dataset": "digits"}
    lines = [[*(f"{k}={v}" for k, v in usual.items() if k not in words), *words.split()] for words in FIELDS]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    capsys.readouterr()
    assert run_cli(["checks"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(answer["error"] for answer in answers)
    assert dict(zip(FIELDS, (answer["field"] for answer in answers), strict=True)) == FIELDS


def test_a_new_option_is_a_field_of_the_request_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Extended(Request, frozen=True):
        warmup: Annotated[Count | None, option("Warm-up", "Iterations before the first step", default="0")] = None

    stated = options(Extended)
    monkeypatch.setattr("dambench.core.config.options", lambda: stated)
    values = {}

    @request_options()
    def begin(given: dict[str, Any]) -> None:
        values.update(given)

    program = Commands(rich_markup_mode=None)
    program.command()(begin)
    typer.main.get_command(program)(["--warmup", "3"], standalone_mode=False)
    assert values["warmup"] == 3
    assert read(Extended, {"warmup": 3}, "the request").warmup == 3
    typer.main.get_command(program)(["--help"], standalone_mode=False)
    assert "Iterations before the first step [default: 0]." in " ".join(capsys.readouterr().out.split())


FLAGS = (
    "--again --check --checkpoint-every --compile --data --dataset --db --detach --deterministic --device --dry-run "
    "--eval-repeats --evaluate-every --evaluate-on --hard-twin --headless --help --hook --ipc --iterations --json "
    "--method --name --network --no-deterministic --precision --preprocessing --protocol --ranks --recipe --seed "
    "--seeds --set --tag --threads --workers"
)


def test_run_has_the_flags_that_it_always_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "--help"]) == 0
    assert sorted(set(re.findall(r"(?<=\s)--[a-z-]+", capsys.readouterr().out))) == FLAGS.split()
