"""A network's step by one thread and by two, and networks one after another and side by side; seconds, on a CPU.

The first is what `dambench.training.threads.TABLE` is made from; it needs two cores that do nothing else. The second
shows what several cores are worth: as many networks as there are cores, each by one thread in a process of its own.
"""

from collections.abc import Callable, Generator
from functools import partial

import msgspec
import torch

from benchmarks.contest import Contest, Form, Measure, Scene, timed
from benchmarks.images import Shape, card, labels, normalisation, pixels
from dambench import networks
from dambench.core import cores
from dambench.core.protocol import Budget, preset
from dambench.core.side_by_side import Work
from dambench.training.problem import Seeds, SyntheticSet
from dambench.training.threads import networks_beside, sharing
from dambench.training.train import train

DIGITS = Shape("digits", 1, 8, 26, mirrors=False)
MNIST = Shape("MNIST", 1, 28, 26, mirrors=False)
FEW = Shape("few digits", 1, 8, 4, mirrors=False, classes=3, tests=10)

SIZES = (
    (DIGITS, "convnet-d2-w32", 10),
    (DIGITS, "convnet-d2-w32", 100),
    (DIGITS, "convnet-d2-w128", 100),
    (MNIST, "convnet-d3-w32", 10),
    (MNIST, "convnet-d3-w32", 100),
    (MNIST, "convnet-d3-w128", 10),
    (MNIST, "convnet-d3-w128", 100),
)
"""Images, network and batch, from small to large."""

BESIDE = ((DIGITS, "convnet-d2-w32", 100), (MNIST, "convnet-d3-w64", 100))

MULTIPLICATIONS = 4_000_000_000
"""Multiplications of all forward passes that are timed together, whatever the network: small ones take more steps."""


def contest(scene: Scene) -> Contest:
    forms: list[Form] = []
    ratios: list[tuple[str, str]] = []
    for shape, network, batch in ((FEW, "convnet-d1-w4", 4),) if scene.quick else SIZES:
        work = networks.multiplications(network, card(shape)) * batch
        steps = 2 if scene.quick else max(2, MULTIPLICATIONS // work // 4)
        titles = [f"{shape.name} {network}, batch {batch}, {count} in an operation" for count in (1, 2)]
        forms += [
            Form(title, partial(_alone, shape, network, batch, steps, count))
            for title, count in zip(titles, (1, 2), strict=True)
        ]
        ratios.append((titles[0], titles[1]))
    many = max(2, cores.usable())
    for shape, network, batch in ((FEW, "convnet-d1-w4", 4),) if scene.quick else BESIDE:
        titles = [f"{shape.name} {many} × {network}, on {count} cores" for count in (1, many)]
        steps = 2 if scene.quick else 60 if shape is DIGITS else 10
        forms += [
            Form(title, partial(_beside, shape, network, batch, steps, many, count))
            for title, count in zip(titles, (1, many), strict=True)
        ]
        ratios.append((titles[0], titles[1]))
    return Contest(tuple(forms), tuple(ratios))


def _trained(shape: Shape, network: str, batch: int, steps: int) -> Generator[int, None, None]:
    data = SyntheticSet(
        pixels(shape)[:batch],
        labels(shape.classes, shape.classes * shape.per_class)[:batch],
        normalisation(shape),
        tuple(card(shape).classes),
    )
    protocol = msgspec.structs.replace(preset("dsa-dm"), synthetic=Budget(epochs=steps), batch=batch)
    for done, _ in train(networks.build(network, card(shape)), data, protocol, Seeds(0), mirrors=shape.mirrors):
        yield done


def _alone(shape: Shape, network: str, batch: int, steps: int, threads: int) -> Measure:
    def go() -> None:
        with sharing(threads):
            for _ in _trained(shape, network, batch, steps):
                pass

    return _measured(go)


def _beside(shape: Shape, network: str, batch: int, steps: int, count: int, on: int) -> Measure:
    works = [Work(partial(_trained, shape, network, batch, steps)) for _ in range(count)]
    return _measured(lambda: list(networks_beside(works, on)))


def _measured(go: Callable[[], object]) -> Measure:
    torch.set_num_threads(1)
    return lambda: timed(go, "cpu")
