"""Recipes of trajectory matching: published settings as tables to be compared with the papers' by eye."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import fields

from dambench.core.config import CHECKED, UNCHECKED, Options, Recipe

COLUMNS = {
    "N": "steps",
    "M": "expert_epochs",
    "batch": "batch_student",
    "T⁻": "min_start",
    "T": "first_max_start",
    "T⁺": "max_start",
    "interval": "expansion",
    "masked": "mask_ratio",
    "AEE": "growth",
}
"""Headings that are not the name of an option, as the papers have them."""

LABELS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tinyimagenet": "TinyImageNet"}


def table(text: str, options: type[Options], source: str, name: str = "default", **common: Any) -> tuple[Recipe, ...]:
    """Read a table: a recipe for each row.

    Args:
        text: a line of headings and a line per row: `dataset`, the `IPC` of the publication, the ones it is used `for`
            here, `zca` (yes or no; yes where there is no such column) and options; `-` stands for their default.
        source: what is published; where in it is added.
        common: options of all rows.
    """
    types = {field.name: field.type for field in fields(options)}
    heading, *rows = (line.split() for line in text.strip().splitlines())
    return tuple(_recipe(dict(zip(heading, row, strict=True)), types, source, name, common) for row in rows)


def _recipe(cells: dict[str, str], types: dict[str, Any], source: str, name: str, common: dict[str, Any]) -> Recipe:
    dataset, ipc, (low, dash, high) = cells.pop("dataset"), cells.pop("IPC"), cells.pop("for").partition("-")
    noted = {"yes": ", ZCA", "no": ""}.get(cells.get("zca", ""), "")
    whitened = cells.pop("zca", "yes") == "yes"
    settings = {COLUMNS.get(heading, heading): cell for heading, cell in cells.items() if cell != "-"}
    return Recipe(
        name=name,
        datasets=(dataset,),
        ipc=(int(low), int(high) if high else None if dash else int(low)),
        options={key: msgspec.convert(cell, types[key], strict=False) for key, cell in settings.items()} | common,
        preprocessing="zca" if whitened else "mean/std",
        source=f"{source}: {LABELS[dataset]} at IPC {ipc}{noted}",
    )


def elsewhere(recipes: Sequence[Recipe], source: str, without_zca: str = "") -> Iterator[Recipe]:
    """Give those for CIFAR-10 at IPC 1, 10 and 50 to all datasets without a row, normalised instead of whitened.

    Args:
        source: to which the IPC is added.
        without_zca: added where the row has ZCA.
    """
    for ipc, recipe in zip((1, 10, 50), recipes, strict=False):
        noted = without_zca if recipe.preprocessing == "zca" else ""
        bounds = recipe.ipc if ipc < 50 else (recipe.ipc[0], None)
        yield Recipe(ipc=bounds, options=recipe.options, source=f"{source} {ipc}{noted}")


def digits(known: str = CHECKED, /, **options: Any) -> Recipe:
    """Seconds on the embedded dataset.

    Args:
        known: whether there is a search on record for it.
    """
    common = {"iterations": 100, "experts": 4, "epochs": 10, "steps": 10, "max_start": 5, "lr_student": 0.01}
    source = f"ours: digits has 130 images per class and a 2-block network, and is done in seconds{known}"
    return Recipe(datasets=("digits",), options=common | options, source=source)


def brief(ipc: tuple[int, int | None], epochs: str, steps: str, chosen: str, **options: Any) -> Recipe:
    """A few minutes on two CPU cores.

    Args:
        epochs, steps: the published ones.
        chosen: how the step sizes were.
    """
    common = {
        "experts": 1,
        "epochs": 2,
        "batch_expert": 1024,
        "steps": 10,
        "expert_epochs": 1,
        "max_start": 2,
        "lr_student": 0.03,
        "lr_lr": 1e-4,
    }
    return Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        ipc=ipc,
        options=common | options,
        network="convnet-d3-w16",
        source=f"ours, for two CPU cores: 1 expert (published: 100) of 2 epochs ({epochs}) in batches of 1024 (256), "
        f"so that 10 steps ({steps}) can follow one epoch, width 16 (128); chosen {chosen}{UNCHECKED}",
    )


FOR_MTT = "for MTT at IPC 1, by the accuracy on training images"
FOR_DATM = f"{FOR_MTT}; the images' step size on 10,000 held-out images, for DATM"
