"""Privacy: whether a set, or a network trained on it, tells which real images it was made of.

Three questions. Neighbours: is a synthetic image nearer to the real images that the set was made of than to as many
that it was made without, and does it still show the one that it started from? Loss threshold (Yeom et al., CSF 2018):
of networks trained on the set, is the loss of those images lower than that of others? It is asked of the images of the
whole training set, and once more of those alone that the set consists of, or began as. Likelihood ratio (LiRA, Carlini
et al., IEEE S&P 2022): sets made anew from random halves of the training images, by the same method with the same
settings, say how each image's confidence differs with it and without it. Sets that were imported cannot be made anew,
and have no likelihood ratio.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import safetensors.torch
import torch
from msgspec import Meta
from torch import Tensor

from dambench import networks
from dambench.core import config, files
from dambench.core.errors import BadInput
from dambench.core.events import DataCard, Measured, Metric, Progressed, Warned
from dambench.evaluators import Context, Finding, Half, Item, measure_networks
from dambench.evaluators._membership import (
    LEAST_FOR_A_PERCENT,
    area,
    confidences,
    figures,
    found,
    likelihood_ratios,
    losses,
    mean_interval,
    offline_ratios,
)
from dambench.evaluators._neighbours import Spaces, copies, distances, nearest, recognised
from dambench.training.problem import Network, RealSet, SyntheticSet
from dambench.training.train import predict

__all__ = ["METRICS", "Options", "evaluate", "further_metrics", "halves", "items"]

_AUC = "how often a member is ranked before a non-member, {}; half is a guess"
_ATTACKS = {
    "loss": "by the loss of a network trained on the set",
    "own": "by the same loss, of its own images alone",
    "lira": "by LiRA",
    "own_lira": "by offline LiRA, of its own images alone",
}
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


_LIRA = {
    **_attack("lira", "by LiRA, mean over networks of sets that were made from halves"),
    **_attack("own_lira", f"by offline LiRA, mean over the same networks, members being the {_WHAT}"),
    "attacked": Metric(description="networks that were attacked, each by what the others say", unit=""),
}
"""Only of sets that can be made anew."""


def _nearness(space: str, distance: str) -> dict[str, Metric]:
    return {
        f"nearest_{space}": Metric(description=f"median of a synthetic image's {distance}", unit=""),
        f"nearest_{space}_others": Metric(description="the same from the nearest image it was made without", unit=""),
        f"nearer_{space}": Metric(
            description=f"share of synthetic images whose nearest real one, in {space}, is one they were made of",
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
    **_nearness("pixels", "distance from the nearest image it was made of, root mean square of pixels"),
    **_nearness("features", "1 − cosine to the nearest image it was made of, features of an untrained network"),
    "nearer_by_chance": Metric(
        description="what nearer_… is of a set that keeps nothing: the share of members among all real images compared",
        better="lower",
    ),
    "copies": Metric(description="share of synthetic images that are a real one to the bit", better="lower"),
    **_recognition("pixels"),
    **_recognition("features"),
}
NEIGHBOURS = "neighbours"
LEAST_NETWORKS = 4
"""Networks of sets from halves that a likelihood ratio takes."""


class Options(config.Options, frozen=True):
    halves: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description=f"sets made anew from halves of the training images, for LiRA: 0, or {LEAST_NETWORKS} or more",
        ),
    ] = 16
    false_positives: Annotated[
        float,
        Meta(gt=0, lt=0.5, description="share of held-out images that may be taken for the one an image started from"),
    ] = 0.01

    def __post_init__(self) -> None:
        if 0 < self.halves < LEAST_NETWORKS:
            raise ValueError(f"halves is 0, or at least {LEAST_NETWORKS}: a likelihood ratio takes as many networks")


def halves(options: Options) -> int:
    """How many sets are made anew from halves of the training images."""
    return options.halves


def further_metrics(card: DataCard) -> dict[str, Metric]:
    """Describe what needs many images that a set was made without."""
    return {
        f"{name}_tpr_1": Metric(
            description=f"share of members that are found where 1 % of non-members are taken for some, {how}; only "
            f"where there are {LEAST_FOR_A_PERCENT} non-members or more",
            better="lower",
        )
        for name, how in _ATTACKS.items()
    } | _LIRA


def items(context: Context, options: Options) -> Sequence[Item]:
    """List what is measured: networks by their losses, neighbours, networks of sets from halves, and LiRA.

    Raises:
        BadInput: there are no images to be told from those that the set was made of.
    """
    _others(context)
    cost = float(_training_cost(context, context.synthetic))
    listed = [Item(name, repeat, name, cost) for name in context.networks for repeat in range(context.repeats)]
    if not context.synthetic.whole:
        listed.append(Item(NEIGHBOURS, 0, NEIGHBOURS))
    if options.halves and not context.not_anew:
        part = cost / 2 if context.synthetic.whole else cost
        for name in context.networks:
            listed += [Item(_of_halves(name), number, name, part) for number in range(options.halves)]
        listed += [Item(_lira(name), 0, "LiRA", summary=True) for name in context.networks]
    return listed


def evaluate(context: Context, options: Options, resume: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Train networks on the set, attack them, and look for the neighbours of its images; the same from halves.

    Raises:
        BadInput: as `items`, or the sets from halves are missing.
        Diverged: the set is final, and of no network all repeats could be measured.
    """
    listed = items(context, options)
    total = int(sum(item.cost for item in listed))
    if options.halves and context.not_anew and not context.dry_run:
        yield Warned(
            message="The set cannot be made anew from halves of the training images, so that membership is inferred "
            f"by a loss threshold only, without LiRA: {context.not_anew}."
        )
    own = _own_images(context)
    done = {key for key in resume if key[0] in context.networks}
    share = len(context.networks) * context.repeats * _training_cost(context, context.synthetic)
    for event in measure_networks(context, partial(_attacked, context, own), done):
        yield _advanced(event, 0, share, total)
    if any(item.subject == NEIGHBOURS for item in listed) and (NEIGHBOURS, 0) not in resume:
        yield _neighbours(context, options)
    missing = {(item.subject, item.repeat) for item in listed} - set(resume)
    for name in context.networks:
        costs = [item.cost for item in listed if item.subject == _of_halves(name)]
        if missing & {(_lira(name), 0), *((_of_halves(name), number) for number in range(len(costs)))}:
            yield from _attack_halves(context, options, name, resume, (share, total))
        share += int(sum(costs))


def _advanced(event: Finding, before: int, share: int, total: int) -> Finding:
    """Count the progress of a part in that of the whole."""
    if not isinstance(event, Progressed):
        return event
    return msgspec.structs.replace(event, done=before + int(share * event.done / event.total), total=total)


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


def _of_halves(name: str) -> str:
    """The subject of networks that are trained on sets from halves."""
    return f"{name} halves"


def _lira(name: str) -> str:
    return f"{name} LiRA"


def _attack_halves(
    context: Context, options: Options, name: str, resume: Collection[tuple[str, int]], place: tuple[int, int]
) -> Iterator[Finding]:
    """Train a network on each set from a half of the training images, and attack each by what the others say.

    The confidences of a network that was measured before are read from its file; where that is gone, it is trained
    again, and has the same.

    Args:
        place: the cost of what came before, and that of all items.
    """
    if context.dry_run:
        if not all((_of_halves(name), number) in resume for number in range(options.halves)):
            yield from _half_in_a_dry_run(context, name, place)
        return
    began = time.perf_counter()
    real, sets = context.halves()
    labels = real.labels
    known: list[Tensor | None] = []
    each = _training_cost(context, sets[0].synthetic) if sets else 0
    for number, half in enumerate(sets):
        kept: list[Tensor] = []
        path = _confidence_file(context, name, number, half)
        if (_of_halves(name), number) in resume and (read := _read_confidences(path, len(labels))) is not None:
            known.append(read)
            continue
        of_half = replace(
            context,
            synthetic=half.synthetic,
            networks=(name,),
            repeats=1,
            seeds=context.seeds.child("network of half", number),
            final=False,
        )

        for event in measure_networks(of_half, partial(_judged, of_half, real, half.inside, kept)):
            if isinstance(event, Measured):
                _write_confidences(path, kept[0])
                if (_of_halves(name), number) in resume:
                    continue
                event = msgspec.structs.replace(event, subject=_of_halves(name), repeat=number, final=context.final)
            yield _advanced(event, place[0] + number * each, each, place[1])
        known.append(kept[0] if kept else None)
    if (_lira(name), 0) not in resume:
        inside = [half.inside.cpu() for half, phi in zip(sets, known, strict=True) if phi is not None]
        phis = [phi for phi in known if phi is not None]
        if len(phis) < LEAST_NETWORKS:
            yield Warned(message=f"{name} has no LiRA: of {len(sets)} networks {len(phis)} could be trained.")
        else:
            own = [_own_of_half(context, real, half) for half, phi in zip(sets, known, strict=True) if phi is not None]
            values = likelihood_figures(torch.stack(phis), torch.stack(inside), torch.stack(own))
            yield _measured(context, _lira(name), time.perf_counter() - began, values)
    for number, half in enumerate(sets):
        _confidence_file(context, name, number, half).unlink(missing_ok=True)


def _half_in_a_dry_run(context: Context, name: str, place: tuple[int, int]) -> Iterator[Finding]:
    """Train a network on as many images as a half's set has, none of which is made for an estimate."""
    synthetic = context.synthetic
    if synthetic.whole:
        synthetic = replace(synthetic, images=synthetic.images[::2], labels=synthetic.labels[::2])
    like = replace(context, synthetic=synthetic, networks=(name,), repeats=1, final=False)
    each = _training_cost(context, synthetic)
    assert context.train is not None
    for event in measure_networks(like, partial(_judged, like, context.train, _every_other(context.train), [])):
        if isinstance(event, Measured):
            event = msgspec.structs.replace(event, subject=_of_halves(name))
        yield _advanced(event, place[0], each, place[1])


def _every_other(real: RealSet) -> Tensor:
    """Every other image, (N,) bool: about a half of them."""
    return torch.arange(len(real.images), device=real.images.device) % 2 == 0


def _judged(
    context: Context, real: RealSet, inside: Tensor, kept: list[Tensor], network: Network
) -> dict[str, float] | None:
    """How well the losses of a network trained on a half's set tell that half from the other one.

    Args:
        kept: is given its confidences of all training images.
    """
    labels = real.labels
    logits = predict(network, replace(context.test_set, images=real.images, labels=labels), context.test_batch)
    if not bool(logits.isfinite().all()):
        return None
    kept.append(confidences(logits, labels).cpu())
    scores = -losses(logits, labels)
    members, others = scores[inside], scores[~inside]
    return figures("loss", members, others) | {
        "members": float(len(members)),
        "non_members": float(len(others)),
    }


def likelihood_figures(known: Tensor, inside: Tensor, own: Tensor | None = None) -> dict[str, float]:
    """The figures of the likelihood-ratio attacks on each network by all others, means over the networks.

    The interval of an area is of that mean: each network was trained on a set of its own.

    Args:
        known, inside: (networks, N), as for `likelihood_ratios`.
        own: (networks, N), as for `offline_ratios`; None: no image is.
    """
    of_half, of_own = [], []
    for target in range(len(known)):
        scores, sound = likelihood_ratios(known, inside, target)
        of_half.append((scores[inside[target] & sound], scores[~inside[target] & sound]))
        if own is not None and bool(own.any()):
            scores, sound = offline_ratios(known, own, target)
            of_own.append((scores[own[target] & sound], scores[~inside[target] & ~own[target] & sound]))
    of_images = _mean_figures("own_lira", of_own, "own_images")
    return of_images | _mean_figures("lira", of_half, "members") | {"attacked": float(len(known))}


def _mean_figures(name: str, attacks: Sequence[tuple[Tensor, Tensor]], members: str) -> dict[str, float]:
    """The means over attacked networks.

    Args:
        attacks: of each, the scores of members and of non-members.
        members: what their number is called.
    """
    sound = [(mine, others) for mine, others in attacks if len(mine) and len(others)]
    if not sound:
        return {}
    auc, low, high = mean_interval([area(mine, others) for mine, others in sound])
    fewest = min(len(others) for _, others in sound)
    rates = {"10": 0.1} | ({"1": 0.01} if fewest >= LEAST_FOR_A_PERCENT else {})
    return {
        f"{name}_auc": auc,
        f"{name}_auc_low": low,
        f"{name}_auc_high": high,
        **{
            f"{name}_tpr_{percent}": sum(found(mine, others, rate) for mine, others in sound) / len(sound)
            for percent, rate in rates.items()
        },
        members: sum(len(mine) for mine, _ in sound) / len(sound),
        "non_members": sum(len(others) for _, others in sound) / len(sound),
    }


def _own_of_half(context: Context, real: RealSet, half: Half) -> Tensor:
    """Which training images a half's set consists of, or started from: (N,) bool on the CPU."""
    own = torch.zeros(len(real.images), dtype=torch.bool)
    if not half.synthetic.whole:
        places = copies(half.synthetic, real, context.test_batch, _spaces(context))
        places = places[places >= 0]
        if not len(places) and half.start is not None:
            places = half.start
        own[places.cpu()] = True
    return own


def _confidence_file(context: Context, name: str, number: int, half: Half) -> Path:
    """The file of what a network says of all training images, kept until the attack on it is measured."""
    what = [half.name, context.protocol.sha256, name, context.seeds.seed, number, context.policy.device.type]
    return files.home() / "confidences" / f"{files.digest(json.dumps(what).encode())}.safetensors"


def _write_confidences(path: Path, phi: Tensor) -> None:
    with files.writing("What a network says of the training images", path.parent, files.HOME_HINT):
        files.write_whole(path, safetensors.torch.save({"confidences": phi}))


def _read_confidences(path: Path, images: int) -> Tensor | None:
    """(N,) float64; None: there is no such file, or it is damaged."""
    try:
        phi = safetensors.torch.load(path.read_bytes())["confidences"]
    except (OSError, safetensors.SafetensorError, KeyError):
        return None
    return phi if phi.shape == (images,) else None


def _own_images(context: Context) -> Tensor | None:
    """The places, among the images that the set was made of, of those that it consists of, or started from.

    Returns:
        (n,) int64; None: it is all real images, or it is not known where it started.
    """
    synthetic, train = context.synthetic, context.train
    assert train is not None
    if synthetic.whole:
        return None
    copied = copies(synthetic, train, context.test_batch, _spaces(context))
    if bool((copied >= 0).any()):
        places: Tensor = copied[copied >= 0].unique()
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
    train, others = context.train.images, _others(context).images
    copied = copies(context.synthetic, context.train, batch, spaces)
    values = {
        "nearer_by_chance": len(train) / (len(train) + len(others)),
        "copies": float((copied >= 0).double().mean()),
    }
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
    return _measured(context, NEIGHBOURS, time.perf_counter() - began, values)


def neighbours(context: Context) -> dict[str, Tensor]:
    """The real images to be looked at beside those of a set that is not all of them, by what they are.

    Returns:
        (M, C, H, W) uint8 each, one for each image that networks are trained on.
    """
    assert context.train is not None
    images, batch, spaces = context.synthetic.decoded().images, context.test_batch, _spaces(context)
    train, others = context.train.images, _others(context).images
    found: dict[str, Tensor] = {}
    if context.start is not None and context.synthetic.factor == 1:
        found["started from"] = train[context.start]
    found["nearest by pixels"] = train[nearest(spaces.pixels, images, train, batch, squared=False)[1]]
    found["nearest by features"] = train[nearest(spaces.features, images, train, batch, squared=True)[1]]
    found["made without, nearest by pixels"] = others[nearest(spaces.pixels, images, others, batch, squared=False)[1]]
    return found


def _measured(context: Context, subject: str, seconds: float, values: Mapping[str, float]) -> Measured:
    return context.measured(subject, 0, values, seconds)


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
