"""One update of the images by DM, DataDAM, DC, DSA and MTT against what its convolutions alone would take.

The floor is the FLOPs that torch counts in the official form (forward, and every gradient that the method needs) at the
speed of the network's own inner convolution, measured in the same rounds: nobody reaches it whose first layer has one
channel to read, and gradients of weights run at nine tenths of that speed. All of one thread's processor time on a CPU,
so that others who work on the machine matter less; the official form has the allocator that ours has.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch

from benchmarks import distil, trajectories
from benchmarks.contest import OFFICIAL, PROCESSOR, Contest, Form, Measure, Results, Scene, middle, of_processor
from benchmarks.images import MNIST

CASES = (("DM", 10), ("DM", 1), ("DataDAM", 10), ("DataDAM", 1), ("DC", 1), ("DSA", 10))
"""Method and IPC, with 128 real images per class and width 128."""

Step = Callable[[], object]


@contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile one thread computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Everywhere(nullcontext[None]):
    """Tells a counter of FLOPs of no module, only of all together."""

    parents = frozenset({"Global"})


def steps(scene: Scene) -> dict[str, tuple[Callable[[], Step], Callable[[], Step]]]:
    """By what is done, how to make what takes the next step at each call: of the official form, and of ours."""
    found: dict[str, tuple[Callable[[], Step], Callable[[], Step]]] = {}
    for method, ipc in CASES:
        setting = distil.QUICK if scene.quick else replace(distil.Setting(MNIST, 128), ipc=ipc)

        def official(method: str = method, setting: distil.Setting = setting) -> Step:
            return distil.official(method, "instance", setting, scene.device).step

        found[f"{method} IPC {ipc}"] = (
            official,
            partial(distil.ours, method, "instance", distil.precisions(scene)[0], setting, scene.device),
        )
    student = trajectories.QUICK[0] if scene.quick else trajectories.SETTINGS["cpu"][0]
    found[f"MTT {student.label}"] = (
        partial(trajectories.official, student, scene.device),
        partial(trajectories.ours, student, "unrolled", distil.precisions(scene)[0], scene.device),
    )
    return found


def contest(scene: Scene) -> Contest:
    precision = distil.precisions(scene)[0]
    forms: list[Form] = []
    ratios: list[tuple[str, str]] = []

    def measured(make: Callable[[], Step]) -> Measure:
        with one_thread():  # ours chooses by it how many
            step = make()

        def measure() -> dict[str, float]:
            with one_thread():
                return of_processor(step, scene.device)

        return measure

    def counted(make: Callable[[], Step]) -> Measure:
        # Here, since it brings triton along.
        from torch.utils.flop_counter import FlopCounterMode

        step = make()
        counter = FlopCounterMode(display=False)
        vars(counter)["mod_tracker"] = (
            Everywhere()
        )  # its own hooks refuse gradients of a network's weights by autograd.grad
        with counter:
            step()
        return lambda: {"FLOP": float(counter.get_total_flops())}

    def speed() -> Measure:
        measure = distil.ceiling(precision, scene)

        def alone() -> dict[str, float]:
            with one_thread():
                return measure()

        return alone

    found = steps(scene)
    for name, (official, ours) in found.items():
        forms.append(Form(f"{name}, official", partial(measured, official), OFFICIAL))
        forms.append(Form(f"{name}, counted", partial(counted, official), OFFICIAL, warmups=0))
        forms.append(Form(name, partial(measured, ours)))
        ratios.append((f"{name}, official", name))
    forms.append(Form("convolution", speed))

    def figures(results: Results) -> dict[str, float]:
        of = "FLOP/s" if scene.cuda else "FLOP/processor s"
        ceiling = max(one[of] for one in results["convolution"])
        of_what = {f"ceiling, G{of}": ceiling / 1e9}
        for name in found:
            floor = middle(results, f"{name}, counted", "FLOP") / ceiling
            of_what[f"{name}, floor, seconds"] = floor
            for form in (name, f"{name}, official"):
                of_what[f"{form} / floor"] = middle(results, form, compared) / floor
        return of_what

    compared = "seconds" if scene.cuda else PROCESSOR
    return Contest(tuple(forms), tuple(ratios), compared=compared, figures=figures)
