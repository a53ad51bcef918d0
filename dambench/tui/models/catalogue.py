"""Catalogue: all that a run can be made of: methods with their options and recipes, networks, datasets, protocols.

Only torch knows the methods, so `dambench methods --json` and its like are asked, once, and what they say is kept
until another dambench, or another package that adds to it, is installed.
"""

import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec import Struct

from dambench import __version__
from dambench.core import files, reading, registry
from dambench.core.errors import BadInput
from dambench.core.events import DataCard
from dambench.core.protocol import PRESETS, Protocol, preset
from dambench.core.sanitize import display

CHILD_SECONDS = 120.0
"""Seconds that a child may take: torch alone takes ten on a busy machine."""

COMMANDS = {"methods": ["methods"], "networks": ["networks"], "datasets": ["data", "list"]}


class OptionSchema(
    Struct,
    frozen=True,
    kw_only=True,
    rename={"any_of": "anyOf", "above": "exclusiveMinimum", "below": "exclusiveMaximum"},
):
    """An option of a method or dataset: of its JSON schema, what a form shows."""

    type: str = ""
    description: str = ""
    enum: tuple[str | int | float | bool | None, ...] = ()
    any_of: tuple["OptionSchema", ...] = ()
    minimum: int | float | None = None
    above: int | float | None = None
    maximum: int | float | None = None
    below: int | float | None = None

    @property
    def bounds(self) -> str:
        """The values that it may have: `a whole number ≥ 1`, `noise or real`."""
        if self.enum:
            return " or ".join(map(str, self.enum))
        if self.any_of:
            return " or ".join(filter(None, (schema.bounds for schema in self.any_of)))
        kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
        limits = {"≥": self.minimum, ">": self.above, "≤": self.maximum, "<": self.below}
        shown = [f"{sign} {limit:,}" for sign, limit in limits.items() if limit is not None]
        return f"{kinds.get(self.type, '')} {' and '.join(shown)}".strip()

    @property
    def meaning(self) -> str:
        """Its description, or that of one of its forms."""
        return self.description or next((schema.meaning for schema in self.any_of), "")


class _Properties(Struct, frozen=True):
    properties: dict[str, OptionSchema] = {}


class OptionsSchema(Struct, frozen=True, rename={"ref": "$ref", "defs": "$defs"}):
    """The JSON schema of a struct of options."""

    ref: str = ""
    defs: dict[str, _Properties] = {}

    @property
    def fields(self) -> dict[str, OptionSchema]:
        return self.defs.get(self.ref.rpartition("/")[2], _Properties()).properties


class RecipeName(Struct, frozen=True):
    name: str


class CatalogueEntry(Struct, frozen=True):
    """A method, a network or a dataset, as the commands print it."""

    name: str
    what: str = ""
    paper: str = ""
    options: OptionsSchema = OptionsSchema()
    recipes: tuple[RecipeName, ...] = ()
    source: str = ""
    files: tuple[str, ...] = ()
    instead: str = ""


@dataclass(frozen=True)
class Catalogue:
    """Methods, networks, datasets and protocols, by name."""

    methods: dict[str, CatalogueEntry]
    networks: dict[str, CatalogueEntry]
    datasets: dict[str, CatalogueEntry]
    trouble: str = ""
    """Why only names are known; empty: all is."""
    protocols: dict[str, Protocol] = field(default_factory=lambda: dict(PRESETS))

    def protocol(self, name: str) -> Protocol | None:
        """A protocol, with its changes; None: it is not of this version."""
        with suppress(BadInput):
            return self.protocols.get(name) or preset(name)
        return None

    def method(self, name: str) -> CatalogueEntry:
        """A method, of which nothing may be known but its name."""
        return self.methods.get(name, CatalogueEntry(name))

    def dataset(self, name: str) -> CatalogueEntry:
        """A dataset, of which nothing may be known but its name."""
        return self.datasets.get(name, CatalogueEntry(name))

    def options(self, kind: str, name: str) -> dict[str, OptionSchema]:
        """The options of a method or dataset."""
        return (self.method(name) if kind == "method" else self.dataset(name)).options.fields

    def recipes(self, method: str) -> list[str]:
        """The names of a method's recipes, the default first."""
        return list(dict.fromkeys(recipe.name for recipe in self.method(method).recipes))


class _Kept(Struct):
    """The catalogue as a file."""

    installed: str
    entries: dict[str, list[CatalogueEntry]]


def path() -> Path:
    """XDG_CACHE_HOME, else ~/.cache, /dambench/catalogue.json."""
    return files.user_folder("cache") / "catalogue.json"


def installed() -> str:
    """Changes whenever the catalogue could: with our files, and with packages that add to it."""
    package = Path(registry.__file__).parents[1]
    ours = sorted((str(p.relative_to(package)), p.stat().st_mtime_ns) for p in package.rglob("*.py"))
    theirs = sorted(
        (kind, entry.name, entry.value, entry.dist.version if entry.dist else "")
        for kind in registry.KINDS
        for entry in registry.entries(kind)
    )
    identity = json.dumps([__version__, sys.executable, str(package), ours, theirs])
    return hashlib.sha256(identity.encode()).hexdigest()


def kept() -> Catalogue | None:
    """The catalogue of an earlier time, if it still holds: that takes milliseconds."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        stored = msgspec.json.decode(reading.content(path()), type=_Kept)
        if stored.installed == installed():
            return _catalogue(stored.entries)
    return None


def load() -> Catalogue:
    """The catalogue that is kept if it still holds, else what children answer: that takes seconds."""
    if (earlier := kept()) is not None:
        return earlier
    file = path()  # of the environment in which the children are asked
    entries: dict[str, list[CatalogueEntry]] = {}
    try:
        for kind, command in COMMANDS.items():
            entries[kind] = _ask(command)
    except (OSError, ValueError, msgspec.MsgspecError, subprocess.SubprocessError) as error:
        return names(f"Options are not known here: {display(str(error), 300)}")
    with suppress(OSError):
        files.write_whole(file, msgspec.json.encode(_Kept(installed(), entries)))
    return _catalogue(entries)


def _ask(command: list[str]) -> list[CatalogueEntry]:
    """Run `dambench … --json`.

    Raises:
        ValueError: it failed; in its own words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dambench", *command, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=CHILD_SECONDS,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(f"`dambench {' '.join(command)}` ended with {done.returncode}: {last}")
    return msgspec.json.decode(done.stdout, type=list[CatalogueEntry])


def _catalogue(entries: dict[str, list[CatalogueEntry]]) -> Catalogue:
    methods, networks, datasets = ({entry.name: entry for entry in entries[kind]} for kind in COMMANDS)
    return Catalogue(methods, networks, datasets)


def names(trouble: str = "Options are being asked for …") -> Catalogue:
    """The catalogue as it is known at once: names."""
    kinds: tuple[registry.Kind, ...] = ("methods", "networks", "datasets")
    methods, networks, datasets = ({name: CatalogueEntry(name) for name in registry.names(kind)} for kind in kinds)
    return Catalogue(methods, networks, datasets, trouble)


def prepared() -> dict[str, list[DataCard]]:
    """The datasets that are prepared, by name."""
    cards: dict[str, list[DataCard]] = {}
    for path in sorted(files.data_folder().glob("*.json")):
        if not path.with_suffix(".safetensors").is_file():
            continue
        with suppress(OSError, msgspec.DecodeError):
            read = msgspec.json.decode(reading.content(path), type=DataCard)
            cards.setdefault(read.name, []).append(read)
    return cards
