import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from dambench.core import registry
from dambench.core.errors import BadInput


def _forget() -> None:
    registry.names.cache_clear()
    registry._loaded.cache_clear()


def test_the_files_of_a_folder_are_the_names() -> None:
    assert {"dm", "random", "whole"} <= set(registry.names("methods"))
    assert {"digits", "arrays", "folder"} <= set(registry.names("datasets"))
    assert "convnet" in registry.names("networks")


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean 'digits'"):
        registry.load("datasets", "digit")


def test_names_that_are_paths_are_not_imported() -> None:
    for name in ("../cli", "dm.py", "os", "__init__", ""):
        with pytest.raises(BadInput):
            registry.load("methods", name)


def test_a_module_says_what_it_is_in_one_line() -> None:
    for kind in ("methods", "datasets", "networks"):
        for name in registry.names(kind):
            assert registry.load(kind, name).headline


def test_a_method_from_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("class_mean", "dambench.methods.random", "dambench.methods")
    clash = EntryPoint("dm", "dambench.methods.random", "dambench.methods")

    def entry_points(**chosen: Any) -> EntryPoints:
        return EntryPoints([entry, clash]).select(**chosen)

    monkeypatch.setattr(registry, "entry_points", entry_points)
    _forget()
    try:
        assert "class_mean" in registry.names("methods")
        assert registry.load("methods", "class_mean").module.__name__ == "dambench.methods.random"
        assert registry.load("methods", "dm").module.__name__ == "dambench.methods.dm"  # ours is preferred
    finally:
        _forget()


def test_what_dambench_has_itself_is_found_without_asking_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def entry_points(*, group: str) -> tuple[()]:
        asked.append(group)
        return ()

    monkeypatch.setattr(registry, "entry_points", entry_points)
    _forget()
    try:
        assert registry.load("methods", "dm").module.__name__ == "dambench.methods.dm"
        assert not asked
        with pytest.raises(BadInput):
            registry.load("methods", "dmm")
        assert asked == ["dambench.methods"]
    finally:
        _forget()


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.rpartition("\n")[0].rpartition("\n")[2].split()) or set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import dambench.cli.commands",
        "import dambench.store.leaderboard, dambench.report.formats.markdown",
        "import dambench.core.registry as r; r.names('methods')",
        "from dambench.cli.app import run_cli; run_cli(['report'])",
        "from dambench.cli.app import run_cli; run_cli(['runs'])",
        "from dambench.cli.app import run_cli; run_cli(['protocols'])",
    ],
)
def test_commands_that_only_look_do_not_import_torch(statement: str) -> None:
    loaded = _loaded_after(statement)
    assert "dambench" in loaded
    assert not loaded & {"torch", "torchvision", "ray", "sklearn"}


def test_headless_commands_do_not_import_textual() -> None:
    assert "textual" not in _loaded_after("import dambench.cli.commands, dambench.engine, dambench.cli.doctor")
