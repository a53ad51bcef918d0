"""CIFAR-10: 50,000 + 10,000 small photographs of ten things, 32×32 colour; downloaded.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009; no formal licence. 5,000 + 1,000 images of
each class. Read from `cifar-10-batches-py/` as torchvision lays it out, or from `cifar10.npz` (x_train, y_train,
x_test, y_test; images (N, 32, 32, 3) uint8, in the official order), which gives the same prepared file.

The std that everybody uses is the mean of the images' own stds; that of all pixels is 0.2470, 0.2435, 0.2616. It is
kept, so that numbers can be compared.
"""

import hashlib
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.datasets import Labels, Pixels, Raw, _archive, _pinned

MIRRORS = True
SOURCE = "download"

FILES = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
}
INSTEAD = "cifar10.npz"
CONTENT = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"
"""SHA-256 of x_train, y_train, x_test and y_test, one after the other, all as bytes."""
LARGEST_BATCH = 400_000_000
"""Limit of what a file of all images and labels unpacks to: they are 184 MB."""
KEYS = ("x_train", "y_train", "x_test", "y_test")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MEAN = [0.4914, 0.4822, 0.4465]
STD = [0.2023, 0.1994, 0.2010]


class Options(config.Options, frozen=True):
    """No options."""


def fingerprint(options: Options, data: Path | None) -> str:
    return "content, SHA-256 80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"


def load(options: Options, data: Path | None) -> Raw:
    place = _pinned.place(data)
    archive = place if place.is_file() else place / INSTEAD
    source, arrays = (archive, _npz(archive)) if archive.is_file() else (place, _batches(data))
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    if digest.hexdigest() != CONTENT:
        raise BadInput(
            f"{str(source)!r} does not have the images of CIFAR-10 in their order: the SHA-256 of its arrays is "
            f"{digest.hexdigest()}, not {CONTENT}."
        )
    train, train_labels, test, test_labels = arrays
    return Raw(
        _channels_first(train),
        train_labels.astype(np.int64),
        _channels_first(test),
        test_labels.astype(np.int64),
        classes=CLASSES,
        mirrors=MIRRORS,
        mean=MEAN,
        std=STD,
    )


def unpickled(contents: Iterable[bytes], key: str) -> tuple[Pixels, Labels]:
    """Read images (N, 3, 32, 32) and labels (N,) from CIFAR's pickled batches.

    Unpickling can run any code. These bytes may be: their checksums were found to be the official ones.
    """
    batches = [pickle.loads(content, encoding="latin1") for content in contents]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.array([label for batch in batches for label in batch[key]], np.int64)


def _batches(data: Path | None) -> "list[np.ndarray[Any, Any]]":
    # torchvision unpickles nothing whose checksum is wrong either.
    contents = list(_pinned.read("cifar10", data, FILES, "CIFAR10").values())
    arrays = []
    for part in (contents[:-1], contents[-1:]):
        images, labels = unpickled(part, "labels")
        arrays += [np.moveaxis(images, 1, 3), labels.astype(np.uint8)]
    return arrays


def _npz(path: Path) -> "list[np.ndarray[Any, Any]]":
    try:
        arrays, _ = _archive.arrays(path, KEYS, LARGEST_BATCH)
        return [arrays[key] for key in KEYS]
    except BadInput:
        raise
    except Exception as error:  # zipfile, zlib and numpy have a dozen kinds for files that are damaged or hostile
        raise BadInput(
            f"{str(path)!r} is not a whole .npz file with the arrays {', '.join(KEYS)}: {display(str(error))}."
        ) from None


def _channels_first(images: "np.ndarray[Any, Any]") -> Pixels:
    return np.moveaxis(images.reshape(-1, 32, 32, 3), 3, 1)
