"""What commands import before they answer: each import is time that every command of a shell script takes."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dambench.store.runs import Store
from tests.ledger import add_sets, config

ALWAYS = {"dambench", "typer", "rich", "msgspec", "psutil", "shellingham", "annotated_doc", "typing_extensions"}
"""All that comes from elsewhere and a command that only looks may import."""

SCREENS = {
    *("dambench", "textual", "rich", "msgspec", "psutil", "pynvml", "platformdirs", "typing_extensions"),
    "tomli_w",
    *("PIL", "numpy"),  # curves and sheets are drawn with these
}
"""All that the console may import."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        for method in ("dm", "random"):
            add_sets(store, config(method), [[0.5, 0.6], [0.6, 0.65], [0.55, 0.5]])
    return tmp_path / "runs.db"


def _imported(statement: str) -> tuple[set[str], set[str]]:
    """The packages from elsewhere that a fresh interpreter has imported after a statement, and our modules."""
    code = f"{statement}\nimport sys; print('\\n', *sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules = said.rpartition("\n ")[2].split()
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"__main__"}
    return {name for name in packages if not name.startswith("_")}, {name for name in modules if "dambench" in name}


def _answered(*words: str) -> str:
    return f"from dambench.cli.app import run_cli; assert run_cli({list(words)}) == 0"


def test_lists_of_runs_and_one_run_are_shown_without_numpy(path: Path) -> None:
    with closing(Store.open(path)) as store:
        run_id = store.newest()[0].id
    shown = (
        ("runs", "--db", str(path)),
        ("show", run_id, "--json", "--db", str(path)),
        ("show", run_id, "--db", str(path)),
    )
    packages, ours = _imported("; ".join(_answered(*words) for words in shown))
    assert packages - {"PIL"} <= ALWAYS  # with which a picture of the set is drawn
    assert not ours & {"dambench.cli.run", "dambench.cli.plans", "dambench.store.schema", "dambench.cli.commands"}


def test_tests_and_intervals_are_computed_without_numpy_and_scipy(path: Path) -> None:
    shown = (("report", "--db", str(path)), ("compare", "dm", "random", "--db", str(path)))
    packages, ours = _imported("; ".join(_answered(*words) for words in shown))
    assert packages <= ALWAYS | {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"}  # for two rows
    assert not ours & {"dambench.cli.run", "dambench.cli.plans", "dambench.cli.fill", "dambench.store.schema"}


def test_the_console_imports_no_command_and_nothing_that_trains_or_tests() -> None:
    packages, ours = _imported("import dambench.tui.app")
    assert packages <= SCREENS
    assert not {name for name in ours if name.startswith("dambench.cli")}
