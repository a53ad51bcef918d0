"""CIFAR-10 and CIFAR-100: pickles, which could run any code."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dambench import datasets
from dambench.core import registry
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from dambench.datasets import cifar10, cifar100
from tests.datasets import stand_ins


class _Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "raw").mkdir()
    return stand_ins.cifar10_batches(tmp_path / "raw", monkeypatch)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_labels_and_classes_are_those_that_torchvision_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    raw = stand_ins.SOURCES[name](tmp_path, monkeypatch)
    module = registry.load("datasets", name)
    theirs = getattr(torchvision.datasets, name.upper())
    md5s = {Path(path).name: md5 for path, md5 in module.module.FILES.items()}
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, part, [[file, md5s[file]] for file, _ in getattr(theirs, part)])
    if name == "cifar100":
        monkeypatch.setattr(theirs, "meta", theirs.meta | {"md5": md5s["meta"]})
    else:
        monkeypatch.setattr(theirs, "_load_meta", lambda self: None)
    read = module.load(module.Options(), raw)
    for train, images, labels in (
        (True, read.train_images, read.train_labels),
        (False, read.test_images, read.test_labels),
    ):
        expected = theirs(raw, train=train)
        assert np.array_equal(images.transpose(0, 2, 3, 1), expected.data)
        assert labels.tolist() == list(expected.targets)
        if name == "cifar100":
            assert read.classes == expected.classes


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_what_has_another_checksum_is_not_unpickled(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = stand_ins.SOURCES[name](tmp_path, monkeypatch)
    assert raw is not None
    harm = tmp_path / "harm"
    for path in registry.load("datasets", name).FILES:
        official = (raw / path).read_bytes()
        (raw / path).write_bytes(pickle.dumps(_Hostile(harm)))
        with pytest.raises(BadInput, match=rf"{path}' is damaged, or is not the official file of {name}: its MD5 is"):
            datasets.prepare(Choice(name), raw)
        assert not harm.exists()
        (raw / path).write_bytes(official)
    pickle.loads(pickle.dumps(_Hostile(harm)))
    assert harm.exists()  # it would have


def test_npz_and_batches_give_the_same_prepared_file(
    batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = datasets.prepare(Choice("cifar10"), batches)
    (tmp_path / "npz").mkdir()
    arrays: dict[str, Any] = dict(stand_ins.cifar10_arrays(batches))
    np.savez(tmp_path / "npz" / "cifar10.npz", **arrays)
    for home, data in (("a", tmp_path / "npz"), ("b", tmp_path / "npz" / "cifar10.npz")):
        monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / home))
        assert datasets.prepare(Choice("cifar10"), data) == card


def test_other_or_reordered_images_are_not_taken_for_cifar10(batches: Path, tmp_path: Path) -> None:
    arrays: dict[str, Any] = dict(stand_ins.cifar10_arrays(batches))
    path = tmp_path / "cifar10.npz"
    order = np.r_[1, 0, 2 : len(arrays["y_train"])]
    for wrong in (
        arrays | {"x_train": arrays["x_train"][order], "y_train": arrays["y_train"][order]},
        arrays | {"y_test": arrays["y_test"].astype(np.int64)},
        arrays | {"x_test": arrays["x_test"].transpose(0, 3, 1, 2)},
    ):
        np.savez(path, **wrong)
        with pytest.raises(BadInput, match=r"cifar10\.npz' does not have the images of CIFAR-10 in their order"):
            datasets.prepare(Choice("cifar10"), path)


def test_an_npz_that_is_damaged_hostile_or_another_is_a_sentence(batches: Path, tmp_path: Path) -> None:
    arrays: dict[str, Any] = dict(stand_ins.cifar10_arrays(batches))
    path = tmp_path / "cifar10.npz"
    harm = tmp_path / "harm"
    hostile = np.empty(1, object)
    hostile[0] = _Hostile(harm)
    for wrong in (arrays | {"y_test": hostile}, {"x_train": arrays["x_train"]}):
        np.savez(path, **wrong)
        with pytest.raises(BadInput, match=r"cifar10\.npz' is not a whole \.npz file with the arrays x_train"):
            datasets.prepare(Choice("cifar10"), path)
    assert not harm.exists()
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"is not a whole \.npz file"):
        datasets.prepare(Choice("cifar10"), path)
    with pytest.raises(BadInput, match=r"none\.npz' is not a folder"):
        datasets.prepare(Choice("cifar10"), tmp_path / "none.npz")


def test_cifar100_can_have_the_statistics_of_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = stand_ins.cifar100_pickles(tmp_path, monkeypatch)
    own, others = (datasets.prepare(Choice("cifar100", {"statistics": which}), raw) for which in ("own", "cifar10"))
    assert (own.mean, own.std) == (cifar100.MEAN, cifar100.STD)
    assert (others.mean, others.std) == (cifar10.MEAN, cifar10.STD)
    assert own.sha256 != others.sha256
    with pytest.raises(BadInput, match="statistics = 'imagenet' is not allowed"):
        datasets.prepare(Choice("cifar100", {"statistics": "imagenet"}), raw)
