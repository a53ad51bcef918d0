"""The zoo: one family of networks per file.

A network's name says all of it: `convnet-d3-w128` is the ConvNet of depth 3 and width 128 with the family's
default norm, activation and pooling; `convnet-d3-w128-bn` has BatchNorm. A name may leave parts out, which are
then filled in from the size of the images. Papers write the depth and one more part without dashes (`ResNet18BN`,
`ConvNetD3`): that is read, too.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, get_args, get_type_hints

import msgspec
import torch

from dambench.core import registry
from dambench.core.config import Options, read
from dambench.core.contracts import NetworkFamily
from dambench.core.errors import BadInput, unknown
from dambench.core.events import DataCard
from dambench.core.sanitize import display
from dambench.training import threads
from dambench.training.problem import Network

MATCHED = "matched"
"""In `--evaluate-on`: the network that the set was matched on …"""
MATCHED_IN = "matched-in"
"""… and that network with its BatchNorm, if it has any, replaced by instance norm."""

POOLS = {
    "pool-m": ("architectures (M)", "mlp convnet lenet alexnet vgg11 resnet18"),
    "pool-cross": ("the usual cross-architecture table", "convnet alexnet vgg11 resnet18"),
    "pool-b": ("BatchNorm (B)", "convnet-bn convnet-swish-bn alexnet-bn vgg11-bn resnet18-bn"),
    "pool-w": ("widths (W)", "convnet-w32 convnet-w64 convnet-w128 convnet-w256"),
    "pool-d": ("depths (D)", "convnet-d1 convnet-d2 convnet-d3 convnet-d4"),
    "pool-a": ("activations (A)", "convnet-sigmoid convnet-relu convnet-leakyrelu convnet-swish"),
    "pool-p": ("poolings (P)", "convnet-np convnet-mp convnet-ap"),
    "pool-n": ("norms (N)", "convnet-nn convnet-bn convnet-ln convnet-in convnet-gn"),
    "pool-s": ("the network matched on, instance norm instead of BatchNorm (S)", MATCHED_IN),
    "pool-ss": ("the network matched on (SS)", MATCHED),
    "pool-c": ("the network matched on, and the ConvNet (C)", f"{MATCHED} convnet"),
    "pool-pad": ("PAD's table of high ratios", "convnet convnet-bn resnet18 resnet18-bn vgg11 alexnet lenet mlp"),
    "pool-pad-bn": ("PAD's pool BN", "convnet convnet-bn resnet18 resnet18-bn alexnet vgg11 resnet18-ap"),
}
"""The evaluation pools of the released codes of DC, DataDAM and PAD: what each is, and its networks."""


def parse(name: str) -> tuple[NetworkFamily, Options]:
    """`convnet-d2-bn` → the family's module and its options.

    A family's `PARTS` says how each option is spelled: a prefix for a number, none for one that is written right after
    the family (`vgg11`), or a word for each choice.

    Raises:
        BadInput: no such family, or a part that the family does not know.
    """
    module, options = _spelled_options(name)
    return module, read(module.Options, options, f"network {display(name, 60)!r}")


def family(name: str) -> str:
    """`convnet-d2-bn` → `convnet`."""
    return parse(name)[0].name


def _spelled_options(name: str) -> tuple[NetworkFamily, dict[str, Any]]:
    """The family's module, and the options that the name says."""
    first, *words = _dashed(name).split("-")
    module, glued = _family(first)
    options: dict[str, Any] = {}
    for part in glued + words:
        pair = _option_of(module, part)
        if pair is None:
            allowed = ", ".join(parts(module).values())
            raise BadInput(
                f"In network {display(name, 60)!r}: no part is called {display(part, 60)!r}. "
                f"The family {module.name} has {allowed or 'none'}."
            )
        option, value = pair
        if option in options:
            raise BadInput(f"Network {display(name, 60)!r} says its {option} twice: {part!r} is one too many.")
        options[option] = value
    return module, options


def _dashed(name: str) -> str:
    """`ConvNet_D3 W128` → `convnet-d3-w128`."""
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def _family(word: str) -> tuple[NetworkFamily, list[str]]:
    """`resnet18bn` → the family's module, and the parts that are glued to its name: `18` and `bn`."""
    families = registry.names("networks")
    for family in [] if word in families else families:
        glued = re.fullmatch(f"{re.escape(family)}([0-9]*)([a-z0-9]*)", word)
        if glued:
            try:
                module = registry.load("networks", family)
            except BadInput:  # one from outside that cannot be used; another may be meant
                continue
            depth = [module.PARTS["depth"] + glued[1]] if glued[1] and "depth" in module.PARTS else []
            spelled = depth + [part for part in (glued[2],) if part]
            if spelled and all(_option_of(module, part) for part in spelled):
                return module, spelled
    return registry.load("networks", word), []


def _option_of(module: NetworkFamily, part: str) -> tuple[str, Any] | None:
    """`d3` → the option that this part of a name stands for, and its value."""
    for option, spelling in module.PARTS.items():
        if isinstance(spelling, dict):
            if part in spelling:
                return option, spelling[part]
        elif re.fullmatch(f"{spelling}[0-9]{{1,6}}", part):
            return option, int(part.removeprefix(spelling))
    return None


def parts(module: NetworkFamily) -> dict[str, str]:
    """How each option of a family is spelled in a name: `{"depth": "dN", "norm": "in|bn|ln|gn|nn", …}`."""
    allowed = get_type_hints(module.Options)
    numbers = {name: "|".join(map(str, get_args(allowed[name]))) for name, s in module.PARTS.items() if s == ""}
    return {
        name: numbers.get(name) or (f"{s}N" if isinstance(s, str) else "|".join(s)) for name, s in module.PARTS.items()
    }


def spell(module: NetworkFamily, options: Options) -> str:
    """The other way: numbers always, choices where they are not the default."""
    name = module.name
    default = module.Options()
    for option, spelling in module.PARTS.items():
        value = getattr(options, option)
        if isinstance(spelling, str):
            name += f"-{spelling}{value}" if spelling else f"{value}"
        elif value != getattr(default, option):
            name += "-" + next(word for word, meaning in spelling.items() if meaning == value)
    return name


def settle(name: str, card: DataCard, norm: str = "") -> str:
    """The full name of a network for these images: `convnet` → `convnet-d3-w128`.

    Args:
        norm: for a network whose name says none, and whose family can have this one.

    Raises:
        BadInput: the network does not suit the images.
    """
    module, options = parse(name)
    if norm in module.PARTS.get("norm", {}).values() and "norm" not in _spelled_options(name)[1]:
        options = msgspec.structs.replace(options, norm=norm)
    return spell(module, _fitted(module, options, (card.height, card.width)))


def members(name: str) -> list[str]:
    """`pool-w` → the names of its networks. Any other name stands for itself.

    Raises:
        BadInput: there is no such pool or network.
    """
    name = _dashed(name)
    if name.startswith("pool-") and name not in POOLS:
        raise unknown("pool of networks", name, POOLS)
    chosen = POOLS[name][1].split() if name in POOLS else [name]
    for each in chosen:
        if each not in (MATCHED, MATCHED_IN):
            parse(each)
    return chosen


def settle_all(names: Sequence[str], card: DataCard, matched: str) -> tuple[str, ...]:
    """The full names of the networks of `--evaluate-on`, each once: two pools may have the same.

    Args:
        matched: the full name of the network that the set is matched on.

    Raises:
        BadInput: a network does not suit the images, or is named twice outside of a pool.
    """
    module, options = parse(matched)
    if getattr(options, "norm", "") == "batch":
        options = msgspec.structs.replace(options, norm="instance")
    same = {MATCHED: matched, MATCHED_IN: spell(module, options)}
    settled_names: list[str] = []
    alone: list[str] = []
    for name in names:
        settled = [settle(same.get(each, each), card) for each in members(name)]
        settled_names += settled
        if _dashed(name) not in POOLS:
            alone += settled
    if len(set(alone)) < len(alone):
        raise BadInput(f"--evaluate-on names a network twice: {', '.join(alone)}.")
    return tuple(dict.fromkeys(settled_names))


@torch.inference_mode()
def map_bytes(name: str, card: DataCard) -> int:
    """The size of the largest map that the network of that (full) name makes of one image, in float32."""
    image = torch.zeros(1, card.channels, card.height, card.width)
    return max(4 * maps.numel() for maps in build(name, card).eval().iter_feature_maps(image))


def multiplications(name: str, card: DataCard) -> int:
    """How many multiplications the network of that (full) name makes of one image: of its convolutions and linear
    layers.
    """
    return _multiplications(name, card.channels, card.height, card.width, len(card.classes))


@lru_cache(maxsize=1024)
def _multiplications(name: str, channels: int, height: int, width: int, classes: int) -> int:
    network = _built(name, channels, (height, width), classes)
    with registry.guarded("networks", parse(name)[0].name):
        return threads.multiplications(network, (channels, height, width))


def build(name: str, card: DataCard) -> Network:
    """The network of that (full) name for these images. Draw its weights with `reset` before use."""
    return _built(name, card.channels, (card.height, card.width), len(card.classes))


def _built(name: str, channels: int, size: tuple[int, int], classes: int) -> Network:
    module, options = parse(name)
    # torch's layers draw their first weights from the global generator: it is put back as it was.
    with torch.random.fork_rng(devices=[]), registry.guarded("networks", module.name):
        network: Network = module.build(channels, size, classes, _fitted(module, options, size))
        if not isinstance(network, Network):
            raise TypeError(f"it built {type(network).__name__}, not a Network")
    return network


def _fitted(module: NetworkFamily, options: Options, size: tuple[int, int]) -> Options:
    """The options that suit images of that size."""
    with registry.guarded("networks", module.name):
        fitted = module.fit(options, size)
        if not isinstance(fitted, module.Options):
            raise TypeError(f"it fitted {type(fitted).__name__}, not its Options")
    return fitted
