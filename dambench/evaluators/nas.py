"""NAS: whether networks rank on a set as they do on real images, so that the set can stand in where one is searched.

Each network of a space is trained on the set (the proxy) and on real images (the reference), and scored on the same
training images that were held out of both. Beside the set stand proxies of the same cost, a random subset of its size
and real images stopped early, and the ceiling: real images again, with another seed.

The space is that of DC (ICLR 2021): 720 ConvNets. A network that cannot be built or that diverged is a row with its
status; one that diverged ranks last, as if it recognised nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace as changed

from dambench import networks
from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.events import Measured, Metric, Progressed, Real, Warned
from dambench.core.hard_labels import USUAL_LR
from dambench.core.protocol import HoldOut, Protocol
from dambench.core.ranking_files import TrainedNetwork, find
from dambench.core.sanitize import counted
from dambench.evaluators import Context, Finding, Item
from dambench.evaluators._ranking import best as first_of
from dambench.evaluators._ranking import kendall_tau_b, precision_at, regret_at, spearman_interval, spearman_rho
from dambench.evaluators._rankings import (
    HeldSplit,
    TrainingArm,
    TrainingCrew,
    TrainingTask,
    Worked,
    can_be_built,
    is_new,
    split,
    stopped_after,
    training_arm,
    training_cost,
    with_epochs,
)
from dambench.evaluators._search_space import convnets, random_search, stratified
from dambench.training.problem import Problem, RealSet, Seeds, SyntheticSet
from dambench.training.teachers import load_teacher

__all__ = ["METRICS", "QUICK", "SHARES", "Options", "evaluate", "items"]

SHARES = True
QUICK = {"networks": 8}

SAMPLE, SEARCHED = 36, 5
"""How many networks of the ConvNets are ranked, and of the random search, where nobody says."""

FEWEST_IMAGES = 8
FEWEST_HELD = 10
FEWEST_NETWORKS = 5

ARMS = {
    "set": "trained on the set",
    "random": "trained on as many random real images of each class",
    "early": "trained on the reference's real images, stopped when as many were shown as of the set",
    "ceiling": "trained as the reference, with other weights and batches",
    "reference": "trained on real images",
}

TRAINED, NOTHING_LEARNED, REFERENCE_DIVERGED, PROXY_DIVERGED, NOT_BUILT = range(5)

METRICS = {
    **{
        f"{arm}_accuracy": Metric(description=f"share recognised of held-out training images by a network {how}")
        for arm, how in ARMS.items()
    },
    **{
        f"{arm}_seconds": Metric(description=f"time of one thread for a network {how}", unit="seconds", better="lower")
        for arm, how in ARMS.items()
    },
    "status": Metric(
        description="0 trained, 1 learned nothing on real images, 2 diverged on real images, 3 diverged on the set or "
        "beside it, 4 cannot be built: pooling leaves no pixel",
        unit="",
        better="lower",
    ),
    "tau_b": Metric(description="Kendall's tau-b with the reference over all networks that can be built", unit=""),
    "spearman": Metric(description="Spearman's rho with the reference over all networks that can be built", unit=""),
    "spearman_low": Metric(description="lower end of its 95 % bootstrap interval, over networks", unit=""),
    "spearman_high": Metric(description="upper end of its 95 % bootstrap interval, over networks", unit=""),
    "spearman_own_top": Metric(description="Spearman's rho over the first k of this proxy", unit=""),
    "spearman_own_top_low": Metric(description="lower end of its 95 % bootstrap interval", unit=""),
    "spearman_own_top_high": Metric(description="upper end of its 95 % bootstrap interval", unit=""),
    "spearman_reference_top": Metric(description="Spearman's rho over the first k of the reference", unit=""),
    "spearman_reference_top_low": Metric(description="lower end of its 95 % bootstrap interval", unit=""),
    "spearman_reference_top_high": Metric(description="upper end of its 95 % bootstrap interval", unit=""),
    "precision_at_k": Metric(description="share of the proxy's first k that are among the reference's first k"),
    "regret_at_k": Metric(
        description="accuracy of the reference's best network less that of the best of the proxy's first k",
        better="lower",
    ),
    "chosen_accuracy": Metric(description="accuracy, in the reference, of the network that the proxy ranks first"),
    "k": Metric(description="how many networks the figures over the first ones are of", unit=""),
    "ranked": Metric(description="networks that could be built, and were ranked", unit=""),
    "seconds": Metric(description="time of one thread for all networks", unit="seconds", better="lower"),
    "speedup": Metric(description="time for all networks on real images over that for this proxy", unit=""),
}


class Options(config.Options, frozen=True):
    space: Annotated[
        Literal["convnets", "random-search"],
        Meta(
            description="DC's 720 ConvNets, or 1 to 3 convolutions of width 16, 32, 64 and kernel 3, 5, drawn at random"
        ),
    ] = "convnets"
    max_width: Annotated[Literal[32, 64, 128, 256], Meta(description="of ConvNets; 64: 360 of them, 256: all 720")] = 64
    networks: (
        Annotated[int, Meta(ge=1, le=720, description="a stratified sample of so many; as many as there are")] | None
    ) = None
    """None: 36 ConvNets; 5 networks of a random search."""
    sample_seed: Annotated[
        int, Meta(ge=0, le=2**31, description="of the sample; a larger one has the smaller in it")
    ] = 0
    top: Annotated[int, Meta(ge=2, le=720, description="k, of what is measured over the first networks")] = 10
    epochs: Annotated[int, Meta(ge=0, le=100_000, description="on the set; 0: as the protocol says")] = 0
    reference_epochs: Annotated[int, Meta(ge=0, le=100_000, description="on real images; 0: as the protocol says")] = 0
    reference_images: Annotated[int, Meta(ge=0, description="real images, as many of each class; 0: all")] = 0
    reference_seed: Annotated[int, Meta(ge=0, le=2**31, description="of the reference, which all sets share")] = 0
    baselines: Annotated[bool, Meta(description="also rank by random images, and by real ones stopped early")] = True


def items(context: Context, options: Options) -> Sequence[Item]:
    """List the networks, then the proxies that are compared with the reference.

    Raises:
        BadInput: the set, the held-out part or the space is too small for a ranking to mean anything.
    """
    return _Ranking(context, options).items


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train every network in every arm, then compare each proxy's ranking with the reference's."""
    ranking = _Ranking(context, options)
    if context.dry_run or not resume:
        yield from (Warned(message=note) for note in ranking.notes)
    values: dict[str, Mapping[str, Real]] = {
        name: context.known[name, 0] for name in ranking.names if (name, 0) in context.known
    }
    for event in ranking.trained([name for name in ranking.names if (name, 0) not in resume]):
        if isinstance(event, Measured):
            values[event.subject] = event.values
        yield event
    # In one order whatever was measured first: it decides which of equal networks counts as the better one.
    values = {name: values[name] for name in ranking.names if name in values}
    for arm in ranking.proxies:
        if (arm.name, 0) not in resume:
            yield ranking.measured(arm.name, compared(arm.name, values, options.top))
    if (ranking.proxies[-1].name, 0) not in resume:
        yield from (Warned(message=note) for note in _remarks(values))


def compared(arm: str, values: Mapping[str, Mapping[str, Real]], top: int) -> dict[str, float]:
    """How well an arm's ranking agrees with the reference's: what is not defined is left out.

    Args:
        values: by network, what was measured of it.
        top: k; all networks where they are fewer.
    """
    built = [one for one in values.values() if one["status"] != NOT_BUILT]
    proxy, reference = ([_score(one, which) for one in built] for which in (arm, "reference"))
    seconds, whole = (sum(float(one.get(f"{which}_seconds", 0)) for one in built) for which in (arm, "reference"))
    k = min(top, len(built))
    results: dict[str, float | None] = {"ranked": len(built), "k": k, "seconds": seconds}
    if built:
        results["precision_at_k"] = precision_at(proxy, reference, k)
        results["regret_at_k"] = regret_at(proxy, reference, k)
        results["chosen_accuracy"] = reference[first_of(proxy, 1)[0]]
        results["speedup"] = whole / seconds if seconds else None
    if len(built) > 1:
        results["tau_b"] = kendall_tau_b(proxy, reference)
    parts = {"": range(len(built)), "_own_top": first_of(proxy, k), "_reference_top": first_of(reference, k)}
    for part, places in parts.items():
        if len(places) < 2:
            continue
        some = [proxy[place] for place in places], [reference[place] for place in places]
        results[f"spearman{part}"] = rho = spearman_rho(*some)
        interval = spearman_interval(*some, seed=0) if rho is not None else None
        if interval is not None:
            results |= {f"spearman{part}_low": interval.low, f"spearman{part}_high": interval.high}
    return {name: value for name, value in results.items() if value is not None}


def _score(values: Mapping[str, Real], arm: str) -> float:
    """What a network is ranked by: one that diverged recognises nothing."""
    return float(values.get(f"{arm}_accuracy", 0.0))


def _remarks(values: Mapping[str, Mapping[str, Real]]) -> Iterator[str]:
    """Say how many networks have come to nothing."""
    many = len(values)
    for status, what in (
        (NOT_BUILT, "cannot be built: pooling leaves no pixel of the images"),
        (REFERENCE_DIVERGED, "diverged on real images, and rank last in the reference"),
        (PROXY_DIVERGED, "diverged in another arm, and rank last there"),
        (NOTHING_LEARNED, "learned nothing on real images: they are no better than always giving one answer"),
    ):
        count = sum(one["status"] == status for one in values.values())
        if count:
            yield f"Of {many} networks {count} {what}."


@dataclass(frozen=True)
class _Ranking:
    """The networks of an evaluation, and the arms that they are trained in."""

    context: Context
    options: Options

    def __post_init__(self) -> None:
        context, held = self.context, self.parts.held
        title = f"The evaluator {context.evaluator}"
        images = len(context.synthetic.images) * context.synthetic.factor**2
        if images < FEWEST_IMAGES:
            raise BadInput(
                f"{title} ranks networks by what they learn from a set, and this one has {counted(images, 'image')} "
                f"in all: it needs {FEWEST_IMAGES} or more."
            )
        scored = sum(self.scored)
        if scored < FEWEST_HELD:
            raise BadInput(
                f"{title} scores networks on held-out training images, of which there are {scored} (of "
                f"{len(held.images)}) that are not in the set: it needs {FEWEST_HELD} or more."
            )
        built = sum(self.built.values())
        if built < FEWEST_NETWORKS:
            raise BadInput(
                f"{title} compares rankings, and of {counted(len(self.names), 'network')} {built} can be built for "
                f"{context.card.height}×{context.card.width} images: it needs {FEWEST_NETWORKS} or more. Ask for more "
                "by --set evaluator.networks=36."
            )

    @cached_property
    def names(self) -> list[str]:
        """The networks, in the order that they are trained in."""
        options = self.options
        if options.space == "random-search":
            return random_search(options.networks or SEARCHED, options.sample_seed)
        members = convnets(options.max_width)
        return [member.name for member in stratified(members, options.networks or SAMPLE, options.sample_seed)]

    @cached_property
    def built(self) -> dict[str, bool]:
        """Whether there can be such a network for these images."""
        return {name: can_be_built(name, self.context.card) for name in self.names}

    @cached_property
    def parts(self) -> HeldSplit:
        return split(self.context, HoldOut())

    @cached_property
    def scored(self) -> list[bool]:
        """The held-out images that count: those that are not in the set."""
        if self.context.synthetic.whole:
            return [True] * len(self.parts.held.images)
        return is_new(self.parts.held, self.context.synthetic)

    @cached_property
    def arms(self) -> dict[str, TrainingArm]:
        """The arms by name, the reference last."""
        context, options, (kept, held) = self.context, self.options, self.parts
        protocol = with_epochs(context.protocol, options.epochs, options.reference_epochs)
        real_protocol = _without_extras(protocol)
        shared, own = Seeds(options.reference_seed), context.seeds
        real = _as_set(context, _balanced(kept, options.reference_images, shared), whole=True)
        reference = training_arm("reference", context, real, real_protocol, held, shared.seed)
        ceiling = training_arm("ceiling", context, real, real_protocol, held, shared.seed)
        if context.synthetic.whole:
            whole = training_arm("set", context, real, real_protocol, held, own.seed)
            return {"set": whole, "ceiling": ceiling, "reference": reference}
        teacher = None
        if protocol.labels == "teacher":
            teacher = load_teacher(context.synthetic, lambda name: networks.build(name, context.card))
            teacher = teacher.to(context.policy.device)
        arms = {"set": training_arm("set", context, context.synthetic, protocol, held, own.seed, teacher)}
        if options.baselines:
            problem = Problem(
                real=kept,
                card=context.card,
                ipc=len(context.synthetic.images) // len(context.card.classes),
                seeds=own,
                build_network=lambda: networks.build(self.names[0], context.card),
                held_out=context.synthetic.held_out,
                policy=context.policy,
            )
            subset = problem.synthetic_set(problem.random_subset())
            arms["random"] = training_arm("random", context, subset, real_protocol, held, own.seed)
            arms["early"] = stopped_after(ceiling, arms["set"].images_seen, "early")
        return arms | {"ceiling": ceiling, "reference": reference}

    @property
    def proxies(self) -> list[TrainingArm]:
        """The arms that are compared with the reference."""
        return [arm for name, arm in self.arms.items() if name != "reference"]

    @cached_property
    def notes(self) -> list[str]:
        """What a reader of the result should know."""
        context, held, notes = self.context, self.parts.held, []
        if context.validation is None:
            notes.append(
                f"{context.protocol.name} held no images out when the set was made, so the {len(held.images)} training "
                "images that networks are ranked on may have shaped it: sets made by --protocol fair were made without "
                "them."
            )
        if missing := len(held.images) - sum(self.scored):
            notes.append(f"{counted(missing, 'held-out image')} are in the set, and not counted in any arm.")
        if "early" in self.arms and self.arms["early"].steps >= self.arms["reference"].steps:
            notes.append(
                f"Training on the set shows {self.arms['set'].images_seen:,} images, no fewer than the "
                f"{self.arms['reference'].images_seen:,} of the reference: this proxy saves no time, and real images "
                "are not stopped early."
            )
        built = sum(self.built.values())
        if self.options.top >= built:
            notes.append(f"k is {self.options.top}, and {built} networks are ranked: the first k are all of them.")
        return notes

    @cached_property
    def on_record(self) -> dict[tuple[str, str], TrainedNetwork]:
        """By network and arm, what need not be trained: as it was when this began."""
        return {
            (name, arm.name): found
            for arm in self.arms.values()
            for name in self.names
            if self.built[name] and (found := find(arm.key, name))
        }

    @cached_property
    def items(self) -> list[Item]:
        rows = []
        for name in self.names:
            cost = sum(task.cost for task in self.tasks(name))
            kind = "network" if cost else "on record" if self.built[name] else "cannot be built"
            rows.append(Item(name, 0, kind=kind, cost=max(1.0, cost)))
        return rows + [Item(arm.name, 0, kind="comparison", cost=1.0, summary=True) for arm in self.proxies]

    def tasks(self, name: str) -> list[TrainingTask]:
        """What is to be trained of a network."""
        return [
            TrainingTask(name, arm, training_cost(arm, name, self.context.card))
            for arm in self.arms.values()
            if self.built[name] and (name, arm.name) not in self.on_record
        ]

    def trained(self, names: Sequence[str]) -> Iterator[Finding]:
        """Train networks in all arms."""
        context, total = self.context, int(sum(item.cost for item in self.items))
        tasks = {name: self.tasks(name) for name in names}
        done_before = total - sum(sum(task.cost for task in of_one) for of_one in tasks.values())
        held = _as_set(context, self.parts.held, whole=False)
        crew = TrainingCrew(held, context.card, context.policy, not context.dry_run, context.test_batch)
        results = dict(self.on_record)
        waiting = list(names)
        current = ""

        def finished() -> Iterator[Measured]:
            while waiting and all((waiting[0], task.arm.name) in results for task in tasks[waiting[0]]):
                yield self._row(waiting.pop(0), results)

        yield from finished()
        for event in crew.work([task for of_one in tasks.values() for task in of_one]):
            if isinstance(event, Worked):
                results[event.task.network, event.task.arm.name] = event.trained
                yield from finished()
                continue
            current = waiting[0]
            note = f"{current} {len(names) - len(waiting) + 1}/{len(names)}"
            yield Progressed(phase="evaluate", done=min(total, int(done_before + event)), total=total, note=note)

    def _row(self, name: str, results: Mapping[tuple[str, str], TrainedNetwork]) -> Measured:
        """What a network came to."""
        if not self.built[name]:
            return self.measured(name, {"status": NOT_BUILT})
        values: dict[str, float] = {}
        fresh = 0.0
        for arm in self.arms.values():
            trained = results[name, arm.name]
            values[f"{arm.name}_seconds"] = trained.seconds
            fresh += 0 if (name, arm.name) in self.on_record else trained.seconds
            if not trained.diverged:
                hits = [hit for hit, counts in zip(trained.recognised(), self.scored, strict=True) if counts]
                values[f"{arm.name}_accuracy"] = sum(hits) / len(hits)
        return self.measured(name, values | {"status": self._status(values)}, fresh)

    def _status(self, values: Mapping[str, float]) -> int:
        if "reference_accuracy" not in values:
            return REFERENCE_DIVERGED
        if any(f"{arm}_accuracy" not in values for arm in self.arms):
            return PROXY_DIVERGED
        scored = [label for label, counts in zip(self.parts.held.labels.tolist(), self.scored, strict=True) if counts]
        constant = max(scored.count(label) for label in set(scored)) / len(scored)
        chance = constant + 2 * (constant * (1 - constant) / len(scored)) ** 0.5
        return NOTHING_LEARNED if values["reference_accuracy"] <= chance else TRAINED

    def measured(self, subject: str, values: Mapping[str, float], seconds: float = 0.0) -> Measured:
        return self.context.measured(subject, 0, values, seconds)


def _without_extras(protocol: Protocol) -> Protocol:
    """The protocol for real images, which carry no soft labels, teacher or rate."""
    lr = USUAL_LR if isinstance(protocol.lr, str) else protocol.lr
    return changed(protocol, labels="hard", lr=lr)


def _balanced(real: RealSet, images: int, seeds: Seeds) -> RealSet:
    """Random real images, as many of each class; all of them where 0 are asked for, or more than there are."""
    each = min(max(1, images // real.classes), *real.counts)
    if not images or each * real.classes >= len(real.images):
        return real
    drawn = real.draw(each, seeds.generator("nas real images")).flatten().sort().values
    return replace(real, images=real.images[drawn.to(real.images.device)], counts=(each,) * real.classes)


def _as_set(context: Context, real: RealSet, *, whole: bool) -> SyntheticSet:
    classes = tuple(context.card.classes)
    return SyntheticSet(real.images, real.labels, real.preprocessing, classes, whole=whole)
