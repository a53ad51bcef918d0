"""What a number may depend on besides its configuration: versions, device, flags, commit."""

import os
import platform
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import torch

from dambench import __version__
from dambench.core import allocator
from dambench.core.events import Environment, shown
from dambench.training.policy import CPP, Policy


def environment(policy: Policy, command_line: str, ranks: int = 0) -> Environment:
    """Look at this process, this machine and this checkout.

    Args:
        command_line: how the run was asked for.
        ranks: processes that share the run, which are named with the device; 0: there is this one.
    """
    cuda = policy.device.type == "cuda"
    commit, dirty = _git()
    here = Environment(
        dambench=__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),  # a subclass of str that JSON does not know
        torchvision=_version("torchvision"),
        cuda=torch.version.cuda or "",
        cudnn=str(torch.backends.cudnn.version() or "") if cuda else "",
        driver=_driver() if cuda else "",
        device=str(policy.device),
        device_name=(torch.cuda.get_device_name(policy.device) if cuda else _cpu_name())
        + (f", {ranks} ranks" if ranks > 1 else ""),
        device_uuid=device_uuid(policy),
        host=socket.gethostname(),
        platform=platform.platform(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=max(policy.cores, policy.threads) if policy.threads else torch.get_num_threads(),
        deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        tf32_matmul=torch.backends.cuda.matmul.allow_tf32,
        tf32_convolution=torch.backends.cudnn.allow_tf32,
        matmul_precision=torch.get_float32_matmul_precision(),
        cublas_workspace=os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
        allocator=allocator.settings(),
        compiler=compiler(policy.device.type) if policy.compiled else "",
        sqlite=sqlite3.sqlite_version,
        git_commit=commit,
        git_dirty=dirty,
        command_line=command_line,
    )
    return msgspec.structs.replace(here, **shown(msgspec.structs.asdict(here)))


def device_uuid(policy: Policy) -> str:
    """The UUID of the run's GPU; empty on a CPU."""
    return str(torch.cuda.get_device_properties(policy.device).uuid) if policy.device.type == "cuda" else ""


def compiler(kind: str) -> str:
    """Version of what torch compiles with for a kind of device; empty: it is not there."""
    if kind == "cuda":
        return f"triton {_version('triton')}" if _version("triton") else ""
    with suppress(OSError, subprocess.SubprocessError):
        text = subprocess.run([CPP, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
        return text.partition("\n")[0]
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _git() -> tuple[str, bool]:
    """The commit of the checkout that this package lies in, and whether the package differs from it."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return "", False

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    return "", False


def _driver() -> str:
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    return ""


def _cpu_name() -> str:
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


_SECRET = re.compile(r"(?i)token|secret|passw|credential|(?:^|[^a-z])(?:key|auth)$|(?:api|access|private)[-_]?key")
"""What is in the name of an option or a variable whose value is nobody's business."""

_LOOKS_SECRET = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abpr]-|AKIA)[A-Za-z0-9_-]{12,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"
)
"""As those look that well-known services give out."""

HIDDEN = "…"


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line as it may be stored and shown: a value that looks like a secret is replaced by an ellipsis.

    That is what follows `NAME=`, or comes after `--NAME`, where the name speaks of a token, a key, a password or the
    like; the user and password of a URL, and what has the form of a well-known service's token.
    """
    kept: list[str] = []
    for argument in arguments:
        before = kept[-1] if kept else ""
        if before.startswith("-") and "=" not in before and _SECRET.search(before) and not argument.startswith("-"):
            kept.append(HIDDEN)
            continue
        name, equals, value = argument.partition("=")
        if equals and _SECRET.search(name):
            value = HIDDEN
        text = re.sub(r"(\w://)[^/@\s]+@", rf"\1{HIDDEN}@", name + equals + value)
        text = re.sub(r"(?i)([?&][\w-]*(?:token|secret|passw|key|sig)[\w-]*=)[^&\s]+", rf"\1{HIDDEN}", text)
        kept.append(_LOOKS_SECRET.sub(HIDDEN, text))
    return kept
