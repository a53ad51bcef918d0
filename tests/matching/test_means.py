import pytest
import torch

from dambench import networks
from dambench.augment import draw
from dambench.matching.means import RealBatch, Term, pull, real_batch, real_means
from dambench.methods import datadam, dm
from dambench.problem import Network
from dambench.protocol import DSA
from tests.lab import Chunked, GivenBatch, data_card, generator, noise, pulled, real_set, tiny_problem

CARD = data_card(channels=3)


def random_network(name: str) -> Network:
    network = networks.build(name, CARD)
    network.reset(generator(5))
    return network.double().requires_grad_(False).train()


def both(network: Network) -> list[Term]:
    """Terms on several levels, two on the same."""
    doubled = Term("doubled", network.levels - 1, lambda maps: 2 * maps.flatten(1), 0.5)
    return [*datadam.terms(network, datadam.Options()), doubled]


@pytest.mark.parametrize("network", ["convnet-d2-w8", "convnet-d2-w8-bn"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 10, 14, 15, 100])
def test_how_many_images_go_through_at_once_changes_nothing(network: str, chunk: int) -> None:
    real, synthetic = noise(4, 7, 3, 8, 8), noise(4, 3, 3, 8, 8, seed=1)
    model, drawn = random_network(network), draw(DSA, 4, generator(1))
    losses, gradient = pulled(model, both(model), real, synthetic, drawn, chunk)
    expected, expected_gradient = pulled(model, both(model), real, synthetic, drawn)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def test_batches_are_as_small_as_asked_and_whole_for_batch_norm() -> None:
    for name, largest in (("convnet-d2-w8", 4), ("convnet-d2-w8-bn", 28)):
        model = random_network(name)
        seen: list[int] = []
        model.get_submodule("blocks.0").register_forward_pre_hook(
            lambda module, given, seen=seen: seen.append(len(given[0]))
        )
        pulled(model, dm.terms(model), noise(4, 7, 3, 8, 8), noise(4, 2, 3, 8, 8), chunk=4)
        assert max(seen) == largest
        assert sum(seen) == 4 * 7 + 4 * 2


def test_a_network_mixes_images_while_it_has_batch_norm_and_trains() -> None:
    assert not random_network("convnet-d1-w8").mixes_images
    assert random_network("convnet-d1-w8-bn").mixes_images
    assert not random_network("convnet-d1-w8-bn").eval().mixes_images


def test_the_means_are_those_of_each_class() -> None:
    real = noise(3, 5, 3, 8, 8)
    model = random_network("convnet-d2-w8")
    batch = GivenBatch(real_set(CARD), torch.zeros(3, 5, dtype=torch.int64), None, real)
    (means,) = real_means(model, dm.terms(model), batch, 2)
    for c in range(3):
        torch.testing.assert_close(means[c], model.embed(real[c]).mean(0))


def test_weights_add_up_by_name() -> None:
    real, synthetic = noise(2, 4, 3, 8, 8), noise(2, 1, 3, 8, 8, seed=1)
    model = random_network("convnet-d2-w8")
    one = pulled(model, dm.terms(model), real, synthetic)[0]["matching"]
    terms = [Term("twice", 2, lambda maps: maps.flatten(1), w) for w in (0.5, 1.5)] + [
        Term("thrice", 2, lambda maps: maps.flatten(1), 3.0)
    ]
    losses, gradient = pulled(model, terms, real, synthetic)
    torch.testing.assert_close(losses, {"matching": 5 * one, "twice": 2 * one, "thrice": 3 * one})
    torch.testing.assert_close(gradient, 5 * pulled(model, dm.terms(model), real, synthetic)[1])


def test_the_gradient_is_added_to_what_is_there() -> None:
    problem = tiny_problem(card=CARD)
    images = noise(6, 3, 8, 8, dtype=torch.float32).requires_grad_()
    network = problem.new_network(1)
    batch = real_batch(problem, 4, "none", 1)
    gradients = []
    for _ in range(2):
        pull(network, dm.terms(network), batch, images, problem.policy)
        assert images.grad is not None
        gradients.append(images.grad.clone())
    torch.testing.assert_close(gradients[1], 2 * gradients[0])
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_real_batch_is_fetched_class_by_class_as_it_would_be_whole() -> None:
    real = real_set(CARD)
    batch = RealBatch(real, real.draw(4, generator()), draw(DSA, 3, generator(1)))
    whole = batch.images(slice(0, 3))
    assert whole.shape == (3, 4, 3, 8, 8)
    for c in range(3):
        torch.testing.assert_close(batch.images(slice(c, c + 1)), whole[c : c + 1])


def test_a_chunk_on_a_cpu_is_small() -> None:
    policy = tiny_problem().policy
    assert (policy.real_chunk, policy.synthetic_chunk) == (16, 64)
    assert Chunked(torch.device("cpu"), chunk=3).real_chunk == 3
