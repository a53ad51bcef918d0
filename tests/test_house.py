"""What keeps the code readable, held for good: short files and functions, one meaning per name, docstrings that define.

Branches are counted by ruff (`max-complexity` in pyproject.toml).
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dambench"
FILES = sorted(PACKAGE.rglob("*.py"))


def inside(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a file, and what they hold; not their expressions, which are nine of ten nodes."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for statement in getattr(node, part, ()):
            yield statement
            yield from inside(statement)


@cache
def statements() -> list[tuple[str, ast.AST]]:
    return [(str(file.relative_to(PACKAGE)), node) for file in FILES for node in inside(ast.parse(file.read_text()))]


def test_the_top_of_the_package_is_read_at_one_glance() -> None:
    assert len([entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]) <= 18


def test_no_file_has_more_than_700_lines() -> None:
    long = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in FILES}
    assert not {name: lines for name, lines in long.items() if lines > 700}


def test_no_function_has_more_than_80_lines() -> None:
    lengths = {
        f"{file}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file, node in statements()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > 80}


def test_no_class_name_has_two_meanings() -> None:
    names = Counter(node.name for _, node in statements() if isinstance(node, ast.ClassDef) and node.name != "Options")
    assert not {name for name, count in names.items() if count > 1}


def test_a_docstring_begins_with_what_it_defines() -> None:
    texts = [
        (file, node.value.value)
        for file, node in statements()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    assert not [(file, text[:60]) for file, text in texts if re.match(r"(Of|That)\b", text)]


def test_rows_are_structs_in_the_store_and_the_console() -> None:
    assert (
        sum(f.read_text().count("dict[str, Any]") for top in ("store", "tui") for f in (PACKAGE / top).rglob("*.py"))
        <= 25
    )
