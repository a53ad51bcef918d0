"""Labels: what every metric is called where people read it, in which unit, and how its values are written.

A metric that is not here, as one of another package, is called by its name and written by the unit that it was
described with.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from dambench.core.natural import natural
from dambench.core.sanitize import display
from dambench.store.metrics import MetricRow

MISSING = "–"

COUNT = "count"
"""A kind of value: whole numbers, of which a mean may be none."""

STATUS: Mapping[float, str] = {
    0: "trained",
    1: "learned nothing on real images",
    2: "diverged on real images",
    3: "diverged on the set or beside it",
    4: "cannot be built",
}
"""The words for the values of `nas.status`."""

_ATTACKS = {
    "loss": "Attack by loss",
    "own": "Attack by loss, own images",
    "lira": "LiRA",
    "own_lira": "LiRA, own images",
}
_ARMS = {
    "set": "trained on the set",
    "random": "trained on random images",
    "early": "stopped early",
    "ceiling": "trained again",
    "reference": "of the reference",
}
_RHO = {"spearman": "", "spearman_own_top": ", proxy's first k", "spearman_reference_top": ", reference's first k"}
_ENDS = {"low": "lower end", "high": "upper end"}

TEXTS: Mapping[str, str] = {
    "accuracy.accuracy": "Accuracy",
    "accuracy.balanced_accuracy": "Balanced accuracy",
    "accuracy.loss": "Loss",
    "accuracy.validation_accuracy": "Validation accuracy",
    "accuracy.train_accuracy": "Train accuracy",
    "accuracy.macro_f1": "Macro F1",
    "accuracy.calibration_error": "Calibration error",
    "accuracy.spread": "Spread over classes",
    "accuracy.spread_std": "Standard deviation over classes",
    "accuracy.auc": "AUC",
    r"accuracy.class_(\d+)": r"Accuracy of class \1",
    "lrs.lrs": "LRS",
    "lrs.hlr": "HLR",
    "lrs.ior": "IOR",
    "lrs.real_hard": "Real images, hard labels",
    "lrs.set_hard": "Set, hard labels",
    "lrs.set_own": "Set, own protocol",
    "lrs.random_own": "Random images, own protocol",
    "ars.ars": "ARS",
    "ars.gain_augmented": "Gain over random, augmented",
    "ars.gain_plain": "Gain over random, plain",
    "ars.set_augmented": "Set, augmented",
    "ars.random_augmented": "Random images, augmented",
    "ars.set_plain": "Set, plain",
    "ars.random_plain": "Random images, plain",
    "robustness.clean": "Accuracy without an attack",
    r"robustness.fgsm_linf_(\d+)": r"Accuracy under FGSM Linf \1/255",
    r"robustness.pgd_linf_(\d+)": r"Accuracy under PGD Linf \1/255",
    r"robustness.square_linf_(\d+)": r"Accuracy under Square Linf \1/255",
    r"robustness.pgd_l2_(\d+)": r"Accuracy under PGD L2 \1",
    r"robustness.pgd_l2_(\d+)-(\d+)": r"Accuracy under PGD L2 \1.\2",
    r"robustness.transfer_(.+)_linf_(\d+)": r"Accuracy under Linf \2/255 made for \1",
    "time.train_seconds": "Time of a training",
    "time.distil_seconds": "Time to make the set",
    "time.whole_seconds": "Time of a training on all images",
    "time.break_even": "Trainings to break even",
    r"time.accuracy_at_(\d+)": r"Accuracy after \1 % of the epochs",
    r"time.seconds_at_(\d+)": r"Time until \1 % of the epochs",
    r"time.seconds_to_(\d+)": r"Time to an accuracy of \1 %",
    r"time.reached_(\d+)": r"Networks that came to \1 %",
    "continual.accuracy_seen": "Accuracy on classes seen",
    "continual.accuracy_final": "Final accuracy",
    "continual.accuracy_mean": "Mean accuracy over steps",
    "continual.forgetting": "Forgetting",
    "continual.memory_images": "Images in memory",
    "continual.memory_bytes": "Memory",
    r"continual.accuracy_step_(\d+)": r"Accuracy on classes of step \1",
    **{f"nas.{arm}_accuracy": f"Accuracy, {how}" for arm, how in _ARMS.items()},
    **{f"nas.{arm}_seconds": f"Time, {how}" for arm, how in _ARMS.items()},
    "nas.status": "Status",
    "nas.tau_b": "Kendall's tau-b",
    **{f"nas.{name}": f"Spearman's rho{over}" for name, over in _RHO.items()},
    **{
        f"nas.{name}_{end}": f"Spearman's rho{over}, {where}"
        for name, over in _RHO.items()
        for end, where in _ENDS.items()
    },
    "nas.precision_at_k": "Precision at k",
    "nas.regret_at_k": "Regret at k",
    "nas.chosen_accuracy": "Accuracy of the network chosen",
    "nas.k": "k",
    "nas.ranked": "Networks ranked",
    "nas.seconds": "Time for all networks",
    "nas.speedup": "Speed-up over real images",
    **{f"privacy.{name}_auc": f"{how}: AUC" for name, how in _ATTACKS.items()},
    **{
        f"privacy.{name}_auc_{end}": f"{how}: AUC, {where}"
        for name, how in _ATTACKS.items()
        for end, where in _ENDS.items()
    },
    **{rf"privacy.{name}_tpr_(\d+)": rf"{how}: found at \1 % false" for name, how in _ATTACKS.items()},
    "privacy.attacked": "Networks attacked",
    "privacy.members": "Members",
    "privacy.non_members": "Non-members",
    "privacy.own_images": "Own images",
    "privacy.compared": "Images compared",
    r"privacy.nearest_(pixels|features)": r"Distance of the nearest, \1",
    r"privacy.nearest_(pixels|features)_others": r"Distance of the nearest other, \1",
    r"privacy.nearer_(pixels|features)": r"Nearest is one of its own, \1",
    "privacy.nearer_by_chance": "Nearest is one of its own, by chance",
    "privacy.copies": "Copies to the bit",
    r"privacy.recognisable_(pixels|features)": r"Start recognised, \1",
    r"privacy.recognisable_(pixels|features)_false": r"Start recognised by mistake, \1",
    r"privacy.recognisable_(pixels|features)_threshold": r"Threshold of recognition, \1",
}
"""Texts by EVALUATOR.METRIC, a pattern."""

ABBREVIATIONS = {"f1": "F1", "auc": "AUC", "lrs": "LRS", "ars": "ARS", "mlp": "MLP"}
"""Parts of names that are written so where a metric is called by its name."""

KINDS: Mapping[str, str] = {
    **dict.fromkeys(("continual.memory_images", "nas.k", "nas.ranked"), COUNT),
    **dict.fromkeys((f"privacy.{name}" for name in ("attacked", "members", "non_members", "own_images")), COUNT),
    "privacy.compared": COUNT,
    "continual.memory_bytes": "kilobytes",
}
"""Those that are not written by the unit that they are described with."""

WORDS: Mapping[str, Mapping[float, str]] = {"nas.status": STATUS}
"""Metrics whose values stand for words."""


EVALUATORS: Mapping[str, str] = {"ars": "ARS", "lrs": "LRS", "nas": "NAS"}
"""What evaluators are called whose name is no word."""

SUBJECTS: Mapping[str, Mapping[str, str]] = {
    "nas": {"set": "the set", "random": "random images", "early": "stopped early", "ceiling": "real images again"}
}
"""What subjects of evaluators are called that are no networks."""

OPTIONS: Mapping[str, str] = {
    "nas.epochs": "{} epochs on the set",
    "nas.reference_epochs": "{} epochs on real images",
    "nas.reference_images": "the reference on {} real images",
    "nas.networks": "{} networks",
    "nas.max_width": "widths up to {}",
    "nas.sample_seed": "sample {}",
    "nas.reference_seed": "reference {}",
    "nas.top": "k {}",
    "continual.steps": "{} steps",
    "continual.orders": "{} orders",
    "privacy.halves": "{} sets of halves",
    "privacy.halves=0": "without LiRA",
    "robustness.linf": "Linf of {}/255",
    "robustness.l2": "L2 of {}",
    "robustness.transfer_from": "transfer from {}",
    "robustness.steps": "PGD of {} steps",
    "robustness.restarts": "{} random starts",
    "robustness.queries": "Square of {} queries",
    "robustness.images": "{} test images",
}
"""How options of evaluators are told of, by EVALUATOR.OPTION, or by EVALUATOR.OPTION=VALUE for one value."""


class ValueFormat(NamedTuple):
    """How values are written: times a factor, over a divisor, with so many digits after the point."""

    unit: str
    """As it stands after `in`; empty: none."""
    times: int = 1
    per: int = 1
    digits: int = 3


FORMATS: Mapping[str, ValueFormat] = {
    "fraction": ValueFormat("%", times=100, digits=1),
    "seconds": ValueFormat("s"),
    "bytes": ValueFormat("GB", per=10**9, digits=2),
    "kilobytes": ValueFormat("kB", per=1000, digits=1),
    COUNT: ValueFormat("", digits=0),
    "": ValueFormat(""),
}
"""By the unit that a metric is described with, and by the values of KINDS."""


class MetricLabel(NamedTuple):
    """What a metric is called, and how its values are written."""

    text: str
    format: ValueFormat
    words: Mapping[float, str]
    """What its values stand for, where those are no numbers."""

    @property
    def in_unit(self) -> str:
        """`Accuracy in %`, `Accuracy under PGD Linf 8/255, in %`."""
        if not self.format.unit:
            return self.text
        comma = "," if "%" in self.text or self.text[-1:].isdigit() else ""
        return f"{self.text}{comma} in {self.format.unit}"

    def value(self, value: float, *, sign: str = "") -> str:
        """A value, or a difference of two, in the unit; `sign` as in format strings."""
        if not math.isfinite(value):
            return MISSING
        unit, times, per, digits = self.format
        shown = times * value / per
        if unit == "" and (digits == 0 or abs(value) >= 1000 or (value.is_integer() and abs(value) > 1)):  # a count
            return f"{shown:{sign},.0f}" if shown.is_integer() or abs(shown) >= 1000 else f"{shown:{sign}.1f}"
        return f"{shown:{sign}.{digits}f}"


@lru_cache(4096)
def label_of(metric: MetricRow) -> MetricLabel:
    """Look the label of a metric up in the tables here, else make it of its name."""
    matches = ((re.fullmatch(pattern, metric.full_name), text) for pattern, text in TEXTS.items())
    text = next((match.expand(text) for match, text in matches if match), "")
    if not text:
        text = " ".join(ABBREVIATIONS.get(word, word) for word in metric.name.split("_"))
        text = text[:1].upper() + text[1:]
    kind = FORMATS.get(KINDS.get(metric.full_name, metric.unit), FORMATS[""])
    return MetricLabel(display(text), kind, WORDS.get(metric.full_name, {}))


@lru_cache(4096)
def place_of(metric: MetricRow) -> tuple[int, tuple[tuple[str, int], ...]]:
    """The place of a metric among those that are read beside it: in the order of TEXTS, others last, then by name."""
    begins = [pattern.partition("(")[0] for pattern in TEXTS]  # budgets of one attack stand together
    places = (begins.index(begin) for begin, pattern in zip(begins, TEXTS, strict=True) if _is(metric, pattern))
    return next(places, len(TEXTS)), natural(metric.name)


def _is(metric: MetricRow, pattern: str) -> bool:
    return re.fullmatch(pattern, metric.full_name) is not None


def evaluator_name(evaluator: str) -> str:
    """What an evaluator is called: `NAS`, `Robustness`."""
    return display(EVALUATORS.get(evaluator, evaluator[:1].upper() + evaluator[1:]), 60)


def subject_name(evaluator: str, subject: str) -> str:
    """What a subject of an evaluator is called."""
    return display(SUBJECTS.get(evaluator, {}).get(subject, subject), 200)


def option_in_words(evaluator: str, option: str, value: Any) -> str:
    """An option of an evaluator: `the reference on 5,000 real images`, `Linf of 8 and 32/255`."""
    shown = " and ".join(map(_plain, value)) or "none" if isinstance(value, list) else _plain(value)
    name = f"{evaluator}.{option}"
    template = OPTIONS.get(f"{name}={shown}") or OPTIONS.get(name, f"{option.replace('_', ' ')} {{}}")
    return display(re.sub(r"^1 (\w+)s\b", r"1 \1", template.replace("{}", shown)), 200)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if type(value) is int else value if isinstance(value, str) else json.dumps(value)


def subject_place(evaluator: str, subject: str) -> int:
    """The place of a subject among those that have a name in SUBJECTS; others stand as they are."""
    known = list(SUBJECTS.get(evaluator, {}))
    return known.index(subject) if subject in known else len(known)
