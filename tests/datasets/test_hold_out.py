"""Which images are held out for validation: the same everywhere, as many of each class, and never among the rest."""

import hashlib
from hashlib import blake2b

import numpy as np
import pytest
import torch

from dambench import datasets
from dambench.core.config import Choice, HeldOut
from dambench.core.errors import BadInput
from dambench.core.protocol import PRESETS, HoldOut
from dambench.datasets._hold_out import indices, of_each_class
from dambench.testing import data_card

RULE = HoldOut()
CPU = torch.device("cpu")


def test_of_cifar10_five_thousand_are_held_out_and_of_small_datasets_a_fifth_of_the_smallest_class() -> None:
    assert of_each_class([5000] * 10, RULE) == 500
    assert of_each_class([500] * 100, RULE) == 50
    assert of_each_class([5421, 6742, 5958], RULE) == 1084
    assert of_each_class([100, 10, 100], RULE) == 2
    assert of_each_class([5, 6], RULE) == 1


def test_those_with_the_smallest_digests_of_each_class_are_held_out() -> None:
    """Written out: what is drawn here is drawn on every machine, and in ten years."""
    held = indices([10, 20, 15], RULE)
    digests = [blake2b(f"hold-out 0 {place}".encode(), digest_size=16).hexdigest() for place in range(45)]
    expected = []
    for places in (range(10), range(10, 30), range(30, 45)):
        expected += sorted(sorted(places, key=lambda place: digests[place])[:2])
    assert held.tolist() == expected
    assert held.tolist() == [4, 9, 19, 21, 39, 41]
    assert indices([10, 20, 15], HoldOut(seed=1)).tolist() != expected
    assert datasets.hold_out(data_card((10, 20, 15)), RULE) == HeldOut(
        rule=RULE, of_each_class=2, sha256=hashlib.sha256(held.astype("<i8").tobytes()).hexdigest()
    )


def test_the_parts_of_a_dataset_are_its_training_set_and_nothing_twice() -> None:
    card = datasets.prepare(Choice("digits"), None)
    everything, test = datasets.open_sets(card, CPU)
    held_out = datasets.hold_out(card, RULE)
    parts = datasets.open_parts(card, CPU, held_out=held_out)
    validation = parts.validation
    assert validation is not None
    assert validation.counts == (26,) * 10
    assert held_out.of_each_class == 26
    assert parts.train.counts == tuple(count - 26 for count in card.train_counts)
    assert torch.equal(parts.test.images, test.images)
    places = torch.from_numpy(indices(card.train_counts, RULE))
    assert torch.equal(everything.images[places], validation.images)
    assert torch.equal(everything.labels[places], validation.labels)
    rest = np.setdiff1d(np.arange(len(everything.images)), places.numpy())
    assert torch.equal(everything.images[rest], parts.train.images)
    assert torch.equal(everything.labels[rest], parts.train.labels)
    assert parts.train.preprocessing == everything.preprocessing


def test_a_whitening_is_fitted_without_the_images_that_are_held_out_and_kept_apart() -> None:
    card = datasets.prepare(Choice("digits"), None)
    held_out = datasets.hold_out(card, RULE)
    without, whole = datasets.whitening(card, held_out=held_out), datasets.whitening(card)
    assert without.sha256 != whole.sha256
    parts = datasets.open_parts(card, CPU, "zca", held_out)
    assert parts.train.preprocessing == without == parts.test.preprocessing
    mean = parts.train.images.flatten(1).double().mean(0) / 255
    assert torch.allclose(without.mean.double(), mean, atol=1e-6)
    assert datasets.whitening(card) == whole


def test_a_class_that_is_too_small_is_named() -> None:
    with pytest.raises(
        BadInput, match=r"Class 'class 1' of made-up is too small to hold validation images out: it has 4"
    ):
        datasets.hold_out(data_card((5, 4, 6)), RULE)


def test_other_images_than_those_of_the_run_are_refused() -> None:
    card = datasets.prepare(Choice("digits"), None)
    other = HeldOut(rule=RULE, of_each_class=26, sha256="0" * 64)
    with pytest.raises(BadInput, match="holds other images of digits out"):
        datasets.open_parts(card, CPU, held_out=other)


def test_each_fair_protocol_is_another_one_with_a_hold_out() -> None:
    for name, base in (("fair", "dsa-dm"), ("fair-quick", "quick"), ("fair-brief", "brief")):
        assert PRESETS[name].hold_out == RULE
        assert PRESETS[base].hold_out is None
        assert PRESETS[name].sha256 != PRESETS[base].sha256
        assert PRESETS[name].synthetic == PRESETS[base].synthetic
