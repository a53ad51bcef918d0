"""How many cores this process may compute on."""

import os
from contextlib import suppress
from pathlib import Path

LIMIT = "OMP_NUM_THREADS"
"""In the environment: what a scheduler, a worker or a user grants, as OpenMP reads it."""

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def usable() -> int:
    """The cores that this process may use: those that it is granted, and no more than `OMP_NUM_THREADS` says. What else
    computes on them plays no part.
    """
    limit = os.environ.get(LIMIT, "").partition(",")[0].strip()
    return min(granted(), int(limit)) if limit.isdecimal() and int(limit) else granted()


def granted() -> int:
    """The cores that it may run on, and no more than its control group grants."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    with suppress(OSError):
        limits += _granted(OWN_GROUP.read_text())
    return max(1, min(limits))


def _granted(groups: str) -> list[int]:
    """Cores that the control group of a process and those above it grant, rounded up."""
    own = next((line.removeprefix("0::").strip("/") for line in groups.splitlines() if line.startswith("0::")), "")
    place, found = GROUPS / own, []
    for folder in (place, *place.parents):
        if not folder.is_relative_to(GROUPS):
            break
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                found.append(-(-int(quota) // int(period)))
    return found
