"""Slurm: queued runs as jobs of a cluster, handed over by submitit, many at once as one array.

What a job does on its node is `slurm_job`'s affair. Here jobs are submitted, looked for and cancelled, with Slurm's own
words. Nothing is known here that is not on the shared disk too: whoever asks next finds the same jobs again.
"""

import getpass
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.runner import slurm_job
from dambench.runner.slurm_job import JobSpec

INSTALL = 'pip install "dambench[slurm]"'
MOST_IN_ARRAY = 1000
"""Jobs of one array: Slurm takes 1,001 unless its administrator says otherwise (MaxArraySize)."""
COMMAND_SECONDS = 60.0
"""After which a command of Slurm's that does not answer is given up."""
ENDLESS = 10**6
"""How often submitit puts a job back whose time was up: whether it comes further is looked after by the job itself."""

PENDING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
TAKEN_AWAY = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED")
"""Ends that are not the run's own: it goes back, and is resumed."""
MEANING = {
    "TIMEOUT": "its time was up",
    "PREEMPTED": "it had to make room for another",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "OUT_OF_MEMORY": "it needed more memory than it was given (--mem)",
    "DEADLINE": "its deadline came before its end",
    "CANCELLED": "it was cancelled",
}
"""What Slurm's states mean to whoever waits for a run."""


class SlurmSettings(Struct, frozen=True):
    """What is asked of the cluster for each run, as `sbatch` takes it."""

    partition: str = ""
    minutes: int = 60
    """The time of one slice: a run that takes longer is put back and goes on."""
    account: str = ""
    qos: str = ""
    gres: str = ""
    gpus: int = 0
    memory: str = ""
    constraint: str = ""
    grace: int = 120
    """Seconds before the end of its time at which a run is asked to save its state."""
    flags: dict[str, str] = {}
    """Other options of sbatch, by name; an empty text: without a value."""


class JobLook(NamedTuple):
    """A job as the cluster sees it."""

    state: str
    """Slurm's word: PENDING, RUNNING, TIMEOUT, …"""
    reason: str = ""
    """Why it waits, by Slurm: Priority, Resources, QOSMaxJobsPerUserLimit, …"""
    node: str = ""


class Cluster(Protocol):
    """Where jobs are handed to."""

    def submit(self, specs: Sequence[JobSpec], settings: SlurmSettings) -> list[str]:
        """Hand over jobs that need the same, as one array. Returns their ids."""

    def look(self, jobs: Sequence[str]) -> dict[str, JobLook]:
        """Look up jobs. One that is missing in the answer is not known any more."""

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs: those that run are asked to stop, and have a while for it."""


def minutes_of(text: str) -> int:
    """The minutes of a time limit, as Slurm writes it (`90`, `1:30:00`, `2-12`) or as people do (`90m`, `36h`, `2d`).

    Raises:
        BadInput: it is none of these, or no time at all.
    """
    minutes = 0.0
    if match := re.fullmatch(r"(\d{1,6})\s*(m|min|h|d)", text.strip()):
        minutes = int(match[1]) * {"m": 1, "min": 1, "h": 60, "d": 1440}[match[2]]
    elif match := re.fullmatch(r"(\d{1,4})-(\d{1,3})(?::(\d{1,3}))?(?::(\d{1,3}))?", text.strip()):
        days, hours, of_hour, seconds = (int(part or 0) for part in match.groups())
        minutes = days * 1440 + hours * 60 + of_hour + seconds / 60
    elif match := re.fullmatch(r"(?:(\d{1,5}):)?(\d{1,6}):(\d{1,3})", text.strip()):
        hours, of_hour, seconds = (int(part or 0) for part in match.groups())
        minutes = hours * 60 + of_hour + seconds / 60
    elif re.fullmatch(r"\d{1,7}", text.strip()):
        minutes = int(text)
    if minutes <= 0:
        raise BadInput(
            f"--time {display(text, 40)!r} is no time: 90m, 36h or 2d, or as Slurm has it, minutes, 1:30:00 or 2-12."
        )
    return -(-round(minutes * 60) // 60)


def check(settings: SlurmSettings) -> None:
    """See that runs could be handed over, and that the cluster would take them, before anything is queued.

    Raises:
        BadInput: submitit or Slurm is not here, or Slurm refuses what is asked of it, by its own words.
    """
    if importlib.util.find_spec("submitit") is None:
        raise BadInput(f"--executor slurm needs submitit, which is not installed: {INSTALL}")
    for program in ("sbatch", "squeue", "scancel", "srun"):
        if shutil.which(program) is None:
            raise BadInput(f"--executor slurm needs Slurm's {program}, which is not on the path of this machine.")
    if 2 * settings.grace > 60 * settings.minutes:
        raise BadInput(
            f"--grace {settings.grace} is more than half of --time, {settings.minutes} min: too little is left to work."
        )
    said = _command(["sbatch", "--test-only", *_as_flags(_parameters(settings, 1)), "--wrap", "true"])
    if said.returncode:
        raise BadInput(f"Slurm would not take such a job: {_first_line(said)}")


def _parameters(settings: SlurmSettings, cores: int) -> dict[str, Any]:
    """What sbatch is told, by submitit's names."""
    named = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "gres": settings.gres,
        "gpus_per_node": settings.gpus,
        "mem": settings.memory,
        "constraint": settings.constraint,
    }
    return {name: value for name, value in named.items() if value} | {
        "time": settings.minutes,
        "cpus_per_task": cores,
        "additional_parameters": {"requeue": True} | {name: value or True for name, value in settings.flags.items()},
    }


def _as_flags(parameters: Mapping[str, Any]) -> list[str]:
    flat = dict(parameters) | parameters["additional_parameters"]
    del flat["additional_parameters"]
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in sorted(flat.items())
    ]


class SlurmCluster:
    """The cluster that this machine belongs to.

    Args:
        folder: where submitit keeps its files: a disk that all nodes share.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def submit(self, specs: Sequence[JobSpec], settings: SlurmSettings) -> list[str]:
        """Hand over jobs that need the same, as one array.

        Raises:
            BadInput: Slurm refuses them, by its own words.
        """
        from submitit import SlurmExecutor

        cores = max(1, specs[0].threads)
        executor = SlurmExecutor(self.folder, max_num_timeout=ENDLESS)
        executor.update_parameters(
            **_parameters(settings, cores),
            job_name="dambench",
            signal_delay_s=settings.grace,
            array_parallelism=MOST_IN_ARRAY,
            stderr_to_stdout=True,
            srun_args=[f"--cpus-per-task={cores}"],  # since Slurm 22.05 srun does not ask sbatch for it
        )
        return handed_over(executor, specs)

    def look(self, jobs: Sequence[str]) -> dict[str, JobLook]:
        """Look up jobs: in Slurm's queue, where they stay for some minutes after their end, and then in its accounts.

        Raises:
            BadInput: Slurm does not answer.
        """
        wanted = set(jobs)
        said = _command(["squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", "%i|%T|%r|%N"])
        if said.returncode:
            raise BadInput(f"Slurm does not say how its jobs stand: {_first_line(said)}")
        found = _looks(said.stdout, wanted)
        if missing := wanted - found.keys():
            arrays = sorted({job.partition("_")[0] for job in missing})
            accounts = ["sacct", "-n", "-X", "-P", "-j", ",".join(arrays), "-o", "JobID,State,Reason,NodeList"]
            if shutil.which("sacct"):
                # Where a cluster keeps no accounts it says so, and nothing is known of jobs that are long gone.
                found = _looks(_command(accounts).stdout, missing) | found
        return found

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs. What Slurm does not know any more has ended already."""
        for start in range(0, len(jobs), 500):
            _command(["scancel", *jobs[start : start + 500]])


def handed_over(executor: Any, specs: Sequence[JobSpec]) -> list[str]:
    """Hand jobs to an executor of submitit's. Returns their ids.

    Raises:
        BadInput: it refuses them.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        if len(specs) == 1:
            return [str(executor.submit(slurm_job.SlurmJob(specs[0])).job_id)]
        with executor.batch():
            jobs = [executor.submit(slurm_job.SlurmJob(spec)) for spec in specs]
        return [str(job.job_id) for job in jobs]
    except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise BadInput(f"Slurm did not take the jobs: {display(lines[-1], 300)}") from error


def _looks(text: str, wanted: "set[str]") -> dict[str, JobLook]:
    found = {}
    for line in text.splitlines():
        job, _, rest = line.partition("|")
        if job in wanted and rest.count("|") >= 2:
            state, reason, node = rest.split("|", 2)
            # (`CANCELLED by 1000`.)
            found[job] = JobLook(state.split(" ")[0], "" if reason == "None" else display(reason, 100), node)
    return found


def _command(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Ask Slurm.

    Raises:
        BadInput: it does not answer.
    """
    try:
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise BadInput(f"Slurm's {words[0]} did not answer within {COMMAND_SECONDS:.0f} s.") from None
    except OSError as error:
        raise BadInput(f"Slurm's {words[0]} cannot be run: {error.strerror}.") from None


def _first_line(said: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in (said.stderr + said.stdout).splitlines() if line.strip()]
    text = re.sub(r"^\w+: (error: |fatal: )?", "", lines[0]) if lines else f"exit code {said.returncode}"
    return display(text, 300)
