"""Alerts: marks on a run that a person should look at, each in a word and a sentence of figures."""

from typing import NamedTuple

import numpy as np

from dambench.core.units import size
from dambench.tui.models.chart import Floats, Series, short
from dambench.tui.models.run_reader import RunSnapshot

BLOCK = 10
"""Logged losses of which one median is taken: a single spike is no trend."""

DIVERGES = 3.0
"""How many times its lowest median a loss is, from which on it is said to diverge."""

ENOUGH = 80
"""Logged losses before it is said that they do not fall."""

STILL = 0.01
"""The part of a loss by which it must have fallen, from one quarter of the run to the next, not to stand still."""

LITTLE_BYTES = 2 * 10**9
"""Free bytes of a disk below which a run may not be able to write its sets."""


class Alert(NamedTuple):
    """Something about a run that a person should look at."""

    mark: str
    """In one word."""
    text: str


def alerts(snapshot: RunSnapshot, free_bytes: int | None = None) -> list[Alert]:
    """What should be looked at now, the worst first.

    Args:
        free_bytes: on the disk of the database; None: not known, or that of another machine.
    """
    found = [Alert("NaN", f"the loss {one.name} is {one.broken}") for one in snapshot.losses if one.broken]
    if not snapshot.live:
        return found
    if free_bytes is not None and free_bytes < LITTLE_BYTES:
        found.append(Alert("disk", f"{size(free_bytes)} are free where the database is"))
    # The loss that is minimised comes first; its parts may rise.
    if snapshot.losses and snapshot.row.phase == "distil":
        found += _trend(snapshot.losses[0])
    return found


def _trend(loss: Series) -> list[Alert]:
    good = np.isfinite(loss.y)
    x, y = loss.x[good], loss.y[good]
    medians = _medians(y)
    if len(medians) > 2 and (lowest := float(medians.min())) > 0 and medians[-1] > DIVERGES * lowest:
        now = f"{_short(float(medians[-1]))}, {medians[-1] / lowest:.1f} times its lowest, {_short(lowest)}"
        return [Alert("diverges", f"the loss {loss.name} is {now} (medians of {BLOCK})")]
    if len(y) >= ENOUGH:
        quarter = len(y) // 4
        before, last = float(np.median(y[-2 * quarter : -quarter])), float(np.median(y[-quarter:]))
        if last > before - STILL * abs(before):
            since = short(float(x[-quarter]))
            text = (
                f"the loss {loss.name} has not fallen since iteration {since}: {_short(last)}, before {_short(before)}"
            )
            return [Alert("plateau", f"{text} (medians of a quarter of the run)")]
    return []


def _medians(y: Floats) -> Floats:
    """The median of every block, the last ending with the last value."""
    count = len(y) // BLOCK
    return np.asarray(np.median(y[len(y) - count * BLOCK :].reshape(count, BLOCK), axis=1)) if count else y[:0]


def _short(value: float) -> str:
    return short(float(f"{value:.3g}"))
