"""`dambench published`."""

import pytest

from dambench.cli.app import run_cli
from tests.cli.lab import printed


def test_the_figures_of_a_method_are_listed_with_their_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["published", "DM", "--dataset", "MNIST"]) == 0
    out = capsys.readouterr()
    assert "97.5 ± 0.1 %" in out.out
    assert "recalled, not checked" in out.out
    assert out.err.startswith("3 figures, 3 of them recalled")


def test_json_has_all_that_is_known_of_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    facts = printed(capsys, "published", "frepo", "--dataset", "cifar100")
    assert {fact["name"] for fact in facts} == {"FRePo"}
    assert {
        "value",
        "std",
        "n",
        "paper",
        "table",
        "where",
        "protocol",
        "network",
        "labels",
        "selection",
        "recalled",
    } <= {*facts[0]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nobody"], "No method with published figures"), (["--dataset", "nowhere"], "No dataset with published figures")],
)
def test_who_is_not_known_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["published", *arguments]) == 2
    assert words in capsys.readouterr().err
