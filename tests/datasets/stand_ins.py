"""Generated raw data in the real layout of every dataset: few images, the same each time.

Where a dataset is known by checksums or counts, these are replaced by those of what was generated.
"""

import csv
import hashlib
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dambench.datasets import (
    Labels,
    Pixels,
    cifar10,
    cifar100,
    fashionmnist,
    imagenet,
    mhist,
    mnist,
    svhn,
    tinyimagenet,
)

Patch = pytest.MonkeyPatch


def pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, image: Pixels, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **how)


def npz(folder: Path, patch: Patch) -> Path:
    path = folder / "flowers.npz"
    np.savez(
        path,
        x_train=pixels(12, 9, 8, 3),
        y_train=np.repeat([3, 5, 9], [7, 4, 1]),
        x_test=pixels(6, 9, 8, 3, seed=1),
        y_test=np.array([3, 3, 3, 5, 5, 9]),
    )
    return path


def class_folders(folder: Path, patch: Patch) -> Path:
    for part, counts in (("train", (5, 3)), ("test", (2, 2))):
        for label, count in zip(("ant", "bee"), counts, strict=True):
            for n in range(count):
                write_image(folder / "insects" / part / label / f"{n}.png", pixels(10, 10, 3, seed=n))
    return folder / "insects"


def _labels(count: int, classes: int = 10) -> Labels:
    """Every class is there, in a random order."""
    return np.random.default_rng(2).permutation(np.arange(count) % classes)


def pin(module: Any, folder: Path, patch: Patch, kind: str = "md5") -> None:
    """Take the files in the folder for the official ones."""
    known = {path: hashlib.new(kind, (folder / path).read_bytes()).hexdigest() for path in module.FILES}
    patch.setattr(module, "FILES", known)


def _idx(array: Pixels) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def idx(module: Any) -> Callable[[Path, Patch], Path]:
    def make(folder: Path, patch: Patch) -> Path:
        arrays: list[Pixels] = []
        for seed, count in enumerate((30, 20)):
            arrays += [pixels(count, 28, 28, seed=seed), _labels(count).astype(np.uint8)]
        for path, array in zip(module.FILES, arrays, strict=True):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(_idx(array))
        pin(module, folder, patch, "sha256")
        return folder

    return make


def mat(folder: Path, patch: Patch) -> Path:
    for path, count, seed in zip(svhn.FILES, (30, 20), (0, 1), strict=True):
        labels = _labels(count)
        images = pixels(32, 32, 3, count, seed=seed)
        savemat(folder / path, {"X": images, "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]})
    pin(svhn, folder, patch)
    return folder


def _pickle(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # As Python 2 and numpy 1 wrote them: another place for numpy's functions, 0 and 1 for False and True.
    written = pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(written.replace(b"\x89\x88\x87", b"K\x00K\x01\x87"))


def cifar10_batches(folder: Path, patch: Patch) -> Path:
    for seed, path in enumerate(cifar10.FILES):
        _pickle(folder / path, {"data": pixels(10, 3072, seed=seed), "labels": _labels(10).tolist()})
    pin(cifar10, folder, patch)
    digest = hashlib.sha256()
    for array in cifar10_arrays(folder).values():
        digest.update(array.tobytes())
    patch.setattr(cifar10, "CONTENT", digest.hexdigest())
    return folder


def cifar10_arrays(folder: Path) -> dict[str, Pixels]:
    """What the batches in a folder hold, as cifar10.npz has it."""
    batches = [pickle.loads((folder / path).read_bytes()) for path in cifar10.FILES]
    found = {}
    for part, chosen in (("train", batches[:-1]), ("test", batches[-1:])):
        images = np.concatenate([batch["data"] for batch in chosen]).reshape(-1, 3, 32, 32)
        found[f"x_{part}"] = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        found[f"y_{part}"] = np.concatenate([batch["labels"] for batch in chosen]).astype(np.uint8)
    return found


def cifar100_pickles(folder: Path, patch: Patch) -> Path:
    train, test, meta = cifar100.FILES
    for seed, path in enumerate((train, test)):
        content = {
            "data": pixels(200, 3072, seed=seed),
            "fine_labels": _labels(200, 100).tolist(),
            "coarse_labels": [0] * 200,
        }
        _pickle(folder / path, content)
    _pickle(folder / meta, {"fine_label_names": [f"thing {n}" for n in range(100)], "coarse_label_names": ["all"]})
    pin(cifar100, folder, patch)
    return folder


TINY = ("n01443537", "n01629819", "n02124075")


def tinyimagenet_folder(folder: Path, patch: Patch) -> Path:
    root = folder / "tiny-imagenet-200"
    for label in TINY:
        for n in range(3):
            grey = label == TINY[0] and n == 0  # as some of the real ones are
            image = pixels(*((64, 64) if grey else (64, 64, 3)), seed=n)
            write_image(root / "train" / label / "images" / f"{label}_{n}.JPEG", image)
    lines = []
    for n, label in enumerate((*reversed(TINY), TINY[1])):
        write_image(root / "val" / "images" / f"val_{n}.JPEG", pixels(64, 64, 3, seed=9 + n))
        lines.append(f"val_{n}.JPEG\t{label}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text(f"{TINY[0]}\tgoldfish, Carassius auratus\n{TINY[1]}\tEuropean fire salamander\n")
    patch.setattr(tinyimagenet, "COUNTS", {"training": 9, "validation": 4})
    return root


def imagenet_folder(folder: Path, patch: Patch) -> Path:
    return ten_classes(folder, list(imagenet.SUBSETS["imagenette"].values()))


def ten_classes(folder: Path, labels: Sequence[str]) -> Path:
    """One training and one test image of each class; of different shapes, as ImageNet's are."""
    for part in ("train", "val"):
        for n, label in enumerate(labels):
            image = pixels(140 + 7 * n, 190 - 5 * n, 3, seed=n)
            write_image(folder / part / label / f"{n}.JPEG", image)
    return folder


def mhist_folder(folder: Path, patch: Patch) -> Path:
    rows = [("HP", "train"), ("SSA", "train"), ("HP", "test"), ("HP", "train"), ("SSA", "test"), ("HP", "test")]
    folder.mkdir(exist_ok=True)
    with (folder / mhist.TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        votes = "Number of Annotators who Selected SSA (Out of 7)"
        table.writerow([mhist.NAME, mhist.LABEL, votes, mhist.PARTITION])
        for n, (label, partition) in enumerate(rows):
            name = f"MHIST_{'abcdef'[n]}.png"
            table.writerow([name, label, 6 if label == "SSA" else 1, partition])
            write_image(folder / "images" / name, pixels(7, 7, 3, seed=n).repeat(32, 0).repeat(32, 1))
    patch.setattr(mhist, "COUNTS", {"train": 3, "test": 3})
    return folder


SOURCES: dict[str, Callable[[Path, Patch], Path | None]] = {
    "digits": lambda folder, patch: None,
    "arrays": npz,
    "folder": class_folders,
    "mnist": idx(mnist),
    "fashionmnist": idx(fashionmnist),
    "svhn": mat,
    "cifar10": cifar10_batches,
    "cifar100": cifar100_pickles,
    "tinyimagenet": tinyimagenet_folder,
    "imagenet": imagenet_folder,
    "mhist": mhist_folder,
}
