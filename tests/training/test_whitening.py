"""ZCA: against the text of the papers, and all the way through a run."""

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dambench import datasets, networks
from dambench.core import files
from dambench.core.config import Choice, PreprocessingName, Request
from dambench.core.errors import BadInput
from dambench.core.events import Finished, Measured, Snapshot
from dambench.engine.loop import run
from dambench.engine.preview import preview
from dambench.engine.settle import prepare
from dambench.testing import data_card
from dambench.training.problem import Normalisation, RealSet, SyntheticSet, Whitening
from dambench.training.train import predict
from tests.lab import generator, noise

SHAPE = (3, 4, 5)


def correlated(count: int = 200) -> Tensor:
    """Images whose neighbouring pixels look alike."""
    rough = noise(count, *SHAPE)
    smooth = rough + rough.roll(1, 2) + rough.roll(1, 3) + 0.5 * rough.roll(1, 1)
    return (smooth * 40 + 128).clamp(0, 255).to(torch.uint8)


def fitted(pixels: Tensor, tmp_path: Path, epsilon: float = 0.1) -> Whitening:
    path = tmp_path / "zca.safetensors"
    path.write_bytes(Whitening.fit(pixels, epsilon))
    return Whitening.read(path)


def literally(pixels: Tensor, epsilon: float = 0.1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spec 1.6: the whitened training images, (N, D), and the variances S along U."""
    rows = np.array([[value / 255 for value in image.flatten().tolist()] for image in pixels])
    mean = sum(rows) / len(rows)
    covariance = sum(np.outer(row - mean, row - mean) for row in rows) / (len(rows) - 1)
    vectors, values, _ = np.linalg.svd(covariance)
    matrix = vectors @ np.diag(1 / np.sqrt(values + epsilon)) @ vectors.T
    return np.array([(row - mean) @ matrix for row in rows]), values


def test_images_are_whitened_as_the_text_says(tmp_path: Path) -> None:
    pixels = correlated()
    whitened = fitted(pixels, tmp_path).apply(pixels)
    assert (whitened.shape, whitened.dtype) == (pixels.shape, torch.float32)
    expected, _ = literally(pixels)
    torch.testing.assert_close(whitened.flatten(1).double(), torch.from_numpy(expected), rtol=0, atol=2e-5)


@pytest.mark.parametrize("epsilon", [0.1, 0.001])
def test_the_covariance_becomes_the_share_of_each_variance_above_epsilon(tmp_path: Path, epsilon: float) -> None:
    pixels = correlated()
    whitened = fitted(pixels, tmp_path, epsilon).apply(pixels).flatten(1).double()
    _, variances = literally(pixels)
    found = torch.linalg.eigvalsh(torch.cov(whitened.T)).flip(0)
    expected = torch.from_numpy(variances / (variances + epsilon))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert whitened.mean(0).abs().max() < 1e-5


def test_uncorrelated_pixels_of_one_variance_are_scaled_alike(tmp_path: Path) -> None:
    pixels = torch.randint(256, (4000, 1, 2, 3), generator=generator(), dtype=torch.uint8)
    covariance = torch.cov(fitted(pixels, tmp_path).apply(pixels).flatten(1).T)
    variance = (256**2 - 1) / 12 / 255**2
    torch.testing.assert_close(covariance, torch.eye(6) * variance / (variance + 0.1), rtol=0, atol=0.03)


def test_whitened_images_can_be_looked_at_again(tmp_path: Path) -> None:
    pixels = correlated()
    whitening = fitted(pixels, tmp_path)
    assert torch.equal(whitening.invert(whitening.apply(pixels)), pixels)
    grouped = pixels.view(4, 50, *SHAPE)
    torch.testing.assert_close(whitening.apply(grouped).view_as(pixels), whitening.apply(pixels))
    assert torch.equal(whitening.invert(whitening.apply(grouped)), grouped)
    assert whitening.invert(torch.full(SHAPE, 1e6)).unique().tolist()[-1] == 255


def test_constant_pixels_are_no_matter(tmp_path: Path) -> None:
    pixels = correlated()
    pixels[:, :, 0] = 7
    whitened = fitted(pixels, tmp_path).apply(pixels)
    assert whitened.isfinite().all()
    assert whitened[:, :, 0].abs().max() < 1e-5


# In its file.


def digits(preprocessing: PreprocessingName = "zca") -> tuple[RealSet, RealSet]:
    return datasets.open_sets(datasets.prepare(Choice("digits"), None), torch.device("cpu"), preprocessing)


def kept() -> list[str]:
    return [name for name in os.listdir(files.data_folder()) if name.startswith("zca-")]


def test_it_is_fitted_once_on_the_training_images_and_kept_under_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits()
    assert isinstance(train.preprocessing, Whitening)
    assert train.preprocessing == test.preprocessing
    (name,) = kept()
    content = (files.data_folder() / name).read_bytes()
    assert name.endswith(f"-{files.digest(content)}.safetensors")
    assert content == Whitening.fit(train.images)
    assert abs(float(train.preprocessing.apply(train.images).mean())) < 1e-4
    monkeypatch.setattr(Whitening, "fit", None)
    assert digits()[0].preprocessing == train.preprocessing
    assert isinstance(digits("mean/std")[0].preprocessing, Normalisation)


def test_a_damaged_file_is_fitted_again() -> None:
    train, _ = digits()
    path = files.data_folder() / kept()[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\0\1")
    assert digits()[0].preprocessing == train.preprocessing
    assert path.read_bytes() == whole


def test_a_set_says_how_its_images_were_whitened(tmp_path: Path) -> None:
    train, _ = digits()
    images = train.preprocessing.apply(train.images[::100])
    labels = train.labels[::100]
    written = SyntheticSet(images, labels, train.preprocessing, tuple("0123456789"))
    path = tmp_path / "set.safetensors"
    path.write_bytes(written.to_bytes())
    assert len(path.read_bytes()) < 10_000, "the matrix is no part of it"
    again = SyntheticSet.read(path)
    assert again.preprocessing == written.preprocessing
    assert torch.equal(again.preprocessing.invert(again.images), train.images[::100])
    assert preview(again) == preview(replace(again, images=train.images[::100]))
    (files.data_folder() / kept()[0]).unlink()
    with pytest.raises(BadInput, match=r"was whitened by the ZCA .* copy the file"):
        SyntheticSet.read(path)


# In a run.

RUN = Request(
    method="random",
    dataset="digits",
    ipc=10,
    network="convnet-d2-w16",
    device="cpu",
    eval_repeats=1,
    preprocessing="zca",
)


@pytest.mark.usefixtures("every_epoch")
def test_a_set_of_a_whitened_run_is_tested_on_whitened_images() -> None:
    events = list(run(prepare(RUN)))
    assert isinstance(events[-1], Finished)
    (score,) = (event for event in events if isinstance(event, Measured))
    assert float(score.values["accuracy"]) > 0.5
    (snapshot,) = (event for event in events if isinstance(event, Snapshot))
    synthetic = SyntheticSet.read(files.set_path(snapshot.sha256))
    train, test = digits()
    assert synthetic.preprocessing == train.preprocessing
    network = networks.build("convnet-d2-w16", data_card((1,) * 10, size=(8, 8)))
    network.reset(generator())
    testing = SyntheticSet(test.images, test.labels, synthetic.preprocessing, synthetic.classes)
    by_hand = network.eval()(train.preprocessing.apply(test.images))
    torch.testing.assert_close(predict(network, testing, 100), by_hand.detach())


def test_what_is_distilled_is_in_the_whitened_space() -> None:
    method = {"name": "dm", "iterations": 2, "batch_real": 8, "lr_images": 1e-9}
    events = list(run(prepare(msgspec.structs.replace(RUN, method=method, ipc=2))))
    (snapshot,) = (event for event in events if isinstance(event, Snapshot))
    synthetic = SyntheticSet.read(files.set_path(snapshot.sha256))
    assert synthetic.images.dtype == torch.float32
    # It starts from real images, and hardly moves.
    train, _ = digits()
    for image in synthetic.preprocessing.invert(synthetic.images):
        assert (train.images == image).flatten(1).all(1).any()


def test_mean_and_std_are_the_default_and_leave_a_run_s_identity_as_it_was() -> None:
    plain, spelled, whitened = (
        prepare(msgspec.structs.replace(RUN, preprocessing=name)) for name in (None, "mean/std", "zca")
    )
    assert plain.config.sha256 == spelled.config.sha256 != whitened.config.sha256
    assert "preprocessing" not in plain.overrides
    assert whitened.overrides["preprocessing"] == "zca"
    assert plain.config.preprocessing == "mean/std"


def test_that_it_is_fitted_is_said_once() -> None:
    said: list[str] = []
    for _ in range(2):
        prepare(RUN, said.append)
    assert [text for text in said if "whitening" in text] == ["Fitting the whitening of digits: this is done once."]


def test_an_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(BadInput, match=r"No preprocessing is called 'pca'.*Known: mean/std, zca"):
        prepare(msgspec.structs.replace(RUN, preprocessing="pca"))


def test_images_that_are_too_large_are_refused() -> None:
    with pytest.raises(BadInput, match=r"49152 numbers of an image.*Use mean/std"):
        datasets.whitening(data_card(channels=3, size=(128, 128)))
