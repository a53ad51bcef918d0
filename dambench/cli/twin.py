"""The hard-label twin of a run: its set once more, with hard labels at the usual rate, as a run of its own."""

from typing import TYPE_CHECKING, Any

from dambench.cli.follow_up import record_follow_up
from dambench.cli.process import Foreground
from dambench.core.config import Choice, Request, SetRef
from dambench.core.hard_labels import hard_twin, used, wants_twin
from dambench.core.units import duration
from dambench.store.runs import Store
from dambench.store.set_bytes import set_bytes

if TYPE_CHECKING:
    from dambench.engine.job import Job

EVALUATOR = "accuracy"
"""Whose scores have a twin: other evaluators have both kinds of labels in their own figures, or neither."""


def record_twin(
    store: Store, run_id: str, job: "Job", request: Request, here: Foreground, *, again: bool
) -> tuple[int, dict[str, Any]]:
    """Evaluate the set of a finished run with hard labels, where it carries more and the run's protocol uses that.

    The run is entered as one of `dambench evaluate`: it can be stopped, resumed and found like any other.

    Args:
        job: of the finished run.
        again: whether a twin that there is already is made anew.

    Returns:
        The exit code, and `hard_twin` for the run's result: None if it needs none, or it is not to have one.
    """
    from dambench import engine
    from dambench.cli.record import result

    protocol, row = job.config.protocol, store.run(run_id)
    nothing: dict[str, Any] = {"hard_twin": None}
    if job.config.evaluator.name != EVALUATOR or row.set_sha256 is None or here.signals.received:
        return 0, nothing
    known = set_bytes(store.query, [row.set_sha256]).get(row.set_sha256)
    parts = used(protocol, known.carries if known else ())
    iteration = store.iteration_of(row)
    if not parts or iteration is None or not wants_twin(request):
        return 0, nothing
    twin = hard_twin(protocol)
    carries = f"The set carries {' and '.join(f'a {part}' if part != 'soft labels' else part for part in parts)}"
    if twin is None:
        here.watch.say(f"{carries}, which {protocol.label} uses, and no protocol here is its twin with hard labels.")
        return 0, nothing
    wish = Request(protocol=twin.name, threads=request.threads)
    made = engine.evaluation(job, wish, SetRef(row.set_sha256, iteration), Choice(EVALUATOR))
    finished = None if again else store.finished(made.config, made.card, row.set_sha256)
    if finished:
        here.watch.say(f"{carries}: run {finished} has its hard-label twin, under {twin.label}.")
        return 0, {"hard_twin": result(store, finished) | {"existing": True}}
    seconds = _seconds(store, row.number, protocol.synthetic.epochs, twin.synthetic.epochs)
    here.watch.say(
        f"{carries}, which {protocol.name} uses: it is evaluated with hard labels at the usual rate, too, under "
        f"{twin.label}, in about {duration(seconds)} "
        "(--hard-twin off leaves it out)."
    )
    what, tags = f"the hard-label twin of {run_id}", request.tags or []
    new, code = record_follow_up(store, made, here, what, tags=tags, recipe=row.recipe, again=again)
    return code, {"hard_twin": result(store, new)}


def _seconds(store: Store, number: int, epochs: int, twin_epochs: int) -> float:
    """Expect as long for each epoch as its networks took."""
    (row,) = store.query("select sum(seconds) as spent from evaluations where run = ? and final = 1", number)
    return float(row["spent"] or 0.0) * twin_epochs / epochs
