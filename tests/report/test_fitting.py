"""Tables on paper: no line of a table is wider than the page, and nothing is left out to make it fit."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from dambench.report import fitting
from dambench.report.formats import latex
from dambench.report.parts import Part
from dambench.report.wording import TableEntry

LEDGER = Path(__file__).parents[2] / "runs.db"
DOCUMENT = r"""
\documentclass[SIZE]{article}
\usepackage[T1]{fontenc}
\usepackage{array,longtable}
\IfFileExists{booktabs.sty}{\usepackage{booktabs}}{\let\toprule\hline\let\midrule\hline\let\bottomrule\hline}
\begin{document}
\input{report.tex}
\end{document}
"""


def _rows(cells: list[str], count: int = 3) -> list[list[tuple[str, bool]]]:
    return [[(cell, False) for cell in cells] for _ in range(count)]


def test_a_table_that_fits_is_as_it_is() -> None:
    (piece,) = fitting.pieces(["method", "IPC 1"], _rows(["dm", "92.4"]))
    assert (piece.columns, piece.print, piece.widths, piece.numbered) == ((0, 1), "", (None, None), False)


def test_smaller_print_comes_before_broken_lines_and_those_before_pieces() -> None:
    def of(columns: int) -> list[fitting.Piece]:
        return fitting.pieces(["method", *["digits IPC 1"] * columns], _rows(["dm", *["92.4 ± 1.3"] * columns]))

    prints = [of(columns)[0].print for columns in range(3, 7)]
    assert prints == sorted(prints, key=list(fitting.PRINTS).index)
    (broken,) = fitting.pieces(["method", "what differs"], _rows(["dm", "the protocol and the network " * 5]))
    assert broken.widths[0] is None
    assert broken.widths[1] is not None
    assert broken.lines > 3
    pieces = of(12)
    assert len(pieces) > 1
    assert [place for piece in pieces for place in piece.columns[1:]] == list(range(1, 13)), "each column once"
    assert {piece.columns[0] for piece in pieces} == {0}, "each with the names of the rows"
    assert max(len(piece.columns) for piece in pieces) - min(len(piece.columns) for piece in pieces) <= 1


def test_rows_of_the_same_name_have_numbers_in_every_piece() -> None:
    head, wide = ["method", *["digits IPC 1"] * 12], ["92.4 ± 1.3"] * 12
    alike = _rows(["dm", *wide])
    assert all(piece.numbered for piece in fitting.pieces(head, alike))
    apart = [[(f"dm {number}", False), *row[1:]] for number, row in enumerate(alike)]
    assert not any(piece.numbered for piece in fitting.pieces(head, apart))


@pytest.mark.parametrize("columns", [1, 4, 9, 20])
@pytest.mark.parametrize("rows", [3, 60])
def test_every_cell_stands_in_the_table_once(columns: int, rows: int) -> None:
    entries = [TableEntry(f"{place}.25 ± 1.{place}", "3×5") for place in range(columns)]
    part = Part("Wide", ["method", *map(str, range(columns))], [(f"row{row}", entries) for row in range(rows)])
    text = "\n".join(latex._part(part))
    for place in range(columns):
        assert text.count(f" {place}.25 $\\pm$ 1.{place} (3$\\times$5)") == rows
    widest = max(line.count("&") for line in text.splitlines())
    assert all(len(found) > 1 for found in re.findall("tabular}{(.*)}", text))
    assert widest <= 12


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
@pytest.mark.parametrize("size", ["10pt", "12pt"])
def test_the_report_of_the_ledger_compiles_without_a_line_that_is_too_wide(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "runs.db"
    copy.write_bytes(LEDGER.read_bytes())
    assert run_cli(["report", "--db", str(copy), "--format", "latex", "--sections", "all"]) == 0
    (tmp_path / "report.tex").write_text(capsys.readouterr().out)
    (tmp_path / "paper.tex").write_text(DOCUMENT.replace("SIZE", size))
    for _ in range(3):  # until the widths of longtables stay
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "paper.log").read_text(errors="replace")
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([0-9.]+)pt too wide\)", log)]
    assert [points for points in wide if points > 1] == []
