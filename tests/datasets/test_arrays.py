import contextlib
import os
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput


def _arrays(**changes: Any) -> dict[str, Any]:
    return {
        "x_train": np.zeros((4, 8, 8), np.uint8),
        "y_train": np.array([0, 0, 1, 1]),
        "x_test": np.zeros((2, 8, 8), np.uint8),
        "y_test": np.array([0, 1]),
    } | changes


def _save(path: Path, **changes: Any) -> Path:
    found = {key: value for key, value in _arrays(**changes).items() if value is not None}
    np.savez(path / "mine.npz", **found)
    return path / "mine.npz"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 6), (1, 8, 6)),
        ((8, 6, 1), (1, 8, 6)),
        ((8, 6, 3), (3, 8, 6)),
        ((3, 8, 6), (3, 8, 6)),
        ((1, 8, 6), (1, 8, 6)),
    ],
)
def test_grey_and_colour_in_either_layout_are_taken(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = _save(tmp_path, x_train=np.zeros((4, *shape), np.uint8), x_test=np.zeros((2, *shape), np.uint8))
    card = datasets.prepare(Choice("arrays"), path)
    assert (card.channels, card.height, card.width) == expected


def test_labels_may_be_any_whole_numbers_and_may_have_names(tmp_path: Path) -> None:
    labels = {
        "y_train": np.array([[-3], [7], [7], [7]], np.int16),
        "y_test": np.array([7, -3]),
    }
    card = datasets.prepare(Choice("arrays"), _save(tmp_path, **labels))
    assert card.classes == ["-3", "7"]
    assert card.train_counts == [1, 3]
    named = _save(tmp_path, **labels, classes=np.array(["cat", "d\x1bog"]))
    assert datasets.prepare(Choice("arrays"), named).classes == ["cat", "d\ufffdog"]


def test_another_file_of_the_same_name_is_another_dataset(tmp_path: Path) -> None:
    first = datasets.prepare(Choice("arrays"), _save(tmp_path))
    second = datasets.prepare(Choice("arrays"), _save(tmp_path, x_train=np.ones((4, 8, 8), np.uint8)))
    assert first.sha256 != second.sha256
    assert first.label == second.label == "mine"
    assert len(datasets.prepared()) == 2


def test_whether_mirror_images_are_other_classes_makes_another_dataset(tmp_path: Path) -> None:
    path = _save(tmp_path)
    one, other = (datasets.prepare(Choice("arrays", {"mirrors": mirrors}), path) for mirrors in (True, False))
    assert (one.mirrors, other.mirrors) == (True, False)
    assert one.sha256 != other.sha256  # they are augmented otherwise: their scores must not be taken for the same
    assert datasets.path_of(one) != datasets.path_of(other)


def test_a_renamed_file_has_its_new_name(tmp_path: Path) -> None:
    path = _save(tmp_path)
    assert datasets.prepare(Choice("arrays"), path).label == "mine"
    assert datasets.prepare(Choice("arrays"), path.rename(tmp_path / "yours.npz")).label == "yours"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_test": None}, "has no array 'x_test'"),
        ({"x_train": np.zeros((4, 8, 8), np.float32)}, "x_train and x_test are float32 and uint8: one kind is needed"),
        ({"x_train": np.full((4, 8, 8), "a")}, "x_train is <U1: numbers are needed"),
        ({"x_train": np.zeros((4, 8), np.uint8)}, "x_train has shape"),
        ({"x_train": np.zeros((4, 8, 8, 2), np.uint8)}, "x_train has shape"),
        ({"x_train": np.zeros((5, 8, 8), np.uint8)}, "5 images but 4 labels"),
        ({"x_test": np.zeros((2, 9, 8), np.uint8)}, "training images of arrays are 1 × 8 × 8"),
        ({"y_train": np.array([0.0, 0.5, 1.0, 1.0])}, "y_train is float64"),
        ({"y_train": np.array([0.0, np.inf, 1.0, 1.0])}, "y_train is float64"),
        ({"y_train": np.array(["a", "b", "a", "b"])}, "y_train and y_test are texts and numbers"),
        ({"y_train": np.array([[1, 1], [0, 1], [1, 0], [0, 1]])}, "y_train has several classes for an image, or none"),
        ({"y_train": np.eye(4)[[0, 0, 1, 1]]}, "Class '2' of arrays has no image at all"),
        ({"y_train": np.eye(4), "y_test": np.eye(2)}, "have different numbers of classes"),
        (
            {"y_train": np.eye(4)[:, :2] + [[0, 0], [0, 0], [1, 0], [0, 1]], "y_test": np.array([0, 2])},
            "different numbers",
        ),
        ({"X_train": np.zeros(3)}, "has 'x_train' and 'X_train': which of them"),
        ({"y_train": np.array([0, 0, 0, 0])}, "Class '1' of arrays has test images but no training image"),
        ({"y_train": np.zeros(4, int), "y_test": np.zeros(2, int)}, "at least 2 are needed"),
        ({"x_test": np.zeros((0, 8, 8), np.uint8), "y_test": np.zeros(0, int)}, "test set of arrays is empty"),
        ({"y_test": np.array([{}, {}], object)}, "is not a whole .npz file of plain arrays"),
        ({"classes": np.array(["a"])}, "names 1 classes but the labels have 2"),
        ({"x_train": np.zeros((4, 0, 8), np.uint8), "x_test": np.zeros((2, 0, 8), np.uint8)}, "have no pixels"),
    ],
)
def test_what_is_wrong_with_the_arrays_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        datasets.prepare(Choice("arrays"), _save(tmp_path, **changes))
    assert said in str(error.value)
    assert datasets.prepared() == []


def test_a_truncated_or_foreign_file_is_bad_input(tmp_path: Path) -> None:
    path = _save(tmp_path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"hello", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"is not a whole \.npz file"):
            datasets.prepare(Choice("arrays"), path)


def test_it_says_which_file_it_needs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--data FILE\.npz"):
        datasets.prepare(Choice("arrays"), None)
    with pytest.raises(BadInput, match="is not a file"):
        datasets.prepare(Choice("arrays"), tmp_path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path, x_test=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_test", b"not an array")
    with pytest.raises(BadInput, match="x_test is not an array"):
        datasets.prepare(Choice("arrays"), path)


def test_a_header_that_claims_the_impossible_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path, x_test=None)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 8, 8), }"
    npy = b"\x93NUMPY\x01\x00" + len(header + b"\n").to_bytes(2, "little") + header + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_test.npy", npy)
    with pytest.raises(BadInput, match=r"is not a whole \.npz file"):
        datasets.prepare(Choice("arrays"), path)


def test_every_damage_to_a_compressed_file_is_a_sentence(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = _arrays(x_train=draw.integers(0, 256, (40, 8, 8), dtype=np.uint8), y_train=np.arange(40) % 2)
    np.savez_compressed(tmp_path / "mine.npz", **arrays)
    whole = (tmp_path / "mine.npz").read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << draw.integers(8)
        (tmp_path / "mine.npz").write_bytes(damaged)
        with contextlib.suppress(BadInput):
            datasets.prepare(Choice("arrays"), tmp_path / "mine.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dambench.datasets.arrays.free_bytes", lambda: 10_000_000)
    np.savez_compressed(tmp_path / "mine.npz", **_arrays(x_train=np.zeros((200_000, 8, 8), np.uint8)))
    assert (tmp_path / "mine.npz").stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(BadInput, match="would unpack to 4 files of 13 MB, but 10 MB are the most"):
        datasets.prepare(Choice("arrays"), tmp_path / "mine.npz")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../x_train.npy", "/x_train.npy", "..\\x_train.npy"])
def test_an_archive_with_names_that_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    path = _save(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(BadInput, match="is refused: its member"):
        datasets.prepare(Choice("arrays"), path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.npz")
    with pytest.raises(BadInput, match="is not a file"):
        datasets.prepare(Choice("arrays"), tmp_path / "mine.npz")


def test_arrays_may_be_packed_and_in_either_order(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
    found = _arrays(x_train=images, x_test=images[:2])
    np.savez(tmp_path / "one.npz", **found)
    np.savez_compressed(tmp_path / "two.npz", **found | {"x_train": np.asfortranarray(images)})
    one, two = (datasets.prepare(Choice("arrays"), tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert one.sha256 == two.sha256


SPREAD = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)


@pytest.mark.parametrize(
    ("images", "options", "white"),
    [
        (SPREAD.astype(np.int64), {}, ""),
        (SPREAD.astype(np.float32), {}, ""),
        (SPREAD / 255, {}, "0 was taken for black, 1 for white"),
        ((SPREAD / 255).astype(np.float16), {}, "0 was taken for black, 1 for white"),
        (SPREAD / 127.5 - 1, {}, "-1 was taken for black, 1 for white"),
        (np.ceil(SPREAD * (4095 / 255)).astype(np.uint16), {}, "0 was taken for black, 4095 for white"),
        (np.ceil(SPREAD * (4095 / 255)).astype(">i4"), {}, "0 was taken for black, 4095 for white"),
        (SPREAD.astype(np.uint16) * 257, {}, "0 was taken for black, 65535 for white"),
        (SPREAD * (16 / 255), {"range": "0..16"}, ""),
        (SPREAD / 255 * 5 - 2, {"range": "-2..3"}, ""),
    ],
)
def test_pixels_of_any_range_become_the_same_bytes(
    tmp_path: Path, images: Any, options: dict[str, Any], white: str
) -> None:
    bytes_ = datasets.prepare(Choice("arrays"), _save(tmp_path, x_train=SPREAD, x_test=SPREAD[:2]))
    card = datasets.prepare(Choice("arrays", options), _save(tmp_path, x_train=images, x_test=images[:2]))
    assert card.sha256 == bytes_.sha256
    assert [white in note for note in card.notes if "was taken for black" in note] == ([True] if white else [])


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (SPREAD * (16 / 255), {}, "float64 from 0 to 16, and nobody knows what is black and white"),
        ((SPREAD - 128.0) / 70, {}, "nobody knows"),
        ((SPREAD - 128.0) / 200, {}, "nobody knows"),
        (SPREAD.astype(np.int64) * 300, {}, "nobody knows"),
        (SPREAD.astype(np.int64) - 9, {}, "nobody knows"),
        (np.where(SPREAD == 3, np.nan, SPREAD), {}, "no finite numbers"),
        (np.where(SPREAD == 3, np.inf, SPREAD), {"range": "0..255"}, "no finite numbers"),
        (SPREAD / 255, {"range": "0..0.5"}, "dataset.range = 0..0.5 is too narrow"),
        (SPREAD / 255, {"range": "1..0"}, "not of the form black..white"),
    ],
)
def test_a_range_that_nobody_knows_or_that_does_not_hold_is_refused(
    tmp_path: Path, images: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        datasets.prepare(Choice("arrays", options), _save(tmp_path, x_train=images, x_test=images[:2]))


def test_labels_may_be_texts_or_one_hot(tmp_path: Path) -> None:
    texts = {"y_train": np.array(["dog", "cat", "dog", "eel"]), "y_test": np.array([b"cat", b"dog"])}
    card = datasets.prepare(Choice("arrays"), _save(tmp_path, **texts))
    assert (card.classes, card.train_counts) == (["cat", "dog", "eel"], [1, 2, 1])
    assert "Without a test image, so that nothing is known of them: 'eel'." in card.notes
    card = datasets.prepare(Choice("arrays"), _save(tmp_path, **texts, classes=np.array(["eel", "dog", "cat"])))
    assert (card.classes, card.train_counts, card.test_counts) == (["eel", "dog", "cat"], [1, 2, 1], [0, 1, 1])
    twins = {"y_train": np.array(["Cat", "cat ", "dog", "dog"]), "y_test": np.array(["Cat", "dog"])}
    assert (
        "the same but for case or spaces: 'Cat', 'cat '."
        in datasets.prepare(Choice("arrays"), _save(tmp_path, **twins)).notes[0]
    )
    eye = {"y_train": np.eye(2)[[1, 0, 1, 1]], "y_test": np.eye(2, dtype=bool)}
    card = datasets.prepare(Choice("arrays"), _save(tmp_path, **eye, classes=np.array(["a", "b"])))
    assert (card.classes, card.train_counts) == (["a", "b"], [1, 3])
    floats = {"y_train": np.array([1.0, 0.0, 1.0, 1.0]), "y_test": np.array([[0], [1]])}
    assert datasets.prepare(Choice("arrays"), _save(tmp_path, **floats)).classes == ["0", "1"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            "train_images train_labels test_images test_labels val_images val_labels",
            "Arrays that were not used: val_images, val_labels",
        ),
        ("X_train Y_train X_test Y_test", ""),
        ("trainX trainY testX testY ids", "Arrays that were not used: ids"),
        ("xtrain ytrain xtest ytest", ""),
        ("train_data train_targets val_data val_targets", "The test set is val_data: there is no test part"),
    ],
)
def test_arrays_are_known_by_the_names_that_others_give_them(tmp_path: Path, names: str, said: str) -> None:
    usual = datasets.prepare(Choice("arrays"), _save(tmp_path))
    np.savez(tmp_path / "mine.npz", **dict(zip(names.split(), [*_arrays().values()] * 2, strict=False)))
    card = datasets.prepare(Choice("arrays"), tmp_path / "mine.npz")
    assert card.sha256 == usual.sha256
    assert [note for note in card.notes if "not used" in note or "test part" in note] == ([f"{said}."] if said else [])


def test_without_a_test_part_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    images = np.arange(100, dtype=np.uint8).repeat(64).reshape(100, 8, 8)
    labels = np.arange(100) % 10 // 9  # 90 and 10
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    with pytest.raises(BadInput, match=r"Without a test part, say --set dataset\.split=0\.2"):
        datasets.prepare(Choice("arrays"), tmp_path / "mine.npz")
    cards = [
        datasets.prepare(Choice("arrays", {"split": 0.2, "split_seed": seed}), tmp_path / "mine.npz") for seed in (0, 1)
    ]
    for card in cards:
        assert (card.train_counts, card.test_counts) == ([72, 8], [18, 2])
        train, test = (part.images[:, 0, 0, 0].tolist() for part in datasets.open_sets(card, torch.device("cpu")))
        assert sorted(train + test) == list(range(100))
        assert [labels[n] for n in train] == sorted(labels[n] for n in train)
    assert cards[0].sha256 != cards[1].sha256
    assert [card.label for card in cards] == ["mine (split 0.2)", "mine (split 0.2, seed 1)"]
    assert "the test set is 0.2 of each class, 20 of 100 images, drawn with seed 0" in cards[0].notes[0]
    with pytest.raises(BadInput, match=r"dataset\.split makes a test part, but"):
        datasets.prepare(Choice("arrays", {"split": 0.2}), _save(tmp_path))
