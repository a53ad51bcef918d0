"""Membership inference: how well images that a set was made of are told from others, and by which score.

A score is higher where an attacker believes more in a member. What is published of attacks is a whole curve; here are
the area under it with its interval, and the share of members that are found where few others are taken for one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_FOR_A_PERCENT = 1000
"""Non-members from which on 1 % of them are enough to set a threshold by."""
Z = 1.959963984540054


def area(members: Tensor, others: Tensor) -> float:
    """The probability that a member has a higher score than a non-member; ties count half.

    Args:
        members, others: scores, (m,) and (n,), at least one each.
    """
    ordered = others.double().sort().values
    below = torch.searchsorted(ordered, members.double())
    up_to = torch.searchsorted(ordered, members.double(), right=True)
    return float((below + up_to).sum()) / (2 * len(members) * len(others))


def area_interval(auc: float, members: int, others: int) -> tuple[float, float]:
    """A 95 % interval of an area under the curve, which is never a point, not even at 0 or 1.

    All θ with |θ − AUC| ≤ 1.96 · √V(θ), where V(θ) = θ (1 − θ) / (m n) · (1 + N (1 − θ) / (2 − θ) + N θ / (1 + θ)) and
    N = (m + n) / 2 − 1 (Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic", Part 2, Statistics in Medicine 2006, method 5).
    """

    def far(theta: float) -> bool:
        n = (members + others) / 2 - 1
        variance = theta * (1 - theta) * (1 + n * (1 - theta) / (2 - theta) + n * theta / (1 + theta))
        return abs(theta - auc) > Z * math.sqrt(variance / (members * others))

    ends = []
    for outside in (0.0, 1.0):
        inside = auc
        if not far(outside) and outside != auc:
            ends.append(outside)
            continue
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if far(middle) else (middle, outside)
        ends.append(inside)
    return ends[0], ends[1]


def found(members: Tensor, others: Tensor, rate: float) -> float:
    """Share of members with a score above all but `rate` of the non-members, at the most (TPR at that FPR)."""
    allowed = int(rate * len(others) + 1e-9)
    threshold = others.double().sort(descending=True).values[allowed] if allowed < len(others) else -math.inf
    return float((members.double() > threshold).double().mean())


def figures(name: str, members: Tensor, others: Tensor) -> dict[str, float]:
    """The figures of an attack, named `name_auc` and so on; TPR at 1 % FPR only where there are enough non-members."""
    auc = area(members, others)
    low, high = area_interval(auc, len(members), len(others))
    values = {
        f"{name}_auc": auc,
        f"{name}_auc_low": low,
        f"{name}_auc_high": high,
        f"{name}_tpr_10": found(members, others, 0.1),
    }
    if len(others) >= LEAST_FOR_A_PERCENT:
        values[f"{name}_tpr_1"] = found(members, others, 0.01)
    return values


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image: (N, classes), (N,) → (N,) float64."""
    logits = logits.double()
    return logits.logsumexp(1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def confidences(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit-scaled confidence of each image, log p / (1 − p) with p the probability of its class: (N,) float64.

    It is the logit of the class less the logarithm of what the others add up to, which is exact where p is nearly 1.
    """
    logits = logits.double()
    own = logits.gather(1, labels.unsqueeze(1))
    others = logits.scatter(1, labels.unsqueeze(1), -math.inf)
    return (own.squeeze(1) - others.logsumexp(1)).clamp(-1e6, 1e6)


def likelihood_ratios(known: Tensor, inside: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The online likelihood-ratio attack on one network, by all others (Carlini et al., IEEE S&P 2022, section IV).

    The confidences of an image under the networks whose sets were made with it are taken for one Gaussian, those under
    the others for another one; each image has means of its own. With as few networks as here their variances are those
    of all images together, as the paper advises. The score is log N(φ | in) − log N(φ | out).

    Of each image as many networks of both kinds speak, the first ones. (Else a member, whose own network does not speak
    of it, would have fewer with it than without, a mean with it that is less sure, and a lower score: with 6 networks
    that tell nothing the area comes out at a third.)

    Args:
        known: (networks, N), logit-scaled confidences.
        inside: (networks, N) bool, whether the image was among those that the network's set was made of.
        target: which network is attacked.

    Returns:
        (N,) float64; and (N,) bool: whether among the other networks there is one of each kind. The score of other
        images means nothing.
    """
    others = torch.arange(len(known)) != target
    phi, within = known[others].double(), inside[others]
    sides = []
    equal = torch.minimum(within.sum(0), (~within).sum(0))
    for kind in (within, ~within):
        chosen = kind & (kind.cumsum(0) <= equal)
        count = chosen.sum(0)
        mean = (phi * chosen).sum(0) / count.clamp_min(1)
        deviations = ((phi - mean) * chosen).square().sum()
        free = (count - 1).clamp_min(0).sum().clamp_min(1)
        sides.append((mean, (deviations / free).clamp_min(1e-12), count > 0))
    (mean_in, variance_in, some_in), (mean_out, variance_out, some_out) = sides
    observed = known[target].double()
    score_in = -0.5 * ((observed - mean_in).square() / variance_in + variance_in.log())
    score_out = -0.5 * ((observed - mean_out).square() / variance_out + variance_out.log())
    return score_in - score_out, some_in & some_out


def offline_ratios(known: Tensor, own: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The offline likelihood-ratio attack on one network: by how much an image's confidence is above the usual one.

    The usual one is that under all other networks in whose sets the image is not one of their own (Carlini et al.,
    section VI.B): the score is (φ − mean) / deviation, and only the deviation is that of all images together.

    Args:
        known: (networks, N), logit-scaled confidences.
        own: (networks, N) bool, whether the network's set consists of the image, or started from it.

    Returns:
        (N,) float64; and (N,) bool: whether two other networks at least say what is usual.
    """
    others = torch.arange(len(known)) != target
    phi, without = known[others].double(), ~own[others]
    count = without.sum(0)
    mean = (phi * without).sum(0) / count.clamp_min(1)
    squares = ((phi - mean) * without).square().sum()
    variance = (squares / (count - 1).clamp_min(0).sum().clamp_min(1)).clamp_min(1e-12)
    return (known[target].double() - mean) / variance.sqrt(), count >= 2


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of areas, one for each attacked network, and its 95 % interval by Student's t, within 0 and 1."""
    from scipy.special import stdtrit  # late: it takes a moment to import

    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0, 1.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = float(stdtrit(len(values) - 1, 0.975)) * math.sqrt(variance / len(values))
    return mean, max(0.0, mean - half), min(1.0, mean + half)
