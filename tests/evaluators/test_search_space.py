"""The networks that are ranked."""

from collections import Counter

import pytest

from dambench import networks
from dambench.evaluators._search_space import convnets, random_search, stratified
from dambench.testing import data_card

CIFAR = data_card(channels=3, size=(32, 32))


def test_there_are_720_convnets_and_180_of_each_width() -> None:
    members = convnets()
    assert len(members) == len({member.name for member in members}) == 720
    assert Counter(member.width for member in members) == {32: 180, 64: 180, 128: 180, 256: 180}
    assert len(convnets(64)) == 360


def test_the_name_of_each_convnet_is_that_of_the_network_that_it_says() -> None:
    for member in convnets():
        assert networks.settle(member.name, CIFAR) == member.name
        options = networks.parse(member.name)[1]
        assert [getattr(options, axis) for axis in member._fields] == list(member)


@pytest.mark.parametrize(("width", "count"), [(64, 36), (256, 72)])
def test_in_a_sample_each_value_of_an_axis_is_about_as_frequent_as_any_other(width: int, count: int) -> None:
    members = convnets(width)
    sample = stratified(members, count, seed=1)
    assert len(set(sample)) == count
    for axis in zip(*sample, strict=True):
        frequencies = Counter(axis).values()
        assert max(frequencies) - min(frequencies) <= 2
    pairs = Counter((member.norm, member.pooling) for member in sample)
    assert max(pairs.values()) - min(pairs[pair] for pair in {(m.norm, m.pooling) for m in members}) <= 3


def test_a_larger_sample_holds_the_smaller_and_another_seed_draws_another() -> None:
    members = convnets(64)
    assert stratified(members, 72, 3)[:36] == stratified(members, 36, 3)
    assert set(stratified(members, 36, 4)) != set(stratified(members, 36, 3))
    assert stratified(members, 1000, 3) == members


def test_the_random_search_has_258_networks_and_draws_some_of_them() -> None:
    everything = random_search(1000, 0)
    assert len(set(everything)) == 6 + 36 + 216
    assert random_search(5, 0) == everything[:5]
    assert random_search(5, 1) != everything[:5]
    for name in everything:
        assert networks.build(name, CIFAR).classifier.out_features == len(CIFAR.classes)
