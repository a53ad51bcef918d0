import contextlib
import io
import json
import os
import pickle
import shlex
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from dambench import datasets, engine
from dambench.cli.app import run_cli
from dambench.core.config import Choice, Request
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.files import digest, set_path
from dambench.engine import imports
from dambench.methods import imported
from dambench.testing import data_card
from dambench.training.problem import Normalisation, SyntheticSet
from tests.lab import generator, noise

CARD = data_card(mirrors=False)
"""Three classes of 5 to 7 training images, 1 × 8 × 8."""

IMAGES = noise(6, 1, 8, 8, dtype=torch.float32)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
PIXELS = torch.randint(256, (6, 1, 8, 8), generator=generator(), dtype=torch.uint8)


def _own(images: Tensor = IMAGES, labels: Tensor = LABELS, lr: float | None = None, **more: Any) -> SyntheticSet:
    normalisation = Normalisation(tuple(CARD.mean), tuple(CARD.std))
    return SyntheticSet(images, labels, normalisation, tuple(CARD.classes), lr, **more)


def _read(path: Path, card: DataCard = CARD, **how: Any) -> SyntheticSet:
    (found,) = imports.read(path, card, **how).sets
    return found


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **({"images": IMAGES.numpy(), "labels": LABELS.numpy()} | arrays))
    return path / "set.npz"


def _pt(path: Path, saved: Any, zipped: bool = True) -> Path:
    torch.save(saved, path / "set.pt", _use_new_zipfile_serialization=zipped)
    return path / "set.pt"


def _parts(path: Path, **parts: Any) -> Path:
    """A folder with a file for each tensor."""
    (path / "parts").mkdir()
    for name, part in parts.items():
        torch.save(part, path / "parts" / f"{name}.pt")
    return path / "parts"


def _png(pixels: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def _pictures(pixels: Tensor = PIXELS, names: tuple[str, ...] = ("0", "1", "2")) -> dict[str, bytes]:
    return {f"{names[i // 2]}/{i % 2}.png": _png(image) for i, image in enumerate(pixels)}


def _zip(path: Path, members: dict[str, bytes], name: str = "set.zip") -> Path:
    with zipfile.ZipFile(path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path / name


# What is read.


def test_a_set_of_dambench_comes_back_to_the_bit(tmp_path: Path) -> None:
    content = _own(lr=0.02).to_bytes()
    (tmp_path / "any.safetensors").write_bytes(content)
    found = _read(tmp_path / "any.safetensors")
    assert found.to_bytes() == content
    assert imports.keep(found) == digest(content)
    assert set_path(digest(content)).read_bytes() == content


FORMS: dict[str, Callable[[Path], Path]] = {
    "npz": _npz,
    "npz of x and y": lambda path: _renamed_npz(path),
    "safetensors": lambda path: _foreign(path),
    "a dict": lambda path: _pt(path, {"images": IMAGES, "labels": LABELS}),
    "a pair": lambda path: _pt(path, (IMAGES, LABELS)),
    "the code of DC": lambda path: _pt(path, {"data": [[IMAGES, LABELS]], "accs_all_exps": {"MLP": [np.float64(0.3)]}}),
    "the release of DataDAM": lambda path: _pt(path, {"data": [IMAGES, LABELS]}),
    "before torch 1.6": lambda path: _pt(path, {"images": IMAGES, "labels": LABELS}, zipped=False),
    "other names": lambda path: _pt(path, {"image_syn": IMAGES, "label_syn": LABELS}),
    "a parameter": lambda path: _pt(path, {"images": torch.nn.Parameter(IMAGES), "labels": LABELS}),
    "views": lambda path: _pt(path, (torch.cat([LABELS * 0.0, IMAGES.flatten()])[6:].view(IMAGES.shape), LABELS)),
    "whole numbers as floats": lambda path: _npz(path, labels=LABELS.float().numpy()),
    "labels in a column": lambda path: _npz(path, labels=LABELS[:, None].numpy()),
    "one-hot labels": lambda path: _npz(path, labels=np.eye(3, dtype="f4")[LABELS]),
    "one-hot bits": lambda path: _npz(path, labels=np.eye(3, dtype=bool)[LABELS]),
    "channels last": lambda path: _npz(path, images=IMAGES.permute(0, 2, 3, 1).numpy()),
    "no channels": lambda path: _npz(path, images=IMAGES[:, 0].numpy()),
    "a folder of MTT": lambda path: _parts(path, images_best=IMAGES, labels_best=LABELS),
    "a folder of MTT, more in it": lambda path: _parts(
        path, images_best=IMAGES, labels_best=LABELS, images_5000=IMAGES * 0, labels_5000=LABELS, images_zca_5000=IMAGES
    ),
    "a file of MTT": lambda path: _parts(path, images_5000=IMAGES, labels_5000=LABELS) / "images_5000.pt",
    "the labels of MTT": lambda path: _parts(path, images_5000=IMAGES, labels_5000=LABELS) / "labels_5000.pt",
    "a pair of DataDAM": lambda path: _parts(path, S_IPC2_images=IMAGES, S_IPC2_labels=LABELS.float()),
    "half precision": lambda path: _pt(path, {"images": IMAGES.double(), "labels": LABELS.to(torch.uint8)}),
    "learned images": lambda path: _pt(path, {"images": IMAGES.clone().requires_grad_(), "labels": LABELS}),
}


def _renamed_npz(path: Path) -> Path:
    np.savez_compressed(path / "set.npz", x_train=IMAGES.numpy(), y_train=LABELS.numpy(), other=np.zeros(3))
    return path / "set.npz"


def _foreign(path: Path, **about: str) -> Path:
    tensors = {"images": IMAGES, "labels": LABELS}
    safetensors.torch.save_file(tensors, path / "set.safetensors", {"by": "somebody"} | about)
    return path / "set.safetensors"


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_set(tmp_path: Path, form: str) -> None:
    found = _read(FORMS[form](tmp_path))
    assert found.to_bytes() == _own().to_bytes()


CLASSES = [("0", "1", "2"), ("00000", "00001", "00002"), ("new000", "new001", "new002"), tuple(CARD.classes)]


@pytest.mark.parametrize("names", CLASSES)
@pytest.mark.parametrize("form", ["folder", "zip", "zip of a folder"])
def test_pictures_in_class_folders_are_pixels(tmp_path: Path, names: tuple[str, ...], form: str) -> None:
    pictures = _pictures(names=names) | {f"{names[0]}/notes.txt": b"x", f"{names[0]}/._0.png": b"x"}
    if form == "folder":
        path = tmp_path / "set"
        for name, content in pictures.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    else:
        path = _zip(tmp_path, {f"set/{n}" if form != "zip" else n: content for n, content in pictures.items()})
    found = imports.read(path, CARD)
    assert found.sets[0].to_bytes() == _own(PIXELS).to_bytes()
    prefix = "set/" if form == "zip of a folder" else ""
    assert found.notes == (f"1 file not used, as no images: {prefix}{names[0]}/notes.txt.",)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "JPEG"])
def test_each_format_of_images_is_read(tmp_path: Path, kind: str) -> None:
    members = {}
    for number, pixels in enumerate(PIXELS):
        file = io.BytesIO()
        Image.fromarray(pixels[0].numpy()).save(
            file, kind, **({"lossless": True} if kind == "WEBP" else {"quality": 95})
        )
        members[f"new{number // 2:03}/class{number // 2:03}_id{number % 2:03}.{kind.lower()}"] = file.getvalue()
    apart = (_read(_zip(tmp_path, members)).images.float() - PIXELS.float()).abs().max()
    assert apart <= (30 if kind == "JPEG" else 0)


def test_colour_is_kept_in_the_order_of_channels(tmp_path: Path) -> None:
    card = data_card(channels=3)
    pixels = torch.randint(256, (6, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    found = _read(_zip(tmp_path, _pictures(pixels)), card)
    assert torch.equal(found.images, pixels)


def test_a_set_that_lies_mixed_is_sorted_by_class(tmp_path: Path) -> None:
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    found = _read(_npz(tmp_path, images=IMAGES[order].numpy(), labels=LABELS[order].numpy()))
    assert found.to_bytes() == _own().to_bytes()


SPANS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit": lambda pixels: pixels / 255,
    "bytes": lambda pixels: pixels,
    "symmetric": lambda pixels: pixels / 127.5 - 1,
}


def _digits_of_each() -> tuple[DataCard, Tensor, Tensor]:
    """The card of the digits, two real ones of each class as pixels, and their labels."""
    card = datasets.prepare(Choice("digits"), None)
    real = datasets.open_sets(card, torch.device("cpu"))[0]
    chosen = real.draw(2, generator()).flatten()
    return card, real.images[chosen], real.labels[chosen]


@pytest.mark.parametrize("pixels", SPANS)
def test_plain_pixels_are_normalised_as_real_ones_are_and_remarked_where_nobody_said_it(
    tmp_path: Path, pixels: str
) -> None:
    card, real, labels = _digits_of_each()
    path = _npz(tmp_path, images=SPANS[pixels](real.float()).numpy(), labels=labels.numpy())
    found = imports.read(path, card, pixels=pixels)
    expected = found.sets[0].preprocessing.apply(real)
    torch.testing.assert_close(found.sets[0].images, expected, atol=1e-5, rtol=0)
    assert found.notes == ()
    (note,) = imports.read(path, card).notes
    assert f"import it again with --pixels {pixels}." in note
    assert imports.read(path, card, pixels="normalised").notes == ()


@pytest.mark.parametrize(
    ("images", "notes"),
    [
        (IMAGES[:1].expand(6, 1, 8, 8), ("all images are alike: nothing tells the classes apart.",)),
        (torch.zeros(6, 1, 8, 8), ("all images are alike: nothing tells the classes apart.",)),
        (IMAGES[:2].repeat(3, 1, 1, 1), ("all classes have the same images: nothing tells the classes apart.",)),
        (IMAGES[[0, 1, 2, 2, 4, 4]], ("classes whose images are all alike: class 1, class 2.",)),
        (torch.cat([IMAGES[:5], torch.ones(1, 1, 8, 8)]), ("images of one colour all over: 1 of 6.",)),
        (IMAGES, ()),
    ],
)
def test_images_that_tell_nothing_are_remarked(tmp_path: Path, images: Tensor, notes: tuple[str, ...]) -> None:
    plain = imports.read(_npz(tmp_path, images=images.numpy()), CARD, pixels="normalised")
    (tmp_path / "own.safetensors").write_bytes(_own(images).to_bytes())
    assert plain.notes == imports.read(tmp_path / "own.safetensors", CARD).notes == notes


def test_whitened_images_are_kept_as_such_and_remarked_where_nobody_said_it(tmp_path: Path) -> None:
    card, real, labels = _digits_of_each()
    whitening = datasets.whitening(card)
    white = whitening.apply(real)
    path = _npz(tmp_path, images=white.numpy(), labels=labels.numpy())
    found = imports.read(path, card, preprocessing="zca")
    assert found.notes == ()
    assert torch.equal(found.sets[0].images, white)
    kept = imports.keep(found.sets[0])
    assert SyntheticSet.read(set_path(kept)).preprocessing == whitening
    asked = Request(method={"name": "imported", "set": kept}, dataset="digits", ipc=2, device="cpu")
    assert engine.prepare(asked).config.preprocessing == "zca"
    with pytest.raises(BadInput, match="what imported is to use was made with zca"):
        engine.prepare(msgspec.structs.replace(asked, preprocessing="mean/std"))
    (note,) = imports.read(path, card).notes
    assert "import it again with --preprocessing zca" in note
    plain = _read(
        _npz(tmp_path, images=real.numpy() / 255, labels=labels.numpy()), card, pixels="unit", preprocessing="zca"
    )
    torch.testing.assert_close(plain.images, white, atol=1e-5, rtol=0)
    normalised = Normalisation(tuple(card.mean), tuple(card.std)).apply(real)
    assert imports.read(_npz(tmp_path, images=normalised.numpy(), labels=labels.numpy()), card).notes == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_of_any_precision_are_told_from_logits(tmp_path: Path, dtype: torch.dtype) -> None:
    probabilities = (torch.eye(3)[LABELS] * 6 + noise(6, 3, dtype=torch.float32)).softmax(1).to(dtype)
    probabilities[0] = torch.tensor([1.0, 0.0, 0.0])
    found = imports.read(_pt(tmp_path, (IMAGES, probabilities)), CARD)
    torch.testing.assert_close(
        found.sets[0].labels.softmax(1), probabilities.float(), atol=torch.finfo(dtype).eps, rtol=0
    )
    assert found.notes == ("its soft labels are probabilities, which are kept as their logarithms.",)


def test_a_file_of_several_sets_gives_all_or_one(tmp_path: Path) -> None:
    shifted = [IMAGES + number for number in range(3)]
    path = _pt(tmp_path, {"data": [[images, LABELS] for images in shifted], "accs_all_exps": {}, "mask": LABELS})
    found = imports.read(path, CARD)
    assert [one.to_bytes() for one in found.sets] == [_own(images).to_bytes() for images in shifted]
    assert (found.experiments, found.total, found.ipc) == ((0, 1, 2), 3, 2)
    assert found.notes == ("not used: mask.",)
    one = imports.read(path, CARD, experiment=1)
    assert (one.experiments, one.total, one.sets[0].to_bytes()) == ((1,), 3, _own(shifted[1]).to_bytes())
    with pytest.raises(BadInput, match="has 3 sets: --experiment is from 0 to 2"):
        imports.read(path, CARD, experiment=3)


def test_what_lies_beside_is_taken_along_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    logits = torch.eye(3)[LABELS] * 5 - 1
    folder = _parts(
        tmp_path, images_best=IMAGES, labels_best=logits, lr_best=torch.tensor(0.25), images_5=IMAGES, labels_5=logits
    )
    found = imports.read(folder / "lr_best.pt", CARD)
    assert (found.sets[0].lr, found.notes) == (0.25, ())
    assert torch.equal(found.sets[0].labels, logits)
    (folder / "0").mkdir()
    assert imports.read(folder, CARD).notes == ("not used: 0, images_5.pt, labels_5.pt.",)
    path = _pt(tmp_path, {"images": IMAGES, "labels": LABELS, "syn_lr": 0.5, "net": {"weight": IMAGES}, "ipc": 2})
    again = imports.read(path, CARD)
    assert (again.sets[0].lr, again.notes) == (0.5, ("not used: net.",))
    assert imports.read(_npz(tmp_path, other=np.zeros(3)), CARD).notes == ("not used: other.",)
    (tmp_path / "own.safetensors").write_bytes(_own().to_bytes())
    whole = safetensors.torch.load_file(tmp_path / "own.safetensors") | {"other": IMAGES.clone()}
    with safetensors.safe_open(tmp_path / "own.safetensors", "pt") as own:
        about = own.metadata()
    safetensors.torch.save_file(whole, tmp_path / "more.safetensors", about)
    assert imports.read(tmp_path / "more.safetensors", CARD).notes == ("not used: other.",)
    assert _read(_npz(tmp_path), lr=0.125).lr == 0.125
    with pytest.raises(BadInput, match=r"says its own learning rate, 0.5: leave --lr out"):
        imports.read(path, CARD, lr=0.5)


def test_the_protocol_is_named_that_uses_what_the_set_carries() -> None:
    logits = torch.eye(3)[LABELS]
    carried = [_own(), _own(lr=0.1), _own(labels=logits), _own(labels=logits, lr=0.1)]
    assert [imports.protocol_for(one) for one in carried] == ["dsa-dm", "mtt", "datm-pad", "datm-pad"]


def test_logits_and_a_learning_rate_are_kept(tmp_path: Path) -> None:
    logits = noise(6, 3, dtype=torch.float32)
    order = logits.argmax(1).argsort(stable=True)
    path = _pt(tmp_path, {"images": IMAGES, "labels": logits, "lr": torch.tensor(0.25)})
    found = _read(path)
    assert torch.equal(found.labels, logits[order])
    assert torch.equal(found.images, IMAGES[order])
    assert found.lr == 0.25
    assert found.ipc_on(CARD) == 2


# What does not fit.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((6, 1, 8, 9), "f4")}, "shape (6, 1, 8, 9); (N, 1, 8, 8) with N from 1 to 18"),
        ({"images": np.zeros((6, 8), "f4")}, "shape (6, 8)"),
        ({"images": np.zeros((6, 3, 8, 8), "f4")}, "shape (6, 3, 8, 8)"),
        ({"images": np.zeros((0, 1, 8, 8), "f4"), "labels": np.zeros(0, int)}, "N from 1 to 18"),
        ({"images": np.zeros((21, 1, 8, 8), "u1"), "labels": np.repeat([0, 1, 2], 7)}, "N from 1 to 18"),
        ({"images": np.zeros((18, 1, 8, 8), "u1"), "labels": np.repeat([0, 1, 2], 6)}, "6 images per class"),
        ({"images": np.zeros((6, 1, 8, 8), "i8")}, "its images are int64 from 0 to 0: bytes or floats"),
        ({"images": np.full((6, 1, 8, 8), 1e30, "f4")}, "values from 1e+30 to 1e+30, which no image has"),
        ({"images": np.full((6, 1, 8, 8), np.nan, "f4")}, "not all values of its images are finite"),
        ({"images": np.full((6, 1, 8, 8), np.inf, "f4")}, "not all values of its images are finite"),
        ({"images": np.full((6, 1, 8, 8), 1e300)}, "not all values of its images are finite"),
        ({"labels": np.array([0, 0, 1, 1, 2, 3])}, "its labels go from 0 to 3, those of made-up from 0 to 2"),
        ({"labels": np.array([0, 0, 1, 1, 2, -1])}, "its labels go from -1 to 2"),
        ({"labels": np.array([0, 0, 1, 1, 1, 2])}, "from 1 to 3 of a class"),
        ({"labels": np.array([0, 1, 2])}, "6 images have 3 labels"),
        ({"labels": np.zeros((6, 4), "f4")}, "its labels are float32 of shape (6, 4)"),
        ({"labels": np.full(6, 0.5, "f4")}, "its labels are float32 of shape (6,), with fractions"),
        ({"labels": np.ones((6, 3), int)}, "its labels are int64 of shape (6, 3), and not one-hot"),
        ({"labels": np.full((6, 3), np.nan, "f4")}, "not all values of its labels are finite"),
        ({"labels": np.array(["a"] * 6)}, "An array of <U1 was found"),
        ({"labels": np.full((6, 3), -1e30)}, "its logits go from -1e+30 to -1e+30"),
        ({"lr": np.array(-1.0)}, "its lr is not a positive number"),
        ({"lr": np.array([1.0, 2.0])}, "its lr is not a positive number"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        imports.read(_npz(tmp_path, **changes), CARD)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pixels": "unit"}, "--pixels unit is for values from 0 to 1, the images have -"),
        ({"pixels": "byte"}, "No kind of pixels is called 'byte'"),
        ({"kind": "h5"}, "No format is called 'h5'"),
        ({"kind": "pt"}, "is not a whole pt file of images and labels"),
        ({"kind": "safetensors"}, "is not a safetensors file, or its header is larger"),
        ({"kind": "images"}, "has 0 images in CLASS/*.png"),
        ({"experiment": 1}, "has 1 set: --experiment is from 0 to 0"),
        ({"preprocessing": "pca"}, "No preprocessing is called 'pca'"),
        ({"lr": -1.0}, "its lr is not a positive number"),
    ],
)
def test_options_that_do_not_fit_are_said(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        imports.read(_npz(tmp_path), CARD, **options)
    assert said in str(error.value)


def test_bytes_and_sets_that_explain_themselves_need_no_word_on_pixels(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="uint8, which are pixels in any case"):
        imports.read(_npz(tmp_path, images=PIXELS.numpy()), CARD, pixels="unit")
    (tmp_path / "own.safetensors").write_bytes(_own().to_bytes())
    for flag, value in (("pixels", "unit"), ("preprocessing", "zca"), ("lr", 0.1)):
        how: dict[str, Any] = {flag: value}
        with pytest.raises(BadInput, match=f"says this itself: no --{flag}"):
            imports.read(tmp_path / "own.safetensors", CARD, **how)


def test_a_set_of_another_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(_own().to_bytes())
    other = data_card((5, 6, 7, 8))
    with pytest.raises(BadInput, match="made from another dataset"):
        imports.read(tmp_path / "own.safetensors", other)
    with pytest.raises(BadInput, match=r"images are \(1, 8, 8\)"):
        imports.read(tmp_path / "own.safetensors", data_card(size=(9, 9)))


# Hostile files.


class _Runs:
    """Unpickled, it would make a file in the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch RAN",)


def _bomb_png(size: int) -> bytes:
    """A PNG that claims to be a square of that size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def _link(name: str, target: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        made = _zip(path, _pictures())
        with zipfile.ZipFile(made, "a") as archive:
            archive.writestr(info, target)
        return made

    return make


def _member(name: str, content: bytes = b"x") -> Callable[[Path], Path]:
    return lambda path: _zip(path, _pictures() | {name: content})


def _written(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return make


def _header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _npz_of(images: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        labels = io.BytesIO()
        np.save(labels, LABELS.numpy())
        return _zip(path, {"images.npy": images, "labels.npy": labels.getvalue()}, "set.npz")

    return make


def _nul(path: Path) -> Path:
    made = _zip(path, _pictures() | {"0/a?.png": b"x"})
    made.write_bytes(made.read_bytes().replace(b"0/a?.png", b"0/a\0.png"))
    return made


def _folder(path: Path) -> Path:
    for name, content in _pictures().items():
        (path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "set" / name).write_bytes(content)
    return path / "set"


def _linked_picture(path: Path) -> Path:
    (_folder(path) / "0" / "0.png").rename(path / "elsewhere.png")
    (path / "set" / "0" / "0.png").symlink_to(path / "elsewhere.png")
    return path / "set"


def _linked_class(path: Path) -> Path:
    (_folder(path) / "0").rename(path / "elsewhere")
    (path / "set" / "0").symlink_to(path / "elsewhere")
    return path / "set"


def _endless_picture(path: Path) -> Path:
    with (_folder(path) / "0" / "0.png").open("wb") as file:
        file.truncate(10**12)
    return path / "set"


def _pipe_in_folder(path: Path) -> Path:
    os.mkfifo(_folder(path) / "0" / "9.png")
    return path / "set"


def _pipe(path: Path) -> Path:
    os.mkfifo(path / "set.npz")
    return path / "set.npz"


def _sparse(path: Path) -> Path:
    with (path / "set.npz").open("wb") as file:
        file.truncate(10**12)
    return path / "set.npz"


def _program(path: Path, program: bytes) -> Path:
    """A .pt file with these instructions for the pickle machine."""
    return _zip(path, {"set/data.pkl": program, "set/version": b"3"}, "set.pt")


def _cut(path: Path, made: Path) -> Path:
    made.write_bytes(made.read_bytes()[:-200])
    return made


def _encrypted(path: Path) -> Path:
    made = _zip(path, {"0/0.png": b"x"})
    content = bytearray(made.read_bytes())
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(sign) + place] |= 1
    made.write_bytes(content)
    return made


def _claims(path: Path, **about: Any) -> Path:
    header = json.dumps(about).encode()
    (path / "set.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    return path / "set.safetensors"


def _own_with(path: Path, **about: Any) -> Path:
    said = {"format": 1, "classes": list(CARD.classes), "lr": None, "mean": CARD.mean, "std": CARD.std} | about
    return _foreign(path, dambench=json.dumps(said))


def _strided(path: Path) -> Path:
    return _pt(path, {"images": torch.zeros(1).expand(10**7, 1, 800, 800), "labels": LABELS})


def _lzma(path: Path) -> Path:
    with zipfile.ZipFile(path / "set.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("0/0.png", _png(PIXELS[0]))
    return path / "set.zip"


def _twice(path: Path) -> Path:
    made = _zip(path, _pictures())
    with zipfile.ZipFile(made, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("0/1.png", b"x")
    return made


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _laughs(path: Path) -> Path:
    """Lists of ten references to the list before: a file of a kilobyte that has 10^40 leaves."""
    saved: Any = IMAGES
    for _ in range(40):
        saved = [saved] * 10
    return _pt(path, {"images": saved, "labels": LABELS})


def _rewritten(path: Path, which: int) -> Path:
    """A tensor of 600 numbers that says it has 60,000: in its storage (0) or in its shape (1)."""
    made = _pt(path, {"images": torch.zeros(600), "labels": LABELS})
    with zipfile.ZipFile(made) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code, six_hundred, more = members["set/data.pkl"], b"M\x58\x02", b"J" + (60_000).to_bytes(4, "little")
    assert code.count(six_hundred) == 2
    at = (code.index(six_hundred), code.rindex(six_hundred))[which]
    return _zip(path, members | {"set/data.pkl": code[:at] + more + code[at + 3 :]}, "set.pt")


def _object_array(path: Path) -> Path:
    images = np.empty(6, object)
    images[:] = _Runs()
    return _npz(path, images=images)


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a pickle that runs, in a .pt": (
        lambda p: _pt(p, {"images": IMAGES, "labels": _Runs()}),
        "system, which is neither",
    ),
    "a pickle that runs, alone": (lambda p: _pt(p, _Runs()), "system, which is neither"),
    "a bare pickle called .pt": (_written("set.pt", pickle.dumps(_Runs())), "is not what torch.save writes"),
    "a bare pickle called .npz": (_written("set.npz", pickle.dumps(_Runs())), "is not a whole npz file"),
    "a pickle that runs, in an old .pt": (
        lambda p: _pt(p, {"images": IMAGES, "labels": _Runs()}, zipped=False),
        "system, which is neither",
    ),
    "half an old .pt": (lambda p: _cut(p, _pt(p, (IMAGES, LABELS), zipped=False)), "which are not there"),
    "a model instead of a set": (lambda p: _pt(p, torch.nn.Linear(2, 2)), "which is neither a tensor"),
    "a meta tensor": (
        lambda p: _pt(p, {"images": torch.empty(10, 1, 8, 8, device="meta"), "labels": LABELS}),
        "a meta tensor, which has a shape and no values",
    ),
    "a rate of any size": (lambda p: _pt(p, {"images": IMAGES, "labels": LABELS, "lr": 10**400}), "not a positive"),
    "labels that are all of a list": (lambda p: _pt(p, (IMAGES, [LABELS])), "The labels are list, not a plain tensor"),
    "instructions of no use": (lambda p: _program(p, b"\x80\x02c__main__\nx\n."), "__main__.x, which is neither"),
    "an instruction that calls a list": (lambda p: _program(p, b"\x80\x02]](tR."), "calls what is no function"),
    "instructions that end too early": (lambda p: _program(p, b"\x80\x02"), "is not a whole pt file"),
    "a name of a billion letters": (lambda p: _program(p, b"\x80\x02X\xff\xff\xff\x7f."), "is not a whole pt file"),
    "a key that takes for ever": (lambda p: _program(p, b"\x80\x02})" + b"\x85" * 10**5 + b"Ns."), "other than names"),
    "a name that is a list": (lambda p: _program(p, b"\x80\x02]]\x93."), "calls what has no name"),
    "a memory at any place": (lambda p: _program(p, b"\x80\x02]r\xff\xff\xff\xff."), "neither a dict of tensors"),
    "images without labels beside": (
        lambda p: _parts(p, images_zca_9=IMAGES) / "images_zca_9.pt",
        "MTT's images_zca_… are for looking at",
    ),
    "a folder of one of two": (lambda p: _parts(p, images_best=IMAGES), "has no pair such as images_best.pt"),
    "a folder of several": (
        lambda p: _parts(p, images_1=IMAGES, labels_1=LABELS, images_2=IMAGES, labels_2=LABELS),
        "has several sets: images_1.pt, images_2.pt",
    ),
    "a tensor without labels": (lambda p: _pt(p, IMAGES), "neither a dict of tensors nor the pair"),
    "a tensor of any size": (_strided, "more than a set can have"),
    "a tensor of one number": (
        lambda p: _pt(p, {"images": torch.zeros(1).expand(20, 1, 8, 8), "labels": LABELS}),
        "claims more numbers than the 1 stored",
    ),
    "a tensor of more than is stored": (lambda p: _rewritten(p, 0), "is not a whole pt file"),
    "a tensor beyond its storage": (lambda p: _rewritten(p, 1), "is not a whole pt file"),
    "a file of endless lists": (_laughs, "The images are list, not a plain tensor"),
    "one set ten thousand times": (lambda p: _pt(p, [[IMAGES, LABELS]] * 10_000), "10000 sets were found, which are"),
    "NumPy's arrays": (lambda p: _pt(p, {"images": IMAGES.numpy(), "labels": LABELS}), "save tensors, or an .npz"),
    "a sparse tensor": (lambda p: _pt(p, {"images": IMAGES.to_sparse(), "labels": LABELS}), "only plain ones are read"),
    "a number for the labels": (lambda p: _pt(p, {"images": IMAGES, "labels": 3}), "not a plain tensor"),
    "objects in an array": (_object_array, "Python objects, which could run code"),
    "a pickle as a member of .npz": (
        _npz_of(_header("(6,)", "'|O'") + pickle.dumps(_Runs())),
        "Python objects, which could run code",
    ),
    "a header of any size": (_npz_of(_header("(6, 1, 8, 800000000000)")), "claims 153600000000000 bytes"),
    "a header of negative size": (_npz_of(_header("(-6, -1, 8, 8)") + bytes(4 * 384)), "claims 1536 bytes"),
    "a header without end": (_npz_of(_header("(" + "6, " * 9000 + ")")), "is not a whole npz file"),
    "records": (_npz_of(_header("(6,)", "[('a', '<f4', (64,))]") + bytes(6 * 256)), "where numbers are needed"),
    "a bomb in a .npz": (_npz_of(_header("(6, 1, 8, 8)") + bytes(30_000_000)), "would unpack to 2 files of 30 MB"),
    "half a .npz": (lambda p: _cut(p, _npz(p)), "is not a whole npz file"),
    "a sparse file of a terabyte": (_sparse, "has 1000000000000 bytes"),
    "an empty file": (_written("set.pt", b""), "has 0 bytes"),
    "a text": (_written("set.safetensors", b"hello, here is a set for you"), "its header is larger"),
    "a safetensors header of any size": (
        _written("set.safetensors", (10**15).to_bytes(8, "little") + b"{}"),
        "its header is larger",
    ),
    "a safetensors file that claims too much": (
        lambda p: _claims(p, images={"dtype": "F32", "shape": [10**6, 1, 8, 8], "data_offsets": [0, 256 * 10**6]}),
        "is not a whole safetensors file",
    ),
    "a safetensors file of another type": (
        lambda p: _claims(p, images={"dtype": "U8", "shape": [1, 1, 8, 8], "data_offsets": [0, 64]}),
        "and labels are needed",
    ),
    "a set of dambench that is none": (
        lambda p: _foreign(p, dambench='{"format": 1}'),
        "is not a synthetic set of dambench",
    ),
    "a set of dambench with a rate of any size": (
        lambda p: _own_with(p, lr=10**400),
        "is not a synthetic set of dambench",
    ),
    "a set of dambench with a negative rate": (
        lambda p: _own_with(p, lr=-0.1),
        "its learning rate is no sens",
    ),
    "a set of dambench with a huge rate": (lambda p: _own_with(p, lr=1e30), "its learning rate is no sens"),
    "a set of dambench of other means": (
        lambda p: _own_with(p, mean=[1e30]),
        "its means and standard deviations",
    ),
    "a set of dambench of no deviation": (lambda p: _own_with(p, std=[1e-30]), "its means and standard deviations are"),
    "a set of dambench of infinite means": (lambda p: _own_with(p, mean=[float("inf")]), "its means and standard"),
    "a member that leads out": (_member("../../outside.png"), "leads out of its folder"),
    "a member inside that leads out": (_member("0/../../outside.png"), "leads out of its folder"),
    "an absolute member": (_member("/tmp/outside.png"), "leads out of its folder"),
    "a member with backslashes": (_member("..\\outside.png"), "a backslash or a drive letter"),
    "a member on a drive": (_member("C:/outside.png"), "a backslash or a drive letter"),
    "a member with a NUL": (_nul, "has a name with a NUL"),
    "a link in an archive": (_link("0/9.png", "/etc/passwd"), "is a link or a device"),
    "a folder that is a link": (_link("3", "/etc"), "is a link or a device"),
    "a file that is a folder too": (_member("0/1.png/2.png"), "has '0/1.png' twice"),
    "a file twice": (_twice, "has '0/1.png' twice"),
    "a name that never ends": (_member("a/" * 30_000 + "b"), "has a longer name than any set needs"),
    "a file that is a folder, said first": (_member("0/0.png/"), "has '0/0.png' twice"),
    "an empty part of a name": (_member("0//1.png"), "leads out of its folder"),
    "a bomb in a .zip": (_member("0/9.png", bytes(30_000_000)), "would unpack to"),
    "an archive in an archive": (
        lambda p: _zip(p, {"inner.zip": _zip(p, _pictures(), "inner.zip").read_bytes()}),
        "has 0 images in CLASS/*.png",
    ),
    "an encrypted archive": (_encrypted, "is encrypted"),
    "another way of packing": (_lzma, "is packed in another way"),
    "a PNG bomb": (_member("0/9.png", _bomb_png(30_000)), "'0/9.png' is no image that can be read"),
    "a large PNG": (_member("0/9.png", _bomb_png(10_000)), "'0/9.png' is no image that can be read"),
    "a PNG of another size": (_member("0/9.png", _bomb_png(9)), "'0/9.png' is 9×9; those of digits are 8×8"),
    "a JPEG called PNG": (_member("0/9.png", b"\xff\xd8\xff\xe0 and so on"), "is no image"),
    "a picture of a terabyte": (_endless_picture, "are the most"),
    "half a PNG": (_member("0/9.png", _png(PIXELS[0])[:50]), "is no image"),
    "images in two depths": (_member("9.png", _png(PIXELS[0])), "do not lie in CLASS/*.png"),
    "a class that is none": (_member("\u202ecat/9.png", _png(PIXELS[0])), "'\ufffdcat' is no class of digits"),
    "a number that is no class": (_member("10/9.png", _png(PIXELS[0])), "'10' is no class of digits"),
    "images too deep": (_member("a/b/c/9.png", _png(PIXELS[0])), "do not lie in CLASS/*.png"),
    "a link to an image": (_linked_picture, "is a link: copy what it leads to"),
    "a link to a class": (_linked_class, "is a link: copy what it leads to"),
    "a pipe among images": (_pipe_in_folder, "is not a file"),
    "a pipe": (_pipe, "is neither a file nor a folder"),
    "an empty folder": (lambda p: _made(p / "set"), "has 0 images"),
    "a folder called .pt": (lambda p: _made(p / "set.pt"), "has 0 images"),
    "nothing": (lambda p: p / "nowhere.pt", "cannot be read: No such file"),
    "an unknown suffix": (_written("set.h5", b"x"), "its suffix names no format"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    made, said = HOSTILE[what]
    (tmp_path / "runs.db").write_bytes(b"not to be touched")
    (tmp_path / "in").mkdir()
    path = made(tmp_path / "in")
    assert run_cli(["data", "list"]) == 0
    before = _there(tmp_path)
    capsys.readouterr()
    began = time.process_time()
    assert run_cli(["import", str(path), "--dataset", "digits"]) == 2
    assert time.process_time() - began < 5
    printed = capsys.readouterr()
    assert printed.out == ""
    (sentence,) = (line for line in printed.err.splitlines() if not line.startswith("Preparing"))
    assert said in sentence
    assert "weights_only=False" not in sentence
    assert _there(tmp_path) == before
    assert not list((tmp_path / "home" / "sets").iterdir())


def _there(folder: Path) -> dict[str, bytes | None]:
    """Every file but the prepared digits, with what it holds."""
    return {
        str(path): path.read_bytes() if path.is_file() and path.stat().st_size < 10**9 else None
        for path in sorted(folder.rglob("*"))
        if "home" not in path.relative_to(folder).parts
    }


def test_every_damage_to_a_file_is_a_sentence(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    made_as: list[Callable[[Path], Path]] = [_npz, _foreign, lambda path: _zip(path, _pictures())]
    made_as += [lambda path: _pt(path, (IMAGES, LABELS)), lambda path: _pt(path, (IMAGES, LABELS), zipped=False)]
    for made in made_as:
        path = made(tmp_path)
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[draw.integers(len(whole))] ^= 1 << draw.integers(8)
            path.write_bytes(damaged[: draw.integers(len(whole))] if draw.integers(4) == 0 else damaged)
            with contextlib.suppress(BadInput):
                imports.read(path, CARD)


# The command.


def _digits(tmp_path: Path, ipc: int = 2) -> Path:
    images = noise(10 * ipc, 1, 8, 8, dtype=torch.float32)
    return _npz(tmp_path, images=images.numpy(), labels=torch.arange(10).repeat_interleave(ipc).numpy())


def test_an_imported_set_is_evaluated_by_the_command_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _digits(tmp_path)
    assert run_cli(["import", str(path), "--dataset", "digits", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ipc"], said["shape"], said["labels"]) == (2, [20, 1, 8, 8], "hard")
    assert Path(said["file"]).name == f"{said['sha256']}.safetensors"
    assert digest(Path(said["file"]).read_bytes()) == said["sha256"]
    assert not (tmp_path / "runs.db").exists()
    quick = ["--network", "convnet-d1-w4", "--eval-repeats", "1", "--device", "cpu", "--json"]
    assert run_cli([*shlex.split(said["command"])[1:], *quick]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["state"] == "finished"
    assert result["synthetic_sha256"] == said["sha256"]
    assert run_cli(["report", "--short"]) == 0
    assert f"imported (set {said['sha256'][:8]})" in capsys.readouterr().out


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _digits(tmp_path)
    assert run_cli(["import", str(path), "--dataset", "digits"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("sha256  ")
    assert "ipc           2" in printed
    assert printed[-1].startswith(
        "dambench run --headless --method imported --dataset digits --ipc 2 --protocol dsa-dm --set method.set="
    )
    assert run_cli(["import", str(path), "--dataset", "digits", "--set", "method.x=1"]) == 2
    assert "--set takes dataset.NAME=VALUE only" in capsys.readouterr().err


def test_plain_pixels_that_nobody_said_are_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.arange(10).numpy()
    path = _npz(tmp_path, images=np.random.default_rng(0).random((10, 1, 8, 8), "f4"), labels=labels)
    assert run_cli(["import", str(path), "--dataset", "digits"]) == 0
    assert "import it again with --pixels unit" in capsys.readouterr().err
    assert run_cli(["import", str(path), "--dataset", "digits", "--pixels", "unit"]) == 0
    assert "--pixels unit" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sha256", "ipc", "said"),
    [
        ("", "2", "Which set?"),
        ("0" * 64, "2", "There is no set 0000"),
        ("kept", "3", "say --ipc 2"),
        ("damaged", "2", "is damaged: its content is not what its name says"),
    ],
)
def test_a_set_that_cannot_be_given_is_refused_before_there_is_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sha256: str, ipc: str, said: str
) -> None:
    if sha256 in ("kept", "damaged"):
        assert run_cli(["import", str(_digits(tmp_path)), "--dataset", "digits", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        if sha256 == "damaged":
            Path(found["file"]).write_bytes(b"something else")
        sha256 = found["sha256"]
    arguments = ["run", "--headless", "--method", "imported", "--dataset", "digits", "--ipc", ipc]
    arguments += ["--network", "convnet-d1-w4", "--eval-repeats", "1", "--device", "cpu"]
    assert run_cli([*arguments, *(["--set", f"method.set={sha256}"] if sha256 else [])]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs.db").exists()


def test_the_sets_of_a_file_are_one_row_and_each_seed_takes_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = torch.arange(10)
    sets = [noise(10, 1, 8, 8, seed=seed, dtype=torch.float32) for seed in range(2)]
    path = _pt(tmp_path, {"data": [[images, labels] for images in sets]})
    assert run_cli(["import", str(path), "--dataset", "digits", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sha256"], said["experiments"]) == (None, [0, 1])
    quick = ["--network", "convnet-d1-w4", "--eval-repeats", "1", "--device", "cpu", "--json"]
    assert run_cli([*shlex.split(said["command"])[1:], *quick]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [run["synthetic_sha256"] for run in made] == said["sets"]
    assert run_cli(["report", "--format", "json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    (cell,) = table["cells"]
    assert (cell["networks"], cell["sets"]) == (2, 2)


def test_the_beginning_of_a_hash_will_do_where_only_one_set_has_it() -> None:
    card = datasets.prepare(Choice("digits"), None)
    like = Normalisation(tuple(card.mean), tuple(card.std))
    kept = imports.keep(SyntheticSet(torch.zeros(10, 1, 8, 8), torch.arange(10), like, tuple(card.classes)))
    assert imported.settle(imported.Options(set=kept[:4]), card, 1) == (imported.Options(set=kept), "mean/std")
    set_path(kept[:8] + "0" * 56).write_bytes(b"another one")
    assert imported.settle(imported.Options(set=kept[:12]), card, 1)[0].set == kept
    with pytest.raises(BadInput, match=f"2 sets begin with {kept[:8]}: give more of it"):
        imported.settle(imported.Options(set=kept[:8]), card, 1)


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "A" * 64, "000", "0" * 65, "/etc/passwd", "0000,"])
def test_a_set_is_named_by_its_hash_and_by_nothing_else(capsys: pytest.CaptureFixture[str], sha256: str) -> None:
    arguments = ["run", "--headless", "--method", "imported", "--dataset", "digits", "--set", f"method.set='{sha256}'"]
    assert run_cli(arguments) == 2
    assert "set = " in capsys.readouterr().err
