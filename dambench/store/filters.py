"""The filter language: which runs are meant, in words → a condition of SQL.

    method:datadam|dm ipc<=10 -tag:old      all of these
    state:lost | state:failed               one of these
    accuracy.loss<0.5              any metric of any evaluator
    name:"two words" cifar                  quotes keep together; a word alone is looked for in what people write

`field:value` is the value itself, or its pattern with `*`; of an id it is the beginning, of a name or a note a part.
`field=value` is always the whole. Case does not matter. A `-` in front: not so.

Values become parameters, never SQL; names of columns come from this module alone.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from dambench.core.errors import BadInput, unknown
from dambench.core.sanitize import display
from dambench.core.sweep import SUITE_TAG, TAG
from dambench.store.metrics import latest_mean

NETWORK = "iif(runs.network != '', runs.network, json_extract(runs.config, '$.evaluate_on[0]'))"
"""The network matched on; of a method that matches on none, the first that is trained on the set."""

ITERATION = """iif(runs.phase = 'distil', runs.done,
    (select max(iteration) from artifacts where artifacts.run = runs.number))"""
"""How many the method has taken; null: it has not begun."""

STATES = {
    "waiting": "waiting wait",
    "running": "running run",
    "finished": "finished done",
    "failed": "failed fail",
    "stopped": "stopped stop",
    "lost": "lost",
    "silent": "silent",
}
"""What people may write for each."""

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

SCORED = ("accuracy",)
"""Fields that the test set decides, besides those of metrics, which have a dot."""

_NAME = r"[A-Za-z_]+(?:\.[A-Za-z0-9_]+)?"
"""The name of a field."""

Really = Mapping[int, str]
"""By its number, how a run stands that is waiting or running by its own word: its process may be gone."""


LONGEST = 2000
"""Characters of a filter."""
MOST_WORDS = 200
"""Words of a filter at most, each alternative counted: SQLite has a limit to what it combines, too."""


class Clause(NamedTuple):
    """A condition on `runs`, and its parameters."""

    sql: str
    values: list[Any]


EVERYTHING = Clause("1", [])

Term = Callable[[Really, datetime], Clause]
"""It depends on which processes live, and on what time it is."""


class Filter(NamedTuple):
    """A filter as `read` understood it."""

    text: str
    alternatives: list[list[Term]]

    def where(self, really: Really, now: datetime | None = None) -> Clause:
        """The condition that the runs meet that are meant."""
        if not self.alternatives:
            return EVERYTHING
        moment = now or datetime.now(UTC)
        return _any(_all(term(really, moment) for term in terms) for terms in self.alternatives)


def read(text: str, *, to_compare: bool = False) -> Filter:
    """Understand a filter. An empty one means all runs.

    Args:
        to_compare: the runs that are meant are compared by what they scored: it may not choose them by that.

    Raises:
        BadInput: it cannot be understood; the sentence says what would be right.
    """
    if len(text) > LONGEST or len(text.replace("|", " ").split()) > MOST_WORDS:
        raise BadInput(
            f"The filter {display(text, 60)!r} has {len(text)} characters: {LONGEST} are the most, and {MOST_WORDS} "
            "words. Tag the runs that are meant, and filter by their tag."
        )
    if "\0" in text:
        raise BadInput(f"The filter {display(text, 60)!r} has a NUL character in it.")
    if text.count('"') % 2:
        raise BadInput(f'The filter {text!r} has a " without another one that closes it.')
    alternatives: list[list[Term]] = [[]]
    for word in re.findall(r'(?:"[^"]*"|[^\s"])+', text):
        if word == "|":
            alternatives.append([])
        else:
            alternatives[-1].append(_term(word))
            if to_compare and (_field(word) in SCORED or "." in _field(word)):
                raise BadInput(
                    f"{display(word, 60)} would choose runs by the test set, and here nothing is selected on it: leave "
                    "it out. `dambench runs` takes it."
                )
    if alternatives == [[]]:
        return Filter(text, [])
    if not all(alternatives):
        raise BadInput(f"The filter {text!r} has a | with nothing on one side: write one condition on each.")
    return Filter(text, alternatives)


def _field(word: str) -> str:
    """The field that a term is about; empty: it is a word alone."""
    match = re.match(rf"-?({_NAME})(?:<=|>=|:|=|<|>)", word)
    return match[1].lower() if match else ""


def _term(word: str) -> Term:
    minus, rest = ("-", word[1:]) if word.startswith("-") else ("", word)
    match = re.match(rf"({_NAME})(<=|>=|:|=|<|>)", rest)
    if match:
        name, operator = match[1].lower(), match[2]
        field = FIELDS.get(name, _metric if "." in name else None)
        if field is None:
            raise BadInput(f"{unknown('field', name, FIELDS)} A word with such a sign in it needs quotes.")
        values = _split(rest[match.end() :])
        if not all(values):
            example = EXAMPLES.get(name, METRIC_EXAMPLE)
            raise BadInput(f"{name}{operator} needs a value (such as {example}).")
        terms = [field(name, operator, value) for value in values]
    else:
        values = _split(rest)
        if not all(values):
            raise BadInput(f"{word!r} lacks a word: -old, or dm|datadam.")
        terms = [_anywhere(value) for value in values]

    def term(really: Really, now: datetime) -> Clause:
        clause = _any(term(really, now) for term in terms)
        return Clause(f"not {clause.sql}", clause.values) if minus else clause

    return term


def _split(text: str) -> list[str]:
    """The alternatives of a value, at each | outside quotes."""
    parts = [""]
    for piece in re.findall(r'"[^"]*"|\||[^"|]+', text):
        if piece == "|":
            parts.append("")
        else:
            parts[-1] += "" if piece == '""' else piece
    return parts


def _any(clauses: Iterable[Clause]) -> Clause:
    return _joined(" or ", clauses)


def _all(clauses: Iterable[Clause]) -> Clause:
    return _joined(" and ", clauses)


def _joined(word: str, clauses: Iterable[Clause]) -> Clause:
    parts = list(clauses)
    values = [value for part in parts for value in part.values]
    return Clause(f"({word.join(part.sql for part in parts)})", values)


def _plain(value: str) -> str:
    return value.replace('"', "")


def _pattern(value: str) -> str:
    """For LIKE: a * outside quotes stands for anything."""
    pattern = ""
    for part in re.findall(r'"[^"]*"|[^"]+', value):
        escaped = re.sub(r"([\\%_])", r"\\\1", part.strip('"'))
        pattern += escaped if part.startswith('"') else escaped.replace("*", "%")
    return pattern


def _like(column: str, pattern: str) -> Term:
    return lambda really, now: Clause(f"ifnull({column} like ? escape '\\', 0)", [pattern])


def _either(*terms: Term) -> Term:
    return lambda really, now: _any(term(really, now) for term in terms)


def _tagged(pattern: str) -> Term:
    tags = "exists (select 1 from tags where tags.run = runs.number and tag like ? escape '\\')"
    return lambda really, now: Clause(tags, [pattern])


def _anywhere(value: str) -> Term:
    """A word alone."""
    part = f"%{_pattern(value)}%"
    columns = ("id", "name", "method", "dataset", "note")
    return _either(*(_like(f"runs.{column}", part) for column in columns), _tagged(part))


def _exact(name: str, operator: str) -> None:
    if operator not in (":", "="):
        raise BadInput(f"{name} is compared with : or =, not with {operator} (such as {EXAMPLES[name]}).")


def _text(column: str, around: str = "{}") -> Callable[[str, str, str], Term]:
    """A column of words.

    Args:
        around: what `:` makes of the pattern.
    """

    def term(name: str, operator: str, value: str) -> Term:
        _exact(name, operator)
        pattern = _pattern(value)
        return _like(column, around.format(pattern) if operator == ":" else pattern)

    return term


def _protocol(name: str, operator: str, value: str) -> Term:
    """A protocol with its hash, or by its name alone."""
    _exact(name, operator)
    pattern = _pattern(value)
    return _either(_like("runs.protocol", pattern), _like("runs.protocol", f"{pattern}#%"))


def _tag(name: str, operator: str, value: str) -> Term:
    _exact(name, operator)
    return _tagged(_pattern(value))


def _sweep(name: str, operator: str, value: str) -> Term:
    """The runs of a sweep, which have its name as a tag."""
    _exact(name, operator)
    return _tagged(f"{_pattern(TAG)}{_pattern(value)}")


def _suite(name: str, operator: str, value: str) -> Term:
    """The runs of a suite, which have its name as a tag."""
    _exact(name, operator)
    return _tagged(f"{_pattern(SUITE_TAG)}{_pattern(value)}")


def _compare(column: str, operator: str, value: Any) -> Term:
    sign = "is" if operator in (":", "=") else operator
    return lambda really, now: Clause(f"ifnull({column} {sign} ?, 0)", [value])


def _whole_number(column: str) -> Callable[[str, str, str], Term]:
    def term(name: str, operator: str, value: str) -> Term:
        if name == "ipc" and _plain(value).lower() == "whole":
            _exact(name, operator)
            return _compare(column, operator, None)
        if not re.fullmatch(r"-?[0-9]{1,18}", _plain(value)):
            raise BadInput(f"{name}{operator}{_plain(value)} needs a whole number, such as {EXAMPLES[name]}.")
        return _compare(column, operator, int(_plain(value)))

    return term


def _ordered(name: str, operator: str) -> None:
    if operator in (":", "="):
        example = EXAMPLES.get(name, METRIC_EXAMPLE)
        raise BadInput(f"{name} is compared with <, <=, > or >=, not with {operator} (such as {example}).")


def _accuracy(name: str, operator: str, value: str) -> Term:
    _ordered(name, operator)
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]*)?%?", _plain(value)):
        raise BadInput(f"{name}{operator}{_plain(value)} needs percent, such as {EXAMPLES[name]}.")
    return _compare(latest_mean(), operator, float(_plain(value).rstrip("%")) / 100)


def _metric(name: str, operator: str, value: str) -> Term:
    """A field `EVALUATOR.METRIC`; a fraction is compared in percent, as it is shown."""
    _ordered(name, operator)
    if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]*)?%?", _plain(value)):
        raise BadInput(f"{name}{operator}{_plain(value)} needs a number, such as {METRIC_EXAMPLE}.")
    evaluator, _, metric = name.partition(".")
    unit = "(select unit from metrics where metrics.evaluator = ? and metrics.name = ?)"
    shown = f"{latest_mean('?', '?')} * iif({unit} = 'fraction', 100, 1)"
    values = [evaluator, metric, evaluator, evaluator, metric, float(_plain(value).rstrip("%"))]
    return lambda really, now: Clause(f"ifnull({shown} {operator} ?, 0)", values)


def _age(name: str, operator: str, value: str) -> Term:
    _ordered(name, operator)
    match = re.fullmatch(rf"([0-9]{{1,4}}(?:\.[0-9]*)?)({'|'.join(UNITS)})", _plain(value).lower())
    if not match:
        raise BadInput(
            f"{name}{operator}{_plain(value)} needs a time with s, min, h, d or w, such as {EXAMPLES[name]}."
        )
    past = timedelta(seconds=float(match[1]) * UNITS[match[2]])
    # What is older was created before.
    sign = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}[operator]

    def older(really: Really, now: datetime) -> Clause:
        return Clause(f"(runs.created_at {sign} ?)", [(now - past).isoformat(timespec="milliseconds")])

    return older


_MOMENT = re.compile("[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}(:[0-9]{2}(:[0-9]{2})?)?)?)?)?")


def _is_time(text: str) -> bool:
    with suppress(ValueError):
        return datetime.fromisoformat(text) is not None
    return False


def _created(name: str, operator: str, value: str) -> Term:
    """A day, a month or a minute: as much of the time is compared as was written."""
    moment = _plain(value).replace(" ", "T").upper()
    if not _MOMENT.fullmatch(moment) or not _is_time(moment + "0001-01-01T00:00:00"[len(moment) :]):
        raise BadInput(f"{name}{operator}{_plain(value)} needs a date (UTC), such as {EXAMPLES[name]}.")
    return _compare(f"substr(runs.created_at, 1, {len(moment)})", operator, moment)


def _state(name: str, operator: str, value: str) -> Term:
    _exact(name, operator)
    word = _plain(value).lower()
    matches = [state for state, words in STATES.items() if word in words.split()]
    if not matches:
        raise unknown("state", word, STATES)
    state = matches[0]

    def stands(really: Really, now: datetime) -> Clause:
        if state in ("finished", "failed", "stopped"):
            return Clause("(runs.state = ?)", [state])
        # What a run says of itself holds only as long as its process is there.
        numbers = json.dumps([number for number, now_is in really.items() if now_is == state])
        return Clause("(runs.number in (select value from json_each(?)))", [numbers])

    return stands


FIELDS: dict[str, Callable[[str, str, str], Term]] = {
    "id": _text("runs.id", "{}%"),
    "name": _text("runs.name", "%{}%"),
    "method": _text("runs.method"),
    "dataset": _text("runs.dataset"),
    "ipc": _whole_number("runs.ipc"),
    "network": _text(NETWORK),
    "protocol": _protocol,
    "seed": _whole_number("runs.seed"),
    "state": _state,
    "tag": _tag,
    "sweep": _sweep,
    "suite": _suite,
    "note": _text("runs.note", "%{}%"),
    "host": _text("runs.host"),
    "purpose": _text("runs.purpose"),
    "accuracy": _accuracy,
    "iteration": _whole_number(ITERATION),
    "age": _age,
    "created": _created,
}

METRIC_EXAMPLE = "accuracy.loss<0.5"
"""Any EVALUATOR.METRIC."""

EXAMPLES = {
    "id": "id:ab2",
    "name": "name:thesis",
    "method": "method:dm, or method:d* for all that begin so",
    "dataset": "dataset:cifar10",
    "ipc": "ipc<=10, or ipc:whole",
    "network": "network:convnet*",
    "protocol": "protocol:quick",
    "seed": "seed:0",
    "state": "state:lost",
    "tag": "tag:thesis",
    "sweep": "sweep:digits",
    "suite": "suite:digits",
    "note": 'note:"two words"',
    "host": "host:gpu07",
    "purpose": "purpose:tuning, of runs of `dambench tune`, and of sets made from halves of the images",
    "accuracy": "accuracy>=50, in percent",
    "iteration": "iteration>1000",
    "age": "age<2h",
    "created": "created>=2026-11-01",
}
