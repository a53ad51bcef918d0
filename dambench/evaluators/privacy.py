"""Privacy: whether a set, or a network trained on it, tells which real images it was made of.

Three questions. Neighbours: is a synthetic image nearer to the real images that the set was made of than to as many
that it was made without, and does it still show the one that it started from? Loss threshold (Yeom et al., CSF 2018):
of networks trained on the set, is the loss of those images lower than that of others? It is asked of the images of the
whole training set, and once more of those alone that the set consists of, or began as. Likelihood ratio (LiRA, Carlini
et al., IEEE S&P 2022): sets made anew from random halves of the training images, by the same method with the same
settings, say how each image's confidence differs with it and without it. Sets that were imported cannot be made anew,
and have no likelihood ratio.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from dambench import networks
from dambench.core import config
from dambench.core.errors import BadInput
from dambench.core.events import DataCard, Measured, Metric, Progressed
from dambench.evaluators import Context, Finding, Item, measure_networks
from dambench.evaluators._membership import LEAST_FOR_A_PERCENT, figures, losses
from dambench.evaluators._neighbours import Spaces, copies, distances, nearest, recognised
from dambench.training.problem import Network, RealSet, SyntheticSet
from dambench.training.train import predict

__all__ = ["METRICS", "Options", "evaluate", "further_metrics", "items"]

_AUC = "how often a member is ranked before a non-member, {}; half is a guess"
_ATTACKS = {"loss": "by the loss of a network trained on the set", "own": "by the same loss, of its own images alone"}
_WHAT = "images that the set consists of, or started from"


def _attack(name: str, how: str) -> dict[str, Metric]:
    return {
        f"{name}_auc": Metric(description=_AUC.format(how), better="lower"),
        f"{name}_auc_low": Metric(description=f"lower end of the 95 % interval of {name}_auc", better="lower"),
        f"{name}_auc_high": Metric(description=f"upper end of the 95 % interval of {name}_auc", better="lower"),
        f"{name}_tpr_10": Metric(
            description=f"share of members that are found where 10 % of non-members are taken for some, {how}",
            better="lower",
        ),
    }


def _recognition(space: str) -> dict[str, Metric]:
    return {
        f"recognisable_{space}": Metric(
            description=f"share of synthetic images in whose {space} the real one they started from is recognised",
            better="lower",
        ),
        f"recognisable_{space}_false": Metric(
            description="share of held-out images that would be taken for it; others than set the threshold",
            better="lower",
        ),
        f"recognisable_{space}_threshold": Metric(
            description="largest distance at which it is recognised, as a share of the median from held-out images of "
            "its class",
            unit="",
        ),
    }


METRICS = {
    **_attack("loss", "by the loss of a network trained on the set"),
    **_attack("own", f"by the same loss, members being the {_WHAT}"),
    "members": Metric(description="images that the set was made of, to be told from others", unit="", better="lower"),
    "non_members": Metric(description="images that it was made without", unit="", better="lower"),
    "own_images": Metric(description=_WHAT, unit="", better="lower"),
    "nearest_pixels": Metric(
        description="median distance of a synthetic image from the nearest it was made of, root mean square of pixels"
    ),
    "nearest_pixels_others": Metric(description="the same from the nearest of as many images it was made without"),
    "nearer_pixels": Metric(
        description="share of synthetic images nearer to one it was made of than to any of as many others; half is "
        "what a set has that keeps nothing",
        better="lower",
    ),
    "nearest_features": Metric(
        description="median of 1 − cosine to the nearest image it was made of, features of an untrained network"
    ),
    "nearest_features_others": Metric(description="the same to the nearest of as many images it was made without"),
    "nearer_features": Metric(description="nearer_pixels by these features", better="lower"),
    "compared": Metric(description="images of each kind that neighbours are looked for among", unit=""),
    "copies": Metric(description="share of synthetic images that are a real one to the bit", better="lower"),
    **_recognition("pixels"),
    **_recognition("features"),
}
NEIGHBOURS = "neighbours"


class Options(config.Options, frozen=True):
    false_positives: Annotated[
        float,
        Meta(gt=0, lt=0.5, description="share of held-out images that may be taken for the one an image started from"),
    ] = 0.01


def further_metrics(card: DataCard) -> dict[str, Metric]:
    """Describe what needs many images that a set was made without."""
    return {
        f"{name}_tpr_1": Metric(
            description=f"share of members that are found where 1 % of non-members are taken for some, {how}; only "
            f"where there are {LEAST_FOR_A_PERCENT} non-members or more",
            better="lower",
        )
        for name, how in _ATTACKS.items()
    }


def items(context: Context, options: Options) -> Sequence[Item]:
    """List what is measured: each network by its losses, and the neighbours of the set's images.

    Raises:
        BadInput: there are no images to be told from those that the set was made of.
    """
    _others(context)
    cost = float(_training_cost(context, context.synthetic))
    listed = [Item(name, repeat, name, cost) for name in context.networks for repeat in range(context.repeats)]
    return listed if context.synthetic.whole else [*listed, Item(NEIGHBOURS, 0, NEIGHBOURS, 1.0)]


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train networks on the set, attack them, and look for the neighbours of its images.

    Raises:
        BadInput: as `items`.
        Diverged: the set is final, and of no network all repeats could be measured.
    """
    listed = items(context, options)
    total = int(sum(item.cost for item in listed))
    own = _own_images(context)
    done = {key for key in resume if key[0] in context.networks}
    share = len(context.networks) * context.repeats * _training_cost(context, context.synthetic)
    for event in measure_networks(context, partial(_attacked, context, own), done):
        if isinstance(event, Progressed):
            event = msgspec.structs.replace(event, done=int(share * event.done / event.total), total=total)
        yield event
    if any(item.subject == NEIGHBOURS for item in listed) and (NEIGHBOURS, 0) not in resume:
        yield _neighbours(context, options)


def _training_cost(context: Context, synthetic: SyntheticSet) -> int:
    budget = context.protocol.whole if synthetic.whole else context.protocol.synthetic
    return budget.epochs * len(synthetic.images) * synthetic.factor**2


def _others(context: Context) -> RealSet:
    """The images that the set was made without: those held out of its training images, else the test images.

    Raises:
        BadInput: there are none, or those that it was made of are not known.
    """
    others = context.apart if context.apart is not None else context.test
    if context.train is None or not len(context.train.images):
        raise BadInput("Which images are members is not known: the real images that the set was made of are not here.")
    if not len(others.images):
        raise BadInput(
            f"Membership inference needs non-members, images that the set was made without, and {context.card.label} "
            "has neither test images nor any that were held out."
        )
    return others


def _own_images(context: Context) -> Tensor | None:
    """The places, among the images that the set was made of, of those that it consists of, or started from.

    Returns:
        (n,) int64; None: it is all real images, or it is not known where it started.
    """
    synthetic, train = context.synthetic, context.train
    assert train is not None
    if synthetic.whole:
        return None
    found = copies(synthetic, train, context.test_batch, _spaces(context))
    if bool((found >= 0).any()):
        places: Tensor = found[found >= 0].unique()
        return places
    return context.start


def _spaces(context: Context) -> Spaces:
    """The spaces in which images are compared; the network is the first one, untrained, the same for each set."""
    network = networks.build(context.networks[0], context.card).to(context.policy.device)
    network.reset(context.seeds.generator("untrained features", device=context.policy.device))
    return Spaces(context.synthetic.preprocessing, network.requires_grad_(False).eval())


def _attacked(context: Context, own: Tensor | None, network: Network) -> dict[str, float] | None:
    """How well a network's losses tell members from others; None: its outputs are no numbers."""
    assert context.train is not None
    like = context.test_set
    both = []
    for real in (context.train, _others(context)):
        labels = real.labels
        logits = predict(network, replace(like, images=real.images, labels=labels), context.test_batch)
        if not bool(logits.isfinite().all()):
            return None
        both.append(-losses(logits, labels))
    members, others = both
    values = figures("loss", members, others) | {"members": float(len(members)), "non_members": float(len(others))}
    if own is not None:
        values |= figures("own", members[own], others) | {"own_images": float(len(own))}
    return values


def _neighbours(context: Context, options: Options) -> Measured:
    """Look for the real images nearest to the set's."""
    began = time.perf_counter()
    context.policy.restart_peak()
    assert context.train is not None
    synthetic = context.synthetic.decoded()
    spaces, batch = _spaces(context), context.test_batch
    train, others = _alike(context.train, _others(context))
    found = copies(context.synthetic, context.train, batch, spaces)
    values = {"compared": float(len(train)), "copies": float((found >= 0).double().mean())}
    for name, space in (("pixels", spaces.pixels), ("features", spaces.features)):
        squared = name == "features"
        mine, _ = nearest(space, synthetic.images, train, batch, squared=squared)
        theirs, _ = nearest(space, synthetic.images, others, batch, squared=squared)
        values |= {
            f"nearest_{name}": float(mine.median()),
            f"nearest_{name}_others": float(theirs.median()),
            f"nearer_{name}": float((mine < theirs).double().mean() + (mine == theirs).double().mean() / 2),
        }
        if context.start is not None and context.synthetic.factor == 1:
            values |= _recognisable(context, name, partial(distances, space, batch=batch, squared=squared), options)
    return Measured(
        evaluator=context.evaluator,
        subject=NEIGHBOURS,
        repeat=0,
        iteration=context.iteration,
        final=context.final,
        set_sha256=context.set_sha256,
        protocol_sha256=context.protocol.sha256,
        seconds=time.perf_counter() - began,
        peak_memory_bytes=context.policy.peak_bytes(),
        values=dict(values),
    )


def _alike(train: RealSet, others: RealSet) -> tuple[Tensor, Tensor]:
    """As many images of each class of both, evenly spread over those there are."""
    chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
    for mine, theirs in zip(
        train.images.split(list(train.counts)), others.images.split(list(others.counts)), strict=True
    ):
        count = min(len(mine), len(theirs))
        for some, images in zip(chosen, (mine, theirs), strict=True):
            places = torch.arange(count, device=images.device) * len(images) // max(count, 1)
            some.append(images[places])
    return torch.cat(chosen[0]), torch.cat(chosen[1])


def _recognisable(
    context: Context, name: str, between: Callable[[Tensor, Tensor], Tensor], options: Options
) -> dict[str, float]:
    """How many synthetic images still show the one that they started from, in one of the spaces."""
    assert context.train is not None
    assert context.start is not None
    images, labels = context.synthetic.images, context.synthetic.hard_labels
    others = _others(context)
    to_start = torch.stack(
        [
            between(image[None], real[None])[0, 0]
            for image, real in zip(images, context.train.images[context.start], strict=True)
        ]
    )
    of_class = others.images.split(list(others.counts))
    to_others = [between(image[None], of_class[label])[0] for image, label in zip(images, labels.tolist(), strict=True)]
    known = recognised(to_start, to_others, options.false_positives)
    if known is None:
        return {}
    return {
        f"recognisable_{name}": float(known.which.double().mean()),
        f"recognisable_{name}_false": known.false,
        f"recognisable_{name}_threshold": known.threshold,
    }
