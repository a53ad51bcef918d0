"""The official form of DANCE and NCFM: how their released codes compute, written anew from their maths.

As in `benchmarks.official`, nothing is fast on purpose or slow on purpose. Images are plain pixels, clamped at the
beginning of an iteration, and mosaics of 2 × 2, which are decoded and normalised for each look. Weights between a
network's beginning and its end are put together parameter by parameter. Then class after class: real images and decoded
synthetic ones are augmented together (colour, crop, cutout), the matching loss is taken, and the optimiser takes a
step; then class after class again for the cross-entropy under the network's end. Losses and the length of the gradient
are read after each step, as these codes log them.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.images import MEAN, STD, Shape, pixels
from benchmarks.official import ConvNet, Draws, color, crop, cutout, new_network

FACTOR = 2


def dance_loss(network: ConvNet, real: Tensor, synthetic: Tensor) -> Tensor:
    """‖mean f(real) − mean f(synthetic)‖², of a class, f what the classifier reads."""
    of_real = network.embed(real).detach()
    of_synthetic = network.embed(synthetic)
    return torch.sum((torch.mean(of_real, dim=0) - torch.mean(of_synthetic, dim=0)) ** 2)


def ncfm_loss(network: ConvNet, real: Tensor, synthetic: Tensor, frequencies: Tensor) -> Tensor:
    """300 · mean_k √(½ (|φ_r| − |φ_s|)² + (|φ_r| |φ_s| − Re φ_r φ_s*)), of a class."""
    with torch.no_grad():
        of_real = F.normalize(network.embed(real), dim=1)
    of_synthetic = F.normalize(network.embed(synthetic), dim=1)
    parts = []
    for features in (of_synthetic, of_real):
        # Each is multiplied out twice, as there.
        cosine = torch.mean(torch.cos(torch.matmul(frequencies, features.t())), dim=1)
        sine = torch.mean(torch.sin(torch.matmul(frequencies, features.t())), dim=1)
        parts.append((cosine, sine, torch.sqrt(torch.mul(cosine, cosine) + torch.mul(sine, sine))))
    (cosine, sine, length), (real_cosine, real_sine, real_length) = parts
    amplitude = torch.mul(real_length - length, real_length - length)
    phase = 2 * (torch.mul(real_length, length) - torch.mul(cosine, real_cosine) - torch.mul(sine, real_sine))
    return 300 * torch.mean(torch.sqrt(0.5 * amplitude + 0.5 * phase.clamp(min=1e-12)))


def decoded(mosaics: Tensor) -> Tensor:
    """Quarters of images (n, C, H, W), enlarged bilinearly: (4n, C, H, W)."""
    half = mosaics.shape[2] // FACTOR
    quarters = [mosaics[:, :, r : r + half, c : c + half] for r in (0, half) for c in (0, half)]
    return F.interpolate(torch.cat(quarters), size=mosaics.shape[2:], mode="bilinear", align_corners=False)


class Condensation:
    """DANCE or NCFM on images in a dataset's shape.

    Args:
        method: `DANCE` or `NCFM`.
    """

    def __init__(
        self, method: str, shape: Shape, *, ipc: int, batch_real: int, width: int, frequencies: int, device: str
    ):
        self.method, self.shape, self.ipc, self.batch_real = method, shape, ipc, batch_real
        self.frequencies, self.device = frequencies, device
        self.images = pixels(shape).float().div(255).to(device)
        self.begun, self.trained, self.between = (new_network(shape, width, "instance", device) for _ in range(3))
        for network in (self.begun, self.trained, self.between):
            network.requires_grad_(False)
        start = torch.cat([self.real_of(c, ipc) for c in range(shape.classes)])
        self.synthetic = start.clone().requires_grad_()
        self.optimizer: torch.optim.Optimizer
        if method == "NCFM":
            self.optimizer = torch.optim.AdamW([self.synthetic], lr=0.01, weight_decay=5e-4)
        else:
            self.optimizer = torch.optim.SGD([self.synthetic], lr=0.01 * ipc, momentum=0.5)

    def real_of(self, label: int, count: int) -> Tensor:
        indices = np.arange(label * self.shape.per_class, (label + 1) * self.shape.per_class)
        return self.images[np.random.permutation(indices)[:count]]  # noqa: NPY002 – as the released codes do

    def augmented(self, images: Tensor) -> Tensor:
        images = (images - MEAN) / STD
        draws = Draws(len(images), int(np.random.randint(100_000)))  # noqa: NPY002
        for operation in (color, crop, cutout):
            images = operation(images, draws)
        return images

    def step(self) -> float:
        """One iteration; returns its loss."""
        share = float(np.random.rand())  # noqa: NPY002
        networks = (self.between.parameters(), self.begun.parameters(), self.trained.parameters())
        for parameter, first, last in zip(*networks, strict=True):
            parameter.data = share * first.data + (1 - share) * last.data
        self.synthetic.data = torch.clamp(self.synthetic.data, min=0.0, max=1.0)
        return sum(self._each_class(self._matching)) + sum(self._each_class(self._calibration))

    def _each_class(self, loss_of: Callable[[int], Tensor]) -> list[float]:
        losses = []
        for label in range(self.shape.classes):
            loss = loss_of(label)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            assert self.synthetic.grad is not None
            torch.norm(self.synthetic.grad).item()
            losses.append(loss.item())
        return losses

    def _shown(self, label: int) -> Tensor:
        return decoded(self.synthetic[label * self.ipc : (label + 1) * self.ipc])

    def _matching(self, label: int) -> Tensor:
        both = self.augmented(torch.cat([self.real_of(label, self.batch_real), self._shown(label)]))
        real, synthetic = both[: self.batch_real], both[self.batch_real :]
        if self.method == "DANCE":
            return dance_loss(self.between, real, synthetic)
        frequencies = torch.randn(self.frequencies, self.between.classifier.in_features, device=self.device)
        return ncfm_loss(self.between, real, synthetic, frequencies)

    def _calibration(self, label: int) -> Tensor:
        shown = self.augmented(self._shown(label))
        _, logits = self.trained(shown)
        return F.cross_entropy(logits, torch.full((len(shown),), label, device=self.device))
