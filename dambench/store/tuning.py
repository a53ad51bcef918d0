"""What settings are chosen by: validation accuracy, and nothing of the test set."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dambench.store.runs import Store
from dambench.store.statistics import Estimate, estimate, mean, t_interval

OBJECTIVE = "validation_accuracy"


@dataclass
class Trial:
    """One combination of settings of one arm."""

    arm: str
    """The method."""
    point: Mapping[str, Any]
    runs: dict[int, str] = field(default_factory=dict)
    """By seed, the run."""
    by_seed: dict[int, float] = field(default_factory=dict)
    """By seed, the mean validation accuracy of its networks; a seed whose run has diverged has none."""

    @property
    def complete(self) -> bool:
        """Whether every seed has an accuracy. One that diverges with a seed is not chosen."""
        return bool(self.runs) and self.by_seed.keys() == self.runs.keys()

    @property
    def accuracy(self) -> Estimate | None:
        """Mean over the seeds and its spread; None: a seed is missing."""
        return estimate(list(self.by_seed.values())) if self.complete else None


def validation_accuracies(store: Store, runs: Sequence[str]) -> dict[str, float]:
    """The mean validation accuracy of each finished run, on the first network that its set is evaluated on."""
    rows = store.query(
        """
        select runs.id, avg(value) as accuracy, count(value) as n, json_extract(config, '$.eval_repeats') as due
        from runs join evaluations on evaluations.run = runs.number
            join measurements using (run, iteration, evaluator, subject, repeat)
        where runs.state = 'finished' and final = 1 and evaluator = 'accuracy' and metric = ?
            and subject = json_extract(config, '$.evaluate_on[0]')
            and runs.id in (select value from json_each(?))
        group by runs.number
        """,
        OBJECTIVE,
        json.dumps(list(runs)),
    )
    return {row["id"]: row["accuracy"] for row in rows if row["n"] >= (row["due"] or 1)}


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial of highest mean; of equal ones the first of the grid; None: none is complete."""
    complete = [trial for trial in trials if trial.complete]
    return max(complete, key=lambda trial: round(mean(list(trial.by_seed.values())), 12), default=None)


@dataclass(frozen=True)
class Lead:
    """The lead of the chosen trial over the next one, paired by seed."""

    over: Trial
    points: float
    """Mean difference, a fraction."""
    half: float | None
    """Half of its 95 % interval (Student's t over the seeds); None: there is one seed."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.half is not None and self.points > self.half


def lead(trials: Sequence[Trial], chosen: Trial) -> Lead | None:
    """By how much the chosen trial is above the second best; None: there is no second one."""
    second = best([trial for trial in trials if trial is not chosen])
    if second is None:
        return None
    differences = [chosen.by_seed[seed] - second.by_seed[seed] for seed in chosen.by_seed]
    interval = t_interval(differences)
    return Lead(second, mean(differences), None if interval is None else interval.half)


def diverged(store: Store, config_sha256: str, dataset_sha256: str) -> str | None:
    """A tuning run of this configuration that diverged: it would again, and is not begun anew."""
    rows = store.query(
        "select id from runs where purpose = 'tuning' and diverged_at is not null and deleted_at = '' "
        "and config_sha256 = ? and dataset_sha256 = ? order by number desc limit 1",
        config_sha256,
        dataset_sha256,
    )
    return str(rows[0]["id"]) if rows else None
