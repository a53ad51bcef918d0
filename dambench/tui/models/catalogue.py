"""What can be asked for: methods with their options and recipes, networks, datasets, protocols.

Only torch knows the methods, so `dambench methods --json` and its like are asked, once, and what they say is kept
until another dambench, or another package that adds to it, is installed.
"""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dambench import __version__
from dambench.core import files, reading, registry
from dambench.core.events import DataCard
from dambench.core.protocol import PRESETS, Protocol
from dambench.core.sanitize import display

PATIENCE = 120.0
"""Seconds that a child may take: torch alone takes ten on a busy machine."""

COMMANDS = {"methods": ["methods"], "networks": ["networks"], "datasets": ["data", "list"]}


@dataclass(frozen=True)
class Catalogue:
    """As the commands print it."""

    methods: dict[str, dict[str, Any]]
    networks: dict[str, dict[str, Any]]
    datasets: dict[str, dict[str, Any]]
    trouble: str = ""
    """Why only names are known; empty: all is."""
    protocols: dict[str, Protocol] = field(default_factory=lambda: dict(PRESETS))

    def options(self, kind: str, name: str) -> dict[str, dict[str, Any]]:
        """The JSON schema of each option of a method or dataset."""
        entry = (self.methods if kind == "method" else self.datasets).get(name, {})
        return properties(entry.get("options", {}))

    def recipes(self, method: str) -> list[str]:
        """The names of a method's recipes, the default first."""
        return list(dict.fromkeys(recipe["name"] for recipe in self.methods.get(method, {}).get("recipes", [])))


def properties(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of a struct in its JSON schema."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, dict[str, Any]] = schema.get("$defs", {}).get(name, schema).get("properties", {})
    return found


def bounds(schema: dict[str, Any]) -> str:
    """What an option may be: `a whole number ≥ 1`, `noise or real`."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(filter(None, map(bounds, schema["anyOf"])))
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:,}" for key, sign in signs.items() if key in schema]
    return f"{kinds.get(schema.get('type', ''), '')} {' and '.join(limits)}".strip()


def what(schema: dict[str, Any]) -> str:
    """What an option is."""
    return str(schema.get("description") or next((what(part) for part in schema.get("anyOf", [])), ""))


def path() -> Path:
    """XDG_CACHE_HOME, else ~/.cache, /dambench/catalogue.json."""
    return files.user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dambench" / "catalogue.json"


def installed() -> str:
    """Changes whenever the catalogue could: with our files, and with packages that add to it."""
    package = Path(registry.__file__).parents[1]
    ours = sorted((str(p.relative_to(package)), p.stat().st_mtime_ns) for p in package.rglob("*.py"))
    theirs = sorted(
        (kind, entry.name, entry.value, entry.dist.version if entry.dist else "")
        for kind in registry.KINDS
        for entry in registry.entries(kind)
    )
    said = json.dumps([__version__, sys.executable, str(package), ours, theirs])
    return hashlib.sha256(said.encode()).hexdigest()


def kept() -> Catalogue | None:
    """What was found before, if it still holds: that takes milliseconds."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(reading.content(path()))
        if said["installed"] == installed():
            return _catalogue(said["found"])
    return None


def load() -> Catalogue:
    """What is kept if it still holds, else what children say: that takes seconds."""
    if (before := kept()) is not None:
        return before
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for kind, command in COMMANDS.items():
            found[kind] = _ask(command)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return names(f"Options are not known here: {display(str(error), 300)}")
    with suppress(OSError):
        files.write_whole(path(), json.dumps({"installed": installed(), "found": found}).encode())
    return _catalogue(found)


def _ask(command: list[str]) -> list[dict[str, Any]]:
    """What `dambench … --json` prints.

    Raises:
        ValueError: it failed; in its own words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dambench", *command, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(f"`dambench {' '.join(command)}` ended with {done.returncode}: {last}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _catalogue(found: dict[str, list[dict[str, Any]]]) -> Catalogue:
    methods, networks, datasets = ({entry["name"]: entry for entry in found[kind]} for kind in COMMANDS)
    return Catalogue(methods, networks, datasets)


def names(trouble: str = "Options are being asked for …") -> Catalogue:
    """What is known at once: names."""
    kinds: tuple[registry.Kind, ...] = ("methods", "networks", "datasets")
    methods, networks, datasets = ({name: {"name": name} for name in registry.names(kind)} for kind in kinds)
    return Catalogue(methods, networks, datasets, trouble)


def prepared() -> dict[str, list[DataCard]]:
    """The datasets that are prepared, by name."""
    found: dict[str, list[DataCard]] = {}
    for card in sorted(files.data_folder().glob("*.json")):
        if not card.with_suffix(".safetensors").is_file():
            continue
        with suppress(OSError, msgspec.DecodeError):
            read = msgspec.json.decode(reading.content(card), type=DataCard)
            found.setdefault(read.name, []).append(read)
    return found
