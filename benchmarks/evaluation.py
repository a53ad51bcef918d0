"""Training one evaluation network on a synthetic set of 100 images: seconds per step, ours and the official form.

An epoch is one step, since the set fits one batch. Networks are trained one after another. The floor is what the
machine would need for the products of a step alone: the FLOPs that torch counts, at the speed of the network's own
inner convolution, measured in the same rounds. Of the processor's time, not the clock's, so that others who work on
the machine matter less.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec
import torch

from benchmarks.contest import OFFICIAL, PROCESSOR, Contest, Form, Measure, Results, Scene, middle, of_processor
from benchmarks.distil import ceiling
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


def ours(
    shape: Shape, ipc: int, width: int, device: str, stack: int, precision: Literal["fp32", "bf16"] = "fp32"
) -> Callable[[], object]:
    """What takes the next step each time it is called."""
    Policy(torch.device(device)).apply()
    count = shape.classes * ipc
    images, classes = floats(shape, device)[:count].clone(), labels(shape.classes, count).to(device)
    data = SyntheticSet(images, classes, normalisation(shape), tuple(card(shape).classes))
    protocol = msgspec.structs.replace(preset("dsa-dm"), synthetic=Budget(epochs=10**9), precision=precision)
    trained = [networks.build(f"convnet-d3-w{width}", card(shape)).to(device) for _ in range(stack)]
    steps = train_together(trained, data, protocol, [Seeds(n) for n in range(stack)], mirrors=shape.mirrors)
    return lambda: next(steps)


# The contest.


def contest(scene: Scene) -> Contest:
    shape, ipc, widths = (TINY, 2, (4,)) if scene.quick else (MNIST, 10, (128, 64))
    repeats = 1 if scene.quick else 50 if scene.cuda else 5

    def per_step(step: Callable[[], object], networks: int = 1) -> Measure:
        def several() -> None:
            for _ in range(repeats):
                step()

        return lambda: {name: spent / repeats / networks for name, spent in of_processor(several, scene.device).items()}

    def the_official(width: int) -> Measure:
        return per_step(Training(shape, ipc=ipc, width=width, device=scene.device).epoch)

    def of_ours(width: int, stack: int, precision: Literal["fp32", "bf16"]) -> Measure:
        return per_step(ours(shape, ipc, width, scene.device, stack, precision), stack)

    forms = [Form("convolution, fp32", partial(ceiling, "fp32", scene))]
    ratios, of_width = [], {}
    for width in widths:
        baseline, count = f"w{width}, official", f"w{width}, counted"
        forms.append(Form(baseline, partial(the_official, width), OFFICIAL))
        forms.append(Form(count, partial(flops, shape, ipc, width, scene.device), OFFICIAL, warmups=0))
        precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
        for precision in precisions:
            for stack in STACKS if scene.cuda else (1,):
                name = f"w{width}, {precision}" + (f", {stack} at once" if stack > 1 else "")
                forms.append(Form(name, partial(of_ours, width, stack, precision)))
                ratios.append((baseline, name))
                of_width[name] = count
    compared = "seconds" if scene.cuda else PROCESSOR

    def figures(results: Results) -> dict[str, float]:
        of = "FLOP/s" if scene.cuda else "FLOP/processor s"
        speed = max(measured[of] for measured in results["convolution, fp32"])
        found = {f"ceiling fp32, G{of}": speed / 1e9}
        for name, count in of_width.items():
            floor = middle(results, count, "FLOP") / speed
            found[f"{count}, floor fp32, seconds"] = floor
            found[f"{name} / floor fp32"] = middle(results, name, compared) / floor
        return found

    return Contest(tuple(forms), tuple(ratios), compared=compared, figures=figures)


def flops(shape: Shape, ipc: int, width: int, device: str) -> Measure:
    """What torch counts in a step of the official form, once."""
    from torch.utils.flop_counter import FlopCounterMode

    training = Training(shape, ipc=ipc, width=width, device=device)
    with FlopCounterMode(display=False) as counter:
        training.epoch()
    return lambda: {"FLOP": float(counter.get_total_flops())}
