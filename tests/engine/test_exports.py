import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.engine import exports, imports
from dambench.engine.set_files import HEADER_FILE
from dambench.testing import data_card
from dambench.training.problem import Normalisation, SyntheticSet, Whitening
from tests.hostile import NAMES
from tests.lab import generator, noise

GREY = data_card(mirrors=False)
"""Three classes of 5 to 7 training images, 1 × 8 × 8."""
COLOUR = msgspec.structs.replace(GREY, channels=3, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
TENSORS = ("safetensors", "pt", "triple", "npz")


def _set(card: DataCard, kind: str = "float", labels: str = "hard", lr: float | None = None, zca: bool = False) -> Any:
    shape = (6, card.channels, 8, 8)
    images: Tensor = noise(*shape, dtype=torch.float32)
    if kind == "bytes":
        images = torch.randint(256, shape, generator=generator(), dtype=torch.uint8)
    preprocessing: Normalisation | Whitening = Normalisation(tuple(card.mean), tuple(card.std))
    if zca:
        real = torch.randint(256, (40, *shape[1:]), generator=generator(1), dtype=torch.uint8)
        content = Whitening.fit(real)
        path = files.whitening_path(card.sha256, files.digest(content))
        files.write_whole(path, content)
        preprocessing = Whitening.read(path)
    # Their largest class is not the one that an image was made for: the order of the images is not that of the labels.
    soft = noise(6, 3, seed=5, dtype=torch.float32)
    return SyntheticSet(images, LABELS if labels == "hard" else soft, preprocessing, tuple(card.classes), lr)


def _target(folder: Path, format: str) -> Path:
    return folder / f"set{exports.SUFFIXES[format]}"


@pytest.mark.parametrize("card", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("zca", [False, True], ids=["mean/std", "zca"])
@pytest.mark.parametrize(
    ("kind", "labels", "lr"),
    [
        ("bytes", "hard", None),
        ("float", "hard", None),
        ("float", "hard", 0.1),
        ("float", "soft", None),
        ("float", "soft", float(torch.tensor(0.017))),
    ],
)
@pytest.mark.parametrize("format", TENSORS)
def test_tensors_come_back_to_the_bit(
    tmp_path: Path, format: str, kind: str, labels: str, lr: float | None, zca: bool, card: DataCard
) -> None:
    synthetic = _set(card, kind, labels, lr, zca)
    written = exports.write(synthetic, _target(tmp_path, format), format)
    assert written.notes == ()
    (found,) = imports.read(written.path, card).sets
    assert found.to_bytes() == synthetic.to_bytes()


@pytest.mark.parametrize("format", TENSORS)
def test_mosaics_and_what_was_held_out_are_known(tmp_path: Path, format: str) -> None:
    synthetic = replace(_set(GREY, lr=0.1), factor=2, held_out="a" * 64)
    written = exports.write(synthetic, _target(tmp_path, format), format)
    (found,) = imports.read(written.path, GREY).sets
    assert (found.factor, found.held_out, found.to_bytes()) == (2, "a" * 64, synthetic.to_bytes())


@pytest.mark.parametrize("card", [GREY, COLOUR], ids=["grey", "colour"])
def test_pixels_of_8_bits_come_back_from_class_folders_to_the_bit(tmp_path: Path, card: DataCard) -> None:
    synthetic = _set(card, "bytes")
    written = exports.write(synthetic, tmp_path / "set", "folder")
    assert (written.notes, written.files) == ((), 6)
    (found,) = imports.read(tmp_path / "set", card).sets
    assert found.to_bytes() == synthetic.to_bytes()


def test_floats_in_class_folders_are_rounded_and_what_is_lost_is_said(tmp_path: Path) -> None:
    soft = torch.eye(3)[[2, 2, 0, 1, 1, 0]] * 2 - 0.5
    synthetic = replace(_set(GREY, lr=0.1), labels=soft)
    rounding, rate, labels = exports.write(synthetic, tmp_path / "set", "folder").notes
    pixels = synthetic.preprocessing.invert(synthetic.images)
    ends = float(((pixels == 0) | (pixels == 255)).float().mean())
    assert 0 < ends < 1
    assert f"{100 * ends:.1f} % of the pixels are black or white" in rounding
    moved = (synthetic.preprocessing.apply(pixels) - synthetic.images).abs().max()
    assert f"the furthest value moved by {float(moved):.3g}" in rounding
    assert (rate, labels) == (
        "pictures cannot hold its learning rate, which is not there.",
        "pictures cannot hold its soft labels: each image is where the largest of its label is.",
    )
    (found,) = imports.read(tmp_path / "set", GREY).sets
    assert torch.equal(found.images, pixels[[2, 5, 3, 4, 0, 1]])


def test_floats_that_are_exact_pixels_are_not_said_to_be_rounded(tmp_path: Path) -> None:
    bytes_ = _set(GREY, "bytes")
    floats = SyntheticSet(bytes_.preprocessing.apply(bytes_.images), LABELS, bytes_.preprocessing, bytes_.classes)
    assert exports.write(floats, tmp_path / "set", "folder").notes == ()


def test_other_codes_find_what_they_look_for(tmp_path: Path) -> None:
    synthetic = _set(COLOUR, labels="soft", lr=0.25)
    exports.write(synthetic, tmp_path / "set.pt", "pt", accuracies={"convnet": [0.5, 0.25]})
    exports.write(synthetic, tmp_path / "triple", "triple")
    exports.write(synthetic, tmp_path / "set.npz", "npz")
    saved = torch.load(tmp_path / "set.pt", weights_only=True)
    assert torch.equal(saved["data"][-1][0], synthetic.images)
    assert torch.equal(saved["data"][-1][1], synthetic.labels)
    assert (saved["accs_all_exps"], saved["lr"]) == ({"convnet": [0.5, 0.25]}, 0.25)
    parts = [torch.load(tmp_path / "triple" / name, weights_only=True) for name in exports.TRIPLE]
    assert torch.equal(parts[0], synthetic.images)
    assert torch.equal(parts[1], synthetic.labels)
    assert (parts[2].dtype, parts[2].item()) == (torch.float32, 0.25)
    with np.load(tmp_path / "set.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], synthetic.images.numpy())
        assert float(arrays["lr"]) == 0.25
    facts = json.loads((tmp_path / "triple" / HEADER_FILE).read_text())
    assert facts["classes"] == list(COLOUR.classes)


@pytest.mark.parametrize("format", exports.FORMATS)
def test_the_same_set_gives_the_same_bytes(tmp_path: Path, format: str) -> None:
    content = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = exports.write(_set(GREY, labels="soft", lr=0.1), _target(tmp_path / name, format), format).path
        inside = sorted(path.rglob("*.*")) if path.is_dir() else [path]
        content.append([(one.name, one.read_bytes()) for one in inside])
    assert content[0] == content[1]


def test_what_is_said_of_a_set_is_believed_no_further_than_it_fits(tmp_path: Path) -> None:
    exports.write(_set(GREY), tmp_path / "set", "triple")
    said = tmp_path / "set" / HEADER_FILE
    facts = json.loads(said.read_text())
    for wrong in ({"mean": [0.5, 0.5]}, {"lr": -1}, {"format": 99}, {"classes": ["a"]}, {"std": "x"}):
        said.write_text(json.dumps(facts | wrong))
        with pytest.raises(BadInput) as error:
            imports.read(tmp_path / "set", GREY)
        assert "/tmp" not in str(error.value).replace(str(tmp_path), "")
    said.write_bytes(b"\xff{")
    with pytest.raises(BadInput, match="is not a whole pt file"):
        imports.read(tmp_path / "set", GREY)


def test_without_the_whitening_an_exported_set_is_refused_and_can_be_read_as_one_from_elsewhere(tmp_path: Path) -> None:
    synthetic = _set(GREY, zca=True)
    exports.write(synthetic, tmp_path / "set.pt", "pt")
    for path in files.data_folder().glob("zca-*"):
        path.unlink()
    with pytest.raises(BadInput, match=r"was whitened by the ZCA .*--preprocessing or --pixels"):
        imports.read(tmp_path / "set.pt", GREY)
    (found,) = imports.read(tmp_path / "set.pt", GREY, preprocessing="mean/std").sets
    assert torch.equal(found.images, synthetic.images)


def test_a_picture_has_a_row_per_class_and_white_between(tmp_path: Path) -> None:
    synthetic = _set(COLOUR, "bytes")
    assert exports.write(synthetic, tmp_path / "all.png", "png").notes == ()
    with Image.open(tmp_path / "all.png") as image:
        sheet = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert tuple(sheet.shape) == (3, 3 * 10 - 2, 2 * 10 - 2)
    for position, image_ in enumerate(synthetic.images):
        top, left = position // 2 * 10, position % 2 * 10
        assert torch.equal(sheet[:, top : top + 8, left : left + 8], image_)
    assert bool((sheet[:, 8:10] == 255).all())
    (note,) = exports.write(synthetic, tmp_path / "few.png", "png", images=1).notes
    assert note == "it shows 3 of the set's 6 images."
    with Image.open(tmp_path / "few.png") as image:
        assert image.size == (8, 28)


def test_a_picture_that_nobody_can_print_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MOST_PIXELS", 28 * 18 - 1)
    with pytest.raises(BadInput, match="would have 18×28 pixels: choose how many of each with --images"):
        exports.write(_set(GREY), tmp_path / "all.png", "png")
    assert not list(tmp_path.glob("*.png"))


def test_images_of_four_channels_have_no_picture(tmp_path: Path) -> None:
    card = msgspec.structs.replace(GREY, channels=4, mean=[0.5] * 4, std=[0.2] * 4)
    for format in ("png", "folder"):
        with pytest.raises(BadInput, match="have 4 channels: files of images have 1 or 3"):
            exports.write(_set(card), _target(tmp_path, format), format)
    assert not _there(tmp_path)


def _there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("home", "cache"))


@pytest.mark.parametrize("format", exports.FORMATS)
def test_nothing_is_overwritten_unless_that_is_asked_for(tmp_path: Path, format: str) -> None:
    target = _target(tmp_path, format)
    exports.write(_set(GREY, "bytes"), target, format)
    before = {path: path.read_bytes() for path in [target, *target.rglob("*")] if path.is_file()}
    other = SyntheticSet(_set(GREY, "bytes").images.flip(0), LABELS, _set(GREY).preprocessing, tuple(GREY.classes))
    with pytest.raises(BadInput, match="is there already: choose another name, or add --overwrite"):
        exports.write(other, target, format)
    assert before == {path: path.read_bytes() for path in [target, *target.rglob("*")] if path.is_file()}
    exports.write(other, target, format, overwrite=True)
    after = {path: path.read_bytes() for path in [target, *target.rglob("*")] if path.is_file()}
    assert before.keys() == after.keys()
    assert before != after
    assert _there(tmp_path) == [target.name]


@pytest.mark.parametrize("format", ["triple", "folder"])
def test_a_folder_with_anything_else_in_it_stays_as_it_is(tmp_path: Path, format: str) -> None:
    target = tmp_path / "mine"
    exports.write(_set(GREY), target, format)
    (target / "thesis.tex").write_text("all of it")
    with pytest.raises(BadInput, match=r"a folder with other things in it: thesis\.tex"):
        exports.write(_set(GREY), target, format, overwrite=True)
    assert (target / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize("format", exports.FORMATS)
def test_where_it_cannot_be_written_nothing_is_left(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BadInput, match="the disk is full"):
        exports.write(_set(GREY), _target(tmp_path, format), format)
    assert not _there(tmp_path)


def test_a_device_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no file, and stays as it is"):
        exports.write(_set(GREY), Path("/dev/null"), "pt", overwrite=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(BadInput, match="there is no such folder"):
        exports.write(_set(GREY), tmp_path / "no" / "set.pt", "pt")


def test_class_folders_have_the_names_of_classes_where_those_can_be_names_of_folders() -> None:
    assert exports.folder_names(["cat", "dog", "Katze (groß)"]) == ["cat", "dog", "Katze (groß)"]
    assert exports.folder_names(["cat", "a/b"]) == ["class0000", "class0001"]
    assert exports.folder_names(["Cat", "cat"]) == ["class0000", "class0001"]
    assert exports.folder_names(["class0001", "../x"]) == ["class_0000", "class_0001"]


def test_no_name_of_a_class_leads_out_of_the_folder(tmp_path: Path) -> None:
    odd = [name for name in NAMES if not exports._is_safe(name)]
    assert {"../../../../outside", "/outside", "", "nul\x00byte", "..\\..\\outside"} <= set(odd)
    assert not any(exports._is_safe(name) for name in (".", "..", ".hidden", "end."))
    for name in ("../../outside", "..", "\0"):
        card = msgspec.structs.replace(GREY, classes=["one", "two", name])
        target = tmp_path / "set"
        exports.write(_set(card, "bytes"), target, "folder", overwrite=True)
        assert sorted(path.name for path in target.iterdir()) == ["class0000", "class0001", "class0002"]
        (found,) = imports.read(target, card).sets
        assert torch.equal(found.images, _set(card, "bytes").images)
    assert _there(tmp_path) == ["set"]


FORMATS: list[tuple[str | None, str | None, str]] = [
    (None, None, "safetensors"),
    (None, "a.PT", "pt"),
    (None, "a.npz", "npz"),
    ("triple", "a", "triple"),
    ("NPZ", None, "npz"),
    ("pt", "a", "pt"),
]


@pytest.mark.parametrize(("format", "output", "chosen"), FORMATS)
def test_the_format_is_that_of_the_suffix(format: str | None, output: str | None, chosen: str) -> None:
    assert exports.format_of(format, None if output is None else Path(output)) == chosen


WRONG: list[tuple[str | None, str, str]] = [
    (None, "a", "has no suffix: say --format safetensors or pt or"),
    (None, "a.tiff", "'a.tiff' cannot be written: a set has the suffix"),
    ("pt", "a.npz", "a set in pt has the suffix .pt, not .npz"),
    ("folder", "a.png", "is the name of a file: the format folder is a folder"),
    ("mat", "a.mat", "mat"),
]


@pytest.mark.parametrize(("format", "output", "said"), WRONG)
def test_a_suffix_that_says_something_else_is_refused(format: str | None, output: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        exports.format_of(format, Path(output))
