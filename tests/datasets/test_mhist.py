import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from tests.datasets import stand_ins

CHOICE = Choice("mhist")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_ins.mhist_folder(tmp_path / "MHIST", monkeypatch)


def test_hp_is_0_and_ssa_is_1(root: Path) -> None:
    card = datasets.prepare(CHOICE, root)
    assert card.classes == ["HP", "SSA"]
    assert (card.train_counts, card.test_counts) == ([2, 1], [2, 1])
    assert (card.channels, card.height, card.width) == (3, 224, 224)


def test_the_folder_may_be_named_or_the_one_that_it_is_in(root: Path) -> None:
    assert datasets.prepare(CHOICE, root) == datasets.prepare(CHOICE, root.parent)


def _row(row: int, change: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def wrong(root: Path) -> None:
        table = root / "annotations.csv"
        lines = [line.split(",") for line in table.read_text().splitlines()]
        change(lines[row - 1])
        table.write_text("\n".join(map(",".join, lines)))

    return wrong


def _cell(row: int, column: int, text: str) -> Callable[[Path], None]:
    return _row(row, lambda cells: cells.__setitem__(column, text))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_cell(3, 1, "SSL"), r"Row 3 of .*annotations\.csv' \('MHIST_b\.png'\): the label 'SSL' is neither HP nor SSA"),
        (_cell(4, 3, "val"), r"Row 4 of .*\('MHIST_c\.png'\): the partition 'val' is neither train nor test"),
        (_row(7, lambda cells: cells.pop()), r"Row 7 of .*\('MHIST_f\.png'\): the partition '' is neither"),
        (_cell(5, 0, "MHIST_z.png"), r"Row 5 of .*\('MHIST_z\.png'\): the image cannot be .*: it is not there"),
        (_cell(5, 0, "../MHIST_z.png"), r"Row 5 of .*\('\.\./MHIST_z\.png'\): .*: it is not there"),
        (_cell(5, 0, "MHIST_a.png"), r"Row 5 of .*\('MHIST_a\.png'\): .*: an earlier row has it too"),
        (_cell(1, 1, "Label"), r"has no column 'Majority Vote Label'; it has Image Name, Label, Number of"),
        (lambda root: (root / "images" / "MHIST_e.png").unlink(), r"Row 6 of .*\('MHIST_e\.png'\): .* it is not there"),
        (
            lambda root: Image.new("RGB", (224, 223)).save(root / "images" / "MHIST_e.png"),
            r"Row 6 of .*\('MHIST_e\.png'\): the image is 224×223, those of MHIST are 224×224",
        ),
        (
            lambda root: (root / "images" / "MHIST_d.png").write_bytes(b"x"),
            r"Row 5 of .*\('MHIST_d\.png'\): '.*MHIST_d\.png' is damaged",
        ),
        (lambda root: shutil.rmtree(root / "images"), r"has no folder 'images': unpack images\.zip there"),
        (lambda root: (root / "annotations.csv").write_bytes(b""), r"has no column 'Image Name'; it has none"),
        (lambda root: (root / "annotations.csv").write_bytes(b"\xff\xfe"), "is not a table of comma-separated values"),
        (lambda root: (root / "annotations.csv").unlink(), r"neither annotations\.csv nor MHIST/annotations\.csv is"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(root: Path, wrong: Callable[[Path], None], said: str) -> None:
    wrong(root)
    with pytest.raises(BadInput, match=said):
        datasets.prepare(CHOICE, root)
    assert datasets.prepared() == []


def test_a_table_that_was_cut_off_is_not_mhist(root: Path) -> None:
    table = root / "annotations.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(BadInput, match="has 2 test images, MHIST has 3"):
        datasets.prepare(CHOICE, root)


def test_another_label_makes_another_dataset(root: Path) -> None:
    before = datasets.prepare(CHOICE, root)
    _cell(5, 1, "SSA")(root)
    after = datasets.prepare(CHOICE, root)
    assert after.train_counts == [1, 2]
    assert after.sha256 != before.sha256


def test_it_says_which_folder_it_needs() -> None:
    with pytest.raises(BadInput, match=r"say --data DIR, with annotations\.csv or MHIST/annotations\.csv in it"):
        datasets.prepare(CHOICE, None)
