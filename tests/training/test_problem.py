import dataclasses
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from dambench.core.errors import BadInput
from dambench.testing import data_card, real_set, tiny_problem
from dambench.testing.problems import global_generator_untouched, global_seed
from dambench.training.problem import Normalisation, RealSet, Seeds, SyntheticSet, derived_seed
from tests.lab import generator, noise, synthetic_set

settled = settings(derandomize=True, deadline=None, database=None)

# Seeds.


def test_derived_seeds_stay_what_they_were_in_all_older_runs() -> None:
    assert derived_seed(0, "network", 1) == 1562088650686022691
    assert derived_seed(7, "real batch", 20000) == 2013475663122199772
    assert derived_seed(2**63 - 1, "subset") == 412893267466305516


@settled
@given(st.integers(0, 2**63 - 1), st.text(), st.lists(st.integers(0, 10**6), max_size=3))
def test_a_derived_seed_is_one_that_every_generator_takes(seed: int, purpose: str, indices: list[int]) -> None:
    derived = derived_seed(seed, purpose, *indices)
    assert 0 <= derived < 2**63
    assert derived == derived_seed(seed, purpose, *indices)
    torch.Generator().manual_seed(derived)


def test_other_words_give_unrelated_seeds() -> None:
    words: list[tuple[Any, ...]] = [
        (seed, purpose, *indices)
        for seed in range(10)
        for purpose in ("network", "real batch", "1", "")
        for indices in ((), (0,), (1,), (0, 0), (1, 0), (0, 1), (10,), (1, 1), (11,))
    ]
    seeds = [derived_seed(*each) for each in words]
    assert len(set(seeds)) == len(seeds)
    # Each of the 63 bits is set in half of them.
    for bit in range(63):
        share = sum(seed >> bit & 1 for seed in seeds) / len(seeds)
        assert 0.35 < share < 0.65


def test_generators_of_one_purpose_repeat_themselves_and_no_others() -> None:
    seeds = Seeds(3)
    draws = [torch.rand(4, generator=seeds.generator("order", 1)) for _ in range(2)]
    assert torch.equal(*draws)
    for other in (seeds.generator("order", 2), seeds.generator("weights", 1), Seeds(4).generator("order", 1)):
        assert not torch.equal(draws[0], torch.rand(4, generator=other))


def test_seeds_have_children_with_seeds_of_their_own() -> None:
    children = [Seeds(0).child("evaluation", repeat) for repeat in range(20)]
    assert children == [Seeds(0).child("evaluation", repeat) for repeat in range(20)]
    assert len({child.seed for child in [Seeds(0), *children]}) == 21


# Pixels.


def test_normalised_pixels_are_shares_of_white_without_mean_in_standard_deviations() -> None:
    normalisation = Normalisation((0.5, 0.25), (0.25, 0.5))
    pixels = torch.tensor([[[[0, 51, 255]], [[0, 51, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-2.0, -1.2, 2.0]], [[-0.5, -0.1, 1.5]]]])
    normalised = normalisation.apply(pixels)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, expected)


@settled
@given(st.floats(0, 1), st.floats(0.01, 1))
def test_every_pixel_comes_back_from_being_normalised(mean: float, std: float) -> None:
    normalisation = Normalisation((mean, 0.5, 0.1), (std, 0.25, 1.0))
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    again = normalisation.invert(normalisation.apply(pixels))
    assert again.dtype == torch.uint8
    assert torch.equal(again, pixels)


def test_pixels_out_of_range_become_black_or_white() -> None:
    normalisation = Normalisation((0.5,), (0.25,))
    assert normalisation.invert(torch.tensor([[[-9.0, 9.0]]])).tolist() == [[[0, 255]]]


# Real sets.


def set_of(*counts: int) -> RealSet:
    return real_set(data_card(counts, size=(2, 2)))


def test_labels_follow_the_counts() -> None:
    real = set_of(2, 1, 3)
    assert real.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert real.classes == 3


@settled
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 15), st.integers(0, 10**6))
def test_images_of_a_class_are_drawn_once_each_as_long_as_there_are_enough(
    counts: list[int], count: int, seed: int
) -> None:
    real = set_of(*counts)
    drawn = real.draw(count, generator(seed))
    assert drawn.shape == (len(counts), count)
    assert drawn.dtype == torch.int64
    for c, row in enumerate(drawn):
        assert real.labels[row].tolist() == [c] * count
        if count <= counts[c]:
            assert len(row.unique()) == count


def test_a_class_that_is_too_small_is_drawn_with_replacement_and_only_that() -> None:
    real = set_of(3, 40, 20)
    small = []
    for seed in range(400):
        drawn = real.draw(20, generator(seed))
        small += drawn[0].tolist()
        assert len(drawn[1].unique()) == 20
        assert drawn[2].sort().values.tolist() == list(range(43, 63))
    counts = Counter(small)
    assert sorted(counts) == [0, 1, 2]
    assert chisquare(list(counts.values())).pvalue > 0.01
    # With replacement: how often an image comes is binomial, not always nearly the same.
    first = [small[draw * 20 : draw * 20 + 20].count(0) for draw in range(400)]
    variance = torch.tensor(first, dtype=torch.float64).var().item()
    assert variance == pytest.approx(20 * 1 / 3 * 2 / 3, rel=0.25)


def test_every_image_of_a_class_is_drawn_equally_often() -> None:
    real = set_of(7, 5, 9)
    source = generator(0)
    seen = torch.stack([real.draw(3, source) for _ in range(3000)])
    for c, (size, start) in enumerate(((7, 0), (5, 7), (9, 12))):
        times = torch.bincount(seen[:, c].flatten() - start, minlength=size)
        # Without replacement the counts vary less than chance: the statistic is scaled by (size - 1) / (size - 3).
        statistic = chisquare(times.numpy()).statistic * (size - 1) / (size - 3)
        assert statistic < 25
        # Also in each place of the draw.
        for place in range(3):
            assert chisquare(torch.bincount(seen[:, c, place] - start, minlength=size).numpy()).pvalue > 1e-3


def test_every_pair_of_images_is_drawn_equally_often() -> None:
    source = generator(0)
    real = set_of(5)
    pairs = Counter(tuple(sorted(real.draw(2, source)[0].tolist())) for _ in range(2000))
    assert len(pairs) == 10
    assert chisquare(list(pairs.values())).pvalue > 0.01


def test_the_same_generator_draws_the_same_images() -> None:
    real = set_of(7, 5, 9)
    assert torch.equal(real.draw(4, generator(5)), real.draw(4, generator(5)))
    assert not torch.equal(real.draw(4, generator(5)), real.draw(4, generator(6)))


def test_a_sample_is_what_was_drawn_normalised() -> None:
    real = set_of(7, 5, 9)
    sample = real.sample(4, generator(5))
    assert sample.shape == (3, 4, 1, 2, 2)
    assert torch.equal(sample, real.preprocessing.apply(real.images)[real.draw(4, generator(5))])


# Synthetic sets.


def a_set(dtype: torch.dtype, *, soft: bool, lr: float | None = None) -> SyntheticSet:
    images = noise(6, 3, 4, 5, dtype=torch.float32)
    if dtype == torch.uint8:
        images = torch.randint(256, (6, 3, 4, 5), dtype=torch.uint8, generator=generator())
    labels = noise(6, 3, dtype=torch.float32) if soft else torch.tensor([0, 0, 1, 1, 2, 2])
    return synthetic_set(images, labels, 3, lr=lr)


KINDS = [(dtype, soft) for dtype in (torch.uint8, torch.float32) for soft in (False, True)]


@pytest.mark.parametrize(("dtype", "soft"), KINDS)
@pytest.mark.parametrize("lr", [None, 0.0123])
def test_a_set_is_read_as_it_was_written(tmp_path: Path, dtype: torch.dtype, soft: bool, lr: float | None) -> None:
    path = tmp_path / "set.safetensors"
    written = a_set(dtype, soft=soft, lr=lr)
    path.write_bytes(written.to_bytes())
    again = SyntheticSet.read(path)
    for name in ("images", "labels"):
        before, after = getattr(written, name), getattr(again, name)
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
    assert again.preprocessing == written.preprocessing
    assert again.classes == written.classes
    assert again.lr == lr


@pytest.mark.parametrize(("dtype", "soft"), KINDS)
def test_the_same_set_gives_the_same_bytes(tmp_path: Path, dtype: torch.dtype, soft: bool) -> None:
    written = a_set(dtype, soft=soft, lr=0.5)
    contents = {written.to_bytes() for _ in range(20)} | {a_set(dtype, soft=soft, lr=0.5).to_bytes()}
    assert len(contents) == 1
    path = tmp_path / "set.safetensors"
    path.write_bytes(written.to_bytes())
    assert SyntheticSet.read(path).to_bytes() == path.read_bytes()


def test_a_set_that_is_being_learned_or_lies_scattered_gives_the_same_bytes() -> None:
    written = a_set(torch.float32, soft=True)
    scattered = dataclasses.replace(
        written,
        images=written.images.mT.contiguous().mT.requires_grad_(),
        labels=written.labels.T.contiguous().T,
    )
    assert scattered.to_bytes() == written.to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"images": noise(6, 3, 4, 5, seed=1, dtype=torch.float32)},
        {"labels": torch.tensor([0, 0, 1, 1, 2, 1])},
        {"lr": 0.1},
        {"classes": ("a", "b", "c")},
        {"preprocessing": Normalisation((0.5, 0.5, 0.4), (0.25, 0.25, 0.25))},
    ],
)
def test_another_set_gives_other_bytes(change: dict[str, Any]) -> None:
    written = a_set(torch.float32, soft=False)
    assert dataclasses.replace(written, **change).to_bytes() != written.to_bytes()


def file_saying(text: str | None) -> bytes:
    tensors = {"images": torch.zeros(1, 1, 2, 2), "labels": torch.zeros(1, dtype=torch.int64)}
    return safetensors.torch.save(tensors, {"dambench": text} if text is not None else None)


GOOD = json.dumps({"format": 1, "mean": [0.5], "std": [0.25], "classes": ["a"], "lr": None})


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 some archive", id="foreign"),
        pytest.param(b"\xff" * 100, id="noise"),
        pytest.param(file_saying(None), id="tensors without a word"),
        pytest.param(file_saying("no json"), id="no json"),
        pytest.param(file_saying("[1]"), id="a list"),
        pytest.param(file_saying("1"), id="a number"),
        pytest.param(file_saying("{}"), id="nothing said"),
        pytest.param(file_saying(GOOD.replace("[0.5]", "0.5")), id="a number for a list"),
        pytest.param(file_saying(GOOD.replace('"std"', '"sdt"')), id="another key"),
        pytest.param(safetensors.torch.save({"images": torch.zeros(1)}, {"dambench": GOOD}), id="without labels"),
        pytest.param(file_saying(GOOD)[:-4], id="cut off"),
        pytest.param(file_saying(GOOD)[:40], id="cut off in the header"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"mine\.bin' is not a synthetic set of dambench"):
        SyntheticSet.read(path)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("its images are torch.float64", {"images": torch.zeros(1, 1, 2, 2, dtype=torch.float64)}),
        ("its images are torch.float32 of shape", {"images": torch.zeros(1, 2, 2)}),
        ("its labels are torch.int64 of shape", {"labels": torch.zeros(2, dtype=torch.int64)}),
        ("its labels are torch.int32", {"labels": torch.zeros(1, dtype=torch.int32)}),
        ("its labels are torch.float32 of shape", {"labels": torch.zeros(1, 2)}),
        ("not all of its values are finite", {"images": torch.full((1, 1, 2, 2), torch.nan)}),
        ("not all of its values are finite", {"labels": torch.full((1, 1), torch.inf)}),
        ("labels that are none of its 1 classes", {"labels": torch.ones(1, dtype=torch.int64)}),
        ("labels that are none of its 1 classes", {"labels": -torch.ones(1, dtype=torch.int64)}),
        ("another number of means", {"mean": [0.5, 0.5]}),
        ("none of pixels from 0 to 1", {"std": [0.0]}),
        ("none of pixels from 0 to 1", {"std": [math.nan]}),
        ("no sensible number", {"lr": math.inf}),
        ("Expected `str`", {"classes": [1]}),
    ],
)
def test_a_set_that_cannot_be_is_refused_with_the_reason(tmp_path: Path, said: str, change: dict[str, Any]) -> None:
    tensors = {"images": torch.zeros(1, 1, 2, 2), "labels": torch.zeros(1, dtype=torch.int64)}
    about = json.loads(GOOD) | change
    tensors = {name: about.pop(name, tensor) for name, tensor in tensors.items()}
    (tmp_path / "mine.bin").write_bytes(safetensors.torch.save(tensors, {"dambench": json.dumps(about)}))
    with pytest.raises(BadInput, match="is not a synthetic set of dambench") as error:
        SyntheticSet.read(tmp_path / "mine.bin")
    assert said in str(error.value)


def test_a_pipe_or_a_huge_header_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes((10**8).to_bytes(8, "little") + bytes(10**6))
    for name in ("pipe", "huge"):
        with pytest.raises(BadInput, match="is not a synthetic set of dambench"):
            SyntheticSet.read(tmp_path / name)


def test_the_file_that_the_damaged_ones_are_made_of_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(file_saying(GOOD))
    assert SyntheticSet.read(path).classes == ("a",)


@pytest.mark.parametrize("name", ["nowhere.safetensors", ""])
def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="is not a synthetic set"):
        SyntheticSet.read(tmp_path / name)


def test_a_set_of_a_newer_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(file_saying(GOOD.replace('"format": 1', '"format": 9')))
    with pytest.raises(BadInput, match="has format 9: a newer dambench"):
        SyntheticSet.read(path)


def test_pixels_are_normalised_for_networks_and_floats_are_given_as_they_are() -> None:
    chosen = torch.tensor([3, 0])
    floats, pixels = a_set(torch.float32, soft=False), a_set(torch.uint8, soft=False)
    assert torch.equal(floats.inputs(chosen), floats.images[[3, 0]])
    torch.testing.assert_close(pixels.inputs(chosen), (pixels.images[[3, 0]].float() / 255 - 0.5) / 0.25)


def test_the_hard_label_is_the_class_of_the_largest_logit() -> None:
    assert a_set(torch.uint8, soft=False).hard_labels.tolist() == [0, 0, 1, 1, 2, 2]
    soft = dataclasses.replace(
        a_set(torch.uint8, soft=False), labels=torch.tensor([[-3.0, -1.0, -2.0], [5.0, 4.0, 1.0]])
    )
    assert soft.hard_labels.tolist() == [1, 0]


# Problems.


def test_the_random_subset_holds_ipc_different_images_of_each_class_in_order() -> None:
    problem = tiny_problem(ipc=4)
    subset = problem.random_subset()
    assert subset.shape == (12, 1, 8, 8)
    assert subset.dtype == torch.uint8
    matches = (subset.unsqueeze(1) == problem.real.images).flatten(2).all(2)
    assert matches.sum(1).tolist() == [1] * 12
    chosen = matches.float().argmax(1)
    assert len(chosen.unique()) == 12
    assert problem.real.labels[chosen].tolist() == problem.labels().tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_random_subset_depends_on_the_seed_and_on_nothing_else() -> None:
    problem = tiny_problem(seed=1)
    first = problem.random_subset()
    problem.new_network(3)
    problem.real.sample(2, problem.generator("real batch", 1))
    assert torch.equal(problem.random_subset(), first)
    assert torch.equal(tiny_problem(seed=1, network="convnet-d1-w4-bn").random_subset(), first)
    assert not torch.equal(tiny_problem(seed=2).random_subset(), first)


def test_a_new_network_depends_on_seed_and_iteration_not_on_those_before() -> None:
    problem = tiny_problem(seed=1, network="convnet-d1-w8-bn")
    images = noise(5, 1, 8, 8, dtype=torch.float32)

    def logits(iteration: int) -> torch.Tensor:
        given: torch.Tensor = problem.new_network(iteration)(images)
        return given

    third = logits(3)
    assert not torch.equal(logits(4), third)
    assert torch.equal(logits(3), third)
    with global_seed(99):
        assert torch.equal(tiny_problem(seed=1, network="convnet-d1-w8-bn").new_network(3)(images), third)
    assert not torch.equal(tiny_problem(seed=2, network="convnet-d1-w8-bn").new_network(3)(images), third)


def test_a_new_network_is_frozen_and_in_train_mode() -> None:
    problem = tiny_problem()
    for iteration in range(3):
        network = problem.new_network(iteration)
        assert network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        network.eval()


def test_a_problem_leaves_torch_s_global_generator_alone() -> None:
    problem = tiny_problem()
    with global_generator_untouched():
        problem.random_subset()
        problem.real.sample(3, problem.generator("real batch", 1))
        problem.new_network(1)


def test_the_set_of_a_problem_explains_itself() -> None:
    problem = tiny_problem(ipc=2)
    images = noise(6, 1, 8, 8, dtype=torch.float32)
    given_set = problem.synthetic_set(images)
    assert given_set.images is images
    assert given_set.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert given_set.classes == ("class 0", "class 1", "class 2")
    assert given_set.preprocessing == problem.real.preprocessing
    assert (given_set.lr, given_set.whole) == (None, False)
    soft = noise(6, 3, dtype=torch.float32)
    assert problem.synthetic_set(images, soft).labels is soft
