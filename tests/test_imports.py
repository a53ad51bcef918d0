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

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from dambench import imports
from dambench.cli import run_cli
from dambench.errors import BadInput
from dambench.files import digest, set_path
from dambench.problem import Normalisation, SyntheticSet
from tests.lab import data_card, generator, noise

CARD = data_card(mirrors=False)
"""Three classes of 5 to 7 training images, 1 × 8 × 8."""

IMAGES = noise(6, 1, 8, 8, dtype=torch.float32)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
PIXELS = torch.randint(256, (6, 1, 8, 8), generator=generator(), dtype=torch.uint8)


def _own(images: Tensor = IMAGES, labels: Tensor = LABELS, lr: float | None = None, **more: Any) -> SyntheticSet:
    normalisation = Normalisation(tuple(CARD.mean), tuple(CARD.std))
    return SyntheticSet(images, labels, normalisation, tuple(CARD.classes), lr, **more)


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **({"images": IMAGES.numpy(), "labels": LABELS.numpy()} | arrays))
    return path / "set.npz"


def _pt(path: Path, saved: Any) -> Path:
    torch.save(saved, path / "set.pt")
    return path / "set.pt"


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
    found = imports.read(tmp_path / "any.safetensors", CARD)
    assert found.to_bytes() == content
    assert imports.keep(found) == digest(content)
    assert set_path(digest(content)).read_bytes() == content


FORMS: dict[str, Callable[[Path], Path]] = {
    "npz": _npz,
    "npz of x and y": lambda path: _renamed_npz(path),
    "safetensors": lambda path: _foreign(path),
    "a dict": lambda path: _pt(path, {"images": IMAGES, "labels": LABELS}),
    "a pair": lambda path: _pt(path, (IMAGES, LABELS)),
    "the code of DC": lambda path: _pt(
        path, {"data": [[IMAGES * 0, LABELS], [IMAGES, LABELS]], "accs_all_exps": {"ConvNet": [np.float64(0.3)]}}
    ),
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
    found = imports.read(FORMS[form](tmp_path), CARD)
    assert found.to_bytes() == _own().to_bytes()


@pytest.mark.parametrize("names", [("0", "1", "2"), ("00000", "00001", "00002"), tuple(CARD.classes)])
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
    assert imports.read(path, CARD).to_bytes() == _own(PIXELS).to_bytes()


def test_colour_is_kept_in_the_order_of_channels(tmp_path: Path) -> None:
    card = data_card(channels=3)
    pixels = torch.randint(256, (6, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    found = imports.read(_zip(tmp_path, _pictures(pixels)), card)
    assert torch.equal(found.images, pixels)


def test_a_set_that_lies_mixed_is_sorted_by_class(tmp_path: Path) -> None:
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    found = imports.read(_npz(tmp_path, images=IMAGES[order].numpy(), labels=LABELS[order].numpy()), CARD)
    assert found.to_bytes() == _own().to_bytes()


def test_pixels_of_one_unit_are_normalised_as_real_ones_are(tmp_path: Path) -> None:
    path = _npz(tmp_path, images=PIXELS.numpy() / 255)
    found = imports.read(path, CARD, pixels="unit")
    expected = _own(PIXELS).inputs(torch.arange(6))
    torch.testing.assert_close(found.images, expected, atol=1e-5, rtol=0)
    assert imports.looks_plain(imports.read(path, CARD))
    assert not imports.looks_plain(found)


def test_logits_and_a_learning_rate_are_kept(tmp_path: Path) -> None:
    logits = noise(6, 3, dtype=torch.float32)
    order = logits.argmax(1).argsort(stable=True)
    path = _pt(tmp_path, {"images": IMAGES, "labels": logits, "lr": torch.tensor(0.25)})
    found = imports.read(path, CARD)
    assert torch.equal(found.labels, logits[order])
    assert torch.equal(found.images, IMAGES[order])
    assert found.lr == 0.25
    assert found.ipc_on(CARD) == 2


# What does not fit.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((6, 1, 8, 9), "f4")}, "shape (6, 1, 8, 9); (N, 1, 8, 8) with N from 1 to 18"),
        ({"images": np.zeros((6, 8, 8), "f4")}, "shape (6, 8, 8)"),
        ({"images": np.zeros((6, 3, 8, 8), "f4")}, "shape (6, 3, 8, 8)"),
        ({"images": np.zeros((0, 1, 8, 8), "f4"), "labels": np.zeros(0, int)}, "N from 1 to 18"),
        ({"images": np.zeros((21, 1, 8, 8), "u1"), "labels": np.repeat([0, 1, 2], 7)}, "N from 1 to 18"),
        ({"images": np.zeros((18, 1, 8, 8), "u1"), "labels": np.repeat([0, 1, 2], 6)}, "6 images per class"),
        ({"images": np.zeros((6, 1, 8, 8), "i8")}, "its images are int64: uint8 or floats"),
        ({"images": np.full((6, 1, 8, 8), np.nan, "f4")}, "not all values of its images are finite"),
        ({"images": np.full((6, 1, 8, 8), np.inf, "f4")}, "not all values of its images are finite"),
        ({"images": np.full((6, 1, 8, 8), 1e300)}, "not all values of its images are finite"),
        ({"labels": np.array([0, 0, 1, 1, 2, 3])}, "its labels go from 0 to 3, those of made-up from 0 to 2"),
        ({"labels": np.array([0, 0, 1, 1, 2, -1])}, "its labels go from -1 to 2"),
        ({"labels": np.array([0, 0, 1, 1, 1, 2])}, "from 1 to 3 of a class"),
        ({"labels": np.array([0, 1, 2])}, "6 images have 3 labels"),
        ({"labels": np.zeros((6, 4), "f4")}, "its labels are float32 of shape (6, 4)"),
        ({"labels": np.zeros(6, "f4")}, "its labels are float32 of shape (6,)"),
        ({"labels": np.full((6, 3), np.nan, "f4")}, "not all values of its labels are finite"),
        ({"labels": np.eye(3, dtype="f4")[[0, 0, 1, 1, 2, 2]]}, "probabilities: give logits"),
        ({"labels": np.array(["a"] * 6)}, "An array of <U1 was found"),
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
        ({"kind": "png"}, "has 0 images in CLASS/*.png"),
    ],
)
def test_options_that_do_not_fit_are_said(tmp_path: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput) as error:
        imports.read(_npz(tmp_path), CARD, **options)
    assert said in str(error.value)


def test_bytes_and_sets_that_explain_themselves_need_no_word_on_pixels(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="uint8, which are pixels in any case"):
        imports.read(_npz(tmp_path, images=PIXELS.numpy()), CARD, pixels="unit")
    (tmp_path / "own.safetensors").write_bytes(_own().to_bytes())
    with pytest.raises(BadInput, match="says itself what its pixels are"):
        imports.read(tmp_path / "own.safetensors", CARD, pixels="unit")


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


def _cut(path: Path) -> Path:
    made = _npz(path)
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


def _strided(path: Path) -> Path:
    return _pt(path, {"images": torch.zeros(1).expand(10**7, 1, 800, 800), "labels": LABELS})


def _old(path: Path) -> Path:
    torch.save((IMAGES, LABELS), path / "set.pt", _use_new_zipfile_serialization=False)
    return path / "set.pt"


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
    "an old .pt": (_old, "is not what torch.save writes"),
    "a model instead of a set": (lambda p: _pt(p, torch.nn.Linear(2, 2)), "which is neither a tensor"),
    "a tensor without labels": (lambda p: _pt(p, IMAGES), "neither a dict of tensors nor the pair"),
    "a tensor of any size": (_strided, "more than a set can have"),
    "a tensor of more than is stored": (lambda p: _rewritten(p, 0), "is not a whole pt file"),
    "a tensor beyond its storage": (lambda p: _rewritten(p, 1), "is not a whole pt file"),
    "a file of endless lists": (_laughs, "The images are list, not a plain tensor"),
    "a sparse tensor": (lambda p: _pt(p, {"images": IMAGES.to_sparse(), "labels": LABELS}), "is not a whole pt file"),
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
    "half a .npz": (_cut, "is not a whole npz file"),
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
        "images (or data, x, x_train) and labels are needed",
    ),
    "a set of dambench that is none": (
        lambda p: _foreign(p, dambench='{"format": 1}'),
        "is not a synthetic set of dambench",
    ),
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
    "a PNG bomb": (_member("0/9.png", _bomb_png(30_000)), "'0/9.png' is not a PNG file that can be read"),
    "a large PNG": (_member("0/9.png", _bomb_png(10_000)), "'0/9.png' is not a PNG file that can be read"),
    "a PNG of another size": (_member("0/9.png", _bomb_png(9)), "'0/9.png' is 9×9; those of digits are 8×8"),
    "a JPEG called PNG": (_member("0/9.png", b"\xff\xd8\xff\xe0 and so on"), "is not a PNG file"),
    "half a PNG": (_member("0/9.png", _png(PIXELS[0])[:50]), "is not a PNG file"),
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
    began = time.monotonic()
    assert run_cli(["import", str(path), "--dataset", "digits"]) == 2
    assert time.monotonic() - began < 5
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
    for made in (_npz, _foreign, lambda path: _pt(path, (IMAGES, LABELS)), lambda path: _zip(path, _pictures())):
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
    assert "ipc     2" in printed
    assert printed[-1].startswith(
        "dambench run --headless --method imported --dataset digits --ipc 2 --set method.set="
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
def test_a_set_that_cannot_be_given_ends_the_run_with_the_reason(
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
    assert run_cli([*arguments, *(["--set", f"method.set={sha256}"] if sha256 else [])]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "/etc/passwd"])
def test_a_set_is_named_by_its_hash_and_by_nothing_else(capsys: pytest.CaptureFixture[str], sha256: str) -> None:
    arguments = ["run", "--headless", "--method", "imported", "--dataset", "digits", "--set", f"method.set='{sha256}'"]
    assert run_cli(arguments) == 2
    assert "set = " in capsys.readouterr().err
