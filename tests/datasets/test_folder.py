import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput


def _image(path: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("ant", "bee"):
            for n in range(2):
                _image(tmp_path / "mine" / part / label / f"{n}.png", draw.integers(0, 256, (9, 12), dtype=np.uint8))
    return tmp_path / "mine"


def test_grey_images_stay_grey_and_keep_their_size(data: Path) -> None:
    card = datasets.prepare(Choice("folder"), data)
    assert (card.channels, card.height, card.width) == (1, 9, 12)
    assert (card.label, card.classes) == ("mine", ["ant", "bee"])
    train, _ = datasets.open_sets(card, torch.device("cpu"))
    first = np.asarray(Image.open(data / "train" / "ant" / "0.png"))
    assert np.array_equal(train.images[0, 0].numpy(), first)


def test_one_colour_image_makes_all_colour(data: Path) -> None:
    _image(data / "train" / "ant" / "2.png", np.zeros((9, 12, 3), np.uint8))
    assert datasets.prepare(Choice("folder"), data).channels == 3
    assert datasets.prepare(Choice("folder", {"channels": 1}), data).channels == 1


def test_images_of_different_sizes_need_a_size(data: Path) -> None:
    _image(data / "train" / "ant" / "2.png", np.zeros((20, 10), np.uint8))
    with pytest.raises(BadInput, match=r"2 different sizes \(10×20, 12×9, …\): say --set dataset\.size=32"):
        datasets.prepare(Choice("folder"), data)
    card = datasets.prepare(Choice("folder", {"size": 16}), data)
    assert (card.height, card.width) == (16, 16)
    assert card.notes[0] == "Cropped to a square around the centre: 9 of 9 images."


def test_sixteen_bits_are_scaled_to_eight_not_clipped(data: Path) -> None:
    for path in data.rglob("*.png"):
        _image(path, np.full((9, 12), 32896, np.uint16))
    train, _ = datasets.open_sets(datasets.prepare(Choice("folder"), data), torch.device("cpu"))
    assert set(train.images.flatten().tolist()) == {128}


def test_hidden_and_other_files_are_passed_over_and_val_is_a_test_part(data: Path) -> None:
    (data / "train" / "ant" / "notes.txt").write_text("x")
    (data / "train" / "ant" / "._0.png").write_bytes(b"x")
    (data / "train" / ".cache").mkdir()
    (data / "test").rename(data / "val")
    assert datasets.prepare(Choice("folder"), data).train_counts == [2, 2]


def test_a_changed_image_is_noticed(data: Path) -> None:
    before = datasets.prepare(Choice("folder"), data)
    _image(data / "train" / "ant" / "0.png", np.zeros((9, 12), np.uint8))
    assert datasets.prepare(Choice("folder"), data).sha256 != before.sha256


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_a_damaged_image_is_named(data: Path, content: bytes | str) -> None:
    path = data / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:60] if isinstance(content, str) else content)
    with pytest.raises(BadInput, match=r"bee/1\.png"):
        datasets.prepare(Choice("folder"), data)
    assert datasets.prepared() == []


def test_what_is_missing_is_said(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadInput, match="say --data DIR"):
        datasets.prepare(Choice("folder"), None)
    with pytest.raises(BadInput, match="is not a folder"):
        datasets.prepare(Choice("folder"), tmp_path / "none")
    with pytest.raises(BadInput, match="has no folder 'train'"):
        datasets.prepare(Choice("folder"), tmp_path)
    (tmp_path / "half" / "train" / "ant").mkdir(parents=True)
    _image(tmp_path / "half" / "train" / "ant" / "0.png", np.zeros((9, 12), np.uint8))
    with pytest.raises(BadInput, match="has no folder 'test'"):
        datasets.prepare(Choice("folder"), tmp_path / "half")
    shutil.rmtree(data / "test")
    (data / "test").mkdir()
    with pytest.raises(BadInput, match="has no image in a class folder"):
        datasets.prepare(Choice("folder"), data)


def test_a_class_without_training_images_is_named(data: Path) -> None:
    for path in (data / "train" / "bee").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match=r"class 'bee' has no image in .*train"):
        datasets.prepare(Choice("folder"), data)
    (data / "train" / "bee").rmdir()
    (data / "train" / "cat").mkdir()
    _image(data / "train" / "cat" / "0.png", np.zeros((9, 12), np.uint8))
    with pytest.raises(BadInput, match="Class 'bee' of folder has test images but no training image"):
        datasets.prepare(Choice("folder"), data)
    (data / "train" / "cat").rename(data / "train" / "Bee")
    with pytest.raises(BadInput, match="Is 'Bee' the same\\? Give it one name"):
        datasets.prepare(Choice("folder"), data)


def test_another_folder_is_another_dataset_even_if_names_sizes_and_times_agree(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "twin")
    for path in (tmp_path / "twin").rglob("*.png"):
        _image(path, np.zeros((9, 12), np.uint8))
        path.write_bytes(path.read_bytes().ljust((data / path.relative_to(tmp_path / "twin")).stat().st_size, b"\0"))
    for path in [*data.rglob("*.png"), *(tmp_path / "twin").rglob("*.png")]:
        os.utime(path, (0, 0))
    first, second = (datasets.prepare(Choice("folder"), folder) for folder in (data, tmp_path / "twin"))
    assert first.sha256 != second.sha256
    assert second.label == "twin"


def test_sixteen_bit_pgm_is_scaled_too(data: Path) -> None:
    for path in list(data.rglob("*.png")):
        path.unlink()
        header = b"P5 12 9 65535\n"
        path.with_suffix(".pgm").write_bytes(header + np.full((9, 12), 32896, ">u2").tobytes())
    card = datasets.prepare(Choice("folder"), data)
    train, _ = datasets.open_sets(card, torch.device("cpu"))
    assert card.channels == 1
    assert set(train.images.flatten().tolist()) == {128}


def test_pixels_that_have_no_known_white_are_refused(data: Path) -> None:
    Image.fromarray(np.full((9, 12), 3.7, np.float32)).save(data / "train" / "ant" / "2.tif")
    with pytest.raises(BadInput, match=r"2\.tif' has fractions up to 3\.7: 1 as white, or whole"):
        datasets.prepare(Choice("folder"), data)


def test_names_that_are_not_utf8_are_taken(data: Path) -> None:
    folder = os.fsencode(data / "train") + b"/\xff"
    os.mkdir(folder)
    shutil.copy(os.fsencode(data / "train" / "ant" / "0.png"), folder + b"/\xfe.png")
    assert datasets.prepare(Choice("folder"), data).classes == ["ant", "bee", "\ufffd"]


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_taken(data: Path, tmp_path: Path) -> None:
    image = data / "train" / "ant" / "0.png"
    (data / "train" / "ant" / "2.png").symlink_to(image)
    assert datasets.prepare(Choice("folder"), data).train_counts == [3, 2]
    shutil.copy(image, tmp_path / "secret.png")
    (data / "train" / "ant" / "3.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(BadInput, match=r"3\.png' is a link out of"):
        datasets.prepare(Choice("folder"), data)
    (data / "train" / "ant" / "3.png").unlink()
    shutil.copytree(data / "train" / "bee", tmp_path / "cats")
    (data / "train" / "cat").symlink_to(tmp_path / "cats")
    with pytest.raises(BadInput, match="cat' is a link out of"):
        datasets.prepare(Choice("folder"), data)


def test_a_whole_part_may_lie_elsewhere(data: Path, tmp_path: Path) -> None:
    (data / "train").rename(tmp_path / "elsewhere")
    (data / "train").symlink_to(tmp_path / "elsewhere")
    assert datasets.prepare(Choice("folder"), data).train_counts == [2, 2]


def test_a_pipe_among_the_images_is_not_waited_for(data: Path) -> None:
    os.mkfifo(data / "train" / "ant" / "9.png")
    with pytest.raises(BadInput, match=r"9\.png' is not a file"):
        datasets.prepare(Choice("folder"), data)


@pytest.mark.parametrize("size", [10_000, 30_000])
def test_an_image_that_claims_to_be_gigantic_is_not_decoded(data: Path, size: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    (data / "train" / "ant" / "9.png").write_bytes(bomb)
    with pytest.raises(BadInput, match=r"9\.png' is not an image that can be read"):
        datasets.prepare(Choice("folder", {"size": 8}), data)


def test_more_images_than_memory_are_refused_before_any_is_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dambench.datasets._images.free_bytes", lambda: 100)
    with pytest.raises(BadInput, match=r"4 images of 1 × 9 × 12 take 432 B, more memory than is free"):
        datasets.prepare(Choice("folder"), data)


def _notes(data: Path, **options: object) -> list[str]:
    return datasets.prepare(Choice("folder", options), data).notes


def test_plain_images_give_no_note_and_every_odd_file_is_in_one(data: Path) -> None:
    assert _notes(data) == []
    shutil.copytree(data / "test", data / "valid")
    (data / "masks").mkdir()
    ants = data / "train" / "ant"
    for name in ("notes.txt", "more.heic", ".hidden.png", "Thumbs.db", "._0.png", ".DS_Store"):
        (ants / name).write_bytes(b"x")
    shutil.copy(ants / "0.png", data / "train" / "loose.png")
    shutil.copy(ants / "0.png", data / "loose.png")
    expected = [
        "Not used, beside the training and the test part: 'valid', 'masks'.",
        "Passed over as hidden: 'train/ant/.hidden.png'.",
        "Passed over, in no class folder: 2 files, 'train/loose.png' for one.",
        "Passed over, since dambench can read no image from it (1 .heic, 1 .txt): "
        "2 files, 'train/ant/more.heic' for one.",
    ]
    for _ in range(2):  # also once it is prepared
        assert sorted(_notes(data)) == sorted(expected)
    (data / "train" / ".git").mkdir()  # a note may change with no image changing
    assert "Passed over as hidden: 2 files, 'train/.git' for one." in _notes(data)


def test_images_in_folders_of_a_class_folder_are_its_images(data: Path) -> None:
    before = datasets.prepare(Choice("folder"), data)
    (data / "train" / "bee" / "batch" / "1").mkdir(parents=True)
    (data / "train" / "bee" / "1.png").rename(data / "train" / "bee" / "batch" / "1" / "1.png")
    after = datasets.prepare(Choice("folder"), data)
    assert (after.sha256, after.notes) == (before.sha256, [])


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("Train", "Test", []),
        ("TRAIN", "testing", []),
        ("training", "Validation", ["The test set is 'Validation': there is no folder 'test'."]),
    ],
)
def test_the_parts_may_be_called_as_is_usual(data: Path, train: str, test: str, said: list[str]) -> None:
    before = datasets.prepare(Choice("folder"), data)
    (data / "train").rename(data / train)
    (data / "test").rename(data / test)
    card = datasets.prepare(Choice("folder"), data)
    assert (card.sha256, card.notes) == (before.sha256, said)


def test_two_folders_for_one_part_are_refused(data: Path) -> None:
    (data / "Training").mkdir()
    with pytest.raises(BadInput, match=r"has 'Training' and 'train': which of them is the train part"):
        datasets.prepare(Choice("folder"), data)


@pytest.mark.parametrize("part", ["train", ""])
def test_a_test_set_is_split_off_where_there_is_none(data: Path, part: str) -> None:
    shutil.rmtree(data / "test")
    for n in range(2, 10):
        _image(data / "train" / "ant" / f"{n}.png", np.full((9, 12), n, np.uint8))
    if not part:
        for label in ("ant", "bee"):
            (data / "train" / label).rename(data / label)
        (data / "train").rmdir()
    with pytest.raises(BadInput, match=r"--set dataset\.split=0\.2"):
        datasets.prepare(Choice("folder"), data)
    card = datasets.prepare(Choice("folder", {"split": 0.2}), data)
    assert (card.train_counts, card.test_counts) == ([8, 1], [2, 1])
    assert card.label == "mine (split 0.2)"
    assert "the test set is 0.2 of each class, 3 of 12 images, drawn with seed 0" in card.notes[0]
    images = torch.cat([part.images for part in datasets.open_sets(card, torch.device("cpu"))])
    assert len(images.flatten(1).unique(dim=0)) == 12
    (data / part / "bee" / "1.png").unlink()
    with pytest.raises(BadInput, match=r"needs two images of each class, .*: 'bee' has 1"):
        datasets.prepare(Choice("folder", {"split": 0.2}), data)


def test_a_split_where_there_is_a_test_part_is_refused(data: Path) -> None:
    with pytest.raises(BadInput, match=r"dataset\.split makes a test part, but .* has one, 'test'"):
        datasets.prepare(Choice("folder", {"split": 0.2}), data)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_folder_without_an_image_is_an_error_also_where_all_is_prepared(data: Path, part: str) -> None:
    datasets.prepare(Choice("folder"), data)
    (data / part / "cow" / "empty").mkdir(parents=True)
    for name in (".DS_Store", "cow.txt"):
        with pytest.raises(BadInput, match=rf"The class 'cow' has no image in '.*{part}'"):
            datasets.prepare(Choice("folder"), data)
        (data / part / "cow" / name).write_bytes(b"x")


def test_links_in_a_circle_or_to_nowhere_are_a_sentence(data: Path) -> None:
    ants = data / "train" / "ant"
    for name, target, said in (
        ("up", "..", "is a link to a folder that it lies in"),
        ("self.png", "self.png", "cannot be followed|leads nowhere"),
        ("gone.png", "gone", "leads nowhere"),
    ):
        (ants / name).symlink_to(target)
        with pytest.raises(BadInput, match=f"{name}' .*({said})"):
            datasets.prepare(Choice("folder"), data)
        (ants / name).unlink()
    (ants / "/".join("d" * 40)).mkdir(parents=True)
    with pytest.raises(BadInput, match="deeper than any image needs"):
        datasets.prepare(Choice("folder"), data)
    (data / "train" / "loop").symlink_to("loop")
    with pytest.raises(BadInput, match="loop' cannot be followed"):
        datasets.prepare(Choice("folder"), data)


def test_what_a_look_at_the_images_would_show_is_said(data: Path) -> None:
    shutil.copy(data / "train" / "ant" / "0.png", data / "test" / "ant" / "copy.png")
    with Image.open(data / "train" / "bee" / "0.png") as image:
        image.save(data / "test" / "ant" / "copy.bmp")  # the same pixels in another file
    assert _notes(data) == [
        "Test images that are copies of training images: 2 of 6, 1 of them in another class than there."
    ]
    for path in (data / "train" / "ant").iterdir():
        _image(path, np.full((9, 12), 7, np.uint8))
    assert _notes(data)[:2] == [
        "Classes whose training images are all alike: 'ant'.",
        "Training images of one colour all over: 2 of 4.",
    ]
    for path in data.rglob("*.png"):
        _image(path, np.full((9, 12), 7, np.uint8))
    (data / "test" / "ant" / "copy.bmp").unlink()
    assert _notes(data) == ["All training images are alike: nothing tells the classes apart."]
    _image(data / "train" / "ant" / "0.png", np.full((9, 12), 9, np.uint8))
    assert "The images are nearly black: their brightest pixel is 9 of 255." in _notes(data)
