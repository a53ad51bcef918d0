"""A name → the one module that implements it.

Methods, datasets and networks are one file each, and the file's name is the name. Packages from outside add
theirs by an entry point in the group `dambench.methods`, `dambench.datasets` or `dambench.networks`. Listing
names imports nothing, so the console can list methods without torch.
"""

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from dambench.errors import named

Kind = Literal["methods", "datasets", "networks"]


@cache
def names(kind: Kind) -> list[str]:
    """All names of a kind, sorted. A file whose name begins with an underscore is not one."""
    here = Path(__file__).parent / kind
    built_in = {module.name for module in pkgutil.iter_modules([str(here)]) if not module.name.startswith("_")}
    return sorted(built_in | {entry.name for entry in entry_points(group=f"dambench.{kind}")})


def find(kind: Kind, name: str) -> str:
    """The name of a kind that is meant: `CIFAR-10` → `cifar10`.

    Raises:
        BadInput: there is none; the nearest name is given.
    """
    return named(kind.removesuffix("s"), name, names(kind))


@cache
def load(kind: Kind, name: str) -> ModuleType:
    """The module of that name, read as `find` does; a built-in one is preferred to one from outside.

    Raises:
        BadInput: there is none; the nearest name is given.
    """
    name = find(kind, name)
    for entry in entry_points(group=f"dambench.{kind}", name=name):
        if not (Path(__file__).parent / kind / f"{name}.py").exists():
            return import_module(entry.module)
    return import_module(f"dambench.{kind}.{name}")


def headline(module: ModuleType) -> str:
    """What a module is: the first line of its docstring."""
    return (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")
