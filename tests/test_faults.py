"""Every write, one after the other, fails once. A run says so, what was kept stays, and it can be gone on with."""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.events import Stepped
from dambench.core.protocol import PRESETS, Budget
from dambench.store.runs import Store

RUN = [
    *("run", "--headless", "--method", "dm", "--dataset", "digits", "--network", "convnet-d1-w4", "--device", "cpu"),
    *("--eval-repeats", "1", "--set", "method.batch_real=4", "--iterations", "3", "--checkpoint-every", "0"),
]

WRITING = ("insert", "update", "delete", "begin", "commit", "create", "pragma journal_mode", "pragma user_version")


class Faults:
    """Counts what writes, and makes one of it fail.

    Args:
        at: which, from 0 on.
        error: what the system says.
    """

    def __init__(self, at: int, error: int):
        self.at, self.error, self.count = at, error, 0

    def pass_by(self, kind: type[Exception]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self.count += 1
        if self.count - 1 == self.at:
            words = {errno.ENOSPC: "database or disk is full", errno.EIO: "disk I/O error"}
            if kind is OSError:
                raise OSError(self.error, os.strerror(self.error))
            raise kind(words[self.error])

    @contextmanager
    def armed(self) -> Iterator[None]:
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql.lstrip().startswith(WRITING):
                    faults.pass_by(sqlite3.OperationalError)
                return super().execute(sql, *values)

        def before(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **more: Any) -> Any:
                faults.pass_by(OSError)
                return real(*arguments, **more)

            return call

        real_connect = sqlite3.connect
        with pytest.MonkeyPatch.context() as patched:
            for name in ("fsync", "replace", "link", "fchmod"):
                patched.setattr(os, name, before(getattr(os, name)))
            patched.setattr(files.tempfile, "mkstemp", before(files.tempfile.mkstemp))  # type: ignore[attr-defined]
            patched.setattr(sqlite3, "connect", lambda *a, **k: real_connect(*a, **k, factory=Connection))
            yield


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = msgspec.structs.replace(PRESETS["quick"], synthetic=Budget(epochs=1))
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: brief)


def _outcome(path: Path) -> dict[str, Any]:
    with closing(Store.open(path)) as store:
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        assert store.query("pragma foreign_key_check") == []
        (row,) = store.query("select id, state, set_sha256 from runs")
        return {
            "state": row["state"],
            "set": row["set_sha256"],
            "scores": store.query("select iteration, network, repeat, accuracy, loss from scores"),
            "losses": [(e.iteration, e.losses) for _, e in store.tail(row["id"]) if isinstance(e, Stepped)],
        }


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize(
    "stride", [7, pytest.param(1, marks=pytest.mark.slow)], ids=["every seventh write", "every write"]
)
def test_whatever_write_fails_nothing_that_was_kept_is_lost_and_the_run_can_go_on(
    error: int, stride: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "whole.db"
    assert run_cli([*RUN, "--db", str(path)]) == 0
    expected = _outcome(path)
    assert len(expected["losses"]) == 3
    faults = Faults(-1, error)
    with faults.armed():
        assert run_cli([*RUN, "--db", str(tmp_path / "counted.db")]) == 0
    assert faults.count > 60
    ended = set()
    for at in range(error % stride, faults.count, stride):
        path = tmp_path / f"{at}.db"
        capsys.readouterr()
        for made in (files.home() / "sets").iterdir():
            made.unlink()  # so that it is written again
        with Faults(at, error).armed():
            code = run_cli([*RUN, "--db", str(path)])
        said = capsys.readouterr().err
        assert code in (0, 1, 2), said
        assert "Traceback" not in said
        if code:
            assert any(words in said for words in ("full", "No space", "I/O error", "Input/output")), said
        ended.add(code)
        runs = []
        if path.exists():
            with closing(Store.open(path)) as store:
                assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
                runs = store.query("select id, state from runs")
        if not runs:
            assert code, "it said that it was done"
            assert run_cli([*RUN, "--db", str(path)]) == 0
        elif code == 0:
            assert runs[0]["state"] == "finished"
        elif runs[0]["state"] != "finished":
            with pytest.MonkeyPatch.context() as patched:
                # This very process is alive; the run's is not any more.
                patched.setattr("dambench.runner.processes._started", lambda pid: 0)
                assert run_cli(["resume", runs[0]["id"], "--headless", "--db", str(path)]) == 0
        assert _outcome(path) == expected, f"write {at} failed"
        assert [name for name in os.listdir(tmp_path) if name.endswith((".new", ".part"))] == []
    assert 1 in ended


def test_a_folder_that_is_removed_under_a_run_ends_it_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dambench.engine import loop as engine_loop

    folder = tmp_path / "gone"
    folder.mkdir()
    real = engine_loop._stepped

    def removed(*arguments: Any) -> Any:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        monkeypatch.setattr(engine_loop, "_stepped", real)
        return real(*arguments)

    monkeypatch.setattr(engine_loop, "_stepped", removed)
    assert run_cli([*RUN, "--db", str(folder / "runs.db")]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "could not be" in said
