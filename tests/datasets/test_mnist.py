"""MNIST and Fashion-MNIST, which are files of the same form, and what all downloaded datasets share."""

import gzip
import hashlib
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from dambench import datasets
from dambench.core import registry
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from dambench.datasets import _pinned, mnist
from tests.datasets.stand_ins import SOURCES

DOWNLOADED = [name for name in registry.names("datasets") if registry.load("datasets", name).SOURCE == "download"]
LABELS = "MNIST/raw/t10k-labels-idx1-ubyte"


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "raw").mkdir()
    folder = SOURCES["mnist"](tmp_path / "raw", monkeypatch)
    assert folder is not None
    return folder


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes a folder the internet; gives the list of what is then downloaded."""
    from torchvision.datasets import utils

    def serve(folder: Path, error: Exception | None = None) -> list[str]:
        asked: list[str] = []

        def retrieve(url: str, filename: Any, *rest: Any) -> None:
            asked.append(url)
            print("100%")
            if error is not None:
                raise error
            assert socket.getdefaulttimeout() == _pinned.TIMEOUT
            shutil.copyfile(folder / url.rpartition("/")[2], filename)

        monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
        monkeypatch.setattr(utils, "_urlretrieve", retrieve)
        return asked

    return serve


@pytest.fixture
def internet(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The four files as MNIST's mirrors have them; they are no longer in `raw`."""
    from torchvision.datasets import MNIST

    folder = tmp_path / "internet"
    folder.mkdir()
    for path in mnist.FILES:
        (folder / f"{Path(path).name}.gz").write_bytes(gzip.compress((raw / path).read_bytes()))
        (raw / path).unlink()
    known = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in folder.iterdir()]
    monkeypatch.setattr(MNIST, "resources", known)
    return folder


@pytest.mark.parametrize("name", ["mnist", "fashionmnist"])
def test_images_and_labels_are_those_that_torchvision_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    raw = SOURCES[name](tmp_path, monkeypatch)
    module = registry.load("datasets", name)
    read = module.load(module.Options(), raw)
    theirs = getattr(torchvision.datasets, {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}[name])
    for train, images, labels in (
        (True, read.train_images, read.train_labels),
        (False, read.test_images, read.test_labels),
    ):
        expected = theirs(raw, train=train)
        assert np.array_equal(images[:, 0], expected.data.numpy())
        assert np.array_equal(labels, expected.targets.numpy())
    if name == "fashionmnist":
        assert read.classes == theirs.classes


def test_what_old_releases_of_torchvision_left_is_not_taken_for_mnist(raw: Path) -> None:
    before = datasets.prepare(Choice("mnist"), raw)
    datasets.path_of(before).unlink()
    processed = raw / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10)), processed / name)
    assert datasets.prepare(Choice("mnist"), raw) == before


def test_a_file_with_another_checksum_is_refused_and_named(raw: Path) -> None:
    path = raw / LABELS
    for content in (path.read_bytes()[:-1], path.read_bytes()[:-1] + b"\x0b", b""):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=rf"{LABELS}' is damaged, or is not the official file of mnist: its SHA-256"):
            datasets.prepare(Choice("mnist"), raw)
    assert datasets.prepared() == []


@pytest.mark.parametrize("name", DOWNLOADED)
def test_without_files_and_network_a_sentence_says_which_file_is_needed_where(
    name: str, tmp_path: Path, served: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = served(tmp_path, URLError("Temporary failure in name resolution"))
    module = registry.load("datasets", name)
    first = next(iter(module.FILES))
    for data in (None, tmp_path):
        with pytest.raises(BadInput) as error:
            datasets.prepare(Choice(name), data)
        place = tmp_path / "home" / "raw" if data is None else tmp_path
        said = str(error.value)
        assert said.startswith(f"{name} needs {str(place / first)!r}, which is not there and could not be downloaded")
        assert "Temporary failure in name resolution" in said
        assert said.endswith(f"put it there, or say --data DIR with a folder that has {first!r}.")
        assert "\n" not in said
        assert [path for path in place.rglob("*") if path.is_file()] == []
        assert list(place.glob(".*")) == []
    assert asked
    assert capsys.readouterr().out == ""  # stdout is for data
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_place_that_is_no_folder_is_not_made_one(name: str, tmp_path: Path) -> None:
    heard: list[str] = []
    with pytest.raises(BadInput, match="nowhere' is not a folder") as error:
        datasets.prepare(Choice(name), tmp_path / "nowhere", heard.append)
    assert error.value.field == "data"
    assert heard == []  # least of all that it is downloaded
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("told", [True, False])
def test_missing_files_are_downloaded_to_where_they_were_looked_for(
    told: bool,
    raw: Path,
    internet: Path,
    tmp_path: Path,
    served: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = served(internet)
    heard: list[str] = []
    card = datasets.prepare(Choice("mnist"), raw if told else None, heard.append)
    assert heard == ["Preparing mnist: this is done once. Its 4 raw files must be downloaded."]
    assert len(asked) == 4
    place = raw if told else tmp_path / "home" / "raw"
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()) == sorted(mnist.FILES)
    assert sum(card.train_counts) == 30
    assert capsys.readouterr().out == ""


def test_files_that_are_there_are_left_as_they_are(raw: Path, internet: Path, served: Callable[..., list[str]]) -> None:
    served(internet)
    mine = raw / LABELS
    mine.write_bytes(b"mine")
    with pytest.raises(BadInput, match=f"{LABELS}' is damaged"):
        datasets.prepare(Choice("mnist"), raw)
    assert mine.read_bytes() == b"mine"


def test_half_a_download_is_not_taken_for_whole(raw: Path, internet: Path, served: Callable[..., list[str]]) -> None:
    for path in internet.iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    served(internet)
    with pytest.raises(BadInput, match="could not be downloaded"):
        datasets.prepare(Choice("mnist"), raw)
    assert [path for path in raw.rglob("*") if path.is_file()] == []


def test_a_download_of_something_else_is_refused_even_if_torchvision_takes_it(
    raw: Path, internet: Path, served: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    served(internet)
    monkeypatch.setattr(mnist, "FILES", mnist.FILES | {LABELS: "0" * 64})
    with pytest.raises(BadInput, match="is not the official file of mnist"):
        datasets.prepare(Choice("mnist"), raw)
    assert not (raw / LABELS).exists()


def test_a_full_disk_is_said_to_be_full(raw: Path, internet: Path, served: Callable[..., list[str]]) -> None:
    served(internet, OSError(28, "No space left on device"))
    with pytest.raises(
        BadInput, match=r"idx3-ubyte' of mnist, which is not there .* cannot be written in .*: the disk is full"
    ):
        datasets.prepare(Choice("mnist"), raw)


def test_torchvision_is_imported_only_to_download(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert datasets.prepare(Choice("mnist"), raw)
