"""A request as a form holds it: texts by field, and what would be typed instead.

The form knows no rule of its own: what it shows as the command is what is checked, and what is started.
"""

import json
import os
import shlex
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec

from dambench.core import files
from dambench.core.config import OptionSpec, RunConfig, check_said_once, options
from dambench.core.errors import BadInput
from dambench.core.overrides import MARK, parted
from dambench.core.protocol import same_here
from dambench.core.sanitize import display
from dambench.store.rows import RunRow

Form = dict[str, str]
"""Text by field: an option of a run, `method.NAME` or `dataset.NAME`. What is empty was not given."""


CHANGES = "changes"
"""A field that no option of a run has: what is changed in its protocol, words such as `lr=0.02`. They are a part of the
protocol's name: `--protocol quick+lr=0.02`."""

IS = {"iterations": "method.iterations", "seed": "seeds"}
"""Options of a run that are other fields of the form."""


@cache
def fields() -> dict[str, OptionSpec]:
    """The form's fields that are options of a run, in their order."""
    return {option.name: option for option in options() if option.name not in IS}


def named_protocol(form: Mapping[str, str]) -> str:
    """The name of the protocol that a form asks for, with its changes; empty: the usual one."""
    changes = form.get(CHANGES, "").replace(MARK, " ").replace(",", " ").split()
    return "".join([form.get("protocol", "").strip(), *(f"{MARK}{change}" for change in changes)])


def _as_options(form: Mapping[str, str]) -> Form:
    """A form without the fields that no option has."""
    given = {name: text for name, text in form.items() if name != CHANGES}
    return given | ({"protocol": named_protocol(form)} if form.get(CHANGES) else {})


def _as_fields(form: Form) -> Form:
    """A form with the changes of its protocol in a field of their own."""
    text = form.get("protocol", "")
    if MARK not in text or "#" in text:  # with a hash the name means that very version
        return form
    try:
        base, changes = parted(text)
    except BadInput:  # the check will say what is wrong
        return form
    return form | {"protocol": base, CHANGES: " ".join(f"{name}={value}" for name, value in changes.items())}


def arguments(form: Mapping[str, str]) -> list[str]:
    """The words after `dambench run`."""
    form, order = _as_options(form), list(fields())
    words: list[str] = []
    # The settings of a method go over its recipe.
    for name in sorted(form, key=lambda name: order.index(name if name in order else "recipe")):
        if text := form[name].strip():
            words += _argument(name, text)
    return words


def _argument(name: str, text: str) -> list[str]:
    """A field as it is typed."""
    if name == "method.iterations":
        return _flag("--iterations", text)
    if "." in name:
        return ["--set", f"{name}={text}"]
    if name == "seeds" and text.isdecimal():
        return _flag("--seed", text)
    option = fields()[name]
    if option.kind == "boolean":
        return [option.flag] if text == "on" else []
    if option.repeated:
        return [part for value in text.split(",") if value.strip() for part in _flag(option.flag, value.strip())]
    return _flag(option.flag, text)


def field_of_error(answer: Mapping[str, Any], form: Mapping[str, str]) -> str:
    """The field that the error of a checked request is about; empty: none of them alone.

    Args:
        form: what was checked.
    """
    name = str(answer.get("field", ""))
    return CHANGES if name == "protocol" and form.get(CHANGES) else IS.get(name, name)


def _flag(name: str, text: str) -> list[str]:
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def command(form: Mapping[str, str]) -> str:
    """The command that starts it."""
    return shlex.join(["dambench", "run", *arguments(form)])


def of_run(row: RunRow) -> Form:
    """The form that asks for the same run again.

    Args:
        row: of the table `runs`.
    """
    run = msgspec.json.decode(row.config, type=RunConfig)
    changed = json.loads(row.overrides)
    usual = os.environ.get("DAMBENCH_DATA")
    data = "" if usual and run.execution.data == os.path.realpath(files.user_path(usual)) else run.execution.data
    form = {
        "method": run.method.name,
        "dataset": run.dataset.name,
        "data": data,
        "ipc": "" if run.ipc is None else str(run.ipc),
        "network": str(changed.pop("network", "")),
        "seeds": str(run.seed),
        "device": run.execution.device,
        "protocol": run.protocol.name,
        "evaluate_on": ",".join(run.evaluate_on),
        "eval_repeats": str(run.eval_repeats),
        "recipe": str(changed.pop("recipe", "")),
        "evaluate_every": str(run.evaluate_every or ""),
        "preprocessing": str(changed.pop("preprocessing", "")),
        "precision": run.precision if changed.pop("precision", None) or run.precision == "tf32" else "",
        "deterministic": "on" if run.deterministic else "",
        "threads": str(run.execution.threads or ""),
    }
    form |= {f"dataset.{name}": _text(value) for name, value in run.dataset.options.items()}
    return _as_fields(form | {f"method.{name}": _text(value) for name, value in changed.items()})


def evaluation(row: RunRow, maker: str) -> tuple[list[str], str]:
    """The words after `dambench` to evaluate a set again as a run did, and a sentence on what would differ.

    Args:
        row: of the table `runs`.
        maker: the id of the run that made the set.
    """
    run = msgspec.json.decode(row.config, type=RunConfig)
    words = ["evaluate", maker, "--evaluate-on", ",".join(run.evaluate_on), "--eval-repeats", str(run.eval_repeats)]
    words += ["--protocol", run.protocol.name, "--device", run.execution.device]
    words += [*(["--threads", str(run.execution.threads)] if run.execution.threads else []), "--again"]
    same = run.protocol == same_here(run.protocol)
    return words, "" if same else f"Again, but under what is called {display(run.protocol.name)} now"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def to_toml(form: Mapping[str, str]) -> str:
    """Write a file that `dambench run FILE.toml` reads the same from."""
    import tomli_w  # late: few ever edit a file

    given: dict[str, Any] = {}
    for name, text in _as_options(form).items():
        if text := text.strip():
            group, dot, option = name.partition(".")
            if dot:
                given.setdefault(group, {})[option] = _value(option, text)
            elif name in ("method", "dataset"):
                given.setdefault(name, {})["name"] = text
            else:
                given[name] = _value(name, text)
    return tomli_w.dumps(given)


def _value(name: str, text: str) -> Any:
    """Give what TOML has for a field's text."""
    option = fields().get(name)
    match option.kind if option else "":
        case "list":
            return [part.strip() for part in text.split(",")]
        case "boolean":
            return text == "on"
        case "text":
            return text  # whatever it looks like
    with suppress(ValueError, RecursionError):
        document = tomllib.loads(f"v = {text}")
        if len(document) == 1 and not isinstance(document["v"], str):
            return document["v"]
    return text


def from_toml(text: str) -> Form:
    """The form of such a file.

    Raises:
        ValueError: it is not TOML, has a key that a request does not have, or says the same in two ways.
    """
    form: Form = {}
    given = tomllib.loads(text)
    check_said_once(given, "the file")
    for name, value in given.items():
        field = IS.get(name, name)
        option = fields().get(name)
        if option is None and name not in IS:
            raise ValueError(f"There is no setting {name!r}.")
        if isinstance(value, dict):
            form |= {name if key == "name" else f"{name}.{key}": _text(each) for key, each in value.items()}
        elif option is not None and option.kind == "boolean":
            form[field] = "on" if value else ""
        else:
            form[field] = ",".join(map(str, value)) if isinstance(value, list) else _text(value)
    return _as_fields(form)
