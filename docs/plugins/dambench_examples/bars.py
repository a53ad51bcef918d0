"""Bars: 1,200 grey images of 8×8 pixels with one bright bar, at one of six heights, in noise."""

from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from dambench.core import config
from dambench.datasets import Raw

SOURCE = "package"
NETWORK = "convnet-d2-w32"


class Options(config.Options, frozen=True):
    noise: Annotated[int, Meta(ge=0, le=135, description="largest value of the noise; a bar is 120 brighter")] = 60


def fingerprint(options: Options, data: Path | None) -> str:
    return "bars, seed 0"


def load(options: Options, data: Path | None) -> Raw:
    random = np.random.default_rng(0)
    labels = np.arange(1200) % 6
    images = random.integers(options.noise + 1, size=(1200, 1, 8, 8), dtype=np.uint8)
    images[np.arange(1200), 0, labels + 1] += np.uint8(120)
    return Raw(images[:900], labels[:900], images[900:], labels[900:], [f"row {row}" for row in range(1, 7)])
