"""Train networks on one labelled set: the only such loop.

SGD with cross-entropy, as in the code of DC and its descendants; the protocol says for how long and with what.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dambench.augment import augment, draw, strategy_for
from dambench.problem import Network, Seeds, SyntheticSet
from dambench.protocol import Protocol

DEFAULT_LR = 0.01


def train(
    network: Network, data: SyntheticSet, protocol: Protocol, seeds: Seeds, *, mirrors: bool
) -> Iterator[tuple[int, int]]:
    """Draw the network's weights, then train it on the set for the protocol's budget, in place.

    Args:
        data: on the network's device.
        seeds: of this network. Weights, the order of the batches and their augmentation come from them.
        mirrors: whether a mirror image belongs to the same class.

    Yields:
        After each step, how many are done and how many there will be.
    """
    device = data.images.device
    budget = protocol.whole if data.whole else protocol.synthetic
    strategy = strategy_for(protocol.augmentation, mirrors)
    labels = data.hard_labels if protocol.labels == "hard" else data.labels
    if labels.is_floating_point():
        labels = labels.softmax(1)
    lr = (data.lr or DEFAULT_LR) if isinstance(protocol.lr, str) else protocol.lr
    network.reset(seeds.generator("weights", device=device))
    network.train()
    optimizer = _optimizer(network, protocol, lr)
    steps = -(-len(labels) // protocol.batch)
    for epoch in range(budget.epochs):
        if epoch in budget.drops:
            lr *= protocol.decay
            if protocol.keeps_momentum:
                optimizer.param_groups[0]["lr"] = lr
            else:
                optimizer = _optimizer(network, protocol, lr)
        order = torch.randperm(len(labels), generator=seeds.generator("order", epoch)).to(device)
        for index, chosen in enumerate(order.split(protocol.batch)):
            images = data.inputs(chosen)
            if strategy:
                generator = seeds.generator("augmentation", epoch, index)
                drawn = draw(strategy, len(chosen), generator, one_operation=True)
                images = augment(images.unsqueeze(1), drawn).squeeze(1)
            loss = F.cross_entropy(network(images), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield epoch * steps + index + 1, budget.epochs * steps


def _optimizer(network: Network, protocol: Protocol, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay)


@torch.inference_mode()
def predict(network: Network, data: SyntheticSet, batch: int) -> Tensor:
    """The network's logits for every image of a set, in evaluation mode: (N, classes) float32."""
    network.eval()
    indices = torch.arange(len(data.images), device=data.images.device)
    return torch.cat([network(data.inputs(chunk)) for chunk in indices.split(batch)])
