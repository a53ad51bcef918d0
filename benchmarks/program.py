"""The program as a user starts it, for benchmarks that look from outside."""

import os
import resource
import subprocess
import sys

from benchmarks.contest import ROOT, Measure


def compiled_once() -> dict[str, str]:
    """The environment, but that modules are compiled once and kept, as those of an installed package are."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def processor_time(*words: str) -> Measure:
    """What a program takes of the processor, user and system together."""

    def measure() -> dict[str, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=ROOT, env=compiled_once(), stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

    return measure
