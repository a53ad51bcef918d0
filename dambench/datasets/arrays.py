"""Your own images from one .npz file: x_train, y_train, x_test, y_test.

`--dataset arrays --data flowers.npz`. Images are uint8, (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3
channels, of any size; labels are whole numbers. An array `classes` of texts may name the classes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dambench import config, files
from dambench.datasets import Labels, Pixels, Raw, _archive, free_bytes
from dambench.display import display
from dambench.errors import BadInput

MIRRORS = True
NETWORK = ""
SOURCE = "path"
KEYS = ("x_train", "y_train", "x_test", "y_test")


class Options(config.Options, frozen=True):
    mirrors: bool = MIRRORS
    """Whether a mirror image belongs to the same class; False for digits and letters."""


def fingerprint(options: Options, data: Path | None) -> str:
    path = _path(data)
    try:
        return f"{files.sha256(path)} {display(path.stem)}"
    except OSError as error:
        raise BadInput(f"The arrays {str(path)!r} cannot be read: {error.strerror}.") from None


def load(options: Options, data: Path | None) -> Raw:
    path = _path(data)
    try:
        found, names = _archive.arrays(path, (*KEYS, "classes"), free_bytes())
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{str(path)!r} is not a whole .npz file of plain arrays: {display(str(error))}.") from None
    missing = [key for key in KEYS if key not in found]
    if missing:
        held = display(", ".join(names) or "none", 400)
        raise BadInput(f"{str(path)!r} has no array {missing[0]!r}; it has {held}.")
    named = found.get("classes")
    y_train, y_test = (_labels(found[key], key) for key in ("y_train", "y_test"))
    values, positions = np.unique(np.concatenate([y_train, y_test]), return_inverse=True)
    if named is not None and named.shape != (len(values),):
        raise BadInput(f"In {str(path)!r}, `classes` names {named.size} classes but the labels have {len(values)}.")
    return Raw(
        train_images=_images(found["x_train"], "x_train"),
        train_labels=positions[: len(y_train)].astype(np.int64),
        test_images=_images(found["x_test"], "x_test"),
        test_labels=positions[len(y_train) :].astype(np.int64),
        classes=[str(name) for name in (values if named is None else named)],
        label=path.stem,
        mirrors=options.mirrors,
    )


def _path(data: Path | None) -> Path:
    if data is None:
        raise BadInput("The dataset arrays needs a file: say --data FILE.npz.")
    if not data.is_file():
        raise BadInput(f"--data {str(data)!r} is not a file: the dataset arrays needs an .npz file.")
    return data


def _images(array: "np.ndarray[Any, Any]", key: str) -> Pixels:
    if array.dtype != np.uint8:
        raise BadInput(f"{key} is {array.dtype}, not uint8: give pixels as whole numbers from 0 to 255.")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return np.moveaxis(array, 3, 1)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    raise BadInput(f"{key} has shape {array.shape}: (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3 is needed.")


def _labels(array: "np.ndarray[Any, Any]", key: str) -> Labels:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise BadInput(f"{key} is {array.dtype} of shape {array.shape}: whole numbers of shape (N,) are needed.")
    return array.astype(np.int64)
