"""One update of the images by DC and DSA, ours and the official form.

A new network, the gradients of its loss on the real and on the synthetic images of each class, and the gradient of
their distance. Between two updates a network is trained on the synthetic images, which `evaluation` measures.

At IPC 1 nearly all of the time goes into the gradients of the real images; at IPC 10 a third goes into the gradient of
a gradient.

What bounds it on a CPU are convolutions: at IPC 1 and 128 real images per class torch counts 377 GFLOP, 3.2 s of a
thread at the speed of the inner convolution. The official form took 5.0 s and ours 4.3: none can be twice as fast.
"""

from collections.abc import Callable
from dataclasses import replace

from benchmarks.contest import DEFAULT, KEPT, OFFICIAL, Contest, Form, Measure, Scene, timed
from benchmarks.distil import QUICK, Setting, official, ours, policy, precisions
from benchmarks.images import MNIST

CASES = (("DC", 1), ("DSA", 10))
"""Method and IPC."""


def contest(scene: Scene) -> Contest:
    repeats = 10 if scene.cuda and not scene.quick else 1
    warmups = 0 if scene.quick else 2
    forms: list[Form] = []
    ratios: list[tuple[str, str]] = []

    def the_official(method: str, setting: Setting) -> Callable[[], Measure]:
        def prepare() -> Measure:
            distillation = official(method, "instance", setting, scene.device)
            return lambda: timed(distillation.step, scene.device, repeats)

        return prepare

    def of_ours(method: str, precision: str, setting: Setting) -> Callable[[], Measure]:
        def prepare() -> Measure:
            step = ours(method, "instance", precision, setting, scene.device)

            def measure() -> dict[str, float]:
                policy(precision, scene.device).apply()  # the precisions share a process
                return timed(step, scene.device, repeats)

            return measure

        return prepare

    for method, ipc in CASES:
        setting = QUICK if scene.quick else replace(Setting(MNIST, 128), ipc=ipc)
        what = f"{setting.label} IPC {setting.ipc} {method}"
        baselines = []
        for allocator in scene.allocators:
            baselines.append(f"{what}, official{'' if allocator == KEPT else f' {DEFAULT}'}")
            forms.append(Form(baselines[-1], the_official(method, setting), OFFICIAL, allocator, warmups))
        for precision in precisions(scene):
            name = f"{what}, {precision}"
            forms.append(Form(name, of_ours(method, precision, setting), warmups=warmups))
            ratios += [(baseline, name) for baseline in baselines]
    return Contest(tuple(forms), tuple(ratios))
