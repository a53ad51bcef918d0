"""docs/plugins.md and the package beside it: the examples keep every promise, and what is written of them is so."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.testing import check_dataset, check_evaluator, check_method, check_network

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "plugins.md").read_text()
PACKAGE = DOCS / "plugins"
EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
PUBLIC = {
    module: set(re.findall(r"`(\w+)`", names))
    for module, names in re.findall(r"^\| `(dambench\.[\w.]+)` \| (.*) \|$", PAGE, re.M)
}
ENTRIES = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"]


def _forget() -> None:
    registry.names.cache_clear()
    registry._loaded.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "dambench_examples"]:
        sys.modules.pop(name)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, as if it were installed."""
    entries = EntryPoints(EntryPoint(name, value, group) for group, of in ENTRIES.items() for name, value in of.items())
    monkeypatch.setattr(registry, "entry_points", lambda **chosen: entries.select(**chosen))
    monkeypatch.syspath_prepend(str(PACKAGE))
    _forget()
    yield
    _forget()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("check", "name"),
    [(check_method, "l1"), (check_dataset, "bars"), (check_network, "tinynet"), (check_evaluator, "top2")],
)
def test_each_example_keeps_every_promise(check: Any, name: str) -> None:
    check(name)


@pytest.mark.usefixtures("installed")
def test_the_examples_work_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--headless", "--method", "l1", "--dataset", "bars", "--network", "tinynet-w8", "--iterations", "3"]
    assert run_cli([*words, "--protocol", "brief", "--evaluate-on", "tinynet-w8", "--eval-repeats", "1", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert run_cli(["evaluate", run, "--evaluator", "top2", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)["run"]
    assert run_cli(["show", evaluation, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["measurements"]
    assert (row["evaluator"], row["metric"], row["unit"]) == ("top2", "top2_accuracy", "fraction")
    assert run_cli(["show", evaluation]) == 0
    assert "top2  network     #  Top2 accuracy in %\n" in capsys.readouterr().out.replace(" \n", "\n")
    for command in (
        ["report", "--metric", "top2_accuracy"],
        ["report", "--metric", "top2_accuracy", "--format", "csv"],
    ):
        assert run_cli(command) == 0
        assert "l1" in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_thirty_lines_and_imports_what_is_there_for_plug_ins(path: Path) -> None:
    source = path.read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 30
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dambench"):
            for alias in node.names:
                assert alias.name in PUBLIC.get(node.module, ()) or f"{node.module}.{alias.name}" in PUBLIC


def test_what_may_be_imported_is_what_the_page_says() -> None:
    assert len(PUBLIC) > 10
    for module, names in PUBLIC.items():
        public = import_module(module)
        assert set(public.__all__) == names, module
        assert all(hasattr(public, name) for name in names)


def test_the_page_shows_the_example_as_it_is() -> None:
    assert f"```python\n{(PACKAGE / 'dambench_examples' / 'l1.py').read_text()}```" in PAGE


def test_the_page_says_what_the_contracts_say() -> None:
    rows = dict(re.findall(r"^\| (method|dataset|network|evaluator|format) \| (`(?:Options|render).*) \|$", PAGE, re.M))
    for kind, contract in registry.CONTRACTS.items():
        required, _, optional = rows[kind.removesuffix("s")].partition("|")
        hints = set(vars(contract)["__annotations__"])
        functions = {name: member for name, member in vars(contract).items() if hasattr(member, "required")}
        must = {name for name in hints if not hasattr(contract, name)} | {n for n, f in functions.items() if f.required}
        assert set(re.findall(r"`(\w+)`", required)) == must
        assert set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", optional))) == (hints | {*functions}) - must


@pytest.mark.slow
def test_the_package_is_installed_and_its_commands_do_what_the_page_says(tmp_path: Path) -> None:
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # dambench and its dependencies are those installed here.
    (packages / "borrowed.pth").write_text(
        "\n".join([str(DOCS.parent), *(folder for folder in sys.path if folder.endswith("site-packages"))])
    )
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, PACKAGE], check=True)
    environment = os.environ | {"DAMBENCH_HOME": str(tmp_path / "files"), "DAMBENCH_DB": str(tmp_path / "mine.db")}

    def dambench(*words: str) -> str:
        command = [str(home / "bin" / "python"), "-m", "dambench", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    def newest() -> str:
        return str(json.loads(dambench("runs", "--json"))[0]["id"])

    commands = [line.partition("#")[0].split() for line in re.findall(r"^    dambench (.*)$", PAGE, re.M)]
    assert [words[0] for words in commands] == ["methods", "run", "evaluate"]
    for words in commands:
        dambench(*(newest() if word == "ID" else word for word in words))
    assert "| l1 " in dambench("report", "--metric", "top2_accuracy")
