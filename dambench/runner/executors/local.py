"""Local executor: each run is a process of its own on this machine, as with `dambench run --detach`.

Each GPU gets one run at a time; several where more workers than GPUs were asked for, and the memory that runs of their
kind have taken says that they fit together. On the processors there are as many runs as their threads leave room for.
"""

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.runner.executors import Outcome, Site, Wishes, environment_of
from dambench.runner.executors.devices import Device, chosen, processors
from dambench.store.queue import Queue, Queued
from dambench.store.rows import RunRow

SHARE = 0.85
"""The part of a GPU's memory that runs which share it may take together, by what runs of their kind have taken."""
LONGEST_REASON = 400


@dataclass
class LocalHandle:
    """A queued run, and its process where we began it."""

    queued: Queued
    device: str
    """Which it was given; empty: it had one already, or needs none."""
    child: processes.Child | None = None
    """None: the run goes on already, and is followed."""
    asked: bool = False
    """To stop."""


def _request_of(queued: Queued) -> Path:
    """The file with its request, until that has been read. It is the same for whichever worker takes the run, so that
    none stays behind one that was killed."""
    return files.home() / "requests" / f"{queued.uid}.toml"


def open(site: Site, wishes: Wishes) -> "LocalExecutor":
    """Open it.

    Raises:
        BadInput: a device is not there, or something was asked that is of another executor.
    """
    if wishes.options:
        option = min(wishes.options)
        raise BadInput(f"--{option} is not of the local executor, which runs everything on this machine.")
    return LocalExecutor(site, chosen(wishes.devices), wishes.workers)


class LocalExecutor:
    """Where runs are processes of this machine.

    Args:
        workers: how many runs at once; None: one on each GPU, or as many as the processors have room for.
    """

    def __init__(self, site: Site, devices: Sequence[Device], workers: int | None):
        self._site, self._devices, self._workers = site, list(devices), workers
        self._processors = processors()
        gpus = sum(device.name != "cpu" for device in devices)
        self.slots = workers or (self._processors if len(devices) > gpus else 0) + gpus
        self.devices = [device.name for device in devices]
        self._handles: list[LocalHandle] = []

    def fits(self, queued: Queued) -> bool:
        return len(self._handles) < self.slots and self._place_for(queued) is not None

    def _place_for(self, queued: Queued) -> str | None:
        """The device that a run could be given now; None: none."""
        row = None if queued.command == "experts" else self._row(queued)
        if row is not None and processes.state(row, acting=True) in processes.ALIVE:
            return ""  # it is followed where it is
        # What has begun goes on where it was.
        wanted = queued.device if row is None else str(json.loads(row.config).get("where", {}).get("device", ""))
        free = [
            device.name
            for device in self._devices
            if (not wanted or device.name == wanted or device.name.startswith(f"{wanted}:"))
            and self._has_room(device, queued)
        ]
        # The one with the fewest on it: two small runs share a GPU only when all have one.
        return min(free, key=self._load, default=None)

    def _load(self, device: str) -> int:
        return sum(handle.device == device for handle in self._handles)

    def _has_room(self, device: Device, queued: Queued) -> bool:
        beside = [handle.queued for handle in self._handles if handle.device == device.name]
        if not beside:
            return True
        if device.name == "cpu":
            threads = sum(one.threads or self._processors for one in (*beside, queued))
            return self._workers is not None or threads <= self._processors
        if self._workers is None or self._workers <= len(self._devices):
            return False
        needs = [one.peak_memory_bytes for one in (*beside, queued)]
        known = [need for need in needs if need]
        return (
            device.memory_bytes is not None and len(known) == len(needs) and sum(known) <= SHARE * device.memory_bytes
        )

    def start(self, queued: Queued) -> LocalHandle:
        row = None if queued.command == "experts" else self._row(queued)
        handle = LocalHandle(queued, self._place_for(queued) or "")
        self._handles.append(handle)
        try:
            if row is None:
                self._begin(handle)
            elif processes.state(row, acting=True) in ("stopped", "lost", "failed"):
                self._launch(handle, ["resume", row.id, "--headless"])
        except BaseException:
            self._handles.remove(handle)
            raise
        return handle

    def _begin(self, handle: LocalHandle) -> None:
        queued = handle.queued
        if queued.command == "run":
            request = dict(queued.request)
            if handle.device and request.get("device", "auto") == "auto":
                request["device"] = handle.device
            path = _request_of(queued)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tomli_w.dumps(request))
            self._launch(handle, ["run", str(path), "--headless"])
            return
        words = [str(word) for word in queued.request.get("words", [])]
        device = ["--device", handle.device] if handle.device and "--device" not in words else []
        if queued.command == "experts":
            self._launch(handle, ["experts", "train", *words, *device], database=False)
            return
        made = self._site.store.with_uid(str(queued.request.get("of", "")))
        if made is None:  # where the run that was queued had been made before
            before = Queue(self._site.store).with_uids(queued.after)
            made = next((row for one in before if (row := self._site.store.with_uid(one.run))), None)
        if made is None:
            raise BadInput("The run whose set is to be evaluated is not in the database.")
        self._launch(handle, ["evaluate", made.id, *words, *device])

    def _launch(self, handle: LocalHandle, words: Sequence[str], *, database: bool = True) -> None:
        place = ["--db", str(self._site.path.absolute())] if database else []
        handle.child = processes.launch([*words, *place], environment_of(handle.queued))

    def poll(self, handle: LocalHandle) -> Outcome | None:
        outcome = self._look(handle)
        if outcome is not None:
            self._handles.remove(handle)
            _request_of(handle.queued).unlink(missing_ok=True)
            if handle.child is not None:
                handle.child.let_go()
        return outcome

    def _look(self, handle: LocalHandle) -> Outcome | None:
        child, code = handle.child, None
        if child is not None:
            if child.hear() and child.run:
                _request_of(handle.queued).unlink(missing_ok=True)
            code = child.ended()
            if code is None:
                return None
        if handle.queued.command == "experts":
            return self._by_code(handle, code)
        row = self._row(handle.queued)
        if row is None and child is not None and child.run:
            row = self._site.store.with_id(child.run)  # another had done the same before
        if row is None:
            return self._by_code(handle, code)
        stands = processes.state(row, acting=True)
        if stands in processes.ALIVE:
            if child is not None:  # another process was faster, and goes on with it: it is followed
                child.let_go()
                handle.child = None
            return None
        if stands == "finished":
            return Outcome("finished", run=row.uid)
        if code == 2 and stands in ("stopped", "lost", "failed"):
            return Outcome("failed", self._last_words(handle))  # it could not be gone on with
        if stands == "failed":
            return Outcome("failed", display(row.error, LONGEST_REASON))
        return Outcome(stands if stands in ("stopped", "lost") else "lost", display(row.error, LONGEST_REASON))

    def _by_code(self, handle: LocalHandle, code: int | None) -> Outcome:
        """How a process without a run ended."""
        if code == 0 and handle.queued.command == "experts":
            return Outcome("finished")
        if code == 0:
            return Outcome("failed", "its process ended well, and its run is not in the database")
        if handle.asked or code in (129, 130, 143):
            return Outcome("stopped", "stopped before it began")
        if code is None or code < 0:
            return Outcome("lost", "its process was killed before it began")
        return Outcome("failed", self._last_words(handle))

    def _last_words(self, handle: LocalHandle) -> str:
        """The last line that a process said, which is why it ended."""
        if handle.child is None:
            return ""
        try:
            with handle.child.log.open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - 4 * LONGEST_REASON))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return display(lines[-1].removeprefix("dambench: "), LONGEST_REASON) if lines else ""

    def _row(self, queued: Queued) -> RunRow | None:
        row = self._site.store.with_uid(queued.run)
        return None if row is None or row.deleted_at else row

    def stop(self, handle: LocalHandle) -> None:
        row = None if handle.queued.command == "experts" else self._row(handle.queued)
        if handle.asked:
            return  # a second signal would end it at once, without a checkpoint
        if row is None or processes.state(row, acting=True) not in processes.ALIVE:
            if handle.child is not None:
                handle.child.terminate()
                handle.asked = True
        elif processes.is_here(row):
            handle.asked = processes.send(row, signal.SIGTERM)
        else:
            self._site.store.edit(row.id, "stop_asked", row.attempt)
            handle.asked = True

    def close(self) -> None:
        for handle in self._handles:
            if handle.child is not None:
                handle.child.let_go()
        self._handles.clear()
