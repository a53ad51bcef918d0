import pytest

from dambench import networks
from dambench.core.errors import BadInput
from dambench.testing import data_card

CIFAR = data_card((1,) * 10, channels=3, size=(32, 32))


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("ConvNetD3", "convnet-d3-w128"),
        ("convnet3", "convnet-d3-w128"),
        ("ConvNetW32", "convnet-d3-w32"),
        ("ConvNetBN", "convnet-d3-w128-bn"),
        ("ConvNetNP", "convnet-d3-w128-np"),
        ("convnet-swish-bn", "convnet-d3-w128-bn-swish"),
        ("MLP", "mlp-d2-w128"),
        ("LeNet", "lenet"),
        ("AlexNet", "alexnet"),
        ("AlexNetBN", "alexnet-bn"),
        ("vgg", "vgg11"),
        ("VGG11BN", "vgg11-bn"),
        ("vgg-19", "vgg19"),
        ("resnet", "resnet18"),
        ("ResNet18", "resnet18"),
        ("ResNet18BN", "resnet18-bn"),
        ("resnet18bn-ap", "resnet18-bn-ap"),
        ("resnet-ap-50-bn", "resnet50-bn-ap"),
        ("vit", "vit-p4-d6-w512-h8"),
        ("vit-p8-w64", "vit-p8-d6-w64-h8"),
    ],
)
def test_names_are_read_as_papers_write_them_and_written_in_one_way(written: str, full: str) -> None:
    assert networks.settle(written, CIFAR) == full
    assert networks.settle(full, CIFAR) == full


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("resnet20", "depth = 20 is not allowed: it is one of 18, 34, 50"),
        ("vgg12", "it is one of 11, 13, 16, 19"),
        ("resnet18bnx", "No network is called 'resnet18bnx'. Did you mean 'resnet'"),
        ("resnet18-34", "says its depth twice"),
        ("resnet18bn-in", "says its norm twice"),
        ("lenet5", "No network is called 'lenet5'. Did you mean 'lenet'"),
        ("lenet-bn", "no part is called 'bn'. The family lenet has none"),
        ("vgg11-w64", r"no part is called 'w64'. The family vgg has 11\|13\|16\|19, in\|bn"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_would(name: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        networks.settle(name, CIFAR)


def test_a_recipe_s_norm_is_for_networks_that_can_have_it_and_say_none() -> None:
    assert networks.settle("resnet18", CIFAR, "batch") == "resnet18-bn"
    assert networks.settle("resnet18-in", CIFAR, "batch") == "resnet18"
    assert networks.settle("resnet18in", CIFAR, "batch") == "resnet18"
    assert networks.settle("alexnet", CIFAR, "batch") == "alexnet-bn"
    assert networks.settle("mlp", CIFAR, "batch") == "mlp-d2-w128"


# Pools.


@pytest.mark.parametrize("pool", networks.POOLS)
def test_every_pool_fits_images_of_the_papers(pool: str) -> None:
    for card in (CIFAR, data_card((1,) * 10, size=(28, 28))):
        settled = networks.settle_all([pool], card, "resnet18-bn")
        assert len(settled) == len(networks.POOLS[pool][1].split())
        for name in settled:
            networks.build(name, card)


def test_a_pool_is_all_of_its_networks_each_once() -> None:
    settled = networks.settle_all(["Pool-W", "convnet-w64", "pool-c"], CIFAR, "resnet18-bn")
    assert settled == (*(f"convnet-d3-w{width}" for width in (32, 64, 128, 256)), "resnet18-bn")


@pytest.mark.parametrize(
    ("matched", "same", "with_instance_norm"),
    [
        ("convnet-d2-w32-bn-mp", "convnet-d2-w32-bn-mp", "convnet-d2-w32-mp"),
        ("resnet18-bn-ap", "resnet18-bn-ap", "resnet18-ap"),
        ("alexnet", "alexnet", "alexnet"),
        ("mlp-d2-w128", "mlp-d2-w128", "mlp-d2-w128"),
    ],
)
def test_the_network_matched_on_can_be_meant(matched: str, same: str, with_instance_norm: str) -> None:
    assert networks.settle_all(["matched"], CIFAR, matched) == (same,)
    assert networks.settle_all(["pool-ss"], CIFAR, matched) == (same,)
    assert networks.settle_all(["pool-s"], CIFAR, matched) == (with_instance_norm,)


def test_a_network_named_twice_is_refused_and_an_unknown_pool_too() -> None:
    with pytest.raises(BadInput, match="twice: convnet-d3-w128, convnet-d3-w128"):
        networks.settle_all(["convnet", "convnetd3"], CIFAR, "convnet-d3-w128")
    with pytest.raises(BadInput, match="No pool of networks is called 'pool-z'"):
        networks.members("pool-z")
