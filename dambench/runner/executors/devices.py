"""Devices of this machine that runs can be given: its GPUs, and its processors."""

import os
import re
from typing import Any, NamedTuple

import pynvml

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.runner.monitor import look


class Device(NamedTuple):
    """A device as `--device` names it."""

    name: str
    memory_bytes: int | None = None
    """A GPU's; None: not known."""


def named_devices(text: str) -> tuple[str, ...]:
    """The devices that `--device` names: `cuda:0,1` are two GPUs.

    Raises:
        BadInput: that is no list of devices.
    """
    names: list[str] = []
    for part in (part.strip().lower() for part in text.split(",")):
        if part.isdigit() and names and names[-1].startswith("cuda:"):
            part = f"cuda:{part}"
        part = "cuda:0" if part == "cuda" else part
        if not (part == "cpu" or re.fullmatch("cuda:(0|[1-9][0-9]{0,2})", part)):
            raise BadInput(f"--device {display(text, 60)!r} is no list of devices, such as cuda:0,1 or cpu.")
        if part in names:
            raise BadInput(f"--device {display(text, 60)!r} says {part} twice.")
        names.append(part)
    return tuple(names)


def gpus(nvml: Any = pynvml) -> list[Device]:
    """The GPUs that a process started here would see, by the number that it has for each."""
    glances, _ = look(nvml)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [Device(f"cuda:{number}", glance.total_bytes) for number, glance in enumerate(glances)]
    found: list[Device] = []
    for entry in (entry.strip() for entry in visible.split(",")):
        if not glances or not entry or entry.startswith("-"):
            break  # CUDA, too, stops at the first entry that names none
        known = entry.isdigit() and int(entry) < len(glances)
        if entry.isdigit() and not known:
            break
        found.append(Device(f"cuda:{len(found)}", glances[int(entry)].total_bytes if known else None))
    return found


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen(names: tuple[str, ...]) -> list[Device]:
    """The devices of these names; none named: all GPUs, or where there are none the processors.

    Raises:
        BadInput: one is not there.
    """
    if names and not any(name.startswith("cuda") for name in names):
        return [Device(name) for name in names]
    there = {device.name: device for device in gpus()}
    if not names:
        return [*there.values()] or [Device("cpu")]
    missing = [name for name in names if name != "cpu" and name not in there]
    if missing:
        has = f"it has {', '.join(there)}" if there else "it has no GPU that can be used"
        raise BadInput(f"There is no {missing[0]} on this machine: {has}.")
    return [there.get(name, Device(name)) for name in names]
