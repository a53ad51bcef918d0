"""`dambench tune` over fields of protocols: how a network is trained is chosen by validation images, too."""

import tomllib
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from tests.cli.lab import printed

SMALL = [
    *("tune", "--method", "dm", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "1"),
    *("--device", "cpu", "--iterations", "2", "--seeds", "0-1", "--set", "protocol.synthetic.epochs=2"),
]


def test_fields_of_a_protocol_are_chosen_and_each_set_is_made_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tuned = [*SMALL, "--grid", "protocol.lr=1e-9,0.1"]
    result = printed(capsys, *tuned, "-o", str(tmp_path))
    low, high = result["trials"]
    assert [trial["settings"] for trial in (low, high)] == [{"protocol.lr": 1e-9}, {"protocol.lr": 0.1}]
    runs = [[printed(capsys, "show", run)["run"] for run in trial["runs"]] for trial in (low, high)]
    names = [run["protocol"].partition("#")[0] for trial in runs for run in trial]
    assert names == ["fair-quick+synthetic.epochs=2+lr=1e-09"] * 2 + ["fair-quick+synthetic.epochs=2+lr=0.1"] * 2
    assert [run["set_sha256"] for run in runs[0]] == [run["set_sha256"] for run in runs[1]]
    assert len({run["set_sha256"] for run in runs[0]}) == 2, "one of each seed"
    assert low["validation_accuracy"] != high["validation_accuracy"]
    assert printed(capsys, *tuned) == result, "all of it is there already"
    chosen = tomllib.loads((tmp_path / "dm.toml").read_text())
    assert chosen["protocol"] in names


def test_a_field_is_tuned_under_protocols_that_hold_images_out_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*SMALL, "--protocol", "quick", "--grid", "protocol.lr=0.02,0.1"]) == 2
    assert "the protocol quick+synthetic.epochs=2+lr=0.02 holds none out" in capsys.readouterr().err
    assert run_cli([*SMALL, "--grid", "protocol.rate=0.01,0.1"]) == 2
    assert "No field is called 'rate'" in capsys.readouterr().err
