"""Synthetic sets from elsewhere: read without running anything in them, checked against a dataset, kept by content.

| format        | what is read                                                                                    |
|---------------|-------------------------------------------------------------------------------------------------|
| `safetensors` | a set of dambench, or any file with images and labels                                            |
| `npz`         | arrays `images` and `labels`; no pickles                                                         |
| `pt`          | what `torch.save` wrote: a dict of tensors, the pair (images, labels), `data`, a list of such     |
|               | pairs, as the code of DC, DSA and DM writes it, or one file for each of the two (and for the      |
|               | step size), as MTT, DATM, PAD and DataDAM do: `images_best.pt`, `labels_best.pt`, `lr_best.pt`    |
| `images`      | a folder or a .zip of CLASS/*.png, .jpg, …; CLASS is a name or a number (or `new000`, as SRe2L's) |

What `exports` wrote says all else itself, and needs no flags. Of others, images are (N, C, H, W) or (N, H, W, C):
bytes, or floats that are normalised with the dataset's mean and standard deviation, as this field's codes save them, or
whitened (`preprocessing` = zca). With `pixels` they are plain values, from 0 to 1 (unit), 0 to 255 (bytes) or -1 to 1
(symmetric), and are normalised or whitened here. Labels are whole numbers of any type, also one-hot, or soft ones:
logits or probabilities (N, classes). Whether images are mosaics (IDC, IDM, DREAM) such a file does not say: `factor`
does. All else that a published set needs to be trained on as it was meant to be (the network's norm, the augmentation,
the epochs) is not in it: the network and the protocol say it.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dambench import datasets, networks
from dambench.core import claims, files
from dambench.core.claims import Claims
from dambench.core.config import PREPROCESSINGS
from dambench.core.errors import BadInput, named
from dambench.core.events import DataCard
from dambench.core.sanitize import counted, display
from dambench.engine.set_files import READERS, RawSet, read_file
from dambench.training.problem import (
    MOST_LR,
    Normalisation,
    Preprocessing,
    SyntheticSet,
    mosaic_fault,
)

PIXELS = {"unit": (0.0, 1.0), "bytes": (0.0, 255.0), "symmetric": (-1.0, 1.0)}
"""What plain pixels are, by name: black and white."""
LARGEST_VALUE = 1e6
"""Largest float of an image: what is distilled may leave the range of pixels, and has hundreds at the most."""
CLAIMS_NOTE = (
    "the accuracies that it claims were measured under its authors' protocol, which it does not state: to check them, "
    "pass that one (DC: --protocol dc, on MNIST dc-augmented; DSA and DM: dsa-dm) and the same networks."
)
SUM = 0.01
"""By how much a row of probabilities may miss 1, in 8 bits."""


@dataclass(frozen=True)
class Reading:
    """The sets of a file."""

    sets: tuple[SyntheticSet, ...]
    experiments: tuple[int, ...]
    """Their places in the file, from 0."""
    total: int
    """Sets of the file."""
    ipc: int
    notes: tuple[str, ...]
    """What was left out, changed, or looks wrong."""
    claims: tuple[Claims | None, ...] = ()
    """What the file claims for each of the sets."""


def read(
    path: Path,
    card: DataCard,
    kind: str = "auto",
    pixels: str | None = None,
    preprocessing: str | None = None,
    experiment: int | None = None,
    lr: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    factor: int | None = None,
) -> Reading:
    """The sets of a file or folder, for that dataset.

    Args:
        kind: a format, or auto: by the suffix.
        pixels: what floats are, of PIXELS; None: what networks see.
        preprocessing: what was done to the images, or is to be done where they are plain; None: mean/std.
        experiment: of several sets, only this one.
        lr: the learning rate that was distilled with the images, where the file does not say it.
        say: hears what takes long.
        factor: of its images, where they are mosaics, as those of IDC, IDM and DREAM; None: the file says it, or they
            are none.

    Raises:
        BadInput: it is not such a file, is too large, or does not fit the dataset. Nothing was written or run.
    """
    if pixels is not None:
        pixels = named("kind of pixels", pixels, ["normalised", *PIXELS])
    if preprocessing is not None:
        preprocessing = named("preprocessing", preprocessing, PREPROCESSINGS)
    file = read_file(path, card, named("format", kind, ["auto", *READERS]))
    total = len(file.sets)
    if experiment is not None and not 0 <= experiment < total:
        raise BadInput(f"{str(path)!r} has {counted(total, 'set')}: --experiment is from 0 to {total - 1}.")
    numbers = tuple(range(total)) if experiment is None else (experiment,)
    notes = list(file.notes)
    sets = [one for one in file.sets if isinstance(one, SyntheticSet)]
    raw = [one for one in file.sets if isinstance(one, RawSet)]
    flags: dict[str, object] = {
        "--pixels": pixels,
        "--preprocessing": preprocessing,
        "--lr": lr,
        "--factor": factor,
    }
    needless = [flag for flag, value in flags.items() if value is not None]
    explained = bool(sets) or (bool(raw[0].header) and not needless)
    if sets and needless:
        raise BadInput(f"{str(path)!r} is a set of dambench, which says this itself: no {needless[0]}.")
    if (factor or 1) > 1 and preprocessing == "zca":
        raise BadInput("--factor is for mosaics of images, and tiles of whitened images are none: leave it out.")
    if fault := mosaic_fault(factor or 1, card.height, card.width):
        raise BadInput(f"--factor {factor} cannot be: {fault}.")
    if not sets:
        try:
            if explained:
                sets = [_as_exported(raw[n]) for n in numbers]
            else:
                sets = [_checked(raw[n], card, pixels, preprocessing, lr, notes, say) for n in numbers]
                sets = [replace(one, factor=factor or 1) for one in sets]
        except BadInput as error:
            raise BadInput(f"{str(path)!r} cannot be used: {error}") from None
    ipcs = {synthetic.ipc_on(card) for synthetic in sets}
    if len(ipcs) > 1:
        raise BadInput(f"{str(path)!r} has sets of {sorted(ipcs)} images per class: say which, with --experiment N.")
    for synthetic in sets:
        notes += _oddities(synthetic)
    if not explained and pixels is None and preprocessing is None:
        notes += _suspicions(sets, card, say)
    every = _claims(file.accuracies, path.name, total, card, notes)
    claimed = tuple(every[number] if every else None for number in numbers)
    return Reading(tuple(sets), numbers, total, ipcs.pop(), tuple(dict.fromkeys(notes)), claimed)


def _claims(saved: Any, name: str, total: int, card: DataCard, notes: list[str]) -> list[Claims]:
    """The accuracies that a file claims, for each of its sets: as many for each, in their order."""
    if not isinstance(saved, Mapping):
        return []
    each: list[dict[str, list[float]]] = [{} for _ in range(total)]
    unused = [] if len(saved) <= claims.MOST_NETWORKS else [str(key) for key in saved]
    for network, values in saved.items() if not unused else ():
        fractions = isinstance(values, list | tuple) and all(type(v) in (int, float) and 0 <= v <= 1 for v in values)
        if not isinstance(network, str) or not fractions or len(values) > claims.MOST_VALUES or len(values) % total:
            unused.append(str(network))
            continue
        count = len(values) // total
        for position in range(total) if count else ():
            each[position][_network_name(network, card)] = list(values[position * count : (position + 1) * count])
    if unused:
        notes.append(
            f"accuracies that it claims for {display(', '.join(unused), 200)} are not used: they are not fractions, or "
            f"not as many for each of its {counted(total, 'set')}."
        )
    if not each[0]:
        return []
    notes.append(CLAIMS_NOTE)
    return [Claims(file=display(name), accuracies=accuracies) for accuracies in each]


def _network_name(network: str, card: DataCard) -> str:
    """The full name of the network that a file means; where it is none of ours, as it stands there."""
    try:
        return networks.settle(network, card)
    except BadInput:
        return display(network, 60)


def keep(synthetic: SyntheticSet, claimed: Claims | None = None) -> str:
    """Write a set to its place under DAMBENCH_HOME, if it is not there. Returns its SHA-256.

    Args:
        claimed: what its file claims for it, which is kept with it.
    """
    content = synthetic.to_bytes()
    sha256 = files.digest(content)
    path = files.set_path(sha256)
    with files.writing("The set", path.parent, files.HOME_HINT):
        if not path.exists():
            files.write_whole(path, content)
        claims.keep(sha256, claimed)
    return sha256


def protocol_for(synthetic: SyntheticSet) -> str:
    """The name of the protocol that uses all that a set carries."""
    if synthetic.labels.dim() == 2:
        return "datm-pad"
    if synthetic.factor > 1:
        return "idc"
    return "dsa-dm" if synthetic.lr is None else "mtt"


def _oddities(synthetic: SyntheticSet) -> list[str]:
    """Notes on what a person would see on looking at the images, as datasets have them."""
    images = synthetic.images.flatten(1).contiguous().numpy()
    digests: dict[int, list[bytes]] = {}
    for image, label in zip(images, synthetic.hard_labels.tolist(), strict=True):
        digests.setdefault(label, []).append(hashlib.sha256(image.tobytes()).digest())
    kinds = {label: set(some) for label, some in digests.items()}
    if len(synthetic.classes) > 1 and all(some == kinds[min(kinds)] for some in kinds.values()):
        which = "all images are alike" if len(kinds[min(kinds)]) == 1 else "all classes have the same images"
        return [f"{which}: nothing tells the classes apart."]
    notes = []
    if same := [label for label, some in digests.items() if len(kinds[label]) == 1 < len(some)]:
        names = [synthetic.classes[label] for label in same]
        notes.append(f"classes whose images are all alike: {display(', '.join(names), 200)}.")
    if plain := int((synthetic.images.amin((2, 3)) == synthetic.images.amax((2, 3))).all(1).sum()):
        notes.append(f"images of one colour all over: {plain} of {len(images)}.")
    return notes


def _suspicions(sets: Sequence[SyntheticSet], card: DataCard, say: Callable[[str], None]) -> list[str]:
    """Notes on floats of which nobody has said what they are, and which do not look normalised."""
    images = torch.cat([synthetic.images for synthetic in sets])
    if not images.is_floating_point():
        return []
    low, high = images.min().item(), images.max().item()
    if low >= 0 and high <= 1:
        return [_plain_note("0 to 1", "unit")]
    if low >= 0 and 10 < high <= 255:
        return [_plain_note("0 to 255", "bytes")]
    if images[0].numel() <= datasets.MOST_WHITENED and images.std() < 0.8:
        # Whitened images have a small part of the variance of normalised ones. Taken for these, they lack the range of
        # pixels on both sides; by the way back of the whitening they have it.
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (card.mean, card.std))
        whitening = datasets.whitening(card, say)
        back = images.flatten(1) @ whitening.inverse + whitening.mean
        if 2 * _beyond(back) < _beyond(images * std + mean):
            return [
                "the values look whitened, not normalised: if they were made with ZCA, as by MTT, DATM and PAD, "
                "import it again with --preprocessing zca."
            ]
    if low >= -1 and high <= 1:
        return [_plain_note("-1 to 1", "symmetric")]
    return []


def _plain_note(span: str, pixels: str) -> str:
    return f"all values lie from {span}. If they are plain pixels, import it again with --pixels {pixels}."


def _beyond(pixels: Tensor) -> float:
    """Mean distance of pixels from [0, 1]."""
    return float((pixels - pixels.clamp(0, 1)).abs().mean())


# Checks.


def _as_exported(raw: RawSet) -> SyntheticSet:
    """Put a set together that dambench has exported to another format: its tensors, and the header of its own file."""
    tensors = {name: _plain(getattr(raw, name), name).contiguous() for name in ("images", "labels")}
    with tempfile.TemporaryDirectory() as folder, files.writing("The set", Path(folder)):
        path = Path(folder) / "set.safetensors"
        path.write_bytes(safetensors.torch.save(tensors, {"dambench": raw.header}))
        try:
            return SyntheticSet.read(path)
        except BadInput as error:
            reason = str(error).replace(repr(str(path)), "what it says of itself").replace("'set.safetensors' ", "")
            raise BadInput(f"{reason} (--preprocessing or --pixels reads it as a set from elsewhere.)") from None


def _checked(
    raw: RawSet,
    card: DataCard,
    pixels: str | None,
    name: str | None,
    lr: float | None,
    notes: list[str],
    say: Callable[[str], None],
) -> SyntheticSet:
    """Make a set for that dataset of it, sorted by class. What had to be changed is noted."""
    images = _shaped(_plain(raw.images, "images"), card, notes)
    labels = _labels(_plain(raw.labels, "labels"), card, notes)
    if len(images) != len(labels):
        raise BadInput(f"{len(images)} images have {len(labels)} labels.")
    preprocessing: Preprocessing = Normalisation(tuple(card.mean), tuple(card.std))
    if name == "zca":
        preprocessing = datasets.whitening(card, say)
    images = _floats(images, pixels, preprocessing)
    order = (labels if labels.dim() == 1 else labels.argmax(1)).argsort(stable=True)
    rate = _lr(raw.lr)
    if rate is not None and lr is not None:
        raise BadInput(f"it says its own learning rate, {rate:g}: leave --lr out.")
    return SyntheticSet(
        images[order], labels[order], preprocessing, tuple(card.classes), _lr(lr) if rate is None else rate
    )


def _plain(tensor: Any, role: str) -> Tensor:
    if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise BadInput(f"The {role} are {type(tensor).__name__}, not a plain tensor.")
    return tensor.detach()


def _shaped(images: Tensor, card: DataCard, notes: list[str]) -> Tensor:
    """Bring images to the shape (N, C, H, W)."""
    expected = (card.channels, card.height, card.width)
    shape, last = tuple(images.shape), (card.height, card.width, card.channels)
    if images.dim() == 4 and shape[1:] == last != expected:
        images = images.permute(0, 3, 1, 2)
        notes.append("the images have their channels last, and were turned.")
    elif images.dim() == 3 and card.channels == 1:
        images = images.unsqueeze(1)
    if images.dim() != 4 or tuple(images.shape[1:]) != expected or not 0 < len(images) <= sum(card.train_counts):
        raise BadInput(
            f"the images have shape {shape}; (N, {', '.join(map(str, expected))}) with N from 1 to "
            f"{sum(card.train_counts)} is needed for {card.label}."
        )
    return images.contiguous()


def _floats(images: Tensor, pixels: str | None, preprocessing: Preprocessing) -> Tensor:
    """Bring images to uint8 pixels as they are, or float32 as networks see them."""
    if not images.is_floating_point() and images.dtype != torch.bool:
        least, largest = int(images.min()), int(images.max())
        if images.dtype != torch.uint8 and not (least >= 0 and 1 < largest <= 255):
            raise BadInput(f"its images are {_dtype(images)} from {least} to {largest}: bytes or floats are needed.")
        if pixels is not None:
            raise BadInput(f"its images are {_dtype(images)}, which are pixels in any case: leave --pixels out.")
        return images.to(torch.uint8)
    if images.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise BadInput(f"its images are {_dtype(images)}: bytes or floats are needed.")
    images = images.float()
    if not bool(images.isfinite().all()):
        raise BadInput("not all values of its images are finite.")
    low, high = images.min().item(), images.max().item()
    if pixels is None or pixels == "normalised":
        if max(-low, high) > LARGEST_VALUE:
            raise BadInput(f"its images have values from {low:.4g} to {high:.4g}, which no image has.")
        return images
    black, white = PIXELS[pixels]
    slack = 1e-3 * (white - black)  # what is learned, or was rounded to 8 bits of a float, may miss the end a little
    if low < black - slack or high > white + slack:
        raise BadInput(
            f"--pixels {pixels} is for values from {black:g} to {white:g}, the images have {low:.4g} to {high:.4g}."
        )
    return preprocessing.apply((images - black) * (255 / (white - black)))


def _labels(labels: Tensor, card: DataCard, notes: list[str]) -> Tensor:
    """Bring labels to (N,) int64, or (N, classes) float32 logits."""
    classes = len(card.classes)
    given = f"its labels are {_dtype(labels)} of shape {tuple(labels.shape)}"
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.dim() not in (1, 2) or labels.shape[1:] not in ((), (classes,)) or not labels.numel():
        raise BadInput(f"{given}: whole numbers (N,), or logits (N, {classes}).")
    values = labels.double()
    if not bool(values.isfinite().all()):
        raise BadInput("not all values of its labels are finite.")
    low, high = values.min().item(), values.max().item()
    if labels.dim() == 1:
        if not bool((values == values.round()).all()):
            raise BadInput(f"{given}, with fractions: whole numbers (N,), or logits (N, {classes}).")
        if low < 0 or high >= classes:
            raise BadInput(
                f"its labels go from {low:.15g} to {high:.15g}, those of {card.label} from 0 to {classes - 1}."
            )
        return values.long()
    if bool(((values == 0) | (values == 1)).all() & (values.sum(1) == 1).all()):
        return values.argmax(1)
    if not labels.is_floating_point():
        raise BadInput(f"{given}, and not one-hot: whole numbers (N,), or logits (N, {classes}).")
    if low >= 0 and bool(((values.sum(1) - 1).abs() < SUM).all()):
        notes.append("its soft labels are probabilities, which are kept as their logarithms.")
        values = values.clamp_min(torch.finfo(torch.float32).tiny).log()
    elif max(-low, high) > LARGEST_VALUE:
        raise BadInput(f"its logits go from {low:.4g} to {high:.4g}, which none do.")
    return values.float()


def _lr(lr: Any) -> float | None:
    """The learning rate that was distilled with the images."""
    if lr is None:
        return None
    number = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < MOST_LR:
        raise BadInput("its lr is not a positive number.")
    return float(number)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
