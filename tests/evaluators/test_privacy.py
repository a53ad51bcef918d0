"""Privacy: attacks and neighbours by hand and by loops, on sets that keep everything and on sets that keep nothing."""

import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from torch import Tensor

from dambench import networks
from dambench.core.config import read
from dambench.core.errors import BadInput
from dambench.core.events import Measured, Progressed, Real, Warned
from dambench.core.protocol import PRESETS, Budget
from dambench.evaluators import Context, Half, Halves, privacy
from dambench.evaluators import _membership as membership
from dambench.evaluators import _neighbours as neighbours
from dambench.testing import data_card, real_set, tiny_problem
from dambench.training.problem import RealSet, Seeds
from tests.lab import noise

NAME = "convnet-d1-w16"
CARD = data_card((8, 8, 8), test_counts=(8, 8, 8))
LONG = structs.replace(PRESETS["quick"], synthetic=Budget(epochs=60), whole=Budget(epochs=60), augmentation=())


def context(ipc: int = 4, **changes: Any) -> Context:
    """A set of real images, as random has it, of images that are noise: nothing can be learned of one but itself."""
    problem = tiny_problem(card=CARD, ipc=ipc)
    usual: dict[str, Any] = {
        "evaluator": "privacy",
        "synthetic": problem.synthetic_set(problem.random_subset()),
        "set_sha256": "f" * 64,
        "iteration": 7,
        "final": True,
        "test": real_set(CARD, seed=1),
        "train": problem.real,
        "start": problem.subset_places().flatten(),
        "card": CARD,
        "networks": (NAME,),
        "repeats": 1,
        "protocol": LONG,
        "seeds": problem.seeds,
        "policy": problem.policy,
    }
    return Context(**usual | changes)


def measured(given: Context, resume: Collection[tuple[str, int]] = ()) -> dict[tuple[str, int], dict[str, Real]]:
    findings = list(privacy.evaluate(given, privacy.Options(), resume))
    assert all(0 <= event.done <= event.total for event in findings if isinstance(event, Progressed))
    return {(row.subject, row.repeat): row.values for row in findings if isinstance(row, Measured)}


# Figures of an attack.


def test_the_area_under_the_curve_is_that_counted_by_hand() -> None:
    members, others = torch.tensor([3.0, 2.0, 2.0]), torch.tensor([1.0, 2.0])
    assert membership.area(members, others) == pytest.approx((2 + 1.5 + 1.5) / 6)
    assert membership.area(torch.tensor([1.0]), torch.tensor([0.0, -1.0])) == 1


def test_members_are_found_above_all_non_members_but_those_that_may_be_taken_for_some() -> None:
    others = torch.arange(10.0)
    assert membership.found(torch.tensor([8.5, 9.5, 3.0, 8.0]), others, 0.1) == 2 / 4  # one may be: 9
    assert membership.found(torch.tensor([8.5, 9.5, 3.0, 8.0]), others, 0.09) == 1 / 4  # none may be
    assert membership.found(torch.zeros(4), torch.zeros(10), 0.1) == 0  # ties find nobody


def test_at_one_percent_nothing_is_said_below_a_thousand_non_members() -> None:
    scores = noise(2000, dtype=torch.float32)
    assert "loss_tpr_1" not in membership.figures("loss", scores, scores[:999])
    assert "loss_tpr_1" in membership.figures("loss", scores, scores[:1000])


def test_the_interval_of_an_area_is_never_a_point_and_holds_the_truth_as_often_as_it_says() -> None:
    low, high = membership.area_interval(1.0, 10, 30)
    assert (round(low, 2), high) == (0.87, 1.0)
    assert membership.area_interval(0.0, 10, 30)[1] == pytest.approx(1 - low)
    drawn = torch.Generator().manual_seed(0)
    truth, inside = 0.5 * (1 + math.erf(0.8 / 2)), 0
    for _ in range(1000):
        members = torch.randn(25, generator=drawn) + 0.8
        low, high = membership.area_interval(membership.area(members, torch.randn(40, generator=drawn)), 25, 40)
        inside += low <= truth <= high
    assert 0.93 <= inside / 1000 <= 0.985


def test_losses_and_confidences_are_those_of_the_probabilities() -> None:
    logits, labels = noise(5, 3), torch.tensor([0, 1, 2, 0, 1])
    p = logits.softmax(1)[torch.arange(5), labels]
    assert torch.allclose(membership.losses(logits, labels), -p.log())
    assert torch.allclose(membership.confidences(logits, labels), (p / (1 - p)).log())
    # Where p is 1 to the last bit, the confidence still is a number.
    sure = membership.confidences(torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([0]))
    assert sure.item() == pytest.approx(200 - math.log(2))


def test_likelihood_ratios_are_those_of_a_loop() -> None:
    phi = noise(6, 4) * 3
    inside = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    inside[:, 3] = True  # nothing is known of the last one without it
    scores, sound = membership.likelihood_ratios(phi, inside, target=2)
    shadows = [k for k in range(6) if k != 2]

    def of(image: int, side: bool) -> list[float]:
        both = [[float(phi[k, image]) for k in shadows if bool(inside[k, image]) is kind] for kind in (side, not side)]
        return both[0][: min(map(len, both))]

    for image in range(4):
        both = []
        for side in (True, False):
            spread, free = 0.0, 0
            for other in range(4):
                mine = of(other, side)
                if mine:
                    spread += sum((value - sum(mine) / len(mine)) ** 2 for value in mine)
                    free += len(mine) - 1
            mine = of(image, side)
            both.append((sum(mine) / len(mine) if mine else None, spread / free))
        (mean_in, var_in), (mean_out, var_out) = both
        assert bool(sound[image]) is (mean_in is not None and mean_out is not None)
        if mean_in is None or mean_out is None:
            continue
        value = float(phi[2, image])
        density_in = math.exp(-((value - mean_in) ** 2) / (2 * var_in)) / math.sqrt(2 * math.pi * var_in)
        density_out = math.exp(-((value - mean_out) ** 2) / (2 * var_out)) / math.sqrt(2 * math.pi * var_out)
        assert float(scores[image]) == pytest.approx(math.log(density_in) - math.log(density_out))


def test_offline_ratios_are_those_of_a_loop() -> None:
    phi, own = noise(5, 3), torch.zeros(5, 3, dtype=torch.bool)
    own[0, 0] = own[2, 0] = own[1, 1] = True
    own[1:, 2] = True  # of the last image one network says what is usual
    scores, sound = membership.offline_ratios(phi, own, target=2)
    usual = {image: [float(phi[k, image]) for k in (0, 1, 3, 4) if not own[k, image]] for image in range(3)}
    squares = sum(sum((value - sum(some) / len(some)) ** 2 for value in some) for some in usual.values())
    deviation = math.sqrt(squares / sum(len(some) - 1 for some in usual.values()))
    for image in (0, 1):
        mean = sum(usual[image]) / len(usual[image])
        assert float(scores[image]) == pytest.approx((float(phi[2, image]) - mean) / deviation)
    assert sound.tolist() == [True, True, False]


@pytest.mark.parametrize("count", [4, 6, 16])
def test_networks_that_tell_nothing_find_nobody_however_few_they_are(count: int) -> None:
    drawn = torch.Generator().manual_seed(count)
    phi = torch.randn(count, 4000, generator=drawn) + 3 * torch.randn(4000, generator=drawn)
    inside = torch.rand(count, 4000, generator=drawn).argsort(0) < count // 2  # each image in half of the sets
    assert privacy.likelihood_figures(phi, inside)["lira_auc"] == pytest.approx(0.5, abs=0.015)


# Sets that keep everything, and sets that keep nothing.


def test_random_images_are_found_in_their_own_set_with_near_certainty() -> None:
    row = measured(context())[NAME, 0]
    assert row["own_images"] == 12
    assert float(row["own_auc"]) > 0.97
    assert float(row["own_tpr_10"]) > 0.9
    assert (row["members"], row["non_members"]) == (24, 24)
    # Half of the members are in the set, and of the others it says nothing.
    assert 0.6 < float(row["loss_auc"]) < 0.9
    assert "loss_tpr_1" not in row


def test_in_noise_nobody_is_found() -> None:
    given = context()
    images = noise(12, 1, 8, 8, seed=5, dtype=torch.float32)
    row = measured(replace(given, synthetic=replace(given.synthetic, images=images), repeats=3))
    for attack in ("loss_auc", "own_auc"):
        values = [float(row[NAME, repeat][attack]) for repeat in range(3)]
        assert abs(sum(values) / 3 - 0.5) < 0.12, attack


def test_real_images_are_copies_and_nearer_to_their_own_and_noise_is_not() -> None:
    row = measured(context(), {(NAME, 0)})
    assert list(row) == [("neighbours", 0)]
    mine = row["neighbours", 0]
    assert (mine["copies"], mine["nearer_by_chance"]) == (1.0, 0.5)
    assert float(mine["nearest_pixels"]) < 1e-3
    assert mine["nearer_pixels"] == mine["nearer_features"] == 1
    assert mine["recognisable_pixels"] == mine["recognisable_features"] == 1
    given = context()
    images = noise(12, 1, 8, 8, seed=5, dtype=torch.float32)
    theirs = measured(replace(given, synthetic=replace(given.synthetic, images=images)), {(NAME, 0)})["neighbours", 0]
    assert theirs["copies"] == 0
    assert 0.1 < float(theirs["nearer_pixels"]) < 0.9
    assert float(theirs["recognisable_pixels"]) < 0.2


def test_all_real_images_have_no_neighbours_and_are_all_members() -> None:
    problem = tiny_problem(card=CARD)
    given = context(synthetic=problem.whole_set(), start=None)
    assert [item.subject for item in privacy.items(given, privacy.Options())] == [NAME]
    row = measured(given)[NAME, 0]
    assert "own_auc" not in row
    assert float(row["loss_auc"]) > 0.9


def test_in_an_estimate_a_network_of_a_half_takes_as_long_as_one_that_is_trained() -> None:
    whole = tiny_problem(card=CARD).whole_set()
    for given in (context(), context(synthetic=whole, start=None)):
        given = replace(given, not_anew="", dry_run=True)
        item = next(item for item in privacy.items(given, privacy.Options()) if item.subject == f"{NAME} halves")
        others = [(one.subject, one.repeat) for one in privacy.items(given, privacy.Options()) if one != item]
        findings = list(privacy.evaluate(given, privacy.Options(), others))
        assert [(one.subject, one.repeat) for one in findings if isinstance(one, Measured)] == [(item.subject, 0)]
        assert len([one for one in findings if isinstance(one, Progressed)]) >= LONG.synthetic.epochs


def test_images_that_were_held_out_are_the_non_members() -> None:
    apart = RealSet(real_set(CARD, seed=9).images[:10], (4, 3, 3), context().test.preprocessing)
    rows = measured(context(apart=apart))
    assert rows[NAME, 0]["non_members"] == 10
    assert rows["neighbours", 0]["nearer_by_chance"] == pytest.approx(24 / 34)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": None}, "Which images are members is not known"),
        (
            {"test": RealSet(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), (0, 0, 0), real_set(CARD).preprocessing)},
            r"^Membership inference needs non-members, images that the set was made without, and made-up has neither",
        ),
    ],
)
def test_without_members_or_non_members_it_is_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    for ask in (privacy.items, privacy.evaluate):
        with pytest.raises(BadInput, match=sentence):
            list(ask(context(**changes), privacy.Options()))


def test_so_few_halves_that_no_ratio_comes_of_them_are_refused_before_any_is_made() -> None:
    for few in (0, 4):
        assert read(privacy.Options, {"halves": few}, "evaluator privacy").halves == few
    for few in (1, 3):
        with pytest.raises(BadInput, match="halves is 0, or at least 4"):
            read(privacy.Options, {"halves": few}, "evaluator privacy")


# Neighbours.


def spaces() -> neighbours.Spaces:
    network = networks.build(NAME, CARD)
    network.reset(Seeds(3).generator("weights"))
    return neighbours.Spaces(real_set(CARD).preprocessing, network.eval())


@pytest.mark.parametrize("batch", [2, 100])
def test_distances_and_the_nearest_are_those_of_a_loop(batch: int) -> None:
    both, real = spaces(), real_set(CARD).images
    mine = real_set(CARD, seed=4).images[:3]
    far = torch.stack(
        [torch.stack([((a.double() - b.double()) / 255).square().mean().sqrt() for b in real]) for a in mine]
    )
    found = neighbours.nearest(both.pixels, mine, real, batch, squared=False)
    assert torch.allclose(found[0].double(), far.min(1).values, atol=1e-4)
    assert torch.equal(found[1], far.min(1).indices)
    with torch.no_grad():
        embedded = [both.network.embed(both.preprocessing.apply(some)) for some in (mine, real)]
    cosine = torch.nn.functional.cosine_similarity(embedded[0][:, None], embedded[1][None], dim=2)
    found = neighbours.nearest(both.features, mine, real, batch, squared=True)
    assert torch.allclose(found[0], 1 - cosine.max(1).values, atol=1e-4)


def test_what_networks_see_is_compared_as_the_pixels_it_shows() -> None:
    both, real = spaces(), real_set(CARD).images[:5]
    assert torch.allclose(both.pixels(both.preprocessing.apply(real)), both.pixels(real))


def test_an_image_is_recognised_below_a_threshold_whose_errors_are_counted_on_other_images() -> None:
    def others(*even_then_odd: float) -> Tensor:
        return torch.tensor(even_then_odd)

    # Of the first image the usual distance is 2, of the second 20; in shares of it even places are .5, 1, 1, 1.5.
    far = [others(1, 0.8, 2, 2, 2, 2, 3, 2), others(10, 20, 20, 8, 20, 20, 30, 20)]
    known = neighbours.recognised(torch.tensor([0.9, 12.0]), far, rate=0.01)
    assert known is not None
    assert known.threshold == 0.5  # none of the eight may be below it
    assert known.which.tolist() == [True, False]
    assert known.false == pytest.approx(2 / 8)  # .4 of both
    assert neighbours.recognised(torch.tensor([0.9]), [others(1, 2, 3)], rate=0.01) is None


# Sets made anew from halves.


def made_anew(ipc: int, count: int = 6) -> Halves:
    """What random makes of halves: it takes real images of its half, all of them if IPC is half of a class."""
    problem, sets = tiny_problem(card=CARD), []
    for number in range(count):
        inside = torch.zeros(24, dtype=torch.bool)
        order = torch.stack([torch.randperm(8, generator=Seeds(number).generator("half", c)) for c in range(3)])
        places = (order[:, :4] + torch.arange(3)[:, None] * 8).sort(1).values
        inside[places.flatten()] = True
        taken = places[:, :ipc].flatten()
        synthetic = replace(problem, ipc=ipc).synthetic_set(problem.real.images[taken])
        sets.append(Half(synthetic, str(number), inside, taken))
    return Halves(problem.real, tuple(sets))


def with_halves(made: Halves) -> Context:
    return context(not_anew="", halves=lambda: made)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "home"))


def attacked(made: Halves, resume: Collection[tuple[str, int]] = (), **changes: Any) -> dict[tuple[str, int], Any]:
    given = replace(with_halves(made), **changes)
    findings = list(privacy.evaluate(given, privacy.Options(halves=len(made.sets)), {*resume, (NAME, 0), NEIGHBOUR}))
    return {(row.subject, row.repeat): row.values for row in findings if isinstance(row, Measured)}


NEIGHBOUR = ("neighbours", 0)
LIRA = (f"{NAME} LiRA", 0)


def test_of_sets_that_are_their_halves_members_are_found_with_near_certainty_and_in_noise_nobody_is() -> None:
    made = made_anew(ipc=4)
    rows = attacked(made)
    assert list(rows) == [*((f"{NAME} halves", number) for number in range(6)), LIRA]
    assert all(rows[f"{NAME} halves", number]["loss_auc"] > 0.95 for number in range(6))
    found = rows[LIRA]
    assert found["lira_auc"] > 0.97
    assert found["lira_auc_low"] <= found["lira_auc"] <= found["lira_auc_high"] <= 1
    assert found["attacked"] == 6
    assert found["own_lira_auc"] > 0.97
    assert 8 < found["members"] <= 12  # those that are in another half, too
    images = noise(12, 1, 8, 8, seed=5, dtype=torch.float32)
    unrelated = tuple(half._replace(synthetic=replace(half.synthetic, images=images)) for half in made.sets)
    assert abs(attacked(Halves(made.real, unrelated))[LIRA]["lira_auc"] - 0.5) < 0.12


def test_by_offline_likelihood_ratios_random_is_near_certain_for_its_own_images() -> None:
    rows = attacked(made_anew(ipc=2))
    assert rows[LIRA]["own_images"] == 6
    assert rows[LIRA]["own_lira_auc"] > 0.97
    assert rows[LIRA]["own_lira_tpr_10"] > 0.9
    # Of what is in the half and not in the set nothing is told.
    assert 0.6 < rows[LIRA]["lira_auc"] < 0.9


def test_what_networks_say_is_kept_until_the_attack_is_measured_and_found_again_if_it_is_gone(tmp_path: Path) -> None:
    made, kept = made_anew(ipc=2), tmp_path / "home" / "confidences"
    rows = attacked(made)
    assert list(kept.iterdir()) == []
    # An attempt that was interrupted after four networks; what one of them said is damaged.
    given = with_halves(made)
    for event in privacy.evaluate(given, privacy.Options(halves=6), {(NAME, 0), NEIGHBOUR}):
        if isinstance(event, Measured) and event.repeat == 3:
            break
    files = sorted(kept.iterdir())
    assert len(files) == 4
    files[0].write_bytes(b"nothing")
    done = {(f"{NAME} halves", number) for number in range(4)}
    assert attacked(made, done) == {key: row for key, row in rows.items() if key not in done}
    assert list(kept.iterdir()) == []


def test_an_imported_set_has_a_loss_threshold_only_and_says_so() -> None:
    given = context(not_anew="it was imported, and how it was made is not known")
    assert [item.subject for item in privacy.items(given, privacy.Options())] == [NAME, "neighbours"]
    said = [event.message for event in privacy.evaluate(given, privacy.Options()) if isinstance(event, Warned)]
    assert said == [
        "The set cannot be made anew from halves of the training images, so that membership is inferred by a loss "
        "threshold only, without LiRA: it was imported, and how it was made is not known."
    ]
