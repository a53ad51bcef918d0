"""Time: figures by hand from a curve, a clock that stands still while networks are tested, honest gaps."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import dambench.evaluators.time as timing
from dambench.core import registry
from dambench.core.config import Options as AnyOptions
from dambench.core.events import Measured, Warned
from dambench.core.protocol import Budget
from dambench.evaluators import Context
from dambench.evaluators.time import Curve, Options, checked_epochs, figures, metrics_of, seconds_to, share_of
from dambench.testing.evaluators import tiny_context

CURVE: Curve = [(1, 0.1, 0.2), (2, 0.2, 0.85), (5, 0.5, 0.6), (8, 0.8, 0.82), (9, 0.9, 0.9), (10, 1.0, 0.92)]


def test_seconds_to_an_accuracy_by_hand() -> None:
    assert seconds_to(CURVE, 0.2) == 0.1
    assert seconds_to(CURVE, 0.6) == 0.2, "0.85, 0.6 and 0.82 are no lower"
    assert seconds_to(CURVE, 0.8) == 0.8, "0.85 was passed and lost again"
    assert seconds_to(CURVE, 0.92) == 1.0, "there are no more checks"
    assert seconds_to(CURVE, 0.93) == math.inf


def test_the_figures_of_a_network_by_hand() -> None:
    values = figures(CURVE, Options(reach=(60, 93)), whole_seconds=5.0, distil_seconds=12.0)
    assert (values["train_seconds"], values["whole_seconds"], values["distil_seconds"]) == (1.0, 5.0, 12.0)
    assert values["break_even"] == 12 / (5 - 1)
    assert (values["seconds_to_60"], values["reached_60"]) == (0.2, 1.0)
    assert (values["seconds_to_93"], values["reached_93"]) == (math.inf, 0.0)
    # Of ten epochs 1, 2, 5 and 10 % are one, 20 % two, 50 % five.
    at = {
        percent: (values[f"seconds_at_{percent}"], values[f"accuracy_at_{percent}"]) for percent in (1, 10, 20, 50, 100)
    }
    assert at == {1: (0.1, 0.2), 10: (0.1, 0.2), 20: (0.2, 0.85), 50: (0.5, 0.6), 100: (1.0, 0.92)}
    assert values.keys() == {*timing.METRICS, *metrics_of(Options(reach=(60, 93)))}


def test_no_number_is_made_up_where_something_is_not_known() -> None:
    slower = figures(CURVE, Options(), whole_seconds=0.9, distil_seconds=12.0)
    assert slower["break_even"] == math.inf, "training on all real images is faster"
    assert "break_even" not in figures(CURVE, Options(), whole_seconds=5.0, distil_seconds=None)
    of_whole = figures(CURVE, Options(), whole_seconds=None, distil_seconds=0.0)
    assert not of_whole.keys() & {"break_even", "whole_seconds"}


def test_a_network_is_checked_after_epochs_spread_evenly_and_where_the_curve_is_kept() -> None:
    assert [share_of(percent, 300) for percent in (1, 2, 100)] == [3, 6, 300]
    assert checked_epochs(10, 2) == {1, 2, 5, 10}
    assert len(checked_epochs(1000, 50)) <= 57
    assert max(checked_epochs(7, 3)) == 7


def few(epochs: int = 6) -> Context:
    context = tiny_context(registry.load("evaluators", "time"))
    protocol = msgspec.structs.replace(context.protocol, synthetic=Budget(epochs=epochs))
    return replace(context, networks=("convnet-d1-w8",), protocol=protocol, repeats=1)


def test_the_clock_stands_still_while_a_network_is_tested_and_while_others_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, real = 0.0, vars(timing)["predict"]

    def monotonic() -> float:
        nonlocal now
        now += 0.001  # a look at the clock
        return now

    def slow(*arguments: Any) -> Any:
        nonlocal now
        now += 100
        return real(*arguments)

    monkeypatch.setattr(timing, "predict", slow)
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=monotonic))
    found = []
    for event in timing.evaluate(few(), Options(checks=6, steps=1)):
        now += 10
        if isinstance(event, Measured):
            found.append(event)
    (event,) = found
    assert now > 6 * 100 + 6 * 10
    seconds = [float(event.values[f"seconds_at_{percent}"]) for percent in timing.PERCENTS]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 0.1, "tests took 600 s and whoever listened 60, which is not training"
    assert float(event.values["train_seconds"]) == seconds[-1]
    assert 0 < float(event.values["whole_seconds"]) < 10


def test_being_tested_on_the_way_changes_nothing_of_what_a_network_comes_to() -> None:
    accuracy = registry.load("evaluators", "accuracy")
    context = few(8)
    (plain,) = (e for e in accuracy.evaluate(context, accuracy.Options(), ()) if isinstance(e, Measured))
    (watched,) = (e for e in timing.evaluate(context, Options(steps=1)) if isinstance(e, Measured))
    assert watched.values["accuracy_at_100"] == plain.values["accuracy"]


def test_the_machine_and_its_threads_are_said_and_the_whole_set_has_no_break_even() -> None:
    context = few(4)
    whole = replace(context.synthetic, whole=True)
    events = list(timing.evaluate(replace(context, synthetic=whole), Options(steps=1)))
    assert next(event.message for event in events if isinstance(event, Warned)).startswith(
        "Seconds are of this machine (a CPU, "
    )
    (measured,) = (event for event in events if isinstance(event, Measured))
    assert "break_even" not in measured.values
    assert issubclass(Options, AnyOptions)
