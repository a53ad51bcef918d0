"""Hints: the keys that the screen names, where the user would rather press others."""

from collections.abc import Mapping

_chosen: dict[str, str] = {}
"""The keys that the user of this process would rather press, by name."""


def prefer(chosen: Mapping[str, str]) -> None:
    """Have hints name these keys, and the usual ones for all else."""
    _chosen.clear()
    _chosen.update(chosen)


def hint(name: str, usual: str) -> str:
    """The key that a hint on the screen names for something.

    Args:
        name: what the key does: `runs.filter`.
        usual: the key as it comes, as it is written on the screen.
    """
    return _chosen.get(name, usual)
