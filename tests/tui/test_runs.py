"""The place of all runs: what it draws, and what its keys do."""

import itertools
import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from dambench.cli.app import run_cli
from dambench.core.config import Execution
from dambench.core.events import Process
from dambench.core.files import digest
from dambench.runner import processes
from dambench.store import filters, listing
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui import run_actions
from dambench.tui.app import DambenchApp
from dambench.tui.models import runs_page
from dambench.tui.screens import runs as place
from dambench.tui.screens.runs import RunsScreen
from dambench.tui.settings import Settings
from dambench.tui.widgets.pick import Ask, Pick
from dambench.tui.widgets.runs_table import RunsTable
from dambench.tui.widgets.sure import Sure
from tests import ledger
from tests.ledger import add, config, words
from tests.tui.screen import SIZES, console, drawn, play, said, shows, snapshot, stop_clock, types, until

GONE = Process(host="gpu07", boot="another boot", pid=39001, started=7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven runs: run0 … run6, of which the last two are lost and at work."""
    path = tmp_path_factory.mktemp("made") / "runs.db"
    names = iter(f"run{number}" for number in range(7))
    here = processes.this_process()
    with pytest.MonkeyPatch.context() as patched, closing(Store.open(path, write=True)) as store:
        stop_clock(patched)
        patched.setattr("dambench.store.records.new_id", lambda: next(names))
        add(store, config("random", 10), [0.26, 0.27, 0.25])
        add(store, config("dm", 10, options={"iterations": 2}), [0.489, 0.483, 0.492])
        add(store, config("datadam", 10, seed=1), [0.54, 0.545], overrides={"lr_images": 0.1})
        add(store, config("dc", 1), [0.3], end=ledger.failed())
        add(store, config("dsa", 50), [0.4], end=ledger.stopped())
        store.edit("run2", "note", "lambda as in the paper")
        store.edit("run2", "tag", "thesis")
        begin(store, config("mtt", 10, options={"iterations": 500}), GONE)
        begin(
            store,
            config("dm", 50, options={"iterations": 2000}),
            msgspec.structs.replace(here, host="gpu07", pid=41277),
        )
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with those runs."""
    stop_clock(monkeypatch)
    monkeypatch.setattr("dambench.store.records.new_id", lambda: "run7")
    monkeypatch.setattr(processes, "state", state)
    return Path(shutil.copy(made, tmp_path / "runs.db"))


def begin(store: Store, run: Any, process: Process) -> None:
    said = store.record(store.create(run, ledger.CARD, process=process), words(run))
    for _ in range(6):
        next(said)


def state(row: processes.ProcessRow) -> str:
    """As `launch.state`, of machines that are not here."""
    alive = row.state in ("waiting", "running")
    return "lost" if alive and row.boot == GONE.boot else row.state


def table(app: DambenchApp) -> RunsTable:
    return app.screen.query_one(RunsTable)


def shown(app: DambenchApp) -> list[str]:
    """The ids of the lines that are drawn, from above."""
    lines = drawn(app).splitlines()
    return [line[2:].split()[0] for line in lines if line[2:5] == "run" and line[:1] in " ▌>"]


def here(app: DambenchApp) -> str:
    """The id of the run under the cursor."""
    row = table(app).row
    return str(row.id) if row else ""


def _is(app: DambenchApp, run: str) -> bool:
    return here(app) == run


def asked(store_path: Path, sql: str) -> list[dict[str, Any]]:
    with closing(Store.open(store_path)) as store:
        return store.query(sql)


Scene = Callable[[Pilot[None]], Any]


@pytest.mark.parametrize("size", SIZES)
def test_it_looks_like_this(path: Path, size: tuple[int, int]) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "run6", "enter Open", "loss")
        await pilot.press("j", "space")
        await shows(pilot, "1 marked", "run4  dsa")
        await snapshot(pilot, "runs")

    play(app, scene, size)


def test_in_ascii_nothing_else_is_drawn(path: Path) -> None:
    app = console(path, ascii=True, colour=False)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "enter Open", ">")
        table(app).action_end(True)
        await shows(pilot, "26.0 +- 1.0 (3)")
        assert drawn(app).isascii()

    play(app, scene)


@pytest.mark.parametrize("size", [(60, 16), (100, 30), (140, 20)])
def test_in_every_size_state_and_accuracy_are_seen(path: Path, size: tuple[int, int]) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "48.8 ± 0.5 (3)", "fail", "3 h ago", "enter Open")

    play(app, scene, size)


def test_the_cursor_moves_by_vim_keys_and_arrows(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        for key, run in [
            ("j", "run5"), ("down", "run4"), ("k", "run5"), ("up", "run6"), ("up", "run6"), ("G", "run0"),
            ("j", "run0"), ("g", "run6"), ("end", "run0"), ("home", "run6"), ("ctrl+d", "run0"), ("ctrl+u", "run6"),
        ]:  # fmt: skip
            await pilot.press(key)
            await until(pilot, partial(_is, app, run))
        await shows(pilot, " run6  dm · digits · IPC 50")

    play(app, scene)


def test_the_run_under_the_cursor_is_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "RESTING", 0.01)
    app = console(path)

    async def leave(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("j", "j")
        await until(pilot, lambda: app.settings.get("runs.run", "") == "run4")

    play(app, leave)
    again = console(path)

    async def come_back(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(again) == "run4")
        await pilot.press("s", "enter")  # by age, the other way round: from the top
        await until(pilot, lambda: here(again) == "run0")

    play(again, come_back)


def test_a_filter_is_checked_while_it_is_typed_and_applied_by_itself(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs")
        await pilot.press("slash")
        await types(pilot, "metod:dm")
        await shows(pilot, "Did you mean 'method'?")
        assert len(shown(app)) == 7
        app.screen.query_one(Input).value = ""
        await types(pilot, "method:dm")
        await until(pilot, lambda: shown(app) == ["run6", "run1"])
        assert "Did you mean" not in drawn(app)
        await types(pilot, " ipc:", "enter")
        await shows(pilot, "needs a value")
        await pilot.press(*"10", "enter")
        await until(pilot, lambda: shown(app) == ["run1"])
        await shows(pilot, " / method:dm ipc:10", "1 of 7", "enter Open")
        await pilot.press("slash", "q", "escape")
        assert app.focused is table(app)
        await pilot.press("escape")
        await until(pilot, lambda: len(shown(app)) == 7)

    play(app, scene)
    assert console(path).settings.get("runs.filter", "x") == ""


def test_a_filter_that_meets_nothing_says_so_and_how_to_go_on(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs")
        await pilot.press("slash")
        await types(pilot, "method:nobody", "enter")
        await shows(pilot, "No run is meant by the filter 'method:nobody'.", "esc   clear it", "0 of 7")
        for key in ("enter", "x", "X", "D", "t", "N", "R", "r", "c", "space", "G", "y"):
            await pilot.press(key)
        assert app.screen is app.get_screen("runs")
        await pilot.press("escape")
        await until(pilot, lambda: len(shown(app)) == 7)

    play(app, scene)


def test_a_lost_run_is_found_by_the_filter_and_says_what_happened(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "1 running  1 lost")
        await pilot.press("slash")
        await types(pilot, "state:lost", "enter")
        await until(pilot, lambda: shown(app) == ["run5"])
        await shows(pilot, "process 39001 is gone from gpu07; r begins it anew")

    play(app, scene)


def test_a_checkpoint_is_named_where_a_lost_run_has_one(path: Path) -> None:
    with closing(Store.open(path)) as store:
        (listed,) = listing.page(store, [store.run("run5").number]).values()
    row = msgspec.structs.replace(listed, stands="lost", checkpoint=300)
    said = "process 39001 is gone from gpu07; r resumes from the checkpoint after iteration 300"
    assert runs_page.trouble(row) == said


def test_runs_are_sorted_by_a_column_and_again_the_other_way_round(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs")
        app.screen._sort("accuracy")  # type: ignore[attr-defined]
        await until(pilot, lambda: shown(app)[:3] == ["run2", "run1", "run4"])
        assert shown(app)[-2:] == ["run6", "run5"]  # of which nothing is known
        await shows(pilot, "ACC ± STD (N)↓")
        await pilot.press("s", "enter")
        await until(pilot, lambda: shown(app)[:3] == ["run0", "run3", "run4"])
        assert shown(app)[-2:] == ["run6", "run5"]
        await shows(pilot, "ACC ± STD (N)↑")

    play(app, scene)
    again = console(path)

    async def later(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(again)[:1] == ["run0"])

    play(again, later)


def test_every_order_holds_all_runs_once(path: Path) -> None:
    with closing(Store.open(path)) as store:
        only = filters.read("").where({})
        for order, down in product(listing.ORDERS, (False, True)):
            assert sorted(listing.ordered(store, only, order, down=down, lost=[6])) == [1, 2, 3, 4, 5, 6, 7]


def test_columns_are_chosen_and_remembered(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "LEFT/AGE")
        await pilot.press("C")
        await shows(pilot, "[x] RUN", "[ ] NOTE")
        await pilot.press("j", "j", "space", *"j" * 16, "space")
        await shows(pilot, "[ ] METHOD", "[x] NOTE")
        await pilot.press("enter")
        await shows(pilot, "NOTE", "lambda as")
        assert "METHOD" not in drawn(app)

    play(app, scene)
    assert "note" in console(path).settings.get("runs.columns", [])


@pytest.mark.parametrize("size", SIZES)
def test_what_there_is_no_room_for_below_the_table_ends_in_a_sign(path: Path, size: tuple[int, int]) -> None:
    with closing(Store.open(path, write=True)) as store:
        store.edit("run4", "note", "many words " * 100)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs", "run6")
        await pilot.press("j", "j")
        await shows(pilot, "run4  dsa", "note", "enter Open")
        await until(
            pilot, lambda: any("word" in line and line.rstrip()[-1] == "…" for line in drawn(app).splitlines()[-8:])
        )

    play(app, scene, size)


@pytest.mark.parametrize(("size", "left_out"), [((160, 24), ""), ((80, 24), "no room for 1 column")])
def test_of_chosen_columns_none_is_missing_without_a_word(path: Path, size: tuple[int, int], left_out: str) -> None:
    app = console(path)
    # No run has a name.
    app.settings.set(
        "runs.columns", ["run", "name", "accuracy", "begun", "protocol", "loss", "took", "age", "peak", "of"]
    )

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "NAME", "ACC ± STD (N)", "7 runs", left_out)
        assert ("STEP/OF" in drawn(app)) == (not left_out)
        assert ("no room" in drawn(app)) == bool(left_out)

    play(app, scene, size)


def test_marks_are_compared_and_copied_as_a_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(path.parent / "state"))
    monkeypatch.delenv("TMUX", raising=False)
    app = console(path)
    compared: list[list[str]] = []
    monkeypatch.setattr(app, "compare_runs", compared.append)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("y")
        assert (path.parent / "state/dambench/clipboard.txt").read_text() == "run6"
        await pilot.press("G", "k", "space", "space")
        await shows(pilot, "2 marked")
        await pilot.press("c")
        assert compared == [["run0", "run1"]]
        await pilot.press("y")
        copied = (path.parent / "state/dambench/clipboard.txt").read_text()
        assert "| run  |" in copied
        assert "48.8 ± 0.5 (3)" in copied
        assert len(copied.splitlines()) == 4
        await pilot.press("escape")
        await until(pilot, lambda: not table(app).marks)

    play(app, scene)


def test_tags_and_notes_are_written(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("space", "space", "t")
        await types(pilot, "one two", "enter")
        await until(pilot, lambda: len(asked(path, "select * from tags")) == 5)
        await pilot.press("escape", "t")
        await types(pilot, "-one x", "enter")
        await until(pilot, lambda: len(asked(path, "select * from tags where tag = 'x'")) == 1)
        await pilot.press("N")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await types(pilot, "look here", "enter")
        await until(pilot, lambda: asked(path, "select id from runs where note = 'look here'"))
        await shows(pilot, "look here")

    play(app, scene)


def test_a_run_that_only_evaluates_says_so_everywhere_and_is_run_again_as_that(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = iter(["maker", "judge", "orphan"])
    monkeypatch.setattr("dambench.store.records.new_id", lambda: next(names))
    with closing(Store.open(path, write=True)) as store:
        add(store, config("dm"), made="a set")
        for made in ("a set", "another"):
            where = Execution(made=digest(made.encode()), made_after=2)
            run = msgspec.structs.replace(config("dm"), evaluate_on=("resnet18",), execution=where)
            add(store, run, made=made)
    for command, told in (("runs", "maker's set: dm"), ("show judge", "evaluates maker's set")):
        assert run_cli([*command.split(), "--db", str(path)]) == 0
        assert told in " ".join(capsys.readouterr().out.split())
    started: list[list[str]] = []

    def start(arguments: list[str], say: Callable[[str], None]) -> tuple[str, int]:
        started.append(arguments)
        return "fresh2", 0

    monkeypatch.setattr(processes, "start", start)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "orphan")
        await shows(pilot, "the set ", "evaluates the set ")
        await pilot.press("R")
        await until(pilot, lambda: "the run that made it is not here" in said(app))
        await pilot.press("j")
        await shows(pilot, "maker's set: dm", "evaluates maker's set")
        await pilot.press("R")
        await shows(pilot, "judge only evaluates maker's set. The same again:", "--evaluate-on resnet18")
        await pilot.press("y")
        await until(pilot, lambda: started)
        assert "--again" in started[0]
        assert " ".join(started[0]).startswith(
            f"evaluate maker --evaluate-on resnet18 --eval-repeats {config('dm').eval_repeats} --protocol quick"
        )
        await pilot.press("enter")
        await shows(pilot, "[Run]", "judge finished  evaluates maker's set")

    play(app, scene)


def test_what_was_changed_meanwhile_is_shown_and_not_written_over(path: Path) -> None:
    app = console(path)

    def note() -> str:
        return str(asked(path, "select note from runs where id = 'run6'")[0]["note"])

    def elsewhere(what: Any, value: str | int) -> None:
        with closing(Store.open(path, write=True)) as store:
            store.edit("run6", what, value)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        for theirs, then, kept in (("theirs", "escape", "theirs"), ("theirs too", "enter", "mine")):
            await pilot.press("N")
            await until(pilot, lambda: isinstance(app.screen, Ask))
            elsewhere("note", theirs)
            app.screen.query_one(Input).value = "mine"
            await pilot.press("enter")
            await shows(pilot, "written meanwhile", theirs, "mine")
            assert note() == theirs
            await pilot.press(then)
            await until(pilot, partial(lambda kept: note() == kept and not isinstance(app.screen, Ask), kept))
        # Between the question and its answer a run may have gone on, or ended.
        elsewhere("note", "")
        await pilot.press("j", "D")
        await until(pilot, lambda: isinstance(app.screen, Sure))
        with closing(Store.open(path, write=True)) as store:
            store.db.conn.execute("update runs set boot = 'back again' where id = 'run5'")
            store.db.conn.commit()
        await pilot.press("y")
        await until(pilot, lambda: "Nothing was deleted: run5 goes on" in said(app))
        assert not asked(path, "select id from runs where deleted_at != ''")

    play(app, scene)


def test_a_signal_that_nobody_got_is_not_said_to_have_been_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_here", lambda row: True)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Sure))
        await pilot.press("y")
        await until(pilot, lambda: "process 41277 has ended meanwhile" in said(app))

    play(app, scene)


def test_two_consoles_remember_what_each_of_them_was_told(tmp_path: Path) -> None:
    one, other = Settings(tmp_path / "console.json"), Settings(tmp_path / "console.json")
    one.set("theme", "nord")
    other.set("runs.filters", {"mine": "method:dm"})
    one.set("runs.order", "seed")
    kept = Settings(tmp_path / "console.json")
    assert [kept.get(name, "") for name in ("theme", "runs.order")] == ["nord", "seed"]
    assert kept.get("runs.filters", {}) == one.get("runs.filters", {}, fresh=True) == {"mine": "method:dm"}


def test_a_run_is_put_into_the_trash_only_after_a_question_and_never_while_it_goes_on(path: Path) -> None:
    app = console(path)
    trash = "select id from runs where deleted_at != ''"

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("D")
        assert not isinstance(app.screen, Sure)
        await pilot.press("j", "D")
        await until(pilot, lambda: isinstance(app.screen, Sure))
        await pilot.press("escape", "D", "y")
        await until(pilot, lambda: asked(path, trash))
        assert asked(path, trash) == [{"id": "run5"}]
        await until(pilot, lambda: "run5" not in shown(app))
        assert here(app) == "run4"
        await pilot.press("D", "y")
        await until(pilot, lambda: len(asked(path, trash)) == 2)
        await until(pilot, lambda: "u takes it out" in said(app) and here(app) == "run3")
        await pilot.press("u")  # the last first
        await until(pilot, lambda: asked(path, trash) == [{"id": "run5"}])
        await until(pilot, lambda: "Out of the trash again: run4." in said(app))
        await pilot.press("u")
        await until(pilot, lambda: not asked(path, trash))
        await until(pilot, lambda: {"run4", "run5"} <= {*shown(app)})
        await pilot.press("u")
        await until(pilot, lambda: "Nothing was deleted since the console was opened" in said(app))

    play(app, scene)


def test_what_others_brought_back_or_deleted_anew_is_not_undone(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("j", "D", "y")
        await until(pilot, lambda: "In the trash: run5" in said(app))
        with closing(Store.open(path, write=True)) as store:
            store.restore("run5")
            store.delete("run5")
        await pilot.press("u")
        await until(pilot, lambda: "Nothing was brought back: run5 was restored, or deleted anew" in said(app))
        assert asked(path, "select id from runs where deleted_at != ''") == [{"id": "run5"}]

    play(app, scene)


def test_a_run_is_stopped_after_a_question_and_killed_only_by_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, int]] = []

    def send(row: RunRow, number: signal.Signals) -> bool:
        sent.append((row.id, number))
        return True

    monkeypatch.setattr(processes, "send", send)
    monkeypatch.setattr(processes, "is_here", lambda row: True)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("x", "escape")
        await pilot.press("x", "enter")
        await until(pilot, lambda: sent == [("run6", signal.SIGTERM)])
        await until(pilot, lambda: app.screen is app.get_screen("runs"))
        await pilot.press("X", *"run5", "enter")
        await until(pilot, lambda: app.screen is app.get_screen("runs"))
        await pilot.press("X", *"run6", "enter")
        await until(pilot, lambda: sent[1:] == [("run6", signal.SIGKILL)])
        await pilot.press("j", "x", "j", "X")
        await pilot.pause()
        assert app.screen is app.get_screen("runs")

    play(app, scene)
    assert len(sent) == 2


def test_a_run_on_another_host_is_asked_to_stop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_here", lambda row: False)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("X")
        await until(pilot, lambda: "only there can it be killed" in said(app))
        await pilot.press("x", "y")
        await until(pilot, lambda: asked(path, "select id from runs where stop_asked") == [{"id": "run6"}])

    play(app, scene)


def test_a_run_is_resumed_without_waiting_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def start(words: list[str], say: Callable[[str], None]) -> tuple[str, int]:
        started.append(words)
        say("The dataset has gone.")
        return "", 2

    monkeypatch.setattr(processes, "start", start)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("r", "j", "r")
        await until(pilot, lambda: "The dataset has gone." in said(app))
        assert started == [["resume", "run5", "--db", str(path), "--headless"]]

    play(app, scene)


def test_where_one_may_only_look_nothing_is_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_actions, "in_background", lambda place, work: pytest.fail("it worked"))
    app = console(path, readonly=True)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        for key in ("x", "X", "t", "N", "D", "R", "r"):
            await pilot.press(key)
            assert app.screen is app.get_screen("runs"), key
        await until(pilot, lambda: "This console only looks" in said(app))

    play(app, scene)


def test_what_is_written_meanwhile_appears_and_the_cursor_stays_with_its_run(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: here(app) == "run6")
        await pilot.press("j")
        with closing(Store.open(path, write=True)) as store:
            add(store, config("herding", 5))
        await until(pilot, lambda: shown(app)[:1] == ["run7"])
        assert here(app) == "run5"

    play(app, scene)


def test_a_thousand_runs_are_read_a_page_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_runs(path, 1000)
    sizes: list[int] = []
    page = listing.page

    def counted(store: Store, numbers: list[int], stands: Any = None) -> Any:
        sizes.append(len(numbers))
        return page(store, numbers, stands)

    monkeypatch.setattr(listing, "page", counted)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "1007 runs")
        await pilot.press("G")
        await until(pilot, lambda: here(app) == "run0")
        await pilot.press(*("k" * 40))
        await until(pilot, lambda: table(app).at == 1006 - 40 and table(app).row)
        await pilot.press("g")
        await until(pilot, lambda: table(app).at == 0 and table(app).row)

    play(app, scene)
    assert max(sizes) <= runs_page.PAGE


def copy_runs(path: Path, count: int) -> None:
    """As many more runs, copies of the second."""
    with closing(Store.open(path, write=True)) as store:
        names = [row["name"] for row in store.query("select name from pragma_table_info('runs')")]
        names = [name for name in names if name not in ("number", "id", "uid")]
        store.db.conn.execute(
            f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) "
            f"insert into runs (id, uid, {', '.join(names)}) "
            f"select 'copy' || i, 'uid' || i, {', '.join(names)} from n, runs where id = 'run1'"
        )


def test_without_a_database_or_a_run_it_says_how_to_begin(tmp_path: Path) -> None:
    app = console(tmp_path / "runs.db")

    async def scene(pilot: Pilot[None]) -> None:
        await shows(
            pilot, "There is no database", "dambench run --detach --method dm --dataset digits --ipc 1 --seeds 0-2"
        )
        assert not app.screen.query_one("#trouble").display
        Store.open(tmp_path / "runs.db", write=True).close()
        await shows(pilot, "No runs in", "n     start one")
        with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
            run = add(store, config())
        await shows(pilot, run)
        # The keys were never the filter's.
        await pilot.press("N")
        await shows(pilot, f"Note to {run}")

    play(app, scene)


def test_a_database_of_a_newer_dambench_is_a_sentence(path: Path) -> None:
    with closing(Store.open(path, write=True)) as store:
        store.db.conn.execute("pragma user_version = 99")
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "a newer dambench made it")

    play(app, scene)


def test_a_fault_of_a_place_becomes_a_message_and_the_console_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(path.parent / "state"))
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs")
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(RunsScreen, "show", lambda self, found: 1 / 0)
            await shows(pilot, "ZeroDivisionError", "The runs go on.")
        await pilot.press("escape", "j")
        await until(pilot, lambda: here(app) == "run5")

    play(app, scene)
    assert "ZeroDivisionError" in (path.parent / "state/dambench/console.log").read_text()


def test_a_fault_that_comes_again_and_again_is_told_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(path.parent / "state"))
    app, times = console(path), itertools.count()

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs")
        ticking = app.screen.set_interval(0.02, lambda: next(times) / 0)
        await shows(pilot, "ZeroDivisionError", "The runs go on.")
        told = next(times)
        await until(pilot, lambda: next(times) > told + 5)
        ticking.stop()
        await pilot.press("escape", "j")
        await until(pilot, lambda: here(app) == "run5")

    play(app, scene)
    assert (path.parent / "state/dambench/console.log").read_text().count("Traceback") == 1


def test_a_box_is_called_what_it_is_called(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "7 runs")
        for box in (Ask("Note to [red]x", ""), Pick("Of [red]x", [("[/y]", "")]), Sure("Kill [red]x", "[/y]", "do it")):
            app.push_screen(box)
            await shows(pilot, "[red]x")
            await pilot.press("escape")

    play(app, scene)


def test_hostile_words_are_drawn_as_words(path: Path) -> None:
    with closing(Store.open(path, write=True)) as store:
        evil = "[bold]a[/] \x1b]52;c;YQ==\x07 \u202eb"
        store.db.conn.execute(
            "update runs set method = ?1, dataset = ?1, network = ?1, host = ?1, note = ?1, name = ?1, error = ?1, "
            "protocol = ?1, log = ?1",
            [evil],
        )
        store.db.conn.execute("insert into tags select ?, number from runs", [evil])
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "[bold]")
        for key in ("j", "j", "j", "N"):
            await pilot.press(key)
            await pilot.pause()
            assert not {"\x1b", "\x07", "\u202e"} & set(drawn(app))

    play(app, scene, (160, 48))
