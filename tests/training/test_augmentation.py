import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare, kstest
from torch import Tensor

from dambench.core.protocol import DC, DSA
from dambench.testing.problems import global_generator_untouched
from dambench.training import augmentation as dsa
from dambench.training.augmentation import OPERATIONS, Draw, augment, augment_by, draw, parameters, strategy_for
from tests.lab import generator, literal_operation, literally_augmented, noise, spread

EXACT = ("crop", "cutout", "flip")
SIZES = [(8, 8), (7, 10), (20, 28)]
Form = Callable[[Tensor, Draw], Tensor]
ALMOST_ONE = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()


def one(operation: str, groups: int, seed: int = 0) -> Draw:
    """A draw of that operation for each group, with parameters of its own for each."""
    return draw((operation,), groups, generator(seed))


def tabled(images: Tensor, drawn: Draw, colour: Tensor | None = None) -> Tensor:
    """The form that a GPU takes."""
    return augment_by(images, parameters(drawn, images.shape[-2], images.shape[-1]), colour)


both_forms = pytest.mark.parametrize("form", [augment, tabled])


def coordinates(groups: int, height: int, width: int) -> Tensor:
    """(groups, 1, 2, H, W): each pixel knows its row and its column, counted from 1."""
    rows = torch.arange(1.0, height + 1).view(-1, 1).expand(height, width)
    columns = torch.arange(1.0, width + 1).expand(height, width)
    return torch.stack([rows, columns]).expand(groups, 1, 2, height, width)


# Each operation, against a transcription that takes one image at a time.


@both_forms
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", DSA)
def test_an_operation_is_what_the_paper_s_code_does_image_by_image(
    operation: str, channels: int, size: tuple[int, int], form: Form
) -> None:
    images = noise(6, 2, channels, *size)
    drawn = one(operation, 6, seed=channels)
    expected = literally_augmented(images, drawn)
    # The parameters are float32 numbers, whatever the images are.
    exact = 0 if form is augment else 1e-12
    torch.testing.assert_close(form(images, drawn), expected, rtol=0, atol=exact if operation in EXACT else 2e-5)


@both_forms
@pytest.mark.parametrize("operation", DSA)
@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 0.75, ALMOST_ONE])
def test_an_operation_is_right_at_the_ends_of_its_range(operation: str, u: float, form: Form) -> None:
    images = noise(3, 1, 3, 12, 8)
    uniforms = torch.tensor([[u, 0.3, 0.6], [0.3, u, 0.6], [0.3, 0.6, u]])
    drawn = Draw((operation,), torch.zeros(3, dtype=torch.int64), uniforms)
    torch.testing.assert_close(form(images, drawn), literally_augmented(images, drawn), rtol=0, atol=2e-5)


@both_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("operation", DSA)
def test_an_operation_keeps_shape_and_precision(operation: str, dtype: torch.dtype, form: Form) -> None:
    images = noise(4, 3, 2, 9, 11, dtype=dtype)
    changed = form(images, one(operation, 4))
    assert (changed.shape, changed.dtype) == (images.shape, dtype)
    expected = literally_augmented(images.double(), one(operation, 4))
    torch.testing.assert_close(changed.double(), expected, rtol=0, atol=2e-5)


@both_forms
@pytest.mark.parametrize("operation", DSA)
def test_an_operation_leaves_its_input_alone(operation: str, form: Form) -> None:
    images = noise(4, 2, 3, 8, 8)
    before = images.clone()
    form(images, one(operation, 4))
    assert torch.equal(images, before)


@both_forms
@pytest.mark.parametrize("operation", DSA)
def test_the_gradient_of_an_operation_is_right(operation: str, form: Form) -> None:
    images = noise(3, 1, 2, 6, 5).requires_grad_()
    drawn = one(operation, 3, seed=4)
    assert torch.autograd.gradcheck(lambda x: form(x, drawn), images)


@both_forms
def test_the_gradient_of_mixed_operations_is_right(form: Form) -> None:
    images = noise(6, 1, 1, 5, 6).requires_grad_()
    drawn = Draw(DSA, torch.tensor([3, 0, 5, 1, 4, 2]), torch.rand(6, 3, generator=generator()))
    assert torch.autograd.gradcheck(lambda x: form(x, drawn), images)


# What each operation's parameters are.


def test_brightness_shifts_by_up_to_a_half() -> None:
    uniforms = torch.full((3, 3), 0.5)
    uniforms[:, 0] = torch.tensor([0.0, 0.5, 1.0])
    shifted = dsa.color(torch.zeros(3, 1, 3, 2, 2), uniforms)
    assert torch.equal(shifted.amin((1, 2, 3, 4)), torch.tensor([-0.5, 0.0, 0.5]))
    assert torch.equal(shifted.amax((1, 2, 3, 4)), torch.tensor([-0.5, 0.0, 0.5]))


def test_saturation_multiplies_the_distance_from_grey_by_up_to_two() -> None:
    colours = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 3, 1, 1).expand(3, 1, 3, 2, 2)
    uniforms = torch.full((3, 3), 0.5)
    uniforms[:, 1] = torch.tensor([0.0, 0.5, 1.0])
    factors = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1, 1)
    torch.testing.assert_close(dsa.color(colours, uniforms), colours * factors)


def test_contrast_multiplies_the_distance_from_the_image_s_mean_by_a_half_to_one_and_a_half() -> None:
    image = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).view(1, 1, 1, 2, 2).expand(3, 1, 1, 2, 2)
    uniforms = torch.full((3, 3), 0.5)
    uniforms[:, 2] = torch.tensor([0.0, 0.5, 1.0])
    factors = torch.tensor([0.5, 1.0, 1.5]).view(3, 1, 1, 1, 1)
    torch.testing.assert_close(dsa.color(image, uniforms), (image - 4) * factors + 4)


def test_contrast_is_about_the_mean_of_each_image_not_of_the_group() -> None:
    images = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 9.0)]).unsqueeze(0)
    uniforms = torch.tensor([[0.5, 0.5, 1.0]])
    torch.testing.assert_close(dsa.color(images, uniforms), images)


def test_saturation_changes_nothing_in_images_of_one_channel() -> None:
    images = noise(5, 2, 1, 6, 6)
    uniforms = torch.full((5, 3), 0.5)
    uniforms[:, 1] = spread(5)
    torch.testing.assert_close(dsa.color(images, uniforms), images)
    colourful = noise(5, 2, 3, 6, 6)
    assert (dsa.color(colourful, uniforms) - colourful).abs().max() > 0.1


@pytest.mark.parametrize(("size", "most"), [(28, 4), (32, 4), (64, 8), (8, 1), (20, 3)])
def test_crop_shifts_rows_and_columns_by_each_offset_equally_often(size: int, most: int) -> None:
    offsets = range(-most, most + 1)
    u = spread(10 * len(offsets))
    for axis in (0, 1):
        uniforms = torch.full((len(u), 3), 0.5)
        uniforms[:, axis] = u
        centre = size // 2
        seen = dsa.crop(coordinates(len(u), size, size), uniforms)[:, 0, :, centre, centre] - (centre + 1)
        values, counts = seen[:, axis].unique(return_counts=True)
        assert values.tolist() == list(offsets)
        assert counts.tolist() == [10] * len(offsets)
        assert seen[:, 1 - axis].unique().tolist() == [0]


def test_crop_fills_with_zeros_what_comes_from_outside() -> None:
    corner = dsa.crop(torch.ones(1, 1, 1, 32, 32), torch.zeros(1, 3))[0, 0, 0]
    expected = torch.ones(32, 32)
    expected[:4] = 0
    expected[:, :4] = 0
    assert torch.equal(corner, expected)


@pytest.mark.parametrize(("size", "side", "offsets"), [(32, 16, 33), (28, 14, 29), (30, 15, 30), (5, 3, 5), (8, 4, 9)])
def test_cutout_centres_its_square_on_each_offset_equally_often(size: int, side: int, offsets: int) -> None:
    u = spread(10 * offsets)
    for axis in (0, 1):
        uniforms = torch.full((len(u), 3), 0.5)
        uniforms[:, axis] = u
        hole = dsa.cutout(torch.ones(len(u), 1, 1, size, size), uniforms)[:, 0, 0] == 0
        removed = hole.any(2 - axis)
        expected = torch.zeros(offsets, size, dtype=torch.bool)
        for offset in range(offsets):
            expected[offset, max(0, offset - side // 2) : max(0, offset - side // 2 + side)] = True
        assert torch.equal(removed, expected.repeat_interleave(10, 0))
        across = hole.any(1 + axis)
        assert across.sum(1).unique().tolist() == [side]


def test_cutout_removes_at_most_a_quarter_of_the_image() -> None:
    drawn = one("cutout", 2000)
    removed = (augment(torch.ones(2000, 1, 1, 32, 32), drawn) == 0).sum((1, 2, 3, 4))
    assert int(removed.max()) == 16 * 16
    assert int(removed.min()) < 12 * 12


def test_cutout_blanks_all_channels_at_the_same_place() -> None:
    holes = augment(torch.ones(20, 2, 3, 8, 8), one("cutout", 20)) == 0
    assert torch.equal(holes, holes[:, :1, :1].expand_as(holes))


def test_flip_mirrors_the_columns_of_half_of_the_images() -> None:
    images = coordinates(1000, 3, 4)
    uniforms = torch.zeros(1000, 3)
    uniforms[:, 0] = spread(1000)
    flipped = dsa.flip(images, uniforms)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    unchanged = (flipped == images).flatten(1).all(1)
    assert (int(mirrored.sum()), int(unchanged.sum())) == (500, 500)


@pytest.mark.parametrize(("u", "factor"), [(0.0, 1 / 1.2), (0.5, (1.2 + 1 / 1.2) / 2), (1.0, 1.2)])
def test_scale_reads_from_a_fifth_further_out_to_a_sixth_further_in(u: float, factor: float) -> None:
    # Both coordinates are linear, so that interpolation reads them exactly. First number: width.
    seen = dsa.scale(coordinates(1, 30, 40), torch.tensor([[u, 1 - u, 0.0]]))[0, 0]
    rows, columns = torch.arange(10.0, 20), torch.arange(15.0, 25)
    other = 1 / 1.2 + 1.2 - factor
    torch.testing.assert_close(seen[0, 10:20, 20], (rows - 14.5) * other + 14.5 + 1, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[1, 15, 15:25], (columns - 19.5) * factor + 19.5 + 1, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("u", "degrees"), [(0.0, -15.0), (0.5, 0.0), (0.75, 7.5), (1.0, 15.0)])
def test_rotate_turns_about_the_centre_by_up_to_fifteen_degrees(u: float, degrees: float) -> None:
    side = 33
    seen = dsa.rotate(coordinates(1, side, side), torch.tensor([[u, 0.0, 0.0]]))[0, 0] - (side + 1) / 2
    assert seen[:, side // 2, side // 2].abs().max() < 1e-4
    down, across = seen[:, side // 2, side // 2 + 10]
    assert torch.hypot(down, across).item() == pytest.approx(10, abs=1e-3)
    assert torch.atan2(-down, across).rad2deg().item() == pytest.approx(degrees, abs=1e-2)


def test_rotating_a_mirrored_image_the_other_way_mirrors_the_rotated_image() -> None:
    images = noise(1, 1, 3, 12, 12)
    there = dsa.rotate(images, torch.tensor([[0.125, 0.0, 0.0]]))
    back = dsa.rotate(images.flip(-1), torch.tensor([[0.875, 0.0, 0.0]])).flip(-1)
    torch.testing.assert_close(there, back, rtol=0, atol=1e-5)


# What is drawn.


def test_operations_are_drawn_equally_often() -> None:
    counts = torch.bincount(draw(DSA, 12_000, generator()).choice, minlength=len(DSA))
    assert counts.sum() == 12_000
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_the_one_operation_of_a_batch_is_drawn_equally_often() -> None:
    source = generator(1)
    choices = [int(draw(DSA, 2, source, one_operation=True).choice[0]) for _ in range(3000)]
    assert chisquare(torch.bincount(torch.tensor(choices), minlength=len(DSA)).numpy()).pvalue > 0.01


def test_parameters_are_uniform_and_independent_of_each_other() -> None:
    uniforms = draw(DSA, 20_000, generator(2)).uniforms
    assert uniforms.shape == (20_000, 3)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    for column in uniforms.unbind(1):
        assert kstest(column.numpy(), "uniform").pvalue > 0.01
    correlation = torch.corrcoef(uniforms.T) - torch.eye(3)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize("operation", ["crop", "cutout"])
def test_rows_and_columns_are_shifted_independently(operation: str) -> None:
    images = augment(coordinates(9 * 9 * 40, 16, 16), one(operation, 9 * 9 * 40))
    if operation == "crop":
        rows, columns = images[:, 0, :, 8, 8].sub(9).add(2).long().unbind(1)
        kinds = 5
    else:
        hole = images[:, 0, 0] == 0
        rows, columns = hole.any(2).float().argmax(1), hole.any(1).float().argmax(1)
        # Squares that hang over the upper border all begin in row 0.
        inside = (rows > 0) & (columns > 0)
        rows, columns, kinds = rows[inside] - 1, columns[inside] - 1, 12
    together = torch.bincount(rows * kinds + columns, minlength=kinds * kinds)
    assert len(together) == kinds * kinds
    assert chisquare(together.numpy()).pvalue > 0.01


@pytest.mark.parametrize("one_operation", [False, True])
def test_the_same_generator_seed_gives_the_same_draw(one_operation: bool) -> None:
    first, again, other = (draw(DSA, 50, generator(seed), one_operation=one_operation) for seed in (3, 3, 4))
    assert first.strategy == again.strategy == DSA
    assert torch.equal(first.choice, again.choice)
    assert torch.equal(first.uniforms, again.uniforms)
    assert not torch.equal(first.uniforms, other.uniforms)


def test_siamese_groups_have_operations_of_their_own() -> None:
    drawn = draw(DSA, 50, generator())
    assert drawn.choice.unique().tolist() == list(range(len(DSA)))
    assert len(drawn.uniforms.unique(dim=0)) == 50


def test_a_batch_in_training_has_one_operation_with_parameters_of_its_own_for_each_image() -> None:
    drawn = draw(DSA, 50, generator(), one_operation=True)
    assert drawn.choice.shape == (50,)
    assert len(drawn.choice.unique()) == 1
    assert len(drawn.uniforms.unique(dim=0)) == 50
    image = noise(1, 1, 3, 16, 16)
    changed = augment(image.expand(50, 1, 3, 16, 16), Draw(("rotate",), torch.zeros(50).long(), drawn.uniforms))
    assert len(changed.flatten(1).unique(dim=0)) == 50


def test_nothing_touches_torch_s_global_generator() -> None:
    with global_generator_untouched():
        for one_operation in (False, True):
            augment(noise(60, 2, 3, 8, 8), draw(DSA, 60, generator(), one_operation=one_operation))


@pytest.mark.parametrize(
    ("mirrors", "expected"), [(True, DSA), (False, ("color", "crop", "cutout", "scale", "rotate"))]
)
def test_flip_is_left_out_where_a_mirror_image_is_another_class(mirrors: bool, expected: tuple[str, ...]) -> None:
    assert strategy_for(DSA, mirrors) == expected


def test_a_strategy_keeps_its_order() -> None:
    assert strategy_for(("rotate", "flip", "color"), True) == ("rotate", "flip", "color")
    assert strategy_for(("rotate", "flip", "color"), False) == ("rotate", "color")
    assert strategy_for(("flip",), False) == ()


def test_every_operation_of_the_published_strategy_is_there() -> None:
    assert set(OPERATIONS) == {*DSA, *DC}


# Groups.


@pytest.mark.parametrize("operation", DSA)
def test_equal_images_of_the_real_and_the_synthetic_batch_stay_equal(operation: str) -> None:
    real = noise(4, 5, 3, 8, 8)
    synthetic = torch.stack([real[:, 3], real[:, 0]], 1)
    drawn = one(operation, 4)
    changed_real, changed_synthetic = augment(real, drawn), augment(synthetic, drawn)
    torch.testing.assert_close(changed_synthetic[:, 0], changed_real[:, 3], rtol=0, atol=1e-12)
    torch.testing.assert_close(changed_synthetic[:, 1], changed_real[:, 0], rtol=0, atol=1e-12)


def test_all_images_of_a_class_get_the_same_operation_with_the_same_parameters() -> None:
    image = noise(1, 1, 3, 8, 8)
    drawn = draw(DSA, 40, generator())
    changed = augment(image.expand(40, 3, 3, 8, 8), drawn)
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), rtol=0, atol=1e-12)
    # … and another class another one. (Where nothing is flipped, the image stays as it is.)
    assert len(changed[:, 0].flatten(1).unique(dim=0)) > 30


@both_forms
@pytest.mark.parametrize("seed", range(5))
def test_groups_of_different_operations_come_back_in_their_order(seed: int, form: Form) -> None:
    drawn = draw(DSA, 25, generator(seed))
    images = noise(25, 2, 2, 8, 6, seed=seed)
    torch.testing.assert_close(form(images, drawn), literally_augmented(images, drawn), rtol=0, atol=2e-5)


def test_an_operation_that_nobody_drew_changes_nothing() -> None:
    images = noise(4, 1, 3, 8, 8)
    uniforms = torch.rand(4, 3, generator=generator())
    drawn = Draw(DSA, torch.tensor([2, 3, 3, 2]), uniforms)
    alone = [literal_operation(DSA[c], images[g, 0], uniforms[g].tolist()) for g, c in enumerate([2, 3, 3, 2])]
    assert torch.equal(augment(images, drawn)[:, 0], torch.stack(alone))


# The product that stands in for grid_sample where that has no deterministic backward.


@pytest.mark.parametrize("size", [(8, 8), (6, 9), (9, 6), (1, 5)])
def test_sampling_by_a_matrix_is_grid_sample(size: tuple[int, int]) -> None:
    grid = torch.rand(3, *size, 2, generator=generator(), dtype=torch.float64) * 2.8 - 1.4
    weights = noise(3, 2, 4, *size, seed=1)

    def value_and_gradient(sample: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        images = noise(3, 2, 4, *size).requires_grad_()
        sampled = sample(images)
        (gradient,) = torch.autograd.grad((sampled * weights).sum(), images)
        return sampled, gradient

    def by_grid(images: Tensor) -> Tensor:
        return torch.stack(
            [
                F.grid_sample(group, grid[g : g + 1].expand(2, *size, 2), align_corners=False)
                for g, group in enumerate(images)
            ]
        )

    torch.testing.assert_close(
        value_and_gradient(lambda images: dsa._sample_by_matrix(images, grid)), value_and_gradient(by_grid)
    )


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_warp_by_matrices_in_parts_is_the_same(requires_grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    images, drawn = noise(9, 2, 3, 8, 7).requires_grad_(requires_grad), draw(DSA, 9, generator(1))
    expected = tabled(images, drawn)
    parts: list[int] = []
    by_matrix = dsa._sample_by_matrix

    def counted(part: Tensor, grid: Tensor) -> Tensor:
        parts.append(len(part))
        return by_matrix(part, grid)

    monkeypatch.setattr(dsa, "_sample_by_matrix", counted)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(dsa, "MATRIX_ELEMENTS", 4 * (2 * 56) * 64)
    torch.testing.assert_close(tabled(images, drawn), expected, atol=1e-12, rtol=0)
    # Without a backward pass, grid_sample is as deterministic as a product.
    assert parts == ([4, 4, 1] if requires_grad else [])


# The form that a GPU takes: all images go through the same work.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (32, 32), (33, 21), (1, 5)])
def test_both_forms_give_the_same_images_and_gradients_in_single_precision(
    size: tuple[int, int], channels: int
) -> None:
    images = noise(120, 2, channels, *size, dtype=torch.float32).requires_grad_()
    weights = noise(120, 2, channels, *size, seed=1, dtype=torch.float32)
    drawn = draw(DSA, 120, generator(2))
    results = []
    for form in (augment, tabled):
        changed = form(images, drawn)
        results.append((changed, *torch.autograd.grad((changed * weights).sum(), images)))
    # Where only rotation rounds: its positions are float32 numbers of up to 33 pixels, its images differ by up to 6.
    torch.testing.assert_close(*results, rtol=0, atol=3e-5)
    still = [group for group, choice in enumerate(drawn.choice) if DSA[choice] not in ("scale", "rotate")]
    torch.testing.assert_close(*([part[still] for part in result] for result in results), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [*SIZES, (28, 21), (1, 5)])
def test_a_neutral_row_changes_nothing(size: tuple[int, int]) -> None:
    images = noise(2, 3, 3, *size)
    torch.testing.assert_close(augment_by(images, torch.tensor([dsa.NEUTRAL] * 2)), images, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("operation", "numbers"), [("color", 3), ("crop", 2), ("cutout", 4), ("flip", 1), ("scale", 2)]
)
def test_an_operation_sets_only_its_own_numbers(operation: str, numbers: int) -> None:
    table = parameters(one(operation, 200), 28, 21)
    assert (table.shape, table.dtype) == ((200, 13), torch.float32)
    assert int((table != torch.tensor(dsa.NEUTRAL)).any(0).sum()) == numbers


def test_a_strategy_without_an_operation_has_a_table_too() -> None:
    drawn = Draw(("rotate", "color"), torch.tensor([1, 0]), torch.rand(2, 3, generator=generator()))
    images = noise(2, 1, 3, 9, 9)
    torch.testing.assert_close(tabled(images, drawn), literally_augmented(images, drawn), rtol=0, atol=2e-5)


# DC's own.


@both_forms
@pytest.mark.parametrize("size", [*SIZES, (28, 28)])
@pytest.mark.parametrize("operation", DC)
def test_dc_s_operations_are_those_of_the_text_image_by_image(
    operation: str, size: tuple[int, int], form: Callable[[Tensor, Draw, Tensor], Tensor]
) -> None:
    if operation == "dc-rotate" and size[0] != size[1]:
        return  # it turns the unit square
    images, colour = noise(6, 2, 3, *size), noise(1, 1, 3, 1, 1, seed=1).expand(6, 1, 3, 1, 1)
    drawn = one(operation, 6)
    expected = torch.stack(
        [
            torch.stack([_literally(operation, image, colour[0, 0], uniforms) for image in group])
            for group, uniforms in zip(images, drawn.uniforms.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(form(images, drawn, colour), expected, rtol=0, atol=2e-5)


def _literally(operation: str, image: Tensor, colour: Tensor, uniforms: list[float]) -> Tensor:
    """Spec 1.5, pixel by pixel: where it is read, and what lies beyond the frame."""
    channels, height, width = image.shape
    beyond = torch.zeros(channels).double() if operation == "dc-scale" else colour.view(-1)
    result = torch.empty_like(image)
    middle = (height - 1) / 2, (width - 1) / 2
    for row in range(height):
        for column in range(width):
            down, across = row - middle[0], column - middle[1]
            if operation == "dc-crop":
                down, across = (at - 4 + math.floor(8 * u) for at, u in zip((down, across), uniforms, strict=False))
            elif operation == "dc-scale":
                across, down = (at / (0.8 + 0.4 * u) for at, u in zip((across, down), uniforms, strict=False))
            else:
                angle = math.radians(-45 + 90 * uniforms[0])
                down, across = (
                    math.cos(angle) * down - math.sin(angle) * across,
                    math.sin(angle) * down + math.cos(angle) * across,
                )
            result[:, row, column] = _read(image, down + middle[0], across + middle[1], beyond)
    return result


def _read(image: Tensor, row: float, column: float, beyond: Tensor) -> Tensor:
    """Between four pixels, linearly."""
    total = torch.zeros_like(beyond)
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            inside = 0 <= r < image.shape[1] and 0 <= c < image.shape[2]
            weight = (1 - abs(row - r)) * (1 - abs(column - c))
            total = total + weight * (image[:, r, c] if inside else beyond)
    return total


@both_forms
def test_the_batch_s_colour_comes_in_only_with_dc_s_crop_and_rotation(
    form: Callable[[Tensor, Draw, Tensor], Tensor],
) -> None:
    strategy = ("dc-crop", "dc-scale", "dc-rotate", "cutout")
    drawn = Draw(strategy, torch.tensor([0, 1, 2, 3]), torch.full((4, 3), 0.1))
    images, colour = torch.zeros(4, 1, 1, 12, 12), torch.full((4, 1, 1, 1, 1), 5.0)
    found = form(images, drawn, colour).flatten(1).amax(1)
    torch.testing.assert_close(found, torch.tensor([5.0, 0.0, 5.0, 0.0]))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_off_a_cpu_all_tensors_are_made_on_the_images_device_and_all_images_go_one_way(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device computes nothing, but like a GPU it refuses tensors that lie on the CPU."""
    monkeypatch.setattr(dsa, "OPERATIONS", {})
    images = torch.zeros(4, 2, 3, 8, 10, device="meta")
    assert augment(images, one(operation, 4)).shape == images.shape
