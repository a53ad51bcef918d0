"""The monitor of a run's machine, and the reasons why there may be no GPU: NVML for the GPU, psutil for the host.

A sample is never worth a run. All questions are asked in a thread of its own, which may hang or break: then samples
stop, and a note says so. The GPU is found by its UUID, since CUDA_VISIBLE_DEVICES changes its number, and opened
once: opening it for every sample took 80 % of a core (wookayin/gpustat#54). In containers NVML gives process ids as
the host counts them (Syllo/nvtop#149, XuehaiPan/nvitop#134); under MIG it knows no utilisation (Syllo/nvtop#256).
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import psutil
import pynvml

from dambench.core import side_by_side
from dambench.core.events import AnyEvent, Failed, Finished, Neighbour, Resumed, Sampled, Started, Stopped, Warned
from dambench.core.sanitize import display

T = TypeVar("T")

SAMPLE_SECONDS = 1.0
"""Seconds between two samples. Asking every 0.1 s slows the GPU's work (Syllo/nvtop#365)."""

DRIVER_SECONDS = 10.0
"""Seconds that a question may take before it is called hanging. Without persistence mode, or with many GPUs, the
first one takes several."""

PATIENCE_AT_THE_END = 1.0
"""The same when the run is over, and no later call can notice it."""

FAREWELL = 0.25
"""Seconds that the end of a run waits for a last sample at most."""

MOST_SAMPLES = 1000
"""Samples that wait to be events. Of more, the oldest are forgotten."""

LEAST_SPAN = 0.1
"""Seconds. CPU time is counted in hundredths of a second: over less it says nothing."""

NO_LIBRARY = (
    "The NVIDIA driver is not there (libnvidia-ml.so.1 was not found): install it, or start the container with "
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility."
)
NO_DRIVER = "The NVIDIA driver is installed but not loaded: `sudo modprobe nvidia` loads it, or says why it cannot be."
MISMATCH = (
    "The NVIDIA driver was updated while it was loaded, and its library no longer fits it: restart the machine (a "
    "container: make it anew)."
)
NO_PERMISSION = (
    "This user may not ask the NVIDIA driver: get access to /dev/nvidia* (often by the group video; in a batch job by "
    "asking for a GPU)."
)
UNKNOWN_GPU = "The NVIDIA driver does not know the GPU that torch uses: `nvidia-smi -L` lists those it knows."
NO_GPU = "The NVIDIA driver finds no GPU: `lspci | grep -i nvidia` shows whether one is built in."

_TROUBLES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NO_LIBRARY,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NO_DRIVER,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: MISMATCH,
    pynvml.NVML_ERROR_NO_PERMISSION: NO_PERMISSION,
    pynvml.NVML_ERROR_NOT_FOUND: UNKNOWN_GPU,
    pynvml.NVML_ERROR_INVALID_ARGUMENT: UNKNOWN_GPU,  # the only argument of ours is its UUID
}


def trouble(error: Exception) -> str:
    """Explain an answer of NVML, and what to do next."""
    explanation = _TROUBLES.get(error.value) if isinstance(error, pynvml.NVMLError) else None
    return (
        explanation
        or f"NVML cannot be asked ({type(error).__name__}: {display(str(error))}): see what `nvidia-smi` says."
    )


def explain(cuda: str, devices: int, nvml: Any = pynvml, environ: Mapping[str, str] = os.environ) -> str:
    """Explain why torch has no GPU here or, where it has one, why NVML cannot be asked; empty: neither is so.

    Args:
        cuda: the version that torch is built with; empty: none.
        devices: how many GPUs torch can use.
    """
    try:
        nvml.nvmlInit()
    except Exception as error:
        return trouble(error)
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        if devices:
            return ""
        if not handles:
            return NO_GPU
        name = str(nvml.nvmlDeviceGetName(handles[0]))
        if not cuda:
            return f"This machine has an {name}, but torch is built without CUDA: install a build for it (pytorch.org)."
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None and _hides(visible, [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]):
            hides = f"CUDA_VISIBLE_DEVICES={visible!r} hides the {name}"
            return f"{hides}: unset it, or name a GPU that `nvidia-smi -L` lists."
        if any(_in_mig_mode(nvml, handle) for handle in handles):
            return (
                f"The {name} is in MIG mode, and torch sees none of its instances: `nvidia-smi -L` lists them, "
                "CUDA_VISIBLE_DEVICES=MIG-… chooses one, `sudo nvidia-smi mig -cgi 0 -C` makes one."
            )
        driver = str(nvml.nvmlSystemGetDriverVersion())
        return (
            f"torch cannot use the {name}: its driver {driver} may be too old for CUDA {cuda}. Update it, or install "
            "a torch for an older CUDA (pytorch.org)."
        )
    except Exception as error:
        return trouble(error)
    finally:
        with suppress(Exception):
            nvml.nvmlShutdown()


class Tenant(NamedTuple):
    """A process that computes on a GPU."""

    pid: int
    name: str
    user: str
    """Empty: not known, as in a container."""
    memory_bytes: int | None


class Glance(NamedTuple):
    """A GPU as it is now; None: the driver does not tell."""

    name: str
    used_bytes: int | None
    total_bytes: int | None
    busy_percent: int | None
    tenants: list[Tenant] | None


def look(nvml: Any = pynvml) -> tuple[list[Glance], str]:
    """All GPUs and who uses them; or why none can be seen. May take seconds."""
    try:
        nvml.nvmlInit()
    except Exception as error:
        return [], trouble(error)
    try:
        cards = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            card = Card(nvml, handle)
            answers = card.ask()
            cards.append(
                Glance(
                    name=str(nvml.nvmlDeviceGetName(handle)),
                    used_bytes=answers["gpu_memory_used_bytes"],
                    total_bytes=answers["gpu_memory_total_bytes"],
                    busy_percent=answers["gpu_busy_percent"],
                    tenants=card.answer("tenants", card.tenants),
                )
            )
        return cards, "" if cards else NO_GPU
    except Exception as error:
        return [], trouble(error)
    finally:
        with suppress(Exception):
            nvml.nvmlShutdown()


def _user(pid: int) -> str:
    # In a container the driver's numbers are the host's: here they would name somebody else's process.
    with suppress(Exception):
        return "" if _contained() else display(psutil.Process(pid).username())
    return ""


def _hides(visible: str, uuids: list[str]) -> bool:
    """Tell whether that CUDA_VISIBLE_DEVICES leaves no GPU: CUDA stops at the first entry that names none."""
    first = visible.split(",")[0].strip()
    if first.startswith("MIG-"):
        return False  # it may name an instance that is gone: that is a matter of MIG
    if first.startswith("GPU-"):
        return not any(uuid.startswith(first) for uuid in uuids)
    return not (first.isdecimal() and int(first) < len(uuids))


def _in_mig_mode(nvml: Any, handle: Any) -> bool:
    with suppress(Exception):
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    return False


def sampled(events: Iterator[AnyEvent], nvml: Any = pynvml, since: float = 0.0) -> Generator[AnyEvent, None, None]:
    """The events of a run, each after the samples that were taken since the one before. The last one stays last.

    Args:
        since: seconds since the run was started, where it is resumed.
    """
    for event in events:
        yield event
        if isinstance(event, Started | Resumed):
            break
    else:
        return
    with Monitor(event.environment.device_uuid, nvml, since=since) as monitor:
        for event in events:
            if isinstance(event, Finished | Failed | Stopped):
                monitor.stop()
            yield from monitor.take()
            yield event


class Monitor:
    """Samples a run's machine in a thread.

    Args:
        device_uuid: of the GPU that the run uses; empty: it uses none, and NVML is asked nothing.
        nvml: pynvml, or something that answers like it.
        every: seconds between two samples.
        since: seconds since the run was started.
    """

    def __init__(
        self,
        device_uuid: str = "",
        nvml: Any = pynvml,
        every: float = SAMPLE_SECONDS,
        patience: float = DRIVER_SECONDS,
        since: float = 0.0,
    ):
        self._since = since
        self._device_uuid = device_uuid
        self._nvml = nvml
        self._every = every
        self._patience = patience
        self._samples: deque[Sampled | Warned] = deque(maxlen=MOST_SAMPLES)
        self._closing = threading.Event()
        self._query_began: float | None = None
        """When the questions under way began; None: none are."""
        self._noticed = False
        self._thread = threading.Thread(target=self._work, name="dambench monitor", daemon=True)

    def __enter__(self) -> Self:
        self._began = time.monotonic() - self._since
        with suppress(RuntimeError):  # the machine gives no more threads
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take a last sample, if that is quickly done, and end."""
        if not self._closing.is_set():
            self._closing.set()
            if self._thread.is_alive():
                self._thread.join(FAREWELL)

    def take(self) -> list[Sampled | Warned]:
        """Take what was sampled and noticed since the last call, without waiting."""
        events: list[Sampled | Warned] = []
        with suppress(IndexError):
            while True:
                events.append(self._samples.popleft())
        if not self._noticed and self._hangs():
            self._noticed = True
            source = "NVML" if self._device_uuid else "This machine"
            events.append(Warned(message=f"{source} does not answer: there are no samples of this run until it does."))
        return events

    def _hangs(self) -> bool:
        began = self._query_began
        if began is None or not self._thread.is_alive():
            return False
        patience = min(self._patience, PATIENCE_AT_THE_END) if self._closing.is_set() else self._patience
        return time.monotonic() - began > patience

    def _work(self) -> None:
        card = None
        try:
            self._query_began = time.monotonic()
            host = _Host()
            card = self._open()
            while True:
                last = self._closing.is_set()
                self._query_began = time.monotonic()
                fields = host.ask() | (card.ask() if card else {})
                self._samples.append(Sampled(seconds=round(time.monotonic() - self._began, 3), **fields))
                self._query_began = None
                if last:
                    break
                self._closing.wait(self._every)
        except Exception as error:  # a fault of ours: each question has its own net
            reason = f"{type(error).__name__}: {display(str(error))}"
            self._samples.append(Warned(message=f"Sampling broke ({reason}): the run goes on."))
        finally:
            self._query_began = None
            if card:
                with suppress(Exception):
                    self._nvml.nvmlShutdown()

    def _open(self) -> "Card | None":
        if not self._device_uuid:
            return None
        try:
            self._nvml.nvmlInit()
            return Card(self._nvml, find_card(self._nvml, self._device_uuid))
        except Exception as error:
            self._samples.append(Warned(message=f"No samples of the GPU. {trouble(error)}"))
            return None


def find_card(nvml: Any, uuid: str) -> Any:
    """The GPU, or the MIG instance, of a UUID. torch leaves out the prefix, which tells the two apart."""
    names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
    for name in names[:-1]:
        try:
            return nvml.nvmlDeviceGetHandleByUUID(name)
        except pynvml.NVMLError as error:
            if error.value not in (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT):
                raise
    return nvml.nvmlDeviceGetHandleByUUID(names[-1])


class _Questions:
    """Asks; what could not be answered once is None and not asked again."""

    def __init__(self) -> None:
        self._silent: set[str] = set()

    def answer(self, name: str, question: Callable[[], T]) -> T | None:
        if name in self._silent:
            return None
        try:
            return question()
        except Exception:
            self._silent.add(name)
            return None


class _Host(_Questions):
    def __init__(self) -> None:
        super().__init__()
        self._process = psutil.Process()
        self._looked = time.monotonic()
        self._spent = self.answer("cpu", self._cpu_seconds) or 0.0

    def ask(self) -> dict[str, Any]:
        memory = self.answer("host", lambda: psutil.virtual_memory())
        return {
            "process_memory_bytes": self.answer(
                "memory", lambda: int(self._process.memory_info().rss) + side_by_side.memory_bytes()
            ),
            "process_cpu_percent": self.answer("cpu", self._cpu_percent),
            "host_memory_used_bytes": memory and int(memory.total - memory.available),
            "host_memory_total_bytes": memory and int(memory.total),
        }

    def _cpu_seconds(self) -> float:
        own = self._process.cpu_times()
        spent = own.user + own.system + own.children_user + own.children_system
        for pid in side_by_side.pids():
            with suppress(psutil.Error):
                others = psutil.Process(pid).cpu_times()
                spent += others.user + others.system
        return float(spent)

    def _cpu_percent(self) -> float | None:
        span = time.monotonic() - self._looked
        if span < LEAST_SPAN:
            return None
        before, self._spent = self._spent, self._cpu_seconds()
        self._looked += span
        return round(100 * (self._spent - before) / span, 1)


class Card(_Questions):
    """Questions to a card."""

    def __init__(self, nvml: Any, handle: Any):
        super().__init__()
        self._nvml = nvml
        self._handle = handle
        self._names: dict[int, str] = {}

    def ask(self) -> dict[str, Any]:
        nvml, handle = self._nvml, self._handle

        def memory() -> tuple[int, int]:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            return figure_of(memory.used), figure_of(memory.total)

        used, total = self.answer("memory", memory) or (None, None)
        return {
            "gpu_memory_used_bytes": used,
            "gpu_memory_total_bytes": total,
            "gpu_busy_percent": self.answer("busy", lambda: figure_of(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            "gpu_watts": self.answer("power", lambda: figure_of(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000),
            "gpu_celsius": self.answer(
                "temperature", lambda: figure_of(nvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
            ),
            "gpu_millijoules": self.answer(
                "energy", lambda: figure_of(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            ),
            "gpu_neighbours": self.answer("neighbours", self.neighbours),
        }

    def neighbours(self) -> list[Neighbour] | None:
        """The processes that compute on the card and are not this one; a screen's, which draw, are not asked for.

        Where ids are those of the host, the only process on the card is taken for this one; of several nobody can
        tell which it is, and all are listed. None: this one is not seen, and so others might not be either.
        """
        listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        pids = [int(process.pid) for process in listed]
        if os.getpid() in pids:
            listed = [process for process in listed if process.pid != os.getpid()]
        elif not pids:
            return None
        elif len(pids) == 1 and (_contained() or not psutil.pid_exists(pids[0])):
            return []
        return [
            Neighbour(pid=int(process.pid), name=self._name(int(process.pid)), memory_bytes=process.usedGpuMemory)
            for process in listed
        ]

    def tenants(self) -> list[Tenant]:
        """All processes that compute on the card."""
        listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return [Tenant(int(p.pid), self._name(int(p.pid)), _user(int(p.pid)), p.usedGpuMemory) for p in listed]

    def _name(self, pid: int) -> str:
        if pid not in self._names:
            self._names[pid] = ""
            with suppress(Exception):
                self._names[pid] = display(Path(str(self._nvml.nvmlSystemGetProcessName(pid))).name)
        return self._names[pid]


def figure_of(value: Any) -> int:
    """A figure as NVML gives it. All bits set is its way to say «not available», and no database could hold it."""
    figure = int(value)
    if not 0 <= figure < 2**63:
        raise ValueError(f"{figure} is no figure")
    return figure


def _contained() -> bool:
    """Tell whether this process is in a container that counts processes by itself; Linux numbers the host's own so."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid") != "pid:[4026531836]"
    return False
