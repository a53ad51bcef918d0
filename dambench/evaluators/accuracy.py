"""Accuracy: train networks on a set, test them on the real test images. Several networks: cross-architecture."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from dambench import networks
from dambench.core.events import Adapted, DataCard, Evaluated, Progressed, Real, Warned, real
from dambench.core.protocol import Protocol
from dambench.training.policy import Policy
from dambench.training.problem import Network, RealSet, Seeds, SyntheticSet
from dambench.training.train import DEFAULT_LR, predict, train_together


def evaluate(
    data: SyntheticSet,
    set_sha256: str,
    test: RealSet,
    card: DataCard,
    *,
    iteration: int,
    final: bool,
    network_names: tuple[str, ...],
    repeats: int,
    protocol: Protocol,
    seeds: Seeds,
    policy: Policy,
    known: frozenset[tuple[str, int]] = frozenset(),
) -> Iterator[Progressed | Evaluated | Warned | Adapted]:
    """Train `repeats` networks of each name on the set, and test each once, after its last epoch.

    Repeat r of a network has the same initial weights whatever set it is trained on, so two methods of one run
    seed are compared on the same networks.

    A network whose outputs are not finite has diverged. It has no accuracy, not that of the class whose output comes
    first: a note says so, and nothing is said of its score.

    As many networks of one name as the policy's `stack` says are trained together: repeats 0 to stack - 1, then the
    next, the last ones fewer; half as many from where the GPU's memory was too small for them. Their seconds are
    shared out evenly, and the peak of memory is that of all of them.

    Args:
        known: names and repeats that were evaluated before. Nothing is said of them again; but where another one is to
            be trained together with them, they are too, so that its bits are those of a run never interrupted.
    """
    if final and not known and isinstance(protocol.lr, str) and data.lr is None:
        yield Warned(
            message=f"The set carries no learning rate, which {protocol.name} would train at: its networks are trained "
            f"at {DEFAULT_LR}."
        )
    everything = len(network_names) * repeats
    most = policy.stack
    for position, name in enumerate(network_names):
        first = 0
        while first < repeats:
            together = range(first, min(first + most, repeats))
            if all((name, repeat) in known for repeat in together):
                first = together.stop
                continue
            before = position * repeats + first
            last = f"–{before + len(together)}" if len(together) > 1 else ""
            note = f"{name} {before + 1}{last}/{everything}"
            policy.restart_peak()
            policy.synchronise()
            began = time.perf_counter()
            own = [seeds.child(f"evaluation of {name}", repeat) for repeat in together]
            warnings: list[str] = []
            scores: list[_Score | None] = []
            try:
                trained = [networks.build(name, card).to(policy.device) for _ in together]
                for done, total in train_together(
                    trained, data, protocol, own, mirrors=card.mirrors, said=warnings.append
                ):
                    yield Progressed(
                        phase="evaluate",
                        done=before * total + done * len(together),
                        total=everything * total,
                        note=note,
                    )
                batch = policy.test_batch(card.height * card.width)
                scores = [_score(network, data, test, batch) for network in trained]
            except torch.OutOfMemoryError as error:
                if len(together) == 1:
                    raise
                reason = str(error).partition("\n")[0]
            if not scores:
                # Outside of `except`: what the error keeps alive is freed first.
                trained = []
                torch.cuda.empty_cache()
                most = -(-len(together) // 2)
                yield Adapted(iteration=iteration, what="stack", value=most, reason=reason)
                continue
            first = together.stop
            for message in warnings:
                yield Warned(message=message)
            seconds, peak = (time.perf_counter() - began) / len(together), policy.peak_bytes()
            for repeat, score in zip(together, scores, strict=True):
                if (name, repeat) in known:
                    continue
                if score is None:
                    yield Warned(
                        message=f"{name} #{repeat} diverged when it was trained on the set of iteration {iteration}: "
                        "its outputs are no numbers, and it has no accuracy."
                    )
                    continue
                yield Evaluated(
                    iteration=iteration,
                    final=final,
                    set_sha256=set_sha256,
                    network=name,
                    protocol_sha256=protocol.sha256,
                    repeat=repeat,
                    accuracy=score.accuracy,
                    balanced_accuracy=score.balanced_accuracy,
                    loss=score.loss,
                    train_accuracy=score.train_accuracy,
                    seconds=seconds,
                    peak_memory_bytes=peak,
                )


class _Score(NamedTuple):
    accuracy: float
    balanced_accuracy: float
    loss: Real
    train_accuracy: float


def _score(network: Network, data: SyntheticSet, test: RealSet, batch: int) -> _Score | None:
    """Of a network that was trained on the set, tested in batches of that size; None: it has diverged."""
    testing = SyntheticSet(test.images, test.labels, data.normalisation, data.classes)
    logits, trained_on = predict(network, testing, batch), predict(network, data, batch)
    if not bool(logits.isfinite().all() & trained_on.isfinite().all()):
        return None
    right = [int(part.sum()) for part in (logits.argmax(1) == testing.labels).split(list(test.counts))]
    recalls = [hits / count for hits, count in zip(right, test.counts, strict=True) if count]
    known = trained_on.argmax(1) == data.hard_labels
    return _Score(
        accuracy=sum(right) / sum(test.counts),
        balanced_accuracy=sum(recalls) / len(recalls),
        loss=real(F.cross_entropy(logits, testing.labels).item()),
        train_accuracy=int(known.sum()) / len(known),
    )
