"""`dambench doctor`: what this machine has, and where things lie."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from getpass import getuser
from pathlib import Path

from dambench import __version__
from dambench.cli.options import Db, Json
from dambench.cli.output import table
from dambench.core import allocator, files, registry
from dambench.core.errors import BadInput
from dambench.core.filesystem import disk_of
from dambench.core.sanitize import counted
from dambench.core.units import size
from dambench.runner import monitor
from dambench.store import journal, runs

Check = tuple[str, str, str]
"""What was looked at, `ok` or `wrong`, and what was found."""


def doctor(as_json: Json = False, db: Db = None) -> int:
    """What this machine has, and where things lie. Exit code 1 if something is wrong."""
    checks = examine(db or runs.default_path())
    if as_json:
        print(json.dumps([{"what": what, "state": state, "detail": detail} for what, state, detail in checks]))
    else:
        table(["what", "", "detail"], [list(check) for check in checks])
    return 1 if any(state == "wrong" for _, state, _ in checks) else 0


def _patiently(question: Callable[[], str]) -> str:
    """What a driver answers, which may hang."""
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(question()), daemon=True)
    asking.start()
    asking.join(monitor.DRIVER_SECONDS)
    return (
        answers[0] if answers else f"The NVIDIA driver has not answered for {monitor.DRIVER_SECONDS:.0f} s: it hangs."
    )


def examine(path: Path) -> list[Check]:
    """Look at everything a run needs.

    Args:
        path: the database.
    """
    checks: list[tuple[str, str, str]] = [("dambench", "ok", f"{__version__}, Python {sys.version.split()[0]}")]
    try:
        import torch
        import torchvision

        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        checks.append(("torch", "ok", f"{torch.__version__} ({build}), torchvision {torchvision.__version__}"))
        from dambench.training.environment import compiler, environment
        from dambench.training.policy import WORTH_COMPILING, Policy, choose_device

        here = environment(Policy(torch.device(choose_device("auto"))), "")
        driver = f", driver {here.driver}" if here.driver else ""
        checks.append(("device", "ok", f"{here.device}: {here.device_name}, {counted(here.threads, 'thread')}{driver}"))
        devices = torch.cuda.device_count() if here.device != "cpu" else 0
        kind = here.device.partition(":")[0]
        compiled_by = compiler(kind)
        which = " on networks with BatchNorm" if kind == "cpu" else ""
        follows = f"runs of {WORTH_COMPILING[kind]:,} iterations and more{which} are compiled"
        checks.append(("compiler", "ok", f"{compiled_by}: {follows}" if compiled_by else "none: runs are not compiled"))
        if kind != "cpu":
            checks.append(("engine", "ok", "the GPU path has not been measured yet: no figure of the README is of it"))
        if why := _patiently(lambda: monitor.explain(torch.version.cuda or "", devices)):
            follows = "Runs take it all the same, without samples of it." if devices else "Runs take the CPU."
            checks.append(("GPU", "ok", f"{why} {follows}"))
    except (ImportError, RuntimeError) as error:
        checks.append(("torch", "wrong", f"cannot be imported: {error}"))
    checks += _from_outside()
    if allocator.applies():
        settings = " ".join(f"{name}={value}" for name, value in allocator.KEPT.items())
        checks.append(("memory", "ok", f"`dambench run` starts itself anew with {settings}, so that glibc keeps pages"))
    else:
        why = f"{allocator.settings()} is set" if allocator.settings() else "this is not Linux"
        checks.append(("memory", "ok", f"`dambench run` leaves the allocator as it is: {why}"))
    race = (3, 7, 0) <= sqlite3.sqlite_version_info < (3, 51, 3)
    note = ", has the WAL-reset race of 3.7.0 to 3.51.2: write runs.db with nothing but dambench" if race else ""
    checks.append(("SQLite", "ok", sqlite3.sqlite_version + note))
    try:
        runs.check(path)
        checks.append(("database", "ok", _where(path)))
    except BadInput as error:
        checks.append(("database", "wrong", str(error)))
    try:
        place = files.home()
    except BadInput as error:
        return [*checks, ("files", "wrong", str(error))]
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = f"{size(shutil.disk_usage(existing).free)} free"
    writable = os.access(existing, os.W_OK)
    disk = disk_of(place)
    shared = ", a network disk: sets and checkpoints are safe there, and a run can be resumed on another host"
    location = f"{place}, on {disk}, {free}{shared if disk.why else ''}{'' if writable else ', not writable'}"
    checks.append(("files", "ok" if writable else "wrong", location))
    checks.append(("detached runs", "ok", f"end with {', '.join(ends_of_runs())}"))
    raw = os.environ.get("DAMBENCH_DATA")
    checks.append(
        ("raw data", "ok", raw or "DAMBENCH_DATA is not set: standard sets are downloaded, others need --data")
    )
    return checks


def _from_outside() -> list[Check]:
    """What other packages add, and what of it cannot be used."""
    checks: list[Check] = []
    for kind in registry.KINDS:
        plugins = registry.load_all(kind)
        checks += [(kind, "wrong", fault) for fault in (*plugins.faults.values(), *plugins.unused)]
        others = [name for name in plugins.usable if not registry.is_built_in(kind, name)]
        checks += [(kind, "ok", f"from other packages: {', '.join(others)}")] if others else []
    return checks


def _where(path: Path) -> str:
    """Where runs are recorded, and why there."""
    disk = disk_of(path.absolute().parent)
    if why := journal.network_disk_reason(path):
        base = f", with the runs of {path.absolute()}, which is only read" if path.exists() else ""
        return (
            f"each run is a file in {journal.folder(path).absolute()}{base}; this host's index is "
            f"{journal.index_path(path)}. Why: {why}. SQLite cannot be shared there (DAMBENCH_DISK=local or network "
            "says otherwise than the mount table)"
        )
    return f"{path.absolute()}, on {disk}{'' if path.exists() else ', not made yet'}"


def ends_of_runs(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> list[str]:
    """Events that end runs which their terminal does not, as far as this machine tells."""
    reasons = ["a restart"]
    for name, called in {"SLURM_JOB_ID": "Slurm", "PBS_JOBID": "PBS", "LSB_JOBID": "LSF"}.items():
        if job := environ.get(name):
            reasons.append(f"this {called} job {job}")
            break
    inside = [root / ".dockerenv", root / "run/.containerenv"]
    if any(sign.exists() for sign in inside) or {"KUBERNETES_SERVICE_HOST", "container"} & environ.keys():
        reasons.append("this container")
    if kills := logind_kills(root):
        reasons.append(kills)
    return reasons


def logind_kills(root: Path = Path("/")) -> str:
    """Whether logind ends the processes of a user who leaves; empty: it does not, or is not there."""
    if not (root / "run/systemd/users").is_dir():
        return ""
    manager = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"]
    answer = ""
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["busctl", "--system", "get-property", *manager, "KillUserProcesses"],
            capture_output=True,
            text=True,
            timeout=5,
        ).stdout.strip()
    if answer == "b false":
        return ""
    if (root / "var/lib/systemd/linger" / _user()).exists():
        return ""
    how = "`loginctl enable-linger` prevents it, and so does `systemd-run --user --scope dambench run …`"
    if answer == "b true":
        return f"your last session here (logind's KillUserProcesses is on: {how})"
    return f"your last session here, if logind's KillUserProcesses is on, which it does not tell ({how})"


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError):
        return str(os.getuid())
