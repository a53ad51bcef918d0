"""The promises of all families of networks."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from dambench import networks
from dambench.core.contracts import NetworkFamily
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.testing.problems import data_card, generator, global_generator_untouched
from dambench.testing.promises import broken_promises, hold, refuse
from dambench.training.problem import Network


def check_network(name: str) -> None:
    """Check that a family of networks keeps every promise.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    refuse(broken_promises("networks", name, NETWORK_PROMISES, lambda plugin: plugin))


def smallest_card(family: NetworkFamily) -> DataCard:
    """Two classes of images as small as the family can see."""
    for size in (8, 16, 32, 64, 128):
        card = data_card((1, 1), channels=3, size=(size, size))
        try:
            networks.settle(family.name, card)
        except BadInput:
            continue
        return card
    raise AssertionError("It has no network for images of any size from 8×8 to 128×128.")


def fresh_network(family: NetworkFamily, card: DataCard, seed: int = 0) -> Network:
    """The family's usual network for these images, its weights drawn."""
    network = networks.build(networks.settle(family.name, card), card)
    network.reset(generator(seed))
    return network


def some_images(card: DataCard, count: int = 4) -> Tensor:
    """N(0, 1), (count, C, H, W) float32."""
    return torch.randn(count, card.channels, card.height, card.width, generator=generator())


CARDS = (data_card((1,) * 10, channels=3, size=(32, 32)), data_card((1,) * 10, channels=1, size=(28, 28)))


def logits_are_finite_and_one_per_class(family: NetworkFamily) -> None:
    for card in CARDS:
        logits = fresh_network(family, card)(some_images(card))
        hold(logits.shape == (4, 10), f"Its logits of 4 images and 10 classes are of shape {tuple(logits.shape)}.")
        hold(logits.dtype == torch.float32 and logits.isfinite().all(), "Its logits are not finite, or not float32.")
        hold(len(logits.unique(dim=0)) == 4, "It gives the same logits for different images.")


def gradients_reach_the_images_and_every_weight(family: NetworkFamily) -> None:
    for card in CARDS:
        images, network = some_images(card).requires_grad_(), fresh_network(family, card)
        network(images).square().sum().backward()
        for name, tensor in (("the images", images), *network.named_parameters()):
            hold(tensor.grad is not None and tensor.grad.isfinite().all(), f"No finite gradient reaches {name}.")


def the_embedding_is_the_last_map_flattened_and_what_the_classifier_reads(family: NetworkFamily) -> None:
    for card in CARDS:
        images, network = some_images(card, 3), fresh_network(family, card).eval()
        embedding, maps = network.embed(images), network.feature_maps(images)
        hold(
            len(maps) == network.num_levels, f"It yields {len(maps)} maps, and its num_levels is {network.num_levels}."
        )
        hold(embedding.shape == (3, network.classifier.in_features), "Its last map is not what its classifier reads.")
        same = torch.equal(embedding, maps[-1].flatten(1)) and torch.allclose(
            network(images), network.classifier(embedding), atol=1e-5
        )
        hold(same, "Its logits are not what its classifier makes of its last map.")
        hold(all((m.dim(), len(m)) == (4, 3) for m in maps[:-1]), "A map before its last one is not (B, C, H, W).")


def what_is_had_faster_is_the_same(family: NetworkFamily) -> None:
    """Levels alone, the embedding and logits without a gradient of a gradient, and what comes of them."""
    for card in CARDS:
        images, network = some_images(card, 3).double(), fresh_network(family, card).double()
        maps = network.feature_maps(images)
        for wanted in ([network.num_levels - 1], range(network.num_levels)):
            some = dict(network.iter_levels(images, wanted))
            same = list(some) == list(wanted) and all(torch.allclose(some[n], maps[n], atol=1e-9) for n in wanted)
            hold(same, f"Its levels {list(wanted)} are others when they are asked for alone.")
        weights = list(network.parameters())
        plain = torch.autograd.grad(network(images).square().sum(), weights)
        once = torch.autograd.grad(network.forward_once(images).square().sum(), weights)
        hold(
            all(torch.allclose(a, b, atol=1e-9) for a, b in zip(plain, once, strict=True)),
            "The gradient of its logits is another where it is taken only once.",
        )


def images_are_not_changed(family: NetworkFamily) -> None:
    for card in CARDS:
        images, network = some_images(card, 2), fresh_network(family, card)
        before = images.clone()
        network(images)
        network.feature_maps(images)
        hold(
            torch.equal(images, before), "It changes the images that it is given: an `inplace=True` of its first layer?"
        )


def a_full_name_is_its_own_full_name(family: NetworkFamily) -> None:
    for card in CARDS:
        name = networks.settle(family.name, card)
        hold(name.startswith(family.name), f"Its network is called {name!r}.")
        hold(networks.settle(name, card) == name, f"{name!r} is the full name of {networks.settle(name, card)!r}.")


def every_choice_of_a_name_can_be_built_and_is_another_network(family: NetworkFamily) -> None:
    choices = [spelling for spelling in family.PARTS.values() if not isinstance(spelling, str)]
    words = [word for spelling in choices for word in spelling]
    hold(len(set(words)) == len(words), f"One of its words spells two options: {words}.")
    card = CARDS[0]
    names = {networks.settle(f"{family.name}-{word}", card) for word in words}
    for name in names:
        network = networks.build(name, card)
        network.reset(generator())
        hold(network(some_images(card, 2)).isfinite().all(), f"The logits of {name} are not finite.")
    # Each option has one word for its default, which the full name leaves out.
    hold(len(names) == len(words) - len(choices) + bool(choices), f"The words {words} give the networks {names}.")


def the_same_generator_draws_the_same_weights_whatever_was_there_before(family: NetworkFamily) -> None:
    for card in CARDS:
        network = fresh_network(family, card).requires_grad_(False)
        before = copy.deepcopy(network.state_dict())
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(7)
        with global_generator_untouched():
            network.reset(generator())
        after = network.state_dict()
        for key, tensor in before.items():
            hold(torch.equal(tensor, after[key]), f"`reset` does not draw {key} anew.")
        frozen = not any(parameter.requires_grad for parameter in network.parameters())
        hold(frozen, "`reset` makes frozen weights learn again.")


def building_leaves_torch_s_global_generator_alone(family: NetworkFamily) -> None:
    for card in CARDS:
        with global_generator_untouched():
            fresh_network(family, card)


def gradients_of_gradients_reach_the_images(family: NetworkFamily) -> None:
    """Gradients are matched, and students unrolled."""
    card = smallest_card(family)
    images, network = some_images(card, 3).requires_grad_(), fresh_network(family, card)
    slopes = torch.autograd.grad(network(images).square().sum(), list(network.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(torch.stack([slope.square().sum() for slope in slopes]).sum(), images)
    reached = second.isfinite().all() and second.flatten(1).norm(dim=1).min() > 0
    hold(reached, "No gradient of a gradient reaches the images: the methods that match gradients cannot use it.")


NETWORK_PROMISES: tuple[Callable[[NetworkFamily], None], ...] = (
    logits_are_finite_and_one_per_class,
    gradients_reach_the_images_and_every_weight,
    the_embedding_is_the_last_map_flattened_and_what_the_classifier_reads,
    what_is_had_faster_is_the_same,
    images_are_not_changed,
    a_full_name_is_its_own_full_name,
    every_choice_of_a_name_can_be_built_and_is_another_network,
    the_same_generator_draws_the_same_weights_whatever_was_there_before,
    building_leaves_torch_s_global_generator_alone,
    gradients_of_gradients_reach_the_images,
)
