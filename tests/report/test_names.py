import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from dambench.core.errors import BadInput
from dambench.report import names, render
from dambench.report.names import Names
from dambench.report.sections import SECTIONS
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import Store
from tests.hostile import NAMES, steering
from tests.ledger import add, config


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        for ipc in (1, 10):
            add(store, config("dm", ipc=ipc), [0.9, 0.8, 0.85])
            add(store, config("dm", ipc=ipc, options={"iterations": 5}), [0.7], overrides={"iterations": 5})
            add(store, config("random", ipc=ipc), [0.5, 0.6])
    return path


@pytest.fixture
def database(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "runs.db"))


def _report(capsys: pytest.CaptureFixture[str], toml: str, *words: str) -> str:
    Path("names.toml").write_text(toml)
    capsys.readouterr()
    assert run_cli(["report", "--names", "names.toml", *words]) == 0
    return capsys.readouterr().out


NAMED = """
label = "dd"
[method]
dm = "DM & co"
"dm (iterations 5)" = "DM, five"
random = "Random"
[dataset]
digits = "Digits"
[network]
convnet-d1-w8 = "ConvNet"
[protocol]
quick = "Quick"
[axis]
method = "Method"
ipc = "images"
[caption]
accuracy = "Ours: {title}; {caption}"
"""


def test_rows_columns_captions_and_labels_have_their_names(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _report(capsys, NAMED, "--format", "latex")
    assert r"Method & Digits images 1 & Digits images 10 \\" in text
    assert r"    DM \& co & " in text
    assert r"    DM, five & " in text
    assert r"\caption{Ours: Accuracy in \%, protocol Quick\#3528, trained network ConvNet; Accuracy in \%," in text
    assert "\\label{tab:dd-accuracy-quick-3528-convnet}\n" in text
    assert "\\label{tab:dd-cost-what-it-took}" in text
    assert re.search(r"& ConvNet (&|\\\\)", text)
    assert re.search(r"& Quick\\#3528 (&|\\\\)", text)
    plain = _report(capsys, NAMED, "--short")
    assert "## Ours: Accuracy in %, protocol Quick" in plain
    assert "| DM & co " in plain.replace("\\", "")


def test_every_section_has_the_names(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also sentences and appendices; only what the leaderboard remarks itself keeps the names of runs."""
    text = _report(capsys, NAMED, "--sections", "all")
    assert "Verdict: at Digits images 1 and Digits images 10, no method can be called better" in text
    assert "- Digits: 10 test images" in text
    assert re.search(r"- Random · Digits images 1 · .*ConvNet, Quick", text)


def test_what_has_no_name_is_called_as_always(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report"]) == 0
    without = capsys.readouterr().out
    assert _report(capsys, "") == without
    named = _report(capsys, '[method]\ndm = "DM"')
    assert "| DM (iterations 5) " in named
    assert "\\label" not in _report(capsys, "", "--format", "latex")


@pytest.mark.parametrize("format", ["csv", "json"])
def test_files_for_programs_have_no_names(database: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    text = _report(capsys, NAMED, "--format", format)
    assert "DM &" not in text
    if format == "json":
        assert {row["method"] for row in json.loads(text)["tables"][0]["rows"]} == {"random", "dm", "dm (iterations 5)"}


def test_tables_of_one_title_have_labels_of_their_own(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(database, write=True)) as store:
        add(store, config("dm", network="a_b"), [0.9])
        add(store, config("dm", network="a.b"), [0.9])
    text = _report(capsys, 'label = "x"', "--format", "latex", "--short")
    labels = [line for line in text.splitlines() if "\\label" in line]
    assert len(labels) == len(set(labels)) == 3


WRONG = {
    "[methods]": "No key is called 'methods'.* method",
    "[axis]\nseed = 's'": "No axis is called 'seed'",
    "[caption]\ntable = 'x'": "No caption is called 'table'",
    "[caption]\naccuracy = 'of {method}'": "caption accuracy: No placeholder is called 'method'",
    "[method]\ndm = 3": "a name is a text in quotes",
    "[method]\ndm = ' '": "the name of method 'dm' has from 1 to 200 characters",
    "label = 'a}b'": r"label 'a}b' may have letters, digits",
    "method = 'x'": "a name is a text in quotes",
    "[method": "is not valid TOML",
}


@pytest.mark.parametrize(("toml", "said"), WRONG.items())
def test_what_cannot_be_is_said(toml: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "names.toml").write_text(toml)
    with pytest.raises(BadInput, match=said):
        names.read(tmp_path / "names.toml", SECTIONS)


@pytest.mark.parametrize("toml", ['[method]\ndm = "x"\nrandom = "x"', '[method]\ndm = "random"'])
def test_two_rows_never_get_one_name(database: Path, capsys: pytest.CaptureFixture[str], toml: str) -> None:
    Path("names.toml").write_text(toml)
    assert run_cli(["report", "--names", "names.toml"]) == 2
    assert "one name" in capsys.readouterr().err


def test_names_are_text_whatever_they_hold(database: Path) -> None:
    axes = ("method",), ("dataset", "ipc")
    with closing(Store.open(database)) as store:
        board = leaderboard(store, *axes)
    for name in NAMES:
        token = names.current.set(Names(method={"dm": name}, dataset={"digits": name}, caption={"accuracy": name}))
        try:
            texts = {format: render(format, board, *axes, short=True) for format in ("markdown", "latex", "html")}
        finally:
            names.current.reset(token)
        assert not steering("".join(texts.values()))
        assert not re.search(r"\\(input|write|hline)", texts["latex"])
        assert "<script>" not in texts["html"] + texts["markdown"]


def test_an_order_of_names_is_known() -> None:
    chosen = Names(method={"dm": "DM", "dc": "DC"})
    order = sorted(["random", "dc", "dm (iterations 5)", "dm"], key=lambda name: chosen.place("method", name))
    assert order == ["dm (iterations 5)", "dm", "dc", "random"]
