import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import engine, networks
from dambench.cli.app import run_cli
from dambench.core.config import Request
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.files import digest
from dambench.core.protocol import Budget, Protocol
from dambench.engine import exports, imports
from dambench.methods import imported, random
from dambench.store.row_names import method_label
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import watch
from dambench.training.problem import Normalisation, Seeds, SyntheticSet, compose, decode
from dambench.training.train import train
from tests.lab import noise, synthetic_set


def literally_decoded(images: Tensor, factor: int) -> Tensor:
    """One image, one tile after the other."""
    height, width = images.shape[2] // factor, images.shape[3] // factor
    made = []
    for image in images:
        for row in range(factor):
            for column in range(factor):
                tile = image[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
                made.append(F.interpolate(tile[None], images.shape[2:], mode="bilinear", align_corners=False)[0])
    return torch.stack(made)


@pytest.mark.parametrize(("factor", "size"), [(1, (8, 8)), (2, (8, 6)), (3, (6, 9)), (4, (8, 8))])
def test_mosaics_are_cut_into_tiles_that_are_enlarged(factor: int, size: tuple[int, int]) -> None:
    images = noise(5, 3, *size)
    assert torch.equal(decode(images, factor), images if factor == 1 else literally_decoded(images, factor))
    by_class = decode(images.unflatten(0, (1, 5)), factor)
    assert torch.equal(by_class[0], decode(images, factor))


def test_a_tile_of_two_pixels_is_enlarged_as_computed_by_hand() -> None:
    image = torch.tensor([[0.0, 4.0, 9.0, 9.0], [0.0, 4.0, 9.0, 9.0], [1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
    first, second, third, fourth = decode(image.view(1, 1, 4, 4), 2)[:, 0]
    assert first.tolist() == [[0, 1, 3, 4]] * 4
    assert [second.unique().tolist(), third.unique().tolist(), fourth.unique().tolist()] == [[9], [1], [2]]


def test_decoding_goes_with_normalising() -> None:
    pixels, like = noise(2, 3, 8, 8).abs(), Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    torch.testing.assert_close(decode(like.apply(pixels), 2), like.apply(decode(pixels, 2)), rtol=1e-5, atol=1e-5)


def test_images_are_reduced_and_laid_out_in_the_order_in_which_they_are_decoded() -> None:
    flat = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 2, 4, 6)
    mosaics = compose(flat, 2)
    assert mosaics.shape == (2, 2, 4, 6)
    assert torch.equal(decode(mosaics, 2), flat)
    assert mosaics[0, 0, :, 0].tolist() == [0, 0, 2, 2]
    image = torch.arange(16.0).view(1, 1, 4, 4).expand(4, 1, 4, 4)
    assert compose(image, 2)[0, 0, :2, :2].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def mosaics(images: Tensor, labels: Tensor, classes: int, **more: Any) -> SyntheticSet:
    made = synthetic_set(images, labels, classes)
    return SyntheticSet(made.images, made.labels, made.preprocessing, made.classes, factor=2, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_network_learns_of_mosaics_what_it_learns_of_their_tiles(dtype: torch.dtype) -> None:
    pixels = (noise(6, 2, 8, 8, dtype=torch.float32) * 40 + 120).clamp(0, 255).to(torch.uint8)
    stored = mosaics(pixels, torch.arange(6) % 3, 3)
    images = stored.preprocessing.apply(pixels)
    tiles = synthetic_set(literally_decoded(images, 2), (torch.arange(6) % 3).repeat_interleave(4), 3)
    data = stored if dtype == torch.uint8 else mosaics(images, torch.arange(6) % 3, 3)
    how = Protocol(name="", synthetic=Budget(epochs=3), whole=Budget(epochs=1), batch=5, augmentation=("color", "crop"))
    weights = []
    for each in (data, tiles):
        network = networks.build("convnet-d1-w8", data_card(channels=2))
        steps = list(train(network, each, how, Seeds(0), mirrors=True))
        assert steps[-1] == (15, 15)
        weights.append(torch.cat([parameter.flatten() for parameter in network.parameters()]))
    assert torch.equal(*weights)


def test_soft_labels_are_those_of_the_mosaic() -> None:
    labels = noise(4, 3, dtype=torch.float32)
    decoded = mosaics(noise(4, 2, 8, 8, dtype=torch.float32), labels, 3).decoded()
    assert torch.equal(decoded.labels.unflatten(0, (4, 4))[:, 3], labels)
    assert decoded.factor == 1
    assert decoded.decoded() is decoded


def test_a_mosaic_is_read_as_it_was_written_and_no_older_dambench_takes_it_for_images(tmp_path: Path) -> None:
    made = mosaics(noise(6, 2, 8, 8, dtype=torch.float32), torch.arange(6) % 3, 3)
    path = tmp_path / "set.safetensors"
    path.write_bytes(made.to_bytes())
    again = SyntheticSet.read(path)
    assert again.factor == 2
    assert torch.equal(again.images, made.images)
    assert b'\\"format\\": 3' in path.read_bytes()


def test_a_set_that_is_no_mosaic_keeps_its_hash() -> None:
    plain = synthetic_set(torch.arange(8.0).view(2, 1, 2, 2), torch.tensor([0, 1]), 2)
    assert digest(plain.to_bytes()) == "4af2b8ecd84f946d954f4eb0ee41018c5d934777bccb54271a10fff355ab91d7"


@pytest.mark.parametrize(("factor", "size", "fault"), [(3, 8, "8×8 images cannot be cut"), (9, 9, "from 1 to 8")])
def test_what_cannot_be_a_mosaic_is_refused(tmp_path: Path, factor: int, size: int, fault: str) -> None:
    made = synthetic_set(noise(2, 1, size, size, dtype=torch.float32), torch.tensor([0, 1]), 2)
    made = SyntheticSet(made.images, made.labels, made.preprocessing, made.classes, factor=factor)
    assert fault in made.fault()
    path = tmp_path / "set.safetensors"
    path.write_bytes(made.to_bytes())
    with pytest.raises(BadInput, match=fault):
        SyntheticSet.read(path)


def test_random_mosaics_are_of_real_images_of_their_class() -> None:
    problem = tiny_problem(card=data_card((8, 8, 8), channels=3), ipc=2)
    (step,) = watch(random, problem, random.Options(factor=2))
    assert (step.images.shape, step.images.dtype, step.synthetic.factor) == ((6, 3, 8, 8), torch.uint8, 2)
    reduced = F.avg_pool2d(problem.real.images.float(), 2).round()
    for image, label in zip(step.images.float(), step.labels.tolist(), strict=True):
        tiles = image.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).flatten(0, 1)
        places = [(reduced == tile).flatten(1).all(1).nonzero().item() for tile in tiles]
        assert len(set(places)) == 4
        assert {int(problem.real.labels[place]) for place in places} == {label}


# As a user sees it.


def request(**more: Any) -> Request:
    quick: dict[str, Any] = {"network": "convnet-d1-w4", "eval_repeats": 1, "device": "cpu", "ipc": 1}
    return Request(dataset="digits", **quick | more)


def test_a_factor_of_1_changes_no_run_and_another_is_named_in_its_row() -> None:
    plain = engine.prepare(request(method="random"))
    assert plain.config.method.options == {}
    same = engine.prepare(request(method={"name": "random", "factor": 1}))
    assert same.config.sha256 == plain.config.sha256
    mosaic = engine.prepare(request(method={"name": "random", "factor": 2}))
    assert mosaic.config.sha256 != plain.config.sha256
    assert method_label("random", mosaic.overrides) == "random (factor 2)"


@pytest.mark.parametrize(
    ("more", "said"),
    [({"factor": 3}, "8×8 images cannot be cut into 3×3"), ({"factor": 2}, "whitened images are no images")],
)
def test_a_factor_that_cannot_be_is_refused_before_the_run(more: dict[str, Any], said: str) -> None:
    zca = {"preprocessing": "zca"} if more["factor"] == 2 else {}
    with pytest.raises(BadInput, match=said) as error:
        engine.prepare(request(method={"name": "random", **more}, **zca))
    assert error.value.field == "method.factor"


def test_a_run_of_mosaics_from_its_start_to_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--headless", "--method", "random", "--dataset", "digits", "--ipc", "1", "--set", "method.factor=2"]
    assert run_cli([*words, "--network", "convnet-d1-w4", "--eval-repeats", "1", "--device", "cpu", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    stored, tiles = tmp_path / "stored.png", tmp_path / "tiles.png"
    assert run_cli(["show", made["run"], "--preview", str(stored)]) == 0
    assert run_cli(["show", made["run"], "--preview", str(tiles), "--decoded"]) == 0
    assert len(tiles.read_bytes()) > len(stored.read_bytes())
    assert run_cli(["show", made["run"], "--decoded"]) == 2
    assert run_cli(["report"]) == 0
    assert "random (factor 2)" in capsys.readouterr().out


CARD: DataCard = data_card(mirrors=False)


def test_mosaics_from_elsewhere_are_told_by_a_flag_and_evaluated_as_such(tmp_path: Path) -> None:
    path = tmp_path / "data.pt"
    torch.save([torch.rand(3, 1, 8, 8), torch.arange(3)], path)
    (made,) = imports.read(path, CARD, pixels="unit", factor=2).sets
    assert made.factor == 2
    kept = imports.keep(made)
    settled, _ = imported.settle(imported.Options(set=kept), CARD, 1)
    assert settled.factor == 2
    with pytest.raises(BadInput, match="The set's factor is 2, not 4"):
        imported.settle(imported.Options(set=kept, factor=4), CARD, 1)
    with pytest.raises(BadInput, match="--factor 3 cannot be: 8×8"):
        imports.read(path, CARD, pixels="unit", factor=3)
    with pytest.raises(BadInput, match="--factor is for mosaics of images"):
        imports.read(path, CARD, pixels="unit", factor=2, preprocessing="zca")


@pytest.mark.parametrize("form", ["pt", "npz", "triple", "safetensors"])
def test_a_mosaic_that_is_exported_is_imported_as_one(tmp_path: Path, form: str) -> None:
    normalisation = Normalisation(tuple(CARD.mean), tuple(CARD.std))
    images, labels = noise(3, 1, 8, 8, dtype=torch.float32), torch.arange(3)
    made = SyntheticSet(images, labels, normalisation, tuple(CARD.classes), factor=2)
    target = tmp_path / f"set{exports.SUFFIXES[form]}"
    exports.write(made, target, form)
    (again,) = imports.read(target, CARD).sets
    assert again.to_bytes() == made.to_bytes()
