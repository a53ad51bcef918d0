import json
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import config, files, registry
from dambench.methods import dm
from dambench.tui.models import catalogue, request
from dambench.tui.models.catalogue import CatalogueEntry, OptionSchema, OptionsSchema
from dambench.tui.models.request import arguments, command, from_toml, of_run, to_toml
from tests.ledger import CARD, run_row

FOUND: dict[str, list[dict[str, Any]]] = {
    "methods": [{"name": "dm", "options": msgspec.json.schema(dm.Options), "recipes": [{"name": "default"}] * 2}],
    "networks": [{"name": "convnet"}],
    "datasets": [{"name": "digits", "source": "package"}],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _answering(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """List what this thread asks: one that a console of an earlier test left behind may still ask, too."""
    asked: list[list[str]] = []
    here = threading.get_ident()

    def ask(said: list[str]) -> list[CatalogueEntry]:
        if threading.get_ident() == here:
            asked.append(said)
        return msgspec.convert(FOUND["datasets" if said[0] == "data" else said[0]], list[CatalogueEntry])

    monkeypatch.setattr(catalogue, "_ask", ask)
    return asked


def test_children_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _answering(monkeypatch)
    first, second = catalogue.load(), catalogue.load()
    assert asked == [["methods"], ["networks"], ["data", "list"]]
    assert first == second
    assert first.methods == {"dm": msgspec.convert(FOUND["methods"][0], CatalogueEntry)}
    assert not first.trouble
    assert first.recipes("dm") == ["default"]
    assert list(first.options("method", "dm"))[:2] == ["iterations", "lr_images"]
    assert first.options("method", "nobody") == {}


def test_another_dambench_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _answering(monkeypatch)
    catalogue.load()
    monkeypatch.setattr(catalogue, "__version__", "99")
    catalogue.load()
    assert len(asked) == 6


def test_a_package_that_adds_methods_is_another_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    before = catalogue.installed()
    assert catalogue.installed() == before

    class Added:
        name, value, dist = "mine", "mine.module", None

    monkeypatch.setattr(registry, "entry_points", lambda group: [Added()] if group == "dambench.methods" else [])
    assert catalogue.installed() != before


def test_a_method_of_ours_that_is_changed_is_another_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "core" / "registry.py", tmp_path / "methods" / "dm.py"):
        files.write_whole(path, b"")
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "core" / "registry.py"))
    before = catalogue.installed()
    os.utime(tmp_path / "methods" / "dm.py", ns=(0, 0))
    assert catalogue.installed() != before


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"installed": 1}', b"\xff"])
def test_a_broken_cache_is_made_anew(kept: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _answering(monkeypatch)
    files.write_whole(catalogue.path(), kept)
    assert catalogue.load().networks == {"convnet": CatalogueEntry("convnet")}
    assert len(asked) == 3


def test_where_the_child_fails_names_are_known_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.COMMANDS, "methods", ["data", "nonsense"])
    found = catalogue.load()
    assert "dm" in found.methods
    assert found.options("method", "dm") == {}
    assert "`dambench data nonsense` ended with 2" in found.trouble
    assert "No such command" in found.trouble
    assert not catalogue.path().exists()


def test_what_a_command_prints_is_understood() -> None:
    assert [entry.name for entry in catalogue._ask(["protocols"])] == list(catalogue.names().protocols)


def test_options_are_told_in_words() -> None:
    known = msgspec.convert(msgspec.json.schema(dm.Options), OptionsSchema).fields
    assert known["iterations"].bounds == "a whole number ≥ 1 and ≤ 1,000,000,000"
    assert known["init"].bounds == "mix or noise or real"
    assert known["lr_images"].meaning == "step size for the images"
    either = {"anyOf": [{"type": "integer", "minimum": 1, "description": "blocks"}, {"type": "null"}]}
    schema = msgspec.convert(either, OptionSchema)
    assert (schema.bounds, schema.meaning) == ("a whole number ≥ 1", "blocks")


def test_prepared_datasets_are_read_without_torch() -> None:
    assert catalogue.prepared() == {}
    files.data_folder().mkdir(parents=True)
    (files.data_folder() / "a.json").write_bytes(msgspec.json.encode(CARD))
    (files.data_folder() / "b.json").write_bytes(b"{}")
    assert catalogue.prepared() == {}  # its images are gone
    (files.data_folder() / "a.safetensors").write_bytes(b"")
    assert catalogue.prepared() == {"digits": [CARD]}


# A form, and what would be typed.

FULL = {
    "tags": "a, b c",
    "name": "-x",
    "method": "dm",
    "dataset": "digits",
    "ipc": "2",
    "seeds": "0-2",
    "evaluate_on": "convnet-d1-w4, convnet-d1-w8",
    "deterministic": "on",
    "checkpoint_every": "2.5",
    "method.iterations": "3",
    "method.lr_images": "0.5",
    "method.init": "noise",
    "network": "",
}


def test_the_command_says_what_the_form_holds_and_no_more() -> None:
    assert arguments({}) == []
    assert arguments({"method": " dm ", "ipc": " ", "seeds": "3", "deterministic": ""}) == [
        *("--method", "dm", "--seed", "3")
    ]
    assert arguments(FULL)[:6] == ["--method", "dm", "--dataset", "digits", "--ipc", "2"]
    assert "--set method.init=noise" in command(FULL)
    assert "--name=-x" in command(FULL)
    assert "--tag a --tag 'b c'" in command(FULL)
    assert "--seeds 0-2" in command(FULL)


def _checked(capsys: pytest.CaptureFixture[str], *said: str) -> dict[str, Any]:
    assert run_cli(["run", *said, "--check"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_command_and_the_toml_file_ask_for_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("run.toml")
    path.write_text(to_toml(FULL))
    assert run_cli(["run", "--method", "dm", "--dataset", "digits", "--check"]) == 0  # the data are not prepared yet
    assert "first" in json.loads(capsys.readouterr().out)
    _prepare(capsys)
    typed, written = _checked(capsys, *arguments(FULL)), _checked(capsys, str(path))
    assert typed == written
    assert typed["seeds"] == [0, 1, 2]
    assert typed["overrides"] == {"iterations": 3, "lr_images": 0.5, "init": "noise"}
    assert arguments(from_toml(path.read_text())) == [part.replace("4, c", "4,c") for part in arguments(FULL)]


def test_whatever_a_text_has_in_it_the_toml_file_gives_it_back() -> None:
    form = {"name": 'say "hi" \t to 😀 \\', "method": "dm", "method.init": '"noise"', "tags": "a,é", "ipc": "3\nx = 4"}
    assert from_toml(to_toml(form)) == form


def _prepare(capsys: pytest.CaptureFixture[str]) -> None:
    from dambench.core.config import Choice
    from dambench.datasets import prepare

    prepare(Choice("digits"), None)
    capsys.readouterr()


@pytest.mark.parametrize(
    "said",
    [
        ["--method", "dm", "--ipc", "2", "--iterations", "7", "--network", "convnet-d1-w4", "--seed", "5"],
        ["--method", "random", "--evaluate-on", "convnet-d1-w4,convnet-d1-w8", "--evaluate-every", "2"],
        ["--method", "whole", "--protocol", "dsa-dm", "--deterministic", "--threads", "1"],
        ["--method", "datadam", "--recipe", "paper", "--set", "method.init=noise"],
    ],
)
def test_a_run_asked_for_again_is_the_very_same(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _prepare(capsys)
    first = _checked(capsys, "--dataset", "digits", *said)
    row = run_row(config=json.dumps(first["config"]), overrides=json.dumps(first["overrides"]))
    again = _checked(capsys, *arguments(of_run(row)))
    assert again["config"] == first["config"]
    assert again["config_sha256"] == first["config_sha256"]


def test_a_file_with_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no setting 'ipcs'"):
        from_toml("ipcs = 3")
    with pytest.raises(ValueError, match="Invalid value"):
        from_toml("ipc =")


def test_the_form_has_every_setting_of_a_request() -> None:
    shown = {*request.fields()} | {"iterations", "seed"}  # of the method's options, and of seeds
    assert shown == set(config.Request.__struct_fields__)
    assert {field.section for field in request.fields().values()} == {"main", "method", "more"}


def test_data_that_the_environment_names_need_not_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = run_row(config=json.dumps(_config(str(tmp_path / "raw"))), overrides="{}")
    assert of_run(row)["data"] == str(tmp_path / "raw")
    monkeypatch.setenv("DAMBENCH_DATA", os.path.join(tmp_path, "raw"))
    assert of_run(row)["data"] == ""


def _config(data: str) -> dict[str, Any]:
    from tests import ledger

    found: dict[str, Any] = msgspec.to_builtins(ledger.config())
    return found | {"where": {"data": data}}
