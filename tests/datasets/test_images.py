"""Every file is used as a person sees it, or is counted in a note."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.datasets import _images

Array = NDArray[Any]

GREY = np.kron(np.array([[0, 90], [200, 255], [40, 255]], np.uint8), np.ones((8, 8), np.uint8))
"""(24, 16), no symmetry, of squares as JPEG packs them."""
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
ORIENTATION = 0x0112
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""How an upright image is stored under each orientation tag, by EXIF's definition of rows and columns."""


def _folder(root: Path, write: Callable[[Path], None], suffix: str = ".png") -> Path:
    """Two classes whose images are all written in that way."""
    for part in ("train", "test"):
        for label in ("a", "b"):
            (root / part / label).mkdir(parents=True)
            write(root / part / label / f"0{suffix}")
    return root


def _prepared(root: Path, **options: Any) -> tuple[DataCard, Array]:
    """The card, and the first training image (H, W, C)."""
    card = datasets.prepare(Choice("folder", options), root)
    images = datasets.open_sets(card, torch.device("cpu"))[0].images
    return card, np.moveaxis(images[0].numpy(), 0, 2)


def _png(pixels: Array, extra: bytes = b"") -> bytes:
    """16 bits per colour, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    key = chunk(b"tRNS", extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + head + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _tiff(pixels: Array, order: str, photometric: int, packed: bool = False) -> bytes:
    """16 bits per colour, which Pillow cannot write; either byte order, and grey that is stored as ink."""
    height, width, channels = pixels.shape
    content = pixels.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if packed else content
    content += bytes(len(content) % 2)
    # Tag, type (3: of two bytes, 4: of four), value.
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, 8 if packed else 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, channels),
        (278, 4, height),
        (279, 4, len(content)),
    ]
    table, beyond = struct.pack(f"{order}H", len(tags)), b""
    for tag, kind, value in tags:
        if tag == 258 and channels > 1:  # one for each colour, which have no room here
            place = 8 + len(content) + 2 + 12 * len(tags) + 4
            table += struct.pack(f"{order}HHII", tag, kind, channels, place)
            beyond = struct.pack(f"{order}{channels}H", *[value] * channels)
        else:
            field = struct.pack(f"{order}I" if kind == 4 else f"{order}HH", *((value,) if kind == 4 else (value, 0)))
            table += struct.pack(f"{order}HHI", tag, kind, 1) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(content))
    return head + content + table + struct.pack(f"{order}I", 0) + beyond


def _bits(pixels: Array, bits: int) -> Array:
    """8 bits as an instrument of more has them: the most it can is white."""
    return np.array(np.ceil(pixels.astype(np.float64) * (2**bits - 1) / 255), np.uint16)


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(content), None)[1]


def _saved(pixels: Array, mode: str | None = None, **how: Any) -> Callable[[Path], None]:
    image = Image.fromarray(pixels)
    return lambda path: (image.convert(mode) if mode else image).save(path, **how)


TALL = GREY[..., None]

DEEP: dict[str, tuple[str, Callable[[Path], None], Array, int]] = {
    "8 bits in 16, PNG": (".png", _saved(GREY.astype(np.uint16)), TALL, 8),
    "10 bits in 16, PNG": (".png", _saved(_bits(GREY, 10)), TALL, 10),
    "12 bits in 16, PNG": (".png", _saved(_bits(GREY, 12)), TALL, 12),
    "14 bits in 16, PNG": (".png", _saved(_bits(GREY, 14)), TALL, 14),
    "16 bits, PNG": (".png", _saved(_bits(GREY, 16)), TALL, 16),
    "12 bits in 16, TIFF, little end first": (".tif", _bytes(_tiff(_bits(TALL, 12), "<", 1)), TALL, 12),
    "12 bits in 16, TIFF, big end first": (".tif", _bytes(_tiff(_bits(TALL, 12), ">", 1)), TALL, 12),
    "ink, 16 bits, TIFF": (".tif", _bytes(_tiff(_bits(255 - TALL, 16), "<", 0)), TALL, 16),
    "8 bits in 32, TIFF": (".tif", _saved(GREY.astype(np.int32)), TALL, 8),
    "8 bits in floats, TIFF": (".tif", _saved(GREY.astype(np.float32)), TALL, 8),
    "fractions, TIFF": (".tif", _saved((GREY / 255).astype(np.float32)), TALL, 0),
    "12 bits in 16, PGM": (".pgm", _bytes(b"P5 16 24 65535\n" + _bits(GREY, 12).astype(">u2").tobytes()), TALL, 12),
    "8 bits in 16, colour, PNG": (".png", _bytes(_png(COLOUR)), COLOUR, 8),
    "12 bits in 16, colour, PNG": (".png", _bytes(_png(_bits(COLOUR, 12))), COLOUR, 12),
    "16 bits, colour, PNG": (".png", _bytes(_png(_bits(COLOUR, 16))), COLOUR, 16),
    "12 bits in 16, colour, TIFF": (".tif", _bytes(_tiff(_bits(COLOUR, 12), "<", 2)), COLOUR, 12),
    "12 bits in 16, colour, TIFF, big end first": (".tif", _bytes(_tiff(_bits(COLOUR, 12), ">", 2)), COLOUR, 12),
    "12 bits in 16, colour, packed TIFF": (".tif", _bytes(_tiff(_bits(COLOUR, 12), "<", 2, True)), COLOUR, 12),
    "12 bits in 16, grey, packed TIFF": (".tif", _bytes(_tiff(_bits(TALL, 12), ">", 1, True)), TALL, 12),
    "12 bits in 16, grey and alpha": (
        ".png",
        _bytes(_png(np.concatenate([_bits(TALL, 12), np.full_like(TALL, 65535, np.uint16)], -1))),
        TALL,
        12,
    ),
}


@pytest.mark.parametrize("case", DEEP)
def test_pixels_of_more_than_8_bits_are_scaled_by_the_bits_that_the_dataset_uses(tmp_path: Path, case: str) -> None:
    suffix, write, expected, bits = DEEP[case]
    card, image = _prepared(_folder(tmp_path / "mine", write, suffix))
    assert np.array_equal(image, expected)
    said = [note for note in card.notes if "white" in note]
    if bits == 16:
        assert said == []
    else:
        white = f"so that {2**bits - 1} is taken for white" if bits else "of which 1 is taken for white: 4 files"
        assert white in said[0]


ink = 255 - GREY
CLEAR: dict[str, tuple[str, Callable[[Path], None], Array]] = {
    "RGBA, black ink": (".png", _saved(np.stack([np.zeros_like(ink)] * 3 + [ink], -1)), np.stack([GREY] * 3, -1)),
    "RGBA, WebP": (
        ".webp",
        _saved(np.stack([np.zeros_like(ink)] * 3 + [ink], -1), lossless=True, exact=True),
        np.stack([GREY] * 3, -1),
    ),
    "LA, black ink": (".png", _saved(np.stack([np.zeros_like(ink), ink], -1)), TALL),
    "P, one colour for none": (
        ".gif",
        _saved(np.where(GREY == 255, 7, GREY).astype(np.uint8), transparency=7),
        np.stack([GREY] * 3, -1),
    ),
    "P, alpha for each colour": (
        ".png",
        _saved(np.zeros_like(GREY) + (GREY == 255), "P", transparency=b"\xff\x00"),
        np.stack([np.where(GREY == 255, 255, 0).astype(np.uint8)] * 3, -1),
    ),
    "L, one grey for none": (".png", _saved(np.where(GREY == 255, 7, GREY).astype(np.uint8), transparency=7), TALL),
    "RGB, one colour for none": (
        ".png",
        _saved(np.where(TALL == 90, [1, 2, 3], COLOUR).astype(np.uint8), transparency=(1, 2, 3)),
        np.where(TALL == 90, 255, COLOUR),
    ),
    "16 bits, one grey for none": (
        ".png",
        _bytes(_png(np.where(TALL == 255, 7, _bits(TALL, 16)), struct.pack(">H", 7))),
        TALL,
    ),
    "16 bits, colour, one for none": (
        ".png",
        _bytes(_png(np.where(TALL == 255, 7, _bits(np.concatenate([TALL] * 3, -1), 16)), struct.pack(">HHH", 7, 7, 7))),
        np.concatenate([TALL] * 3, -1),
    ),
    "16 bits with alpha, black ink": (
        ".png",
        _bytes(_png(_bits(np.stack([np.zeros_like(ink)] * 3 + [ink], -1), 16))),
        np.stack([GREY] * 3, -1),
    ),
}


@pytest.mark.parametrize("case", CLEAR)
def test_transparent_images_are_laid_on_white_and_counted(tmp_path: Path, case: str) -> None:
    suffix, write, expected = CLEAR[case]
    card, image = _prepared(_folder(tmp_path / "mine", write, suffix))
    assert np.array_equal(image, expected)
    assert any(note.startswith("Transparent in places, and laid on white") for note in card.notes)


def test_white_ink_is_seen_on_black_and_what_is_opaque_is_left_alone(tmp_path: Path) -> None:
    white = np.stack([np.full_like(GREY, 255)] * 3 + [GREY], -1)
    card, image = _prepared(_folder(tmp_path / "mine", _saved(white)), background="black")
    assert np.array_equal(image, np.stack([GREY] * 3, -1))
    assert "laid on black" in card.notes[0]
    opaque = np.concatenate([COLOUR, np.full_like(TALL, 255)], -1)
    card, image = _prepared(_folder(tmp_path / "other", _saved(opaque)))
    assert np.array_equal(image, COLOUR)
    assert not any("laid" in note for note in card.notes)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_images_are_turned_as_their_tag_says(tmp_path: Path, suffix: str) -> None:
    lossless: dict[str, dict[str, Any]] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
    root = _folder(tmp_path / "mine", _saved(COLOUR), ".bmp")
    (root / "train" / "a" / "0.bmp").unlink()
    for orientation, turned in STORED.items():
        tags = Image.Exif()
        tags[ORIENTATION] = orientation
        stored = np.ascontiguousarray(turned(COLOUR))
        _saved(stored, exif=tags, **lossless.get(suffix, {}))(root / "train" / "a" / f"{orientation}{suffix}")
    card = datasets.prepare(Choice("folder"), root)
    images = datasets.open_sets(card, torch.device("cpu"))[0].images[:8].numpy()
    for image in np.moveaxis(images, 1, 3):
        assert np.abs(image.astype(int) - COLOUR).max() <= (3 if suffix == ".jpg" else 0)
    assert f"Turned upright, as an orientation tag says: 7 files, 'train/a/2{suffix}' for one." in card.notes


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif", ".png"])
def test_of_several_pictures_in_a_file_the_first_is_taken_and_that_is_said(tmp_path: Path, suffix: str) -> None:
    later = [Image.fromarray(255 - COLOUR), Image.fromarray(COLOUR[::-1])]
    how: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    card, image = _prepared(
        _folder(tmp_path / "mine", _saved(COLOUR, save_all=True, append_images=later, **how), suffix)
    )
    assert np.array_equal(image, COLOUR)
    assert "Of several pictures in a file the first was taken: 4 files, 'train/a/0" + suffix in card.notes[0]


@pytest.mark.parametrize(
    ("suffix", "write", "expected", "most"),
    [
        (".png", _saved(GREY > 100), np.where(TALL > 100, 255, 0), 0),
        (".jpg", _saved(COLOUR, "CMYK", quality=100), COLOUR, 6),
        (".jp2", _saved(COLOUR), COLOUR, 0),
        (".jfif", _saved(COLOUR, format="JPEG", quality=100, subsampling=0), COLOUR, 3),
        ("", _saved(COLOUR, format="PNG"), COLOUR, 0),
        (".PNG", _saved(COLOUR), COLOUR, 0),
    ],
    ids=["one bit", "CMYK", "JPEG 2000", "another suffix", "no suffix", "upper case"],
)
def test_other_kinds_of_files_are_used_too(
    tmp_path: Path, suffix: str, write: Callable[[Path], None], expected: Array, most: int
) -> None:
    _, image = _prepared(_folder(tmp_path / "mine", write, suffix))
    assert np.abs(image.astype(int) - expected).max() <= most


def test_bits_can_be_said_and_too_few_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "mine", _saved(_bits(GREY, 12)))
    _, image = _prepared(root, bits=16)
    assert image.max() == 15  # as dark as a viewer shows it
    with pytest.raises(BadInput, match=r"dataset\.bits = 10 is too few: .* has a pixel of 4095"):
        _prepared(root, bits=10)


@pytest.mark.parametrize("pixels", [GREY - 300.0, GREY * 300.0, GREY / 100, np.full_like(GREY, np.nan, np.float32)])
def test_pixels_of_which_nobody_knows_what_is_white_are_refused(tmp_path: Path, pixels: Array) -> None:
    root = _folder(tmp_path / "mine", _saved(pixels.astype(np.float32)), ".tif")
    with pytest.raises(BadInput, match=r"0\.tif' .*(8 or 16 bits|whole numbers) are needed"):
        _prepared(root)


def test_a_profile_that_is_not_applied_and_broken_tags_are_no_reason_to_refuse(tmp_path: Path) -> None:
    card, _ = _prepared(_folder(tmp_path / "mine", _saved(COLOUR, icc_profile=b"x" * 128 + b"Adobe RGB (1998)")))
    assert "A colour profile or gamma other than sRGB's was not applied: 4 files" in card.notes[0]
    card, image = _prepared(_folder(tmp_path / "other", _saved(COLOUR, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0")))
    assert np.array_equal(image, COLOUR)


def test_of_an_image_alone_16_bits_are_used_only_where_they_are_16(tmp_path: Path) -> None:
    for content, shape, good in ((_bits(TALL, 16), TALL, True), (TALL, TALL, False), (COLOUR, COLOUR, False)):
        with Image.open(io.BytesIO(_png(content))) as image:
            if good:
                assert np.array_equal(_images.planes(_images.plain(image, 1))[0], shape[..., 0])
            else:
                with pytest.raises(ValueError, match="fewer than its 16 bits: save it with 8"):
                    _images.plain(image, 1)


def test_a_class_of_files_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "mine", _saved(GREY))
    (root / "train" / "b" / "0.png").rename(root / "b.png")
    (root / "train" / "b" / "0.heic").write_bytes(b"ftypheic")
    with pytest.raises(BadInput, match=r"The class 'b' has no image in .* that dambench can read, only 1 other file"):
        _prepared(root)
