"""The tables of the pages on more than accuracy: which of a database stand there, and that the pages can be renewed."""

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import beyond
from dambench.store.runs import Store
from tests.ledger import config
from tests.report.test_measured import measure

DOCS = Path(__file__).parents[2] / "docs"
PAGE = """Before.
<!-- robustness digits 1 clean pgd -->
old
<!-- end -->
<!-- nas mnist 10 -->
kept
<!-- end -->
After.
"""


def test_a_table_is_renewed_from_what_was_measured_by_the_usual_options_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "runs.db", tmp_path / "page.md"
    values = {"clean": 0.9, "pgd_linf_8": 0.5, "fgsm_linf_8": 0.75}
    with closing(Store.open(path, write=True)) as store:
        measure(store, config("dm"), "robustness", {("convnet", 0): values})
        measure(store, config("dm"), "robustness", {("convnet", 0): values | {"clean": 0.8}}, linf=[8, 32], l2=[0.5])
    page.write_text(PAGE)
    monkeypatch.setattr("sys.argv", ["beyond", str(page), str(path)])
    assert beyond.main() == 0
    first, rest = page.read_text().split("<!-- end -->", 1)
    assert [line for line in first.splitlines() if line.startswith("| Accuracy")] == [
        "| Accuracy without an attack in %     | 90.0 ± – (1×1) |",
        "| Accuracy under PGD Linf 8/255, in % | 50.0 ± – (1×1) |",
    ]
    assert first.startswith("Before.\n<!-- robustness digits 1 clean pgd -->\nRobustness: digits IPC 1, protocol quick")
    assert rest == PAGE.split("<!-- end -->", 1)[1]
    assert capsys.readouterr().err == "No database has nas mnist 10: its table stays as it is.\n"


def test_each_table_of_the_pages_has_an_end_and_something_in_it() -> None:
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        tables = [found[0] for found in beyond.TABLE.finditer(text)]
        assert len(tables) == text.count("<!-- end -->")
        assert all("\n| " in table for table in tables)
