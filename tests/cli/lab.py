"""What the tests of the command line share."""

import json
from typing import Any

import pytest

from dambench.cli.app import run_cli

SMALL = [
    *("run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2"),
    *("--device", "cpu", "--set", "method.batch_real=8", "--iterations", "3"),
]

DM = [*SMALL, "--method", "dm"]

BARE = ["run", "--headless", "--dataset", "digits", "--method", "dm"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints with `--json`."""
    capsys.readouterr()
    assert run_cli([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
