"""Two hosts on one machine, each with a home of its own, and the line between them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dambench.store.spool import Batch, Intake


@contextmanager
def at(host: Path, disk: str = "local") -> Iterator[None]:
    """On a host with a home of its own."""
    before = {name: os.environ[name] for name in ("DAMBENCH_HOME", "DAMBENCH_DISK")}
    os.environ.update(DAMBENCH_HOME=str(host), DAMBENCH_DISK=disk)
    try:
        yield
    finally:
        os.environ.update(before)


class Line:
    """A link to an intake on the head, on which things can go wrong.

    Args:
        fault: called before and after each call: what it raises happens to the call.
    """

    def __init__(self, head: Path, fault: Callable[[str, str], None] = lambda name, when: None):
        self.head, self.fault = head, fault
        self.batches: list[Batch] = []
        with at(head):
            self.intake = Intake(head / "runs.db")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            self.fault(name, "before")
            with at(self.head):
                answer = getattr(self.intake, name)(*values)
            if name == "take":
                self.batches.append(values[0])
            self.fault(name, "after")
            return answer

        return call

    def restart(self) -> None:
        """The head's process is killed, and another one begins."""
        with at(self.head):
            self.intake = Intake(self.head / "runs.db")
