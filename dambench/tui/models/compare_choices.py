"""Choices: everything that a user of Compare has chosen, as it is kept, and as a document with the same tables."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dambench.core.errors import BadInput
from dambench.report import quantities
from dambench.report.arrangement import Arrangement, check
from dambench.report.document import DocumentQuery
from dambench.store import filters, grouping
from dambench.tui.models.comparison import CHOICES

FORMATS = {
    "markdown": "for issues, notes and papers in markdown",
    "latex": "a booktabs table",
    "csv": "a line per cell",
}
"""What a table is copied as."""


class CompareChoices(NamedTuple):
    """What is on the axes, in the cells, hidden, and in which order."""

    rows: tuple[str, ...] = ("method",)
    columns: tuple[str, ...] = ("dataset", "ipc")
    metric: str = ""
    """EVALUATOR.METRIC; empty: accuracy."""
    shows: tuple[str, ...] = (quantities.METRIC,)
    hide: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    order: str = ""
    only: str = ""
    """A filter of runs."""
    heat: bool = False
    format: str = "markdown"
    group: tuple[str, ...] = grouping.USUAL
    """What the tree is by."""

    @property
    def arrangement(self) -> Arrangement:
        return Arrangement(self.hide, self.first, self.order)

    def document(self, names: Collection[str]) -> DocumentQuery:
        """The document that has the same tables, and nothing else.

        Args:
            names: of all rows and columns that there are now: a document names no others.
        """
        column = self.order.partition(":")[2]
        return DocumentQuery(
            rows=self.rows,
            columns=self.columns,
            metric=self.metric or DocumentQuery().metric,
            short=self.format != "csv",
            filter=self.only,
            format=self.format,
            shows=self.shows,
            hide=tuple(name for name in self.hide if name in names),
            first=tuple(name for name in self.first if name in names),
            order=self.order if not column or column in names else "",
        )

    def kept(self) -> Mapping[str, object]:
        """What is remembered: all but which runs were picked one by one."""
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}
        return kept | {"only": "" if self.only.startswith("id=") else self.only}


def read(kept: Mapping[str, Any]) -> CompareChoices:
    """Take up what was remembered, as far as it is what it should be."""
    taken: Any = {}
    for name, usual in CompareChoices()._asdict().items():
        value = kept.get(name)
        if isinstance(usual, tuple) and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            taken[name] = tuple(value)
        elif not isinstance(usual, tuple) and isinstance(value, type(usual)):
            taken[name] = value
    choices = CompareChoices(**taken)
    usual_choices = CompareChoices()
    rows, columns = choices.rows, choices.columns
    if rows not in CHOICES or columns not in CHOICES or set(rows) & set(columns):
        choices = choices._replace(rows=usual_choices.rows, columns=usual_choices.columns)
    shows = tuple(dict.fromkeys(one for one in choices.shows if one in quantities.QUANTITIES))
    choices = choices._replace(shows=shows or usual_choices.shows)
    if choices.format not in FORMATS:
        choices = choices._replace(format=usual_choices.format)
    try:
        filters.read(choices.only, to_compare=True)
    except BadInput:
        choices = choices._replace(only="")
    try:
        check(choices.arrangement)
    except BadInput:
        choices = choices._replace(order="")
    return choices
