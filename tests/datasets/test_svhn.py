from pathlib import Path

import numpy as np
import pytest

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from dambench.datasets import svhn
from tests.datasets import stand_ins


def test_images_and_labels_are_those_that_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all, that the label 10 of the files is the digit 0."""
    from torchvision.datasets import SVHN

    raw = stand_ins.mat(tmp_path, monkeypatch)
    split = zip(("train", "test"), svhn.FILES.items(), strict=True)
    monkeypatch.setattr(SVHN, "split_list", {part: ["", path, md5] for part, (path, md5) in split})
    read = svhn.load(svhn.Options(), raw)
    for part, images, labels in (
        ("train", read.train_images, read.train_labels),
        ("test", read.test_images, read.test_labels),
    ):
        expected = SVHN(raw, part)
        assert np.array_equal(images, expected.data)
        assert np.array_equal(labels, expected.labels)
    assert set(read.train_labels.tolist()) == set(range(10))


def test_a_file_with_another_checksum_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = stand_ins.mat(tmp_path, monkeypatch)
    path = raw / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"test_32x32\.mat' is damaged, or is not the official file of svhn: its MD5 is"):
        datasets.prepare(Choice("svhn"), raw)
