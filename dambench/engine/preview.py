"""A synthetic set as a small picture, for whoever has no torch at hand."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dambench.training.problem import SyntheticSet


def preview(synthetic: SyntheticSet, most_bytes: int = 64_000) -> bytes:
    """A PNG of the set: a row per class, at most ten images of each, a black line between images.

    Large images are thinned out to 32 pixels. Where that is still more than `most_bytes`, fewer images of each
    class are shown, and at last fewer classes.
    """
    thin = max(1, min(synthetic.images.shape[-2:]) // 32)
    labels = synthetic.hard_labels
    rows = [torch.nonzero(labels == label).flatten() for label in range(len(synthetic.classes))]
    each = 10
    _, channels, height, width = synthetic.images.shape
    # More than a PNG could ever save: not worth trying.
    hopeless = 8 * most_bytes * thin * thin // (channels * height * width)
    while each > 1 and each * len(rows) > hopeless:
        each //= 2
    while True:
        sheet = _sheet(synthetic, [row[:each] for row in rows], thin)
        file = io.BytesIO()
        Image.fromarray(sheet).save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= most_bytes or each == len(rows) == 1:
            return file.getvalue()
        if each > 1:
            each //= 2
        else:
            rows = rows[: len(rows) // 2]


def _sheet(synthetic: SyntheticSet, rows: list[Tensor], thin: int) -> NDArray[np.uint8]:
    """Images side by side: (H, W) or (H, W, 3)."""
    height, width = (-(-side // thin) + 1 for side in synthetic.images.shape[-2:])
    columns = max(len(row) for row in rows)
    sheet = torch.zeros(synthetic.images.shape[1], len(rows) * height, columns * width, dtype=torch.uint8)
    for r, row in enumerate(rows):
        images = synthetic.images[row]
        pixels = images if images.dtype == torch.uint8 else synthetic.preprocessing.invert(images)
        for c, image in enumerate(pixels[..., ::thin, ::thin].cpu()):
            sheet[:, r * height : r * height + height - 1, c * width : c * width + width - 1] = image
    array: NDArray[np.uint8] = (sheet[0] if len(sheet) == 1 else sheet.permute(1, 2, 0)).contiguous().numpy()
    return array
