"""The official form: how the released codes of DM, DataDAM, DC, DSA and MTT compute, written anew from their maths.

Nothing here is fast on purpose or slow on purpose. It is the plain way to write these methods, operation by operation
as the released codes go about it, for contests between forms of the same maths (a test sees to that). It is not the
released programs: what surrounds an iteration there (reading every image through PIL, logging) is left out, and what
today's torch refuses is mended (`reshape` for `view`: the shift of augmentation gives a permuted layout).

* All real images lie in memory as normalised float32; a class's indices are a list, permuted whole for each draw.
* Each iteration builds a new ConvNet, weights frozen, in train mode.
* Augmentation is DSA's: class after class, with a seed from the clock, torch's global generator seeded anew before each
  number; affine matrices are lists made on the host, one matrix per image.
* DC and DSA take the gradients of all weights, class after class, and keep the graphs of all classes for one backward.
* DM passes each class through the network by itself, except with BatchNorm; DataDAM concatenates all classes, and hooks
  copy the output of each ReLU. Its distances are computed on the CPU, and on CUDA it empties torch's cache of memory
  after each iteration.
* MTT's student has its weights in one vector, which every forward pass cuts up and hands to the modules. All its steps
  are one graph, and so is what they do to the images and to the learning rate. Experts lie in the host's memory, as
  lists of parameters.
* Losses are read after each iteration.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.images import Shape, floats, labels

# The network.


class ConvNet(nn.Module):
    """Blocks of 3×3 convolution, norm, ReLU and 2×2 average pooling in one flat sequence, and a linear layer."""

    def __init__(self, channels: int, size: int, classes: int, width: int, norm: str, depth: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(depth):
            padding = 3 if block == 0 and size == 28 else 1
            layers += [
                nn.Conv2d(channels if block == 0 else width, width, 3, padding=padding),
                nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(width, width),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
            size = (size + 2 * padding - 2) // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * size * size, classes)
        self.mixes = norm == "batch"

    def embed(self, images: Tensor) -> Tensor:
        """What the classifier reads: (B, D)."""
        maps: Tensor = self.features(images)
        return maps.reshape(maps.size(0), -1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding and the logits."""
        embedding = self.embed(images)
        return embedding, self.classifier(embedding)


def new_network(shape: Shape, width: int, norm: str, device: str) -> ConvNet:
    return ConvNet(shape.channels, shape.size, shape.classes, width, norm).to(device).train()


# Augmentation: images (B, C, H, W), one operation for all of them.


class Draws:
    """Random numbers for a batch of images.

    Args:
        seed: of the Siamese way: the global generator is seeded before each draw, and the first image's number is
            given to all. None: each image has its own.
    """

    def __init__(self, count: int, seed: int | None = None):
        self.count = count
        self.seed = seed

    def uniform(self, device: torch.device | str) -> Tensor:
        """(count,) numbers in [0, 1)."""
        if self.seed is None:
            return torch.rand(self.count, device=device)
        torch.manual_seed(self.seed)
        self.seed += 1
        numbers = torch.rand(self.count, device=device)
        numbers[:] = numbers[0].clone()
        return numbers


def color(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, saturation, contrast."""
    images = images + (draws.uniform(images.device).view(-1, 1, 1, 1) - 0.5)
    mean = images.mean(1, keepdim=True)
    images = (images - mean) * (draws.uniform(images.device).view(-1, 1, 1, 1) * 2) + mean
    mean = images.mean([1, 2, 3], keepdim=True)
    return (images - mean) * (draws.uniform(images.device).view(-1, 1, 1, 1) + 0.5) + mean


def crop(images: Tensor, draws: Draws) -> Tensor:
    """Shift by whole pixels: every pixel is gathered from its place in the padded images."""
    count, _, height, width = images.shape
    most = (int(height * 0.125 + 0.5), int(width * 0.125 + 0.5))
    down, across = ((draws.uniform(images.device) * (2 * m + 1)).floor().long().view(-1, 1, 1) for m in most)
    batch, rows, columns = _places(count, height, width, images.device)
    padded = F.pad(images, [most[1], most[1], most[0], most[0]])
    return padded.permute(0, 2, 3, 1).contiguous()[batch, rows + down, columns + across].permute(0, 3, 1, 2)


def cutout(images: Tensor, draws: Draws) -> Tensor:
    """Blank a square, which may hang over the border."""
    count, _, height, width = images.shape
    sides = (int(height * 0.5 + 0.5), int(width * 0.5 + 0.5))
    offsets = [
        (draws.uniform(images.device) * (size + 1 - side % 2)).floor().long().view(-1, 1, 1)
        for size, side in zip((height, width), sides, strict=True)
    ]
    batch, rows, columns = _places(count, *sides, images.device)
    rows = torch.clamp(rows + offsets[0] - sides[0] // 2, min=0, max=height - 1)
    columns = torch.clamp(columns + offsets[1] - sides[1] // 2, min=0, max=width - 1)
    mask = torch.ones(count, height, width, dtype=images.dtype, device=images.device)
    mask[batch, rows, columns] = 0
    return images * mask.unsqueeze(1)


def flip(images: Tensor, draws: Draws) -> Tensor:
    return torch.where(draws.uniform(images.device).view(-1, 1, 1, 1) < 0.5, images.flip(3), images)


def scale(images: Tensor, draws: Draws) -> Tensor:
    across, down = (draws.uniform("cpu") * (1.2 - 1 / 1.2) + 1 / 1.2 for _ in range(2))
    return _affine(images, [[[across[i], 0, 0], [0, down[i], 0]] for i in range(len(images))])


def rotate(images: Tensor, draws: Draws) -> Tensor:
    angles = (draws.uniform("cpu") - 0.5) * 2 * 15 / 180 * float(np.pi)
    theta = [[[torch.cos(a), torch.sin(a), 0], [-torch.sin(a), torch.cos(a), 0]] for a in angles]
    return _affine(images, theta)


def _places(count: int, height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    """The three coordinates of every pixel of every image, (count, height, width) each."""
    ranges = [torch.arange(size, device=device) for size in (count, height, width)]
    return torch.meshgrid(*ranges, indexing="ij")


def _affine(images: Tensor, theta: list[Any]) -> Tensor:
    grid = F.affine_grid(torch.tensor(theta, dtype=torch.float32), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images), align_corners=False)


OPERATIONS: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


def strategy(shape: Shape) -> tuple[str, ...]:
    """Without flip where a mirror image is another class."""
    return tuple(name for name in OPERATIONS if shape.mirrors or name != "flip")


def augmented(images: Tensor, operations: tuple[str, ...], seed: int | None = None) -> Tensor:
    """One random operation; with a seed it and its numbers follow from the seed and are the same for all images."""
    if seed is not None:
        np.random.seed(seed)  # noqa: NPY002 – as the released codes do
    operation = operations[np.random.randint(len(operations))]  # noqa: NPY002
    return OPERATIONS[operation](images, Draws(len(images), seed))


# The losses, of the images of each class: (real (n, C, H, W), synthetic (ipc, C, H, W)), augmented.

Pair = tuple[Tensor, Tensor]


def dm_loss(network: ConvNet, pairs: Iterable[Pair]) -> Tensor:
    """Σ_c ‖mean ψ(real_c) − mean ψ(synthetic_c)‖², ψ the embedding."""
    if network.mixes:
        real, synthetic = zip(*pairs, strict=True)
        of_real = network.embed(torch.cat(real)).detach()
        of_synthetic = network.embed(torch.cat(synthetic))
        return torch.sum((_class_means(of_real, len(real)) - _class_means(of_synthetic, len(real))) ** 2)
    loss = torch.tensor(0.0)
    for index, (of_class, synthetic_of_class) in enumerate(pairs):
        of_real = network.embed(of_class).detach()
        of_synthetic = network.embed(synthetic_of_class)
        part = torch.sum((torch.mean(of_real, dim=0) - torch.mean(of_synthetic, dim=0)) ** 2)
        loss = part if index == 0 else loss + part
    return loss


def datadam_loss(network: ConvNet, pairs: Iterable[Pair], balance: float = 0.01) -> Tensor:
    """100 · Σ_layers but the last Σ_c ‖mean z(real_c) − mean z(synthetic_c)‖² + 100 · balance · DM's loss.

    z is the attention map of a ReLU's output as a vector of length 1.
    """
    seen: list[Tensor] = []
    for layer in network.features:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda module, given, output: seen.append(output.clone()))
    real, synthetic = zip(*pairs, strict=True)
    classes = len(real)
    embedding_of_real, _ = network(torch.cat(real))
    of_real = [maps.detach() for maps in seen]
    seen.clear()
    embedding_of_synthetic, _ = network(torch.cat(synthetic))
    of_synthetic = list(seen)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return torch.sum((_class_means(a, classes).cpu() - _class_means(b, classes).cpu()) ** 2)

    attention_part = torch.zeros((), dtype=embedding_of_real.dtype)
    for ours, theirs in zip(of_real[:-1], of_synthetic[:-1], strict=True):
        attention_part = attention_part + distance(attention(ours), attention(theirs))
    return 100 * attention_part + 100 * balance * distance(embedding_of_real.detach(), embedding_of_synthetic)


def attention(maps: Tensor, power: int = 1) -> Tensor:
    """(n, C, H, W) → (n, H * W), each of length 1."""
    strength = torch.sum(torch.pow(torch.abs(maps), power), dim=1)
    return F.normalize(strength.view(strength.size(0), -1), p=2.0, dim=1)


def _class_means(vectors: Tensor, classes: int) -> Tensor:
    """(classes * n, D) → (classes, D)."""
    return torch.mean(vectors.reshape(classes, -1, vectors.shape[1]), dim=1)


def dc_loss(network: ConvNet, pairs: Iterable[Pair]) -> Tensor:
    """Σ_c Σ_layers Σ_rows 1 − cosine of the gradients of the class's real and synthetic images."""
    weights = list(network.parameters())
    loss = torch.tensor(0.0)
    for label, (real, synthetic) in enumerate(pairs):
        _, logits = network(real)
        truth = torch.full((len(real),), label, device=real.device)
        of_real = [slope.detach().clone() for slope in torch.autograd.grad(F.cross_entropy(logits, truth), weights)]
        _, logits = network(synthetic)
        truth = torch.full((len(synthetic),), label, device=real.device)
        of_synthetic = torch.autograd.grad(F.cross_entropy(logits, truth), weights, create_graph=True)
        for ours, theirs in zip(of_synthetic, of_real, strict=True):
            loss = loss + _apart(ours, theirs)
    return loss


def _apart(ours: Tensor, theirs: Tensor) -> Tensor | float:
    if ours.dim() == 1:  # a bias or the weight of a norm
        return 0.0
    a, b = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    return torch.sum(1 - torch.sum(a * b, dim=-1) / (torch.norm(a, dim=-1) * torch.norm(b, dim=-1) + 0.000001))


LOSSES: dict[str, Callable[[ConvNet, Iterable[Pair]], Tensor]] = {
    "DM": dm_loss,
    "DataDAM": datadam_loss,
    "DC": dc_loss,
    "DSA": dc_loss,
}


# What is timed.

BATCH = 256
"""Images of a step of training, and of a forward pass of the test."""


class Distillation:
    """DM or DataDAM on images in a dataset's shape; or an update of the images by DC or DSA, for a new network.

    Args:
        method: `DM`, `DataDAM`, `DC` or `DSA`.
        norm: `instance` or `batch`.
    """

    def __init__(self, method: str, shape: Shape, *, ipc: int, batch_real: int, width: int, norm: str, device: str):
        self.method = method
        self.ipc = ipc
        self.batch_real = batch_real
        self.shape = shape
        self.device = device
        self.images = floats(shape, device)
        self.indices = [list(range(c * shape.per_class, (c + 1) * shape.per_class)) for c in range(shape.classes)]
        self.operations = () if method == "DC" else strategy(shape)
        self.network = partial(new_network, shape, width, norm, device)
        start = torch.cat([self.real_of(c, ipc) for c in range(shape.classes)])
        self.synthetic = start.detach().clone().requires_grad_()
        self.optimizer = torch.optim.SGD([self.synthetic], lr=1.0, momentum=0.5)

    def real_of(self, label: int, count: int) -> Tensor:
        chosen = np.random.permutation(self.indices[label])[:count]  # noqa: NPY002 – as the released codes do
        return self.images[chosen]

    def pairs(self) -> Iterator[Pair]:
        """Class after class: real and synthetic images, augmented in the same way."""
        for label in range(self.shape.classes):
            real = self.real_of(label, self.batch_real)
            synthetic = self.synthetic[label * self.ipc : (label + 1) * self.ipc]
            if not self.operations:
                yield real, synthetic
                continue
            seed = int(time.time() * 1000) % 100_000
            yield augmented(real, self.operations, seed), augmented(synthetic, self.operations, seed)

    def loss(self) -> Tensor:
        network = self.network()
        for parameter in network.parameters():
            parameter.requires_grad = self.method in ("DC", "DSA")
        return LOSSES[self.method](network, self.pairs())

    def step(self) -> float:
        """One iteration; returns its loss."""
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.method == "DataDAM" and self.device != "cpu":
            torch.cuda.empty_cache()
        return loss.item()


class FlatNetwork(nn.Module):
    """A network that takes its weights from one vector."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.places = [
            (module, name, parameter.shape)
            for module in network.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]
        for module, name, _ in self.places:
            delattr(module, name)

    def forward(self, images: Tensor, flat: Tensor) -> Tensor:
        """The logits."""
        parts = torch.split(flat, [shape.numel() for _, _, shape in self.places])
        for (module, name, shape), part in zip(self.places, parts, strict=True):
            setattr(module, name, part.view(shape))
        logits: Tensor = self.network(images)[1]
        return logits


def trajectory_loss(
    network: FlatNetwork, start: Tensor, target: Tensor, lr: Tensor, batches: Iterable[tuple[Tensor, Tensor]]
) -> Tensor:
    """How far a student is from the target after steps on the batches of images and labels, as a share of before."""
    weights = [start.clone().requires_grad_()]
    for images, truth in batches:
        loss = F.cross_entropy(network(images, weights[-1]), truth)
        gradient = torch.autograd.grad(loss, weights[-1], create_graph=True)[0]
        weights.append(weights[-1] - lr * gradient)
    apart = F.mse_loss(weights[-1], target, reduction="sum") / len(target)
    before = F.mse_loss(weights[0].detach(), target, reduction="sum") / len(target)
    return apart / before


class Following:
    """MTT, from experts that went anywhere.

    Args:
        steps: of a student.
    """

    def __init__(self, shape: Shape, *, ipc: int, steps: int, width: int, device: str):
        self.shape, self.steps, self.device = shape, steps, device
        network = new_network(shape, width, "instance", device)
        walk = [[p.detach().cpu().clone() for p in network.parameters()]]
        for _ in range(EPOCHS):
            walk.append([p + 0.01 * torch.randn_like(p) for p in walk[-1]])
        self.expert = walk
        self.network = FlatNetwork(network)
        start = [floats(shape, device)[c * shape.per_class :][:ipc] for c in range(shape.classes)]
        self.images = torch.cat(start).clone().requires_grad_()
        self.truth = labels(shape.classes, len(self.images)).to(device)
        self.lr = torch.tensor(0.01, device=device).requires_grad_()
        self.operations = strategy(shape)
        self.optimizer = torch.optim.SGD([self.images], lr=100.0, momentum=0.5)
        self.of_lr = torch.optim.SGD([self.lr], lr=1e-7, momentum=0.5)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The set, shuffled for each step, augmented."""
        for _ in range(self.steps):
            chosen = torch.randperm(len(self.images), device=self.device)
            yield augmented(self.images[chosen], self.operations), self.truth[chosen]

    def step(self) -> float:
        """One iteration; returns its loss."""
        epoch = np.random.randint(EPOCHS)  # noqa: NPY002 – as the released codes do
        start, target = (
            torch.cat([p.to(self.device).reshape(-1) for p in self.expert[at]]) for at in (epoch, epoch + 1)
        )
        loss = trajectory_loss(self.network, start, target, self.lr, self.batches())
        self.optimizer.zero_grad()
        self.of_lr.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.of_lr.step()
        return loss.item()


EPOCHS = 4
"""Of the expert that is followed."""


class Training:
    """A network that is trained on a synthetic set, which fits one batch: an epoch is a step."""

    def __init__(self, shape: Shape, *, ipc: int, width: int, device: str):
        count = shape.classes * ipc
        self.images = floats(shape, device)[:count].clone()
        self.labels = labels(shape.classes, count).to(device)
        self.operations = strategy(shape)
        self.network = new_network(shape, width, "instance", device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def epoch(self) -> float:
        """Returns the accuracy of the epoch, which is counted on the host."""
        self.network.train()
        right = 0
        for chosen in torch.randperm(len(self.images)).split(BATCH):
            images = augmented(self.images[chosen], self.operations)
            _, logits = self.network(images)
            loss = F.cross_entropy(logits, self.labels[chosen])
            right += _right(logits, self.labels[chosen], loss)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return right / len(self.images)


def test(network: ConvNet, images: Tensor, truth: Tensor) -> float:
    """Accuracy on the test set, in evaluation mode. The graph for a gradient is recorded, since nobody says not to.

    The images are tensors: the released codes fetch each from a dataset, through PIL, which takes far longer.

    Args:
        images: (N, C, H, W) float32; truth: (N,) int64.
    """
    network.eval()
    right = 0
    for some, of_these in zip(images.split(BATCH), truth.split(BATCH), strict=True):
        _, logits = network(some)
        right += _right(logits, of_these, F.cross_entropy(logits, of_these))
    return right / len(images)


def _right(logits: Tensor, truth: Tensor, loss: Tensor) -> int:
    """How many are right, counted on the host; the loss is read too."""
    loss.item()
    return int(np.sum(np.equal(np.argmax(logits.detach().cpu().numpy(), axis=1), truth.cpu().numpy())))
