"""Changed protocols: `quick+lr=0.02+synthetic.epochs=400` is quick with another rate and twice the epochs.

The changes are in the protocol's name, so that every score says them, and whoever reads the name can ask for the same
again. Each name is written in one way: fields in the order of a protocol, none that is as it was. It needs no quotes
in a shell: words of a value are joined by hyphens, members of a list by slashes (`augmentation=crop/flip`, or `none`).
"""

import math
import re
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from dambench.core.errors import BadInput, folded, unknown
from dambench.core.sanitize import display

if TYPE_CHECKING:
    from dambench.core.protocol import Protocol

MARK = "+"
"""What each change begins with."""
BUDGETS = ("synthetic", "whole")
KEPT = ("name", "version", "source", "hold_out", *BUDGETS)
"""Fields that are not changed as such: of the budgets their epochs and drops are."""
MOST_TEXT = 500
"""Characters of a protocol's name, its changes included."""
MOST_EPOCHS = 10**6
BOUNDS: dict[str, tuple[float, float, str]] = {
    "batch": (1, 10**6, "a whole number from 1"),
    "synthetic.epochs": (1, MOST_EPOCHS, "a whole number from 1"),
    "whole.epochs": (1, MOST_EPOCHS, "a whole number from 1"),
    "lr": (1e-12, 1e6, "above 0"),
    "momentum": (0, 1 - 1e-12, "from 0 to below 1"),
    "weight_decay": (0, 1e6, "at least 0"),
    "decay": (1e-12, 1, "above 0, and at most 1"),
    "temperature": (1e-12, 1e6, "above 0"),
    "mixing_probability": (0, 1, "from 0 to 1"),
    "mixing_alpha": (1e-12, 1e6, "above 0"),
}
"""What numbers may be, and how that is said."""

Changes = dict[str, str]
"""By field, as `lr` or `synthetic.epochs`, the text of its value."""


def parted(text: str) -> tuple[str, Changes]:
    """`quick+lr=0.02` → `quick` and its changes; the hash of the whole, if it is there, is left out of them.

    Raises:
        BadInput: a change is not of the form NAME=VALUE, or is there twice.
    """
    if len(text) > MOST_TEXT:
        raise BadInput(f"A protocol's name has at most {MOST_TEXT} characters, its changes included.", field="protocol")
    base, *pairs = text.split(MARK)
    if pairs:
        pairs[-1] = pairs[-1].partition("#")[0]
    changes: Changes = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            raise BadInput(
                f"In the protocol {display(text, 100)!r}: {display(pair, 60)!r} is not of the form NAME=VALUE.",
                field="protocol",
            )
        if name in changes:
            raise BadInput(
                f"In the protocol {display(text, 100)!r}: {display(name, 60)} is there twice.", field="protocol"
            )
        changes[name] = value
    return base.strip(), changes


def over(below: object, above: str) -> str:
    """A protocol's text with another on top: one that begins with a change keeps what is below, and changes it.

    Raises:
        BadInput: as `parted`.
    """
    if not above.startswith(MARK) or not isinstance(below, str):
        return above
    base, changes = parted(below)
    return written(base, changes | parted(above)[1])


def written(base: str, changes: Mapping[str, str]) -> str:
    """The text of a protocol with changes; of changes alone for an empty base."""
    return "".join([base, *(f"{MARK}{name}={value}" for name, value in changes.items())])


def text_of(options: Mapping[str, Any]) -> str:
    """`{"lr": 0.02}` → `+lr=0.02`, from what `--set`, a grid or a file says.

    Raises:
        BadInput: a value is neither a number, a text nor true or false.
    """
    for name, value in options.items():
        if not isinstance(value, bool | int | float | str):
            raise BadInput(
                f"protocol.{display(name, 60)} = {display(repr(value), 60)}: it has one value, a number or a text; "
                "members of a list are joined by slashes, as in augmentation=crop/flip.",
                field="protocol",
            )
    return written("", {name: _text(value) for name, value in options.items()})


def changed(protocol: "Protocol", changes: Mapping[str, str]) -> "Protocol":
    """A preset with some fields changed, under the name that says so.

    Where the epochs are changed and the drops of the learning rate are not, the drops move with the epochs.

    Raises:
        BadInput: there is no such field, or it cannot have the value.
    """
    kinds, whose = _kinds(type(protocol)), f"the protocol {display(protocol.name, 60)}"
    fields: dict[str, Any] = {}
    for name, text in changes.items():
        if name not in kinds:
            raise BadInput(f"In {whose}: {unknown('field', name, kinds)}", field="protocol")
        fields[name] = _value(kinds[name], name, text, whose)
    for budget in BUDGETS:
        before, drops, epochs = getattr(protocol, budget), f"{budget}.drops", f"{budget}.epochs"
        total = fields.get(epochs, before.epochs)
        scaled = tuple(sorted({max(1, round(drop * total / before.epochs)) for drop in before.drops}))
        scaled = tuple(drop for drop in scaled if drop < total) if epochs in fields else before.drops
        drop_epochs = fields.setdefault(drops, scaled)
        in_order = list(drop_epochs) == sorted(set(drop_epochs))
        if drop_epochs and not (drop_epochs[0] >= 1 and drop_epochs[-1] < total and in_order):
            raise BadInput(
                f"In {whose}: {drops}={_text(drop_epochs)}: the rate drops after some of {total} epochs, each named "
                "once, in order.",
                field="protocol",
            )
        fields[budget] = type(before)(epochs=total, drops=drop_epochs)
        if drop_epochs == scaled:
            del fields[drops]
    differing = {name: _text(fields[name]) for name in kinds if name in fields and fields[name] != _at(protocol, name)}
    if not differing:
        return protocol
    return msgspec.structs.replace(
        protocol,
        name=written(protocol.name, differing),
        source=f"ours: {protocol.name} with {', '.join(f'{name} {value}' for name, value in differing.items())}",
        **{name: value for name, value in fields.items() if "." not in name},
    )


def changeable(kind: "type[Protocol]") -> list[str]:
    """The fields of a protocol that can be changed."""
    return list(_kinds(kind))


def _kinds(kind: "type[Protocol]") -> dict[str, Any]:
    """What can be changed, in the order of fields, and the type of each."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if name in BUDGETS:
            found |= {f"{name}.epochs": int, f"{name}.drops": tuple[int, ...]}
        elif name in kind.__struct_fields__ and name not in KEPT:
            found[name] = hint
    return found


def _at(protocol: "Protocol", name: str) -> Any:
    value: Any = protocol
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _value(kind: Any, name: str, text: str, whose: str) -> Any:
    """The value of a text.

    Raises:
        BadInput: the field cannot have it.
    """
    forms = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for form in forms:
        if (found := _read(form, name, text)) is not None:
            return found
    may = " or ".join(_in_words(form, name) for form in forms)
    raise BadInput(f"In {whose}: {name}={display(text, 60)}: it may be {may}.", field="protocol")


def _read(form: Any, name: str, text: str) -> Any:
    """The value of a text in one form; None: it is not of this form."""
    if get_origin(form) is Literal:
        return next((word for word in get_args(form) if folded(word) == folded(text)), None)
    if get_origin(form) is tuple:
        if text == "none":
            return ()
        parts = text.split("/")
        if get_args(form)[0] is int:
            return tuple(map(int, parts)) if all(re.fullmatch("[0-9]{1,9}", part) for part in parts) else None
        return tuple(parts) if len(set(parts)) == len(parts) and set(parts) <= set(_operations()) else None
    if form is bool:
        return {"true": True, "on": True, "false": False, "off": False}.get(text.lower())
    if form is not float and not re.fullmatch("[0-9]{1,9}", text):
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    low, high, _ = BOUNDS.get(name, (-math.inf, math.inf, ""))
    if not math.isfinite(number) or not low <= number <= high:
        return None
    return number if form is float else int(number)


def _operations() -> tuple[str, ...]:
    from dambench.core.protocol import DC, DSA

    return (*DSA, *DC)


def _in_words(form: Any, name: str) -> str:
    if get_origin(form) is Literal:
        return " or ".join(map(_text, get_args(form)))
    if get_origin(form) is tuple:
        numbers = "numbers of epochs joined by slashes, as 100/150, or none"
        return numbers if get_args(form)[0] is int else f"none, or some of {'/'.join(_operations())}"
    if form is bool:
        return "true or false"
    return BOUNDS[name][2] if name in BOUNDS else "a number"


def _text(value: Any) -> str:
    """A value as it is written in a name."""
    if isinstance(value, tuple | list):
        return "/".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    return str(value).replace(" ", "-")
