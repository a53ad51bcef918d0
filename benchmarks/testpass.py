"""Testing a network on 10,000 images: ours and the official form, both on tensors in memory."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks import official
from benchmarks.contest import OFFICIAL, Contest, Form, Measure, Scene, timed
from benchmarks.images import MNIST, TINY, Shape, card, floats, labels, normalisation, pixels
from dambench import networks
from dambench.training.policy import Policy
from dambench.training.problem import SyntheticSet
from dambench.training.train import predict

# Ours: all that this benchmark knows of dambench.


def ours(shape: Shape, width: int, device: str) -> Callable[[], object]:
    """What tests the network each time it is called: accuracy and loss."""
    policy = Policy(torch.device(device))
    policy.apply()
    network = networks.build(f"convnet-d3-w{width}", card(shape)).to(device)
    network.reset(torch.Generator(device).manual_seed(0))
    truth = labels(shape.classes, shape.tests).to(device)
    data = SyntheticSet(pixels(shape, True).to(device), truth, normalisation(shape), tuple(card(shape).classes))

    def test() -> tuple[float, float]:
        logits = predict(network, data, policy.test_batch(shape.size * shape.size))
        return F.cross_entropy(logits, truth).item(), int((logits.argmax(1) == truth).sum()) / len(truth)

    return test


# The contest.


def contest(scene: Scene) -> Contest:
    shape, width = (TINY, 4) if scene.quick else (MNIST, 128)

    def the_official() -> Measure:
        network = official.new_network(shape, width, "instance", scene.device)
        images, truth = floats(shape, scene.device, True), labels(shape.classes, shape.tests).to(scene.device)
        return lambda: timed(lambda: official.test(network, images, truth), scene.device)

    def of_ours() -> Measure:
        test = ours(shape, width, scene.device)
        return lambda: timed(test, scene.device)

    forms = (Form(f"w{width}, official", the_official, OFFICIAL), Form(f"w{width}, ours", of_ours))
    return Contest(forms, ((forms[0].name, forms[1].name),))
