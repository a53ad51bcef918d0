"""Spatial attention: where in the image a layer is active.

Sajedi et al., "DataDAM: Efficient Dataset Distillation with Attention Matching", ICCV 2023.
"""

import torch.nn.functional as F
from torch import Tensor

# What plug-ins may import: see docs/plugins.md.
__all__ = ["attention"]


def attention(maps: Tensor, power: float = 1.0, nonnegative: bool = False) -> Tensor:
    """The attention map of each image, as a vector of length 1: z = vec(A) / ‖vec(A)‖₂, A = Σ_channels |f|^power.

    Args:
        maps: (n, C, H, W), a layer's activations.
        nonnegative: whether none is negative: |f| need not be made.

    Returns:
        (n, H * W). An image that the layer does not react to at all has the zero vector.
    """
    strength = maps if nonnegative else maps.abs()
    strength = strength if power == 1 else strength.pow(power)
    return F.normalize(strength.sum(1).flatten(1), dim=1)
