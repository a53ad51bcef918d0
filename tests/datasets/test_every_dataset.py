"""Promises that all datasets make. The raw data of each are made here, in its own layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dambench import datasets, files, networks, registry
from dambench.config import Choice
from dambench.events import DataCard


def _npz(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    path = folder / "flowers.npz"
    np.savez(
        path,
        x_train=draw.integers(0, 256, (12, 9, 8, 3), dtype=np.uint8),
        y_train=np.repeat([3, 5, 9], [7, 4, 1]),
        x_test=draw.integers(0, 256, (6, 9, 8, 3), dtype=np.uint8),
        y_test=np.array([3, 3, 3, 5, 5, 9]),
    )
    return path


def _folder(folder: Path) -> Path:
    draw = np.random.default_rng(1)
    for part, counts in (("train", (5, 3)), ("test", (2, 2))):
        for label, count in zip(("ant", "bee"), counts, strict=True):
            (folder / "insects" / part / label).mkdir(parents=True)
            for n in range(count):
                pixels = draw.integers(0, 256, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "insects" / part / label / f"{n}.png")
    return folder / "insects"


SOURCES = {"digits": lambda folder: None, "arrays": _npz, "folder": _folder}


def _prepare(name: str, folder: Path) -> DataCard:
    return datasets.prepare(Choice(name), SOURCES[name](folder))


NAMES = registry.names("datasets")


def test_each_dataset_has_a_source_to_test_it_on() -> None:
    assert set(SOURCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_prepared_is_what_the_module_reads(name: str, tmp_path: Path) -> None:
    data = SOURCES[name](tmp_path)
    module = registry.load("datasets", name)
    raw = module.load(module.Options(), data)
    card = datasets.prepare(Choice(name), data)
    train, test = datasets.open_sets(card, torch.device("cpu"))
    for part, images, labels in (
        (train, raw.train_images, raw.train_labels),
        (test, raw.test_images, raw.test_labels),
    ):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == images.shape
        assert part.labels.tolist() == sorted(labels.tolist())
        for label in range(len(raw.classes)):
            theirs = images[labels == label]
            assert np.array_equal(part.images[part.labels == label].numpy(), theirs)
    assert (card.channels, card.height, card.width) == tuple(raw.train_images.shape[1:])
    assert card.majority == max(card.test_counts) / sum(card.test_counts)
    assert card.mirrors == module.MIRRORS


@pytest.mark.parametrize("name", NAMES)
def test_normalised_training_images_have_mean_zero_and_std_one(name: str, tmp_path: Path) -> None:
    train, _ = datasets.open_sets(_prepare(name, tmp_path), torch.device("cpu"))
    images = train.normalisation.apply(train.images)
    assert images.mean((0, 2, 3)).abs().max() < 1e-3
    assert (images.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_it_is_prepared_once_and_the_same_each_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    data = SOURCES[name](tmp_path)
    first = datasets.prepare(Choice(name), data, heard.append)
    assert len(heard) == 1
    assert datasets.prepare(Choice(name), data, heard.append) == first
    assert len(heard) == 1
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "another"))
    assert datasets.prepare(Choice(name), data) == first


@pytest.mark.parametrize("name", NAMES)
def test_damaged_or_half_written_files_are_not_taken_for_whole(name: str, tmp_path: Path) -> None:
    data = SOURCES[name](tmp_path)
    card = datasets.prepare(Choice(name), data)
    tensors = datasets.path_of(card)
    whole = tensors.read_bytes()
    for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        tensors.write_bytes(damage)
        assert datasets.prepare(Choice(name), data) == card
        assert tensors.read_bytes() == whole
    tensors.unlink()
    assert datasets.prepare(Choice(name), data) == card
    tensors.with_suffix(".json").write_text("{")
    assert datasets.prepare(Choice(name), data) == card
    assert [c.sha256 for c in datasets.prepared()] == [card.sha256]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("written", [0, 1])
def test_an_interrupted_preparation_leaves_nothing_that_counts(
    name: str, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SOURCES[name](tmp_path)
    real = files.write_whole
    calls: list[Path] = []

    def interrupted(path: Path, content: bytes) -> None:
        if len(calls) == written:
            raise KeyboardInterrupt
        calls.append(path)
        real(path, content)

    monkeypatch.setattr(files, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.prepare(Choice(name), data)
    assert datasets.prepared() == []
    monkeypatch.undo()
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "home"))
    assert datasets.prepare(Choice(name), data)


@pytest.mark.parametrize("name", NAMES)
def test_its_network_suits_it(name: str, tmp_path: Path) -> None:
    card = _prepare(name, tmp_path)
    full = networks.settle(registry.load("datasets", name).NETWORK or "convnet", card)
    network = networks.build(full, card)
    images = torch.zeros(2, card.channels, card.height, card.width)
    assert network(images).shape == (2, len(card.classes))
