"""Experts that were trained elsewhere: MTT's replay buffers, read without running anything in them, kept as ours are.

A `replay_buffer_N.pt` is a list of trajectories, each a list of epochs, the first before any training, and each of
these the list of a network's parameters, shallow to deep. What they were trained on, and what was done to the images
before, is not in it: whoever imports them says it, and what the first of them recognises shows whether that can be so.

All that one command imports is one kind of experts, named by their weights, the data and the network.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from dambench import datasets, networks
from dambench.core import expert_files, files
from dambench.core.config import PreprocessingName
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.sanitize import display
from dambench.core.units import size
from dambench.datasets import _saved
from dambench.matching import experts
from dambench.training.problem import Network

FORMAT = 1
LARGEST_BUFFER = 100_000_000_000
"""Largest size of a file: ten experts of the largest networks that are matched have a tenth of it."""
SHOWN = 1_000
"""Real images that are shown to an expert, about."""


@dataclass(frozen=True)
class Imported:
    """Experts that were imported and kept."""

    key: str
    count: int
    epochs: int
    recognised: float
    """Share of real training images that the first expert recognises at its end."""
    better: tuple[PreprocessingName, float] | None
    """Another preprocessing with which it recognises more, and the share of that."""


def import_experts(
    paths: Sequence[Path], card: DataCard, name: str, preprocessing: PreprocessingName
) -> Iterator[str | Imported]:
    """Keep the experts of all these files. Nothing is kept unless all of them can be.

    Args:
        name: of the network, in full.

    Yields:
        What is done now; last, what was kept.

    Raises:
        BadInput: a file is none, or has other networks; or the disk has no room.
    """
    network = networks.build(name, card)
    experts.check(network)
    hashes: dict[str, None] = {}
    epochs, last, count = 0, torch.empty(0), 0
    for path in paths:
        yield f"Looking at {path.name} …"
        for weights in _trajectories(path, network):
            if count and len(weights) - 1 != epochs:
                raise BadInput(
                    f"{str(path)!r} has experts of {len(weights) - 1} epochs, those before have {epochs}: import them "
                    "apart."
                )
            epochs, count = len(weights) - 1, count + 1
            if not hashes:
                last = weights[-1].clone()
            hashes[_digest(weights)] = None
    if len(hashes) < count:
        raise BadInput(f"{count - len(hashes)} of the {count} experts are there twice: give each file once.")
    order = sorted(hashes)
    key = files.digest(repr([FORMAT, "imported", card.sha256, preprocessing, str(network), order]).encode())
    folder = files.experts_folder()
    each, room = 4 * len(last) * (epochs + 1), files.room(folder)
    if each * count > room:
        raise BadInput(
            f"{count} experts take {size(each * count)} in {str(folder)!r}, where {size(room)} are free: "
            f"free some space{files.HOME_HINT}."
        )
    recognised, better = _recognised(network, last, card, preprocessing)
    use = expert_files.use(key)
    for path in paths:
        yield f"Keeping those of {path.name} …"
        for weights in _trajectories(path, network):
            number = order.index(_digest(weights))
            if not any(expert_files.is_intact(kept) for kept in expert_files.find(key, f"{number:04d}")):
                about = expert_files.About(
                    what="trajectories",
                    dataset=card.label,
                    network=name,
                    how={"imported": str(network), "data": card.sha256, "preprocessing": preprocessing},
                    epochs=epochs,
                    number=number,
                )
                experts.keep(key, f"{number:04d}", {"weights": weights}, about)
    use.release()
    yield Imported(key, count, epochs, recognised, better)


def _digest(weights: Tensor) -> str:
    return files.digest(weights.numpy().tobytes())


def _trajectories(path: Path, network: Network) -> Iterator[Tensor]:
    """Read the experts of a file, one after the other: (epochs + 1, L) float32 each.

    Raises:
        BadInput: it is no such file, or of other networks.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', error)}.") from None
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= LARGEST_BUFFER:
        raise BadInput(f"{str(path)!r} is no file of experts, such as MTT's replay_buffer_0.pt.")
    try:
        with _saved.opened(path, LARGEST_BUFFER) as saved:
            if not isinstance(saved, list | tuple) or not saved:
                raise ValueError("it is no list of experts")
            claimed = 0
            for number, trajectory in enumerate(saved):
                if not isinstance(trajectory, list | tuple) or len(trajectory) < 2:
                    raise ValueError(f"its expert {number} is no list of epochs, two at least")
                rows = []
                for at, epoch in enumerate(trajectory):
                    rows.append(_flat(epoch, network, f"expert {number}, epoch {at}"))
                    claimed += rows[-1].nbytes // 2  # as they are stored, in half precision at least
                    if claimed > status.st_size:  # one tensor can be referred to a million times
                        raise ValueError("its experts claim more numbers than it has room for")
                yield torch.stack(rows)
    except BadInput as error:
        raise BadInput(f"{str(path)!r} cannot be used: {error}") from None
    except Exception as error:  # there are dozens of kinds for files that are damaged or hostile
        reason = display((str(error) or type(error).__name__).partition("\n")[0].rstrip(".!"), 300)
        raise BadInput(f"{str(path)!r} is not a whole file of experts, as MTT writes them: {reason}.") from None


def _flat(epoch: Any, network: Network, which: str) -> Tensor:
    """The weights of one epoch, one after the other: (L,) float32."""
    expected = [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]
    if not isinstance(epoch, list | tuple) or len(epoch) != len(expected):
        held = f"{len(epoch)} parameters" if isinstance(epoch, list | tuple) else "no list"
        raise BadInput(f"{which} has {held}, the network {len(expected)}.")
    parts = []
    for (name, shape), stored in zip(expected, epoch, strict=True):
        if not isinstance(stored, _saved.Stored) or stored.shape != shape:
            given = stored.shape if isinstance(stored, _saved.Stored) else "no tensor"
            raise BadInput(f"{which} has {given} where the network's {name} is {shape}: say the right --network.")
        parts.append(stored.read().float().flatten())
    weights = torch.cat(parts)
    if not bool(weights.isfinite().all()):
        raise BadInput(f"not all weights of {which} are finite.")
    return weights


def _recognised(
    network: Network, weights: Tensor, card: DataCard, preprocessing: PreprocessingName
) -> tuple[float, tuple[PreprocessingName, float] | None]:
    """The share of some real training images that are recognised, and the other preprocessing if that has more."""
    vector_to_parameters(weights, network.parameters())
    network.eval()
    share = _share(network, card, preprocessing)
    other: PreprocessingName = "mean/std" if preprocessing == "zca" else "zca"
    can_be = card.channels * card.height * card.width <= datasets.MOST_WHITENED
    # To fit a whitening takes long: it is done only where something must be wrong.
    if other == "zca" and not (can_be and (files.whitenings(card.sha256) or share < 0.5)):
        return share, None
    instead = _share(network, card, other)
    return share, (other, instead) if instead > share else None


@torch.no_grad()
def _share(network: Network, card: DataCard, preprocessing: PreprocessingName) -> float:
    real, _ = datasets.open_sets(card, torch.device("cpu"), preprocessing)
    generator = torch.Generator().manual_seed(0)
    chosen = real.draw(min(min(real.counts), -(-SHOWN // real.classes)), generator).flatten()
    predicted = torch.cat([network(real.preprocessing.apply(part)) for part in real.images[chosen].split(100)]).argmax(
        1
    )
    return float((predicted == real.labels[chosen]).float().mean())
