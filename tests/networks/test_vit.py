import pytest
import torch
from scipy.stats import kstest
from torch import nn

from dambench import networks
from dambench.core.errors import BadInput
from dambench.networks import vit
from dambench.testing import data_card
from tests.lab import generator, noise
from tests.networks.zoo import build, parameters, with_norms


def test_parameters_are_those_of_its_layers() -> None:
    network = build("vit", 3, 32)
    patches, positions = 3 * 16 * 512 + 512, 512 + 65 * 512
    attention, layers, norm = 512 * 3 * 512 + 512 * 512 + 512, 2 * (512 * 512 + 512), 2 * 512
    assert parameters(network) == patches + positions + 6 * (attention + layers + 2 * norm) + norm + 512 * 10 + 10


def test_logits_and_maps_are_those_of_torch_s_encoder() -> None:
    network = with_norms(build("vit-p4-d2-w24-h3", 3, (8, 12)))
    assert isinstance(network, vit.ViT)
    images = noise(5, 3, 8, 12)
    cut = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(5, 6, 48)
    weight, bias = network.patches.parameters()
    patches = cut @ weight.flatten(1).T + bias
    tokens = torch.cat([network.token.expand(5, 1, 24), patches], 1) + network.positions
    maps = []
    for block in network.blocks:
        layer = nn.TransformerEncoderLayer(
            24, 3, 24, dropout=0, activation="gelu", norm_first=True, batch_first=True, dtype=torch.float64
        )
        norm1, shift1, asked, out, out_bias, norm2, shift2, *layers = block.parameters()
        with torch.no_grad():
            no_bias = torch.zeros(72, dtype=torch.float64)
            given = [asked, no_bias, out, out_bias, *layers, norm1, shift1, norm2, shift2]
            for mine, theirs in zip(layer.parameters(), given, strict=True):
                mine.copy_(theirs)
        tokens = layer(tokens)
        maps.append(tokens[:, 1:].transpose(1, 2).reshape(5, 24, 2, 3))
    for ours, expected in zip(network.feature_maps(images), maps, strict=False):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(network(images), network.classifier(network.norm(tokens[:, 0])))


def test_the_class_token_and_the_positions_are_drawn_from_the_normal_distribution() -> None:
    network = build("vit", 3, 32)
    assert isinstance(network, vit.ViT)
    for parameter in (network.token, network.positions):
        assert kstest(parameter.detach().flatten().numpy(), "norm").pvalue > 1e-3
        before = parameter.clone()
        network.reset(generator(2))
        assert (parameter != before).all()
        network.reset(generator(1))
        assert torch.equal(parameter, before)


def test_it_drops_nothing_in_training() -> None:
    network = build("vit-d1-w16-h2", 1, 8)
    images = noise(3, 1, 8, 8).float()
    assert torch.equal(network.train()(images), network.eval()(images))


@pytest.mark.parametrize(
    ("size", "patch"),
    [((8, 8), 4), ((28, 28), 4), ((32, 32), 4), ((30, 30), 5), ((64, 64), 4), ((128, 128), 8), ((224, 224), 14)],
)
def test_patches_suit_the_images(size: tuple[int, int], patch: int) -> None:
    assert networks.settle("vit", data_card(size=size)) == f"vit-p{patch}-d6-w512-h8"


@pytest.mark.parametrize(
    ("name", "size", "wrong"),
    [
        ("vit", (23, 23), "23×23 into patches of 4×4 or more.* one of 1, 23 would fit"),
        ("vit-p5", (32, 32), "32×32 into patches of 5×5.* one of 1, 2, 4, 8, 16, 32 would fit"),
        ("vit-w510", (32, 32), "width 510 cannot share it out evenly among 8 heads"),
    ],
)
def test_images_and_tokens_that_cannot_be_cut_are_refused(name: str, size: tuple[int, int], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        networks.settle(name, data_card(size=size))
