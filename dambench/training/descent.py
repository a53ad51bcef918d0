"""Steps of SGD and AdamW by torch's own functions, bit for bit what its optimisers do.

The first of those imports torch's compiler, which takes longer than to train a network on ten images. As theirs, a step
leaves parameters alone that have no gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


class Sgd:
    """SGD with momentum and weight decay."""

    def __init__(self, parameters: Sequence[Tensor], momentum: float, weight_decay: float):
        self._parameters = list(parameters)
        self._momentum, self._weight_decay = momentum, weight_decay
        self.forget()

    def forget(self) -> None:
        """Begin anew, without what earlier steps have left."""
        self._buffers: list[Tensor | None] = [None for _ in self._parameters]

    def step(self, lr: float) -> None:
        places, parameters, slopes = _with_gradients(self._parameters)
        buffers = [self._buffers[place] for place in places]
        with torch.no_grad():
            sgd(
                parameters,
                slopes,
                buffers,
                weight_decay=self._weight_decay,
                momentum=self._momentum,
                lr=lr,
                dampening=0,
                nesterov=False,
                maximize=False,
            )
        for place, buffer in zip(places, buffers, strict=True):
            self._buffers[place] = buffer


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, parameters: Sequence[Tensor], betas: tuple[float, float], eps: float, weight_decay: float):
        self._parameters = list(parameters)
        self._betas, self._eps, self._weight_decay = betas, eps, weight_decay
        self.forget()

    def forget(self) -> None:
        """Begin anew, without what earlier steps have left."""
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.tensor(0.0) for _ in self._parameters]

    def step(self, lr: float) -> None:
        places, parameters, slopes = _with_gradients(self._parameters)
        with torch.no_grad():
            adamw(
                parameters,
                slopes,
                [self._means[place] for place in places],
                [self._squares[place] for place in places],
                [],
                [self._steps[place] for place in places],
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=lr,
                weight_decay=self._weight_decay,
                eps=self._eps,
                maximize=False,
            )


def _with_gradients(parameters: Sequence[Tensor]) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """The places of the parameters that have gradients, the parameters, and their gradients."""
    found = [(place, each, each.grad) for place, each in enumerate(parameters) if each.grad is not None]
    return [place for place, _, _ in found], [each for _, each, _ in found], [slope for _, _, slope in found]
