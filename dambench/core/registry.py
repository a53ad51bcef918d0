"""A name → the one module that implements it.

Methods, datasets and networks are one file each, and the file's name is the name. Packages from outside add
theirs by an entry point in the group `dambench.methods`, `dambench.datasets` or `dambench.networks`. Listing
names imports nothing, so the console can list methods without torch.

What comes from outside is looked at once, when it is imported: whatever is wrong with it is one sentence, and all else
goes on. What it prints goes to stderr. Nothing helps against code that ends the process (`os._exit`) or never returns.
"""

import ast
import hashlib
import os
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_type_hints

import msgspec

from dambench.core.config import Options, Plugin, Recipe, read
from dambench.core.errors import BadInput, named
from dambench.core.sanitize import display

Kind = Literal["methods", "datasets", "networks"]
KINDS: tuple[Kind, ...] = ("methods", "datasets", "networks")

PATIENCE = 20.0
"""Seconds of an import after which it is said whose it is."""

NAME = {"methods": "[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", "datasets": "[A-Za-z0-9][A-Za-z0-9_-]{0,59}"}
"""Of what comes from outside: names become parts of commands and of files."""
FAMILY = "[a-z][a-z0-9]{0,39}"
"""Of a family of networks, whose name is only the first part of a network's."""


class Part(NamedTuple):
    """What a module must have."""

    name: str
    what: str
    fits: Callable[[Any], bool]


_OPTIONS = Part(
    "Options",
    "a class derived from dambench.core.config.Options",
    lambda value: isinstance(value, type) and issubclass(value, Options),
)


def _text(name: str, what: str = "a text") -> Part:
    return Part(name, what, lambda value: isinstance(value, str))


def _function(name: str) -> Part:
    return Part(name, "a function", callable)


PARTS: dict[Kind, tuple[Part, ...]] = {
    "methods": (
        _OPTIONS,
        _text("PAPER"),
        Part("MATCHES_ON_NETWORK", "True or False", lambda value: isinstance(value, bool)),
        Part(
            "RECIPES",
            "a tuple of dambench.core.config.Recipe",
            lambda value: isinstance(value, tuple) and all(isinstance(recipe, Recipe) for recipe in value),
        ),
        _function("distill"),
    ),
    "datasets": (
        _OPTIONS,
        Part("SOURCE", "package, download or path", lambda value: value in ("package", "download", "path")),
        _text("NETWORK", "the name of a network, or an empty text"),
        _function("fingerprint"),
        _function("load"),
    ),
    "networks": (
        _OPTIONS,
        Part("PARTS", "a dict of options and how they are spelled", lambda value: isinstance(value, dict)),
        _function("fit"),
        _function("build"),
    ),
}


@cache
def names(kind: Kind) -> list[str]:
    """All names of a kind, sorted. A file whose name begins with an underscore is not one."""
    here = Path(__file__).parents[1] / kind
    built_in = {module.name for module in pkgutil.iter_modules([str(here)]) if not module.name.startswith("_")}
    return sorted(built_in | {entry.name for entry in offered(kind)})


def offered(kind: Kind) -> Sequence[EntryPoint]:
    """What installed packages offer of a kind: nothing, where what one of them says of itself cannot be read."""
    with suppress(Exception):  # any package at all can be the one
        return tuple(entry_points(group=f"dambench.{kind}"))
    return ()


def find(kind: Kind, name: str) -> str:
    """The name of a kind that is meant: `CIFAR-10` → `cifar10`.

    Raises:
        BadInput: there is none; the nearest name is given.
    """
    return named(kind.removesuffix("s"), name, names(kind))


def load(kind: Kind, name: str) -> ModuleType:
    """The module of that name, read as `find` does; a built-in one is preferred to one from outside.

    Raises:
        BadInput: there is none, and the nearest name is given; or it comes from outside and cannot be used.
    """
    found = _found(kind, find(kind, name))
    if isinstance(found, str):
        raise BadInput(found)
    return found


class Known(NamedTuple):
    """All modules of a kind."""

    modules: dict[str, ModuleType]
    faults: dict[str, str]
    """By its name, why one from outside cannot be used."""
    unused: list[str]
    """What is from outside and has a name that dambench itself has, or cannot even be listed: a sentence each."""


def everything(kind: Kind) -> Known:
    """Import all of a kind. What cannot be used keeps nothing else from being listed."""
    found = {name: _found(kind, name) for name in names(kind)}
    return Known(
        modules={name: module for name, module in found.items() if not isinstance(module, str)},
        faults={name: fault for name, fault in found.items() if isinstance(fault, str)},
        unused=[
            f"The {kind.removesuffix('s')} {entry.name!r} of {_whose(entry)} is not used: dambench has its own."
            for entry in offered(kind)
            if is_built_in(kind, entry.name)
        ]
        + _unreadable(kind),
    )


@contextmanager
def foreign(kind: Kind, name: str) -> Iterator[None]:
    """Around calls of a module's functions: what code from outside prints goes to stderr.

    Raises:
        BadInput: it raised something else.
    """
    if is_built_in(kind, name):
        yield
        return
    with aside():
        try:
            yield
        except BadInput:
            raise
        except (Exception, SystemExit) as error:
            raise BadInput(f"The {kind.removesuffix('s')} {name!r} failed: {_raised(error)}.") from error


@contextmanager
def aside() -> Iterator[None]:
    """What is printed meanwhile, also by libraries and child processes, goes to stderr: stdout is for data."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    kept = -1
    with suppress(OSError):
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)


def plugin(kind: Kind, name: str) -> Plugin | None:
    """Which code answers to a name, if it is from outside; None: it is built in."""
    entry = None if is_built_in(kind, name) else next((e for e in offered(kind) if e.name == name), None)
    if entry is None:
        return None
    digest = hashlib.sha256()
    for module, source in sorted(_sources(entry.module, {}).items()):
        digest.update(f"{module} {len(source)} ".encode() + source)
    package, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
    return Plugin(kind=kind, name=name, package=package, version=version, sha256=digest.hexdigest())


def _sources(module: str, found: dict[str, bytes]) -> dict[str, bytes]:
    """The source of a module and of all that it imports of its own package, by name, added to `found`.

    Found by reading, not by running: what is imported by a computed name is not seen.
    """
    spec = None if module in found else find_spec(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return found
    found[module] = source = Path(spec.origin).read_bytes()
    if spec.origin.endswith(".py"):
        own = module.partition(".")[0]
        for name in _imported(ast.parse(source), spec.parent or ""):
            if name.partition(".")[0] == own and _exists(name):
                _sources(name, found)
    return found


def _imported(tree: ast.Module, package: str) -> set[str]:
    """What a source imports. Of `from a import b` both a and a.b may be a module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return names


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # a part of it is no package
        return False


def headline(module: ModuleType) -> str:
    """What a module is: the first line of its docstring."""
    return str(module.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def is_built_in(kind: Kind, name: str) -> bool:
    """Whether dambench itself has it."""
    return not name.startswith("_") and (Path(__file__).parents[1] / kind / f"{name}.py").exists()


@cache
def _found(kind: Kind, name: str) -> ModuleType | str:
    """The module of a name that is known, or why it cannot be used."""
    if is_built_in(kind, name):
        return import_module(f"dambench.{kind}.{name}")
    entries = sorted({entry.value: entry for entry in offered(kind) if entry.name == name}.values(), key=_whose)
    called = f"The {kind.removesuffix('s')} {display(name, 60)!r} of {_whose(entries[0])} cannot be used"
    if len(entries) > 1:
        return f"{called}: {' and '.join(map(_whose, entries[1:]))} has one of this name, too; uninstall one."
    try:
        with aside(), _patiently(f"The {kind.removesuffix('s')} {display(name, 60)!r} of {_whose(entries[0])}"):
            module = import_module(entries[0].module)
    except (Exception, SystemExit) as error:
        return f"{called}: to import it failed with {_raised(error)}."
    fault = _fault(kind, name, module)
    return f"{called}: {fault}." if fault else module


@contextmanager
def _patiently(what: str) -> Iterator[None]:
    """Say who it is that one waits for, should it take long."""
    said = f"{what} has been importing for {PATIENCE:.0f} s. While it is installed, all that lists it waits."
    timer = threading.Timer(PATIENCE, lambda: print(said, file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _unreadable(kind: Kind) -> list[str]:
    try:
        entry_points(group=f"dambench.{kind}")
    except Exception as error:
        why = f"a package here has entry points that cannot be read ({_raised(error)})"
        return [f"The {kind} of other packages are not known: {why}; `pip check` may tell which."]
    return []


def _whose(entry: EntryPoint) -> str:
    """The package that an entry point is of."""
    if entry.dist is None:
        return display(entry.value, 60)
    return display(f"the package {entry.dist.name} {entry.dist.version}", 80)


def _raised(error: BaseException) -> str:
    """An exception in one line, whatever it holds."""
    try:
        said = display(str(error), 200)
    except Exception:  # of a class from outside
        said = ""
    return f"{type(error).__name__}{f': {said}' if said else ''}".rstrip(".")


def _fault(kind: Kind, name: str, module: ModuleType) -> str:
    """What a module from outside lacks; empty: nothing."""
    if not re.fullmatch(NAME.get(kind, FAMILY), name):
        return f"its name is not of the form {NAME.get(kind, FAMILY)}"
    for part in PARTS[kind]:
        if not hasattr(module, part.name):
            return f"{display(module.__name__, 80)} has no {part.name} ({part.what})"
        if not part.fits(getattr(module, part.name)):
            return f"its {part.name} is not {part.what}"
    try:
        module.Options()
        msgspec.json.schema(module.Options)
        get_type_hints(module.Options)
    except Exception as error:
        return f"its Options must have a default each, of a kind that JSON has: {_raised(error)}"
    try:
        for recipe in getattr(module, "RECIPES", ()):
            read(module.Options, recipe.options, f"its recipe {recipe.name!r}")
            msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe)
    except Exception as error:
        return f"its RECIPES are wrong: {_raised(error)}"
    if kind == "networks":
        if module.__name__.rpartition(".")[2] != name:
            return f"its module {display(module.__name__, 80)!r} must be called as the network is"
        for option, spelling in module.PARTS.items():
            plain = isinstance(spelling, str) and re.fullmatch("[a-z]{0,20}", spelling)
            if option not in module.Options.__struct_fields__ or not (plain or isinstance(spelling, dict)):
                return f"its PARTS spell {option!r}, which is no option, or not as a prefix or a dict of words"
    return ""
