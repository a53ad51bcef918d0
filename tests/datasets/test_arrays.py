import contextlib
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dambench import datasets
from dambench.config import Choice
from dambench.errors import BadInput


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
        ({"x_train": np.zeros((4, 8, 8), np.float32)}, "x_train is float32, not uint8"),
        ({"x_train": np.zeros((4, 8), np.uint8)}, "x_train has shape"),
        ({"x_train": np.zeros((4, 8, 8, 2), np.uint8)}, "x_train has shape"),
        ({"x_train": np.zeros((5, 8, 8), np.uint8)}, "5 images but 4 labels"),
        ({"x_test": np.zeros((2, 9, 8), np.uint8)}, "training images of arrays are 1 × 8 × 8"),
        ({"y_train": np.array([0.0, 0.0, 1.0, 1.0])}, "y_train is float64"),
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
