import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from dambench import engine, evaluators
from dambench.core import files, registry
from dambench.core.config import Request, read
from dambench.core.errors import BadInput, NotEnoughMemory
from dambench.core.events import (
    Adapted,
    AnyEvent,
    Failed,
    Finished,
    Measured,
    Previewed,
    Progressed,
    Snapshot,
    Started,
    Stepped,
    Stopped,
    Warned,
    remark,
)
from dambench.engine import loop as engine_loop
from dambench.engine import monitors
from dambench.engine.job import Job
from dambench.engine.loop import StopRun, run
from dambench.engine.monitors import PreviewSchedule
from dambench.engine.settle import prepare
from dambench.evaluators import Context, accuracy
from dambench.training.problem import Network, Normalisation, Notice, PhaseStarted, Problem, State, Step, SyntheticSet
from dambench.training.train import train_together
from tests.lab import small_request


def _run(**changes: Any) -> list[AnyEvent]:
    return list(run(prepare(small_request(**changes))))


def _names(events: list[AnyEvent]) -> list[str]:
    return [type(event).__name__ for event in events if type(event).__name__ != "Progressed"]


def _only(events: list[AnyEvent], kind: type[Any]) -> Any:
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1
    return found[0]


def test_a_run_tells_its_story_in_order() -> None:
    events = _run(eval_repeats=2)
    steps = ["Stepped"] * 4
    assert _names(events) == ["Started", *steps, "Snapshot", "Measured", "Measured", "Finished"]
    assert [event.iteration for event in events if isinstance(event, Stepped)] == [1, 2, 3, 4]
    assert [cost.phase for cost in _only(events, Finished).costs] == ["prepare", "distil", "evaluate"]
    assert all(cost.peak_memory_bytes > 10**6 for cost in _only(events, Finished).costs)


def test_the_same_request_gives_the_same_set_to_the_bit_and_the_same_scores() -> None:
    first, second = _run(), _run()
    assert _only(first, Finished).set_sha256 == _only(second, Finished).set_sha256
    assert _only(first, Measured).values == _only(second, Measured).values
    other = _run(seed=1)
    assert _only(other, Finished).set_sha256 != _only(first, Finished).set_sha256


def test_a_run_touches_no_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    _run()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_set_is_in_a_file_named_by_its_content() -> None:
    snapshot = _only(_run(), Snapshot)
    path = files.set_path(snapshot.sha256)
    assert files.sha256(path) == snapshot.sha256
    assert path.stat().st_size == snapshot.size_bytes
    kept = SyntheticSet.read(path)
    assert kept.images.shape == (10, 1, 8, 8)
    assert kept.classes == tuple("0123456789")
    assert kept.labels.tolist() == list(range(10))


def test_the_whole_set_is_not_copied() -> None:
    events = _run(method="whole", ipc=None, iterations=None)
    started, snapshot = _only(events, Started), _only(events, Snapshot)
    assert snapshot.sha256 == started.data.sha256
    assert list((files.home() / "sets").iterdir()) == []


def test_ipc_and_iterations_without_effect_are_noted_not_refused() -> None:
    events = _run(method="whole", ipc=3, iterations=5)
    notes = [event.message for event in events if isinstance(event, Warned)]
    assert len(notes) == 3
    assert all("no effect" in note or "evaluation only" in note for note in notes)
    assert _only(events, Started).config.ipc is None


def test_what_was_noted_of_the_data_is_said_with_each_run(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).random((40, 8, 8)), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    for _ in range(2):
        events = _run(dataset="arrays", data=str(tmp_path / "mine.npz"), method="random", iterations=None)
        notes = [event.message for event in events if isinstance(event, Warned)]
        assert notes[:2] == _only(events, Started).data.notes
        assert "1 for white" in notes[0]
        assert notes[1] == "Test images that are copies of training images: 2 of 2."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "random", "evaluate_every": 2}, "has no iterations: --evaluate-every 2 has no effect"),
        ({"evaluate_every": 4}, "has 4 iterations: --evaluate-every 4 has no effect"),
        ({"method": "herding", "precision": "bf16"}, "computes nothing in bfloat16: --precision bf16 has no effect"),
        ({"method": "herding", "compile": "on"}, "has no iterations: --compile has no effect"),
        ({"data": "/somewhere"}, "comes with a package: --data has no effect"),
        ({"method": "kcenter"}, "has no iterations: --iterations has no effect"),
    ],
)
def test_what_has_no_effect_is_noted_and_is_the_same_run_as_without(changes: dict[str, Any], said: str) -> None:
    job = prepare(small_request(**changes))
    assert [note for note in job.notes if said in note]
    kept = {"method": changes["method"]} if "method" in changes else {}
    assert job.config.sha256 == prepare(small_request(**kept)).config.sha256


def test_sampling_with_replacement_is_said_once() -> None:
    notes = [e.message for e in _run(method={"name": "dm", "batch_real": 200}) if isinstance(e, Warned)]
    assert len(notes) == 1
    assert "with replacement" in notes[0]


def test_sets_on_the_way_are_evaluated_when_asked() -> None:
    events = _run(evaluate_every=2)
    scores = [(e.iteration, e.final) for e in events if isinstance(e, Measured)]
    assert scores == [(2, False), (4, True)]
    assert len({e.set_sha256 for e in events if isinstance(e, Measured)}) == 2
    # Looking at it on the way changes nothing.
    assert _only(events, Finished).set_sha256 == _only(_run(), Finished).set_sha256


def test_the_set_is_shown_as_it_forms_and_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_loop, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(monitors, "FIRST_PREVIEW", 0.0)
    monkeypatch.setattr(monitors, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr(monitors, "PREVIEW_SHARE", 1e9)
    seen = _run()
    shown = [event for event in seen if isinstance(event, Previewed)]
    assert [event.iteration for event in shown] == [1, 2, 3]  # the last one is a snapshot
    assert len({event.preview for event in shown}) == 3
    assert Image.open(io.BytesIO(shown[0].preview)).size == (9, 90)
    monkeypatch.undo()
    blind = _run()
    assert not [event for event in blind if isinstance(event, Previewed)]  # it is over before anybody could look
    assert _only(seen, Finished).set_sha256 == _only(blind, Finished).set_sha256


def test_previews_are_few_and_rarer_where_they_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = [0.0], 0.001
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(monitors, "preview", lambda synthetic, most_bytes: now.__setitem__(0, now[0] + took) or b"")
    data = cast(SyntheticSet, None)  # nobody looks at it

    def times(total: int, seconds: float) -> list[float]:
        """When previews are taken of a run of so many iterations that take so long each."""
        schedule, found = PreviewSchedule(total), []
        begun = now[0]
        for iteration in range(1, total + 1):
            now[0] += seconds
            if schedule.due(step := Step(iteration, data)):
                found.append(now[0] - begun)
                schedule.take(step)
        return found

    assert times(1000, 0.01) == pytest.approx([0.51, 5.52], abs=0.02)
    assert 195 <= len(times(10_000, 1.0)) <= 200
    took = 1.0
    apart = times(1000, 1.0)
    assert apart[1] - apart[0] == pytest.approx(201, abs=2)  # a second in two hundred


def test_where_it_can_be_measured_an_iteration_says_what_it_spent_its_time_on() -> None:
    step = [event for event in _run() if isinstance(event, Stepped)][-1]
    assert list(step.parts) == ["real images", "synthetic images", "sampling + update"]
    assert all(seconds > 0 for seconds in step.parts.values())
    assert sum(step.parts.values()) < step.seconds


def test_a_method_without_iterations_is_evaluated_once() -> None:
    events = _run(method="random", iterations=None, evaluate_every=1)
    assert [e.final for e in events if isinstance(e, Measured)] == [True]


@pytest.mark.parametrize("after", range(7))
def test_a_run_can_be_stopped_wherever_it_speaks(after: int) -> None:
    events = run(prepare(small_request()))
    heard = [next(events) for _ in range(after + 1)]
    last = events.throw(StopRun("SIGTERM"))
    assert isinstance(last, Stopped)
    assert last.signal == "SIGTERM"
    assert last.costs
    assert last.iteration == max([0, *(e.iteration for e in heard if isinstance(e, Stepped))])
    assert list(events) == []


def test_a_run_that_is_done_is_not_stopped_any_more() -> None:
    events = run(prepare(small_request()))
    while not isinstance(next(events), Finished):
        pass
    with pytest.raises(StopIteration):
        events.throw(StopRun("SIGTERM"))


def _with(monkeypatch: pytest.MonkeyPatch, distill: Any, **changes: Any) -> list[AnyEvent]:
    monkeypatch.setattr(registry.load("methods", "dm"), "distill", distill)
    return _run(**changes)


@pytest.mark.parametrize(
    ("iterations", "said"),
    [
        ((1, 2, 3), "The method dm stopped after 3 of its 4 iterations"),
        ((1, 2, 2, 3, 4), "was asked for 4 iterations, and gave number 2 after iteration 2"),
        ((1, 3, 2, 4), "was asked for 4 iterations, and gave number 2 after iteration 3"),
        ((1, 2, 3, 4, 5), "was asked for 4 iterations, and gave number 5 after iteration 4"),
        ((), "gave no synthetic set"),
    ],
)
def test_a_method_that_does_not_do_the_iterations_that_were_asked_for_is_not_finished(
    monkeypatch: pytest.MonkeyPatch, iterations: Sequence[int], said: str
) -> None:
    def short(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        for iteration in iterations:
            yield Step(iteration, problem.synthetic_set(problem.random_subset()))

    ending = _with(monkeypatch, short)[-1]
    assert isinstance(ending, Failed)
    assert said in ending.error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda set_: replace(set_, images=set_.images[:, :, :7]), "The set's images are (1, 7, 8) (C, H, W)"),
        (lambda set_: replace(set_, images=set_.images[0]), "Its images are torch.uint8 of shape (1, 8, 8)"),
        (lambda set_: replace(set_, images=set_.images.double()), "Its images are torch.float64"),
        (lambda set_: replace(set_, images=set_.images.float().log()), "are not finite"),
        (lambda set_: replace(set_, labels=set_.labels.int()), "Its labels are torch.int32"),
        (lambda set_: replace(set_, labels=set_.labels + 1), "It has labels that are none of its 10 classes"),
        (lambda set_: replace(set_, labels=set_.labels // 2), "from 0 to 2 of a class"),
        (lambda set_: replace(set_, images=set_.images.repeat(2, 1, 1, 1), labels=set_.labels.repeat(2)), "It has 2"),
        (lambda set_: replace(set_, classes=set_.classes[::-1]), "The set's classes are not those of digits"),
        (lambda set_: replace(set_, lr=float("nan")), "The learning rates after iteration"),
        (lambda set_: replace(set_, whole=True), "It is the whole dataset"),
        (lambda set_: (set_.images, set_.labels), "gave a tuple where a Step"),
    ],
)
def test_a_set_that_cannot_be_used_ends_the_run_at_the_first_iteration(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[SyntheticSet], Any], said: str
) -> None:
    begun = []

    def odd(problem: Problem, options: object, resume: object = None) -> Iterator[Any]:
        for iteration in range(1, 5):
            begun.append(iteration)
            made = change(problem.synthetic_set(problem.random_subset()))
            yield Step(iteration, made) if isinstance(made, SyntheticSet) else made

    ending = _with(monkeypatch, odd)[-1]
    assert isinstance(ending, Failed)
    assert said in ending.error
    assert begun == [1]


def test_what_breaks_in_a_method_is_an_event_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        raise RuntimeError("CUDA out of memory [red]")
        yield

    failed = _with(monkeypatch, broken)[-1]
    assert isinstance(failed, Failed)
    assert failed.error == "RuntimeError: CUDA out of memory [red]"
    assert "in broken" in failed.traceback
    assert [cost.phase for cost in failed.costs] == ["prepare", "distil"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_that_diverges_says_when_and_has_no_score(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    def diverging(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        data = problem.synthetic_set(problem.random_subset())
        yield Step(1, data, {"matching": torch.tensor(1.0)})
        yield Step(2, data, {"matching": torch.tensor(value)})

    events = _with(monkeypatch, diverging)
    failed = _only(events, Failed)
    assert failed.error.startswith(f"The matching loss is {value} at iteration 2: the run diverged.")
    assert not [e for e in events if isinstance(e, Measured | Finished)]


def test_images_that_diverged_after_the_last_loss_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        pixels = problem.real.preprocessing.apply(problem.random_subset())
        yield Step(4, problem.synthetic_set(pixels / 0), {"matching": torch.tensor(1.0)})

    events = _with(monkeypatch, diverging)
    assert _only(events, Failed).error.startswith("The images after iteration 4 are not finite: the run diverged.")
    assert not list((files.home() / "sets").iterdir())


def test_a_method_says_how_far_it_is_on_the_way_to_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(problem: Problem, options: object, resume: object = None) -> Iterator[Progressed | Step]:
        for done in range(1, 4):
            yield Progressed(phase="distil", done=done, total=3, note="training")
        yield Step(0, problem.synthetic_set(problem.random_subset()))

    monkeypatch.setattr("dambench.engine.loop.PROGRESS_SECONDS", 0.0)
    said = [e for e in _with(monkeypatch, slow) if isinstance(e, Progressed) and e.note == "training"]
    assert [(e.phase, e.done, e.total) for e in said] == [("distil", done, 3) for done in (1, 2, 3)]
    assert all(e.memory_bytes for e in said)


def test_experts_are_a_phase_and_what_is_said_of_them_is_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def state() -> State:
        asked.append(1)
        return {}

    def with_experts(problem: Problem, options: object, resume: object = None) -> Iterator[Notice | Step]:
        yield PhaseStarted("experts")
        yield Warned(message="they take 6.5 GB")
        for done in range(1, 4):
            time.sleep(0.1)
            yield Progressed(phase="experts", done=done, total=3)
        yield PhaseStarted("distil")
        for iteration in range(1, 5):
            yield Step(iteration, problem.synthetic_set(problem.random_subset()), state=state)

    monkeypatch.setattr("dambench.engine.loop.PROGRESS_SECONDS", 0.0)
    events = _with(monkeypatch, with_experts)
    kinds = [event.phase if isinstance(event, Progressed) else type(event).__name__ for event in events]
    assert kinds.index("Warned") < kinds.index("experts")
    seconds = {cost.phase: cost.seconds for cost in _only(events, Finished).costs}
    assert list(seconds) == ["prepare", "distil", "experts", "evaluate"]
    assert seconds["experts"] > 0.3
    assert not asked, "whoever waits before the first step only need not be asked for its state at every one"


def test_a_loss_that_is_no_number_on_the_test_set_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def surest(network: Network, data: SyntheticSet, batch: int) -> torch.Tensor:
        return torch.full((len(data.images), 10), -3e38).index_fill_(1, torch.tensor(3), 3e38)

    monkeypatch.setattr(accuracy, "predict", surest)
    events = _run()
    assert isinstance(events[-1], Finished)
    assert _only(events, Measured).values["loss"] == "inf"
    assert "its loss on the test set is inf" in _only(events, Warned).message


def test_a_folder_for_sets_that_cannot_be_written_is_said_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    files.home().mkdir()
    (files.home() / "sets").write_text("in the way")
    with pytest.raises(BadInput, match="Synthetic sets cannot be written"):
        prepare(small_request())


def test_a_method_that_gives_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    events = _with(monkeypatch, lambda problem, options, resume=None: iter(()))
    assert _only(events, Failed).error == "The method dm gave no synthetic set."


def test_a_recipe_is_the_default_and_is_named() -> None:
    job = prepare(Request(method="dm", dataset="digits", device="cpu"))
    assert job.config.method.options["iterations"] == 200
    assert job.config.network == "convnet-d2-w32"
    assert job.recipe is not None
    assert "ours" in job.recipe.source
    assert job.overrides == {}
    assert job.config.ipc == 1
    assert job.config.evaluate_on == ("convnet-d2-w32",)


@pytest.mark.parametrize(("iterations", "first"), [(2, 2), (9, 2), (12, 11)])
def test_a_step_size_that_is_absurd_ends_the_run_and_gives_no_accuracy(iterations: int, first: int) -> None:
    more = {"evaluate_every": 1} if iterations == 2 else {}
    events = _run(method={"name": "dm", "batch_real": 8, "lr_images": 1e30}, iterations=iterations, **more)
    assert [event for event in events if isinstance(event, Measured)] == []
    failed = _only(events, Failed)
    assert failed.diverged == first
    assert "the run diverged" in failed.error
    notes = [event.message for event in events if isinstance(event, Warned)]
    on_the_way = "convnet-d1-w4 #0 diverged when it was trained on the set of iteration 1: its outputs"
    assert any(note.startswith(on_the_way) for note in notes) == (iterations == 2)


def test_an_imported_set_of_absurd_values_ends_the_run_and_gives_no_accuracy() -> None:
    card = prepare(small_request()).card
    images = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e30
    usual = Normalisation(tuple(card.mean), tuple(card.std))
    content = SyntheticSet(images, torch.arange(10), usual, tuple(card.classes)).to_bytes()
    sha256 = files.digest(content)
    files.write_whole(files.set_path(sha256), content)
    events = _run(method={"name": "imported", "set": sha256}, iterations=None, eval_repeats=2)
    assert [event for event in events if isinstance(event, Measured)] == []
    failed = _only(events, Failed)
    assert (failed.diverged, failed.error.partition(":")[0]) == (
        0,
        "Every network diverged when it was trained on the set of iteration 0, so that it has no accuracy",
    )


def test_one_network_that_diverges_takes_no_score_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = accuracy.scores

    def scores(context: Context, network: Network) -> Any:
        return None if type(network).__module__.endswith("mlp") else sound(context, network)

    monkeypatch.setattr(accuracy, "scores", scores)
    events = _run(evaluate_on=["mlp", "convnet-d1-w4"])
    assert {event.subject for event in events if isinstance(event, Measured)} == {"convnet-d1-w4"}
    assert any("mlp" in event.message and "diverged" in event.message for event in events if isinstance(event, Warned))
    assert isinstance(events[-1], Finished)


def test_a_set_that_is_not_of_the_run_s_preprocessing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyntheticSet, "preprocessing_name", "zca")
    assert "Its images are as zca leaves them, the run is of mean/std." in _only(_run(), Failed).error


def test_the_same_settings_are_one_run_and_are_told_alike_by_recipe_or_one_by_one() -> None:
    def job(network: str | None = None, recipe: str | None = None, **options: Any) -> engine.Job:
        asked = {"method": {"name": "datadam"} | options, "network": network, "recipe": recipe}
        return prepare(read(Request, {"dataset": "digits", "ipc": 1, "device": "cpu"} | asked, "the request"))

    by_name, one_by_one = job(recipe="paper"), job(iterations=8000, power=4.0, network="convnet-d2-w32-in")
    assert by_name.config == one_by_one.config
    assert by_name.overrides == one_by_one.overrides == {"recipe": "paper"}
    assert by_name.recipe == one_by_one.recipe
    usual = job()
    assert usual.overrides == {}
    assert job(recipe="paper", iterations=200, power=1.0, network="convnet-d2-w32-bn").overrides == {}
    assert job(power=2.0) == job(recipe="paper", iterations=200, power=2.0, network="convnet-d2-w32-bn")
    assert job(power=2.0).overrides == {"power": 2.0}
    assert job(power=2.0).recipe == usual.recipe
    assert job(recipe="paper", power=2.0).overrides == {"recipe": "paper", "power": 2.0}


def test_what_differs_from_the_recipe_is_known() -> None:
    job = prepare(small_request(method={"name": "dm", "lr_images": 1.0, "init": "noise"}, iterations=200))
    assert job.overrides == {"init": "noise", "network": "convnet-d1-w4"}


def test_a_set_is_evaluated_on_the_instance_norm_twin_of_the_network_it_was_matched_on() -> None:
    job = prepare(small_request(network="convnet-d1-w4-bn-mp"))
    assert job.config.network == "convnet-d1-w4-bn-mp"
    assert job.config.evaluate_on == ("convnet-d1-w4",)


def test_a_setting_at_its_default_is_the_same_run_however_it_was_said() -> None:
    assert (
        prepare(small_request(network="convnet-w4-d1", seed=None)).config.sha256
        == prepare(small_request(network="convnet-d1-w4-in", seed=0)).config.sha256
    )


def test_names_are_found_however_they_are_written_and_stored_as_they_are_known() -> None:
    plain = small_request(
        protocol="dsa-dm", evaluate_on=["convnet-d1-w4", "pool-w"], precision="fp32", preprocessing="zca"
    )
    spoken = small_request(
        method={"name": " DM", "batch_real": 8, "init": "Real"},
        dataset="Digits",
        network="ConvNet_D1 W4",
        protocol="DSA_DM",
        evaluate_on=["ConvNet d1_W4", "POOL W"],
        precision="FP32",
        preprocessing="ZCA",
        device="CPU",
    )
    assert prepare(spoken).config == prepare(plain).config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "dn"}, "No method is called 'dn'. Did you mean 'dm'"),
        ({"dataset": "digit"}, "No dataset is called 'digit'. Did you mean 'digits'"),
        ({"dataset": {"name": "digits", "size": 3}}, "No option is called 'size'. Known: none"),
        ({"network": "convnett"}, "No network is called 'convnett'. Did you mean 'convnet'"),
        ({"network": "convnet-d1-x4"}, "no part is called 'x4'"),
        ({"network": "convnet-d5"}, "at most depth 3"),
        ({"network": "convnet-d1-w6-gn"}, "width 6 is not a multiple of 4"),
        ({"evaluate_on": ["convnet-d5"]}, "at most depth 3"),
        ({"evaluate_on": ["convnet-d1-w4", "convnet-w4-d1"]}, "names a network twice"),
        ({"protocol": "dsamd"}, "No protocol is called 'dsamd'. Did you mean 'dsa-dm'"),
        ({"recipe": "papr"}, "No recipe of dm is called 'papr'"),
        ({"ipc": 0}, "ipc = 0 is not allowed: expected `int` >= 1"),
        ({"ipc": -2}, "ipc = -2 is not allowed: expected `int` >= 1"),
        ({"evaluate_on": ["pool-x"]}, "No pool of networks is called 'pool-x'"),
        ({"evaluate_on": ["vgg11"]}, "8×8 are too small for a vgg11"),
        ({"evaluate_on": []}, "evaluate_on = [] is not allowed"),
        ({"dataset": {"name": 5}}, "The name of the dataset is 5, which is not a text"),
        ({"ipc": 132}, "--ipc 132 is too many: class '8' of digits has 131 training images"),
        ({"iterations": 0}, "iterations = 0 is not allowed"),
        ({"eval_repeats": 0}, "eval_repeats = 0 is not allowed"),
        ({"evaluate_every": -1}, "evaluate_every = -1 is not allowed"),
        ({"seed": -1}, "seed = -1 is not allowed"),
        ({"seed": 2**63}, "seed = 9223372036854775808 is not allowed"),
        ({"threads": -1}, "threads = -1 is not allowed"),
        ({"device": "cuda:99"}, "--device cuda:99 is not there"),
        ({"device": "tpu"}, "--device 'tpu' is not a device: use auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_cannot_be_met_is_refused_before_a_run_begins(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        prepare(small_request(**changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_while_data_are_prepared_is_bad_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_whole", full)
    with pytest.raises(BadInput, match="the disk is full"):
        prepare(small_request())


def test_a_full_disk_later_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepare(small_request())

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_whole", full)
    assert "The synthetic set cannot be written" in _only(list(run(job)), Failed).error


def test_the_environment_says_what_a_number_may_depend_on() -> None:
    started = _only(_run(), Started)
    assert started.environment.torch == torch.__version__
    assert started.environment.device == "cpu"
    assert started.environment.threads == torch.get_num_threads()
    assert started.environment.host
    assert started.config_sha256 == started.config.sha256


def test_threads_are_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert _only(_run(threads=1), Started).environment.threads == 1
    finally:
        torch.set_num_threads(before)


def test_a_job_is_all_that_a_run_needs() -> None:
    job = prepare(small_request())
    assert isinstance(job, Job)
    assert _names(list(engine.run(job)))[-1] == "Finished"
    assert _names(list(engine.run(job)))[-1] == "Finished"


# How it is computed.


def test_what_could_change_bits_is_settled_and_stored() -> None:
    job = prepare(small_request(network="convnet-d3-w128", dataset="digits", threads=2))
    where = job.config.execution
    # Maps of 8×8 pixels, 128 channels, 4 bytes.
    assert (where.real_chunk, where.synthetic_chunk) == (2**23 // (64 * 128 * 4), 2**23 // (64 * 128 * 4))
    assert (where.compiled, where.stack, job.config.precision) == (False, 1, "fp32")
    assert (job.policy.real_chunk, job.policy.synthetic_chunk, job.policy.workers) == (256, 256, 2)
    assert job.config.sha256 == prepare(small_request(network="convnet-d3-w128", threads=1)).config.sha256


def test_a_precision_other_than_the_default_is_another_run_and_its_label_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dambench.engine.settle.has_bf16", lambda device: True)
    job = prepare(small_request(precision="bf16"))
    assert job.overrides["precision"] == "bf16"
    assert job.config.sha256 != prepare(small_request()).config.sha256
    assert "precision" not in prepare(small_request(precision="fp32")).overrides
    said = list(run(job))
    assert isinstance(said[-1], Finished)
    assert said[-1].set_sha256 != cast(Finished, list(run(prepare(small_request())))[-1]).set_sha256


def test_precision_has_no_effect_on_a_method_without_a_network_and_that_is_said() -> None:
    job = prepare(small_request(method="random", iterations=None, precision="bf16"))
    assert job.config.precision == "fp32"
    assert job.overrides == {}
    assert any("--precision and --compile are for those that do" in note for note in job.notes)


def test_what_a_run_adapts_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepare(small_request())

    def crowded(problem: Problem, options: Any, resume: Any = None) -> Iterator[Notice | Step]:
        yield from problem.adapt(2, "CUDA out of memory.", "real_chunk", 8)
        yield Step(1, problem.synthetic_set(problem.real.preprocessing.apply(problem.random_subset())))

    monkeypatch.setattr(job.method, "distill", crowded)
    (event,) = [event for event in run(job) if isinstance(event, Adapted)]
    assert event == Adapted(iteration=2, what="real_chunk", value=8, reason="CUDA out of memory.")
    assert remark(event) == "From iteration 2 on with real_chunk 8: CUDA out of memory."


def test_too_little_memory_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepare(small_request())

    def crowded(*given: Any) -> Iterator[Step]:
        raise NotEnoughMemory("640 real images do not fit.")
        yield

    monkeypatch.setattr(job.method, "distill", crowded)
    ending = list(run(job))[-1]
    assert isinstance(ending, Failed)
    assert ending.error == "640 real images do not fit."


def _trend(end: float, *, count: int = 100, noise: float = 0.15, seed: int = 0) -> list[float]:
    """Losses that go from 1 to `end`, each of a network of its own."""
    random = Random(seed)
    return [(1 + (end - 1) * i / count) * random.lognormvariate(0, noise) for i in range(count)]


@pytest.mark.parametrize(
    ("losses", "fallen"),
    [
        *((_trend(0.5, seed=seed), True) for seed in range(10)),
        *((_trend(1.5, seed=seed), False) for seed in range(10)),
        ([1.0] * 60, False),
        ([1.0, *_trend(0.5, noise=0)], True),
        # A step far too large: the loss jumps, and what follows falls, but not to where it was.
        ([0.4, *_trend(0.8, noise=0)], False),
        (_trend(1.5, count=40), True),  # too few to tell
    ],
)
def test_a_matching_loss_that_has_not_fallen_is_said(
    monkeypatch: pytest.MonkeyPatch, losses: list[float], fallen: bool
) -> None:
    def matching(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        data = problem.synthetic_set(problem.random_subset())
        for iteration, loss in enumerate(losses, 1):
            yield Step(iteration, data, {"matching": torch.tensor(loss)})

    events = _with(monkeypatch, matching, iterations=len(losses))
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert len(warnings) == (not fallen)
    assert all("has not fallen" in message and "method.lr_images=0.1" in message for message in warnings)
    assert isinstance(events[-1], Finished)


def test_of_a_part_of_a_run_and_of_other_losses_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resumed(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        data = problem.synthetic_set(problem.random_subset())
        for iteration in range(101, 201):
            yield Step(iteration, data, {"matching": torch.tensor(1.0)})

    def otherwise(problem: Problem, options: object, resume: object = None) -> Iterator[Step]:
        data = problem.synthetic_set(problem.random_subset())
        for iteration in range(1, 101):
            yield Step(iteration, data, {"student": torch.tensor(1.0)})

    for distill, iterations in ((resumed, 200), (otherwise, 100)):
        events = _with(monkeypatch, distill, iterations=iterations)
        assert isinstance(events[-1], Finished)
        assert not [event for event in events if isinstance(event, Warned)]


def test_pools_are_evaluated_on_by_name() -> None:
    job = prepare(small_request(network="convnet-d1-w4-bn", evaluate_on=["pool-a", "pool-s", "alexnetbn"]))
    activations = ["-sigmoid", "", "-leakyrelu", "-swish"]
    expected = (*(f"convnet-d1-w128{word}" for word in activations), "convnet-d1-w4", "alexnet-bn")
    assert job.config.evaluate_on == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own code
def test_a_compiled_run_is_recorded_as_such() -> None:
    job = prepare(small_request(compile="on", network="convnet-d2-w8-bn"))
    assert job.config.execution.compiled
    said = list(run(job))
    assert isinstance(said[0], Started)
    assert said[0].environment.compiler
    assert isinstance(said[-1], Finished)
    assert not [event for event in said if isinstance(event, Adapted | Warned)]


def test_a_stack_that_did_not_fit_once_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    original = train_together

    def crowded(networks: Any, *given: Any, **more: Any) -> Iterator[tuple[int, int]]:
        if len(networks) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        yield from original(networks, *given, **more)

    monkeypatch.setattr(evaluators, "train_together", crowded)
    job = prepare(small_request(eval_repeats=4, evaluate_every=2))
    job = replace(job, policy=replace(job.policy, stack=4))
    events = list(run(job))
    assert _only(events, Adapted).value == 2
    assert len([event for event in events if isinstance(event, Measured)]) == 8


def test_without_bfloat16_a_run_says_so_and_stands_in_the_row_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dambench.engine.settle.has_bf16", lambda device: True)
    rounded = prepare(small_request(protocol="quick-bf16"))
    assert rounded.config.protocol.precision == "bf16"
    assert not any("bfloat16" in note for note in rounded.notes)
    monkeypatch.setattr("dambench.engine.settle.has_bf16", lambda device: False)
    job = prepare(small_request(protocol="quick-bf16"))
    assert job.config.protocol == prepare(small_request(protocol="quick")).config.protocol
    (note,) = [note for note in job.notes if "bfloat16" in note]
    assert note.startswith("The protocol quick-bf16 trains in bfloat16, and this processor has none")
    assert job.config.protocol.label in note
    job = prepare(small_request(precision="bf16"))
    assert job.config.sha256 == prepare(small_request()).config.sha256
    assert any("this processor has no bfloat16. The run computes in fp32" in note for note in job.notes)
