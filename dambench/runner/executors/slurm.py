"""Slurm as the executor of a queue: what a worker asks for, in terms of jobs."""

import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tomli_w

from dambench.core import files
from dambench.core.errors import BadInput, unknown
from dambench.core.sanitize import display
from dambench.runner import slurm, slurm_job
from dambench.runner.executors import Outcome, Site, Wishes, environment_of
from dambench.runner.slurm import MEANING, PENDING, RUNNING, TAKEN_AWAY, Cluster, JobLook, SlurmCluster, SlurmSettings
from dambench.runner.slurm_job import CurrentJob, JobRecord, JobSpec
from dambench.store import records
from dambench.store.queue import Queued

SLOTS = 1000
"""Runs that are in Slurm's queue at once, if nothing else is said: what turn they get is Slurm's affair."""
LOOK_SECONDS = 5.0
"""How often Slurm is asked how its jobs stand. (Its controller is everybody's.)"""
GATHER_SECONDS = 1.0
"""For which no run has come before those that have are handed over, as one array."""
AGAIN_SECONDS = 30.0
"""Before jobs that Slurm would not take just now are offered again."""
MISSING_SECONDS = 120.0
"""For which a job's files, or the job, may not be seen: clients of a network disk believe for a while that a folder is
as it was, and Slurm's accounts lag behind."""
FOR_NOW = ("limit", "unable to contact", "timed out", "temporarily", "did not answer", "queue is full", "slurmdbd")
"""What Slurm's refusals say that another time would not get."""


@dataclass
class SlurmHandle:
    """A queued run as a job of Slurm's."""

    queued: Queued
    spec: JobSpec
    job: str = ""
    """Slurm's id; empty: it is to be handed over."""
    look: JobLook = field(default_factory=lambda: JobLook("PENDING"))
    seen: float = field(default_factory=lambda: time.monotonic())
    """When the cluster last knew of it, or it was handed over."""
    ended: float = 0.0
    """When the cluster was first heard to say that it has ended."""
    asked: float = 0.0
    """When it was last asked to stop."""
    refused: str = ""
    """What Slurm said to it, and will not say otherwise."""


class SlurmQueue:
    """The executor.

    Args:
        site: the database, which must lie on a disk that all nodes share.
        cluster: None: the one that this machine belongs to.
    """

    def __init__(self, site: Site, settings: SlurmSettings, slots: int = SLOTS, cluster: Cluster | None = None):
        self.slots = slots
        self.devices: Sequence[str] = [f"Slurm{f', partition {settings.partition}' if settings.partition else ''}"]
        self.folder = folder_of(site.path)
        with files.writing("The jobs", self.folder):
            (self.folder / "jobs").mkdir(parents=True, exist_ok=True)
        self._site, self._settings = site, settings
        self._cluster = cluster or SlurmCluster(self.folder / "jobs")
        self._waiting: list[SlurmHandle] = []
        """To be handed over."""
        self._handed: dict[str, SlurmHandle] = {}
        self._gathered = self._looked = self._not_before = 0.0

    def fits(self, queued: Queued) -> bool:
        return len(self._waiting) + len(self._handed) < self.slots

    def start(self, queued: Queued) -> SlurmHandle:
        if queued.device.startswith("cuda") and not (
            self._settings.gres or self._settings.gpus or self._settings.flags
        ):
            raise BadInput(f"It asks for {queued.device}, and its job would have no GPU: --gres gpu:1, or --gpus 1.")
        if (found := self._found_again(queued)) is not None:
            return found
        handle = SlurmHandle(queued, self._spec(queued, secrets.token_hex(8)))
        with files.writing("The jobs", self.folder):
            # From now on a job that an earlier worker handed over, and nobody knows of, ends at once.
            slurm_job.write(slurm_job.current_path(self.folder, queued.run), self._current(handle))
        self._waiting.append(handle)
        self._gathered = time.monotonic()
        return handle

    def poll(self, handle: SlurmHandle) -> Outcome | None:
        self._hand_over()
        self._look()
        if handle.refused:
            return self._over(handle, "failed", handle.refused)
        if not handle.job:
            return self._over(handle, "stopped", "it was not handed over yet") if handle.asked else None
        return self._outcome(handle)

    def stop(self, handle: SlurmHandle) -> None:
        now = time.monotonic()
        if handle.job and (not handle.asked or now - handle.asked > AGAIN_SECONDS):
            self._cluster.cancel([handle.job])
        handle.asked = now

    def close(self) -> None:
        """Let go of everything: what Slurm has goes on, and is found again."""

    def standing(self, handle: SlurmHandle) -> str:
        """How a run stands by Slurm's word, where it does not simply run; empty: it does."""
        if not handle.job:
            return handle.look.reason or "is handed over to Slurm"
        if handle.look.state in PENDING:
            reason = f": {handle.look.reason}" if handle.look.reason else ""
            return f"Slurm job {handle.job} waits{reason}"
        return "" if handle.look.state == "RUNNING" else f"Slurm job {handle.job}: {handle.look.state.lower()}"

    # What the jobs need.

    def _spec(self, queued: Queued, token: str) -> JobSpec:
        path = self._site.path.absolute()
        own = {name: value for name, value in os.environ.items() if name.startswith("DAMBENCH_")}
        return JobSpec(
            folder=str(self.folder),
            uid=queued.run,
            token=token,
            db=str(path),
            begin=tuple(self._words(queued, path)),
            threads=queued.threads,
            limit_seconds=60.0 * self._settings.minutes,
            environ=own | {"DAMBENCH_HOME": str(files.home().absolute())} | environment_of(queued),
        )

    def _words(self, queued: Queued, path: Path) -> list[str]:
        """The command that begins a run, on any node."""
        if queued.command == "run":
            request = self.folder / f"{queued.run}.toml"
            with files.writing("The request", self.folder):
                files.write_whole(request, tomli_w.dumps(queued.request).encode())
            return ["run", str(request), "--headless", "--db", str(path)]
        words = [str(word) for word in queued.request.get("words", [])]
        if queued.command == "experts":
            return ["experts", "train", *words]
        made = self._site.store.with_uid(str(queued.request.get("of", "")))
        if made is None:
            raise BadInput("The run whose set is to be evaluated is not in the database.")
        return ["evaluate", made.id, *words, "--db", str(path)]

    @staticmethod
    def _current(handle: SlurmHandle) -> CurrentJob:
        return CurrentJob(handle.spec.token, handle.job, records.now())

    def _found_again(self, queued: Queued) -> SlurmHandle | None:
        """The job that an earlier worker handed over for this run, if it has not ended."""
        current = slurm_job.read(slurm_job.current_path(self.folder, queued.run), CurrentJob)
        if current is None or not current.job:
            return None
        look = self._cluster.look([current.job]).get(current.job)
        if look is None or look.state not in PENDING + RUNNING:
            return None
        handle = SlurmHandle(queued, self._spec(queued, current.token), current.job, look)
        self._handed[current.job] = handle
        return handle

    # With the cluster.

    def _hand_over(self) -> None:
        """Hand over what has gathered, as arrays of jobs that need the same."""
        self._waiting = [handle for handle in self._waiting if not handle.asked]
        now = time.monotonic()
        if not self._waiting or now < self._not_before:
            return
        if now - self._gathered < GATHER_SECONDS and len(self._waiting) < slurm.MOST_IN_ARRAY:
            return
        threads = self._waiting[0].spec.threads
        group = [one for one in self._waiting if one.spec.threads == threads][: slurm.MOST_IN_ARRAY]
        try:
            jobs = self._cluster.submit([one.spec for one in group], self._settings)
        except BadInput as error:
            if any(word in str(error).lower() for word in FOR_NOW):
                self._not_before = now + AGAIN_SECONDS
                for one in group:
                    one.look = JobLook("PENDING", str(error))
                return
            for one in group:
                one.refused = str(error)
            jobs = []
        chosen = {id(one) for one in group}
        self._waiting = [one for one in self._waiting if id(one) not in chosen]
        for one, job in zip(group, jobs, strict=False):
            one.job, one.seen = job, time.monotonic()
            self._handed[job] = one
            with files.writing("The jobs", self.folder):
                slurm_job.write(slurm_job.current_path(self.folder, one.queued.run), self._current(one))

    def _look(self) -> None:
        now = time.monotonic()
        if not self._handed or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            looks = self._cluster.look(list(self._handed))
        except BadInput:  # its controller is being restarted: nothing is known, and nothing has ended
            for handle in self._handed.values():
                handle.seen += LOOK_SECONDS
            return
        for job, look in looks.items():
            handle = self._handed[job]
            handle.look, handle.seen = look, now
            handle.ended = 0.0 if look.state in PENDING + RUNNING else handle.ended or now

    def _outcome(self, handle: SlurmHandle) -> Outcome | None:
        now = time.monotonic()
        missing = now - handle.seen > 2 * LOOK_SECONDS
        if not handle.ended and not missing:
            return None
        record = slurm_job.read(slurm_job.record_path(self.folder, handle.queued.run, handle.spec.token), JobRecord)
        said = record.outcome if record else ""
        if said == "finished":
            return self._over(handle, "finished", run=record.run if record else "")
        if said == "failed":
            return self._over(handle, "failed", record.reason if record else "")
        if missing and now - handle.seen < MISSING_SECONDS:
            return None
        state = "" if missing else handle.look.state
        if state == "COMPLETED" and not said and now - handle.ended < MISSING_SECONDS:
            return None
        meaning = MEANING.get(state, f"it ended as {state}" if state else "Slurm does not know it any more")
        because = f"Slurm job {handle.job}: {meaning}"
        by_hand = said == "stopped" and state == "COMPLETED" and record is not None and not record.told
        if handle.asked or by_hand or state == "CANCELLED":
            return self._over(handle, "stopped", because)
        if state in ("OUT_OF_MEMORY", "DEADLINE"):
            return self._over(handle, "failed", f"{because}.")
        if state in TAKEN_AWAY or said in ("stopped", "lost") or not state:
            return self._over(handle, "lost", because)
        return self._over(handle, "failed", f"{because} before the run began: {self._last_line(handle.job)}")

    def _last_line(self, job: str) -> str:
        log = self.folder / "jobs" / f"{job}_0_log.out"
        try:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            return f"there is no {str(log)!r}; do the nodes see this folder?"
        return display(lines[-1], 300) if lines else f"{str(log)!r} is empty."

    def _over(
        self,
        handle: SlurmHandle,
        state: Literal["finished", "failed", "stopped", "lost"],
        reason: str = "",
        run: str = "",
    ) -> Outcome:
        self._handed.pop(handle.job, None)
        if handle in self._waiting:
            self._waiting.remove(handle)
        if state == "finished":
            self._sweep(handle)
        return Outcome(state, display(reason, 400), run)

    def _sweep(self, handle: SlurmHandle) -> None:
        """Remove what nobody needs of a run that has finished; what it printed stays."""
        for path in (
            slurm_job.current_path(self.folder, handle.queued.run),
            slurm_job.record_path(self.folder, handle.queued.run, handle.spec.token),
            self.folder / f"{handle.queued.run}.toml",
            self.folder / "jobs" / f"{handle.job}_submitted.pkl",
            self.folder / "jobs" / f"{handle.job}_0_result.pkl",
        ):
            path.unlink(missing_ok=True)


OPTIONS = ("partition", "time", "account", "qos", "gres", "gpus", "mem", "constraint", "grace", "flag")
"""What `--executor slurm` takes, by the name of its flag."""


def open(site: Site, wishes: Wishes) -> SlurmQueue:
    """Open it.

    Raises:
        BadInput: submitit or Slurm is missing, an option is not known or not what it can be, or Slurm would not take
            such a job.
    """
    if wishes.devices:
        raise BadInput("--device is chosen by Slurm: ask it for GPUs with --gres gpu:1, or --gpus 1.")
    settings = settings_of(wishes.options)
    slurm.check(settings)
    return SlurmQueue(site, settings, wishes.workers or SLOTS)


def settings_of(options: Mapping[str, str]) -> SlurmSettings:
    """Read the options of a command.

    Raises:
        BadInput: one is not known, or is not what it can be.
    """
    for name in options:
        if name not in OPTIONS:
            raise unknown("option of the Slurm executor", name, OPTIONS)
    flags = {}
    for flag in filter(None, options.get("flag", "").split("\n")):
        name, _, value = flag.removeprefix("--").partition("=")
        if not re.fullmatch("[a-z][a-z0-9-]*", name):
            raise BadInput(f"--slurm-flag {display(flag, 60)!r} is no option of sbatch: nice=100, or exclusive.")
        flags[name] = value
    return SlurmSettings(
        partition=options.get("partition", ""),
        minutes=slurm.minutes_of(options.get("time", "60")),
        account=options.get("account", ""),
        qos=options.get("qos", ""),
        gres=options.get("gres", ""),
        gpus=_number("gpus", options.get("gpus", "0")),
        memory=options.get("mem", ""),
        constraint=options.get("constraint", ""),
        grace=_number("grace", options.get("grace", "120")),
        flags=flags,
    )


def _number(name: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise BadInput(f"--{name} {display(text, 40)!r} is no whole number.")
    return int(text)


def folder_of(path: Path) -> Path:
    """Where what the jobs of a database need lies: beside it."""
    return path.absolute().parent / f"{path.name}.slurm"
