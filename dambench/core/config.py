"""RunConfig: everything one run depends on. Request: what somebody asked for, from a file or from flags.

A request may leave nearly everything out; the engine settles it against the method's recipe and the data into
a RunConfig, in which nothing is left open. Only a RunConfig is ever run, stored, hashed or compared.
"""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from datetime import time as clock
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from dambench.core import overrides, reading
from dambench.core.errors import BadInput, folded, named, unknown
from dambench.core.protocol import HoldOut, Protocol, identity
from dambench.core.sanitize import display

# What plug-ins may import: see docs/plugins.md.
__all__ = ["Options", "Recipe"]

MAX_SEED = 2**63 - 1
MAX_RUNS = 1000
"""The most runs that one command may start."""
MOST_VALUE = 10_000
"""The most characters of a value of `--set`."""
MOST_TOML = 64_000
"""The most bytes of a request's file."""
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Text = Annotated[str, Meta(min_length=1)]
Name = Annotated[str, Meta(max_length=200)]
"""The name of a run, not longer than what is kept of it."""
Tag = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
Every = Annotated[int, Meta(ge=0, le=10**9)]
Seconds = Annotated[float, Meta(ge=0, le=10**6)]
Threads = Annotated[int, Meta(ge=0, le=4096)]
Ranks = Annotated[int, Meta(ge=1, le=1024)]
Precision = Literal["fp32", "tf32", "bf16"]
"""What products in a network are rounded to. bf16: in the real branch while a set is made, else as by default."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


PreprocessingName = Literal["mean/std", "zca"]
PREPROCESSINGS: tuple[PreprocessingName, ...] = get_args(PreprocessingName)

Section = Literal["main", "method", "more", "none"]
Kind = Literal["text", "integer", "number", "boolean", "list"]

COMPILING = ("auto", "on", "off")
"""Whether networks are compiled."""

SWITCH = ("on", "off")


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every method's, dataset's and network's options."""


LATER: dict[str, Any] = {"factor": 1, "distance": "rows", "teacher_epochs": 0, "labels": "hard"}
"""Options that came to methods of which there were runs already, and the default that changes nothing: there they are
left out of what a run depends on, so that it keeps its hash and its row."""
Factor = Annotated[
    int,
    Meta(ge=1, le=8, description="each image is a mosaic of factor × factor, which are enlarged before they are used"),
]


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """A method, a dataset or an evaluator, by name, with its options."""

    name: str
    options: dict[str, Any] = {}


class Recipe(Struct, frozen=True, kw_only=True):
    """Settings of a method that somebody published or measured. The first that fits is the default."""

    source: str
    """The paper's table, the repository's command, or the measurement that it comes from."""
    name: str = "default"
    datasets: tuple[str, ...] = ()
    """The datasets it is for; empty: any."""
    ipc: tuple[int, int | None] = (1, None)
    """The smallest and largest IPC it is for; None: no largest."""
    options: dict[str, Any] = {}
    network: str = ""
    """The network to match on; empty: the dataset's default."""
    norm: str = ""
    """The norm of the network to match on, where its name does not say one; empty: the family's default."""
    preprocessing: PreprocessingName = "mean/std"

    def fits(self, dataset: str, ipc: int) -> bool:
        low, high = self.ipc
        return (not self.datasets or dataset in self.datasets) and low <= ipc and (high is None or ipc <= high)


CHECKED = "; step size checked on validation images at IPC 1 (docs/selection.md)"
UNCHECKED = "; not yet checked on validation images (docs/selection.md)"
"""The ends of the sources of our own recipes: whether `benchmarks.tuning` has a search for them in its record."""


class Execution(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a run is executed: what decides how fast its result comes, not what the result is.

    The last bits of a float do depend on the device and the thread count; both are recorded with the run.
    """

    data: str = ""
    """A folder or file with the raw data, for datasets that do not come with a package."""
    device: str = "cpu"
    threads: Threads = 0
    """CPU threads that were asked for, at most; 0: one for each core that may be used."""
    cores: Threads = 0
    """CPU threads that may compute at once; 0: the run is from before they were recorded."""
    shared_by: Threads = 0
    """Threads that share an operation while the set is made; 0: as many as compute."""
    network_threads: dict[str, Threads] = {}
    """The same of each evaluation network, by its full name; of those not named as `shared_by`."""
    compiled: bool = False
    real_chunk: Every = 0
    """Real images that go through a network at once; 0: all."""
    synthetic_chunk: Every = 0
    stack: Count = 1
    """Networks that are trained at once on a set."""
    checkpoint_every: Seconds = 30.0
    """Seconds between two checkpoints, at least; 0: one after each iteration."""
    devices: tuple[str, ...] = ()
    """Those of each of the processes that share the run, the first of which is `device`; empty: there is one process.
    Resumed, it may have others: what it was made on is in the environment of each attempt."""
    made: str = ""
    """SHA-256 of the set that another run of the same method and settings has made, and this one only evaluates."""
    made_after: Every = 0
    """The iterations that it took."""
    made_seconds: Annotated[float, Meta(ge=0)] | None = None
    """The seconds that it took, experts included, on the machine that evaluates it; None: not known."""


class SetRef(NamedTuple):
    """A synthetic set that a run has made."""

    sha256: str
    iteration: int
    """After which it was as it is."""


class HeldOut(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The validation images that were held out of a training set before a set was made of the rest."""

    rule: HoldOut
    of_each_class: Annotated[int, Meta(ge=1)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """The digest of their places among the training images (sorted by class), ascending, as int64, little-endian."""


class Plugin(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A method, a dataset, a network or an evaluator from another package: which code it is."""

    kind: Literal["methods", "datasets", "networks", "evaluators", "formats"]
    name: str
    package: str = ""
    """The installed distribution; empty: unknown."""
    version: str = ""
    sha256: str
    """The digest of the source of its module, and of what that imports of its own package."""


class RunConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything one run depends on, nothing left open."""

    dataset: Choice
    method: Choice
    network: str
    """The network that the method matches on, in full: `convnet-d3-w128`."""
    ipc: int | None
    """Images per class; None for `whole`, which takes them all."""
    protocol: Protocol
    evaluate_on: tuple[str, ...]
    """The networks that are trained on the set, in full."""
    eval_repeats: Count = 5
    """How many of each."""
    evaluate_every: Every = 0
    """Also evaluate each time so many iterations are done; 0: only at the end."""
    seed: Seed = 0
    deterministic: bool = False
    """Only operations with a deterministic form, where the device has others too (CUDA)."""
    precision: Precision = "fp32"
    preprocessing: PreprocessingName = "mean/std"
    """What is done to the real images before a network sees them, in distillation and in every test of the set."""
    method_version: Annotated[int, Meta(ge=1)] = 1
    """The method's `VERSION`. Runs from before there were any are of version 1."""
    evaluator: Choice = Choice("accuracy")
    """What is measured of the set."""
    evaluator_version: Annotated[int, Meta(ge=1)] = 1
    held_out: HeldOut | None = None
    """The validation images that the set was made without; None: it was made of all images, or not of these."""
    plugins: tuple[Plugin, ...] = ()
    """Those of the method, the dataset, the networks and the evaluator that come from other packages."""
    execution: Execution = field(default=Execution(), name="where")

    @property
    def iterations(self) -> int:
        """How many the method makes; 0: it has none."""
        return int(self.method.options.get("iterations") or 0)

    @property
    def validates(self) -> bool:
        """Whether networks are tested on validation images too: the protocol's, which the set was made without."""
        return self.held_out is not None and self.protocol.hold_out == self.held_out.rule

    @property
    def evaluates(self) -> SetRef | None:
        """The set of another run that this one evaluates, and does nothing else; None: it makes its own.

        It was made by the method and with the settings that stand here.
        """
        made = self.execution.made
        return SetRef(made, self.execution.made_after) if made else None

    @property
    def sha256(self) -> str:
        """The identity of the run: every field but `execution`."""
        return identity(self, but=("execution",))


def option(
    title: str,
    description: str,
    default: str = "",
    *,
    choices: Sequence[str] = (),
    flag: str = "",
    section: Section = "more",
) -> Meta:
    """State one option of a run: the command line, the form and their help are made from this and the field's type.

    Args:
        title: the form's label.
        description: a phrase without its last full stop.
        default: what is taken if it is not given, in words.
        choices: all values that there are, of an option that is a text.
        flag: `--tag`, where it is not called as the field; it then stands before each of several values.
        section: of the form. none: another field of the form says it.
    """
    stated = {"default": default, "choices": choices, "flag": flag, "section": section}
    return Meta(title=title, description=description, extra_json_schema={"x-option": stated})


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of a run as somebody gave them. None: not given. A new option is one field here, and its use."""

    method: Annotated[
        str | dict[str, Any] | None, option("Method", "How the set is made: see `dambench methods`", section="main")
    ] = None
    dataset: Annotated[
        str | dict[str, Any] | None,
        option(
            "Dataset",
            "What is made smaller: see `dambench data list`; prepared, or downloaded, when the run starts",
            section="main",
        ),
    ] = None
    data: Annotated[
        Text | None,
        option(
            "Data in", "The folder or file with the raw data, for datasets by path", "DAMBENCH_DATA", section="main"
        ),
    ] = None
    ipc: Annotated[Count | None, option("IPC", "Images per class", "1", section="main")] = None
    network: Annotated[
        str | None, option("Network", "The network to match on, as convnet-d3-w128", "the recipe's", section="main")
    ] = None
    recipe: Annotated[
        str | None,
        option(
            "Recipe",
            "Published or measured settings, by name; what is given goes over them. To compare: --seeds 0-2",
            "default",
            section="method",
        ),
    ] = None
    iterations: Annotated[Count | None, option("Iterations", "Short for --set method.iterations=N", section="none")] = (
        None
    )
    seed: Annotated[Seed | None, option("Seed", "Everything random follows from it", "0", section="none")] = None
    seeds: Annotated[
        str | Annotated[list[Seed], Meta(max_length=MAX_RUNS)] | None,
        option(
            "Seeds", "A run each: 0-2, or 0,3,7; one set makes no claim about its method, three do", "0", section="main"
        ),
    ] = None
    device: Annotated[
        str | None,
        option(
            "Device", "auto (a GPU if there is one), cpu, cuda:N, or cuda:0,1: one run on both", "auto", section="main"
        ),
    ] = None
    protocol: Annotated[
        str | None,
        option(
            "Protocol",
            "How networks are trained and tested: see `dambench protocols`; quick+lr=0.02 is quick with another rate; "
            "only the same protocol makes one table",
            "quick",
            section="main",
        ),
    ] = None
    evaluate_on: Annotated[
        Annotated[list[str], Meta(min_length=1, max_length=100)] | None,
        option(
            "Evaluate on", "Networks or pools that are trained on the set", "the ConvNet matched on", section="main"
        ),
    ] = None
    eval_repeats: Annotated[
        Count | None, option("Repeats", "How many of each network are trained", "5", section="main")
    ] = None
    evaluate_every: Annotated[
        Every | None, option("Every", "Also evaluate each time so many iterations are done; 0: only at the end", "0")
    ] = None
    preprocessing: Annotated[
        str | None,
        option(
            "Preprocessing", "Of the real images: mean/std, or zca, whitening", "the recipe's", choices=PREPROCESSINGS
        ),
    ] = None
    precision: Annotated[
        str | None,
        option("Precision", "fp32, tf32 (GPU) or bf16 (of real images)", "auto", choices=("auto", *PRECISIONS)),
    ] = None
    compile: Annotated[
        str | None, option("Compile", "Compile the networks; auto: in long runs", "auto", choices=COMPILING)
    ] = None
    deterministic: Annotated[bool | None, option("Deterministic", "Only deterministic operations, also on CUDA")] = None
    hard_twin: Annotated[
        str | None,
        option(
            "Hard twin",
            "Evaluate a set that carries soft labels or a rate, which the protocol uses, with hard labels at the usual "
            "rate, too",
            "on",
            choices=SWITCH,
        ),
    ] = None
    threads: Annotated[
        Threads | None, option("Threads", "CPU threads at most; 0: one for each core that may be used", "0")
    ] = None
    ranks: Annotated[
        Ranks | None, option("Ranks", "Processes that share one run, each with some of the classes", "one per device")
    ] = None
    checkpoint_every: Annotated[
        Seconds | None, option("Checkpoint", "Seconds between two checkpoints, at least", "30")
    ] = None
    name: Annotated[Name | None, option("Name", "What to call the run")] = None
    tags: Annotated[
        Annotated[list[Tag], Meta(max_length=100)] | None,
        option("Tags", "Words by which filters find the run", flag="--tag"),
    ] = None

    def each_seed(self) -> list["Request"]:
        """One request per seed.

        Raises:
            BadInput: `seeds` is not of the form 0-4 or 0,3,7, names a seed twice, or `seed` is said too.
        """
        if self.seeds is None:
            return [self]
        if self.seed is not None:
            raise BadInput("seed and seeds exclude each other: --seeds 0-4 makes five runs.", field="seeds")
        seeds = _seeds(self.seeds) if isinstance(self.seeds, str) else self.seeds
        if len(set(seeds)) < len(seeds) or not seeds:
            raise BadInput(f"seeds {self.seeds!r}: each must be there once, and at least one.", field="seeds")
        return [msgspec.structs.replace(self, seed=seed, seeds=None) for seed in seeds]

    def choice(self, kind: str) -> Choice:
        """The dataset or method asked for, with the options said so far.

        Raises:
            BadInput: none was named.
        """
        value = getattr(self, kind)
        if isinstance(value, str):
            return Choice(value)
        options = dict(value or {})
        name = options.pop("name", None)
        if name is not None and not isinstance(name, str):
            raise BadInput(f"The name of the {kind} is {_shown(name)}, which is not a text.", field=kind)
        if name is None:
            raise BadInput(f'No {kind} was named: say --{kind} NAME, or {kind} = "NAME" in the TOML file.', field=kind)
        return Choice(name, options)


class OptionSpec(Struct, frozen=True, kw_only=True):
    """One option of a run, as stated in `Request`."""

    name: str
    """The field of `Request`, and the key in a TOML file."""
    flag: str
    kind: Kind
    title: str
    description: str
    default: str
    """What is taken if it is not given, in words; empty: nothing."""
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    repeated: bool
    """A list with its flag before each value, not one flag and commas."""
    section: Section

    @property
    def help(self) -> str:
        """The sentence about it."""
        listed = (", with commas", "; may be repeated")[self.repeated] if self.kind == "list" else ""
        return self.description + listed + (f" [default: {self.default}]" if self.default else "") + "."


@cache
def options(kind: type[Request] = Request) -> tuple[OptionSpec, ...]:
    """All options of a run, in the order of their fields."""
    fields = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    return tuple(_spec(name, schema) for name, schema in fields.items())


def _spec(name: str, schema: dict[str, Any]) -> OptionSpec:
    kinds: dict[str, Kind] = {"string": "text", "array": "list"}
    form = min(schema["anyOf"], key=lambda form: form["type"] != "string")
    stated = schema["x-option"]
    return OptionSpec(
        name=name,
        kind=kinds.get(form["type"], form["type"]),
        title=schema["title"],
        description=schema["description"],
        minimum=form.get("minimum"),
        maximum=form.get("maximum"),
        repeated=bool(stated["flag"]),
        **stated | {"flag": stated["flag"] or f"--{name.replace('_', '-')}"},
    )


def toml_in(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        BadInput: the file is not there, is too large, or is not TOML.
    """
    try:
        return tomllib.loads(reading.content(path, MOST_TOML).decode("utf-8-sig"))
    except OSError as error:
        raise BadInput(f"The file {str(path)!r} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or numbers and nesting beyond reason
        raise BadInput(f"The file {str(path)!r} is not valid TOML: {error}.") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A request's fields from a TOML file.

    Raises:
        BadInput: the file is not there, is not TOML, or has a key or a type that a request does not have.
    """
    fields = toml_in(path)
    for key in fields:
        if key not in Request.__struct_fields__:
            raise BadInput(f"In {str(path)!r}: {unknown('setting', key, Request.__struct_fields__)}")
    read(Request, fields, f"{str(path)!r}")
    check_said_once(fields, f"{str(path)!r}")
    return fields


def overlay(fields: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields with those of `over` that are not None on top; options (`OF_REQUEST`) are merged.

    Naming another method or dataset drops the options that were meant for the first, and what is said in another
    way (`seed` and `seeds`, `iterations` and the method's own) goes over what was said before.
    """
    merged = dict(fields)
    given = {key for key, value in over.items() if value is not None}
    for key, other in (("seed", "seeds"), ("seeds", "seed")):
        if key in given and other not in given:
            merged.pop(other, None)
    if isinstance(over.get("method"), Mapping) and "iterations" in over["method"]:
        merged.pop("iterations", None)
    for key, value in over.items():
        if value is None:
            continue
        if key in ("method", "dataset"):
            below = merged.get(key) or {}
            below = {"name": below} if isinstance(below, str) else dict(below)
            above = {"name": value} if isinstance(value, str) else dict(value)
            if "name" in above and folded(str(above["name"])) != folded(str(below.get("name"))):
                below = {}
            value = below | above
        elif key == "protocol":
            value = overrides.text_of(value) if isinstance(value, Mapping) else value
            value = overrides.over(merged.get(key), value) if isinstance(value, str) else value
        merged[key] = value
    return merged


OF_REQUEST = ("method", "dataset", "protocol")
"""Groups of a request's options."""


def settings(pairs: list[str], allowed: Sequence[str] = OF_REQUEST) -> dict[str, dict[str, Any]]:
    """`["method.lr_images=0.1"]` → `{"method": {"lr_images": 0.1}}`; values are read as TOML, else as text.

    Args:
        allowed: groups whose options may be set.

    Raises:
        BadInput: a pair is not of the form GROUP.NAME=VALUE with such a group, or is there twice.
    """
    groups: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        group, dot, option = name.strip().partition(".")
        if not (equals and dot and option) or group not in allowed:
            forms = " or ".join(f"{each}.NAME=VALUE" for each in allowed)
            raise BadInput(f"--set {pair!r} is not of the form {forms}.")
        try:
            parsed = tomllib.loads(f"value = {text[:MOST_VALUE]}")
        except (ValueError, RecursionError):
            parsed = {}
        # (With an end of a line in it, it could say more than one thing.)
        value = parsed["value"] if len(parsed) == 1 and len(text) <= MOST_VALUE else text.strip()
        options = groups.setdefault(group, {})
        if option in options:
            raise BadInput(f"--set {group}.{option} is given more than once: say it once.", field=f"{group}.{option}")
        if option == "name":
            raise BadInput(f"--set {pair!r} does not name the {group}: say --{group} {display(text, 60)}.", field=group)
        options[option] = value
    return groups


def check_said_once(fields: Mapping[str, Any], whose: str) -> None:
    """See that one file, or one command, does not say the same in two ways.

    Raises:
        BadInput: it says `iterations` and the method's own, or `seed` and `seeds`.
    """
    method = fields.get("method")
    if fields.get("iterations") is not None and isinstance(method, Mapping) and "iterations" in method:
        raise BadInput(
            f"In {whose}: iterations and method.iterations are the same setting: say it once.", field="iterations"
        )
    if fields.get("seed") is not None and fields.get("seeds") is not None:
        raise BadInput(f"In {whose}: seed and seeds exclude each other: seeds 0-4 makes five runs.", field="seeds")


def _seeds(text: str) -> list[int]:
    """`0-4` or `0,3,7` → the seeds."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not re.fullmatch("[0-9]+(-[0-9]+)?", part.strip()) or len(part) > 2 * len(str(MAX_SEED)):
            raise BadInput(f"--seeds {text!r} is not of the form 0-4 or 0,3,7.", field="seeds")
        span = range(int(first), int(last or first) + 1)
        if len(seeds) + span.stop - span.start > MAX_RUNS:
            raise BadInput(f"--seeds {text!r} asks for more than {MAX_RUNS} runs at once.", field="seeds")
        if span.stop > MAX_SEED:
            raise BadInput(f"--seeds {text!r}: a seed is at most {MAX_SEED}.", field="seeds")
        seeds += span
    return seeds


def _finite(value: object) -> bool:
    """Whether every number in a value is one: JSON, in which configurations are kept, has no others."""
    pending = [value]
    while pending:  # it may be nested as deep as a file can say
        part = pending.pop()
        if isinstance(part, float) and not math.isfinite(part):
            return False
        pending += part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ()
    return True


def _shown(value: object) -> str:
    """A value as somebody wrote it, or as much of it as helps."""
    try:
        return display(str(value) if isinstance(value, date | clock) else repr(value), 60)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        return "…"


T = TypeVar("T")


def read(kind: type[T], fields: Mapping[str, Any], whose: str, group: Literal["", "method", "dataset"] = "") -> T:
    """Convert `fields` to a strict, frozen struct.

    Args:
        whose: how the sentence of an error calls them: "method dm".
        group: which options of a request they are.

    Raises:
        BadInput: a key is unknown (the nearest is named), or a value has the wrong type or is out of bounds.
    """
    names = cast(Any, kind).__struct_fields__

    def stated(key: str) -> str:
        return key if kind is Request else f"{group}.{key}" if group and key else group

    hints = get_type_hints(kind)
    stored = dict(zip(names, cast(Any, kind).__struct_encode_fields__, strict=True))
    values = {stored.get(key, key): value for key, value in fields.items()}
    for key, value in fields.items():
        if key not in names:
            raise BadInput(f"In {whose}: {unknown('option', key, names)}", field=stated(key))
        later = kind is Request and isinstance(value, Mapping)  # options are looked at one by one, under their names
        if not later and not _finite(value):
            fault = "is not a finite number" if isinstance(value, float) else "has a number that is not finite"
            raise BadInput(f"In {whose}: {key} = {_shown(value)} {fault}.", field=stated(key))
        if isinstance(value, str) and get_origin(hints[key]) is Literal:
            with suppress(BadInput):  # which value is wrong is said below
                values[stored[key]] = named(
                    key, value, [word for word in get_args(hints[key]) if isinstance(word, str)]
                )
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at ")
        key = path.strip("`").removeprefix("$.").removeprefix("$")
        place = f"{key} = {_shown(fields[key])}" if key in fields else key or "a value"
        choices = hints.get(key)
        if key in fields and get_origin(choices) is Literal:
            reason = f"it is one of {', '.join(map(str, get_args(choices)))}"
        if key in fields and reason.startswith("Expected `array`, got"):
            reason = f"it is a list, as [{_shown(fields[key])}]"
        text = f"In {whose}: {place} is not allowed: {reason[:1].lower()}{reason[1:]}."
        raise BadInput(text, field=stated(re.split(r"[.\[]", key)[0])) from None
    except Exception as error:
        if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise
        text = f"In {whose}: {type(error).__name__}: {error}."  # from code that is not ours
        raise BadInput(text, field=group) from error
