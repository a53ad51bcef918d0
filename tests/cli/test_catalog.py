import pytest

from dambench.cli.app import run_cli
from tests.cli.lab import printed


def test_methods_name_the_recipes_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["methods"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("datadam")]
    assert line.endswith("paper (any), seed (mnist, mhist), brief (mnist, fashionmnist, folder, arrays)")


def test_methods_tell_their_options_as_json_schema_and_their_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    found = {entry["name"]: entry for entry in printed(capsys, "methods")}
    assert {"dm", "random", "whole"} <= set(found)
    schema = found["dm"]["options"]
    options = schema["$defs"]["Options"]["properties"]
    assert options["iterations"] == {
        "description": "updates of the synthetic images",
        "type": "integer",
        "minimum": 1,
        "maximum": 10**9,
        "default": 20_000,
    }
    assert found["dm"]["paper"].startswith("https://")
    assert all(recipe["source"] for recipe in found["dm"]["recipes"])


@pytest.mark.parametrize("command", [["methods"], ["networks"], ["protocols"], ["data", "list"], ["doctor"]])
def test_every_list_can_be_read_by_people_and_programs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(command) == 0
    assert capsys.readouterr().out.strip()
    assert printed(capsys, *command)


def test_networks_are_listed_with_the_parts_of_their_names_and_the_pools(capsys: pytest.CaptureFixture[str]) -> None:
    found = {entry["name"]: entry for entry in printed(capsys, "networks")}
    assert found["resnet"]["parts"] == {"depth": "18|34|50", "norm": "in|bn|ln|gn|nn", "halving": "sc|ap"}
    assert found["vit"]["parts"]["patch"] == "pN"
    assert found["pool-w"]["members"] == ["convnet-w32", "convnet-w64", "convnet-w128", "convnet-w256"]
    assert run_cli(["networks"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in found)
