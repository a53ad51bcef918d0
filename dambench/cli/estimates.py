"""What runs would take of which the database has none of their kind: a few steps of each, in a process of its own.

It is ended when patience is, whatever it does then; what it holds, a claim on experts or the memory of a GPU, ends with
it, and its settings of torch are not ours.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from typing import Any, NamedTuple

import msgspec

from dambench.core import config, registry
from dambench.core import sweep as grids
from dambench.core.config import Request
from dambench.core.errors import BadInput, NotEnoughMemory
from dambench.core.hard_labels import wants_twin
from dambench.core.sanitize import display

PATIENCE = 30.0
"""Seconds that a plan measures for, all its runs together."""
SHORTEST, LONGEST = 0.5, 8.0
"""Seconds that a phase of one run is measured, after its first step."""


class MeasuredCost(NamedTuple):
    """What a run would take by a few of its steps."""

    seconds: float
    """Without what it shares with other runs."""
    shared_seconds: float | None
    """The training of networks on the real images; None: it needs none, or they are kept."""
    peak_bytes: int
    disk_bytes: int


def estimates() -> None:
    """Answer what runs would take: each line is the JSON of a request, and how long a phase of it is measured."""
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            with redirect_stdout(sys.stderr):
                answer = _estimate(asked["request"], asked["longest"])
        except (BadInput, NotEnoughMemory) as error:
            answer = {"error": display(str(error), 500)}
        print(json.dumps(answer), flush=True)


def _estimate(fields: dict[str, Any], longest: float) -> dict[str, Any]:
    from dambench import engine
    from dambench.engine.estimate import estimate

    request = config.read(Request, fields, "the request")
    job = engine.prepare(request, lambda text: None)
    if job.config.execution.devices:
        raise BadInput("what several processes that share a run take is not measured")
    with registry.stdout_to_stderr(), registry.guarded("methods", job.config.method.name):
        found = estimate(job, hard_twin=wants_twin(request), longest=longest)
    return dict(msgspec.to_builtins(found)) | {"device": job.config.execution.device}


def measure(requests: Sequence[Request], patience: float) -> list[MeasuredCost | str]:
    """Measure a few steps of runs, one after another, for as long as there is patience.

    Returns:
        What each would take, or why that is not known; as many as were come to.
    """
    if not requests:
        return []
    longest = min(LONGEST, max(SHORTEST, patience / (4 * len(requests))))
    lines = [json.dumps({"request": grids.file_of(request), "longest": longest}) for request in requests]
    child = subprocess.Popen(
        [sys.executable, "-m", "dambench", "estimates"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl+C is ours, and so is its end
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        answers = _answers(child, "".join(f"{line}\n" for line in lines).encode(), len(lines), patience)
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    return [_measured(answer) for answer in answers]


def _answers(child: "subprocess.Popen[bytes]", text: bytes, count: int, patience: float) -> list[dict[str, Any]]:
    """The lines that a process answers until it ends, or patience does."""
    assert child.stdin is not None
    assert child.stdout is not None
    os.set_blocking(child.stdin.fileno(), False)
    until, received, left = time.monotonic() + patience, b"", memoryview(text)
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdin, selectors.EVENT_WRITE)
        selector.register(child.stdout, selectors.EVENT_READ)
        while received.count(b"\n") < count and (rest := until - time.monotonic()) > 0:
            for key, _ in selector.select(rest):
                if key.fileobj is child.stdout:
                    part = os.read(child.stdout.fileno(), 1 << 16)
                    received += part
                    if not part:
                        until = 0.0
                elif left:
                    try:
                        left = left[os.write(child.stdin.fileno(), left[: 1 << 15]) :]
                    except OSError:  # it has ended
                        selector.unregister(child.stdin)
                else:
                    selector.unregister(child.stdin)
                    child.stdin.close()
    return [json.loads(line) for line in received.split(b"\n")[:-1]]


def _measured(answer: dict[str, Any]) -> MeasuredCost | str:
    if "error" in answer:
        return str(answer["error"])
    by_phase = dict(answer["seconds"])
    shared = by_phase.pop("experts", None)
    # On a processor it is the memory of a process that has measured others before.
    peak = max(answer["peak_memory_bytes"].values()) if answer["device"] != "cpu" else 0
    return MeasuredCost(sum(by_phase.values()), shared, int(peak), int(answer["disk_bytes"]))
