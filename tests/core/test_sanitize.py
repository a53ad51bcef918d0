import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from dambench.core.sanitize import display, display_lines, markdown
from dambench.report.formats.markdown import grid


@given(st.text())
@example("\x1b]52;c;aGk=\x07")
@example("a\x9b2Jb")
@example("evil\u202egnp.exe")
@example("one\ntwo\r\nthree\u2028four")
def test_nothing_that_steers_a_terminal_or_reorders_a_line_is_shown(text: str) -> None:
    shown = display(text)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= 200


def test_plain_text_is_shown_as_it_is() -> None:
    assert display("DM, IPC 10 – naïve 数字 ±") == "DM, IPC 10 – naïve 数字 ±"


def test_long_text_is_cut_and_says_so() -> None:
    assert display("x" * 300, limit=5) == "xxxx…"


def test_of_many_lines_each_is_harmless_and_the_last_ones_stay() -> None:
    assert display_lines("Traceback\n  in f\nError: \x1b[2Jx\u202e") == "Traceback\n  in f\nError: \ufffd[2Jx\ufffd"
    assert display_lines("\n".join(map(str, range(9))), most=2) == "7\n8"


@given(st.text())
@example("a | b\n| forged | 100.0 |")
@example("<img src=x>")
@example("[link](http://x) `code` ![i](y)")
def test_a_hostile_name_stays_one_cell_of_one_row(text: str) -> None:
    rows = grid([["method", "accuracy"], [markdown(text), "1.0"]]).splitlines()
    assert len(rows) == 3
    bars = rows[2].replace("\\\\", "").replace("\\|", "").count("|")
    assert bars == 3
    assert "<" not in rows[2].replace("\\<", "")
