"""MNIST: 60,000 + 10,000 handwritten digits, 28×28 grey; downloaded.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998. Usually cited
as CC BY-SA 3.0. Its classes are not balanced: 5,421 to 6,742 training images each. Read from `MNIST/raw/` as
torchvision lays it out. A mirrored digit is another digit or none, though several released codes mirror them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dambench.core import config
from dambench.datasets import Labels, Pixels, Raw, _pinned

MIRRORS = False
SOURCE = "download"

FILES = {
    "MNIST/raw/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "MNIST/raw/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "MNIST/raw/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "MNIST/raw/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Options(config.Options, frozen=True):
    """No options."""


def fingerprint(options: Options, data: Path | None) -> str:
    # Whatever lies where, only these files are ever read: once prepared, they are needed no more.
    return "idx, SHA-256 ba891046 65a50cbb 0fa7898d ff7bcfd4"


def load(options: Options, data: Path | None) -> Raw:
    arrays = idx_arrays(_pinned.read("mnist", data, FILES, "MNIST"))
    return Raw(*arrays, classes=list("0123456789"), mirrors=MIRRORS, mean=[0.1307], std=[0.3081])


def idx_arrays(contents: Mapping[str, bytes]) -> tuple[Pixels, Labels, Pixels, Labels]:
    """Read training images (N, 1, H, W) and labels (N,), test images and labels from four idx files in that order."""
    train, train_labels, test, test_labels = map(_idx, contents.values())
    return train[:, None], train_labels.astype(np.int64), test[:, None], test_labels.astype(np.int64)


def _idx(content: bytes) -> Pixels:
    """Read an array of bytes: 0, 0, 8 (for bytes), the number of dimensions, each as a big-endian int32, the values."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
