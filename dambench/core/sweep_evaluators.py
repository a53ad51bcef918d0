"""Evaluators of a sweep: what is measured of the set of each of its runs, once that is made.

    evaluators = ["robustness", {name = "continual", steps = 10, eval_repeats = 1}]

Each is a name, or a table of the name and the evaluator's options. `eval_repeats`, `evaluate_on` and `protocol` are
those of the evaluation, as in `dambench evaluate`; by default those of the run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dambench.core import config
from dambench.core.config import Choice, Request
from dambench.core.errors import BadInput, named
from dambench.core.sanitize import display

OF_REQUEST = ("eval_repeats", "evaluate_on", "protocol")
"""Settings of an evaluation that are no options of the evaluator."""


class SweepEvaluator(NamedTuple):
    """An evaluator, and how the set of each run is measured by it."""

    choice: Choice
    given: Mapping[str, Any]
    """Some of `OF_REQUEST`."""

    @property
    def request(self) -> Request:
        return config.read(Request, dict(self.given), "the request")

    @property
    def words(self) -> list[str]:
        """The words of a command after `dambench evaluate ID`."""
        words = ["--evaluator", self.choice.name]
        for name, value in self.choice.options.items():
            words += ["--set", f"evaluator.{name}={value if isinstance(value, str) else json.dumps(value)}"]
        for name, value in self.given.items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
        return words

    @property
    def called(self) -> str:
        """It in words: `continual (steps 10)`."""
        parts = {**self.choice.options, **self.given}
        rest = ", ".join(
            f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in parts.items()
        )
        return display(f"{self.choice.name} ({rest})" if rest else self.choice.name, 200)


def read(value: object, known: Sequence[str], where: str) -> tuple[SweepEvaluator, ...]:
    """The evaluators that a sweep's file names.

    Args:
        known: which there are.
        where: the file, for errors.

    Raises:
        BadInput: it is no list of names and tables, or one is unknown or there twice.
    """
    if not isinstance(value, list):
        raise BadInput(f'In {where}: evaluators is a list, as ["robustness", {{name = "continual", steps = 10}}].')
    found: list[SweepEvaluator] = []
    for one in value:
        fields = {"name": one} if isinstance(one, str) else one
        if not isinstance(fields, dict) or not isinstance(name := fields.get("name"), str):
            raise BadInput(
                f"In {where}: the evaluator {display(repr(one), 60)} is neither a name nor a table with one, as "
                '{name = "continual", steps = 10}.'
            )
        name = named(f"evaluator in {where}", name, known)
        options = {key: each for key, each in fields.items() if key != "name" and key not in OF_REQUEST}
        given = {key: each for key, each in fields.items() if key in OF_REQUEST}
        config.read(Request, given, f"the evaluator {name} of {where}")
        made = SweepEvaluator(Choice(name, options), given)
        if made in found:
            raise BadInput(f"In {where}: the evaluator {made.called} is there twice.")
        found.append(made)
    return tuple(found)
