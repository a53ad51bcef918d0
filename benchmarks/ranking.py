"""Many small networks, as a ranking trains them: one after another or side by side; seconds for all, on a CPU.

Six of the 720 ConvNets on images of 8×8, each trained on 100 and on 1,300 of them. (On a GPU a ranking trains one
after another, and this is measured on its host.)
"""

import os
from collections.abc import Callable

import msgspec
import torch

from benchmarks.contest import Contest, Form, Measure, Scene, timed
from benchmarks.images import Shape, card, labels, normalisation, pixels
from dambench import networks
from dambench.core.protocol import Budget, preset
from dambench.evaluators._rankings import TrainingArm, TrainingCrew, TrainingTask, can_be_built
from dambench.evaluators._search_space import convnets, stratified
from dambench.training.policy import Policy
from dambench.training.problem import Seeds, SyntheticSet
from dambench.training.train import train

DIGITS = Shape("digits", 1, 8, 130, mirrors=False, tests=287)
FEW = Shape("few digits", 1, 8, 4, mirrors=False, classes=3, tests=10)
NETWORKS = 6
CPU = torch.device("cpu")


def tasks(shape: Shape, count: int) -> tuple[list[TrainingTask], SyntheticSet]:
    """What is to be trained, and the held-out images."""
    protocol = msgspec.structs.replace(
        preset("quick"), synthetic=Budget(epochs=1 if shape is FEW else 20), whole=Budget(epochs=1)
    )
    names = [one.name for one in stratified(convnets(64), 36, 0) if can_be_built(one.name, card(shape))][:count]
    images, classes = pixels(shape), labels(shape.classes, shape.classes * shape.per_class)
    whole = SyntheticSet(images, classes, normalisation(shape), tuple(card(shape).classes), whole=True)
    few = torch.arange(0, len(images), max(1, len(images) // 100))[:100]
    small = SyntheticSet(images[few], classes[few], whole.preprocessing, whole.classes)
    arms = []
    for name, data in (("set", small), ("reference", whole)):
        budget = protocol.whole if data.whole else protocol.synthetic
        steps = budget.epochs * -(-len(data.images) // protocol.batch)
        arms.append(TrainingArm(name, data, protocol, Seeds(0), {"benchmark": name}, steps))
    held = SyntheticSet(pixels(shape, True), labels(shape.classes, shape.tests), whole.preprocessing, whole.classes)
    return [TrainingTask(name, arm, 1.0) for name in names for arm in arms], held


def contest(scene: Scene) -> Contest:
    shape, count = (FEW, 1) if scene.quick else (DIGITS, NETWORKS)
    threads = max(2, os.cpu_count() or 1)

    def by_crew(workers: int) -> Callable[[], Measure]:
        def prepare() -> Measure:
            todo, held = tasks(shape, count)
            policy = Policy(CPU, cores=workers)
            return lambda: timed(lambda: list(TrainingCrew(held, card(shape), policy, False, 1024).work(todo)), "cpu")

        return prepare

    def sharing() -> Measure:
        todo, _ = tasks(shape, count)

        def all_of_them() -> None:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            for task in todo:
                network = networks.build(task.network, card(shape))
                for _ in train(network, task.arm.data, task.arm.protocol, task.arm.seeds, mirrors=False):
                    pass
            torch.set_num_threads(before)

        return lambda: timed(all_of_them, "cpu")

    alone, beside = "one after another, one thread", f"side by side, {threads} threads of one each"
    shared = f"one after another, {threads} threads share each"
    forms = (Form(alone, by_crew(1)), Form(beside, by_crew(threads)), Form(shared, sharing))
    return Contest(forms, ((alone, beside), (shared, beside)))
