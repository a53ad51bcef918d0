"""A cluster of two nodes on this machine, of Debian's packages, each node with a hostname of its own."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "unshare")
MISSING = "apt-get install slurmctld slurmd slurm-client munge"

_CONFIGURATION = """
ClusterName=tiny
SlurmctldHost=localhost
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/%n
SlurmctldPidFile={place}/controller.pid
SlurmdPidFile={place}/%n.pid
SlurmctldLogFile={place}/controller.log
SlurmdLogFile={place}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
TaskProlog={place}/prolog
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=10
MinJobAge=300
ReturnToService=2
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=1000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=10
"""


class NotHere(Exception):
    """Why there can be no such cluster on this machine."""


class TinySlurm:
    """A running cluster."""

    def __init__(self, place: Path):
        self.place = place
        self.configuration = place / "slurm.conf"
        self._environ = os.environ | {"SLURM_CONF": str(self.configuration)}

    def ask(self, *words: str) -> str:
        return subprocess.run(words, env=self._environ, capture_output=True, text=True, timeout=60).stdout

    def start_node(self, name: str) -> None:
        (self.place / name).mkdir(exist_ok=True)
        script = f"hostname {name} && exec slurmd -N {name}"
        subprocess.run(["unshare", "--uts", "sh", "-c", script], env=self._environ, check=True, timeout=60)

    def kill_node(self, name: str) -> None:
        """End a node as a power cut would: its daemon, and every process of its jobs."""
        for pid in [*self._processes_of(name), self._pid(f"{name}.pid")]:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)

    def _processes_of(self, name: str) -> list[int]:
        """The processes that see this hostname: those in the namespace of its daemon."""
        space = os.readlink(f"/proc/{self._pid(f'{name}.pid')}/ns/uts")
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(path / "ns" / "uts") == space:
                    found.append(int(path.name))
        return found

    def _pid(self, file: str) -> int:
        return int((self.place / file).read_text())

    def wait_for(self, what: str, *, seconds: float = 60.0) -> None:
        """Wait until `sinfo` says so of both nodes."""
        until = time.monotonic() + seconds
        while set(self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split()) != {what}:
            if time.monotonic() > until:
                raise NotHere(f"the nodes are not {what}: {self.ask('sinfo')}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.ask("scancel", "-p", "main")
        self.ask("scancel", "-p", "urgent")
        for name in ("n1", "n2"):
            with suppress(OSError, ValueError):
                self.kill_node(name)
        for file in ("controller.pid", "munge.pid"):
            with suppress(OSError, ValueError):
                os.kill(self._pid(file), 15)


@contextmanager
def tiny_slurm(place: Path) -> Iterator[TinySlurm]:
    """Start a cluster for a block.

    Raises:
        NotHere: it cannot be had on this machine.
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise NotHere(f"there is no {', '.join(missing)}: {MISSING}")
    if os.getuid() != 0:
        raise NotHere("only root can give two nodes on one machine different hostnames")
    cluster = TinySlurm(place)
    (place / "state").mkdir()
    (place / "munge.key").write_bytes(os.urandom(128))
    (place / "munge.key").chmod(0o600)
    first, second, controller = _free_ports(3)
    cluster.configuration.write_text(
        _CONFIGURATION.format(
            place=place, user="root", host=socket.gethostname(), first=first, second=second, controller=controller
        )
    )
    # Each node has a disk of its own for its index of the journal.
    (place / "prolog").write_text(f"#!/bin/sh\necho export XDG_CACHE_HOME={place}/$SLURMD_NODENAME/cache\n")
    (place / "prolog").chmod(0o755)
    try:
        munge = [f"--{part}-file={place}/munge.{part}" for part in ("key", "pid", "log", "seed")]
        for words in (["munged", "--force", f"--socket={place}/munge.socket", *munge], ["slurmctld", "-c"]):
            said = subprocess.run(words, env=cluster._environ, capture_output=True, text=True, timeout=60)
            if said.returncode:
                raise NotHere(f"{words[0]} does not start: {said.stderr.strip()[-200:]}")
        for name in ("n1", "n2"):
            cluster.start_node(name)
        cluster.wait_for("idle")
        yield cluster
    finally:
        cluster.stop()


def submitit_in(folder: Path) -> Path:
    """Install submitit into a folder of its own, for PYTHONPATH: the tests' environment has none, as a user's may.

    Raises:
        NotHere: it cannot be had.
    """
    if importlib.util.find_spec("submitit") is None:
        words = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
        said = subprocess.run([*words, "submitit>=1.5"], capture_output=True, text=True, timeout=300)
        if said.returncode:
            raise NotHere(f"submitit cannot be installed: {said.stderr.strip()[-200:]}")
    return folder


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
