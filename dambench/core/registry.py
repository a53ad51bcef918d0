"""A name → the plug-in that has it: a method, a dataset, a family of networks, an evaluator or a format of reports.

Each is one file, and the file's name is its name. Packages from outside add theirs by an entry point in the group
`dambench.methods`, `.datasets`, `.networks`, `.evaluators` or `.formats`. Listing names imports nothing, so the console
can list methods without torch.

All are checked once, when they are loaded (`contracts`): whatever is wrong with one from outside is one sentence, and
all else goes on. What it prints goes to stderr. Nothing helps against code that ends the process (`os._exit`) or never
returns.
"""

import ast
import hashlib
import os
import pkgutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, overload

from dambench.core.config import Plugin
from dambench.core.contracts import Contract, Dataset, Evaluator, Format, Method, NetworkFamily, Violation
from dambench.core.errors import BadInput, described, named
from dambench.core.sanitize import display

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = Literal["methods", "datasets", "networks", "evaluators", "formats"]
CONTRACTS: dict[Kind, type[Contract]] = {
    "methods": Method,
    "datasets": Dataset,
    "networks": NetworkFamily,
    "evaluators": Evaluator,
    "formats": Format,
}
KINDS: tuple[Kind, ...] = tuple(CONTRACTS)
PACKAGES: dict[Kind, str] = {kind: f"dambench.{'report.' if kind == 'formats' else ''}{kind}" for kind in KINDS}
"""Where dambench's own are."""

SLOW_IMPORT = 20.0
"""Seconds after which an import that goes on is told of."""


@cache
def names(kind: Kind) -> list[str]:
    """All names of a kind, sorted."""
    return sorted(_built_in(kind) | {entry.name for entry in entries(kind)})


@cache
def _built_in(kind: Kind) -> frozenset[str]:
    """The names of dambench's own. A file whose name begins with an underscore is not one."""
    here = pkgutil.iter_modules([str(_folder(kind))])
    return frozenset(module.name for module in here if not module.name.startswith("_"))


def entry_points(*, group: str) -> "Sequence[EntryPoint]":
    """The entry points of a group in all installed packages."""
    from importlib import metadata  # which takes as long to import as a table to print

    return tuple(metadata.entry_points(group=group))


def entries(kind: Kind) -> "Sequence[EntryPoint]":
    """The entry points of a kind in all installed packages; none, where those of one package cannot be read."""
    with suppress(Exception):  # any package at all can be the one
        return entry_points(group=f"dambench.{kind}")
    return ()


def find(kind: Kind, name: str) -> str:
    """The name of a kind that is meant: `CIFAR-10` → `cifar10`.

    Raises:
        BadInput: there is none; the nearest name is given.
    """
    if name in _built_in(kind):  # to be found without asking what other packages have
        return name
    return named(kind.removesuffix("s"), name, names(kind))


@overload
def load(kind: Literal["methods"], name: str) -> Method: ...
@overload
def load(kind: Literal["datasets"], name: str) -> Dataset: ...
@overload
def load(kind: Literal["networks"], name: str) -> NetworkFamily: ...
@overload
def load(kind: Literal["evaluators"], name: str) -> Evaluator: ...
@overload
def load(kind: Literal["formats"], name: str) -> Format: ...
@overload
def load(kind: Kind, name: str) -> Contract: ...
def load(kind: Kind, name: str) -> Contract:
    """The plug-in of that name, read as `find` does; a built-in one is preferred to one from outside.

    Raises:
        BadInput: there is none, and the nearest name is given; or it comes from outside and cannot be used.
    """
    plugin = _loaded(kind, find(kind, name))
    if isinstance(plugin, str):
        raise BadInput(plugin)
    return plugin


P = TypeVar("P", bound=Contract, covariant=True)


@dataclass(frozen=True)
class Plugins(Generic[P]):
    """All plug-ins of a kind."""

    usable: Mapping[str, P]
    faults: dict[str, str]
    """By its name, why one from outside cannot be used."""
    unused: list[str]
    """A sentence for each one from outside that has a name of dambench's own, or cannot even be listed."""


@overload
def load_all(kind: Literal["methods"]) -> Plugins[Method]: ...
@overload
def load_all(kind: Literal["datasets"]) -> Plugins[Dataset]: ...
@overload
def load_all(kind: Literal["networks"]) -> Plugins[NetworkFamily]: ...
@overload
def load_all(kind: Literal["evaluators"]) -> Plugins[Evaluator]: ...
@overload
def load_all(kind: Literal["formats"]) -> Plugins[Format]: ...
@overload
def load_all(kind: Kind) -> Plugins[Contract]: ...
def load_all(kind: Kind) -> Plugins[Contract]:
    """Import all of a kind. What cannot be used keeps nothing else from being listed."""
    loaded = {name: _loaded(kind, name) for name in names(kind)}
    try:
        unused = [
            f"The {kind.removesuffix('s')} {entry.name!r} of {_package(entry)} is not used: dambench has its own."
            for entry in entry_points(group=f"dambench.{kind}")
            if is_built_in(kind, entry.name)
        ]
    except Exception as error:  # any package at all can be the one
        why = f"a package here has entry points that cannot be read ({described(error)})"
        unused = [f"The {kind} of other packages are not known: {why}; `pip check` may tell which."]
    return Plugins(
        usable={name: plugin for name, plugin in loaded.items() if not isinstance(plugin, str)},
        faults={name: fault for name, fault in loaded.items() if isinstance(fault, str)},
        unused=unused,
    )


@contextmanager
def guarded(kind: Kind, name: str) -> Iterator[None]:
    """Guard calls of a plug-in's functions: what code from outside prints goes to stderr.

    Raises:
        BadInput: it raised something else.
    """
    if is_built_in(kind, name):
        yield
        return
    with stdout_to_stderr():
        try:
            yield
        except BadInput:
            raise
        except (Exception, SystemExit) as error:
            raise BadInput(f"The {kind.removesuffix('s')} {name!r} failed: {described(error)}.") from error


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is printed meanwhile to stderr, also by libraries and child processes: stdout is for data."""
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


def origin(kind: Kind, name: str) -> Plugin | None:
    """The package and the digest of the code that has a name; None: it is built in."""
    entry = None if is_built_in(kind, name) else next((e for e in entries(kind) if e.name == name), None)
    if entry is None:
        return None
    digest = hashlib.sha256()
    for module, source in sorted(_sources(entry.module, {}).items()):
        digest.update(f"{module} {len(source)} ".encode() + source)
    package, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
    return Plugin(kind=kind, name=name, package=package, version=version, sha256=digest.hexdigest())


def _sources(module: str, sources: dict[str, bytes]) -> dict[str, bytes]:
    """The source of a module and of all that it imports of its own package, by name, added to `sources`.

    The sources are read, not run: a module that is imported by a computed name is not among them.
    """
    spec = None if module in sources else find_spec(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return sources
    sources[module] = source = Path(spec.origin).read_bytes()
    if spec.origin.endswith(".py"):
        own = module.partition(".")[0]
        for name in _imported(ast.parse(source), spec.parent or ""):
            if name.partition(".")[0] == own and _exists(name):
                _sources(name, sources)
    return sources


def _imported(tree: ast.Module, package: str) -> set[str]:
    """The modules that a source imports: by `from a import b`, both a and a.b may be one."""
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


def is_built_in(kind: Kind, name: str) -> bool:
    """Whether dambench itself has it."""
    return not name.startswith("_") and (_folder(kind) / f"{name}.py").exists()


def _folder(kind: Kind) -> Path:
    return Path(__file__).parents[1].joinpath(*PACKAGES[kind].split(".")[1:])


@cache
def _loaded(kind: Kind, name: str) -> Contract | str:
    """The plug-in of an existing name, or why it cannot be used."""
    if is_built_in(kind, name):
        return CONTRACTS[kind](name, import_module(f"{PACKAGES[kind]}.{name}"))
    offers = sorted({entry.value: entry for entry in entries(kind) if entry.name == name}.values(), key=_package)
    title = f"The {kind.removesuffix('s')} {display(name, 60)!r} of {_package(offers[0])}"
    if len(offers) > 1:
        others = " and ".join(map(_package, offers[1:]))
        return f"{title} cannot be used: {others} has one of this name, too; uninstall one."
    try:
        with stdout_to_stderr(), _slow_import_notice(title):
            return CONTRACTS[kind](name, import_module(offers[0].module))
    except Violation as violation:
        return f"{title} cannot be used: {violation}."
    except (Exception, SystemExit) as error:
        return f"{title} cannot be used: to import it failed with {described(error)}."


@contextmanager
def _slow_import_notice(title: str) -> Iterator[None]:
    """Print whose import is waited for, should it take long."""
    message = f"{title} has been importing for {SLOW_IMPORT:.0f} s. While it is installed, all that lists it waits."
    timer = threading.Timer(SLOW_IMPORT, lambda: print(message, file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _package(entry: "EntryPoint") -> str:
    """The package that an entry point is of."""
    if entry.dist is None:
        return display(entry.value, 60)
    return display(f"the package {entry.dist.name} {entry.dist.version}", 80)
