"""The promises of all datasets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dambench import datasets, networks
from dambench.core.config import Choice, read
from dambench.core.contracts import Dataset
from dambench.core.events import DataCard
from dambench.testing.promises import broken_promises, hold, own_home, refuse


def check_dataset(name: str, data: Path | None = None, options: Mapping[str, Any] | None = None) -> None:
    """Check that a dataset keeps every promise.

    Args:
        data: where its raw data are.

    Raises:
        AssertionError: it does not; a sentence for each promise.
    """
    with own_home():
        refuse(
            broken_promises(
                "datasets", name, DATASET_PROMISES, lambda plugin: DatasetTrial(plugin, data, options or {})
            )
        )


@dataclass(frozen=True)
class DatasetTrial:
    """A dataset, and where its raw data are."""

    dataset: Dataset
    data: Path | None = None
    options: Mapping[str, Any] | None = None

    def prepare(self, say: Callable[[str], None] = lambda text: None) -> DataCard:
        return datasets.prepare(Choice(self.dataset.name, dict(self.options or {})), self.data, say)


def what_is_prepared_is_what_the_module_reads(trial: DatasetTrial) -> None:
    raw = trial.dataset.load(read(trial.dataset.Options, trial.options or {}, "the options"), trial.data)
    card = trial.prepare()
    for part, images, labels in zip(
        datasets.open_sets(card, torch.device("cpu")),
        (raw.train_images, raw.test_images),
        (raw.train_labels, raw.test_labels),
        strict=True,
    ):
        hold(part.labels.tolist() == sorted(labels.tolist()), "Its labels are not those that were prepared.")
        hold(part.images.dtype == torch.uint8, f"Its prepared images are {part.images.dtype}, not uint8.")
        hold(part.images.shape == images.shape, f"Its images are {images.shape}, prepared {tuple(part.images.shape)}.")
        for label in range(len(raw.classes)):
            same = np.array_equal(part.images[part.labels == label].numpy(), images[labels == label])
            hold(same, f"Its images of class {label} are not the bytes that were prepared: are they uint8?")


def it_is_prepared_once_and_the_same_each_time(trial: DatasetTrial) -> None:
    messages: list[str] = []
    first = trial.prepare(messages.append)
    again = trial.prepare(messages.append)
    hold(len(messages) <= 1, "It is prepared each time: its fingerprint is not the same for the same data.")
    with own_home():
        elsewhere = trial.prepare()
    hold(first == again == elsewhere, "Prepared twice, it is not the same: do its images come in a random order?")


def its_network_suits_it(trial: DatasetTrial) -> None:
    card = trial.prepare()
    network = networks.build(networks.settle(trial.dataset.NETWORK, card), card)
    logits = network(torch.zeros(2, card.channels, card.height, card.width))
    hold(logits.shape == (2, len(card.classes)), f"Its NETWORK gives {tuple(logits.shape)} for two of its images.")


DATASET_PROMISES: tuple[Callable[[DatasetTrial], None], ...] = (
    what_is_prepared_is_what_the_module_reads,
    it_is_prepared_once_and_the_same_each_time,
    its_network_suits_it,
)
