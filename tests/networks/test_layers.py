from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench.core.errors import BadInput
from dambench.networks import _layers
from tests.lab import noise

POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {"average": F.avg_pool2d, "max": F.max_pool2d}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (9, 5), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("graded", [False, True])
def test_pooling_is_torch_s(name: str, size: tuple[int, int], dtype: torch.dtype, graded: bool) -> None:
    images = noise(3, 4, *size).to(dtype).requires_grad_(graded)
    pooled, expected = _layers.pooling(name)(images), POOLS[name](images, 2)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(pooled, expected, rtol=tolerance, atol=tolerance)
    if graded:
        weights = noise(*expected.shape).to(dtype)
        ours, theirs = (torch.autograd.grad((y * weights).sum(), images)[0] for y in (pooled, expected))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("size", "enough"), [(31, False), (32, True), (28, True), (27, False), (29, False)])
def test_images_are_as_large_as_their_halvings_need_or_refused(size: int, enough: bool) -> None:
    if enough:
        _layers.check_halvings("a vgg11", (size, 64) if size != 28 else (28, 28), 5)
    else:
        with pytest.raises(BadInput, match=rf"{size}×64 are too small for a vgg11.* 32×32 or more, or 28×28"):
            _layers.check_halvings("a vgg11", (size, 64), 5)
