"""One iteration of MTT, ours and the official form: a student's steps there and back, and what the set learns of them.

Ours is measured as it is by default (the graphs of all steps kept), with none of them kept, which gives the same
gradient in less memory, and as TESLA, which gives another one. Each form has a process of its own, so that its peak of
memory is its own: on a CPU the resident memory of the process, of which «bytes added» came with the iterations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.contest import KEPT, OFFICIAL, Contest, Form, Measure, Scene, timed
from benchmarks.distil import policy, precisions, problem_of
from benchmarks.images import CIFAR10, MNIST, TINY, Shape
from benchmarks.memory import ADDED, PEAK, peak_bytes, used_bytes
from benchmarks.official import EPOCHS, Following
from dambench.core.config import read
from dambench.matching.experts import Trajectories
from dambench.matching.optimised import LearnedImages
from dambench.matching.trajectories import Options, TrajectoryMatching

MEMORY = ("unrolled", "checkpointed", "tesla")


@dataclass(frozen=True)
class Setting:
    shape: Shape
    ipc: int
    steps: int
    """Of a student."""
    width: int = 128

    @property
    def label(self) -> str:
        return f"{self.shape.name} IPC {self.ipc} N={self.steps} w{self.width}"


QUICK = (Setting(TINY, 2, 3, width=4),)
SETTINGS = {
    "cpu": (Setting(MNIST, 1, 10, width=32), Setting(CIFAR10, 1, 10)),
    "cuda": (Setting(MNIST, 10, 30), Setting(CIFAR10, 1, 50), Setting(CIFAR10, 10, 30)),
}
"""By kind of device. N is the authors' for CIFAR-10, on a GPU."""


def ours(setting: Setting, memory: str, precision: str, device: str) -> Callable[[], object]:
    """What takes the next iteration each time it is called."""
    name = f"convnet-d3-w{setting.width}"
    how = policy(precision, device)
    problem = problem_of(setting.shape, setting.ipc, name, how)
    asked = {
        "iterations": 10**9,
        "epochs": EPOCHS,
        "expert_epochs": 1,
        "max_start": EPOCHS,
        "steps": setting.steps,
        "lr_lr": 1e-7,
        "memory": memory,
    }
    options = read(Options, asked, "mtt")
    network = problem.new_network(1)
    first = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).cpu()
    walk = torch.cat([first.unsqueeze(0), 0.01 * torch.randn(EPOCHS, len(first))]).cumsum(0)
    experts = Trajectories("", [walk], network, how.device)
    images = LearnedImages(problem, "real", options.lr_images, options.momentum_images, None)
    matching = TrajectoryMatching(problem, images, experts, options)

    def step() -> None:
        for _ in matching.step():
            pass

    return step


def official(setting: Setting, device: str) -> Callable[[], object]:
    following = Following(setting.shape, ipc=setting.ipc, steps=setting.steps, width=setting.width, device=device)
    return following.step


def contest(scene: Scene) -> Contest:
    repeats = 10 if scene.cuda and not scene.quick else 1
    forms: list[Form] = []
    ratios: list[tuple[str, str]] = []

    def measured(make: Callable[[], Callable[[], object]]) -> Callable[[], Measure]:
        def prepare() -> Measure:
            step = make()
            before = used_bytes(scene.device)
            for _ in range(1 if scene.quick else 4):  # on a GPU, ours is recorded in the last
                step()

            def measure() -> dict[str, float]:
                seconds = timed(step, scene.device, repeats)
                peak = max(before, peak_bytes(scene.device))
                return seconds | {PEAK: float(peak), ADDED: float(peak - before)}

            return measure

        return prepare

    for setting in QUICK if scene.quick else SETTINGS["cuda" if scene.cuda else "cpu"]:
        baseline = f"{setting.label}, official"
        forms.append(Form(baseline, measured(partial(official, setting, scene.device)), OFFICIAL, KEPT, fresh=True))
        for memory in MEMORY:
            name = f"{setting.label}, {memory}"
            make = partial(ours, setting, memory, precisions(scene)[0], scene.device)
            forms.append(Form(name, measured(make), fresh=True))
            ratios.append((baseline, name))
    return Contest(tuple(forms), tuple(ratios))
