"""Continual learning: classes come step by step, and a network is trained anew on a memory of those seen so far.

The class-incremental protocol of DM (Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023): the
classes, in a random order, are cut into steps. The memory of a step is the set's images of all classes seen until then.
A network with new weights is trained on it, and tested on the test images of these classes; it answers with one of
them. The orders are drawn from `order_seed`, and are the same for all runs, as DM's seeds 0 to 4 are.

With a[l, j] the accuracy on the classes of step j after step l, of k steps (Chaudhry et al., ECCV 2018):
forgetting = 1 / (k − 1) · Σ over j < k of (max over j ≤ l < k of a[l, j]) − a[k, j].
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from dambench.core import config
from dambench.core.errors import BadInput, Diverged
from dambench.core.events import Measured, Metric, Progressed, Real, Warned
from dambench.core.sanitize import display
from dambench.evaluators import Context, Finding, Item, measure_networks
from dambench.training.problem import Network, Seeds, SyntheticSet
from dambench.training.train import predict

__all__ = ["METRICS", "QUICK", "Options", "evaluate", "items", "metrics_of"]

METRICS = {
    "accuracy_seen": Metric(
        description="share recognised of the test images of all classes seen until then, one of which is answered"
    ),
    "memory_images": Metric(description="images in the memory, as they are kept", unit="", better="lower"),
    "memory_bytes": Metric(description="bytes of the memory's images and labels, as kept", unit="", better="lower"),
    "accuracy_final": Metric(description="accuracy after the last step, when all classes were seen"),
    "accuracy_mean": Metric(description="mean over the steps of the accuracy on the classes seen until then"),
    "forgetting": Metric(
        description="mean over the steps but the last of the best accuracy that their classes had before the last "
        "step, less that after it",
        better="lower",
    ),
}

QUICK = {"steps": 2, "orders": 1}
USUAL_STEPS = 5
STEP_COST = 26
"""What an epoch costs besides its images, in images: measured on digits, on one CPU."""


class Options(config.Options, frozen=True):
    steps: Annotated[
        int,
        Meta(ge=0, le=1000, description=f"in which the classes come; 0: {USUAL_STEPS}, or fewer if there are fewer"),
    ] = 0
    orders: Annotated[int, Meta(ge=1, le=1000, description="in which the classes come, each measured by itself")] = 5
    order_seed: Annotated[int, Meta(ge=0, le=2**31, description="from which the orders are drawn")] = 0


def metrics_of(options: Options) -> dict[str, Metric]:
    """Describe the accuracy on the classes of each step."""
    return {
        f"accuracy_step_{step}": Metric(
            description=f"share recognised of the test images of the classes of step {step}"
        )
        for step in range(1, (options.steps or USUAL_STEPS) + 1)
    }


def class_order(seed: int, order: int, steps: int, classes: int) -> list[list[int]]:
    """Draw an order of the classes, cut into steps; the first ones are larger where they cannot be alike.

    Args:
        order: 0, 1, …: which one of those that come from this seed.
    """
    shuffled = torch.randperm(classes, generator=Seeds(seed).generator("class order", order)).tolist()
    least, more = divmod(classes, steps)
    sizes = [least + (step < more) for step in range(steps)]
    ends = [sum(sizes[: step + 1]) for step in range(steps)]
    return [sorted(shuffled[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def items(context: Context, options: Options) -> Sequence[Item]:
    """List what is measured: for each network and order a memory after each step, and what comes of all steps.

    Raises:
        BadInput: the classes cannot come in so many steps, or cannot be told apart in them.
    """
    steps = _steps(context, options)
    listed: list[Item] = []
    for name in context.networks:
        for order in range(options.orders):
            groups = class_order(options.order_seed, order, steps, len(context.card.classes))
            for step in range(1, steps + 1):
                cost = _cost(context, memory(context.synthetic, _classes(groups[:step])))
                listed += [
                    Item(_subject(name, step, steps), _place(options, order, repeat), name, cost)
                    for repeat in range(context.repeats)
                ]
            listed += [
                Item(_subject(name), _place(options, order, repeat), "all steps together", summary=True)
                for repeat in range(context.repeats)
            ]
    return listed


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train networks on the memory after each step of each order, and test them on the classes seen.

    Raises:
        BadInput: as `items`.
        Diverged: the set is final, and no order could be measured to its end.
    """
    costs = {(item.subject, item.repeat): item.cost for item in items(context, options)}
    steps, total, spent = _steps(context, options), int(sum(costs.values())), 0.0
    values: dict[tuple[str, int], Mapping[str, Real]] = dict(context.known)
    complete = any(subject in {_subject(name) for name in context.networks} for subject, _ in resume)
    for name in context.networks:
        for order in range(options.orders):
            groups = class_order(options.order_seed, order, steps, len(context.card.classes))
            for step in range(1, steps + 1):
                subject = _subject(name, step, steps)
                mine = {repeat: (subject, _place(options, order, repeat)) for repeat in range(context.repeats)}
                ahead = sum(costs[key] for key in mine.values())
                done = {(name, repeat) for repeat, key in mine.items() if key in resume}
                if len(done) < context.repeats:
                    for event in _measure_step(context, name, order, groups[:step], done):
                        if isinstance(event, Measured):
                            key = mine[event.repeat]
                            event = msgspec.structs.replace(event, subject=subject, repeat=key[1], final=context.final)
                            values[key] = event.values
                        elif isinstance(event, Progressed):
                            now, note = int(spent + ahead * event.done / event.total), f"{name}, order {order + 1}"
                            event = msgspec.structs.replace(
                                event, done=now, total=total, note=f"{note}/{options.orders}, step {step}/{steps}"
                            )
                        yield event
                spent += ahead
            for repeat in range(context.repeats):
                place = _place(options, order, repeat)
                before = [values.get((_subject(name, step, steps), place)) for step in range(1, steps + 1)]
                spent += costs[_subject(name), place]
                if (_subject(name), place) in resume:
                    continue
                if any(row is None for row in before):
                    yield Warned(message=f"{name} #{place} has no forgetting: it diverged after one of the steps.")
                    continue
                complete = True
                yield _summary(context, name, place, [row for row in before if row is not None])
    if context.final and not complete and not context.dry_run:
        raise Diverged(
            context.iteration,
            "In each order of the classes some network diverged when it was trained on the memory, so that the set of "
            f"iteration {context.iteration} has no {context.evaluator}",
        )


def memory(synthetic: SyntheticSet, classes: Sequence[int]) -> SyntheticSet:
    """Keep the images of some classes. What soft labels say of other classes is forgotten.

    An image with soft labels is of the class with the largest one.
    """
    seen = torch.zeros(len(synthetic.classes), dtype=torch.bool, device=synthetic.labels.device)
    seen[list(classes)] = True
    chosen = seen[synthetic.hard_labels]
    labels = synthetic.labels[chosen]
    if labels.is_floating_point():
        labels = labels.masked_fill(~seen, float("-inf"))
    return replace(synthetic, images=synthetic.images[chosen], labels=labels)


def memory_bytes(kept: SyntheticSet) -> int:
    """Bytes of images and labels as a set's file has them; of soft labels those of the classes that are in it."""
    labels = kept.labels if kept.labels.dim() == 1 else kept.labels[:, kept.labels.isfinite().any(0)]
    return kept.images.nbytes + labels.nbytes


def forgetting(accuracies: Sequence[Sequence[float]]) -> float:
    """How much was forgotten of what was once known.

    Args:
        accuracies: row l, after step l: the accuracies on the classes of steps 1 to l. Two rows at least.

    Returns:
        The mean over j < k of the best of a[j, j] … a[k − 1, j], less a[k, j]. Below 0: it was learned later.
    """
    *before, last = accuracies
    drops = [max(row[j] for row in before[j:]) - last[j] for j in range(len(before))]
    return sum(drops) / len(drops)


def _steps(context: Context, options: Options) -> int:
    """How many steps there are.

    Raises:
        BadInput: there cannot be so many, or a class cannot be tested, or is known to a teacher before it is seen.
    """
    card = context.card
    steps = options.steps or min(USUAL_STEPS, len(card.classes))
    if not 2 <= steps <= len(card.classes):
        raise BadInput(
            f"The classes of {card.label} cannot come in {steps} step{'s' * (steps > 1)}: it has {len(card.classes)}, "
            "and each step takes one at least, so --set evaluator.steps is from 2 to as many."
        )
    if context.protocol.labels == "teacher":
        raise BadInput(
            f"{context.protocol.label} trains with the labels of a teacher, who knows classes that are not seen yet: "
            "take another --protocol."
        )
    if missing := [name for name, count in zip(card.classes, card.test_counts, strict=True) if not count]:
        raise BadInput(f"Class {display(missing[0], 60)!r} of {card.label} has no test images to be tested on.")
    return steps


def _subject(name: str, step: int = 0, steps: int = 0) -> str:
    """A network after a step, or after all of them."""
    return f"{name} step {step:0{len(str(steps))}}/{steps}" if step else name


def _place(options: Options, order: int, repeat: int) -> int:
    """The number that a repeat of an order has: it stays the same if more repeats are asked for."""
    return repeat * options.orders + order


def _classes(groups: Sequence[Sequence[int]]) -> list[int]:
    return [label for group in groups for label in group]


def _cost(context: Context, kept: SyntheticSet) -> float:
    budget = context.protocol.whole if kept.whole else context.protocol.synthetic
    return float(budget.epochs * (len(kept.images) * kept.factor**2 + STEP_COST))


def _measure_step(
    context: Context, name: str, order: int, groups: Sequence[Sequence[int]], done: Collection[tuple[str, int]]
) -> Iterator[Finding]:
    """Train the repeats of a network on the memory of some steps, and test them."""
    kept = memory(context.synthetic, _classes(groups))
    of_step = replace(
        context,
        synthetic=kept,
        networks=(name,),
        seeds=context.seeds.child("class order", order),
        final=False,
        validation=None,
    )
    sizes = {"memory_images": float(len(kept.images)), "memory_bytes": float(memory_bytes(kept))}
    for event in measure_networks(of_step, partial(_scores, of_step, groups), done):
        if isinstance(event, Measured):
            event = msgspec.structs.replace(event, values=event.values | sizes)
        yield event


def _scores(context: Context, groups: Sequence[Sequence[int]], network: Network) -> dict[str, float] | None:
    """Accuracies on the classes of each step and on all of them; None: the network's outputs are no numbers."""
    classes = _classes(groups)
    tested = memory(context.test_set, classes)
    logits = predict(network, tested, context.test_batch)
    if not bool(logits.isfinite().all()):
        return None
    right = answers(logits, classes) == tested.labels
    shares = {
        f"accuracy_step_{step}": float(
            right[torch.isin(tested.labels, torch.tensor(group, device=right.device))].float().mean()
        )
        for step, group in enumerate(groups, 1)
    }
    return {"accuracy_seen": int(right.sum()) / len(right), **shares}


def answers(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """The class with the largest logit among some: (N, all classes) → (N,) int64."""
    seen = torch.tensor(sorted(classes), device=logits.device)
    return seen[logits[:, seen].argmax(1)]


def _summary(context: Context, name: str, place: int, rows: Sequence[Mapping[str, Real]]) -> Measured:
    """What comes of the rows of all steps of one order and repeat."""
    seen = [float(row["accuracy_seen"]) for row in rows]
    table = [[float(row[f"accuracy_step_{j}"]) for j in range(1, step + 1)] for step, row in enumerate(rows, 1)]
    return context.measured(
        _subject(name),
        place,
        {
            "accuracy_final": seen[-1],
            "accuracy_mean": sum(seen) / len(seen),
            "forgetting": forgetting(table),
        },
        0.0,
        0,
    )
