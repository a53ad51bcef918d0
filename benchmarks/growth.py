"""How an iteration of DM grows in time and memory: with classes, images per class, the images' side, the real batch.

One of them at a time, the others as in the base: ours and the official form, each in a process of its own. The memory
is what the iterations add to what the process has before them (Python, torch, the images). On a CPU the time is the
processor's, so that others who work on the machine matter less.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.contest import OFFICIAL, PROCESSOR, Contest, Form, Measure, Results, Scene, middle, of_processor
from benchmarks.distil import Setting, official, ours
from benchmarks.images import TINY, Shape
from benchmarks.memory import ADDED, peak_bytes, used_bytes

SHAPE = Shape("colour", 3, 32, 128, mirrors=True)
BASE = Setting(SHAPE, 32, ipc=10, width=32)

QUICK = Setting(TINY, 4, ipc=1, width=4)


def growing(base: Setting, quick: bool) -> dict[str, tuple[Setting, ...]]:
    """By what grows, the settings in its order."""
    shape = base.shape
    return {
        "classes": tuple(replace(base, shape=replace(shape, classes=n)) for n in ((2, 3) if quick else (10, 100, 200))),
        "IPC": tuple(replace(base, ipc=n) for n in ((1, 2) if quick else (1, 10, 50))),
        "size": tuple(replace(base, shape=replace(shape, size=n)) for n in ((28, 32) if quick else (28, 32, 64))),
        "real batch": tuple(replace(base, batch_real=n) for n in ((4, 8) if quick else (16, 32, 128))),
    }


def named(setting: Setting) -> str:
    shape = setting.shape
    return f"{shape.classes} classes, IPC {setting.ipc}, size {shape.size}, n={setting.batch_real}"


def contest(scene: Scene) -> Contest:
    series = growing(QUICK if scene.quick else BASE, scene.quick)
    compared = "seconds" if scene.cuda else PROCESSOR

    def measured(step_of: Callable[[], Callable[[], object]]) -> Measure:
        step = step_of()
        before = used_bytes(scene.device)

        def measure() -> dict[str, float]:
            step()  # heaps and caches settle
            spent = of_processor(step, scene.device)
            return {**spent, ADDED: float(max(before, peak_bytes(scene.device)) - before)}

        return measure

    def of_theirs(setting: Setting) -> Measure:
        return measured(lambda: official("DM", "instance", setting, scene.device).step)

    def of_ours(setting: Setting) -> Measure:
        return measured(lambda: ours("DM", "instance", "tf32" if scene.cuda else "fp32", setting, scene.device))

    forms, ratios = [], []
    for setting in dict.fromkeys(setting for one in series.values() for setting in one):
        name = named(setting)
        forms.append(Form(f"{name}, official", partial(of_theirs, setting), OFFICIAL, fresh=True))
        forms.append(Form(name, partial(of_ours, setting), fresh=True))
        ratios.append((f"{name}, official", name))

    def figures(results: Results) -> dict[str, float]:
        found = {}
        for what, settings in series.items():
            for side in (", official", ""):
                for quantity, unit in ((compared, "time"), (ADDED, "memory")):
                    first, last = (middle(results, named(one) + side, quantity) for one in (settings[0], settings[-1]))
                    if first:
                        found[f"{what}{side or ', ours'}: {unit} of the last over the first"] = last / first
        return found

    return Contest(tuple(forms), tuple(ratios), compared=compared, figures=figures, most_rounds=2)
