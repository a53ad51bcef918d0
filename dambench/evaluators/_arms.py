"""Scores that compare a set with random images and with all of them, from accuracies: the arms of the comparison.

Repeat r of a network has in every arm the weights that it has in every run of the same seed, so that differences are of
the same networks. No arm has its learning rate searched for, whose choice would be by test accuracy: each is trained
as its protocol says.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from dambench import networks
from dambench.core import files
from dambench.core.arms import Arm
from dambench.core.errors import BadInput, Diverged
from dambench.core.events import Measured, Progressed, Warned
from dambench.evaluators import Context, Finding, accuracy, measure_networks
from dambench.training.problem import Problem

ACCURACY = "accuracy"


def normalised(alpha: float) -> float:
    """(e^α − e⁻¹) / (e − e⁻¹): 0 for α = −1, 1 for α = 1. α = 0 gives 0.269, and it is not linear.

    The formula of DD-Ranking's documentation; α is made of accuracies from 0 to 1, not of percents.
    """
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


def measure_arms(
    context: Context,
    arms: Sequence[Arm],
    score: Callable[[Mapping[str, float]], dict[str, float]],
    done: Collection[tuple[str, int]] = (),
) -> Iterator[Finding]:
    """Measure a score of each network and repeat from the accuracies of its arms.

    Accuracies that are on record are taken from there, the others are measured: those of one arm after another, each
    set and protocol once, whatever the number of arms that it stands for.

    Args:
        score: the arms' accuracies by name → the metrics.
        done: names and repeats that were measured before.

    Raises:
        BadInput: the set is the whole one, which is compared with nothing.
        Diverged: of no network all arms could be measured.
    """
    if context.synthetic.whole or context.train is None:
        raise BadInput(
            f"The evaluator {context.evaluator} compares a synthetic set with real images, and this is all of them."
        )
    known: dict[tuple[str, str, str, int], float] = {}
    whole = False
    for name in context.networks:
        left = [repeat for repeat in range(context.repeats) if (name, repeat) not in done]
        if not left:
            continue
        began = time.perf_counter()
        context.policy.restart_peak()
        for arm in arms:
            yield from _measure_arm(arm_context(context, arm, name), left, known)
        seconds, peak = (time.perf_counter() - began) / len(left), context.policy.peak_bytes()
        complete = len(left) == context.repeats or len(done) > 0
        for repeat in left:
            keys = {arm.name: _key(arm_context(context, arm, name), repeat) for arm in arms}
            if lacking := [arm for arm, key in keys.items() if key not in known]:
                complete = False
                yield Warned(message=f"{name} #{repeat} has no {context.evaluator}: it diverged in {lacking[0]}.")
                continue
            yield context.measured(name, repeat, score({arm: known[key] for arm, key in keys.items()}), seconds, peak)
        whole = whole or complete
    if context.final and not done and not whole:
        raise Diverged(context.iteration, f"Of each network some arm diverged, so that it has no {context.evaluator}")


def _key(context: Context, repeat: int) -> tuple[str, str, str, int]:
    return context.set_sha256, context.protocol.sha256, context.networks[0], repeat


def arm_context(context: Context, arm: Arm, name: str) -> Context:
    """What measures one arm: its set, its protocol, one network."""
    synthetic, sha256 = context.synthetic, context.set_sha256
    if arm.of != "set":
        assert context.train is not None
        problem = Problem(
            real=context.train,
            card=context.card,
            ipc=len(synthetic.images) // len(context.card.classes),
            seeds=context.seeds,
            build_network=lambda: networks.build(name, context.card),
            held_out=synthetic.held_out,
            policy=context.policy,
        )
        synthetic = problem.whole_set() if arm.of == "whole" else problem.synthetic_set(problem.random_subset())
        sha256 = context.card.sha256 if arm.of == "whole" else files.digest(synthetic.to_bytes())
    return replace(
        context,
        evaluator=ACCURACY,
        synthetic=synthetic,
        set_sha256=sha256,
        protocol=arm.protocol,
        networks=(name,),
        final=False,
        validation=None,
    )


def _measure_arm(
    context: Context, repeats: Sequence[int], known: dict[tuple[str, str, str, int], float]
) -> Iterator[Progressed | Warned]:
    """Add the accuracies of an arm to those that are known: recalled, or measured."""
    for repeat in repeats:
        key = _key(context, repeat)
        if key not in known and (value := context.recall(*key)) is not None:
            known[key] = value
    missing = [repeat for repeat in repeats if _key(context, repeat) not in known]
    if not missing:
        return
    done = {(context.networks[0], repeat) for repeat in range(context.repeats) if repeat not in missing}
    for event in measure_networks(context, lambda network: accuracy.scores(context, network), done):
        if isinstance(event, Measured):
            known[_key(context, event.repeat)] = float(event.values[ACCURACY])
        elif isinstance(event, Progressed | Warned):
            yield event
