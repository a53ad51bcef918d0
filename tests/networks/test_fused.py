"""The first stage in one product per image, and 2×2 means: what torch's own layers give, and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dambench.networks import _fused
from dambench.networks._fused import average, first_stage, suits
from dambench.networks._layers import AveragePool
from dambench.testing.problems import generator
from dambench.training.problem import Stage


def stage(
    channels: int = 1, width: int = 6, padding: int = 3, groups: int | None = None, dtype: torch.dtype = torch.float32
) -> Stage:
    convolution, norm = nn.Conv2d(channels, width, 3, padding=padding), nn.GroupNorm(groups or width, width)
    with torch.no_grad():
        for tensor in (*convolution.parameters(), *norm.parameters()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator(len(tensor.shape))))
    return Stage(convolution.to(dtype), norm.to(dtype), nn.ReLU(), AveragePool())


def plain(of: Stage, images: Tensor) -> Tensor:
    """The literal form."""
    return F.avg_pool2d(F.relu(of.norm(of.convolution(images))), 2)


def some(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    # Smooth and bright, as photographs are: neighbours are alike, and no mean is 0.
    noise = torch.randn(*shape, generator=generator(3), dtype=dtype)
    return 3 + F.avg_pool2d(noise, 3, stride=1, padding=1) + 0.05 * noise


@pytest.mark.parametrize("at_once", [1, 2**30])
def test_the_first_stage_and_its_gradients_are_those_of_its_layers(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fused, "CACHED_BYTES", at_once)
    of, images = stage(dtype=torch.float64), some(5, 1, 28, 28)
    assert suits(of, images)
    ours, theirs = first_stage(of, images), plain(of, images)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    weights = [of.convolution.weight, *of.norm.parameters()]
    slope = torch.randn(ours.shape, generator=generator(4), dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad(ours, weights, slope), torch.autograd.grad(theirs, weights, slope), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def test_the_convolution_s_bias_gets_a_gradient_of_0_so_that_it_decays_as_before() -> None:
    of = stage()
    first_stage(of, some(2, 1, 8, 8).float()).sum().backward()
    assert of.convolution.bias is not None
    assert of.convolution.bias.grad is not None
    assert torch.equal(of.convolution.bias.grad, torch.zeros(6))


def test_in_float32_it_is_as_near_to_float64_as_its_layers_are() -> None:
    of, images = stage(width=16), some(20, 1, 28, 28)
    exact = plain(stage(width=16, dtype=torch.float64), images)
    ours, theirs = (form(of, images.float()) - exact for form in (first_stage, plain))
    assert ours.abs().max() < 2 * theirs.abs().max() + 1e-6


@pytest.mark.parametrize(
    ("of", "shape"),
    [
        (stage(groups=2), (2, 1, 28, 28)),
        (stage(padding=1), (2, 1, 9, 9)),
        (stage(channels=3), (2, 3, 8, 8)),
        (stage()._replace(activation=nn.SiLU()), (2, 1, 8, 8)),
        (stage()._replace(norm=nn.BatchNorm2d(6)), (2, 1, 8, 8)),
    ],
    ids=["groups", "an odd side", "colour", "another activation", "batch norm"],
)
def test_other_stages_keep_their_layers(of: Stage, shape: tuple[int, ...]) -> None:
    assert not suits(of, torch.zeros(shape))
    assert suits(stage(), torch.zeros(2, 1, 8, 8))


def test_where_gradients_of_the_images_are_wanted_the_layers_stay() -> None:
    assert not suits(stage(), torch.zeros(2, 1, 8, 8, requires_grad=True))
    with torch.no_grad():
        assert suits(stage(), torch.zeros(2, 1, 8, 8, requires_grad=True))


def test_a_gradient_of_its_gradient_is_refused_not_wrong() -> None:
    of = stage()
    weight = of.convolution.weight
    (once,) = torch.autograd.grad(first_stage(of, some(2, 1, 8, 8).float()).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()


def test_means_of_2_by_2_pixels_have_gradients_of_any_order() -> None:
    maps = some(2, 3, 4, 6).requires_grad_()
    assert torch.allclose(average(maps), F.avg_pool2d(maps, 2), atol=1e-15)
    assert torch.autograd.gradcheck(average, (maps,))
    assert torch.autograd.gradgradcheck(lambda x: average(x).pow(3), (maps,))


def test_means_of_2_by_2_pixels_are_taken_for_several_networks_at_once() -> None:
    maps = torch.randn(4, 2, 3, 4, 4, generator=generator())
    assert torch.allclose(
        torch.vmap(AveragePool())(maps), F.avg_pool2d(maps.flatten(0, 1), 2).view(4, 2, 3, 2, 2), atol=1e-6
    )
