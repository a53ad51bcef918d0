"""Device policy: where tensors live, how many threads work on them, and what that costs in memory.

Everything that could change the bits of a result is decided here once, from the configuration.
"""

import os
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from dambench.display import display
from dambench.errors import BadInput


@dataclass(frozen=True)
class Policy:
    """How a run computes."""

    device: torch.device
    deterministic: bool = False
    threads: int = 0
    """0: torch's own choice."""

    def apply(self) -> None:
        """Set what torch keeps per process. Called once, before the first tensor of a run."""
        if self.threads:
            torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)
        if self.device.type == "cuda":
            if self.deterministic:
                # cuBLAS reads it when its first handle is made, which is after this.
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = not self.deterministic
            torch.backends.cudnn.deterministic = self.deterministic
            torch.cuda.set_device(self.device)

    @property
    def real_chunk(self) -> int:
        """Real images that go through a network at once while distilling.

        On a CPU the activations of few stay in the cache; a GPU wants them all. (The sums are the same but for the
        order in which they are added.)
        """
        return 16 if self.device.type == "cpu" else 2**31

    @property
    def synthetic_chunk(self) -> int:
        """Synthetic images whose gradient is taken at once; never less than those of one class."""
        return 64 if self.device.type == "cpu" else 2**31

    def test_batch(self, pixels: int) -> int:
        """Images of so many pixels per forward pass when testing: on a CPU the activations of few fit the cache."""
        most = (64 if self.device.type == "cpu" else 2048) * 32 * 32
        return min(1024, max(1, most // pixels))

    def synchronise(self) -> None:
        """Wait until the device has done all it was given. For the borders of timed phases only."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def used_bytes(self) -> int:
        """Memory in use: the allocator's on a GPU, resident memory of the process on a CPU. Waits for nothing."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return int(psutil.Process().memory_info().rss)

    def restart_peak(self) -> None:
        """Begin a new measurement of peak memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            # Linux forgets the peak of resident memory on request; elsewhere it is that of the process's life.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Peak memory since `restart_peak`: the allocator's on a GPU, resident memory of the process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def peak_reserved_bytes(self) -> int:
        """What the allocator had taken from the GPU at most since `restart_peak`; 0 on a CPU, where nothing is kept."""
        return torch.cuda.max_memory_reserved(self.device) if self.device.type == "cuda" else 0


def choose_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` → the device in full (`cpu`, `cuda:0`).

    Raises:
        BadInput: there is no such device here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    if name == "cpu":
        return name
    kind, _, index = name.partition(":")
    if kind == "cuda" and (not index or (index.isdecimal() and len(index) < 5)):
        if int(index or 0) < count:
            return f"cuda:{int(index or 0)}"
        here = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device that torch can use"
        raise BadInput(f"--device {name} is not there: this machine has {here}. Use --device auto or cpu.")
    raise BadInput(f"--device {display(name, 60)!r} is not a device: use auto, cpu, cuda or cuda:N.")
