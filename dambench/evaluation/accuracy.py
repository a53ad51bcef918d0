"""Accuracy: train networks on a set, test them on the real test images. Several networks: cross-architecture."""

import time
from collections.abc import Iterator

import torch.nn.functional as F

from dambench import networks
from dambench.events import DataCard, Evaluated, Progressed, real
from dambench.precision import Policy
from dambench.problem import RealSet, Seeds, SyntheticSet
from dambench.protocol import Protocol
from dambench.train import predict, train


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
) -> Iterator[Progressed | Evaluated]:
    """Train `repeats` networks of each name on the set, one after another, and test each once, after its last epoch.

    Repeat r of a network has the same initial weights whatever set it is trained on, so two methods of one run
    seed are compared on the same networks.
    """
    testing = SyntheticSet(test.images, test.labels, data.normalisation, data.classes)
    for position, name in enumerate(network_names):
        for repeat in range(repeats):
            before = position * repeats + repeat
            note = f"{name} {before + 1}/{len(network_names) * repeats}"
            policy.restart_peak()
            policy.synchronise()
            began = time.perf_counter()
            network = networks.build(name, card).to(policy.device)
            own = seeds.child(f"evaluation of {name}", repeat)
            for done, total in train(network, data, protocol, own, mirrors=card.mirrors):
                yield Progressed(
                    phase="evaluate",
                    done=before * total + done,
                    total=len(network_names) * repeats * total,
                    note=note,
                )
            batch = policy.test_batch(card.height * card.width)
            logits = predict(network, testing, batch)
            loss = F.cross_entropy(logits, testing.labels).item()
            right = [int(part.sum()) for part in (logits.argmax(1) == testing.labels).split(list(test.counts))]
            recalls = [hits / count for hits, count in zip(right, test.counts, strict=True) if count]
            trained = predict(network, data, batch).argmax(1) == data.hard_labels
            yield Evaluated(
                iteration=iteration,
                final=final,
                set_sha256=set_sha256,
                network=name,
                protocol_sha256=protocol.sha256,
                repeat=repeat,
                accuracy=sum(right) / sum(test.counts),
                balanced_accuracy=sum(recalls) / len(recalls),
                loss=real(loss),
                train_accuracy=int(trained.sum()) / len(trained),
                seconds=time.perf_counter() - began,
                peak_memory_bytes=policy.peak_bytes(),
            )
