"""What a method works on and what it gives back: RealSet, SyntheticSet, Network, Problem, Step."""

import hashlib
import json
import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dambench.core import files, reading
from dambench.core.config import PreprocessingName
from dambench.core.errors import BadInput
from dambench.core.events import Adapted, DataCard, Progressed, Warned
from dambench.core.sanitize import display
from dambench.training.policy import Policy
from dambench.training.ranks import Ranks

# What plug-ins may import: see docs/plugins.md.
__all__ = [
    "Network",
    "Normalisation",
    "Notice",
    "PhaseStarted",
    "Problem",
    "RealSet",
    "Stage",
    "State",
    "Step",
    "SyntheticSet",
]

SET_FORMAT = 1
MOST_SET_HEADER = 1_000_000
"""Bytes of the text at the beginning of a set's file."""
LEAST_STD = 1e-6
"""Smallest standard deviation of pixels in [0, 1]: what is divided by less would be more than any network can take."""
MOST_LR = 1000
"""A learning rate below which a set's own is."""
WHITENED_FORMAT = 2
"""Version of the format in which a set's whitening is a file of its own."""
EXTENDED_FORMAT = 3
"""Version of the format in which images may be mosaics, or have a teacher: who reads older ones
only would train on them as they lie."""
MOST_FACTOR = 8


def derived_seed(seed: int, purpose: str, *indices: int) -> int:
    """A seed in [0, 2^63) for one purpose: the same for the same words, unrelated for any others.

    Every random draw of a run comes from (run seed, purpose, iteration, index), so a resumed run needs to
    remember no generator, and no draw depends on how many were made before it.
    """
    words = json.dumps([seed, purpose, *indices]).encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Seeds:
    """The source of all generators. Nothing in dambench touches torch's global generator."""

    seed: int

    def generator(self, purpose: str, *indices: int, device: torch.device | str = "cpu") -> torch.Generator:
        return torch.Generator(device).manual_seed(derived_seed(self.seed, purpose, *indices))

    def child(self, purpose: str, *indices: int) -> "Seeds":
        return Seeds(derived_seed(self.seed, purpose, *indices))


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """These numbers on a device, (n,), not to be changed. They are moved there once: a move waits for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


@dataclass(frozen=True)
class Normalisation:
    """Pixels in [0, 255] → (x / 255 − mean) / std, per channel; what networks and methods see."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: Tensor) -> Tensor:
        """(…, C, H, W) uint8 → float32."""
        mean, std = self._columns(pixels)
        return (pixels.float() - 255 * mean) / (255 * std)

    def invert(self, images: Tensor) -> Tensor:
        """(…, C, H, W) float → uint8, clamped: for looking at, not for training."""
        mean, std = self._columns(images)
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (constant(values, torch.float32, like.device) for values in (self.mean, self.std))
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)


@dataclass(frozen=True)
class Whitening:
    """ZCA: pixels in [0, 255] → (x / 255 − μ) U diag(1 / √(S + ε)) Uᵀ, an image's pixels in a row.

    μ is the mean training image and U diag(S) Uᵀ the covariance of their pixels: afterwards neighbours tell nothing of
    each other, as far as their variance is above ε. MTT and those after it train on such images. As there nothing is
    normalised before; the covariance is divided by N − 1.
    """

    sha256: str
    """SHA-256 of its file, which stands for it: two with one digest are equal."""
    mean: Tensor = field(compare=False, repr=False)
    """(C · H · W,) float32, of pixels in [0, 1]."""
    matrix: Tensor = field(compare=False, repr=False)
    """(C · H · W, C · H · W) float32, symmetric."""
    inverse: Tensor = field(compare=False, repr=False)

    @classmethod
    def fit(cls, pixels: Tensor, epsilon: float = 0.1) -> bytes:
        """Compute a whitening, as its file. In float64 and on the CPU, whatever device the run is on.

        Args:
            pixels: (N, C, H, W) uint8, the training images.
        """
        rows = pixels.cpu().flatten(1)
        mean = torch.stack([part.double().sum(0) for part in rows.split(4096)]).sum(0) / len(rows) / 255
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for part in rows.split(4096):
            centred = part.double() / 255 - mean
            covariance.addmm_(centred.T, centred)
        values, vectors = torch.linalg.eigh(covariance / max(1, len(rows) - 1))
        lengths = (values.clamp_min(0) + epsilon).sqrt()
        kept = {"mean": mean, "matrix": vectors / lengths @ vectors.T, "inverse": vectors * lengths @ vectors.T}
        return safetensors.torch.save({name: tensor.float().contiguous() for name, tensor in kept.items()})

    @classmethod
    def read(cls, path: Path) -> "Whitening":
        """From a file that holds what `fit` gave.

        Raises:
            OSError, safetensors.SafetensorError, KeyError: it does not.
        """
        with reading.opened(path) as file:
            content = file.read()
        return cls(files.digest(content), **safetensors.torch.load(content))

    def to(self, device: torch.device) -> "Whitening":
        return replace(self, **{name: getattr(self, name).to(device) for name in ("mean", "matrix", "inverse")})

    def apply(self, pixels: Tensor) -> Tensor:
        """(…, C, H, W) uint8 → float32."""
        rows = pixels.flatten(-3).float() / 255 - self.mean.to(pixels.device)
        return (rows @ self.matrix.to(pixels.device)).view(pixels.shape)

    def invert(self, images: Tensor) -> Tensor:
        """(…, C, H, W) float → uint8, clamped: for looking at, not for training."""
        rows = images.flatten(-3).float() @ self.inverse.to(images.device) + self.mean.to(images.device)
        return (rows * 255).round().clamp(0, 255).to(torch.uint8).view(images.shape)


Preprocessing = Normalisation | Whitening
"""What is done to pixels before a network sees them."""


@dataclass(frozen=True)
class RealSet:
    """Real images, sorted by class, as bytes on the device."""

    images: Tensor
    """(N, C, H, W) uint8."""
    counts: tuple[int, ...]
    """Images of each class; class c's are those from sum(counts[:c]) on."""
    preprocessing: Preprocessing

    @property
    def classes(self) -> int:
        return len(self.counts)

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        classes = torch.arange(self.classes, device=self.images.device)
        return torch.repeat_interleave(classes, constant(self.counts, torch.int64, self.images.device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices of `count` random images of every class, all classes at once.

        Without replacement; a class that has fewer than `count` is drawn from with replacement.

        Returns:
            (classes, count) int64, on the generator's device.
        """
        device = generator.device
        sizes = constant(self.counts, torch.int64, device).unsqueeze(1)
        offsets = sizes.cumsum(0) - sizes
        # A random key for each image: the largest `count` keys of a class are a sample without replacement.
        width = max(count, max(self.counts))
        keys = torch.rand(self.classes, width, generator=generator, device=device)
        keys = keys.masked_fill(torch.arange(width, device=device) >= sizes, -1.0)
        chosen = keys.topk(count, dim=1).indices
        if min(self.counts) < count:
            uniform = torch.rand(self.classes, count, generator=generator, device=device)
            again = (uniform * sizes).long().clamp_max(sizes - 1)
            chosen = torch.where(sizes < count, again, chosen)
        return chosen + offsets

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` random images of every class, normalised: (classes, count, C, H, W) float32."""
        indices = self.draw(count, generator).to(self.images.device)
        return self.preprocessing.apply(self.images[indices])


def mosaic_fault(factor: int, height: int, width: int) -> str:
    """The reason why images of that size cannot be mosaics of factor × factor, as a clause; empty: they can."""
    if not 1 <= factor <= MOST_FACTOR:
        return f"its factor is {factor}, not from 1 to {MOST_FACTOR}"
    if height % factor or width % factor:
        return f"{height}×{width} images cannot be cut into {factor}×{factor} tiles of one size"
    return ""


def decode(images: Tensor, factor: int) -> Tensor:
    """Cut mosaics into factor × factor tiles, and enlarge each to the mosaic's size (IDC, ICML 2022).

    Bilinear, with the centres of corner pixels apart (`align_corners=False`): what is normalised stays normalised.

    Args:
        images: (…, n, C, H, W) floats.

    Returns:
        (…, n · factor², C, H, W), the tiles of an image one after the other, row by row; differentiable.
    """
    if factor == 1:
        return images
    *before, count, channels, height, width = images.shape
    tiles = images.reshape(-1, channels, factor, height // factor, factor, width // factor)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    large = F.interpolate(tiles, (height, width), mode="bilinear", align_corners=False)
    return large.view(*before, count * factor**2, channels, height, width)


def compose(images: Tensor, factor: int) -> Tensor:
    """Reduce images, each to the mean of factor × factor pixels, and lay them out as mosaics: `decode` the other way.

    Args:
        images: (n · factor², C, H, W) floats.

    Returns:
        (n, C, H, W).
    """
    return images if factor == 1 else lay_out(F.avg_pool2d(images, factor), factor)


def lay_out(tiles: Tensor, factor: int) -> Tensor:
    """Lay out tiles (n · factor², C, h, w) as mosaics, row by row: (n, C, h · factor, w · factor)."""
    count, channels, height, width = tiles.shape
    grid = tiles.view(count // factor**2, factor, factor, channels, height, width)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height * factor, width * factor)


class Teacher(NamedTuple):
    """The network whose labels a set is to be trained with; its file is kept by dambench.training.teachers."""

    network: str
    """Its name, in full."""
    sha256: str
    """SHA-256 of its file."""


class _About(msgspec.Struct, frozen=True):
    """The header of a set's file."""

    classes: list[str]
    lr: float | None
    mean: list[float] = []
    std: list[float] = []
    whitening: str = ""
    """SHA-256 of the file of a ZCA, where that is what was done to its images."""
    factor: int = 1
    teacher: Teacher | None = None
    held_out: str = ""


@dataclass(frozen=True)
class SyntheticSet:
    """A small set to train on. It explains itself: what its pixels mean, and how it wants to be trained on."""

    images: Tensor
    """(N, C, H, W), sorted by class: float32 as networks see them, or uint8 pixels of real images. As they are kept,
    counted and weighed; where `factor` is above 1, networks see what `decoded` makes of them."""
    labels: Tensor
    """(N,) int64 classes, or (N, classes) float32 logits of soft labels."""
    preprocessing: Preprocessing
    """What was done to the real images, and must be done to the test images."""
    classes: tuple[str, ...]
    lr: float | Tensor | None = None
    """The learning rate that was distilled with the images; while it is learned, a scalar on the device: a float would
    make it wait."""
    whole: bool = False
    """Whether this is every real image: trained on for the protocol's whole-set budget."""
    factor: int = 1
    """Each image is a mosaic of factor × factor tiles; 1: it is an image."""
    teacher: Teacher | None = None
    """Who labels it where the protocol takes the labels of a teacher; None: nobody can."""
    held_out: str = ""
    """SHA-256 of the places of the training images that it was made without; empty: of all, or not known."""

    def decoded(self) -> "SyntheticSet":
        """The set of factor 1 that networks are trained on: factor² images for each that is kept, of its label."""
        if self.factor == 1:
            return self
        images = decode(self.inputs(torch.arange(len(self.images), device=self.images.device)), self.factor)
        labels = self.labels.repeat_interleave(self.factor**2, 0)
        return replace(self, images=images, labels=labels, factor=1)

    @property
    def preprocessing_name(self) -> PreprocessingName:
        """The name of what was done to its images."""
        return "zca" if isinstance(self.preprocessing, Whitening) else "mean/std"

    @property
    def hard_labels(self) -> Tensor:
        """(N,) int64."""
        return self.labels if self.labels.dim() == 1 else self.labels.argmax(1)

    def inputs(self, indices: Tensor) -> Tensor:
        """Those images as networks see them: (n, C, H, W) float32."""
        images = self.images[indices]
        return self.preprocessing.apply(images) if images.dtype == torch.uint8 else images

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file. The same set gives the same bytes."""
        about: dict[str, Any] = {"classes": self.classes, "lr": None if self.lr is None else float(self.lr)}
        if isinstance(self.preprocessing, Whitening):
            about |= {"format": WHITENED_FORMAT, "whitening": self.preprocessing.sha256}
        else:
            about |= {"format": SET_FORMAT, "mean": self.preprocessing.mean, "std": self.preprocessing.std}
        if self.factor != 1:  # else it has the bytes, and so the hash, that it always had
            about |= {"format": EXTENDED_FORMAT, "factor": self.factor}
        if self.teacher is not None:
            about |= {"format": EXTENDED_FORMAT, "teacher": list(self.teacher)}
        if self.held_out:
            about["held_out"] = self.held_out
        tensors = {
            "images": self.images.detach().cpu().contiguous(),
            "labels": self.labels.cpu().contiguous(),
        }
        # One key: safetensors writes several in no fixed order.
        return safetensors.torch.save(tensors, {"dambench": json.dumps(about, sort_keys=True)})

    @classmethod
    def read(cls, path: Path) -> "SyntheticSet":
        """From a file that `to_bytes` made.

        Raises:
            BadInput: it is not such a file.
        """
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
                raise ValueError("it is not a file")
            with path.open("rb") as file:
                if int.from_bytes(file.read(8), "little") > MOST_SET_HEADER:
                    raise ValueError("it does not begin as one")
            with safetensors.safe_open(path, "pt") as tensors:
                header = json.loads(tensors.metadata()["dambench"])
                images, labels = tensors.get_tensor("images"), tensors.get_tensor("labels")
            if header["format"] not in (SET_FORMAT, WHITENED_FORMAT, EXTENDED_FORMAT):
                raise BadInput(f"The set {path.name!r} has format {header['format']}: a newer dambench made it.")
            about = msgspec.convert(header, _About)
            preprocessing: Preprocessing
            if about.whitening:
                preprocessing = _whitening_of(path, about.whitening)
            else:
                preprocessing = Normalisation(tuple(about.mean), tuple(about.std))
            loaded = cls(
                images,
                labels,
                preprocessing,
                tuple(about.classes),
                about.lr,
                factor=about.factor,
                teacher=about.teacher,
                held_out=about.held_out,
            )
            if fault := loaded.fault():
                raise ValueError(fault)
            return loaded
        except BadInput:
            raise
        except (
            OSError,
            safetensors.SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            raise BadInput(f"{str(path)!r} is not a synthetic set of dambench: {display(str(error))}.") from None

    def fault(self) -> str:
        """Its first fault, as a clause; empty: it has none."""
        images, labels, classes = self.images, self.labels, len(self.classes)
        if images.dim() != 4 or not images.numel() or images.dtype not in (torch.uint8, torch.float32):
            return f"its images are {images.dtype} of shape {tuple(images.shape)}"
        if not (labels.dtype == torch.int64 and labels.shape == images.shape[:1]) and not (
            labels.dtype == torch.float32 and labels.shape == (len(images), classes)
        ):
            return f"its labels are {labels.dtype} of shape {tuple(labels.shape)}"
        if fault := mosaic_fault(self.factor, *images.shape[2:]):
            return fault
        if self.factor > 1 and not isinstance(self.preprocessing, Normalisation):
            return "it is a mosaic of whitened images, whose tiles are no images"
        if self.lr is not None and not 0 <= self.lr < MOST_LR:
            return "its learning rate is no sensible number"
        if isinstance(self.preprocessing, Normalisation):
            means, stds = self.preprocessing.mean, self.preprocessing.std
            if {len(means), len(stds)} != {images.shape[1]}:
                return "it has another number of means than of channels"
            if not all(0 <= mean <= 1 for mean in means) or not all(LEAST_STD <= std <= 1 for std in stds):
                return "its means and standard deviations are none of pixels from 0 to 1"
        elif len(self.preprocessing.mean) != images[0].numel():
            return "it was whitened as images of another size"
        if not bool(images.isfinite().all() & labels.isfinite().all()):
            return "not all of its values are finite"
        if labels.dim() == 1 and not bool(((labels >= 0) & (labels < classes)).all()):
            return f"it has labels that are none of its {classes} classes"
        return ""

    def ipc_on(self, card: DataCard) -> int:
        """Images per class, if this is a set for that dataset.

        Raises:
            BadInput: it has other classes or sizes, more images than the dataset, or not as many of each class.
        """
        shape, expected = tuple(self.images.shape[1:]), (card.channels, card.height, card.width)
        if shape != expected:
            raise BadInput(f"The set's images are {shape} (C, H, W), those of {card.label} are {expected}.")
        if len(self.classes) != len(card.classes) or self.classes != tuple(card.classes):
            raise BadInput(f"The set's classes are not those of {card.label}: it was made from another dataset.")
        ipc, rest = divmod(len(self.images), len(card.classes))
        counts = self.hard_labels.bincount(minlength=len(card.classes)).tolist()
        if rest or not ipc or (self.labels.dim() == 1 and len(set(counts)) > 1):
            most, fewest = max(counts), min(counts)
            raise BadInput(
                f"The set has {len(self.images)} images, from {fewest} to {most} of a class: each of the "
                f"{len(card.classes)} classes of {card.label} needs as many."
            )
        if ipc > min(card.train_counts):
            raise BadInput(f"The set has {ipc} images per class, {card.label} itself has {min(card.train_counts)}.")
        return ipc


def _whitening_of(path: Path, sha256: str) -> Whitening:
    file = files.find_whitening(sha256)
    whitening = None if file is None else Whitening.read(file)
    if whitening is None or whitening.sha256 != sha256:
        raise BadInput(
            f"The set {path.name!r} was whitened by the ZCA {sha256[:12]}, without which it cannot be tested and which "
            f"is not in {str(files.data_folder())!r}: copy the file zca-….safetensors of that digest there."
        )
    return whitening


class Stage(NamedTuple):
    """One stage of a chain: the maps are activation(norm(convolution(x))), and the next stage gets pool(maps)."""

    convolution: nn.Conv2d
    norm: nn.Module
    activation: nn.Module
    pool: nn.Module


class Network(nn.Module, ABC):
    """A classifier whose feature maps can be read on the way."""

    classifier: nn.Linear

    num_levels: int
    """How many maps `iter_feature_maps` yields."""

    @property
    def nonnegative_features(self) -> bool:
        """Whether no map of a block has a negative value."""
        return False

    @property
    def stages(self) -> Sequence[Stage]:
        """The network as a chain; empty: it is none. `iter_feature_maps` yields the maps of each stage, then the last
        one pooled, and the statistics of batch norm can be had without all maps at once.
        """
        return ()

    @abstractmethod
    def iter_feature_maps(self, images: Tensor) -> Iterator[Tensor]:
        """Compute the maps of each block, shallow to deep, one after the other: none is kept alive for the next.

        Yields:
            The activations (B, C, H, W) of each block, before pooling; last, what the classifier reads, (B, …). A
            network without a sense of place yields the last only.
        """

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The list of what `iter_feature_maps` yields."""
        return list(self.iter_feature_maps(images))

    def iter_levels(self, images: Tensor, wanted: Collection[int]) -> Iterator[tuple[int, Tensor]]:
        """Compute the maps of some levels: what may be had faster where nobody wants the others.

        Yields:
            Level and maps, shallow to deep. Of these no gradient of a gradient can be taken.
        """
        for level, maps in enumerate(self.iter_feature_maps(images)):
            if level in wanted:
                yield level, maps

    def embed(self, images: Tensor) -> Tensor:
        """The features that the classifier reads, flattened: (B, features)."""
        last = images
        for maps in self.iter_feature_maps(images):
            last = maps
        return torch.flatten(last, 1)

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether an image's maps now depend on the others of its batch: batch norm in train mode."""
        return any(isinstance(module, nn.BatchNorm2d) and module.training for module in self.modules())

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        logits: Tensor = self.classifier(self.embed(images))
        return logits

    def forward_once(self, images: Tensor) -> Tensor:
        """Compute what `forward` does: what may be had faster where no gradient of its gradient will be taken."""
        logits: Tensor = self(images)
        return logits

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw all weights anew, in place, as torch's layers do by default.

        Weights and biases of convolutions and linear layers ~ U(±1/√fan_in); norms become the identity.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = 1 / math.sqrt(module.weight[0].numel())
                for parameter in module.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
                module.reset_parameters()


@dataclass
class Problem:
    """All that a method is given."""

    real: RealSet
    card: DataCard
    ipc: int
    seeds: Seeds
    build_network: Callable[[], Network]
    network: str = ""
    """The name of the network that it builds."""
    policy: Policy = field(default_factory=lambda: Policy(torch.device("cpu")))
    held_out: str = ""
    """SHA-256 of the places of the training images that `real` lacks; empty: it has all."""
    dry_run: bool = False
    """Whether only what things take is wanted: what would have to be trained for long may be anything."""
    ranks: Ranks | None = None
    """The processes that share the run, each with some of the classes; None: there is this one."""
    _network: Network | None = None

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def adapt(self, iteration: int, reason: str, setting: str, value: int) -> Iterator[Adapted]:
        """Compute otherwise from this iteration on: a field of the policy that does not change the maths."""
        self.policy = replace(self.policy, **cast(dict[str, Any], {setting: value}))
        yield Adapted(iteration=iteration, what=setting, value=int(value), reason=reason)

    def generator(self, purpose: str, *indices: int) -> torch.Generator:
        """A generator on the device, for one purpose at one iteration."""
        return self.seeds.generator(purpose, *indices, device=self.device)

    def new_network(self, iteration: int) -> Network:
        """The random network of this iteration, its weights frozen, in train mode.

        It is one module whose weights are drawn anew: the network of the call before is gone.
        """
        if self._network is None:
            self._network = self.build_network().to(self.device).requires_grad_(False)
        self._network.reset(self.generator("network", iteration))
        return self._network.train()

    def random_subset(self, factor: int = 1) -> Tensor:
        """IPC random real images per class as pixels, (classes * IPC, C, H, W) uint8: where most methods start.

        For one seed it is the same in every method, so a method is compared with its own starting point.

        Args:
            factor: above 1, each is composed of factor² of them, reduced and rounded.
        """
        pixels = self.real.images[self.subset_places(factor).flatten()]
        return pixels if factor == 1 else compose(pixels.float(), factor).round().to(torch.uint8)

    def subset_places(self, factor: int = 1) -> Tensor:
        """The places of the images that `random_subset` takes: (classes, IPC * factor²) int64."""
        return self.real.draw(self.ipc * factor**2, self.generator("subset")).to(self.real.images.device)

    def labels(self) -> Tensor:
        """(classes * IPC,) int64: IPC times 0, IPC times 1, …"""
        return torch.arange(self.real.classes, device=self.device).repeat_interleave(self.ipc)

    def synthetic_set(self, images: Tensor, labels: Tensor | None = None, factor: int = 1) -> SyntheticSet:
        labels = self.labels() if labels is None else labels
        classes = tuple(self.card.classes)
        return SyntheticSet(images, labels, self.real.preprocessing, classes, factor=factor, held_out=self.held_out)

    def whole_set(self) -> SyntheticSet:
        """Every real image."""
        return replace(self.synthetic_set(self.real.images, self.real.labels), whole=True)


State = dict[str, Any]
"""Tensors, numbers, texts, lists and dicts of them: all that a method needs to go on bit for bit. What comes back of it
has its tensors on the CPU, and lists for tuples. Under `in_a_row`, if there, is how many of its last steps were left
out because they were not finite."""


@dataclass(frozen=True)
class Step:
    """An iteration of a method. Its tensors are valid until the next one."""

    iteration: int
    """How many iterations are done."""
    synthetic: SyntheticSet
    losses: dict[str, Tensor] = field(default_factory=dict)
    """By name, scalars on the device: a float would make it wait for each step."""
    state: Callable[[], State] = dict
    """Asked only when somebody wants to keep it; `distill(…, resume=state)` goes on from there."""
    parts: dict[str, float] = field(default_factory=dict)
    """What the iteration spent its time on, seconds; empty: not measured."""


@dataclass(frozen=True)
class PhaseStarted:
    """A phase of a run that begins, or goes on, when it is yielded; its seconds and its peak memory are its own.

    A method is in `distil` until it yields another.
    """

    phase: str


Notice = Progressed | PhaseStarted | Warned | Adapted
"""What a method may yield on the way to a step."""
