"""Promises that all datasets make. The raw data of each are made by `stand_ins`, in its own layout."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dambench import datasets, networks
from dambench.core import files, registry
from dambench.core.config import Choice
from dambench.testing.datasets import DATASET_PROMISES, DatasetTrial
from tests.datasets.stand_ins import SOURCES

NAMES = registry.names("datasets")

PUBLISHED: dict[str, tuple[list[float], list[float]]] = {
    "mnist": ([0.1307], [0.3081]),
    "fashionmnist": ([0.2861], [0.3530]),
    "svhn": ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "cifar100": ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
    "tinyimagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "mhist": ([0.73943309, 0.65267006, 0.77742641], [0.19637706, 0.24239548, 0.16935587]),
}
"""Mean and std that papers print and codes use."""


PREPARED = {
    "arrays": "eb02c9be769e83c69c3b002427fb1fcf56b268518df565b7f8c7ef5d2b34974a",
    "folder": "a1e47714f2403ff213f93007e9db443154f17e4e3817086897d7395510baad3b",
    "mnist": "1ca07857ed18bc081dd1e9158880d348c15fa109b666eb4443645cc08ccd215d",
    "cifar10": "c41c688854abb0a3157f46cc253227fe2c3f1ecb494081c24aa99f32c9bf0e80",
}
"""SHA-256 of what is prepared from the stand-ins that no lossy decoder has a part in."""


@pytest.fixture
def data(name: str, tmp_path: Path) -> Iterator[Path | None]:
    """The raw data of the dataset that a test is about."""
    # A patch of its own: a test may undo its own.
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "raw").mkdir()
        yield SOURCES[name](tmp_path / "raw", patch)


def test_each_dataset_has_a_source_to_test_it_on() -> None:
    assert set(SOURCES) == set(NAMES)


@pytest.mark.parametrize("promise", DATASET_PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_keeps_its_promise_that(
    promise: Callable[[DatasetTrial], None], name: str, data: Path | None
) -> None:
    promise(DatasetTrial(registry.load("datasets", name), data))


@pytest.mark.parametrize("name", NAMES)
def test_its_card_says_how_large_the_largest_class_is_and_whether_it_may_be_mirrored(
    name: str, data: Path | None
) -> None:
    card = datasets.prepare(Choice(name), data)
    assert card.majority == max(card.test_counts) / sum(card.test_counts)
    assert card.mirrors == registry.load("datasets", name).module.MIRRORS


@pytest.mark.parametrize("name", PREPARED)
def test_a_dataset_keeps_its_identity_from_release_to_release(name: str, data: Path | None) -> None:
    """Else results on the same images would no longer stand in one row."""
    assert datasets.prepare(Choice(name), data).sha256 == PREPARED[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PUBLISHED])
def test_normalised_training_images_have_mean_zero_and_std_one(name: str, data: Path | None) -> None:
    train, _ = datasets.open_sets(datasets.prepare(Choice(name), data), torch.device("cpu"))
    images = train.preprocessing.apply(train.images)
    assert images.mean((0, 2, 3)).abs().max() < 1e-3
    assert (images.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_standard_dataset_is_normalised_as_its_papers_do(name: str, data: Path | None) -> None:
    card = datasets.prepare(Choice(name), data)
    assert (card.mean, card.std) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_or_half_written_files_are_not_taken_for_whole(name: str, data: Path | None) -> None:
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
    name: str, written: int, data: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network_of_a_standard_dataset_is_as_deep_as_the_field_chooses_it(name: str, data: Path | None) -> None:
    card = datasets.prepare(Choice(name), data)
    depths = {28: 3, 32: 3, 64: 4, 128: 5, 224: 7}
    network = networks.settle(registry.load("datasets", name).NETWORK, card)
    assert network == f"convnet-d{depths[card.height]}-w128"


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_its_images_come_from(name: str) -> None:
    assert registry.load("datasets", name).SOURCE in ("package", "download", "path")


@pytest.mark.parametrize("name", [name for name in NAMES if registry.load("datasets", name).SOURCE == "download"])
def test_what_can_be_downloaded_needs_its_raw_files_only_once(name: str, data: Path | None, tmp_path: Path) -> None:
    card = datasets.prepare(Choice(name), data)
    for elsewhere in (None, tmp_path / "nowhere"):
        assert datasets.prepare(Choice(name), elsewhere) == card


@pytest.fixture
def read_for_its_checksum(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose checksum was taken, as it goes."""
    real, paths = files.sha256, []

    def taken(path: Path) -> str:
        paths.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256", taken)
    return paths


def test_a_prepared_file_that_looks_as_it_did_when_intact_is_not_read_again(
    read_for_its_checksum: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = datasets.prepare(Choice("digits"), None)
    for _ in range(2):  # too new: a second change in the same tick of the clock could not be seen
        assert datasets.prepare(Choice("digits"), None) == card
    tensors = datasets.path_of(card)
    assert read_for_its_checksum == [tensors] * 2
    monkeypatch.setattr(files, "SETTLED", -1)
    for _ in range(3):
        assert datasets.prepare(Choice("digits"), None) == card
    assert read_for_its_checksum == [tensors] * 3
    whole = tensors.read_bytes()
    time.sleep(0.02)  # a tick
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert datasets.prepare(Choice("digits"), None) == card
    assert tensors.read_bytes() == whole
    tensors.with_suffix(".intact").write_bytes(b"\xff")
    assert datasets.prepare(Choice("digits"), None) == card
