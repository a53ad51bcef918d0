"""Runs: all runs of the database."""

from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from dambench import launch
from dambench.store.runs import Store
from dambench.tui.feed import Question
from dambench.tui.place import Place


class RunsPlace(Place):
    """All runs."""

    NAME: ClassVar[str] = "Runs"

    def content(self) -> ComposeResult:
        yield Static(id="list")

    def question(self) -> Question:
        def found(store: Store) -> Any:
            return store.query("select * from runs where deleted_at = '' order by number desc limit 100")

        return found

    def show(self, found: Any) -> None:
        lines = [f"{row['id']}  {launch.state(row):8}  {row['method']}  {row['done']}/{row['total']}" for row in found]
        self.query_one("#list", Static).update(Text("\n".join(lines)))
