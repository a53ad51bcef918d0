import asyncio
import io
import json
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Select

from dambench.cli.app import run_cli
from dambench.core.config import Choice, Count, Execution, Request, option, options
from dambench.core.errors import BadInput
from dambench.datasets import prepare
from dambench.runner import monitor, processes
from dambench.runner.monitor import Glance, Tenant
from dambench.store import records
from dambench.store.history import Expected, Similar
from dambench.store.runs import Store
from dambench.tui import checker
from dambench.tui.models import catalogue, request
from dambench.tui.models.catalogue import Catalogue, CatalogueEntry
from dambench.tui.models.preflight import Outlook, field_notes, gpu_lines, preflight_lines
from dambench.tui.screens import new_run
from dambench.tui.screens.new_run import NewRunScreen
from dambench.tui.widgets.form import FormRow
from dambench.tui.widgets.jump import targets
from tests import ledger
from tests.tui.screen import SIZES, console, drawn, play, shows, snapshot, until

Answers = Callable[[list[str]], dict[str, Any]]

OPTIONS = {
    "$ref": "#/$defs/Options",
    "$defs": {
        "Options": {
            "properties": {
                "iterations": {"description": "updates of the images", "type": "integer", "minimum": 1},
                "lr_images": {"description": "step size", "type": "number", "exclusiveMinimum": 0},
                "init": {"description": "what to start from", "enum": ["noise", "real"]},
            }
        }
    },
}
DM = {"name": "dm", "what": "DM: means", "paper": "arXiv 1", "options": OPTIONS, "recipes": []}
KNOWN = Catalogue(
    methods={
        "dm": msgspec.convert(DM, CatalogueEntry),
        "random": CatalogueEntry("random", "Random"),
    },
    networks={"convnet": CatalogueEntry("convnet")},
    datasets={
        "cifar10": CatalogueEntry("cifar10", source="download", files=("raw/one", "raw/two")),
        "digits": CatalogueEntry("digits", source="package"),
    },
)


def _answer(method: str = "dm", seeds: tuple[int, ...] = (0,), **options: object) -> dict[str, Any]:
    standard = {"iterations": 200, "lr_images": 1.0, "init": "real"} if method == "dm" else {}
    config = ledger.config(method, options=standard | options)
    return {
        "runs": len(seeds),
        "seeds": list(seeds),
        "config_sha256": [config.sha256],
        "config": msgspec.to_builtins(config),
        "data": msgspec.to_builtins(ledger.CARD),
        "recipe": {"name": "default", "source": "a table, row 3", "options": {"iterations": 200}},
        "standard": standard,
        "overrides": options,
        "notes": [],
    }


def _says(arguments: list[str]) -> dict[str, Any]:
    """As the child with torch would, for the few things these tests type."""
    if "20k" in arguments:
        error = "Invalid value for '--iterations': '20k' is not a valid integer."
        return {"error": error, "field": "iterations"}
    if "cifar10" in arguments:
        return {"runs": 1, "first": "Preparing cifar10: this is done once. Its 2 raw files must be downloaded."}
    method = arguments[arguments.index("--method") + 1]
    options = {"iterations": int(arguments[arguments.index("--iterations") + 1])} if "--iterations" in arguments else {}
    seeds = range(3 if "0-2" in arguments else 5 if "--seeds" in arguments else 1)
    return _answer(method, tuple(seeds), **options)


class Answering:
    """A stand-in for Checker: answers at once, in a thread of its own."""

    asked: list[list[str]]

    def __init__(self, hear: Callable[[list[str], dict[str, Any]], None]):
        self._hear = hear

    def ask(self, arguments: list[str]) -> None:
        Answering.asked.append(arguments)
        threading.Thread(target=self._hear, args=(arguments, _says(arguments))).start()

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Answering.asked = []
    monkeypatch.setattr(new_run, "Checker", Answering)
    monkeypatch.setattr(new_run, "STILL", 0.01)
    monkeypatch.setattr(catalogue, "kept", lambda: KNOWN)
    monkeypatch.setattr(monitor, "look", lambda: ([], "The driver is not there."))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _filled(tmp_path)


def _filled(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        for iterations in (200, 100):
            ledger.add(store, ledger.config(options={"iterations": iterations, "lr_images": 1.0, "init": "real"}))
    return path


def _form(app: Any) -> NewRunScreen:
    assert isinstance(app.screen, NewRunScreen)
    return app.screen


async def _opened(pilot: Pilot[None]) -> NewRunScreen:
    await pilot.press("n")
    await until(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
    await shows(pilot, "Nothing is wrong with it", "The driver is not there")
    await until(pilot, lambda: pilot.app.screen.query("#field-method-init"))
    return _form(pilot.app)


async def _type(pilot: Pilot[None], name: str, text: str) -> None:
    entry = pilot.app.screen.query_one(f"#field-{name}").query_one(Input)
    entry.focus()
    entry.value = ""
    await pilot.press(*text)


def _ids(path: Path) -> list[str]:
    with closing(Store.open(path)) as store:
        return [row["id"] for row in store.query("select id from runs order by number")]


@pytest.mark.parametrize("size", SIZES)
def test_the_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    first, second = names = ["aaaaa2", "bbbbb3"]
    monkeypatch.setattr(records, "new_id", iter(names).__next__)
    path = _filled(tmp_path)

    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        await shows(
            pilot, f"same   {first} (finished): this very", f"near   {second} differs in method.iterations only:"
        )
        await until(pilot, lambda: form.focused is not None)
        await snapshot(pilot, "new-run")

    play(console(path), scene, size)


def test_what_is_typed_is_what_is_checked_and_shown(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        await _type(pilot, "seeds", "0-4")
        await shows(pilot, "--seeds 0-4", "5 runs, one after the other", "for 5")
        assert Answering.asked[-1] == [
            *("--method", "dm", "--dataset", "digits", "--ipc", "1", "--seeds", "0-4", "--db", str(path))
        ]
        assert form.to_copy() == "dambench run --method dm --dataset digits --ipc 1 --seeds 0-4"
        await _type(pilot, "changes", "lr=.02, synthetic.epochs=400")
        await shows(pilot, "--protocol +lr=.02+synthetic.epochs=400", "Nothing is wrong with it")
        assert request.command(request.from_toml(request.to_toml(form.form))) == form.to_copy()

    play(console(path), scene)


def test_the_sentence_of_the_command_line_is_shown_and_its_field_marked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(processes, "start", lambda *said: _noted(started, said))

    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        await _type(pilot, "method-iterations", "20k")
        await shows(pilot, "! Invalid value for '--iterations': '20k' is not a valid integer.")
        assert "Try: dambench --help" not in drawn(pilot.app)
        assert [row.field_name for row in form.query(FormRow) if row.has_class("wrong")] == ["method.iterations"]
        assert "!iterations" in drawn(pilot.app)
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert not started
        await _type(pilot, "method-iterations", "20")
        await shows(pilot, "recipe 200, changed", "Nothing is wrong with it")
        assert not form.query(".wrong")

    play(console(path), scene)


def test_another_method_has_other_options(path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        await _type(pilot, "method-iterations", "20")
        await shows(pilot, "--iterations 20")
        form.query_one("#field-method").query_one(Select).focus()
        await pilot.press("right")
        await shows(pilot, "--method random")
        await until(pilot, lambda: not form.query("#field-method-iterations"))
        assert "--iterations" not in form.to_copy()
        await until(pilot, lambda: isinstance(form.focused, Select))  # the keys stay where they were
        await pilot.press("left")
        await until(pilot, lambda: form.query("#field-method-iterations"))

    play(console(path), scene)


def test_data_that_are_not_here_are_told_of(path: Path, tmp_path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        form.query_one("#field-dataset").query_one(Select).value = "cifar10"
        await shows(pilot, "cifar10 · not here", "The rest is checked when the data are there.")
        (tmp_path / "raw").mkdir()
        for name in ("one", "two"):
            (tmp_path / "raw" / name).touch()
        form.query_one("#field-data").query_one(Input).value = str(tmp_path)
        await shows(pilot, "cifar10 · raw here")

    play(console(path), scene)


def test_the_form_says_nothing_of_what_it_does_not_know(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two finished runs have the protocol: that is known whether the data are prepared, or something is wrong."""
    sharing = "2 finished runs have this protocol"
    answer = threading.Event()
    answer.set()

    class Late(Answering):
        def ask(self, arguments: list[str]) -> None:
            def say() -> None:
                answer.wait(20)
                self._hear(arguments, _says(arguments))

            threading.Thread(target=say).start()

    monkeypatch.setattr(new_run, "Checker", Late)
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        await shows(pilot, sharing, "10 + 10 images")
        answer.clear()
        form.query_one("#field-dataset").query_one(Select).value = "cifar10"
        await shows(pilot, "Before you start (checking …)", "checking …")
        await until(pilot, lambda: "10 + 10 images" not in drawn(app) and sharing in drawn(app))
        answer.set()
        await shows(pilot, "The rest is checked", sharing)
        form.query_one("#field-dataset").query_one(Select).value = "digits"
        await until(pilot, lambda: form.query("#field-method-init"))
        form.query_one("#field-method-iterations").query_one(Input).value = "20k"
        await shows(pilot, "not a valid integer", sharing)
        form.query_one("#field-protocol").query_one(Select).value = "dc"
        await shows(pilot, "No finished run has this protocol yet.")

    def fails(*_: object) -> None:
        raise BadInput("it is locked")

    async def unheard(pilot: Pilot[None]) -> None:
        monkeypatch.setattr(new_run, "read_outlook", fails)
        await _opened(pilot)
        await shows(pilot, "cannot be asked: it is locked")
        assert not any(said in drawn(app) for said in ("this protocol", "no such run"))

    play(app, scene, (160, 48))
    app = console(path)
    play(app, unheard, (160, 48))


def test_it_starts_what_it_shows_and_opens_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    opened: list[str] = []

    def start(arguments: list[str], say: Callable[[str], None]) -> tuple[str, int]:
        started.append(arguments)
        say("Preparing digits: this is done once.")
        return "abc234", 0

    monkeypatch.setattr(processes, "start", start)
    app = console(path)
    monkeypatch.setattr(app, "open_run", opened.append)

    async def scene(pilot: Pilot[None]) -> None:
        await _opened(pilot)
        await shows(pilot, "this very configuration")
        await pilot.press("ctrl+r")
        await shows(pilot, "once more adds no evidence")
        assert not started
        await pilot.press("ctrl+r")
        await until(pilot, lambda: opened)
        assert started == [["run", *Answering.asked[-1], "--again", "--headless"]]
        assert opened == ["abc234"]

    play(app, scene)


def test_why_a_run_did_not_start_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(arguments: list[str], say: Callable[[str], None]) -> tuple[str, int]:
        say("dambench: The disk is full.")
        return "", 2

    monkeypatch.setattr(processes, "start", start)

    async def scene(pilot: Pilot[None]) -> None:
        await _opened(pilot)
        await _type(pilot, "seeds", "7")
        await shows(pilot, "--seed 7", "Nothing is wrong")
        await pilot.press("ctrl+r")
        await pilot.press("ctrl+r")
        await shows(pilot, "! The disk is full.")

    play(console(path), scene)


def test_a_console_that_only_looks_starts_and_measures_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*said: object) -> None:
        raise AssertionError(said)

    monkeypatch.setattr(processes, "start", fail)
    monkeypatch.setattr(new_run, "Measurement", fail)

    app = console(path, readonly=True)
    said: list[str] = []
    monkeypatch.setattr(app, "say", lambda text, severity="": said.append(text))

    async def scene(pilot: Pilot[None]) -> None:
        await _opened(pilot)
        said.clear()  # who opens a console for the first time is told where the runs come from
        await pilot.press("ctrl+r", "ctrl+t")
        await until(pilot, lambda: len(said) == 2)
        assert set(said) == {"This console only looks (--readonly)."}

    play(app, scene)


def test_a_measurement_goes_before_the_past(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Measuring:
        def __init__(self, arguments: list[str], hear: Callable[[dict[str, Any]], None]):
            asked.extend((arguments, hear))

        def stop(self) -> None:
            pass

    monkeypatch.setattr(new_run, "Measurement", Measuring)

    async def scene(pilot: Pilot[None]) -> None:
        await _opened(pilot)
        await pilot.press("ctrl+t")
        await shows(pilot, "measuring a few iterations")
        found = {"seconds": {"distil": 60.0, "evaluate": 30.0}, "peak_memory_bytes": {"distil": 10**9}}
        asked[1](found | {"disk_bytes": 10**6})
        await shows(pilot, "~1 min 30 s per seed, ~4 min 30 s for 3 seeds, measured just now")
        await _type(pilot, "seeds", "3")  # of another request nothing is known
        await shows(pilot, "from 2 past runs")

    play(console(path), scene)


def test_a_run_can_be_asked_for_again(path: Path) -> None:
    with closing(Store.open(path)) as store:
        row = msgspec.structs.replace(store.run(_ids(path)[1]), overrides='{"iterations": 100}')
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        app.new_run(row)
        await shows(pilot, f"from {row.id}", "--iterations 100", "--seed 0")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, NewRunScreen))
        await pilot.press("n")  # the form is kept
        await shows(pilot, "--iterations 100")

    play(app, scene)


def test_it_can_be_edited_as_a_file(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho \'method = "random"\ndataset = "digits"\nipc = 7\' > $1\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    app = console(path)

    class Suspended:
        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(app, "suspend", Suspended)

    async def scene(pilot: Pilot[None]) -> None:
        await _opened(pilot)
        await pilot.press("ctrl+o")
        await shows(pilot, "dambench run --method random --dataset digits --ipc 7")
        monkeypatch.setenv("VISUAL", "/nowhere/vi")
        await pilot.press("ctrl+o")
        await shows(pilot, "! The form stays as it was")

    play(app, scene)


def _noted(where: list[object], what: object) -> tuple[str, int]:
    where.append(what)
    return "", 2


def test_options_come_when_they_are_known_and_gpus_when_they_are_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, seen = threading.Event(), threading.Event()
    card = Glance("H100", 0, 80 * 10**9, 0, [])
    monkeypatch.setattr(catalogue, "kept", lambda: None)
    monkeypatch.setattr(catalogue, "load", lambda: learnt.wait(20) and KNOWN)
    monkeypatch.setattr(monitor, "look", lambda: seen.wait(20) and ([card], ""))

    async def scene(pilot: Pilot[None]) -> None:
        await pilot.press("n")
        await shows(pilot, "Nothing is wrong with it", "GPU    asking")
        form = _form(pilot.app)
        assert not form.query("#field-method-init")
        learnt.set()
        await until(pilot, lambda: form.query("#field-method-init"))
        seen.set()
        await shows(pilot, "0 H100: 80.0 GB of 80.0 GB free", "nobody computes on it")
        choice = form.query_one("#field-device").query_one(Select)
        choice.focus()
        await pilot.press("right", "right")
        await shows(pilot, "--device cuda:0")

    play(console(path), scene)


# What is said, without a screen.


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ([], ""),
        (["--ipc", "500"], "ipc"),
        (["--recipe", "none"], "recipe"),
        (["--network", "convnat"], "network"),
        (["--evaluate-on", "mlp,mlp"], "evaluate_on"),
        (["--iterations", "0"], "method.iterations"),
        (["--set", "method.lr_images=-1"], "method.lr_images"),
        (["--seeds", "4-"], "seeds"),
        (["--seed", "x"], "seeds"),
        (["--protocol", "quick+lr=-1"], "changes"),
    ],
)
def test_an_error_names_its_field(
    words: list[str], field: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(Choice("digits"), None)
    line = json.dumps(["--method", "dm", "--dataset", "digits", *words])
    monkeypatch.setattr("sys.stdin", io.StringIO(line + "\n"))
    capsys.readouterr()
    assert run_cli(["checks"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert request.field_of_error(answer, {"changes": "lr=-1"}) == field
    assert ("error" in answer) == bool(field)


def test_an_option_of_a_run_that_is_new_is_a_field_of_the_form(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class More(Request, frozen=True, forbid_unknown_fields=True, kw_only=True):
        warm_up: Annotated[Count | None, option("Warm-up", "Iterations with a growing step size", default="9")] = None

    monkeypatch.setattr(request, "options", lambda: options(More))
    request.fields.cache_clear()

    async def scene(pilot: Pilot[None]) -> None:
        form = await _opened(pilot)
        entry = form.query_one("#field-warm_up").query_one(Input)
        entry.focus()
        await pilot.press("7")
        await shows(pilot, "Warm-up", "Iterations with a growing step size [default: 9].")
        assert form.to_copy() == "dambench run --method dm --dataset digits --ipc 1 --seeds 0-2 --warm-up 7"
        assert entry.placeholder == "9"
        assert "warm_up = 7" in request.to_toml(form.form)

    try:
        play(console(path), scene)
    finally:
        request.fields.cache_clear()


def test_beside_each_field_is_what_it_comes_to() -> None:
    notes = field_notes(_answer(lr_images=0.5), KNOWN)
    assert notes["dataset"] == "10 + 10 images, 1×8×8, 2 classes"
    assert notes["method.iterations"] == "recipe 200"
    assert notes["method.lr_images"] == "default 1.0, changed"
    assert notes["ipc"] == "of 5 in the smallest class"
    assert field_notes({"error": "no"}, KNOWN) == {}


def test_what_to_know_before_a_run_is_started() -> None:
    past = Expected("an H100", 3, 3600.0, 600.0, 0.1, 2 * 10**9, 5 * 10**6)
    outlook = Outlook(
        same=[Similar("r1", "failed", {})] * 4, near=[Similar("r2", "finished", {"ipc": (10, 1)})], expected=[past]
    )
    lines = preflight_lines(_answer(seeds=(0, 1)), outlook, None, ["0 card"])
    assert lines == [
        (
            "time",
            "~1 h 10 min per seed, ~2 h 20 min for 2 seeds (distil 1 h 0 min, evaluate 10 min 0 s, 10 it/s), "
            "from 3 past runs on an H100",
        ),
        ("memory", "~2.0 GB peak"),
        ("disk", "~5 MB per seed"),
        ("same", "r1 (failed), r1 (failed), r1 (failed) and 1 more: this very configuration"),
        ("near", "r2 differs in ipc only: 10, here 1"),
        ("GPU", "0 card"),
    ]
    unknown = preflight_lines(_answer(), Outlook(), None, [])
    assert unknown == [("time", "unknown: no such run on cpu yet; ctrl+t measures")]
    assert preflight_lines(_answer(), Outlook(), {"error": "It needs 9 GB."}, [])[0][1].endswith("It needs 9 GB.")


def test_who_is_on_the_gpu_is_told() -> None:
    cards = [
        Glance("H100", 30 * 10**9, 80 * 10**9, 93, [Tenant(7, "python", "ann", 20 * 10**9), Tenant(8, "", "", None)]),
        Glance("A100", None, None, None, None),
        Glance("A100", 0, 10**9, 0, []),
    ]
    assert gpu_lines(cards, {7: "abc234"}) == [
        "0 H100: 50.0 GB of 80.0 GB free, 93 % busy; 7 run abc234, ann, 20.0 GB; 8 a process",
        "1 A100: memory unknown; the driver does not tell who uses it",
        "2 A100: 1.0 GB of 1.0 GB free, 0 % busy; nobody computes on it",
    ]


# The children.


def test_only_the_newest_question_is_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a child that is slow, and has no torch."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, json, time\n"
        "for line in sys.stdin:\n"
        "    time.sleep(0.2)\n"
        "    print(json.dumps({'said': json.loads(line)}), flush=True)\n"
        "    if 'die' in line: sys.exit('out of memory')\n"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: popen([command[0], str(script)], **how))
    heard: list[dict[str, Any]] = []
    came = threading.Event()

    def hear(question: list[str], answer: dict[str, Any]) -> None:
        heard.append(answer)
        came.set()

    def wait() -> None:
        assert came.wait(20)
        came.clear()

    child = checker.Checker(hear)
    child.ask(["1"])
    for number in range(2, 6):
        asyncio.run(asyncio.sleep(0.01))
        child.ask([str(number)])
    wait()
    wait()
    assert heard[-1] == {"said": ["5"]}
    assert len(heard) == 2
    child.ask(["die"])
    wait()
    child.ask(["again"])  # of a child that is no more
    wait()
    if "error" in heard[-1]:  # it ended between the question and the answer
        assert "out of memory" in heard[-1]["error"]
        child.ask(["again"])
        wait()
    assert heard[-1] == {"said": ["again"]}
    process = child._child
    assert process is not None
    child.close()
    assert process.wait(20)


def test_the_past_says_what_a_run_would_take(path: Path) -> None:
    from dambench.store.history import accuracies, expected, losses, similar

    first, second = _ids(path)
    wanted = ledger.config(options={"iterations": 400, "lr_images": 1.0, "init": "real"})
    with closing(Store.open(path)) as store:
        (found,) = expected(store, wanted, ledger.CARD.sha256)
        # Each took a second, for 200 and for 100 iterations.
        assert found.distil_seconds == pytest.approx(400 * (1 / 200 + 1 / 100) / 2)
        assert found.evaluate_seconds == pytest.approx(1.0)  # and one network a second
        assert found.runs == 2
        assert expected(store, wanted, "another") == []
        assert (
            expected(store, msgspec.structs.replace(wanted, execution=Execution(device="cuda:0")), ledger.CARD.sha256)
            == []
        )
        unknown = msgspec.structs.replace(wanted, evaluate_on=("convnet-d9-w9",))
        assert expected(store, unknown, ledger.CARD.sha256)[0].evaluate_seconds is None
        same, near = similar(store, wanted, [0], ledger.CARD.sha256)
        assert same == []
        assert near == [
            Similar(second, "finished", {"method.iterations": (100, 400)}),
            Similar(first, "finished", {"method.iterations": (200, 400)}),
        ]
        again = ledger.config(options={"iterations": 200, "lr_images": 1.0, "init": "real"}, seed=3)
        assert similar(store, again, [3], ledger.CARD.sha256)[0] == []
        assert [s.run for s in similar(store, again, [0, 3], ledger.CARD.sha256)[0]] == [first]
        other = msgspec.structs.replace(again, dataset=Choice("mnist"), ipc=4)
        assert similar(store, other, [0], ledger.CARD.sha256) == ([], [])
        assert losses(store, first) == {"matching": [(1, 2.5), (2, 1.25)]}
        assert accuracies(store, first) == {"convnet-d1-w8": [(2, 0.5)]}


def test_the_command_line_answers_many_requests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [["--method", "dm", "--dataset", "digits", "--ipc", "x"], ["--method", "dmm", "--dataset", "digits"]]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines) + "3\n"))
    assert run_cli(["checks"]) == 0
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert "'--ipc'" in first["error"]
    assert "Did you mean 'dm'" in second["error"]
    assert first["field"] == "ipc"
    assert third["error"].startswith("TypeError")
    assert not Path(os.environ["DAMBENCH_DB"]).exists()


def test_in_the_form_it_is_a_key_that_types_nothing(path: Path) -> None:
    app = console(path)

    async def scene(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 runs")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen) and app.screen.checked)
        fields = len(app.screen.focus_chain)
        assert len(targets(app.screen)) > min(fields, 10)
        await pilot.press("f6", "c")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        assert app.focused is app.screen.focus_chain[2]

    play(app, scene, (100, 40))
