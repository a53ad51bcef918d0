"""Keys: a name for everything that a key does, and the keys that its user would rather press.

A name is the place and the words that help says of it: `runs.filter`, `live.log-y`, `everywhere.quit`.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from textual.binding import Binding, BindingType
from textual.keys import KEY_NAME_REPLACEMENTS, KEY_TO_UNICODE_NAME, REPLACED_KEYS, Keys

from dambench.core.errors import BadInput, unknown

EVERYWHERE, ROWS = "everywhere", "rows"
"""The places whose keys hold in every screen, and in every list and table."""

EDITING = {
    *("tab", "shift+tab", "enter", "space", "up", "down", "left", "right", "home", "end", "backspace", "delete"),
    *("ctrl+left", "ctrl+right", "ctrl+shift+left", "ctrl+shift+right", "shift+left", "shift+right", "shift+home"),
    *("shift+end", "ctrl+a", "ctrl+c", "ctrl+d", "ctrl+e", "ctrl+f", "ctrl+h", "ctrl+i", "ctrl+j", "ctrl+k", "ctrl+m"),
    *(
        "ctrl+u",
        "ctrl+v",
        "ctrl+w",
        "ctrl+x",
        "ctrl+backspace",
        "ctrl+shift+a",
        "alt+backspace",
        "super+backspace",
        "super+c",
        "super+v",
        "super+x",
    ),
}
"""Keys that move about in a line that is typed, change it or leave it: for such a line first, or in its place."""

MOVING = {"tab", "shift+tab", "ctrl+i"}
"""Keys that move from pane to pane in every place."""

_NAMED = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values())


def shown(chosen: Mapping[str, str]) -> dict[str, str]:
    """The first key for each name, as a hint on the screen writes it."""
    first = {name: keys.split(",")[0].strip() for name, keys in chosen.items()}
    return {name: "esc" if key == "escape" else character(key).strip() or key for name, key in first.items()}


class KeyRow(NamedTuple):
    """One thing that a key does."""

    name: str
    keys: str
    """As Textual writes them, with commas between."""
    meaning: str
    while_typing: bool = False
    """It is pressed where characters are typed, and can be none of them."""
    action: str = ""
    """What Textual calls it, without where it is."""


def named(place: str, bindings: Iterable[BindingType]) -> list[BindingType]:
    """Give each binding the name that preferences may call it by.

    Args:
        place: the name of the screen, or EVERYWHERE.
    """
    return [
        replace(binding, id=binding.id or f"{place}.{_slug(binding.description or binding.action)}")
        for binding in Binding.make_bindings(bindings)
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def rows(bindings: Iterable[Binding]) -> Iterator[KeyRow]:
    """What can be done by keys, each once."""
    by_name: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_name.setdefault(binding.id or "", []).append(binding)
    for name, same in by_name.items():
        if name:
            first = same[0]
            every = dict.fromkeys(one.key for one in same)
            typing = name.startswith("form.") or (first.priority and "+" in first.key)
            meaning = first.tooltip or first.description or first.action
            yield KeyRow(name, ",".join(every), meaning, typing, first.action.removeprefix("app."))


def check(chosen: Mapping[str, str], known: Iterable[KeyRow], whose: str) -> None:
    """See that these keys can be had.

    Args:
        chosen: keys by name.
        known: all that can be done by keys.
        whose: what the sentence of an error calls them.

    Raises:
        BadInput: there is no such name or key, or one key would do two things in one place.
    """
    rows = {row.name: row for row in known}
    for name, keys in chosen.items():
        if name not in rows:
            raise BadInput(f"In {whose}: {unknown('key', name, rows)}")
        for key in map(str.strip, keys.split(",")):
            if not is_key(key):
                raise BadInput(
                    f"In {whose}: {name} = {key!r} is no key: one character, or a name such as ctrl+g, f6 or comma."
                )
            if key in MOVING and key not in _long_names(rows[name].keys):
                raise BadInput(
                    f"In {whose}: {name} = {key!r} moves from pane to pane in every place: take another key."
                )
            if rows[name].while_typing and (len(key) == 1 or _character(key)):
                raise BadInput(f"In {whose}: {name} = {key!r} would be typed where text is: ctrl+g or f6 would not.")
            if rows[name].while_typing and key in EDITING and key not in _long_names(rows[name].keys):
                raise BadInput(f"In {whose}: {name} = {key!r} edits text where it is typed: ctrl+g or f6 does not.")
    for name in chosen:
        for other in rows:
            if other != name and (key := _clash(name, other, rows, chosen)):
                raise BadInput(
                    f"In {whose}: {key} would do two things, {name} and {other}: give {other} another key too."
                )


def _clash(name: str, other: str, rows: Mapping[str, KeyRow], chosen: Mapping[str, str]) -> str:
    """The key that would do both things in one place, and does not as they come; empty: there is none."""
    places = {name.partition(".")[0], other.partition(".")[0]}
    apart = len(places) > 1 and not places & {EVERYWHERE, ROWS}
    if apart or (ROWS in places and places & {"form", "live", "run"}) or rows[name].action == rows[other].action:
        return ""
    usual, now, others = (
        _long_names(keys) for keys in (rows[name].keys, chosen[name], chosen.get(other, rows[other].keys))
    )
    return next((key for key in now if key in others and key not in usual), "")


def _long_names(keys: str) -> list[str]:
    return [_long(key.strip()) for key in keys.split(",")]


def character(key: str) -> str:
    """The character that a key types, by the name that Textual gives it; empty: none."""
    return key if len(key) == 1 else _character(REPLACED_KEYS.get(key, key))


def is_key(key: str) -> bool:
    """Whether Textual has a key of that name."""
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    if not set(modifiers) <= {"ctrl", "shift", "alt"}:
        return False
    return (len(last) == 1 and last.isprintable()) or key in _NAMED or last in _NAMED or _character(last) != ""


def _character(name: str) -> str:
    """The character of a name such as `question_mark`; empty: there is none."""
    try:
        character = unicodedata.lookup(KEY_TO_UNICODE_NAME.get(name, name.replace("_", " ")))
    except KeyError:
        return ""
    return character if character.isprintable() else ""


def _long(key: str) -> str:
    """A key by the name that Textual gives it: `question_mark` for `?`."""
    if len(key) != 1 or key.isalnum():
        return key
    name = unicodedata.name(key, key).lower().replace("-", "_").replace(" ", "_")
    return KEY_NAME_REPLACEMENTS.get(name, name)
