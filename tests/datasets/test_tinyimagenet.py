import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from tests.datasets import stand_ins
from tests.datasets.stand_ins import TINY

CHOICE = Choice("tinyimagenet")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_ins.tinyimagenet_folder(tmp_path / "raw", monkeypatch)


def _refolder(part: Path, into: Path) -> None:
    for line in (part / "val_annotations.txt").read_text().splitlines():
        name, label = line.split("\t")[:2]
        (into / label).mkdir(parents=True, exist_ok=True)
        shutil.move(part / "images" / name, into / label / name)


def test_all_layouts_of_the_validation_part_give_the_same_prepared_file(root: Path) -> None:
    card = datasets.prepare(CHOICE, root)
    assert (card.train_counts, card.test_counts) == ([3, 3, 3], [1, 2, 1])
    part = root / "val"
    _refolder(part, part / "images")
    assert datasets.prepare(CHOICE, root).sha256 == card.sha256
    for label in TINY:
        shutil.move(part / "images" / label, part / label)
    (part / "images").rmdir()
    assert datasets.prepare(CHOICE, root).sha256 == card.sha256
    (part / "val_annotations.txt").unlink()
    for label in TINY:
        shutil.copytree(part / label, part / "copy" / "images")
        shutil.rmtree(part / label)
        shutil.move(part / "copy", part / label)
    assert datasets.prepare(CHOICE, root).sha256 == card.sha256


def test_the_folder_may_be_named_or_the_one_that_it_is_in(root: Path) -> None:
    assert datasets.prepare(CHOICE, root) == datasets.prepare(CHOICE, root.parent)
    assert len(datasets.prepared()) == 1


def test_classes_are_named_by_words_txt_where_it_names_them(root: Path) -> None:
    assert datasets.prepare(CHOICE, root).classes == ["goldfish", "European fire salamander", TINY[2]]
    (root / "words.txt").unlink()
    assert datasets.prepare(CHOICE, root).classes == list(TINY)


def test_grey_images_are_colour_too(root: Path) -> None:
    train, test = datasets.open_sets(datasets.prepare(CHOICE, root), torch.device("cpu"))
    grey = np.asarray(Image.open(root / "train" / TINY[0] / "images" / f"{TINY[0]}_0.JPEG"))
    assert all(np.array_equal(plane, grey) for plane in train.images[0].numpy())
    # val_3 is the second of the middle class.
    last = np.asarray(Image.open(root / "val" / "images" / "val_3.JPEG"))
    assert np.array_equal(test.images[2].numpy(), last.transpose(2, 0, 1))


def test_a_wrong_line_of_the_annotations_is_named(root: Path) -> None:
    table = root / "val" / "val_annotations.txt"
    right = table.read_text()
    for wrong, said in (
        (right.replace(f"val_1.JPEG\t{TINY[1]}", "val_1.JPEG\tn00000000"), r"Line 2 of .*'val_1\.JPEG'.*'n00000000'"),
        (right.replace("val_2.JPEG", "val_9.JPEG"), r"Line 3 of .*'val_9\.JPEG'.*not in"),
        (right.replace("val_2.JPEG", "val_1.JPEG"), r"Line 3 of .*'val_1\.JPEG'.*not in"),
        (right.replace("\t", " "), r"Line 1 of .* has the class ''"),
    ):
        table.write_text(wrong)
        with pytest.raises(BadInput, match=said):
            datasets.prepare(CHOICE, root)


def test_what_is_missing_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="tinyimagenet needs a folder: say --data DIR"):
        datasets.prepare(CHOICE, None)
    with pytest.raises(BadInput, match="neither train nor tiny-imagenet-200/train is there"):
        datasets.prepare(CHOICE, tmp_path)
    image = root / "train" / TINY[1] / "images" / f"{TINY[1]}_1.JPEG"
    whole = image.read_bytes()
    image.unlink()
    with pytest.raises(BadInput, match=r"Tiny ImageNet has 9 training images, .* has 8: unpack the archive again"):
        datasets.prepare(CHOICE, root)
    image.write_bytes(whole[:-200])
    with pytest.raises(BadInput, match=rf"{image.name}' is damaged"):
        datasets.prepare(CHOICE, root)
    Image.new("RGB", (64, 63)).save(image)
    with pytest.raises(BadInput, match=rf"{image.name}' is 64×63: the images of Tiny ImageNet are 64×64"):
        datasets.prepare(CHOICE, root)
    (root / "val" / "val_annotations.txt").unlink()
    with pytest.raises(BadInput, match="neither class folders nor val_annotations"):
        datasets.prepare(CHOICE, root)
    shutil.rmtree(root / "val")
    with pytest.raises(BadInput, match="neither class folders nor val_annotations"):
        datasets.prepare(CHOICE, root)
