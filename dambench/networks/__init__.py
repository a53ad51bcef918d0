"""The zoo: one family of networks per file.

A network's name says all of it: `convnet-d3-w128` is the ConvNet of depth 3 and width 128 with the family's
default norm, activation and pooling; `convnet-d3-w128-bn` has BatchNorm. A name may leave parts out, which are
then filled in from the size of the images.
"""

from types import ModuleType
from typing import Any

import msgspec
import torch

from dambench import registry
from dambench.config import Options, read
from dambench.display import display
from dambench.errors import BadInput
from dambench.events import DataCard
from dambench.problem import Network


def parse(name: str) -> tuple[ModuleType, Options]:
    """`convnet-d2-bn` → the family's module and its options.

    A family's `PARTS` says how each option is spelled: a prefix for a number, a word for each choice.

    Raises:
        BadInput: no such family, or a part that the family does not know.
    """
    family, *words = name.lower().split("-")
    module = registry.load("networks", family)
    options: dict[str, Any] = {}
    for part in words:
        for option, spelling in module.PARTS.items():
            number = part.removeprefix(spelling) if isinstance(spelling, str) and part.startswith(spelling) else ""
            if number.isascii() and number.isdecimal() and len(number) < 7:
                value: Any = int(number)
            elif isinstance(spelling, dict) and part in spelling:
                value = spelling[part]
            else:
                continue
            if option in options:
                raise BadInput(f"Network {name!r} says its {option} twice: {part!r} is one too many.")
            options[option] = value
            break
        else:
            known = ", ".join(parts(module).values())
            raise BadInput(
                f"In network {display(name, 60)!r}: no part is called {display(part, 60)!r}. A {family} has {known}."
            )
    return module, read(module.Options, options, f"network {name!r}")


def parts(module: ModuleType) -> dict[str, str]:
    """How each option of a family is spelled in a name: `{"depth": "dN", "norm": "in|bn|ln|gn|nn", …}`."""
    return {name: f"{s}N" if isinstance(s, str) else "|".join(s) for name, s in module.PARTS.items()}


def spell(module: ModuleType, options: Options) -> str:
    """The other way: numbers always, choices where they are not the default."""
    name = module.__name__.rpartition(".")[2]
    default = module.Options()
    for option, spelling in module.PARTS.items():
        value = getattr(options, option)
        if isinstance(spelling, str):
            name += f"-{spelling}{value}"
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
    words: dict[str, str] = module.PARTS.get("norm", {})
    if norm in words.values() and not set(name.lower().split("-")) & set(words):
        options = msgspec.structs.replace(options, norm=norm)
    return spell(module, module.fit(options, (card.height, card.width)))


@torch.inference_mode()
def map_bytes(name: str, card: DataCard) -> int:
    """The size of the largest map that the network of that (full) name makes of one image, in float32."""
    image = torch.zeros(1, card.channels, card.height, card.width)
    return max(4 * maps.numel() for maps in build(name, card).eval().look(image))


def build(name: str, card: DataCard) -> Network:
    """The network of that (full) name for these images. Draw its weights with `reset` before use."""
    module, options = parse(name)
    size = (card.height, card.width)
    # torch's layers draw their first weights from the global generator: it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        network: Network = module.build(card.channels, size, len(card.classes), module.fit(options, size))
    return network
