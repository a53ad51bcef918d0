"""What C libraries read from the environment when a process of dambench begins: before torch is imported.

By default glibc gives the pages of every large tensor back to the system, and each operation waits for fresh ones:
distilling on a CPU took 1.4 to 1.8 times as long. That has to be said before a process begins, so the commands that
train, and nothing else, start themselves anew once.
"""

import os
import sys
from contextlib import suppress

KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**11), "MALLOC_TOP_PAD_": str(2**28)}
"""Environment under which glibc keeps what was freed. Other C libraries do not know these names."""

SPINS = "10000"
"""GOMP_SPINCOUNT: how often threads of OpenMP that wait for each other look again before they sleep. (2 cores, ms per
iteration of DM on digits, alone and beside two busy neighbours: 1,000 took 11-14 and 17-32, 10,000 took 10 and 31-34,
20,000 took 8 and 20-95, 200,000 took 9 and 600.)"""


def settings() -> str:
    """What the environment says about it: `NAME=value …`, or a preloaded library; empty: nothing."""
    names = [name for name in os.environ if name.startswith("MALLOC_")]
    preloaded = os.environ.get("LD_PRELOAD", "")
    return " ".join([f"{name}={os.environ[name]}" for name in sorted(names)] + [preloaded] * ("malloc" in preloaded))


def applies() -> bool:
    """Whether `keep_freed_memory` does anything here: on Linux, where nobody has said otherwise."""
    return sys.platform == "linux" and not settings()


def keep_freed_memory() -> None:
    """Start this process anew, with the same arguments and glibc settings to keep freed memory."""
    if applies():
        with suppress(OSError):  # it works without, only slower
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEPT)
