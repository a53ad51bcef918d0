"""Checkpoints: all that a run needs to go on bit for bit, in files that are there whole or not at all.

A checkpoint is a safetensors file, named by its SHA-256: tensors, and the rest as JSON in its header. Nothing in it is
ever executed. Randomness is not in it: every draw of a run is derived from its seed and the iteration.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from dambench.core import files, reading
from dambench.training.problem import State

FORMAT = 1

KEPT_CHECKPOINTS = 2
"""Checkpoints that are kept of a run: should the last be damaged, there is one more."""

SHARE = 0.005
"""Share of a run's time that writing checkpoints may take."""

TENSOR = "$tensor"


@dataclass(frozen=True)
class Checkpoint:
    """A run after an iteration."""

    config_sha256: str
    iteration: int
    state: State
    """The state that the method gave."""
    set_sha256: str
    """The synthetic set, where it is to be evaluated before the run goes on; empty: it is not."""
    policy: dict[str, int] = field(default_factory=dict)
    """Fields of the policy as they were, which may have been adapted."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase, spent so far."""
    peaks: dict[str, list[int]] = field(default_factory=dict)
    """By phase, peak memory, allocated and reserved, bytes."""
    energy: dict[str, list[float | bool | None]] = field(default_factory=dict)
    """By phase, joules of the GPU's board and whether others used it, where that is known of all of it so far."""

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file. The same checkpoint gives the same bytes."""
        tensors: dict[str, Tensor] = {}
        about = {name: getattr(self, name) for name in self.__dataclass_fields__}
        about |= {"format": FORMAT, "state": _apart(self.state, "state", tensors)}
        return safetensors.torch.save(tensors, {"dambench": json.dumps(about, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        """From what `to_bytes` gave.

        Raises:
            ValueError: it is not that.
        """
        try:
            tensors = safetensors.torch.load(content)
            length = int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["dambench"])
            if about.pop("format") != FORMAT:
                raise ValueError("another version of dambench made it")
            return cls(**about | {"state": _together(about["state"], tensors)})
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from None

    @property
    def finite(self) -> bool:
        """Whether it holds nothing but numbers. From one that does not a run could only fail again."""
        tensors: dict[str, Tensor] = {}
        _apart(self.state, "state", tensors)
        return all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


def _apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON, its tensors replaced by their names and put into `tensors`."""
    match value:
        case Tensor():
            tensors[name] = value.detach().cpu().contiguous()
            return {TENSOR: name}
        case dict():
            return {key: _apart(part, f"{name}.{key}", tensors) for key, part in value.items()}
        case list() | tuple():
            return [_apart(part, f"{name}.{index}", tensors) for index, part in enumerate(value)]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{name} is a {type(value).__name__}: a state holds tensors, numbers and texts")


def _together(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case {"$tensor": str(name)}:
            return tensors[name]
        case dict():
            return {key: _together(part, tensors) for key, part in value.items()}
        case list():
            return [_together(part, tensors) for part in value]
    return value


class Keeper:
    """Writes a run's checkpoints into a folder, not more often than they are worth.

    Args:
        every: seconds between two; more where writing one takes so long that it would cost too much.
        kept: the names of those that are known to the run's record already, oldest first.
        on_record: whether all that was said of the others is on record, too.
    """

    def __init__(
        self, folder: Path, every: float, kept: list[str] | None = None, on_record: Callable[[], bool] = lambda: True
    ):
        self.folder, self.every = folder, every
        self._kept = list(kept or [])
        self._on_record = on_record
        self._recorded = self._kept[-KEPT_CHECKPOINTS:]
        self._next = time.monotonic() + every

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def write(self, checkpoint: Checkpoint) -> tuple[str, int, float]:
        """Write one, whole.

        Returns:
            Its SHA-256, its bytes and the seconds it took.

        Raises:
            OSError: the disk is full, or the folder is gone; those that were there still are.
        """
        began = time.monotonic()
        self._next = began + self.every
        content = checkpoint.to_bytes()
        sha256 = files.digest(content)
        files.write_whole(path_of(self.folder, sha256), content)
        took = time.monotonic() - began
        self._next = began + took + max(self.every, took / SHARE if self.every else 0.0)
        self._kept = [*(name for name in self._kept if name != sha256), sha256]
        return sha256, len(content), took

    def sweep(self, keep: int = KEPT_CHECKPOINTS) -> None:
        """Remove all but the last ones, and what a killed process left half written.

        To be called once the last one was said. Should it not be on record yet, those that are stay too.
        """
        self._kept = self._kept[-keep:] if keep else []
        if self._on_record():
            self._recorded = list(self._kept)
        names = {path_of(self.folder, name).name for name in (*self._recorded, *self._kept)}
        files.remove_others(self.folder, names)


def path_of(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.safetensors"


def newest(folder: Path, names: list[str], config_sha256: str) -> tuple[Checkpoint, str] | None:
    """The last checkpoint that is whole.

    Args:
        names: SHA-256 of the files, oldest first.

    Returns:
        It and its name; None: there is none.
    """
    for name in reversed(names):
        try:
            with reading.opened(path_of(folder, name)) as file:
                content = file.read()
            if files.digest(content) != name:
                continue
            checkpoint = Checkpoint.from_bytes(content)
        except (OSError, ValueError):
            continue
        if checkpoint.config_sha256 == config_sha256:
            return checkpoint, name
    return None
