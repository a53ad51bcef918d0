"""The policy of a run: where tensors live, in which precision, how many images at once, compiled or not.

Everything that could change the bits of a result is decided here once, from the configuration. What was measured to
pay: on a CPU micro-batches whose activations stay in the cache, sets of networks one after another; on a GPU one batch
of all classes, and few launches.
"""

import logging
import os
import resource
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar, cast

import psutil
import torch

from dambench.core import files, side_by_side
from dambench.core.config import COMPILING, PRECISIONS, Execution, Precision
from dambench.core.errors import BadInput, about, named
from dambench.core.sanitize import display
from dambench.training.ranks import ranks_here

ALL = 10**9
"""Images at once, where a device wants them all."""

CACHED_BYTES = 2**23
"""Bytes of the largest feature map of a micro-batch on a CPU. (Measured at widths 32 to 128: half of it and twice as
much cost about the same, a tenth costs small networks a factor of 4, and without a limit peak memory grows with classes
and batch.)"""

WORTH_COMPILING = {"cpu": 1_000, "cuda": 5_000}
"""Iterations from which on `--compile auto` compiles, which takes up to half a minute. On a CPU networks with BatchNorm
alone: they gain about a tenth, and others nothing over micro-batches side by side. (Not measured on a GPU.)"""

STACK = 20
"""Most networks that a GPU trains at once."""

CPP = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
"""What torch compiles with for a CPU."""

T = TypeVar("T")
R = TypeVar("R")
Y = TypeVar("Y")
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Policy:
    """How a run computes. As it is made by hand it suits a test on the CPU."""

    device: torch.device
    deterministic: bool = False
    threads: int = 0
    """Threads that share an operation; 0: torch's own choice."""
    precision: Precision = "fp32"
    """Precision of networks. `bf16` concerns the real branch: real images in a network, without gradients."""
    compiled: bool = False
    real_chunk: int = ALL
    """Real images that go through a network at once while distilling: the sums are the same but for their order."""
    synthetic_chunk: int = ALL
    """Synthetic images whose gradient is taken at once; never less than those of one class."""
    kept_steps: int = ALL
    """Steps of an unrolled student whose graphs are kept for the way back; those of the others are made again."""
    stack: int = 1
    """Networks of one architecture that are trained at once on a set."""
    workers: int = 1
    """Micro-batches that are worked on side by side, each by one thread."""
    cores: int = 1
    """Threads that may compute at once."""
    network_threads: tuple[tuple[str, int], ...] = ()
    """Evaluation networks by their full names, and how many threads share an operation of each."""

    @classmethod
    def of(cls, execution: Execution, precision: Precision, deterministic: bool) -> "Policy":
        """Make the policy of a configuration."""
        # Of a run from before the choice was recorded: all threads shared every operation.
        cores = execution.cores or execution.threads or torch.get_num_threads()
        return cls(
            torch.device(execution.device),
            deterministic,
            execution.shared_by or execution.threads,
            precision,
            execution.compiled,
            execution.real_chunk or ALL,
            execution.synthetic_chunk or ALL,
            stack=execution.stack,
            # Threads that share an operation wait for each other at its end; those that have one each need not.
            # (Compiled code has its threads built in.)
            workers=1 if execution.device != "cpu" or execution.compiled else cores,
            cores=cores,
            network_threads=tuple(execution.network_threads.items()),
        )

    @property
    def real_dtype(self) -> torch.dtype:
        """Type of the images and weights in the real branch."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def threads_of(self, network: str) -> int:
        """Threads that share an operation of an evaluation network of that full name; 0: torch's own choice."""
        return dict(self.network_threads).get(network, self.threads)

    def compile(self, function: F) -> F:
        """The function, compiled at its first call for each shape that it is called with, if this is the policy."""
        if not self.compiled:
            return function
        import torch._dynamo.config
        import torch._inductor.config

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that a CPU is no GPU
        # In this process: a pool of compilers costs more than these few kernels, and outlives a kill.
        torch._inductor.config.compile_threads = 1
        torch._inductor.config.deterministic = self.deterministic
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        return cast(F, torch.compile(function, dynamic=False))

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Call the function for each item, in their order; whether gradients are recorded is as it is here."""
        if self.workers == 1 or len(items) == 1:
            return [function(item) for item in items]
        recording = torch.is_grad_enabled()

        def work(item: T) -> R:
            with torch.set_grad_enabled(recording):
                return function(item)

        return list(_crew(self.workers).map(work, items))

    def apply(self) -> None:
        """Set what torch keeps per process. Called once, before the first tensor of a run."""
        if self.threads:
            torch.set_num_threads(self.threads)
        # As `use_deterministic_algorithms`, which imports the whole compiler first: two seconds before a run begins.
        torch.set_deterministic_debug_mode("error" if self.deterministic else "default")
        if self.compiled:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(files.home() / "compiled"))
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = self.precision != "fp32"
            torch.backends.cudnn.allow_tf32 = self.precision != "fp32"
            if self.deterministic:
                # cuBLAS reads it when its first handle is made, which is after this.
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = not self.deterministic
            torch.backends.cudnn.deterministic = self.deterministic
            torch.cuda.set_device(self.device)

    def test_batch(self, pixels: int) -> int:
        """Images of so many pixels per forward pass when testing: on a CPU the activations of few fit the cache."""
        most = (64 if self.device.type == "cpu" else 2048) * 32 * 32
        return min(1024, max(1, most // pixels))

    def synchronise(self) -> None:
        """Wait until the device has done all it was given. For the borders of timed phases only."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def used_bytes(self) -> int:
        """Memory in use: the allocator's on a GPU; on a CPU resident memory, of the process and of those that work for
        it. Waits for nothing.
        """
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return int(psutil.Process().memory_info().rss) + side_by_side.memory_bytes()

    def free_bytes(self) -> int:
        """Memory that could be had: of the GPU, or of the machine."""
        if self.device.type == "cuda":
            unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return int(torch.cuda.mem_get_info(self.device)[0]) + unused
        return int(psutil.virtual_memory().available)

    def restart_peak(self) -> None:
        """Begin a new measurement of peak memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            side_by_side.restart_peak()
            # Linux forgets the peak of resident memory on request; elsewhere it is that of the process's life.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Peak memory since `restart_peak`: the allocator's on a GPU; on a CPU resident memory of the process, and with
        it the most that processes which work for it had for themselves.
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 + side_by_side.peak_bytes()
        unit = 1 if sys.platform == "darwin" else 1024
        return side_by_side.peak_bytes() + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def peak_reserved_bytes(self) -> int:
        """Memory taken from the GPU at most since `restart_peak`; 0 on a CPU, where nothing is kept."""
        return torch.cuda.max_memory_reserved(self.device) if self.device.type == "cuda" else 0


def until_it_fits(
    attempt: Callable[[], Generator[Y, None, R]],
    take_less: Callable[[str], Iterator[Y]],
    stuck: Callable[[], bool] = lambda: False,
) -> Generator[Y, None, R]:
    """Try again where the GPU's memory was too small for an attempt, each time with less at once.

    Args:
        attempt: what it makes is its own until it returns, so that all of it is freed if it fails.
        take_less: changes what the next attempt does; it is told the first line of torch's reason.
        stuck: whether nothing less can be tried: the error is raised as it came.
    """
    while True:
        try:
            return (yield from attempt())
        except torch.OutOfMemoryError as error:
            if stuck():
                raise
            reason = str(error).partition("\n")[0]
        # Outside of `except`: what the error keeps alive is freed first.
        yield from take_less(reason)
        torch.cuda.empty_cache()


@cache
def _crew(workers: int) -> ThreadPoolExecutor:
    # A thread's number of threads is its own affair: that of the others stays as it is.
    return ThreadPoolExecutor(workers, "micro-batch", lambda: torch.set_num_threads(1))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # its threads are not there


@about("device")
def choose_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` → the device in full (`cpu`, `cuda:0`).

    Raises:
        BadInput: there is no such device here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = name.strip().lower()
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


@about("device")
def choose_devices(name: str, ranks: int | None) -> tuple[str, ...]:
    """The devices of the processes that are to share a run, in full, from one device or several: `cuda:0,1`.

    Args:
        ranks: how many processes; None: one for each device that is named.

    Raises:
        BadInput: there are no such devices here, or not so many.
    """
    first, *more = [part.strip() for part in name.split(",")]
    kind = first.partition(":")[0]
    devices = [choose_device(first), *(choose_device(f"{kind}:{part}" if part.isdecimal() else part) for part in more)]
    if ranks is None or ranks == len(devices):
        if len(set(devices)) < len(devices) and devices[0] != "cpu":
            raise BadInput(f"--device {name} names a GPU twice: a run that several processes share needs one for each.")
        return tuple(devices)
    if more:
        raise BadInput(f"--device {name} names {len(devices)} devices, and --ranks {ranks} asks for {ranks} processes.")
    if devices[0] == "cpu":
        return ("cpu",) * ranks
    count, here = torch.cuda.device_count(), ranks_here(ranks)
    if ":" in first or count < here:
        there = f"{first} is one" if ":" in first else f"this machine has {count}"
        raise BadInput(
            f"--ranks {ranks} needs {here} GPUs, and {there}: name them, as --device cuda:0,1, or take --device cpu."
        )
    return tuple(f"cuda:{rank % here}" for rank in range(ranks))


@about("precision")
def choose_precision(name: str | None, device: str) -> Precision:
    """`auto` is float32 on a CPU, and on a GPU float32 tensors whose products are rounded to TF32.

    Raises:
        BadInput: there is no such precision on this device.
    """
    precision = "auto" if name is None else named("precision", name, ("auto", *PRECISIONS))
    if precision == "auto":
        return "fp32" if device == "cpu" else "tf32"
    if precision == "tf32" and device == "cpu":
        raise BadInput("--precision tf32 is for GPUs: a CPU has fp32 and bf16.")
    return cast(Precision, precision)


def has_bf16(device: str) -> bool:
    """Whether it multiplies bfloat16 numbers itself. (Others do it by float32: that takes longer than float32.)"""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(there is True for name, there in capabilities.items() if name.endswith("bf16"))


@about("compile")
def choose_compiling(choice: str | None, device: str, iterations: int, batch_norm: bool) -> tuple[bool, str]:
    """Decide whether to compile; and a note, where a choice cannot be met.

    Args:
        choice: `auto`, `on` or `off`; auto compiles where it pays, and a compiler is at hand.
        batch_norm: whether the network that is matched on has it.

    Raises:
        BadInput: it is none of the three.
    """
    choice = "auto" if choice is None else named("way to compile", choice, COMPILING)
    kind = device.partition(":")[0]
    pays = iterations >= WORTH_COMPILING[kind] and (batch_norm or kind != "cpu")
    if choice == "off" or (choice != "on" and not pays):
        return False, ""
    missing = _missing_compiler(kind)
    return not missing, f"It runs uncompiled: {missing}." if missing else ""


def _missing_compiler(kind: str) -> str:
    if kind == "cuda" and find_spec("triton") is None:
        return "torch compiles for a GPU with triton, which is not installed"
    return "" if shutil.which(CPP) else f"torch compiles with {CPP}, which is not there"


def micro_batch(device: str, map_bytes: int) -> int:
    """The number of images that should go through a network at once; 0: all.

    Args:
        map_bytes: of the largest map that the network makes of one image, in float32.
    """
    return max(1, CACHED_BYTES // map_bytes) if device == "cpu" else 0
