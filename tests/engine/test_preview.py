import io

import numpy as np
import pytest
import torch
from PIL import Image

from dambench.engine.preview import preview
from dambench.training.problem import Normalisation, SyntheticSet


def _set(classes: int, each: int, channels: int, side: int) -> SyntheticSet:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(classes * each, channels, side, side, generator=draw)
    labels = torch.arange(classes).repeat_interleave(each)
    return SyntheticSet(images, labels, Normalisation((0.5,) * channels, (0.25,) * channels), ("x",) * classes)


@pytest.mark.parametrize(
    ("classes", "each", "channels", "side", "size", "mode"),
    [
        (10, 1, 1, 8, (9, 90), "L"),
        (10, 3, 1, 28, (87, 290), "L"),
        (3, 50, 3, 32, (165, 99), "RGB"),
    ],
)
def test_a_preview_has_a_row_per_class_and_at_most_ten_images_each(
    classes: int, each: int, channels: int, side: int, size: tuple[int, int], mode: str
) -> None:
    data = _set(classes, each, channels, side)
    image = Image.open(io.BytesIO(preview(data)))
    assert image.size == size
    assert image.mode == mode
    first = data.preprocessing.invert(data.images[0])[0].numpy()
    assert np.array_equal(
        np.asarray(image.convert("L" if channels == 1 else "RGB"))[:side, :side, ...].reshape(side, side, channels)[
            ..., 0
        ],
        first,
    )


def test_a_preview_of_much_is_still_small() -> None:
    data = _set(100, 20, 3, 64)
    assert len(preview(data)) <= 64_000
