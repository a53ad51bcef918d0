"""SVHN: 73,257 + 26,032 digits of house numbers, 32×32 colour; downloaded.

Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011; for non-commercial use
only. The cropped digits, without the `extra` part, as all papers of the field take them. Read from
`train_32x32.mat` and `test_32x32.mat`. Its classes are not balanced.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from dambench.core import config
from dambench.datasets import Labels, Pixels, Raw, _pinned

MIRRORS = False
SOURCE = "download"

FILES = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


class Options(config.Options, frozen=True):
    """No options."""


def fingerprint(options: Options, data: Path | None) -> str:
    return "mat, MD5 e26dedcc434d2e4c54c9b2d4a06d8373 eb5a983be6a315427106f1b164d9cef3"


def load(options: Options, data: Path | None) -> Raw:
    train, test = _pinned.read("svhn", data, FILES, "SVHN", {"split": "train"}, {"split": "test"}).values()
    return Raw(
        *_arrays(train),
        *_arrays(test),
        classes=list("0123456789"),
        mirrors=MIRRORS,
        mean=[0.4377, 0.4438, 0.4728],
        std=[0.1980, 0.2010, 0.1970],
    )


def _arrays(content: bytes) -> tuple[Pixels, Labels]:
    """Read images and labels. MATLAB counts from 1: in the file the digit 0 has label 10. Images are (H, W, C, N)."""
    # scipy.io takes a moment to import, and is needed once.
    from scipy.io import loadmat

    read: Any = loadmat  # its stubs do not know that it takes an open file too
    arrays = read(io.BytesIO(content))
    return arrays["X"].transpose(3, 2, 0, 1), arrays["y"].flatten().astype(np.int64) % 10
