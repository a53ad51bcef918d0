"""Queue actions: have runs wait for their turn, from whatever place they are seen in."""

import re
from collections.abc import Sequence

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.core.sweep import TAG
from dambench.store.rows import RunRow
from dambench.tui.main_screen import MainScreen
from dambench.tui.models import queueing
from dambench.tui.models.queueing import Wish
from dambench.tui.run_actions import in_background
from dambench.tui.widgets.pick import Ask
from dambench.tui.widgets.sure import Sure


def queue_again(screen: MainScreen, rows: Sequence[RunRow]) -> None:
    """Ask for other seeds and settings, and queue runs once more with each combination: a sweep, if it has a name."""

    def typed(text: str | None) -> None:
        if text is None:
            return
        words = text.split()
        names = [word for word in words if "=" not in word]
        if len(names) > 1:
            raise BadInput(f"{display(' '.join(names), 60)!r}: a sweep has one name, and settings are NAME=A,B.")
        if names and not re.fullmatch("[A-Za-z0-9._-]{1,60}", names[0]):
            raise BadInput(f"{display(names[0], 60)!r}: a name may have letters, digits, . _ and -, up to 60.")
        wishes = queueing.wishes_like(rows, " ".join(word for word in words if "=" in word))
        ask_to_queue(screen, wishes, f"{TAG}{names[0]}" if names else "")

    which = rows[0].id if len(rows) == 1 else counted(len(rows), "run")
    about = "Other seeds, settings, and a name of the sweep, as:\nseeds=3-7 ipc=1,10 my-sweep"
    screen.app.push_screen(Ask(f"Queue {which} again", "", about), typed)


def ask_to_queue(screen: MainScreen, wishes: Sequence[Wish], tag: str) -> None:
    """Say how many runs are to be queued, and do it."""

    def work() -> str:
        with screen.console_app.database(write=True) as store:
            store.refresh()
            added = queueing.queue(store, wishes, tag)
        there = f"; {len(added.there)} were queued already" if added.there else ""
        return f"Queued: {counted(len(added.new), 'run')}{there}. 4 shows the queue."

    def sure(yes: bool | None) -> None:
        if yes:
            in_background(screen, work)

    named = f", as the sweep {display(tag.removeprefix(TAG), 60)}" if tag else ""
    text = f"Queue {counted(len(wishes), 'run')}{named}? They begin when a worker takes them."
    screen.app.push_screen(Sure("Queue", text, "queue"), sure)
