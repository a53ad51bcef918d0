"""Training experts side by side and one after another: seconds per step of one expert, by plain SGD and by GSAM.

A step is a batch of 256 augmented real images; GSAM goes through it twice.
"""

from collections.abc import Callable

import msgspec
import torch

from benchmarks.contest import Contest, Form, Measure, Scene, timed
from benchmarks.images import CIFAR10, MNIST, TINY, Shape, card, labels, normalisation, pixels
from dambench import networks
from dambench.matching.experts import FTD, MTT
from dambench.training.policy import Policy
from dambench.training.problem import Seeds, SyntheticSet
from dambench.training.train import train_together


def ours(shape: Shape, width: int, optimiser: str, device: str, together: int) -> Callable[[], object]:
    """What takes the next step of all experts each time it is called."""
    Policy(torch.device(device)).apply()
    how = msgspec.structs.replace(MTT if optimiser == "sgd" else FTD, epochs=10**4)
    images = pixels(shape).to(device)
    data = SyntheticSet(
        images,
        labels(shape.classes, len(images)).to(device),
        normalisation(shape),
        tuple(card(shape).classes),
        whole=True,
    )
    experts = [networks.build(f"convnet-d3-w{width}", card(shape)).to(device) for _ in range(together)]
    seeds = [Seeds(number) for number in range(together)]
    steps = train_together(experts, data, how.protocol, seeds, mirrors=shape.mirrors, gsam=how.gsam)
    return lambda: next(steps)


def contest(scene: Scene) -> Contest:
    shape, width = (TINY, 4) if scene.quick else (CIFAR10, 128) if scene.cuda else (MNIST, 32)
    repeats = 1 if scene.quick else 50 if scene.cuda else 2

    def of_ours(optimiser: str, together: int) -> Callable[[], Measure]:
        def prepare() -> Measure:
            step = ours(shape, width, optimiser, scene.device, together)
            return lambda: {"seconds": timed(step, scene.device, repeats)["seconds"] / together}

        return prepare

    forms, ratios = [], []
    for optimiser in ("sgd", "gsam"):
        alone = f"w{width} {optimiser}, one after another"
        forms.append(Form(alone, of_ours(optimiser, 1)))
        for together in (5, 20) if scene.cuda else (4,):
            forms.append(Form(f"w{width} {optimiser}, {together} side by side", of_ours(optimiser, together)))
            ratios.append((alone, forms[-1].name))
    return Contest(tuple(forms), tuple(ratios))
