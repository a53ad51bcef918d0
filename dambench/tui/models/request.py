"""A request as a form holds it: texts by field, and what would be typed instead.

The form knows no rule of its own: what it shows as the command is what is checked, and what is started.
"""

import json
import os
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from dambench.core import files
from dambench.core.config import Request, RunConfig, check_said_once
from dambench.core.protocol import PRESETS
from dambench.core.sanitize import display

Form = dict[str, str]
"""Text by field: of `Request`, `method.NAME` and `dataset.NAME`. What is empty was not said."""


ORDER = (
    "method",
    "dataset",
    "data",
    "ipc",
    "network",
    "recipe",
    "evaluate_on",
    "eval_repeats",
    "evaluate_every",
    "protocol",
    "seeds",
)
"""In which somebody would type them; others after these."""


def arguments(form: Mapping[str, str]) -> list[str]:
    """What comes after `dambench run`."""
    said: list[str] = []
    for name in sorted(form, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        text = form[name].strip()
        if not text or (name == "deterministic" and text != "on"):
            continue
        if "." in name:
            iterations = name == "method.iterations"
            said += _flag("iterations", text) if iterations else ["--set", f"{name}={text}"]
        elif name == "deterministic":
            said.append("--deterministic")
        elif name == "seeds" and text.isdecimal():
            said += _flag("seed", text)
        elif name == "tags":
            said += [part for tag in text.split(",") if tag.strip() for part in _flag("tag", tag.strip())]
        else:
            said += _flag(name.replace("_", "-"), text)
    return said


def _flag(name: str, text: str) -> list[str]:
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def command(form: Mapping[str, str]) -> str:
    """What somebody would type to start it."""
    return shlex.join(["dambench", "run", *arguments(form)])


def of_run(row: Mapping[str, Any]) -> Form:
    """The form that asks for the same run again.

    Args:
        row: of the table `runs`.
    """
    run = msgspec.json.decode(row["config"], type=RunConfig)
    changed = json.loads(row["overrides"])
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
    return form | {f"method.{name}": _text(value) for name, value in changed.items()}


def evaluation(row: Mapping[str, Any], maker: str) -> tuple[list[str], str]:
    """What comes after `dambench` to evaluate a set again as a run did, and in words what would differ.

    Args:
        row: of the table `runs`.
        maker: the id of the run that made the set.
    """
    run = msgspec.json.decode(row["config"], type=RunConfig)
    said = ["evaluate", maker, "--evaluate-on", ",".join(run.evaluate_on), "--eval-repeats", str(run.eval_repeats)]
    said += ["--protocol", run.protocol.name, "--device", run.execution.device]
    said += [*(["--threads", str(run.execution.threads)] if run.execution.threads else []), "--again"]
    same = run.protocol == PRESETS.get(run.protocol.name)
    return said, "" if same else f"Again, but under what is called {display(run.protocol.name)} now"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def to_toml(form: Mapping[str, str]) -> str:
    """A file that `dambench run FILE.toml` reads the same from."""
    fields: dict[str, Any] = {}
    for name, text in form.items():
        if text := text.strip():
            group, dot, option = name.partition(".")
            if dot:
                options = fields.setdefault(group, {})
                options[option] = text
            elif name in ("method", "dataset"):
                fields.setdefault(name, {})["name"] = text
            else:
                fields[name] = text
    lines = [f"{name} = {_literal(name, value)}" for name, value in fields.items() if isinstance(value, str)]
    for group, options in fields.items():
        if isinstance(options, dict):
            lines += ["", f"[{group}]", *(f"{name} = {_literal(name, text)}" for name, text in options.items())]
    return "\n".join(lines) + "\n"


LISTS = ("evaluate_on", "tags")
TEXTS = ("name", "data", "seeds", "network", "device", "protocol", "recipe", "preprocessing", "precision", "compile")
"""Fields whose values are texts, whatever they look like."""


def _literal(name: str, text: str) -> str:
    if name in LISTS:
        return json.dumps([part.strip() for part in text.split(",")])
    if name == "deterministic":
        return "true" if text == "on" else "false"
    if name not in TEXTS:
        try:
            if not isinstance(tomllib.loads(f"v = {text}")["v"], str):
                return text
        except (ValueError, RecursionError):
            pass
    return json.dumps(text)


def from_toml(text: str) -> Form:
    """The form of such a file.

    Raises:
        ValueError: it is not TOML, has a key that a request does not have, or says the same in two ways.
    """
    form: Form = {}
    fields = tomllib.loads(text)
    check_said_once(fields, "the file")
    for name, value in fields.items():
        if name not in Request.__struct_fields__:
            raise ValueError(f"There is no setting {name!r}.")
        if isinstance(value, dict):
            form |= {name if option == "name" else f"{name}.{option}": _text(said) for option, said in value.items()}
        elif name == "deterministic":
            form[name] = "on" if value else ""
        elif name == "iterations":
            form["method.iterations"] = _text(value)
        else:
            key = "seeds" if name == "seed" else name
            form[key] = ",".join(map(str, value)) if isinstance(value, list) else _text(value)
    return form
