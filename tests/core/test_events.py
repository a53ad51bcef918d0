"""Events: what a run says, and what one said to an older dambench."""

import msgspec

from dambench.core.events import AnyEvent, Evaluated, Measured


def test_a_score_that_an_older_run_logged_is_a_measurement_of_accuracy() -> None:
    logged = {
        "kind": "evaluated",
        "iteration": 20,
        "final": True,
        "set_sha256": "ab" * 32,
        "network": "convnet-d3-w128-in",
        "protocol_sha256": "cd" * 32,
        "repeat": 2,
        "accuracy": 0.5,
        "balanced_accuracy": 0.25,
        "loss": "nan",
        "train_accuracy": 1.0,
        "seconds": 1.5,
        "peak_memory_bytes": 7,
    }
    event = msgspec.json.decode(msgspec.json.encode(logged), type=AnyEvent)
    assert isinstance(event, Evaluated)
    assert event.measured == Measured(
        evaluator="accuracy",
        subject="convnet-d3-w128-in",
        repeat=2,
        iteration=20,
        final=True,
        set_sha256="ab" * 32,
        protocol_sha256="cd" * 32,
        seconds=1.5,
        peak_memory_bytes=7,
        values={"accuracy": 0.5, "balanced_accuracy": 0.25, "loss": "nan", "train_accuracy": 1.0},
    )
    assert msgspec.json.decode(msgspec.json.encode(event.measured), type=AnyEvent) == event.measured
