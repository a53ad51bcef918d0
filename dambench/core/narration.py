"""What a run's events say, in a line each, for terminal, log and console alike."""

from msgspec.structs import replace

from dambench.core.events import (
    SKIPPED,
    Adapted,
    AnyEvent,
    Evaluated,
    Failed,
    Finished,
    Measured,
    Real,
    Resumed,
    Started,
    Stepped,
    Stopped,
    Warned,
    remark,
)
from dambench.core.sanitize import counted, display
from dambench.core.units import duration


def summary(event: AnyEvent) -> str | None:
    """The event in one harmless line, or None if it is not worth one."""
    line = _summary(event)
    return None if line is None else display(line, 500)


def _summary(event: AnyEvent) -> str | None:
    match event:
        case Started(config=config, data=data, environment=environment):
            ipc = "" if config.ipc is None else f" at IPC {config.ipc}"
            on = f" on {config.network}" if config.network else ""
            evaluates = f"evaluation of the set {config.evaluates.sha256[:8]}: " if config.evaluates else ""
            where = f"{environment.device} ({environment.device_name}, {counted(environment.threads, 'thread')})"
            return f"{evaluates}{config.method.name} of {data.label}{ipc}{on}, seed {config.seed}, {where}"
        case Resumed(iteration=iteration, attempt=attempt):
            where = f"after iteration {iteration}" if iteration >= 0 else "from the beginning"
            return f"resumed {where}, attempt {attempt}"
        case Evaluated():
            return _measurement(event.measured)
        case Measured():
            return _measurement(event)
        case Warned() | Adapted():
            return f"note: {remark(event)}"
        case Finished():
            spent = ", ".join(f"{cost.phase} {duration(cost.seconds)}" for cost in event.costs)
            return f"finished: {spent}"
        case Failed():
            return f"failed: {event.error}"
        case Stopped():
            where = f" in phase {event.phase}, iteration {event.iteration}" if event.phase else ""
            return f"stopped by {event.signal}{where}"
        case _:
            return None


def _measurement(event: Measured) -> str:
    values = event.values
    if event.evaluator == "accuracy":
        shown = {"accuracy": "accuracy", "validation_accuracy": "validation", "train_accuracy": "train"}
        parts = [f"{title} {100 * float(values[name]):.2f} %" for name, title in shown.items() if name in values]
        metrics = ", ".join([*parts, *([f"loss {number(values['loss'])}"] if "loss" in values else [])])
    else:
        metrics = ", ".join(f"{name} {number(value)}" for name, value in values.items())
    return f"{event.subject} #{event.repeat}: {metrics}, {duration(event.seconds)}"


def without_test(event: AnyEvent) -> AnyEvent:
    """The event with nothing in it that was measured on the test set, for who chooses settings."""
    if not isinstance(event, Measured):
        return event
    kept = ("validation_accuracy", "train_accuracy")
    return replace(event, values={name: value for name, value in event.values.items() if name in kept})


def number(value: Real) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def losses(event: Stepped) -> str:
    losses = {name: value for name, value in event.losses.items() if value or name != SKIPPED}
    return "  ".join(f"{display(name)} {number(value)}" for name, value in losses.items())
