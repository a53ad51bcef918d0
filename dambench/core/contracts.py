"""The contracts of plug-ins: one class for each kind says what a module must have and what it may have.

A plug-in is a module: a file in `dambench/methods`, `datasets`, `networks`, `evaluators` or `report/formats`, or one of
another package that has an entry point for it. It is checked once, when it is loaded, against the class of its kind,
and an instance of that class stands for it from then on. What the class has no value for, and its `required` functions,
must be in the module; for whatever else the module leaves out, the class's value or function stands.

(A `typing.Protocol` has no defaults for a module that leaves something out, and is checked by nobody at run time.)
"""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from dambench.core import config
from dambench.core.arms import Arm
from dambench.core.config import PreprocessingName, Recipe, read
from dambench.core.errors import BadInput, described
from dambench.core.events import DataCard, Metric
from dambench.core.items import Item
from dambench.core.protocol import Protocol
from dambench.core.sanitize import display

if TYPE_CHECKING:
    from dambench.datasets import Raw
    from dambench.evaluators import Context, Finding
    from dambench.store.leaderboard import Leaderboard
    from dambench.training.problem import Network, Notice, Problem, State, Step

Function = TypeVar("Function", bound=Callable[..., Any])


MOST_VERSION = 10**9


class Violation(ValueError):
    """A module does not keep the contract of its kind. The text is a clause: `its PAPER is not a text`."""


def required(function: Function) -> Function:
    """Mark a function of a contract that every module must have."""
    vars(function)["required"] = True
    return function


def optional(function: Function) -> Function:
    """Mark a function of a contract that a module may leave out: then it is what the contract's does."""
    vars(function)["required"] = False
    return function


class Contract:
    """The part that plug-ins of all kinds have in common.

    Args:
        name: what it is called on the command line.

    Raises:
        Violation: the module does not keep the contract.
    """

    NAMES = "[A-Za-z0-9][A-Za-z0-9_.-]{0,59}"
    """The form of a name: it becomes a part of commands and of files."""

    def __init__(self, name: str, module: ModuleType):
        self.name, self.module = name, module
        if not re.fullmatch(self.NAMES, name):
            raise Violation(f"its name is not of the form {self.NAMES}")
        for key, hint in get_type_hints(type(self)).items():
            self._take(key, hint, has_default=hasattr(type(self), key))
        for key, function in inspect.getmembers(type(self), lambda member: hasattr(member, "required")):
            self._take(key, Callable, has_default=not function.required)
            _check_signature(key, getattr(self, key), list(inspect.signature(function).parameters)[1:])
        if options := getattr(self, "Options", None):
            _check_options(options)
        self._check()

    @property
    def headline(self) -> str:
        """The first line of the module's docstring."""
        return str(self.module.__doc__ or "").strip().partition("\n")[0].rstrip(".")

    def _take(self, name: str, hint: Any, has_default: bool) -> None:
        """Take over what the module has under a name of the contract."""
        if not hasattr(self.module, name):
            if not has_default:
                raise Violation(f"{display(self.module.__name__, 80)} has no {name} ({_in_words(hint)})")
            return
        value = getattr(self.module, name)
        if not _fits(value, hint):
            raise Violation(f"its {name} is not {_in_words(hint)}")
        setattr(self, name, value)

    def _check(self) -> None:
        """Check what only plug-ins of this kind promise."""


class Method(Contract):
    """A way to make a small set of a large one."""

    Options: type[config.Options]
    PAPER: str = ""
    """Its address."""
    VERSION: int = 1
    """Raised when other sets come of the same settings: scores of two versions are in rows of their own."""
    MATCHES_ON_NETWORK: bool = True
    """Whether the synthetic set depends on a network; where that depends on options, `needs_network` says it."""
    USES_TRAINING_SET: bool = True
    """Whether the set is made from the training images that it is given, and no others."""
    REDUCED_PRECISION: bool = True
    """Whether `--precision bf16` makes a difference."""
    SUMS_OVER_CLASSES: bool = False
    """Whether its loss is a sum over classes of what depends on the images of each alone, on a network without
    BatchNorm, and it heeds `problem.ranks`: then several processes can share a run."""
    TEACHES: bool = False
    """Whether its sets may name a teacher, whose labels a protocol may take; `names_teacher` says when."""
    PLAIN_PIXELS: bool = False
    """Whether it learns pixels from black to white, which whitened images have not."""
    RECIPES: tuple[Recipe, ...] = ()
    """Published settings. The first one called `default` that fits stands below what is asked for."""

    @required
    def distill(self, problem: "Problem", options: Any, resume: "State | None" = None) -> "Iterator[Step | Notice]":
        """Yield a `Step` after each iteration, `Progressed` on the way to one that takes more than moments.

        What a reader of the result should know is yielded as `Warned`. A run can be stopped only at a `Step` or a
        `Progressed`.

        Args:
            resume: what the `state` of a step gave: go on from there, bit for bit.
        """
        raise NotImplementedError

    @optional
    def check(self, network: "Network", options: Any) -> None:
        """Refuse what cannot be done, before a run begins.

        Raises:
            BadInput: the network is none to match on, or the options contradict each other.
        """

    @optional
    def needs_network(self, options: Any) -> bool:
        """Whether a set of these options depends on a network."""
        return self.MATCHES_ON_NETWORK

    @optional
    def names_teacher(self, options: Any) -> bool:
        """Whether a set of these options names a teacher."""
        return self.TEACHES

    @optional
    def settle(self, options: Any, card: DataCard, ipc: int | None) -> tuple[Any, PreprocessingName | None]:
        """Write out options that name files.

        Returns:
            The options with whole names, and the preprocessing that the files bring, if they bring any.

        Raises:
            BadInput: a file is not there, or is none for these data.
        """
        return options, None

    def _check(self) -> None:
        _check_version(self.VERSION)
        try:
            for recipe in self.RECIPES:
                read(self.Options, recipe.options, f"its recipe {recipe.name!r}")
                msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe)
        except Exception as error:
            raise Violation(f"its RECIPES are wrong: {described(error)}") from error


class Dataset(Contract):
    """Real images, with a test set."""

    NAMES = "[A-Za-z0-9][A-Za-z0-9_-]{0,59}"

    Options: type[config.Options]
    SOURCE: Literal["package", "download", "path"] = "path"
    """Where its images come from: they are installed with a package, downloaded, or the user's own."""
    NETWORK: str = "convnet"
    """The network that suits it."""
    FILES: Collection[str] = ()
    """The raw files that are downloaded …"""
    INSTEAD: str = ""
    """… and one that may be there for all of them."""

    @required
    def fingerprint(self, options: Any, data: Path | None) -> str:
        """Say what the images are recognised by: as long as it is the same they are not read again.

        Args:
            data: where the raw data are.
        """
        raise NotImplementedError

    @required
    def load(self, options: Any, data: Path | None) -> "Raw":
        """Read the images.

        Raises:
            BadInput, OSError: they are not there, or not as they should be.
        """
        raise NotImplementedError

    def _check(self) -> None:
        self.NETWORK = self.NETWORK or type(self).NETWORK


class NetworkFamily(Contract):
    """Networks that differ in their options only. A network's name is the family's and the options', by `PARTS`."""

    NAMES = "[a-z][a-z0-9]{0,39}"

    Options: type[config.Options]
    PARTS: dict[str, Any] = {}  # noqa: RUF012
    """By option, how it is spelled in a name: a prefix for a number, or a word for each value."""

    @required
    def build(self, channels: int, size: tuple[int, int], classes: int, options: Any) -> "Network":
        """Make one for images of that size, with any weights."""
        raise NotImplementedError

    @optional
    def fit(self, options: Any, size: tuple[int, int]) -> Any:
        """Fill in the options that depend on the size of the images.

        Raises:
            BadInput: no network of the family suits them.
        """
        return options

    def _check(self) -> None:
        if self.module.__name__.rpartition(".")[2] != self.name:
            raise Violation(f"its module {display(self.module.__name__, 80)!r} must be called as the network is")
        for option, spelling in self.PARTS.items():
            words = spelling if isinstance(spelling, dict) else {}
            prefix = isinstance(spelling, str) and re.fullmatch("[a-z]{0,20}", spelling)
            plain = words and all(isinstance(word, str) and re.fullmatch("[a-z0-9]{1,20}", word) for word in words)
            if option not in self.Options.__struct_fields__ or not (prefix or plain):
                raise Violation(
                    f"its PARTS spell {option!r}, which is no option, or not as a prefix or a dict of words"
                )


class Evaluator(Contract):
    """A way to measure a set."""

    Options: type[config.Options]
    METRICS: dict[str, Metric]
    """The numbers that it measures, by name."""
    VERSION: int = 1
    """Raised when it comes to give other numbers."""
    REPEATABLE: bool = True
    """Whether one set has the same values whenever it is measured. False: they depend on the machine, too, and are
    not taken over from a run on another one."""
    QUICK: dict[str, Any] = {}  # noqa: RUF012
    """Options under which it takes moments on a tiny set: its promises are checked with them."""
    SHARES: bool = False
    """Whether it keeps parts of items for other sets, so that one may take less than in a run of the past."""

    @required
    def evaluate(self, context: "Context", options: Any, resume: Collection[tuple[str, int]]) -> "Iterator[Finding]":
        """Yield `Measured` for each subject and repeat; `Progressed` on the way to it.

        Args:
            context: the set, the real images and what else there is to measure it by.
            resume: subjects and repeats that were measured before; `context.known` has their values.
        """
        raise NotImplementedError

    @optional
    def arms(self, protocol: Protocol) -> tuple[Arm, ...]:
        """Name the accuracies that it needs, so that those that are not on record are measured first, by runs.

        Raises:
            BadInput: there can be none under this protocol.
        """
        return ()

    @optional
    def halves(self, options: Any) -> int:
        """How many sets it needs that are made anew from random halves of the training images, where they can be."""
        return 0

    @optional
    def items(self, context: "Context", options: Any) -> Sequence[Item]:
        """List everything that `evaluate` will have Measured, in its order, before a run begins. It takes moments.

        `Progressed` counts the cost of all of them, so that one which is cut short can be extrapolated.

        Raises:
            BadInput: there can be nothing of the kind for this set.
        """
        return [Item(name, repeat, name) for name in context.networks for repeat in range(context.repeats)]

    @optional
    def further_metrics(self, card: DataCard) -> dict[str, Metric]:
        """Describe the metrics that only some datasets have, such as one for each class."""
        return {}

    @optional
    def metrics_of(self, options: Any) -> dict[str, Metric]:
        """Describe the metrics that these options ask for, such as one for each budget."""
        return {}

    def metrics(self, card: DataCard, options: Any) -> dict[str, Metric]:
        """Describe all metrics that it may take on these data with these options.

        Raises:
            BadInput: it is from outside, and one of them has no proper name or description.
        """
        further = self.further_metrics(card) | self.metrics_of(options)
        try:
            _check_metrics(further)
        except Violation as error:
            raise BadInput(f"The evaluator {self.name} cannot be used: {error}.") from None
        return self.METRICS | further

    def _check(self) -> None:
        _check_version(self.VERSION)
        if not self.METRICS:
            raise Violation("its METRICS are empty, so it measures nothing")
        try:
            read(self.Options, self.QUICK, "its QUICK")
        except Exception as error:
            raise Violation(f"its QUICK is wrong: {described(error)}") from error
        _check_metrics(self.METRICS)


class Format(Contract):
    """A way to write the leaderboard as a text."""

    SUFFIXES: tuple[str, ...] = ()
    """The suffixes of its files, `.md`."""
    SHORT: bool = False
    """Whether it has a short form, of the tables of accuracy alone."""
    SINGLE: bool = False
    """Whether its text holds one section of a report alone, as CSV does."""

    @required
    def render(self, board: "Leaderboard", rows: Sequence[str], columns: Sequence[str], short: bool) -> str:
        """Write the leaderboard.

        Args:
            rows, columns: the axes of its tables.
            short: whether the short form is meant; only if it has one.
        """
        raise NotImplementedError

    def _check(self) -> None:
        if not all(re.fullmatch(r"\.[a-z0-9]{1,20}", suffix) for suffix in self.SUFFIXES):
            raise Violation(f"its SUFFIXES are not all of the form .md: {display(', '.join(self.SUFFIXES), 100)}")


def _check_options(options: type[config.Options]) -> None:
    """Check that each setting has a default and a type that JSON has."""
    try:
        options()
        msgspec.json.schema(options)
        get_type_hints(options)
    except Exception as error:
        why = described(error)
        raise Violation(f"its Options must have a default each, of a kind that JSON has: {why}") from error


def _check_metrics(metrics: dict[str, Metric]) -> None:
    for name, metric in metrics.items():
        if not (isinstance(name, str) and re.fullmatch("[A-Za-z0-9_-]{1,60}", name)):
            raise Violation(f"its METRICS have the name {name!r}, which is not of the form [A-Za-z0-9_-]{{1,60}}")
        try:
            msgspec.json.decode(msgspec.json.encode(metric), type=Metric)
        except Exception as error:
            raise Violation(f"its metric {name!r} is wrong: {described(error)}") from error


def _check_version(version: int) -> None:
    if not 1 <= version <= MOST_VERSION:
        raise Violation(f"its VERSION is {display(str(version), 60)}, not a number from 1 to {MOST_VERSION}")


def _check_signature(name: str, function: Callable[..., Any], parameters: list[str]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function that is not Python
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        raise Violation(f"its {name} does not take ({', '.join(parameters)})") from None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a contract asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type) and issubclass(value, arguments[0])
    if origin is Literal:
        return value in arguments
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if origin in (tuple, Collection):
        return (
            isinstance(value, origin)
            and not isinstance(value, str)
            and all(_fits(item, arguments[0]) for item in value)
        )
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _in_words(hint: Any) -> str:
    """The type that a contract asks for: `a tuple of dambench.core.config.Recipe`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is type:
        return f"a class derived from {_full_name(arguments[0])}"
    if origin is Literal:
        return f"{', '.join(arguments[:-1])} or {arguments[-1]}"
    if origin is Collection:
        return "several texts"
    if origin in (tuple, dict):
        items = arguments[origin is dict]
        of = "" if items is Any else " of texts" if items is str else f" of {_full_name(items)}"
        return f"a {origin.__name__}{of}"
    return {str: "a text", bool: "True or False", int: "a whole number", Callable: "a function"}[hint]


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
