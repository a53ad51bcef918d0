import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.text import Text

from dambench.cli.show import preview_note
from dambench.core.half_blocks import Pixels, half_blocks, scaled, tiles
from dambench.engine.preview import preview
from dambench.training.problem import Normalisation, SyntheticSet
from dambench.tui.models.sheet import Sheet, draw, layout


def _set(classes: int, each: int, channels: int = 3, side: int = 8) -> SyntheticSet:
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(classes * each, channels, side, side, generator=draws)
    labels = torch.arange(classes).repeat_interleave(each)
    names = tuple(f"class {index}" for index in range(classes))
    return SyntheticSet(images, labels, Normalisation((0.5,) * channels, (0.25,) * channels), names)


def _sheet(classes: int, each: int = 1, side: int = 8) -> Sheet:
    images = np.random.default_rng(0).integers(0, 256, (classes, each, side, side, 3), dtype=np.uint8)
    return Sheet(images, tuple(f"class {index}" for index in range(classes)), classes * each)


def _png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_preview_taken_apart_has_the_images_of_the_set(channels: int) -> None:
    data = _set(3, 4, channels)
    sheet = Sheet.read(preview(data), 8, 8, data.classes, 12)
    assert sheet.images.shape == (3, 4, 8, 8, 3)
    pixels = data.preprocessing.invert(data.images).reshape(3, 4, channels, 8, 8).permute(0, 1, 3, 4, 2).numpy()
    assert np.array_equal(sheet.images, np.broadcast_to(pixels, sheet.images.shape))


@pytest.mark.parametrize(
    "png", [b"PNG", b"", _png(5, 5), _png(9, 9)[:40], _png(5000, 5000)], ids=["words", "empty", "small", "cut", "huge"]
)
def test_what_is_no_preview_is_refused(png: bytes) -> None:
    with pytest.raises(ValueError, match="preview"):
        tiles(png, 8, 8)


def test_half_blocks_have_the_upper_pixel_in_front_and_the_lower_behind() -> None:
    pixels: Pixels = np.array([[[1, 2, 3], [1, 2, 3]], [[4, 5, 6], [7, 8, 9]]], dtype=np.uint8)
    (line,) = half_blocks(pixels)
    assert line.plain == "▀▀"
    styles = [str(span.style) for span in line.spans]
    assert styles == ["rgb(1,2,3) on rgb(4,5,6)", "rgb(1,2,3) on rgb(7,8,9)"] or styles == [
        "#010203 on #040506",
        "#010203 on #070809",
    ]


def test_characters_that_look_the_same_are_sent_as_one() -> None:
    (line,) = half_blocks(np.zeros((2, 40, 3), dtype=np.uint8))
    assert (line.plain, len(line.spans)) == ("▀" * 40, 1)


def test_without_colour_brightness_becomes_a_sign() -> None:
    pixels: Pixels = np.array([[[0] * 3, [128] * 3, [255] * 3]] * 2, dtype=np.uint8)
    assert half_blocks(pixels, colour=False) == [Text(" +@")]


def test_small_images_grow_in_squares_and_large_ones_become_means() -> None:
    pixels: Pixels = np.array([[[0] * 3, [255] * 3]], dtype=np.uint8)
    assert scaled(pixels, 2, 4)[:, :, 0].tolist() == [[0, 0, 255, 255]] * 2
    assert scaled(np.array([[[0] * 3], [[100] * 3]], dtype=np.uint8), 1, 1).tolist() == [[[50] * 3]]


@pytest.mark.parametrize(
    ("classes", "each", "side", "width", "height", "expected"),
    [
        (10, 1, 8, 52, 36, (16, 1, 3, 10)),  # small images grow, as far as all classes fit
        (10, 10, 32, 78, 18, (12, 1, 6, 10)),  # large ones shrink
        (2, 10, 8, 140, 20, (32, 2, 2, 2)),  # then more of each class
        (100, 1, 32, 40, 9, (6, 1, 5, 10)),  # at last not all classes fit
        (1, 1, 28, 80, 20, (28, 1, 2, 1)),
    ],
)
def test_images_are_as_large_as_all_classes_fit(
    classes: int, each: int, side: int, width: int, height: int, expected: tuple[int, ...]
) -> None:
    place = layout(_sheet(classes, each, side), width, height)
    assert place is not None
    assert (place.side, place.each, place.across, place.classes) == expected
    drawn, _ = draw(_sheet(classes, each, side), width, height)
    assert len(drawn) <= height
    assert all(line.cell_len <= width + 1 for line in drawn)  # a space after the last name


def test_names_stand_under_the_images_of_their_class() -> None:
    drawn, said = draw(_sheet(2, 1), 40, 20, colour=False)
    names = drawn[-1].plain
    assert [names.index("class 0"), names.index("class 1")] == [0, 17]
    assert len(drawn) == 9
    assert said == ""


def test_what_is_not_shown_is_said() -> None:
    assert draw(_sheet(100, 10, 32), 40, 9)[1] == "1 of 10 per class, 10 of 100 classes"
    assert draw(Sheet(_sheet(2).images, ("a", "b", "c"), 3), 40, 20)[1] == "2 of 3 classes"
    assert draw(_sheet(2), 3, 2)[0][0].plain == "no "


@pytest.mark.parametrize(
    ("each", "side", "even", "expected"),
    [
        (10, 8, True, ""),
        (37, 8, True, "10 of 37 per class"),
        (10, 96, True, "2 of 10 per class"),  # ten would not fit into the bytes of a preview
        (37, 8, False, "10 per class of 370 images"),
    ],
)
def test_what_is_counted_is_the_set_and_not_the_preview(each: int, side: int, even: bool, expected: str) -> None:
    data = _set(10, each, side=side)
    png = preview(data)
    sheet = Sheet.read(png, side, side, data.classes, len(data.images), even=even)
    assert draw(sheet, 3000, 400, colour=False)[1] == expected
    said = preview_note(png, f"[{len(data.images)}, 3, {side}, {side}]", (10, len(data.images), even))
    assert said == (f"{expected}, thinned out to 32×32 pixels" if side > 64 else expected)


def test_a_hostile_class_name_is_harmless() -> None:
    drawn, _ = draw(Sheet(_sheet(1).images, ("\x1b[2J[red]" + "x" * 80,), 1), 20, 10, colour=False)
    assert drawn[-1].plain.startswith("\ufffd[2J[red]")
    assert drawn[-1].cell_len <= 21
