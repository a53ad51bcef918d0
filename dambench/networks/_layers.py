"""What the families of the zoo have in common: norms, activations, pooling, and chains of them."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dambench.core.errors import BadInput
from dambench.networks._fused import average, first_stage, suits
from dambench.training.problem import Network, Stage

Norm = Literal["instance", "batch", "layer", "group", "none"]
NORMS = {"in": "instance", "bn": "batch", "ln": "layer", "gn": "group", "nn": "none"}


def margin(size: tuple[int, int]) -> int:
    """By how many pixels more than usual the first convolution pads images of that (height, width) on each side.

    28 + 2 * 2 = 32: MNIST becomes as large as CIFAR, and can be halved as often. (The released codes pad all images
    of one channel so, whatever their size.)
    """
    return 2 if size == (28, 28) else 0


def norm(name: str, width: int, size: tuple[int, int]) -> nn.Module:
    """A norm of maps with that many channels and that (height, width).

    Raises:
        BadInput: the channels make no groups.
    """
    match name:
        case "instance":
            return nn.GroupNorm(width, width)
        case "batch":
            return nn.BatchNorm2d(width)
        case "layer":
            return nn.LayerNorm([width, *size])
        case "group":
            if width % 4:
                raise BadInput(f"Group norm has 4 groups: width {width} is not a multiple of 4.")
            return nn.GroupNorm(4, width)
        case _:
            return nn.Identity()


def activation(name: str) -> nn.Module:
    match name:
        case "relu":
            return nn.ReLU(inplace=True)
        case "sigmoid":
            return nn.Sigmoid()
        case "leakyrelu":
            return nn.LeakyReLU(0.01)
        case _:
            return nn.SiLU()


class AveragePool(nn.Module):
    """The mean of each 2×2 pixels; a last odd row or column is left out.

    On a CPU by other means than torch's own pooling, which takes 4 to 10 times as long and was a fifth of a network's
    forward pass: rows are added and then columns, or, for bfloat16, two rows at once are multiplied by a matrix of
    quarters.
    """

    def forward(self, images: Tensor) -> Tensor:
        together = torch._C._are_functorch_transforms_active()
        if images.device.type != "cpu" or torch.compiler.is_compiling() or together:
            return F.avg_pool2d(images, 2)
        images = _even(images)
        if images.dtype == torch.bfloat16:
            batch, channels, height, width = images.shape
            quarters = torch.eye(width // 2, dtype=images.dtype).repeat_interleave(2, 0).repeat(2, 1) / 4
            return (images.reshape(-1, len(quarters)) @ quarters).view(batch, channels, height // 2, width // 2)
        return average(images)


class MaxPool(nn.Module):
    """The largest of each 2×2 pixels; a last odd row or column is left out.

    Where no gradient is wanted, on a CPU, rows are compared and then columns: that takes a tenth of the time of torch's
    own pooling, which also notes where the largest was. (With gradients torch's is the faster one.)
    """

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or images.requires_grad or torch.compiler.is_compiling():
            return F.max_pool2d(images, 2)
        images = _even(images)
        rows = torch.maximum(images[:, :, ::2], images[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _even(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return images[..., : height // 2 * 2, : width // 2 * 2] if height % 2 or width % 2 else images


def pooling(name: str) -> nn.Module:
    return {"average": AveragePool, "max": MaxPool, "none": nn.Identity}[name]()


class BlockSpec(NamedTuple):
    """A link of a chain: a convolution with a square kernel, norm, activation and pooling."""

    width: int
    pooling: str
    kernel: int = 3
    padding: int = 1


class Chain(Network):
    """Blocks one after the other, then one linear layer. Every activation can be seen.

    Args:
        size: (height, width) of the images, none of which the blocks may leave nothing of.
    """

    def __init__(
        self,
        blocks: Sequence[BlockSpec],
        channels: int,
        size: tuple[int, int],
        classes: int,
        norm_name: str,
        activation_name: str = "relu",
    ):
        super().__init__()
        self.num_levels = len(blocks) + 1
        self.blocks, self.pools = nn.ModuleList(), nn.ModuleList()
        for block in blocks:
            grown = 2 * block.padding - block.kernel + 1
            size = (size[0] + grown, size[1] + grown)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, block.width, block.kernel, padding=block.padding),
                    norm(norm_name, block.width, size),
                    activation(activation_name),
                )
            )
            self.pools.append(pooling(block.pooling))
            if block.pooling != "none":
                size = (size[0] // 2, size[1] // 2)
            channels = block.width
        self.classifier = nn.Linear(channels * size[0] * size[1], classes)

    @property
    def nonnegative_features(self) -> bool:
        return all(isinstance(stage.activation, nn.ReLU) for stage in self.stages)

    @property
    def stages(self) -> Sequence[Stage]:
        chain = zip(self.blocks, self.pools, strict=True)
        return [Stage._make([*cast(nn.Sequential, block), pool]) for block, pool in chain]

    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        return self._iter_from(0, images)

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(images) if torch.is_grad_enabled() else self._embed_once(images)

    def forward_once(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self._embed_once(images))
        return logits

    def _embed_once(self, images: Tensor) -> Tensor:
        ((_, last),) = self.iter_levels(images, (self.num_levels - 1,))
        return torch.flatten(last, 1)

    def iter_levels(self, images: Tensor, wanted: Collection[int]) -> Iterator[tuple[int, Tensor]]:
        start = 0
        for first in self.stages[:1]:
            if 0 not in wanted and isinstance(first.pool, AveragePool) and suits(first, images):
                start, images = 1, first_stage(first, images)
        for level, maps in enumerate(self._iter_from(start, images), start):
            if level in wanted:
                yield level, maps

    def _iter_from(self, start: int, images: Tensor) -> Iterator[Tensor]:
        """Compute the maps of blocks and the last ones pooled, from what a block reads."""
        for block, pool in zip(self.blocks[start:], self.pools[start:], strict=True):
            maps = block(images)
            yield maps
            images = pool(maps)
            del maps
        yield images


def check_halvings(family: str, size: tuple[int, int], halvings: int) -> None:
    """Whether images of that (height, width), with their margin, can be halved so often.

    Raises:
        BadInput: nothing would be left of them.
    """
    height, width = size
    least = 2**halvings
    if min(size) + 2 * margin(size) < least:
        padded = ", or 28×28, which is padded to 32×32" if 28 < least <= 32 else ""
        raise BadInput(
            f"Images of {height}×{width} are too small for {family}, which halves them {halvings} times: "
            f"it needs {least}×{least} or more{padded}."
        )
