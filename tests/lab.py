"""What the tests of the lab share: tiny problems, cards and sets, and slow literal transcriptions to compare with."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dambench import networks
from dambench.core import files
from dambench.core.config import Request, read
from dambench.core.events import Adapted, DataCard, Warned
from dambench.matching.distribution import ClassMeans, Term
from dambench.matching.real_batch import EVERY, RealBatch
from dambench.testing import data_card, real_set
from dambench.training.augmentation import Draw, augment
from dambench.training.policy import ALL, Policy
from dambench.training.problem import Network, Normalisation, Problem, SyntheticSet

T = TypeVar("T")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """N(0, 1), from a generator of its own."""
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def spread(count: int) -> Tensor:
    """`count` numbers that divide [0, 1) evenly: what a uniform distribution gives when there is no chance in it."""
    return (torch.arange(count, dtype=torch.float64).add(0.5) / count).float()


def small_request(**changes: Any) -> Request:
    """A run of DM on digits that takes a moment, but for what is changed."""
    settings: dict[str, Any] = {
        "method": {"name": "dm", "batch_real": 8},
        "dataset": "digits",
        "ipc": 1,
        "network": "convnet-d1-w4",
        "iterations": 4,
        "eval_repeats": 1,
        "device": "cpu",
    }
    return read(Request, settings | changes, "the request")


def random_network(name: str, card: DataCard) -> Network:
    """In double precision, with weights that stay as they were drawn."""
    network = networks.build(name, card)
    network.reset(generator(5))
    return network.double().requires_grad_(False).train()


def synthetic_set(
    images: Tensor, labels: Tensor, classes: int, *, lr: float | None = None, whole: bool = False
) -> SyntheticSet:
    """A set whose pixels are normalised by (x / 255 - 0.5) / 0.25."""
    channels = images.shape[1]
    return SyntheticSet(
        images,
        labels,
        Normalisation((0.5,) * channels, (0.25,) * channels),
        tuple(f"class {c}" for c in range(classes)),
        lr=lr,
        whole=whole,
    )


# Methods.


def needs(method: str, problem: Problem) -> dict[str, Any]:
    """Settings without which a method cannot do anything for a problem."""
    return {"set": kept_set(problem)} if method == "imported" else {}


def kept_set(problem: Problem) -> str:
    """Keep a set of noise that fits the problem where imported ones are kept. Returns its SHA-256."""
    shape = (problem.ipc * problem.real.classes, *problem.real.images.shape[1:])
    content = problem.synthetic_set(noise(*shape, dtype=torch.float32)).to_bytes()
    files.write_whole(files.set_path(files.digest(content)), content)
    return files.digest(content)


def end_of(events: Generator[Any, None, T], notices: list[Any] | None = None) -> T:
    """The value that a generator returns.

    Args:
        notices: gets what it yields.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            result: T = end.value
            return result
        if notices is not None:
            notices.append(event)


def messages(notices: Sequence[Any]) -> list[str]:
    """The warnings among them."""
    return [event.message for event in notices if isinstance(event, Warned)]


def adaptations(notices: Sequence[Any]) -> list[Adapted]:
    """The changes of policy among them."""
    return [event for event in notices if isinstance(event, Adapted)]


# Augmentation, one image at a time: spec 1.4 word by word, in the image's own precision.


def literally_augmented(images: Tensor, drawn: Draw) -> Tensor:
    """(G, n, C, H, W): the group's operation on one image after another."""
    groups = []
    for group, choice, uniforms in zip(images, drawn.choice.tolist(), drawn.uniforms.tolist(), strict=True):
        operation = drawn.strategy[choice]
        groups.append(torch.stack([literal_operation(operation, image, uniforms) for image in group]))
    return torch.stack(groups)


def literal_operation(operation: str, image: Tensor, uniforms: Sequence[float]) -> Tensor:
    """One operation on one image (C, H, W)."""
    literal = {
        "color": _color,
        "crop": _crop,
        "cutout": _cutout,
        "flip": _flip,
        "scale": _scale,
        "rotate": _rotate,
    }[operation]
    return literal(image, uniforms)


def _color(image: Tensor, uniforms: Sequence[float]) -> Tensor:
    channels, height, width = image.shape
    brightness = uniforms[0] - 0.5
    saturation = 2 * uniforms[1]
    contrast = uniforms[2] + 0.5
    pixels = {}
    for row in range(height):
        for column in range(width):
            colours = [image[c, row, column] + brightness for c in range(channels)]
            grey = sum(colours, torch.zeros(())) / channels
            for c in range(channels):
                pixels[c, row, column] = (colours[c] - grey) * saturation + grey
    mean = sum(pixels.values(), torch.zeros(())) / len(pixels)
    flat = [(pixels[place] - mean) * contrast + mean for place in sorted(pixels)]
    return torch.stack(flat).view(channels, height, width)


def _crop(image: Tensor, uniforms: Sequence[float]) -> Tensor:
    _, height, width = image.shape
    border = [int(size * 0.125 + 0.5) for size in (height, width)]
    padded = F.pad(image, (border[1], border[1], border[0], border[0]))
    top, left = (math.floor(u * (2 * most + 1)) for u, most in zip(uniforms, border, strict=False))
    return padded[:, top : top + height, left : left + width]


def _cutout(image: Tensor, uniforms: Sequence[float]) -> Tensor:
    _, height, width = image.shape
    places = []
    for size, u in zip((height, width), uniforms, strict=False):
        side = int(size * 0.5 + 0.5)
        offset = math.floor(u * (size + 1 if side % 2 == 0 else size))
        first, last = offset - side // 2, offset - side // 2 + side - 1
        places.append([min(max(place, 0), size - 1) for place in range(first, last + 1)])
    mask = torch.ones(height, width, dtype=image.dtype)
    for row in places[0]:
        for column in places[1]:
            mask[row, column] = 0
    return image * mask


def _flip(image: Tensor, uniforms: Sequence[float]) -> Tensor:
    if uniforms[0] >= 0.5:
        return image
    return torch.stack([image[:, :, column] for column in reversed(range(image.shape[2]))], dim=2)


def _scale(image: Tensor, uniforms: Sequence[float]) -> Tensor:
    across, down = (1 / 1.2 + u * (1.2 - 1 / 1.2) for u in uniforms[:2])
    return _affine(image, [[across, 0, 0], [0, down, 0]])


def _rotate(image: Tensor, uniforms: Sequence[float]) -> Tensor:
    angle = math.radians(-15 + 30 * uniforms[0])
    return _affine(image, [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]])


def _affine(image: Tensor, theta: list[list[float]]) -> Tensor:
    batch = image.unsqueeze(0)
    grid = F.affine_grid(torch.tensor([theta], dtype=image.dtype), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


# Matching by class means, on images that are given.


@dataclass(frozen=True)
class GivenBatch(RealBatch):
    """These images, (classes, n, C, H, W), in their own precision."""

    given: Tensor = field(default_factory=lambda: torch.zeros(0))

    def images(self, classes: slice, some: slice = EVERY) -> Tensor:
        images = self.given[classes, some]
        return images if self.drawn is None else augment(images, self.drawn.of(classes))


def pulled(
    network: Network,
    terms: Sequence[Term],
    real: Tensor,
    synthetic: Tensor,
    drawn: Draw | None = None,
    chunk: int = ALL,
    **policy: Any,
) -> tuple[dict[str, Tensor], Tensor]:
    """`ClassMeans.pull` on given images: the losses, and the gradient (classes, ipc, C, H, W).

    Args:
        real: (classes, n, C, H, W); synthetic: (classes, ipc, C, H, W).
    """
    indices = torch.zeros(real.shape[:2], dtype=torch.int64)
    batch = GivenBatch(real_set(data_card()), indices, drawn, given=real)
    free = synthetic.detach().flatten(0, 1).clone().requires_grad_()
    how = Policy(real.device, real_chunk=chunk, synthetic_chunk=chunk, **policy)
    gradient = torch.full_like(free, torch.nan, requires_grad=False)
    losses = ClassMeans(network, terms, how).pull(batch, free, gradient)
    return losses, gradient.view_as(synthetic)


# What a CUDA graph does, on a CPU.


class Tape:
    """Records, for `Replayed`, as a CUDA graph does: the operations, on the memory that they had then.

    No Python of the function's runs when it is replayed, so a number that it did not get as a tensor stays as it was.
    """

    def __init__(self, device: torch.device) -> None:
        self.warmed_up = 0
        self.recorded = 0
        self.replayed = 0
        self.error: BaseException | None = None
        """What recording raises."""

    def warm_up(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        self.warmed_up += 1
        return function()

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        if self.error:
            raise self.error
        self.recorded += 1
        with _Operations() as operations:
            outputs = function()
        operations.undo()

        def replay() -> None:
            self.replayed += 1
            operations.replay()

        return replay, outputs


class _Operations(TorchDispatchMode):
    """All operations that were done while it was on, to be done again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._done: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()
        """The memory of their results …"""
        self._found: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        """… and that which was there before them, with a copy of what it held."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors(args, kwargs):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._made and storage.data_ptr() not in self._found:
                self._found[storage.data_ptr()] = storage, storage.clone()
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if tensor.untyped_storage().data_ptr() not in self._found:
                self._made.add(tensor.untyped_storage().data_ptr())
        # Kept alive, all of it, so that its memory is nobody else's.
        self._done.append((func, args, kwargs or {}, result))
        return result

    def undo(self) -> None:
        for storage, before in self._found.values():
            storage.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self._done:
            taken = {tensor.untyped_storage().data_ptr() for tensor in _tensors(args, kwargs)}
            again = func(*args, **kwargs)
            for place, tensor in zip(_tensors(result), _tensors(again), strict=True):
                if place.untyped_storage().data_ptr() not in taken:
                    place.copy_(tensor)


def _tensors(*things: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(things) if isinstance(leaf, Tensor)]
