"""What the tests of the command line share."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dambench import engine
from dambench.cli.app import run_cli
from dambench.core.events import AnyEvent, Measured
from dambench.runner import processes
from dambench.store.runs import Store

SMALL = [
    *("run", "--headless", "--dataset", "digits", "--network", "convnet-d1-w4", "--eval-repeats", "2"),
    *("--device", "cpu", "--set", "method.batch_real=8", "--iterations", "3"),
]

DM = [*SMALL, "--method", "dm"]

BARE = ["run", "--headless", "--dataset", "digits", "--method", "dm"]


class Killed(BaseException):
    """What nothing catches."""


@contextmanager
def killed_after(measured: int) -> Iterator[list[AnyEvent]]:
    """What is run within dies as soon as so many networks or items are on record; yields what it has said till then."""
    real = engine.run
    said: list[AnyEvent] = []

    def run(*arguments: Any, **more: Any) -> Iterator[AnyEvent]:
        for event in real(*arguments, **more):
            yield event
            said.append(event)
            if isinstance(event, Measured) and sum(isinstance(each, Measured) for each in said) == measured:
                raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "run", run)
        with pytest.raises(Killed):
            yield said


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints with `--json`."""
    capsys.readouterr()
    assert run_cli([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class BegunChild:
    """A process of a queued run that has ended already: it was carried out in this one."""

    pid = 0

    def __init__(self, arguments: list[str], environ: Mapping[str, str], folder: Path):
        self.log = folder / "child.log"
        with pytest.MonkeyPatch.context() as there:
            there.setenv(processes.QUEUED, environ.get(processes.QUEUED, ""))
            text = io.StringIO()
            with redirect_stderr(text), redirect_stdout(text):
                self._code = run_cli(arguments)
        self.log.write_text(text.getvalue())
        self.run = ""
        if arguments[0] != "experts":
            with closing(Store.open(Path(arguments[-1]))) as store:
                newest = store.query("select id from runs order by number desc limit 1")
            self.run = newest[0]["id"] if newest else ""

    def hear(self) -> bool:
        return True

    def ended(self) -> int:
        return self._code

    def terminate(self) -> None:
        return None

    def let_go(self) -> None:
        return None


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands of queued runs that are begun, in this process instead of one of their own."""
    commands: list[list[str]] = []

    def launch(arguments: list[str], environ: Mapping[str, str]) -> BegunChild:
        commands.append(arguments)
        return BegunChild(arguments, environ, tmp_path / "home")

    monkeypatch.setattr(processes, "launch", launch)
    monkeypatch.setattr("dambench.runner.worker.POLL_SECONDS", 0.0)
    return commands
