"""Robustness: accuracy under attacks on the test images, for each attack and budget.

Networks are trained on the set as for accuracy, and attacked on an even share of each class's test images:

* FGSM, one step, and PGD by L∞ and L2, from FGSM's point and from random points: they see the network's gradients.
* Square, by L∞: it sees the network's answers alone.
* Transfer, by L∞: what PGD made for networks of other architectures that were trained on the same set.

Budgets are distances between pixels of 0…1: by L∞ in 255ths, `pgd_linf_8` is 8/255; by L2 over all pixels and channels
of an image. What is broken within a budget is broken within every larger one. There is no index made of all attacks.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dambench import networks
from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.events import Metric
from dambench.evaluators import Context, Finding, Item, Values, measure_networks
from dambench.evaluators._attacks import Attacked, Ball, Logits, fgsm, pgd, project, square, wrong
from dambench.training.problem import Network, Preprocessing
from dambench.training.teachers import load_teacher
from dambench.training.train import predict, train_together

__all__ = ["METRICS", "QUICK", "Options", "evaluate", "items", "metrics_of"]

METRICS = {"clean": Metric(description="share recognised of the test images that are attacked, before they are")}

QUICK = {"linf": [8, 32], "l2": [0.5], "steps": 2, "restarts": 1, "queries": 4}

BATCH = 512
"""Images that are attacked at once, at most."""

STEP_IMAGES = 100
"""What a step of training takes besides its images, in images: for estimates."""

CONFIDENCE = 1.645
"""Standard deviations above the most frequent class's share, from which on a network has learned (one-sided, 5 %)."""

Budget255 = Annotated[int, Meta(ge=1, le=255)]
BudgetL2 = Annotated[float, Meta(gt=0, le=1000)]
Count = Annotated[int, Meta(ge=1, le=100_000)]


class Options(config.Options, frozen=True):
    linf: Annotated[
        tuple[Budget255, ...], Meta(min_length=1, max_length=12, description="budgets of L∞ attacks, in 255ths")
    ] = (2, 8, 32)
    l2: Annotated[tuple[BudgetL2, ...], Meta(max_length=12, description="budgets of L2 attacks, of pixels of 0…1")] = (
        0.25,
        1.0,
    )
    steps: Annotated[Count, Meta(description="of PGD, each of 2.5 · budget / steps")] = 20
    restarts: Annotated[int, Meta(ge=0, le=100, description="of PGD from random points, after FGSM's")] = 1
    queries: Annotated[Count, Meta(description="of each image by Square")] = 200
    images: Annotated[Count, Meta(description="test images that are attacked, an even share of each class")] = 1000
    transfer_from: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...],
        Meta(max_length=8, description="networks trained on the set, whose PGD examples are tried on the others"),
    ] = ("mlp",)

    def __post_init__(self) -> None:
        for name in ("linf", "l2", "transfer_from"):
            values = getattr(self, name)
            if len({str(_slug(value) if isinstance(value, str) else value) for value in values}) < len(values):
                raise ValueError(f"{name} has a value twice")


def _named(budget: float) -> str:
    return f"{budget:g}".replace(".", "-").replace("+", "")


def metrics_of(options: Options) -> dict[str, Metric]:
    """Accuracy under each attack and budget."""
    start = f"from FGSM's point{f' and {options.restarts} random' if options.restarts else ''}"
    named: dict[str, Metric] = {}
    for budget in sorted(options.linf):
        within = f"changes of at most {budget}/255"
        named[f"fgsm_linf_{budget}"] = _metric(f"FGSM, {within}")
        named[f"pgd_linf_{budget}"] = _metric(f"PGD, {options.steps} steps {start}, {within}")
        named[f"square_linf_{budget}"] = _metric(f"Square, {options.queries} queries, {within}")
        for source in options.transfer_from:
            named[f"transfer_{_slug(source)}_linf_{budget}"] = _metric(f"PGD's examples for {source}, {within}")
    for radius in sorted(options.l2):
        named[f"pgd_l2_{_named(radius)}"] = _metric(
            f"PGD, {options.steps} steps {start}, changes of an L2 norm of at most {radius:g}"
        )
    order = [f"{attack}_" for attack in ("fgsm", "pgd_linf", "pgd_l2", "square", "transfer")]
    return {name: named[name] for prefix in order for name in named if name.startswith(prefix)}


def _metric(attack: str) -> Metric:
    return Metric(description=f"share recognised under {attack}, pixels of 0 to 1")


def _slug(source: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in source.lower())[:30]


def items(context: Context, options: Options) -> Sequence[Item]:
    """Each network and repeat.

    Raises:
        BadInput: a network would be attacked by what was made for its like, or is known not to have learned.
    """
    sources = _sources(context, options)
    if both := [name for name in context.networks if name in sources]:
        raise BadInput(
            f"Examples are to be transferred from {both[0]}, which is attacked itself: name another network with "
            "--set 'evaluator.transfer_from=[\"NAME\"]', or none with []."
        )
    for name in context.networks:
        for repeat in range(context.repeats):
            accuracy = context.recall(context.set_sha256, context.protocol.sha256, name, repeat)
            if accuracy is not None:
                _refuse_chance(name, accuracy, context.test.counts)
    return [Item(name, repeat, name) for name in context.networks for repeat in range(context.repeats)]


def _refuse_chance(network: str, accuracy: float, counts: Sequence[int]) -> None:
    """Refuse a network that recognises no more than its guess of the most frequent class would.

    Raises:
        BadInput: it did not learn.
    """
    share, images = max(counts) / sum(counts), sum(counts)
    if accuracy <= share + CONFIDENCE * (share * (1 - share) / images) ** 0.5:
        raise BadInput(
            f"{network} did not learn from this set: it recognises {100 * accuracy:.1f} % of {images} test images, and "
            f"always answering the most frequent class {100 * share:.1f} %. It has no robustness to measure."
        )


def _sources(context: Context, options: Options) -> list[str]:
    return [networks.settle(name, context.card) for name in options.transfer_from]


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train networks on the set, and attack each."""
    attack = _Attack(context, options)
    budget = context.protocol.whole if context.synthetic.whole else context.protocol.synthetic
    images = len(context.synthetic.images)
    training = budget.epochs * (images + STEP_IMAGES * -(-images // context.protocol.batch))
    return measure_networks(context, attack.measure, resume, measuring=attack.passes * len(attack.labels) / training)


class _Attack:
    """The attacks of all networks, on the same images."""

    def __init__(self, context: Context, options: Options):
        self._context, self._options = context, options
        chosen = evenly(context.test.counts, options.images)
        self._counts = [int((context.test.labels[chosen] == label).sum()) for label in range(len(context.test.counts))]
        self._pixels = context.test.images[chosen].float() / 255
        self.labels = context.test.labels[chosen]
        self._batch = min(BATCH, context.test_batch)
        self._examples: dict[tuple[str, int], Tensor] = {}
        """What PGD made for each network that is transferred from, by budget."""
        self._sources_trained: dict[str, Network] = {}

    @property
    def passes(self) -> int:
        """Images that a network sees for each that is attacked, at most: where none is broken."""
        o = self._options
        of_pgd = (o.steps + 1) * (1 + o.restarts) + 2
        return len(o.linf) * (2 + of_pgd + o.queries // 2 + len(o.transfer_from)) + len(o.l2) * of_pgd

    def measure(self, network: Network) -> Generator[float, None, Values]:
        """Attack a trained network."""
        context, options = self._context, self._options
        logits = attacked(network, context.synthetic.preprocessing)
        if not bool(predict(network, context.test_set, context.test_batch).isfinite().all()):
            return None
        missed = self._missed(logits, self._pixels)
        clean = 1 - float(missed.double().mean())
        _refuse_chance("A network", clean, self._counts)
        values = {"clean": clean}
        linf, l2 = sorted(options.linf), sorted(options.l2)
        work = len(metrics_of(options))

        def done() -> float:
            return (len(values) - 1) / work

        for attack, balls in (
            ("fgsm", [Ball("linf", budget / 255) for budget in linf]),
            ("pgd", [Ball("linf", budget / 255) for budget in linf]),
            ("pgd", [Ball("l2", budget) for budget in l2]),
            ("square", [Ball("linf", budget / 255) for budget in linf]),
        ):
            broken = missed.clone()
            for ball, named in zip(balls, linf if balls[:1] and balls[0].norm == "linf" else l2, strict=True):
                for part in (~broken).nonzero().squeeze(1).split(self._batch):
                    newly = broken[part]
                    for found in self._attack(attack, logits, part, ball):
                        newly = found.broken
                        yield done()
                    broken[part] = newly
                values[f"{attack}_{ball.norm}_{_named(named)}"] = 1 - float(broken.double().mean())
        for name, source in zip(options.transfer_from, _sources(context, options), strict=True):
            broken = missed.clone()
            for budget in linf:
                for _ in self._prepare(source, budget):
                    yield done()
                broken |= self._missed(logits, self._examples[source, budget])
                values[f"transfer_{_slug(name)}_linf_{budget}"] = 1 - float(broken.double().mean())
        return values

    def _missed(self, logits: Logits, pixels: Tensor) -> Tensor:
        """Which of all images are not recognised as these pixels."""
        parts = zip(pixels.split(self._batch), self.labels.split(self._batch), strict=True)
        return torch.cat([wrong(logits, some, labels) for some, labels in parts])

    def _attack(self, attack: str, logits: Logits, part: Tensor, ball: Ball) -> Iterator[Attacked]:
        """Attack some images, with a sign of life after each step."""
        pixels, labels = self._pixels[part], self.labels[part]
        if attack == "fgsm":
            yield fgsm(logits, pixels, labels, ball)
            return
        generator = self._context.seeds.generator(f"{attack} {ball.norm} {ball.budget:.6f}", int(part[0]))
        if attack == "square":
            yield from square(logits, pixels, labels, ball.budget, self._options.queries, generator)
            return
        steps, size = self._options.steps, 2.5 * ball.budget / self._options.steps
        examples, broken = pixels, torch.zeros_like(labels, dtype=torch.bool)
        for restart in range(1 + self._options.restarts):
            start = fgsm(logits, pixels, labels, ball).examples if not restart else at_random(pixels, ball, generator)
            for found in pgd(logits, pixels, labels, ball, steps, size, start):
                keep = broken.view(-1, 1, 1, 1)
                yield Attacked(torch.where(keep, examples, found.examples), broken | found.broken)
            examples, broken = torch.where(keep, examples, found.examples), broken | found.broken

    def _prepare(self, source: str, budget: int) -> Iterator[None]:
        """Train a network that examples are transferred from, if it is not yet, and make those of a budget for it."""
        if (source, budget) in self._examples:
            return
        network = yield from self._trained(source)
        logits = attacked(network, self._context.synthetic.preprocessing)
        made = []
        for part in torch.arange(len(self.labels), device=self.labels.device).split(self._batch):
            examples = self._pixels[part]
            for found in self._attack("pgd", logits, part, Ball("linf", budget / 255)):
                examples = found.examples
                yield
            made.append(examples)
        self._examples[source, budget] = torch.cat(made)

    def _trained(self, source: str) -> Generator[None, None, Network]:
        context = self._context
        if source not in self._sources_trained:
            network = networks.build(source, context.card).to(context.policy.device)
            seeds = context.seeds.child(f"transfer from {source}")
            teacher = None
            if context.protocol.labels == "teacher":
                teacher = load_teacher(context.synthetic, lambda name: networks.build(name, context.card))
                teacher = teacher.to(context.policy.device)
            for _ in train_together(
                [network], context.synthetic, context.protocol, [seeds], mirrors=context.card.mirrors, teacher=teacher
            ):
                yield
            self._sources_trained[source] = network
        return self._sources_trained[source]


def attacked(network: Network, preprocessing: Preprocessing) -> Logits:
    """A trained network as attacks see it: from pixels of 0…1, its weights fixed."""
    network.eval().requires_grad_(False)
    return lambda pixels: network(preprocessing.apply(255 * pixels))


def at_random(pixels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """A point in the ball around each image: uniform by L∞; by L2 in a direction and at a distance that are uniform."""
    noise = torch.rand(pixels.shape, generator=generator).to(pixels) * 2 - 1
    if ball.norm == "l2":
        directions = torch.randn(pixels.shape, generator=generator).to(pixels)
        directions /= directions.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-12)
        noise = directions * torch.rand((len(pixels), 1, 1, 1), generator=generator).to(pixels)
    return project(pixels + ball.budget * noise, pixels, ball)


def evenly(counts: Sequence[int], images: int) -> Tensor:
    """The places of that many images, the same share of each class, spread over it; all where there are no more."""
    total = sum(counts)
    places, before = [], 0
    for count in counts:
        # Shares are rounded so that they add up.
        first, last = (round(min(images, total) * n / total) for n in (before, before + count))
        some = max(last - first, min(1, count))
        places.append(before + torch.arange(some) * count // max(1, some))
        before += count
    return torch.cat(places)
