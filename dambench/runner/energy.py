"""The energy meter: joules of a GPU's board at the borders of a run's phases.

NVML's counter of a board's energy is read where there is one (Volta or newer); else power is sampled and integrated by
the trapezoid rule. Neither is the run's alone: both are of the whole board, idle power and other processes included.
The counter moves only every 20 to 100 ms, and power is on Ampere (except GA100) and newer a mean over one second: of a
phase shorter than that there is no useful figure.

All questions are asked in a thread of its own, which may hang: a run never waits for it longer than a moment.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import pynvml

from dambench.core.events import Energy
from dambench.runner.monitor import Card, figure_of, find_card

EVERY = 1.0
"""Seconds between two looks at power and at who else is there. Asking more often slows the GPU's work."""

PATIENCE = 0.5
"""Seconds that a run waits for one reading."""

MISSES = 3
"""Readings that did not come, after which none is asked for any more."""


class EnergyMeter:
    """Reads the energy of a GPU.

    Args:
        device_uuid: of the GPU; empty: there is none, and NVML is asked nothing.
        nvml: pynvml, or something that answers like it.
    """

    def __init__(self, device_uuid: str, nvml: Any = pynvml, every: float = EVERY, patience: float = PATIENCE):
        self._device_uuid, self._nvml, self._every, self._patience = device_uuid, nvml, every, patience
        self._requests: SimpleQueue[SimpleQueue[Energy | None] | None] = SimpleQueue()
        self._misses = 0
        self._is_open = False
        if device_uuid:
            with suppress(RuntimeError):  # the machine gives no more threads
                threading.Thread(target=self._work, name="dambench energy", daemon=True).start()
                self._is_open = True

    def __call__(self) -> Energy | None:
        """Read it; None: it cannot be read, or not soon."""
        if not self._is_open or self._misses >= MISSES:
            return None
        answer: SimpleQueue[Energy | None] = SimpleQueue()
        self._requests.put(answer)
        try:
            reading = answer.get(timeout=self._patience)
        except Empty:
            self._misses += 1
            return None
        self._misses = 0
        return reading

    def close(self) -> None:
        self._is_open = False
        self._requests.put(None)

    def _work(self) -> None:
        opened = False
        try:
            self._nvml.nvmlInit()
            opened = True
            source = _Board(self._nvml, find_card(self._nvml, self._device_uuid))
            while True:
                try:
                    request = self._requests.get(timeout=self._every)
                except Empty:
                    source.look()
                    continue
                if request is None:
                    break
                request.put(source.read())
        except Exception:  # the monitor, which asks the same driver, says what is wrong
            self._is_open = False
            # Whoever asked just before is not to wait: answers are given until the meter is closed.
            while (request := self._requests.get()) is not None:
                request.put(None)
        finally:
            if opened:
                with suppress(Exception):
                    self._nvml.nvmlShutdown()


class _Board:
    """The sum of a board's energy."""

    def __init__(self, nvml: Any, handle: Any):
        self._nvml, self._handle = nvml, handle
        self._card = Card(nvml, handle)
        self._first = self._ask("energy", lambda: figure_of(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        self._integral = 0.0
        self._before: tuple[float, float] | None = None
        """When power was sampled last, and watts."""
        self._shared: bool | None = None
        self._broken = False
        self.look()

    def look(self) -> None:
        """Sample power, where there is no counter, and who else is on the card."""
        if self._first is None and not self._broken:
            watts = self._ask("power", lambda: figure_of(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000)
            now = time.monotonic()
            if watts is None:
                self._broken = True
            elif self._before is not None:
                then, watts_then = self._before
                self._integral += (now - then) * (watts + watts_then) / 2
            self._before = None if watts is None else (now, watts)
        neighbours = self._ask("neighbours", self._card.neighbours)
        if neighbours is not None:
            self._shared = bool(self._shared or neighbours)

    def read(self) -> Energy | None:
        self.look()
        shared, self._shared = self._shared, None
        if self._first is None:
            return None if self._broken else Energy(self._integral, shared)
        now = self._ask("energy", lambda: figure_of(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)))
        return None if now is None else Energy((now - self._first) / 1000, shared)

    def _ask(self, name: str, question: Callable[[], Any]) -> Any:
        return self._card.answer(name, question)
