"""What is queued from the console, by what key, and the worker that it starts."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from dambench import __version__
from dambench.core.errors import BadInput
from dambench.runner import processes
from dambench.runner.own_worker import BackgroundWorker
from dambench.store.queue import Queue
from dambench.store.runs import Store
from dambench.tui.models import queueing
from dambench.tui.queue_actions import missing_in_words
from tests import ledger
from tests.tui.screen import console, play, said, shows, until

EARLIER = "2026-11-01T11:30:00.000+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        ledger.add(store, ledger.config("random", 1))
        ledger.add(store, ledger.config("dm", 1))
    return tmp_path / "runs.db"


def test_a_worker_is_started_once_and_let_end_by_the_same_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []

    def start(where: Path) -> BackgroundWorker:
        started.append(where)
        here = processes.this_process()
        with closing(Store.open(where, write=True)) as store:
            Queue(store).see("w" * 32, host=here.host, boot=here.boot, pid=here.pid, process_started=here.started,
                             dambench=__version__, executor="local", slots=1, began_at=EARLIER)  # fmt: skip
        return BackgroundWorker(here.pid, "worker.log")

    monkeypatch.setattr("dambench.runner.own_worker.start", start)

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await shows(pilot, "[4 Queue]", "Nothing is queued")
        await pilot.press("w")
        await shows(pilot, "Start a worker on this machine?", "lets it take nothing more")
        await pilot.press("escape")
        assert started == []
        await pilot.press("w", "y")
        await until(pilot, lambda: "A worker is at work as process" in said(pilot.app))
        assert started == [path]
        await pilot.press("w")
        await shows(pilot, "A worker is at work here")
        await pilot.press("y")
        await until(pilot, lambda: "ends once what it runs is finished" in said(pilot.app))
        with closing(Store.open(path)) as store:
            assert [worker.asked for worker in Queue(store).workers()] == ["drain"]
        await pilot.press("w")
        await until(pilot, lambda: "takes nothing more already" in said(pilot.app))
        assert started == [path]

    play(console(path), scene)


def test_what_tables_lack_is_queued_once_it_was_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answer(words: Sequence[str]) -> str:
        asked.append(list(words))
        found = {"runs": ["random digits IPC 1 quick seed 1"], "seconds": 90.0, "without": 0, "queued": 2}
        return json.dumps(found) if "--dry-run" in words else "ab2cde  random digits\n"

    monkeypatch.setattr("dambench.tui.queue_actions._of_dambench", answer)

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await shows(pilot, "[3 Compare]", "random")
        await pilot.press("Q")
        await shows(
            pilot, "Queue 1 run? They take about 1 min 30 s one after another.", "2 runs more are queued already"
        )
        assert len(asked) == 1
        await pilot.press("y")
        await until(pilot, lambda: "Queued: 1 run. 4 shows the queue." in said(pilot.app))

    play(console(path), scene)
    assert asked[1] == [
        *("report", "--fill", "--rows", "method", "--columns", "dataset,ipc", "--db", str(path.absolute())),
    ]


def test_what_nobody_knows_the_time_of_is_said() -> None:
    found: dict[str, Any] = {"runs": ["a"] * 10, "seconds": 0.0, "without": 10, "queued": 0}
    assert "– of time: no run of the kind is known" in missing_in_words(found)
    assert missing_in_words(found).endswith("… and 2 more")
    assert "for 6 of them; of the others none is known" in missing_in_words(found | {"without": 4, "seconds": 60.0})


def test_runs_from_the_console_have_the_key_by_which_the_same_is_not_queued_twice(path: Path) -> None:
    with closing(Store.open(path, write=True)) as store:
        (dm,) = store.runs("method = 'dm'")
        again = queueing.wishes_like([dm], "seeds=4,5")
        assert again[0].key == f"{ledger.config('dm', 1, seed=4).sha256} {dm.dataset_sha256}"
        assert len(queueing.queue(store, again, "").new) == 2
        assert len(queueing.queue(store, again, "sweep:x").there) == 2
        # Other settings are looked up by a child with torch, each configuration once.
        other = queueing.wishes_like([dm], "ipc=1,10 seeds=4,6")
        asked: list[Sequence[str]] = []

        def outlooks(questions: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
            asked.extend(questions)
            assert all("seeds = [\n" in Path(question[0]).read_text() for question in questions)
            digests = [["a4", "a6"], ["b4", "b6"]]
            return [{"seeds": [4, 6], "config_sha256": each, "data": {"sha256": "d"}} for each in digests]

        keyed = queueing.with_keys(other, outlooks)
        assert [wish.key for wish in keyed] == ["a4 d", "a6 d", "b4 d", "b6 d"]
        assert len(asked) == 2
        with pytest.raises(BadInput, match="it cannot be"):
            queueing.with_keys(other, lambda questions: [{"error": "it cannot be"}] * len(questions))
        unprepared = queueing.with_keys(other, lambda questions: [{"runs": 2, "first": "preparing"}] * len(questions))
        assert {wish.key for wish in unprepared} == {""}


def test_a_form_that_was_checked_gives_its_runs_their_keys() -> None:
    form = {"method": "dm", "dataset": "digits", "ipc": "1", "seeds": "0-1"}
    answer = {"seeds": [0, 1], "config_sha256": ["x", "y"], "data": {"sha256": "d"}}
    assert [wish.key for wish in queueing.wishes_of_form(form, answer)] == ["x d", "y d"]
    assert [wish.key for wish in queueing.wishes_of_form(form)] == ["", ""]
