"""A run that is killed and resumed ends as one that was never interrupted, whatever it was doing."""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from dambench import datasets, engine
from dambench.cli.record import run_until_signal
from dambench.core import files, registry
from dambench.core.config import Choice, Request, RunConfig, read
from dambench.core.errors import BadInput
from dambench.core.events import (
    AnyEvent,
    Beginning,
    Checkpointed,
    Failed,
    Finished,
    Measured,
    Resumed,
    Stepped,
    Stopped,
    Warned,
)
from dambench.core.protocol import PRESETS, Budget
from dambench.engine import checkpoints
from dambench.engine.checkpoints import Checkpoint, Keeper
from dambench.engine.job import Job
from dambench.engine.loop import StopRun
from dambench.engine.settle import prepare
from dambench.runner import processes
from dambench.store.records import AttemptSuperseded
from dambench.store.runs import Store
from dambench.testing import tiny_problem
from dambench.testing.methods import quick_options
from dambench.training.problem import Problem, State, Step
from tests.lab import needs

DISTILLING = [name for name in registry.names("methods") if registry.load("methods", name).MATCHES_ON_NETWORK]

ITERATING = [name for name in DISTILLING if "iterations" in registry.load("methods", name).Options.__struct_fields__]

LONG = (
    *("dc", "dsa", "datadam", "mtt", "ftd", "datm", "pad", "herding", "kcenter", "kmeans"),
    *("dance", "tgdd", "dsdm", "m3d", "rded", "ncfm", "atom", "idm", "sre2l"),
)
"""Methods whose tiny run takes more than a moment."""

STRIDE = 7
"""Of those one word in so many is followed by a kill; which ones differs from method to method. (That a method goes on
to the bit after each of its steps is among the promises of tests/methods/test_every_method.py.)"""

GUARD = ("in_a_row", "losses", "gated", "held", "waited")
"""Remembered for the case that a step has to be left out: tests/matching/test_optimised.py. Or that no loss falls:
tests/matching/test_pixel_space.py."""


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of training are enough to see a bit that differs; validation images are held out."""
    quick = PRESETS["fair-quick"]
    brief = msgspec.structs.replace(quick, synthetic=Budget(epochs=2), whole=Budget(epochs=1))
    monkeypatch.setattr("dambench.engine.settle.preset", lambda name: brief)


def _job(method: str = "dm", chosen: dict[str, Any] | None = None, **changes: Any) -> Job:
    digits = tiny_problem(card=datasets.prepare(Choice("digits"), None), ipc=2)
    options = quick_options(registry.load("methods", method), **needs(method, digits))
    settings: dict[str, Any] = {
        "method": {"name": method}
        | {name: getattr(options, name) for name in options.__struct_fields__}
        | (chosen or {}),
        "dataset": "digits",
        "ipc": 2,
        "network": "convnet-d1-w4-bn" if method == "sre2l" else "convnet-d1-w4",
        "evaluate_on": ["convnet-d1-w4", "convnet-d1-w8"],
        "eval_repeats": 2,
        "evaluate_every": 2,
        "device": "cpu",
        "checkpoint_every": 0,
    }
    return prepare(read(Request, settings | changes, "the request"))


def _begin(store: Store, job: Job, until: int | type[AnyEvent] | None = None) -> str:
    """Begin a run, and kill it after so many words (0: before it says any) or the first of a kind; else let it end."""
    run = store.create(job.config, job.card, recipe="a recipe", overrides=job.overrides)
    if until != 0:
        _speak(store, run, engine.run(job, "", _keeper(store, run, job)), until=until)
    return run


def _go_on(store: Store, run: str, until: int | None = None) -> list[AnyEvent]:
    row = store.run(run)
    config = msgspec.json.decode(row.config, type=RunConfig)
    beginning = store.beginning(run, processes.this_process())
    job = engine.reopen(config, row.dataset_sha256, row.recipe, json.loads(row.overrides), beginning.environment, print)
    keeper = _keeper(store, run, job, beginning)
    return _speak(store, run, engine.run(job, "", keeper, beginning), beginning.attempt, until)


def _keeper(store: Store, run: str, job: Job, beginning: Beginning | None = None) -> Keeper:
    folder = files.run_folder(store.run(run).uid)
    return Keeper(folder, job.config.execution.checkpoint_every, beginning.checkpoints if beginning else None)


def _speak(
    store: Store, run: str, words: Iterator[AnyEvent], attempt: int = 1, until: int | type[AnyEvent] | None = None
) -> list[AnyEvent]:
    said = []
    for event in store.record(run, words, attempt):
        said.append(event)
        if isinstance(event, until) if isinstance(until, type) else until is not None and len(said) >= until:
            break  # what was not yet written is lost, as by kill -9
    return said


def _notes(said: list[AnyEvent]) -> list[str]:
    return [event.message for event in said if isinstance(event, Warned)]


def _outcome(store: Store, run: str) -> dict[str, Any]:
    """All that a run comes to, except how long it took."""
    number = store.run(run).number
    told = [event for _, event in store.tail(run)]
    return {
        "state": store.run(run).state,
        "overrides": store.run(run).overrides,
        "environments": len(store.query("select * from environments where run = ?", number)),
        "set": store.run(run).set_sha256,
        "sets": store.query("select iteration, sha256 from artifacts where run = ? order by iteration", number),
        "scores": store.query(
            "select iteration, network, repeat, final, accuracy, balanced_accuracy, loss, train_accuracy, set_sha256, "
            "validation_accuracy "
            "from scores where run = ? order by iteration, network, repeat",
            number,
        ),
        "losses": [(event.iteration, event.losses) for event in told if isinstance(event, Stepped)],
        "warnings": [said for said in store.describe(run)["warnings"] if "not fallen" in said],
        "evaluated": [(e.iteration, e.subject, e.repeat) for e in told if isinstance(e, Measured)],
    }


@pytest.mark.parametrize("method", registry.names("methods"))
def test_killed_after_any_word_a_run_ends_as_one_never_interrupted(method: str, store: Store) -> None:
    job = _job(method)
    whole = _begin(store, job)
    expected = _outcome(store, whole)
    assert expected["state"] == "finished"
    words = len([*store.tail(whole)])
    assert words > 6
    stride = STRIDE if method in LONG else 1
    for until in range(len(method) % stride, words, stride):
        run = _begin(store, job, until)
        with suppress(StopIteration):
            while store.run(run).state not in ("finished",):
                _go_on(store, run)
        assert _outcome(store, run) == expected, f"killed after word {until}"


@pytest.mark.parametrize("method", DISTILLING)
def test_killed_three_times_in_a_row_a_run_ends_as_one_never_interrupted(method: str, store: Store) -> None:
    job = _job(method)
    expected = _outcome(store, _begin(store, job))
    run = _begin(store, job, until=4)
    for until in (3, 5, 4):
        _go_on(store, run, until)
    _go_on(store, run)
    assert _outcome(store, run) == expected
    assert store.run(run).attempt == 5


@pytest.mark.parametrize("method", DISTILLING)
def test_a_run_that_was_told_to_stop_goes_on_where_it_was(method: str, store: Store) -> None:
    job = _job(method)
    whole = _begin(store, job)
    expected = _outcome(store, whole)
    for after in range(1, len([*store.tail(whole)]), STRIDE if method in LONG else 1):
        run = store.create(job.config, job.card)
        # Not one by time: only the one that the signal asks for.
        keeper = Keeper(files.run_folder(store.run(run).uid), 10**6)
        heard = count(1)
        words = run_until_signal(
            engine.run(job, "", keeper),
            lambda heard=heard, after=after: "SIGUSR1" if next(heard) >= after else "",  # type: ignore[misc]
            StopRun,
        )
        said = _speak(store, run, words)
        if not isinstance(said[-1], Stopped):
            assert isinstance(said[-1], Finished)
            break
        again = _go_on(store, run)
        resumed = next(event for event in again if isinstance(event, Resumed))
        assert resumed.iteration == said[-1].iteration or not said[-1].iteration, "the work of an iteration was lost"
        assert _outcome(store, run) == expected


@pytest.mark.parametrize("method", ITERATING)
def test_without_any_part_of_its_state_a_run_would_end_otherwise(
    method: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above would see it, if a method forgot one."""
    job = _job(method)
    expected = _outcome(store, _begin(store, job))
    real = Checkpoint.from_bytes
    parts = _parts(real(_last_file(store, _begin(store, job, until=Checkpointed)).read_bytes()).state)
    assert len(parts) >= 2
    for part in parts:
        if part[-1] in GUARD:
            continue

        def forgetful(content: bytes, part: tuple[Any, ...] = part) -> Checkpoint:
            checkpoint = real(content)
            _forget(checkpoint.state, part)
            return checkpoint

        run = _begin(store, job, until=Checkpointed)
        with monkeypatch.context() as patched:
            patched.setattr(Checkpoint, "from_bytes", forgetful)
            _go_on(store, run)
        outcome = _outcome(store, run)
        assert (outcome["set"], outcome["losses"]) != (expected["set"], expected["losses"]), f"{part} is not needed"


def _last_file(store: Store, run: str) -> Path:
    row = store.run(run)
    last = store.query("select sha256 from checkpoints where run = ? order by sequence desc limit 1", row.number)
    return checkpoints.path_of(files.run_folder(row.uid), last[0]["sha256"])


def _parts(state: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(state, dict | list):
        inside = state.items() if isinstance(state, dict) else enumerate(state)
        return [part for key, value in inside for part in _parts(value, (*path, key))]
    return [path]


def _forget(state: Any, path: tuple[Any, ...]) -> None:
    *way, last = path
    for key in way:
        state = state[key]
    value = state[last]
    if isinstance(value, torch.Tensor):
        state[last] = torch.zeros_like(value) if value.any() else torch.ones_like(value)
    else:
        state[last] = type(value)()


def test_a_curve_never_shows_what_came_after_the_checkpoint(store: Store) -> None:
    job = _job(checkpoint_every=10**6)
    run = store.create(job.config, job.card)
    keeper = Keeper(files.run_folder(store.run(run).uid), 0.0)
    for event in store.record(run, engine.run(job, "", keeper)):
        if isinstance(event, Checkpointed):
            keeper.every, keeper._next = 10**6, float("inf")  # no other one
        if isinstance(event, Measured) and event.iteration == 2:
            break
    assert [e.iteration for _, e in store.tail(run) if isinstance(e, Stepped)] == [1, 2]
    words = _go_on_until(store, run, Resumed)
    assert words[-1].iteration == 1
    assert [e.iteration for _, e in store.tail(run) if isinstance(e, Stepped)] == [1]
    assert store.query("select count(*) n from scores")[0]["n"] == 0
    assert store.query("select count(*) n from artifacts")[0]["n"] == 0


def _go_on_until(store: Store, run: str, kind: type[AnyEvent]) -> list[Any]:
    return _go_on(store, run, until=1)


def test_a_resumed_run_knows_the_losses_of_the_one_before(store: Store) -> None:
    options = {"name": "dm", "batch_real": 4, "lr_images": 1000.0}
    job = _job(iterations=60, evaluate_every=0, chosen=options)
    expected = _outcome(store, _begin(store, job))
    assert len(expected["warnings"]) == 1
    run = _begin(store, job, until=80)
    _go_on(store, run)
    assert _outcome(store, run) == expected


def test_a_run_that_never_got_to_a_checkpoint_begins_anew(store: Store) -> None:
    job = _job(checkpoint_every=10**6)
    run = _begin(store, job, until=4)
    again = _go_on(store, run)
    assert isinstance(again[0], Resumed)
    assert (again[0].iteration, again[0].checkpoint) == (-1, "")
    assert _outcome(store, run) == _outcome(store, _begin(store, job))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(store: Store) -> None:
    job = _job(evaluate_every=0, iterations=6)
    expected = _outcome(store, _begin(store, job))
    for harm in (_flip, _cut, Path.unlink):
        run = _begin(store, job, until=7)
        harm(_last_file(store, run))
        again = _go_on(store, run)
        notes = _notes(again)
        assert len(notes) == 1
        assert "missing or damaged" in notes[0]
        assert _outcome(store, run) == expected


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_the_last_two_checkpoints_are_kept_and_none_of_a_finished_run(store: Store) -> None:
    run = _begin(store, _job(evaluate_every=0, iterations=9), until=15)
    row = store.run(run)
    folder = files.run_folder(row.uid)
    (folder / ".half.part").write_bytes(b"killed while it was written")
    known = store.query("select sha256, iteration from checkpoints where run = ? order by sequence", row.number)
    assert len(known) == 2
    assert known[0]["iteration"] + 1 == known[1]["iteration"]
    _go_on(store, run, until=6)
    kept = {path.name for path in folder.iterdir()}
    rows = store.query("select sha256 from checkpoints where run = ?", row.number)
    # Killed before it came to sweep, a process leaves one more.
    assert kept >= {f"{found['sha256']}.safetensors" for found in rows}
    assert len(kept) <= 3
    assert ".half.part" not in kept
    _go_on(store, run)
    assert not folder.exists()
    assert store.query("select * from checkpoints") == []


def test_of_two_who_go_on_with_a_run_one_does_and_the_other_ends_without_a_word(store: Store) -> None:
    run = _begin(store, _job(), until=4)
    first, second = (store.beginning(run, processes.this_process()) for _ in range(2))
    _go_on(store, run, until=1)
    assert first == second
    assert second.environment is not None
    late = [Resumed(attempt=2, iteration=1, checkpoint="", process=second.process, environment=second.environment)]
    before = _outcome(store, run)
    with pytest.raises(AttemptSuperseded):
        list(store.record(run, iter(late), 2))
    # And the process that was thought dead may not speak any more.
    with pytest.raises(AttemptSuperseded):
        list(store.record(run, iter([Finished(set_sha256="", costs=[])]), 1))
    assert _outcome(store, run) == before


def test_a_checkpoint_that_cannot_be_written_is_a_note_and_the_run_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if "runs" in path.parts:
            raise OSError(28, "No space left on device")
        real(path, content)

    real = files.write_whole
    monkeypatch.setattr(files, "write_whole", full)
    run = _begin(store, _job())
    notes = store.describe(run)["warnings"]
    assert store.run(run).state == "finished"
    assert notes[0] == "The checkpoint of iteration 1 could not be written: No space left on device."


def test_a_run_whose_set_cannot_be_written_fails_and_goes_on_once_there_is_space(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if "sets" in path.parts:
            raise OSError(28, "No space left on device")
        real(path, content)

    job = _job(evaluate_every=0)
    expected = _outcome(store, _begin(store, job))
    for path in (files.home() / "sets").iterdir():
        path.unlink()
    real = files.write_whole
    with monkeypatch.context() as patched:
        patched.setattr(files, "write_whole", full)
        run = _begin(store, job)
    row = store.run(run)
    assert row.state == "failed"
    assert row.error.endswith("the disk is full. Free some space, or choose another folder with DAMBENCH_HOME.")
    _go_on(store, run)
    assert _outcome(store, run) == expected


def test_a_run_that_diverges_keeps_its_last_finite_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(problem: Problem, options: Any, resume: Any = None) -> Iterator[Step]:
        images = problem.real.preprocessing.apply(problem.random_subset())
        for iteration in range(1, 5):
            loss = torch.tensor(float("nan") if iteration == 3 else 1.0)
            yield Step(iteration, problem.synthetic_set(images), {"matching": loss})

    job = _job(evaluate_every=0)
    monkeypatch.setattr(job.method, "distill", diverging)
    run = _begin(store, job)
    row = store.run(run)
    assert (row.state, row.diverged_at) == ("failed", 3)
    last = Checkpoint.from_bytes(_last_file(store, run).read_bytes())
    assert last.iteration == 2


def test_a_state_that_holds_what_is_no_number_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(problem: Problem, options: Any, resume: Any = None) -> Iterator[Step]:
        images = problem.real.preprocessing.apply(problem.random_subset())
        for iteration in range(1, 5):
            state: State = {"images": images / (0 if iteration > 1 else 1)}
            yield Step(iteration, problem.synthetic_set(images), {}, partial(dict, state))

    job = _job(evaluate_every=0)
    monkeypatch.setattr(job.method, "distill", diverging)
    said = [event for _, event in store.tail(_begin(store, job))]
    assert [event.iteration for event in said if isinstance(event, Checkpointed)] == [1]


def test_data_that_have_changed_are_refused(store: Store) -> None:
    run = _begin(store, _job(), until=4)
    row = store.run(run)
    config = msgspec.json.decode(row.config, type=RunConfig)
    beginning = store.beginning(run, processes.this_process())
    with pytest.raises(BadInput, match="The run began on other data"):
        engine.reopen(config, "0" * 64, "", {}, beginning.environment, print)


def test_what_the_last_bits_depend_on_is_said_where_it_has_changed(store: Store) -> None:
    job = _job()
    run = _begin(store, job, until=4)
    real = store.beginning(run, processes.this_process())
    assert real.environment is not None
    other = msgspec.structs.replace(real.environment, torch="1.0.0")
    said = list(engine.run(job, "", _keeper(store, run, job, real), msgspec.structs.replace(real, environment=other)))
    notes = _notes(said)
    assert notes[0].startswith("Resumed in another environment, so the last bits may differ: torch 1.0.0 → ")


def test_writing_checkpoints_takes_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("dambench.engine.checkpoints.time.monotonic", lambda: now[0])
    keeper = Keeper(tmp_path, 30.0)
    assert not keeper.due
    now[0] += 31
    assert keeper.due

    def slow(path: Path, content: bytes) -> None:
        now[0] += 2.0

    monkeypatch.setattr(files, "write_whole", slow)
    keeper.write(Checkpoint("c", 1, {}, ""))
    now[0] += 2.0 / checkpoints.SHARE - 1
    assert not keeper.due
    now[0] += 2
    assert keeper.due


@pytest.mark.parametrize("wrong", [object(), {1, 2}, b"bytes"])
def test_a_state_of_anything_but_tensors_numbers_and_texts_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="a state holds tensors, numbers and texts"):
        Checkpoint("c", 1, {"part": [wrong]}, "").to_bytes()


def test_a_checkpoint_comes_back_as_it_was() -> None:
    state = {
        "numbers": [1, 2.5, 1e-300, True, None, "text"],
        "tensors": {"a": torch.randn(3, 2).t(), "b": torch.arange(3), "c": torch.tensor(0.1, dtype=torch.float64)},
        "bf16": torch.randn(2).bfloat16(),
    }
    before = Checkpoint("c", 7, state, "s", {"stack": 2}, {"distil": 0.1}, {"distil": [1, 2]})
    after = Checkpoint.from_bytes(before.to_bytes())
    assert after.to_bytes() == before.to_bytes()
    assert after.state["numbers"] == state["numbers"]
    for name, tensor in state["tensors"].items():  # type: ignore[attr-defined]
        assert torch.equal(after.state["tensors"][name], tensor)
        assert after.state["tensors"][name].dtype == tensor.dtype
    assert after.seconds == {"distil": 0.1}


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x80\x04\x95" + b"." * 50, (10**9).to_bytes(8, "little") * 3])
def test_what_is_no_checkpoint_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Checkpoint.from_bytes(content)


def test_a_failed_run_says_nothing_of_divergence_where_there_was_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(problem: Problem, options: Any, resume: Any = None) -> Iterator[Step]:
        raise RuntimeError("it broke")
        yield

    job = _job()
    monkeypatch.setattr(job.method, "distill", broken)
    run = _begin(store, job)
    (failed,) = [event for _, event in store.tail(run) if isinstance(event, Failed)]
    assert failed.diverged is None
    assert store.run(run).diverged_at is None
