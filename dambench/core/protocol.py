"""How a network is trained and tested on a set: named, versioned, hashed.

Most published accuracies of this field cannot be compared because each paper trains its test networks in
another way. Here every score carries the hash of the protocol that produced it, and no table mixes two.
A protocol does not contain the network: a score belongs to (set, evaluation network, protocol, seed).
"""

import hashlib
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from dambench.core import overrides
from dambench.core.errors import BadInput, about, named
from dambench.core.sanitize import display


def identity(struct: Struct, but: tuple[str, ...] = ()) -> str:
    """SHA-256 of the canonical JSON of a struct, fields equal to their default left out.

    They are left out so that a field added later, with a default that changes nothing, keeps every older hash.

    Args:
        but: fields of the outermost struct that do not count.
    """
    return hashlib.sha256(msgspec.json.encode(_counted(struct, but), order="sorted")).hexdigest()


def _counted(value: Any, but: tuple[str, ...] = ()) -> Any:
    if not isinstance(value, Struct):
        return value
    return {
        name: _counted(getattr(value, name))
        for name, default in _defaults(type(value))
        if name not in but and getattr(value, name) != default
    }


@cache
def _defaults(kind: type[Struct]) -> tuple[tuple[str, Any], ...]:
    """The fields of a struct and their defaults, looked up once: a plan of many runs asks for each of them."""
    return tuple((field.name, field.default) for field in msgspec.structs.fields(kind))


Positive = Annotated[int, Meta(ge=1)]


class Budget(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For how long a network is trained."""

    epochs: Positive
    """Passes over the set that are really made. (DC's code, asked for 300, makes 301.)"""
    drops: tuple[Positive, ...] = ()
    """After how many epochs the learning rate is multiplied by the protocol's `decay`."""


class HoldOut(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rule by which validation images are held out of the training set, before a set is made of the rest.

    As many of each class, drawn by `seed`, which is not that of a run: all arms of a comparison share them.
    """

    images: Positive = 5_000
    """In all, at most: with 10 classes 500 of each."""
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """The largest part of the smallest class that is held out."""
    seed: int = 0


class Protocol(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a network is trained and tested on a set. The test set selects nothing: the last epoch is the score."""

    name: str
    version: int = 1
    """Raised when the code that carries this protocol out changes what it computes."""
    synthetic: Budget
    whole: Budget
    """The budget for the whole real set, under the same hash: the papers rarely state theirs."""
    batch: Positive = 256
    lr: float | Literal["as the set carries"] = 0.01
    """Step size of SGD, or the learning rate that was distilled with the set (0.01 where there is none)."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: float = 0.1
    keeps_momentum: bool = False
    """Whether the momentum survives a drop of the learning rate. In the code of DC and all that descend
    from it it does not: a new optimiser is made."""
    augmentation: tuple[str, ...] = ()
    """Operations of DSA. One of them is drawn per batch, and applied with parameters of its own to each
    image. `flip` is left out for data whose mirror image is another class, as DC's README prescribes."""
    draws: Literal["for each batch", "for each image", "all at once"] = "for each batch"
    """How often one of the operations is drawn. All at once: flip, color and cutout, if they are there, each time, and
    one of the others for each batch (IDC's)."""
    labels: Literal["hard", "as the set carries", "teacher"] = "hard"
    """Hard: the class with the largest logit, where the set carries soft labels. Teacher: what the network that the set
    names says of each image as it is shown, augmented and mixed; the loss is KL, not multiplied by T²."""
    temperature: float = 1.0
    """T, by which the logits of a teacher and of its student are divided."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """AdamW has β 0.9 and 0.999, and no use for `momentum`."""
    schedule: Literal["drops", "cosine", "half cosine"] = "drops"
    """Cosine: lr · ½ (1 + cos(π e / E)) in epoch e of E, which ends near 0. Half cosine: lr · ½ (1 + cos(π e / 2E)),
    which ends at a half."""
    mixing: Literal["none", "cutmix", "mixup"] = "none"
    """What is done to augmented batches: see dambench.training.mixing."""
    mixing_probability: float = 1.0
    mixing_alpha: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the products of training steps are rounded to, by torch's autocast; weights and tests are as the device does
    by default."""
    hold_out: HoldOut | None = None
    """Which training images are kept for validation; None: none are."""
    source: str = ""
    """Where these settings were read."""

    @property
    def sha256(self) -> str:
        """The identity of what is computed: every field but `name` and `source`."""
        return identity(self, but=("name", "source"))

    @property
    def label(self) -> str:
        """Name and the start of the hash: `dsa-dm#1f3a`."""
        return f"{self.name}#{self.sha256[:4]}"


DSA = ("color", "crop", "cutout", "flip", "scale", "rotate")
DC = ("dc-crop", "dc-scale", "dc-rotate")
IDC = ("flip", "color", "crop", "scale", "rotate")
"""Without cutout, which those who use CutMix leave out."""

_IDC: dict[str, Any] = {
    "batch": 64,
    "decay": 0.2,
    "keeps_momentum": True,
    "augmentation": IDC,
    "draws": "all at once",
}


_TAUGHT: dict[str, Any] = {
    "lr": 0.001,
    "weight_decay": 0.01,
    "optimiser": "adamw",
    "augmentation": ("crop", "flip"),
    "draws": "all at once",
    "labels": "teacher",
}


def _strong(name: str, epochs: int, of: str) -> "Protocol":
    """Wide ResNets' recipe for the whole set: a rate of 0.1, times 0.2 after 30, 60 and 80 % of the epochs."""
    return Protocol(
        name=name,
        synthetic=Budget(epochs=1000, drops=(300, 600, 800)),
        whole=Budget(epochs=epochs, drops=(epochs * 3 // 10, epochs * 6 // 10, epochs * 8 // 10)),
        batch=128,
        lr=0.1,
        decay=0.2,
        keeps_momentum=True,
        augmentation=("crop", "flip"),
        draws="all at once",
        source="for what the whole set is good for: the recipe of Wide ResNets (BMVC 2016) for CIFAR-10, without "
        f"Nesterov's momentum{of}; the budget of synthetic sets is ours",
    )


PRESETS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="quick",
            synthetic=Budget(epochs=200, drops=(100,)),
            whole=Budget(epochs=50, drops=(25,)),
            augmentation=DSA,
            source="ours, for a first look: as dsa-dm, a fifth of the epochs",
        ),
        Protocol(
            name="brief",
            synthetic=Budget(epochs=200, drops=(100,)),
            whole=Budget(epochs=3, drops=(2,)),
            augmentation=DSA,
            source="ours, for tens of thousands of real images on a CPU: as quick, but 3 epochs on the whole set",
        ),
        Protocol(
            name="dc",
            synthetic=Budget(epochs=301, drops=(152,)),
            whole=Budget(epochs=200, drops=(100,)),
            source="DC (ICLR 2021), released code, without its augmentation; whole-set epochs are ours",
        ),
        Protocol(
            name="dc-augmented",
            version=2,
            synthetic=Budget(epochs=1001, drops=(502,)),
            whole=Budget(epochs=200, drops=(100,)),
            augmentation=DC,
            draws="for each image",
            source="DC (ICLR 2021), released code for MNIST: crop, scale or rotation for each image (for BatchNorm "
            "networks it has crop or noise); whole-set epochs are ours; version 1 cropped by 4 pixels on either side, "
            "where the code takes 3 on one",
        ),
        Protocol(
            name="dsa-dm",
            synthetic=Budget(epochs=1001, drops=(502,)),
            whole=Budget(epochs=200, drops=(100,)),
            augmentation=DSA,
            source="DSA (ICML 2021) and DM (WACV 2023), released code; whole-set epochs are ours",
        ),
        Protocol(
            name="datadam",
            synthetic=Budget(epochs=1801, drops=(902,)),
            whole=Budget(epochs=200, drops=(100,)),
            batch=64,
            augmentation=DSA,
            source="DataDAM (ICCV 2023), released code, which tests on BatchNorm: add --evaluate-on convnet-bn; "
            "whole-set epochs are ours",
        ),
        Protocol(
            name="datadam-table",
            synthetic=Budget(epochs=1801, drops=tuple(range(15, 1801, 15))),
            whole=Budget(epochs=200, drops=tuple(range(15, 200, 15))),
            batch=64,
            decay=0.5,
            keeps_momentum=True,
            augmentation=DSA,
            source="DataDAM (ICCV 2023), table of hyper-parameters: lr halved every 15 epochs; epochs and batch are "
            "the code's, whole-set epochs ours",
        ),
        Protocol(
            name="mtt",
            synthetic=Budget(epochs=1001, drops=(502,)),
            whole=Budget(epochs=200, drops=(100,)),
            lr="as the set carries",
            augmentation=DSA,
            source="MTT (CVPR 2022), released code: as dsa-dm, at the learned lr (it reports the best test on the way, "
            "and this the last); whole-set epochs are ours",
        ),
        Protocol(
            name="datm-pad",
            synthetic=Budget(epochs=1001, drops=(502,)),
            whole=Budget(epochs=200, drops=(100,)),
            batch=128,
            lr="as the set carries",
            augmentation=DSA,
            labels="as the set carries",
            source="DATM (ICLR 2024) and PAD, released code: learned lr, soft labels (they report the best test on the "
            "way, and this the last); whole-set epochs are ours",
        ),
        Protocol(
            name="idc",
            synthetic=Budget(epochs=1000, drops=(666, 833)),
            whole=Budget(epochs=200, drops=(133, 166)),
            **_IDC,
            mixing="cutmix",
            mixing_probability=0.5,
            source="IDC (ICML 2022), released code, and M3D's, with CutMix (it reports the best test on the way, and "
            "this the last); that cutout is left out beside CutMix is read in DANCE's; whole-set epochs are ours",
        ),
        Protocol(
            name="idc-1500",
            synthetic=Budget(epochs=1500, drops=(1000, 1250)),
            whole=Budget(epochs=200, drops=(133, 166)),
            **_IDC,
            mixing="cutmix",
            mixing_probability=0.5,
            source="DANCE (IJCAI 2024) and DSDM (MM 2024), released code: as idc, for 1,500 epochs",
        ),
        Protocol(
            name="idc-mnist",
            synthetic=Budget(epochs=1000, drops=(666, 833)),
            whole=Budget(epochs=200, drops=(133, 166)),
            **_IDC,
            source="IDC (ICML 2022), released code for mosaics of MNIST: as idc, without CutMix",
        ),
        Protocol(
            name="ncfm",
            synthetic=Budget(epochs=2000, drops=(400, 800, 1200, 1600)),
            whole=Budget(epochs=200, drops=(40, 80, 120, 160)),
            **_IDC | {"batch": 128, "lr": 0.001, "decay": 0.5, "weight_decay": 0.01},
            optimiser="adamw",
            mixing="cutmix",
            mixing_probability=0.5,
            source="NCFM (CVPR 2025), released code, hard labels (it reports the best of checks on the test set, and "
            "this the last): AdamW 1e-3, batch 128, lr halved at each fifth, CutMix; the weight decay is torch's usual "
            "one and the operations are IDC's: not read; whole-set epochs are ours",
        ),
        Protocol(
            name="soft",
            synthetic=Budget(epochs=300),
            whole=Budget(epochs=100),
            **_TAUGHT,
            batch=50,
            schedule="half cosine",
            temperature=20.0,
            mixing="cutmix",
            source="RDED (CVPR 2024), released code: its teacher's labels of each batch, KL at T 20 without T², "
            "CutMix, AdamW 1e-3, 300 epochs, half a cosine. Ours: batch 50 (by IPC 10, 50 or 100), crops by DSA "
            "(resized crops and shuffled patches), decay of all weights; the last epoch (their best of several)",
        ),
        Protocol(
            name="sre2l",
            synthetic=Budget(epochs=400),
            whole=Budget(epochs=100),
            **_TAUGHT,
            batch=128,
            schedule="cosine",
            temperature=30.0,
            mixing="mixup",
            mixing_alpha=0.8,
            source="SRe2L (NeurIPS 2023), released code for CIFAR-100: its teacher's labels of each batch, KL at T 30 "
            "without T², mixup α 0.8, AdamW 1e-3, batch 128, 400 epochs, a cosine. Ours: crops by DSA, one for a batch "
            "(theirs for each image), decay as for others; the last epoch, as theirs",
        ),
        _strong("strong", 200, ""),
        _strong("strong-short", 20, ", in a tenth of its epochs, for MNIST and FashionMNIST"),
    )
}

STRONG = {"mnist": "strong-short", "fashionmnist": "strong-short"}
"""By dataset, the protocol that shows what the whole set is good for; every other one has `strong`."""


def strong(dataset: str) -> Protocol:
    """The protocol that shows what networks reach on all images of a dataset, whatever the budget of the others."""
    return PRESETS[STRONG.get(dataset, "strong")]


PRESETS |= {
    f"{name}-hard": msgspec.structs.replace(
        PRESETS[name],
        name=f"{name}-hard",
        labels="hard",
        temperature=1.0,
        source=f"ours: as {name}, with hard labels in place of the teacher's, for the twins of such sets",
    )
    for name in ("soft", "sre2l")
}


def _fair(name: str, base: str) -> Protocol:
    return msgspec.structs.replace(
        PRESETS[base],
        name=name,
        hold_out=HoldOut(),
        source=f"ours: as {base}, with validation images held out of the training set before a set is made",
    )


PRESETS |= {
    name: _fair(name, base)
    for name, base in {
        "fair": "dsa-dm",
        "fair-quick": "quick",
        "fair-brief": "brief",
        "fair-mtt": "mtt",
        "fair-datm-pad": "datm-pad",
    }.items()
}


USUAL = "quick"
"""The protocol of a run that names none."""


def _rounded(base: str) -> Protocol:
    return msgspec.structs.replace(
        PRESETS[base],
        name=f"{base}-bf16",
        precision="bf16",
        source=f"ours: as {base}, its networks trained in bfloat16 by torch's autocast",
    )


PRESETS |= {protocol.name: protocol for protocol in map(_rounded, ("quick", "brief", "dsa-dm"))}


def unrounded(protocol: Protocol) -> Protocol:
    """The same in float32, by the name that it has there."""
    same = msgspec.structs.replace(protocol, precision="fp32")
    return next((known for known in PRESETS.values() if known.sha256 == same.sha256), same)


@about("protocol")
def preset(name: str) -> Protocol:
    """The protocol of that name, with or without its hash (`dsa-dm`, `dsa-dm#1f3a`), and with its changes, if it has
    any (`quick+lr=0.02`; `+lr=0.02` alone changes the usual one).

    Raises:
        BadInput: nobody answers to the name, the hash is another version's, or a change cannot be made.
    """
    whole, mark, version = name.rpartition("#") if name.rfind("#") > name.rfind(overrides.MARK) else (name, "", "")
    base, changes = overrides.parted(whole)
    protocol = (
        overrides.changed(preset(base or USUAL), changes) if changes else PRESETS[named("protocol", whole, PRESETS)]
    )
    if mark and protocol.label != f"{protocol.name}#{version.strip().lower()}":
        raise BadInput(f"The protocol {display(name, 100)!r} is another version's: here it is {protocol.label}.")
    return protocol


def protocol_labelled(label: str) -> Protocol | None:
    """The protocol with this name and hash; None: in this version there is none."""
    with suppress(BadInput):
        if (found := preset(label)).label == label:
            return found
    return None


def same_here(protocol: Protocol) -> Protocol | None:
    """The protocol of this version that computes the same as a stored one; None: there is none any more."""
    with suppress(BadInput):
        if (found := preset(protocol.name)).sha256 == protocol.sha256:
            return found
    return next((found for found in PRESETS.values() if found.sha256 == protocol.sha256), None)
