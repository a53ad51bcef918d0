"""DM and DataDAM on each network of the zoo."""

from types import ModuleType

import pytest
import torch

from dambench import networks
from dambench.core import registry
from dambench.core.config import Request, read
from dambench.core.errors import BadInput
from dambench.engine.settle import prepare
from dambench.methods import datadam, dm
from dambench.testing import data_card, tiny_problem
from dambench.testing.methods import watch
from dambench.training.problem import Network
from tests.lab import generator, noise, pulled

SIZES = {"lenet": 16, "vgg": 32}
"""Of the smallest images that a network can see, where 8×8 is too small."""

NAMES = {"resnet": ["resnet18-bn", "resnet18-bn-ap"], "vgg": ["vgg11", "vgg11-bn"], "vit": ["vit-d2-w32"]}
"""Of a family, where its name alone would be slow, or there is more to see."""

CASES = [
    (method, name, SIZES.get(family, 8))
    for family in registry.names("networks")
    for name in NAMES.get(family, [family])
    for method in (dm, datadam)
    if (method, family) != (datadam, "mlp")
]
each = pytest.mark.parametrize(("method", "name", "size"), CASES, ids=lambda value: getattr(value, "__name__", None))


def options(method: ModuleType) -> object:
    return read(method.Options, {"iterations": 2, "batch_real": 3}, "it")


def random_network(name: str, size: int) -> Network:
    card = data_card(channels=3, size=(size, size))
    network = networks.build(networks.settle(name, card), card)
    network.reset(generator(5))
    return network.requires_grad_(False).train()


@each
def test_a_step_down_the_gradient_makes_the_loss_fall(method: ModuleType, name: str, size: int) -> None:
    network = random_network(name, size)
    terms = method.terms(*((network,) if method is dm else (network, datadam.Options())))
    real, synthetic = (noise(3, n, 3, size, size, seed=n, dtype=torch.float32) for n in (4, 2))
    found = []
    for _ in range(3):
        losses, gradient = pulled(network, terms, real, synthetic)
        assert all(loss.isfinite() and loss > 0 for loss in losses.values())
        # Every image is moved.
        assert gradient.isfinite().all()
        assert gradient.flatten(2).norm(dim=2).min() > 0
        found.append(losses["matching"].item())
        synthetic = synthetic - 0.5 * gradient / gradient.norm()
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 3


@each
def test_the_same_seed_gives_the_same_bits(method: ModuleType, name: str, size: int) -> None:
    card = data_card((5, 4), channels=3, size=(size, size))
    full = networks.settle(name, card)
    runs = [watch(method, tiny_problem(card=card, network=full, ipc=1), options(method)) for _ in range(2)]  # type: ignore[arg-type]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.losses == other.losses
    assert not torch.equal(runs[0][0].images, runs[0][1].images)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own code
@pytest.mark.parametrize("name", ["mlp", "lenet", "alexnet-bn", "resnet18-bn", "vit-d2-w32"])
def test_compiled_the_loss_is_the_same(name: str) -> None:
    size = SIZES.get(name, 8)
    network = random_network(name, size)
    real, synthetic = (noise(3, n, 3, size, size, seed=n, dtype=torch.float32) for n in (4, 2))
    plain, compiled = (pulled(network, dm.terms(network), real, synthetic, compiled=how) for how in (False, True))
    torch.testing.assert_close(plain[0]["matching"], compiled[0]["matching"], rtol=1e-4, atol=0)
    torch.testing.assert_close(plain[1], compiled[1], rtol=1e-3, atol=1e-3 * plain[1].abs().max().item())


def test_datadam_matches_every_relu_of_a_chain_but_the_last_and_the_stages_of_a_resnet() -> None:
    for name, layers in {"vgg11": 7, "alexnet": 4, "resnet18": 3, "vit": 5, "lenet": 1}.items():
        terms = datadam.terms(random_network(name, 32), datadam.Options())
        assert [term.name for term in terms] == ["attention"] * layers + ["features"]


def test_an_mlp_has_no_attention_and_datadam_says_so_before_it_begins() -> None:
    with pytest.raises(BadInput, match="an MLP has no such maps: match on"):
        prepare(Request(method="datadam", dataset="digits", network="mlp", device="cpu"))
    assert prepare(Request(method="dm", dataset="digits", network="mlp", device="cpu")).config.network == "mlp-d2-w128"
