import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import networks
from dambench.core.protocol import IDC, PRESETS
from dambench.report.wording import protocol_in_words
from dambench.testing import data_card
from dambench.training import train as training
from dambench.training.augmentation import augment, augment_by, draw, draw_passes, joined, parameters, passes
from dambench.training.cuda_graph import Replayed
from dambench.training.mixing import Mix, beta, draw_mix, mix
from dambench.training.problem import Network, Seeds, SyntheticSet
from dambench.training.train import train_together
from tests.lab import Tape, generator, literally_augmented, noise
from tests.training.test_train import CLASSES, labelled, protocol, small_network, weights

KINDS: tuple[Literal["cutmix", "mixup"], ...] = ("cutmix", "mixup")


def literally_mixed(kind: str, images: Tensor, labels: Tensor, drawn: Mix) -> tuple[Tensor, Tensor]:
    """Pixel after pixel, one batch (B, C, H, W)."""
    top, bottom, left, right, share = drawn.numbers.tolist()
    mixed, shares = images.clone(), labels.clone()
    for index, partner in enumerate(drawn.partners.tolist()):
        for row in range(images.shape[2]):
            for column in range(images.shape[3]):
                own, other = images[index, :, row, column], images[partner, :, row, column]
                if kind == "mixup":
                    mixed[index, :, row, column] = share * own + (1 - share) * other
                elif top <= row < bottom and left <= column < right:
                    mixed[index, :, row, column] = other
        shares[index] = share * labels[index] + (1 - share) * labels[partner]
    return mixed, shares


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_mixed_as_written_out(kind: Literal["cutmix", "mixup"]) -> None:
    images, labels = noise(2, 5, 3, 6, 8), noise(2, 5, 4, seed=1).softmax(2)
    draws = [draw_mix(kind, 1.0, 1.0, 5, (6, 8), generator(seed)) for seed in (3, 4)]
    numbers = torch.stack([one.numbers for one in draws])
    ours = mix(kind, images, labels, torch.stack([one.partners for one in draws]), numbers)
    for index, one in enumerate(draws):
        expected = literally_mixed(kind, images[index], labels[index], one)
        torch.testing.assert_close((ours[0][index], ours[1][index]), expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(ours[0][index], images[index])


def test_the_share_of_a_label_is_that_of_the_area_that_is_left() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 6)
    labels = torch.eye(4)
    for seed in range(50):
        drawn = draw_mix("cutmix", 1.0, 1.0, 4, (8, 6), generator(seed))
        mixed, shares = mix("cutmix", images[None], labels[None], drawn.partners[None], drawn.numbers[None])
        own = (mixed[0] == images).float().mean((1, 2, 3))
        of_others = drawn.partners != torch.arange(4)
        torch.testing.assert_close(own[of_others], shares[0].diag()[of_others])


def test_a_batch_is_mixed_as_often_as_the_probability_says() -> None:
    untouched = sum(
        draw_mix("cutmix", 0.3, 1.0, 4, (32, 32), generator(seed)).numbers.tolist() == [0, 0, 0, 0, 1]
        for seed in range(1000)
    )
    assert untouched == pytest.approx(700, abs=50)


@pytest.mark.parametrize("alpha", [0.8, 1.0, 3.0])
def test_shares_have_the_moments_of_a_beta_distribution(alpha: float) -> None:
    source = generator()
    shares = torch.tensor([beta(alpha, source) for _ in range(4000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_a_box_has_the_share_of_the_area_that_was_drawn_where_it_is_not_cut() -> None:
    inside = []
    for seed in range(400):
        top, bottom, left, right, share = draw_mix("cutmix", 1.0, 1.0, 2, (32, 32), generator(seed)).numbers.tolist()
        assert 0 <= top <= bottom <= 32
        assert 0 <= left <= right <= 32
        assert share == pytest.approx(1 - (bottom - top) * (right - left) / 1024)
        if top > 0 and bottom < 32 and left > 0 and right < 32:
            assert bottom - top == right - left
            inside.append(bottom - top)
    assert len(set(inside)) > 10


# IDC's augmentation.


def test_operations_follow_one_another_and_one_of_the_warps_is_drawn() -> None:
    assert passes(IDC) == (("flip",), ("color",), ("crop", "scale", "rotate"))
    assert passes(("color", "crop", "cutout")) == (("color",), ("crop",), ("cutout",))
    drawn = draw_passes(passes(("color", "crop", "cutout")), 4, generator())
    images = noise(4, 2, 3, 8, 8)
    expected, one = images, drawn
    for _ in range(3):
        expected = literally_augmented(expected, one)
        one = one.then or one
    assert one.then is None
    torch.testing.assert_close(augment(images, drawn), expected, rtol=1e-4, atol=1e-4)


def test_both_forms_of_augmentation_do_the_same_pass_after_pass() -> None:
    drawn = draw_passes(passes(IDC), 6, generator())
    images = noise(6, 2, 3, 8, 8, dtype=torch.float32)
    table = parameters(drawn, 8, 8)
    assert table.shape == (6, 3, 13)
    torch.testing.assert_close(augment_by(images, table), augment(images, drawn), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.cat([augment(images[some], drawn.of(some)) for some in (slice(0, 2), slice(2, 6))]),
        augment(images, drawn),
    )
    halves = [drawn.of(slice(0, 2)), drawn.of(slice(2, 6))]
    assert torch.equal(parameters(joined(halves), 8, 8), table)
    single = draw(("crop",), 3, generator())
    assert parameters(joined([single, single]), 8, 8).shape == (6, 13)


# Training.

WAYS: dict[str, dict[str, Any]] = {
    "cutmix": {"mixing": "cutmix", "mixing_probability": 0.6},
    "mixup of soft labels": {"mixing": "mixup", "mixing_alpha": 0.8, "labels": "as the set carries"},
    "adamw": {"optimiser": "adamw", "lr": 0.01, "weight_decay": 0.1, "keeps_momentum": True},
    "adamw anew": {"optimiser": "adamw", "lr": 0.01, "mixing": "cutmix"},
    "cosine": {"schedule": "half cosine", "augmentation": IDC, "draws": "all at once"},
}


def teacher() -> Network:
    network = small_network("convnet-d1-w8-bn", torch.float64)
    network.reset(generator(9))
    return network


def trained(how: str, count: int, *, taught: bool = False) -> list[Network]:
    data = labelled(soft="soft" in how, dtype=torch.float64)
    settings = WAYS[how] | ({"labels": "teacher", "temperature": 3.0} if taught else {})
    stack = [small_network(dtype=torch.float64) for _ in range(count)]
    teaching = teacher() if taught else None
    rule = protocol(5, 2, batch=5, **settings)
    list(train_together(stack, data, rule, [Seeds(seed) for seed in range(count)], mirrors=True, teacher=teaching))
    return stack


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_a_network_learns_among_others_what_it_learns_alone(how: str, taught: bool) -> None:
    together = trained(how, 3, taught=taught)
    tolerance = 1e-4 if how == "cosine" else 1e-8  # of augmentation's parameters, which are float32
    torch.testing.assert_close(weights(together[0]), weights(trained(how, 1, taught=taught)[0]), rtol=0, atol=tolerance)
    assert (weights(together[0]) - weights(together[1])).abs().max() > 0.01


@pytest.mark.parametrize("how", ["cutmix", "adamw", "cosine"])
def test_all_that_changes_from_step_to_step_reaches_a_recorded_step(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trained(how, 1, taught=True)[0]

    def replayed(function: Any, device: torch.device, **more: Any) -> Replayed:
        return Replayed(function, device, recorder=Tape, **more)

    def single(network: Network, data: SyntheticSet, labels: Tensor, *more: Any) -> object:
        rule, sharp, loss = more
        return training._Stack([network], data, labels, rule, sharp, pytest.fail, loss)

    monkeypatch.setattr(training, "Replayed", replayed)
    monkeypatch.setattr(training, "_Single", single)
    recorded = trained(how, 1, taught=True)[0]
    torch.testing.assert_close(weights(recorded), weights(alone), rtol=0, atol=1e-4)


def test_one_step_of_a_taught_network_is_that_written_out() -> None:
    data, rate = labelled(dtype=torch.float64), 0.5
    student, master = small_network(dtype=torch.float64), teacher().eval()
    student.reset(Seeds(0).generator("weights"))
    expected = small_network(dtype=torch.float64)
    expected.load_state_dict(student.state_dict())
    divergence = torch.zeros((), dtype=torch.float64)
    for image in data.images:
        theirs, ours = (network(image[None])[0] / 3.0 for network in (master, expected))
        p, q = theirs.detach().softmax(0), ours.softmax(0)
        for c in range(CLASSES):
            divergence = divergence + p[c] * (p[c].log() - q[c].log()) / len(data.images)
    slopes = torch.autograd.grad(divergence, list(expected.parameters()))
    how = protocol(1, lr=rate, weight_decay=0.0, batch=50, labels="teacher", temperature=3.0)
    list(train_together([student], data, how, [Seeds(0)], mirrors=True, teacher=master))
    for before, slope, after in zip(expected.parameters(), slopes, student.parameters(), strict=True):
        torch.testing.assert_close(after.detach(), before.detach() - rate * slope, rtol=1e-9, atol=1e-12)


def test_half_a_cosine_ends_at_half_the_learning_rate() -> None:
    how = protocol(4, schedule="half cosine")
    shapes = [training.Training([small_network()], labelled(), how, mirrors=True)._shape(epoch) for epoch in range(4)]
    assert shapes == pytest.approx([(1 + math.cos(math.pi * e / 8)) / 2 for e in range(4)])


def test_a_cosine_ends_near_nothing() -> None:
    how = protocol(4, schedule="cosine")
    shapes = [training.Training([small_network()], labelled(), how, mirrors=True)._shape(epoch) for epoch in range(4)]
    assert shapes == pytest.approx([(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)])


def test_a_protocol_of_a_teacher_needs_one_and_others_take_none() -> None:
    for how, given in ((protocol(1, labels="teacher"), None), (protocol(1), teacher())):
        with pytest.raises(ValueError, match="a protocol has a teacher"):
            list(train_together([small_network()], labelled(), how, [Seeds(0)], mirrors=True, teacher=given))


# Protocols.


def test_protocols_of_before_keep_their_hashes() -> None:
    hashes = {name: PRESETS[name].label for name in ("quick", "brief", "dc", "dsa-dm", "datadam", "mtt", "datm-pad")}
    assert hashes == {
        "quick": "quick#3528",
        "brief": "brief#00ba",
        "dc": "dc#7644",
        "dsa-dm": "dsa-dm#5566",
        "datadam": "datadam#5d21",
        "mtt": "mtt#bc7d",
        "datm-pad": "datm-pad#8a11",
    }


@pytest.mark.parametrize("name", ["idc", "idc-1500", "idc-mnist", "ncfm"])
def test_the_new_protocols_can_be_followed(name: str) -> None:
    preset = PRESETS[name]
    assert preset.source
    network = networks.build("convnet-d1-w8", data_card(channels=2, size=(6, 6)))
    steps = train_together([network], labelled(), preset, [Seeds(0)], mirrors=True)
    done, total = next(steps)
    assert (done, total) == (1, preset.synthetic.epochs)
    assert weights(network).isfinite().all()


def test_soft_cross_entropy_of_one_hot_labels_is_the_usual_one() -> None:
    logits, labels = noise(7, 4), torch.arange(7) % 4
    torch.testing.assert_close(F.cross_entropy(logits, F.one_hot(labels, 4).double()), F.cross_entropy(logits, labels))


def test_a_protocol_says_in_words_what_it_does() -> None:
    of_idc, of_ncfm, of_soft = (protocol_in_words(PRESETS[name]) for name in ("idc", "ncfm", "soft"))
    assert "SGD, rate 0.01, momentum 0.9" in of_idc
    assert "one of the warps, and each of the others" in of_idc
    assert "CutMix of a share of 0.5 of batches" in of_idc
    assert "AdamW, rate 0.001, weight decay 0.01" in of_ncfm
    assert "momentum" not in of_ncfm
    assert "those of the set's teacher for each batch, KL at temperature 20" in of_soft
    assert "falling by half a cosine" in of_soft
    assert "CutMix of every batch" in of_soft
    assert of_soft.endswith("several).")
