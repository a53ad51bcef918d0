"""A worker: measures the forms it is asked for. Started by `contest.Workers`, one JSON object per line each way.

It says about itself `{"machine": {…}}`, hears `{"form": NAME, "warm": bool}`, and answers `{"measured": {…}}`.
"""

import json
import os
import sys
from typing import Any

import msgspec
import torch

from benchmarks.contest import Form, Measure, Scene, load
from dambench.training.environment import environment
from dambench.training.policy import Policy


def machine(device: str) -> dict[str, Any]:
    """What a number measured in this process depends on."""
    here = msgspec.to_builtins(environment(Policy(torch.device("cpu")), ""))
    there = msgspec.to_builtins(environment(Policy(torch.device(device)), ""))
    said = ("dambench", "git_commit", "git_dirty", "python", "torch", "cuda", "cudnn", "driver", "platform", "cpus")
    return {
        **{name: there[name] for name in said},
        "threads": there["threads"],
        "cpu": here["device_name"],
        "gpu": there["device_name"] if device != "cpu" else "",
    }


class Bench:
    """The forms of a contest in this process, each set up when it is first asked for."""

    def __init__(self) -> None:
        self._ready: dict[str, Measure] = {}

    def ask(self, form: Form, warm: bool) -> dict[str, float]:
        """Measure once; with `warm`, as often as the form needs to settle, which may be never."""
        if form.name not in self._ready:
            self._ready[form.name] = form.prepare()
        if not warm:
            return self._ready[form.name]()
        for _ in range(form.warmups):
            self._ready[form.name]()
        return {}


def main() -> None:
    name, device, size = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a form prints is no answer
    forms = {form.name: form for form in load(name, Scene(device, size == "quick")).forms}
    bench = Bench()
    print(json.dumps({"machine": machine(device)}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        measured = bench.ask(forms[asked["form"]], asked["warm"])
        print(json.dumps({"measured": measured}), file=answers, flush=True)


if __name__ == "__main__":
    main()
