"""Networks trained on the real set. One is trained once, kept in DAMBENCH_HOME, and shared by all runs that ask for it.

A file is named by all that the weights depend on: the prepared data, the network, the recipe of training, the seed,
and the kind of arithmetic. What the runs of one seed ask for is one network; another seed has another, so that a
repetition repeats this choice too.
"""

from collections.abc import Generator, Iterator
from contextlib import suppress

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dambench import files
from dambench.events import Progressed
from dambench.problem import Network, Problem
from dambench.protocol import Budget, Protocol, identity
from dambench.train import train

FORMAT = 1
"""Of kept networks. Raise it when training changes: older ones are then trained anew."""


def recipe(epochs: int) -> Protocol:
    """How an expert is trained: SGD with momentum, no augmentation; the step size falls to a tenth half-way."""
    budget = Budget(epochs=epochs, drops=(epochs // 2,) if epochs > 1 else ())
    return Protocol(name="expert", synthetic=budget, whole=budget, keeps_momentum=True)


def expert(problem: Problem, how: Protocol) -> Generator[Progressed, None, Network]:
    """The problem's network, trained on all its real images for the protocol's whole-set budget.

    Yields:
        How far it is, after each step.

    Returns:
        The `Network`, in evaluation mode, its weights frozen: `network = yield from expert(…)`.
    """
    network = problem.build_network().to(problem.device)
    path = files.expert_path(_key(problem, network, how))
    weights = dict[str, Tensor]()
    with suppress(OSError, safetensors.SafetensorError):  # what is damaged is trained again
        weights = safetensors.torch.load_file(path)
    if weights:
        network.load_state_dict(weights)
    else:
        whole = problem.whole_set()
        note = "training on the real images"
        for done, total in train(network, whole, how, problem.seeds.child("expert"), mirrors=problem.card.mirrors):
            yield Progressed(phase="distil", done=done, total=total, note=note)
        kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
        with files.writing("The network that was trained on the real images", path.parent, files.HOME_HINT):
            files.write_whole(path, safetensors.torch.save(kept))
    return network.requires_grad_(False).eval()


def _key(problem: Problem, network: Network, how: Protocol) -> str:
    policy = problem.policy
    said = [
        FORMAT,
        problem.card.sha256,
        problem.real.normalisation,
        str(network),
        identity(how, but=("name", "source")),
        problem.seeds.seed,
        policy.device.type,
        policy.precision,
    ]
    return files.digest(repr(said).encode())


@torch.inference_mode()
def features_of_each_class(problem: Problem, network: Network) -> Iterator[Tensor]:
    """What the network's classifier reads of each real image, class after class: (n, D) float32, on the device."""
    real = problem.real
    batch = problem.policy.test_batch(problem.card.height * problem.card.width)
    for images in real.images.split(list(real.counts)):
        yield torch.cat([network.embed(real.normalisation.apply(part)) for part in images.split(batch)])
