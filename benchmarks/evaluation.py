"""Training one evaluation network on a synthetic set of 100 images: seconds per step, ours and the official form.

An epoch is one step, since the set fits one batch. Networks are trained one after another.
"""

from collections.abc import Callable

import msgspec
import torch

from benchmarks.contest import OFFICIAL, Contest, Form, Measure, Scene, timed
from benchmarks.images import MNIST, TINY, Shape, card, floats, labels, normalisation
from benchmarks.official import Training
from dambench import networks
from dambench.core.protocol import Budget, preset
from dambench.training.policy import Policy
from dambench.training.problem import Seeds, SyntheticSet
from dambench.training.train import train_together

STACKS = (1, 20)
"""How many networks ours trains at once, on a GPU; the seconds are those of one. (On a CPU always one.)"""


# Ours: all that this benchmark knows of dambench.


def ours(shape: Shape, ipc: int, width: int, device: str, stack: int) -> Callable[[], object]:
    """What takes the next step each time it is called."""
    Policy(torch.device(device)).apply()
    count = shape.classes * ipc
    images, classes = floats(shape, device)[:count].clone(), labels(shape.classes, count).to(device)
    data = SyntheticSet(images, classes, normalisation(shape), tuple(card(shape).classes))
    protocol = msgspec.structs.replace(preset("dsa-dm"), synthetic=Budget(epochs=10**9))
    trained = [networks.build(f"convnet-d3-w{width}", card(shape)).to(device) for _ in range(stack)]
    steps = train_together(trained, data, protocol, [Seeds(n) for n in range(stack)], mirrors=shape.mirrors)
    return lambda: next(steps)


# The contest.


def contest(scene: Scene) -> Contest:
    shape, ipc, widths = (TINY, 2, (4,)) if scene.quick else (MNIST, 10, (128, 64))
    repeats = 1 if scene.quick else 50 if scene.cuda else 5

    def the_official(width: int) -> Callable[[], Measure]:
        def prepare() -> Measure:
            training = Training(shape, ipc=ipc, width=width, device=scene.device)
            return lambda: timed(training.epoch, scene.device, repeats)

        return prepare

    def of_ours(width: int, stack: int) -> Callable[[], Measure]:
        def prepare() -> Measure:
            step = ours(shape, ipc, width, scene.device, stack)
            return lambda: {"seconds": timed(step, scene.device, repeats)["seconds"] / stack}

        return prepare

    forms, ratios = [], []
    for width in widths:
        baseline = f"w{width}, official"
        forms.append(Form(baseline, the_official(width), OFFICIAL))
        for stack in STACKS if scene.cuda else (1,):
            name = f"w{width}, ours" + (f", {stack} at once" if stack > 1 else "")
            forms.append(Form(name, of_ours(width, stack)))
            ratios.append((baseline, name))
    return Contest(tuple(forms), tuple(ratios))
