"""Problems that take no time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from dambench import networks
from dambench.core.events import DataCard
from dambench.testing.promises import hold
from dambench.training.problem import Normalisation, Problem, RealSet, Seeds


def data_card(
    counts: Sequence[int] = (5, 6, 7),
    *,
    test_counts: Sequence[int] | None = None,
    channels: int = 1,
    size: tuple[int, int] = (8, 8),
    mirrors: bool = True,
) -> DataCard:
    """Made-up images, so many of each class."""
    return DataCard(
        name="made-up",
        label="made-up",
        train_counts=list(counts),
        test_counts=list(test_counts or counts),
        classes=[f"class {c}" for c in range(len(counts))],
        channels=channels,
        height=size[0],
        width=size[1],
        mean=[0.4, 0.5, 0.6][:channels],
        std=[0.2, 0.25, 0.3][:channels],
        mirrors=mirrors,
        source="made up",
        sha256="0" * 64,
        size_bytes=0,
    )


def real_set(card: DataCard, seed: int = 0) -> RealSet:
    """Random pixels, as many of each class as the card says."""
    shape = (sum(card.train_counts), card.channels, card.height, card.width)
    pixels = torch.randint(256, shape, generator=generator(seed), dtype=torch.uint8)
    return RealSet(pixels, tuple(card.train_counts), Normalisation(tuple(card.mean), tuple(card.std)))


def striped_set(card: DataCard, seed: int = 0) -> RealSet:
    """Images that a network learns in some steps: noise, and a bright stripe whose place says the class."""
    noise = real_set(card, seed)
    stripes = torch.arange(card.width) * len(card.train_counts) // card.width
    bright = (stripes == noise.labels.unsqueeze(1)).view(-1, 1, 1, card.width)
    images = (noise.images.float() / 4 + 190 * bright).to(torch.uint8)
    return RealSet(images, noise.counts, noise.preprocessing)


def tiny_problem(
    *, seed: int = 0, ipc: int = 2, card: DataCard | None = None, network: str = "convnet-d1-w8"
) -> Problem:
    """A few random images of three classes, and a network that takes a millisecond."""
    card = card or data_card()
    return Problem(
        real=real_set(card),
        card=card,
        ipc=ipc,
        seeds=Seeds(seed),
        build_network=lambda: networks.build(network, card),
        network=network,
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def global_generator_untouched() -> Iterator[None]:
    """Fail where the code inside draws from torch's global generator."""
    before = torch.get_rng_state()
    yield
    hold(
        torch.equal(torch.get_rng_state(), before),
        "It draws from torch's global generator, which belongs to nobody: take one from `problem.generator`.",
    )


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
