"""Digits: 1,797 real handwritten digits, 8×8 grey; comes with scikit-learn, no download.

UCI "Optical Recognition of Handwritten Digits" (test part), CC BY 4.0. Split once for all: a quarter of each
class is the test set (1,347 training, 450 test images).
"""

from pathlib import Path

import numpy as np

from dambench.core import config
from dambench.datasets import Raw

MIRRORS = False
NETWORK = "convnet-d2-w32"
SOURCE = "package"


class Options(config.Options, frozen=True):
    """No options."""


def fingerprint(options: Options, data: Path | None) -> str:
    return "scikit-learn digits, stratified 75/25, seed 0"


def load(options: Options, data: Path | None) -> Raw:
    """Pixels 0 … 16 become 0 … 255."""
    # scikit-learn takes a second to import, and is needed once.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target.astype(np.int64), test_size=0.25, stratify=digits.target, random_state=0
    )
    return Raw(train, train_labels, test, test_labels, classes=list("0123456789"), mirrors=MIRRORS)
