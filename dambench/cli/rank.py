"""The program of a rank but the first, of a run that several processes share; and how the first one joins them."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dambench.core import registry
from dambench.core.errors import BadInput, RankLost
from dambench.runner.ranks import MEETING, TORCHRUN, RankProcesses, reason_file

if TYPE_CHECKING:
    import torch

    from dambench.engine.job import Job
    from dambench.training.ranks import Ranks

OVER = "over"
"""In the store of torchrun: the first rank has ended, and there will be no more runs."""

POLL_SECONDS = 0.05

_RUNS = count()
"""The numbers of the runs of this process that torchrun's ranks share: each meets in a part of the store of its own."""


def joiner(say: Callable[[str], None]) -> "Callable[[Job], Ranks]":
    """How the first rank of a job gets the others: it starts them, or torchrun has."""

    def join(job: "Job") -> "Ranks":
        from dambench.engine.sharing import description
        from dambench.training.ranks import Ranks, meeting_place, prefixed

        size = len(job.config.execution.devices)
        if by_torchrun():
            place = prefixed(meeting_place(), next(_RUNS))
            place.set("job", description(job))
            return Ranks(place, 0, size, job.policy.device)
        processes = RankProcesses(size)
        os.environ.update(processes.environment)
        try:
            processes.start()
            place = prefixed(meeting_place(), 0)
            place.set("job", description(job))
            say(f"{size} processes share the classes")
            ranks = Ranks(place, 0, size, job.policy.device, processes.lost)
        except BaseException:
            processes.close()
            raise
        finally:
            for name in processes.environment:
                del os.environ[name]
        ranks.on_close(processes.close)
        return ranks

    return join


def by_torchrun() -> bool:
    """Whether torchrun has started this process as one of several."""
    return TORCHRUN in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def ranks_of_torchrun(asked: int | None) -> int | None:
    """The number of ranks of a run: torchrun's, where that has started us.

    Raises:
        BadInput: another was asked for.
    """
    if not by_torchrun():
        return asked
    there = int(os.environ["WORLD_SIZE"])
    if asked not in (None, there):
        raise BadInput(f"--ranks {asked} was asked for, and torchrun has started {there} processes.", field="ranks")
    return there


def main() -> int:
    """Be a rank but the first, until its run is over.

    Returns:
        The exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the first one stops, and with it all
    rank, run = int(os.environ["RANK"]), 0
    if MEETING in os.environ:
        threading.Thread(target=_end_with_the_first, daemon=True).start()
    with registry.stdout_to_stderr():
        from dambench.training.ranks import meeting_place

        place = meeting_place()
        while True:
            try:
                if not _one_run(place, rank, run):
                    return 0
            except RankLost as error:
                if MEETING in os.environ:
                    return _fail(rank, str(error))
                # The first may have ended this run and begin another; if it is gone, torchrun ends us all.
            except Exception as error:
                kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
                return _fail(rank, f"{kind}{str(error).strip() or 'no message'}")
            if MEETING in os.environ:
                return 0
            run += 1


def _one_run(place: Any, rank: int, number: int) -> bool:
    """Take part in the run of that number; whether there was one."""
    from dambench.engine.sharing import follow
    from dambench.training.ranks import Ranks, prefixed

    own = prefixed(place, number)
    if MEETING not in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # torchrun's, whose first rank may be gone
    while not own.check(["job"]):
        if _is_over(place):
            return False
        time.sleep(POLL_SECONDS)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def join(device: "torch.device") -> "Ranks":
        return Ranks(own, rank, int(os.environ["WORLD_SIZE"]), device)

    follow(join, rank, own.get("job"), lambda text: print(text, file=sys.stderr, flush=True))
    return True


def _is_over(place: Any) -> bool:
    try:
        return MEETING not in os.environ and bool(place.check([OVER]))
    except RuntimeError:  # the store has gone with the first rank
        return True


def under_torchrun(command: Callable[[], NoReturn]) -> NoReturn:
    """Be the rank that torchrun has made this process: the first has the command, the others what that tells them."""
    if not by_torchrun():
        command()
    if int(os.environ["RANK"]):
        sys.exit(main())
    try:
        command()
    finally:
        from dambench.training.ranks import meeting_place

        with suppress(RuntimeError):
            meeting_place().set(OVER, "yes")


def _fail(rank: int, why: str) -> int:
    print(f"dambench: rank {rank}: {why}", file=sys.stderr, flush=True)
    if meeting := os.environ.get(MEETING):
        with suppress(OSError):
            reason_file(Path(meeting), rank).write_text(why)
    return 1


def _end_with_the_first() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
