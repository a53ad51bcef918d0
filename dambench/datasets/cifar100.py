"""CIFAR-100: 50,000 + 10,000 small photographs of a hundred things, 32×32 colour; downloaded.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009; no formal licence. 500 + 100 images of each
of the fine classes. Read from `cifar-100-python/` as torchvision lays it out.
"""

import pickle
from pathlib import Path
from typing import Literal

from dambench.core import config
from dambench.datasets import Raw, _pinned, cifar10

MIRRORS = True
SOURCE = "download"

FILES = {
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
}
MEAN = [0.5071, 0.4866, 0.4409]
STD = [0.2673, 0.2564, 0.2762]


class Options(config.Options, frozen=True):
    statistics: Literal["own", "cifar10"] = "own"
    """Whose mean and std: MTT, DATM and PAD normalise CIFAR-100 by those of CIFAR-10."""


def fingerprint(options: Options, data: Path | None) -> str:
    return "pickles, MD5 16019d7e3df5f24257cddd939b257f8d f0ef6b0ae62326f3e7ffdfab6717acfc"


def load(options: Options, data: Path | None) -> Raw:
    # torchvision unpickles nothing whose checksum is wrong either.
    train, test, meta = _pinned.read("cifar100", data, FILES, "CIFAR100").values()
    own = options.statistics == "own"
    return Raw(
        *cifar10.unpickled([train], "fine_labels"),
        *cifar10.unpickled([test], "fine_labels"),
        # Its checksum was found to be the official one: see `unpickled`.
        classes=pickle.loads(meta, encoding="latin1")["fine_label_names"],
        mirrors=MIRRORS,
        mean=MEAN if own else cifar10.MEAN,
        std=STD if own else cifar10.STD,
    )
