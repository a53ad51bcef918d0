"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28×28 grey; downloaded.

Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence. 6,000 + 1,000 images of each class. Read from
`FashionMNIST/raw/` as torchvision lays it out.
"""

from pathlib import Path

from dambench.core import config
from dambench.datasets import Raw, _pinned
from dambench.datasets.mnist import idx_arrays

MIRRORS = True
SOURCE = "download"

FILES = {
    "FashionMNIST/raw/train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


class Options(config.Options, frozen=True):
    """No options."""


def fingerprint(options: Options, data: Path | None) -> str:
    return "idx, SHA-256 c59f468a bad3541b 5b4141f0 0402a96d"


def load(options: Options, data: Path | None) -> Raw:
    arrays = idx_arrays(_pinned.read("fashionmnist", data, FILES, "FashionMNIST"))
    return Raw(*arrays, classes=CLASSES, mirrors=MIRRORS, mean=[0.2861], std=[0.3530])
