"""Peak memory of an iteration of DM and DataDAM, ours and the official form, each in a process of its own.

On a CPU the resident memory of the process, and how much of it was there before the first iteration (Python, torch, the
images); on a GPU what torch's allocator gave out.
"""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from benchmarks.contest import DEFAULT, KEPT, OFFICIAL, Contest, Form, Measure, Scene
from benchmarks.distil import CASES, QUICK, Setting, modes, official, ours
from benchmarks.images import MNIST

PEAK, BEFORE, ADDED = "peak bytes", "bytes before", "bytes added"


def used_bytes(device: str) -> int:
    return int(psutil.Process().memory_info().rss) if device == "cpu" else torch.cuda.memory_allocated(device)


def peak_bytes(device: str) -> int:
    """Since the process began."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process was before it became this program
        return next(
            int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:")
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def contest(scene: Scene) -> Contest:
    setting = QUICK if scene.quick else Setting(MNIST, 256)

    def after_steps(step_of: Callable[[], Callable[[], object]]) -> Callable[[], Measure]:
        def prepare() -> Measure:
            step = step_of()
            before = used_bytes(scene.device)

            def measure() -> dict[str, float]:
                for _ in range(2):
                    step()
                peak = max(before, peak_bytes(scene.device))  # the kernel counts the two at different moments
                return {PEAK: float(peak), BEFORE: float(before), ADDED: float(peak - before)}

            return measure

        return prepare

    def the_official(method: str, norm: str) -> Callable[[], Measure]:
        return after_steps(lambda: official(method, norm, setting, scene.device).step)

    def of_ours(method: str, norm: str, mode: str) -> Callable[[], Measure]:
        return after_steps(lambda: ours(method, norm, mode, setting, scene.device))

    forms, ratios = [], []
    for method, norm in CASES:
        what = f"{setting.label} {method}{' BatchNorm' if norm == 'batch' else ''}"
        baselines = []
        for allocator in scene.allocators:
            name = f"{what}, official{'' if allocator == KEPT else f' {DEFAULT}'}"
            baselines.append(name)
            forms.append(Form(name, the_official(method, norm), OFFICIAL, allocator, fresh=True))
        for mode in modes(scene)[:2]:
            name = f"{what}, {mode}"
            forms.append(Form(name, of_ours(method, norm, mode), fresh=True))
            ratios += [(baseline, name) for baseline in baselines]
    return Contest(tuple(forms), tuple(ratios), compared=PEAK, most_rounds=1)
